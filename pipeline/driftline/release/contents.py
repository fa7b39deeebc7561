"""A release: the evidence of one commit, gathered into one record; pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from driftline.errors import InputError
from driftline.evidence.lineage import Evidence
from driftline.project.params import NAME
from driftline.project.routes import ROOT_CELL
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.cells import CellRecord
from driftline.schema.gate import GateReport
from driftline.schema.lineage import EvalsetEvidence, HopEvidence, ItemEvidence
from driftline.schema.release import (
    NotChecked,
    ReleasedArtifact,
    ReleasedCell,
    ReleasedScore,
    ReleaseRecord,
)
from driftline.schema.values import sealed

CONFIDENCE = 0.95
DIGITS = 9
"""Decimals of an interval's bounds: libraries of other machines may differ in the last bit."""
ENDINGS = (".json", ".md", ".sigstore", ".tmp")
"""What a name cannot end in: it would be another release's file."""


def checked_name(name: str) -> str:
    """A release's name.

    Raises:
        InputError: it could not be one.
    """
    if not re.fullmatch(NAME, name) or name.endswith(ENDINGS) or name == "HEAD":
        raise InputError(
            f"{name!r} cannot name a release: letters, digits, . _ -, a letter or digit first; "
            f"not HEAD, and none of {', '.join(ENDINGS)} at its end",
            remedy="choose another name, like v1.0",
        )
    return name


def release(
    name: str,
    commit: str,
    evidence: Evidence,
    dvc_lock_sha256: str,
    gate: GateReport | None = None,
) -> ReleaseRecord:
    """The record of a release.

    Args:
        name: of the release.
        commit: the 40-hex commit `evidence` was read at.
        evidence: everything its `reports/lineage` says.
        dvc_lock_sha256: sha256 of its `dvc.lock`.
        gate: the report on this evidence, as of the date of the commit.

    Law: the same arguments give the same record, sealed, wherever and whenever it is made.
    """
    index = evidence.index
    return sealed(
        ReleaseRecord(
            name=name,
            commit=commit,
            driftline=index.driftline,
            index_seal=index.seal,
            dvc_lock_sha256=dvc_lock_sha256,
            params=index.params,
            artifacts=tuple(_artifact(record) for record in parents_first(evidence.artifacts)),
            cells=tuple(_cell(record, evidence) for record in in_order(evidence)),
            evalsets=index.evalsets,
            corpora=index.corpora,
            environments=_environments(evidence),
            hops=index.hops,
            findings=index.findings,
            gate=gate,
            skipped=tuple(_skipped(evidence)),
        )
    )


def parents_first(artifacts: Mapping[str, ArtifactRecord]) -> tuple[ArtifactRecord, ...]:
    """Records by name, each after those it was made from, the source first."""
    ordered: dict[str, ArtifactRecord] = {}

    def add(name: str) -> None:
        if name in artifacts and name not in ordered:
            for parent in artifacts[name].parents:
                add(parent.name)
            ordered[name] = artifacts[name]

    for name in sorted(artifacts, key=lambda name: (artifacts[name].kind != "source", name)):
        add(name)
    return tuple(ordered.values())


def in_order(evidence: Evidence) -> tuple[CellRecord, ...]:
    """Cells as the plan has them: the root, then the child of each hop; any other after those."""
    planned = (ROOT_CELL, *(hop.hop.child for hop in evidence.index.hops))
    names = dict.fromkeys((*planned, *sorted(evidence.cells)))
    return tuple(evidence.cells[name] for name in names if name in evidence.cells)


def _artifact(record: ArtifactRecord) -> ReleasedArtifact:
    facts = record.facts
    return ReleasedArtifact(
        name=record.name,
        kind=record.kind,
        conversion=record.conversion,
        identity=record.identity,
        files=record.files,
        parents=record.parents,
        command=record.command,
        tool=record.tool,
        tool_version=record.tool_version,
        arguments=record.arguments,
        census=record.census,
        tensors_sha256=facts.tensors_sha256 if facts else None,
        metadata_sha256=facts.metadata_sha256 if facts else None,
        tokenizer_sha256=facts.tokenizer_sha256 if facts else None,
        template_sha256=facts.template_sha256 if facts else None,
        code_sha256=record.code_sha256,
        environment_sha256=record.environment_sha256,
        notes=record.notes,
        bytes=sum(file.size for file in record.files),
        seal=record.seal,
    )


def _cell(record: CellRecord, evidence: Evidence) -> ReleasedCell:
    hop = evidence.hops.get(record.cell.id)
    imported = evidence.imports.get(record.cell.id)
    return ReleasedCell(
        id=record.cell.id,
        state=record.outcome.state,
        reason=record.outcome.reason,
        remedy=record.outcome.remedy,
        artifact=record.cell.artifact_name,
        adapter=record.cell.adapter_name,
        artifact_identity=record.artifact_identity,
        adapter_identity=record.adapter_identity,
        runtime=record.cell.runtime,
        build=record.build,
        settings=record.settings,
        decode=record.decode,
        environment_sha256=record.environment_sha256,
        made_at=imported.made_at if imported else "",
        floor=record.floor,
        scores=tuple(_scores(evidence.items(record.cell.id), evidence.index.evalsets)),
        kl_from_parent=hop.kl if hop else None,
        seal=record.seal,
    )


def _scores(
    items: Mapping[str, ItemEvidence], evalsets: tuple[EvalsetEvidence, ...]
) -> Iterator[ReleasedScore]:
    """One score per evalset with a verdict in `items`, in the order of `evalsets`."""
    for evalset in evalsets:
        own = [
            item
            for key, item in items.items()
            if item.state is not None and key.startswith(f"{evalset.name}/")
        ]
        if own:
            yield _score(evalset, own)


def _score(evalset: EvalsetEvidence, items: list[ItemEvidence]) -> ReleasedScore:
    scores = [item.score for item in items if item.score is not None]
    correct = sum(item.state == "correct" for item in items)
    low, high = wilson(correct, len(scores))
    return ReleasedScore(
        evalset=evalset.name,
        items=evalset.items,
        scored=len(scores),
        correct=correct,
        accuracy=correct / len(scores) if scores else None,
        low=low,
        high=high,
        mean_score=math.fsum(scores) / len(scores) if scores else None,
    )


def wilson(correct: int, scored: int) -> tuple[float | None, float | None]:
    """Wilson's 95 % score interval of a share; None of nothing.

    Source: E. B. Wilson (1927), JASA 22, 209-212, as scipy computes it.
    """
    if not scored:
        return None, None
    from scipy.stats import binomtest

    interval = binomtest(correct, scored).proportion_ci(CONFIDENCE, method="wilson")
    return round(float(interval.low), DIGITS), round(float(interval.high), DIGITS)


def _environments(evidence: Evidence) -> dict[str, dict[str, JsonValue]]:
    """Every environment a record names, by the sha256 of its file."""
    named = {record.environment_sha256 for record in evidence.artifacts.values()}
    named |= {record.environment_sha256 for record in evidence.cells.values()}
    return {sha256: _environment(evidence, sha256) for sha256 in sorted(filter(None, named))}


def _environment(evidence: Evidence, sha256: str) -> dict[str, JsonValue]:
    environment: dict[str, Any] = json.loads(evidence.environment(sha256))
    return environment


def _skipped(evidence: Evidence) -> Iterator[NotChecked]:
    """Cells that did not run, then hops and splits that are not known, each with its reason."""
    for record in in_order(evidence):
        outcome = record.outcome
        if not outcome.ran:
            yield NotChecked(
                what="cell",
                where=record.cell.id,
                state=outcome.state,
                reason=outcome.reason,
                remedy=outcome.remedy,
            )
    for hop in evidence.index.hops:
        yield from _unknown(hop)


def _unknown(hop: HopEvidence) -> Iterator[NotChecked]:
    where = hop.hop.name
    if not hop.compared:
        yield NotChecked(what="hop", where=where, state="not compared", reason=hop.reason)
        return
    if hop.reason:
        yield NotChecked(what="hop", where=where, state="compared in part", reason=hop.reason)
    if hop.withheld:
        yield NotChecked(what="split", where=where, state="withheld", reason=hop.withheld)
