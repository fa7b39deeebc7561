"""`reports/releases/<name>.md`: a release for whoever reviews it, from its record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from driftline.report.escape import Safe
from driftline.report.figures import percent
from driftline.report.markdown import Detail, environment
from driftline.report.settings import flatten, runtime_matrix
from driftline.schema.cells import CellRecord, CellSpec, Outcome
from driftline.schema.gate import GateReport, GateVerdict
from driftline.schema.lineage import HopEvidence
from driftline.schema.release import (
    NotChecked,
    ReleasedArtifact,
    ReleasedCell,
    ReleasedScore,
    ReleaseRecord,
)
from driftline.schema.values import canonical_json

DETAIL = Detail(rows=100_000, characters=1_200)
"""A release is read once, by somebody who signs for it: nothing is left out for room."""
STATES = ("ok", "unstable", "skipped", "error")
LONG = 8
"""Entries of a list above which an environment's row only counts them."""


@dataclass(frozen=True)
class ArtifactRow:
    """One artifact, with what is listed of it as text."""

    artifact: ReleasedArtifact
    census: str
    arguments: str
    template: Safe
    """What its template is to the source's; empty where there is nothing to say."""


@dataclass(frozen=True)
class ScoreRow:
    """One cell's score on one evalset, with its interval in percent."""

    cell: ReleasedCell
    score: ReleasedScore
    share: Safe
    interval: Safe


@dataclass(frozen=True)
class EnvironmentRow:
    """One environment and everything it says, by name."""

    sha256: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Count:
    """How many cells ended in one state."""

    n: int
    state: str


def render(record: ReleaseRecord) -> str:
    """The release as Markdown; the same record gives the same bytes."""
    page = environment(DETAIL)
    return page.get_template("release.md.jinja").render(**_context(record))


def _context(record: ReleaseRecord) -> dict[str, Any]:
    artifacts = _artifact_rows(record.artifacts)
    return {
        "release": record,
        "states": [Count(n, state) for state, n in _states(record.cells).items() if n],
        "sources": [_origin(record, row.artifact) for row in artifacts if _is_pinned(row)],
        "artifacts": artifacts,
        "made": [row for row in artifacts if not _is_pinned(row)],
        "matrix": runtime_matrix([_as_record(cell) for cell in record.cells]),
        "environments": _environment_rows(record.environments),
        "decode": canonical_json(record.params.get("decode")),
        "corpora": sorted(record.corpora.items()),
        "scores": _score_rows(record.cells),
        "silent": [cell for cell in record.cells if not cell.scores],
        "hops": _ranked(record.hops),
        "findings": record.findings,
        "gate": record.gate,
        "gate_rows": _gate_rows(record.gate),
        "gate_passed": record.gate.passed if record.gate else 0,
        "not_cells": _only(record.skipped, "cell"),
        "not_hops": [each for each in record.skipped if each.what != "cell"],
    }


def _states(cells: Sequence[ReleasedCell]) -> dict[str, int]:
    states = [cell.state for cell in cells]
    return {state: states.count(state) for state in dict.fromkeys((*STATES, *sorted(states)))}


def _only(rows: Sequence[NotChecked], what: str) -> list[NotChecked]:
    return [row for row in rows if row.what == what]


# -------------------------------------------------------------------------------------- artifacts


@dataclass(frozen=True)
class Origin:
    """A checkpoint or adapter that was pinned, and the place params.yaml names for it."""

    artifact: ReleasedArtifact
    place: str
    revision: str


def _is_pinned(row: ArtifactRow) -> bool:
    return row.artifact.conversion == "pin"


def _origin(record: ReleaseRecord, artifact: ReleasedArtifact) -> Origin:
    """Where a pinned artifact came from: what its own record was told."""
    told = artifact.arguments
    place = told.get("repo") or told.get("path") or record.params.get("source")
    revision = told.get("revision")
    return Origin(
        artifact=artifact,
        place=place if isinstance(place, str) else canonical_json(place),
        revision=revision if isinstance(revision, str) else "",
    )


def _artifact_rows(artifacts: Sequence[ReleasedArtifact]) -> tuple[ArtifactRow, ...]:
    sources = [each.template_sha256 for each in artifacts if each.kind == "source"]
    source = sources[0] if sources else None
    return tuple(
        ArtifactRow(
            artifact=each,
            census=_census(each),
            arguments=canonical_json(each.arguments),
            template=_template(each, source),
        )
        for each in artifacts
    )


def _census(artifact: ReleasedArtifact) -> str:
    """`F32 9, Q8_0 29`: tensors per storage type as found in the files, not the label."""
    types = artifact.census.types if artifact.census else {}
    return ", ".join(f"{name} {count}" for name, count in sorted(types.items()))


def _template(artifact: ReleasedArtifact, source: str | None) -> Safe:
    own = artifact.template_sha256
    if artifact.kind == "source" or (artifact.kind == "adapter" and own is None):
        return Safe("")
    return Safe("the source's") if own == source else Safe("**not the source's**")


# ---------------------------------------------------------------------------------- cells and hops


def _score_rows(cells: Sequence[ReleasedCell]) -> tuple[ScoreRow, ...]:
    return tuple(
        ScoreRow(cell, score, _share(score), _interval(score))
        for cell in cells
        for score in cell.scores
    )


def _share(score: ReleasedScore) -> Safe:
    return Safe("–") if score.accuracy is None else percent(score.accuracy)


def _interval(score: ReleasedScore) -> Safe:
    """`[67.6, 100]` percent."""
    if score.low is None or score.high is None:
        return Safe("–")
    low, high = (f"{100 * bound:.1f}".removesuffix(".0") for bound in (score.low, score.high))
    return Safe(f"[{low}, {high}]")


def _gate_rows(gate: GateReport | None) -> tuple[GateVerdict, ...]:
    """What stops the gate, what was accepted, what it does not judge."""
    return tuple(row for row in gate.checks if row.verdict != "pass") if gate else ()


def _ranked(hops: Sequence[HopEvidence]) -> tuple[HopEvidence, ...]:
    """Most verdicts lost first, then most answers parted, then mean KL; adapters last."""
    return tuple(sorted(hops, key=_rank))


def _rank(hop: HopEvidence) -> tuple[bool, bool, int, int, float]:
    nats = hop.kl.value if hop.kl else 0.0
    adapter = hop.hop.kind == "adapter"
    return not hop.compared, adapter, -len(hop.worse), hop.same_sequence - hop.items, -nats


def _as_record(cell: ReleasedCell) -> CellRecord:
    """As much of the cell's own record as the runtime matrix reads."""
    spec = CellSpec(
        id=cell.id, runtime=cell.runtime, variant="", form="", artifact=cell.artifact, adapter=None
    )
    return CellRecord(
        cell=spec,
        outcome=Outcome(state="ok"),
        artifact_identity=cell.artifact_identity,
        adapter_identity=cell.adapter_identity,
        prompts_sha256="",
        completions_sha256=None,
        floor=None,
        build=cell.build,
        settings=cell.settings,
    )


def _environment_rows(known: Mapping[str, dict[str, JsonValue]]) -> tuple[EnvironmentRow, ...]:
    """Environments, of long lists (what a CPU can do) only how long they are."""
    return tuple(
        EnvironmentRow(sha256, tuple(sorted(flatten(_shortened(facts)).items())))
        for sha256, facts in sorted(known.items())
    )


def _shortened(facts: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        name: f"{len(value)} entries" if isinstance(value, list) and len(value) > LONG else value
        for name, value in facts.items()
    }
