"""What `score` and `grade` left on disk, read back: the evidence that drift and reports work on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from driftline.drift.evidence import CellEvidence, StoredWeights
from driftline.errors import RefusedError
from driftline.project import params, plan, routes
from driftline.project.plan import PlannedCell
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.artifacts import ArtifactRecord, Reference
from driftline.schema.cells import CellRecord, CellSpec, cell_id
from driftline.schema.forced import ForcedRecord
from driftline.schema.items import GoldenPrompt
from driftline.schema.scores import ItemScore
from driftline.schema.text import SourceVocabulary
from driftline.schema.values import load, load_lines
from driftline.schema.weights import CounterfactualRecord
from driftline.store import digest, records, texts
from driftline.store.distributions import LOGITS, ROWS, Distributions

CELLS = records.ARTIFACTS / "cells"
ROOT_PROMPTS = records.ARTIFACTS / "prompts" / "root.jsonl"
ITEMS = records.ARTIFACTS / "evalset" / "items.jsonl"
SCORES = records.ARTIFACTS / "grades" / "scores.jsonl"
SUMMARY = records.ARTIFACTS / "grades" / "summary.jsonl"
DRIFT = records.ARTIFACTS / "drift" / "drift.json"


def pinned() -> dict[str, PinnedPrompt]:
    """Every pinned prompt of the project by key, in evalset order."""
    return {prompt.key: prompt for prompt in load_lines(PinnedPrompt, ROOT_PROMPTS)}


def items() -> dict[str, GoldenPrompt]:
    """Every golden prompt of the project by key."""
    return {item.key: item for item in load_lines(GoldenPrompt, ITEMS)}


def asked(project: params.Params, cell: CellRecord) -> tuple[str, ...]:
    """The evalsets a cell is scored on: all for the root, else its variant's."""
    if cell.cell.id == routes.ROOT_CELL:
        return project.evalset_names
    return project.evalsets[cell.cell.variant]


def cell_records(project: params.Params, *, whole: bool = False) -> tuple[CellRecord, ...]:
    """Record of every planned cell, in plan order, checked against its files and what it read.

    Args:
        project: whose plan.
        whole: also check the distributions; without it only what the cell said.

    Raises:
        RefusedError: a record was edited or is another cell's, a file is not what it says, or the
            cell was scored on other bytes than those that are here.
    """
    return tuple(_verified(spec, whole=whole) for spec in plan.plan(project))


def _verified(spec: CellSpec, *, whole: bool) -> CellRecord:
    folder = CELLS / spec.id
    records.require(folder / records.CELL, folder)
    record = records.load_sealed(CellRecord, folder / records.CELL)
    if record.cell != spec:
        raise RefusedError(
            f"{folder / records.CELL}: is the record of {record.cell.id}, expected that of "
            f"{spec.id} as planned",
            remedy=records.AUDIT,
        )
    but = (records.CELL, *(() if whole else (texts.DISTRIBUTIONS,)))
    digest.verify(folder, record.outputs, but=but, remedy=records.AUDIT)
    for wanted in (*record.inputs, *_ran(record)):
        records.check_input(spec.id, wanted)
    return record


def _ran(record: CellRecord) -> tuple[Reference, ...]:
    """The artifact a cell says it ran, and the adapter attached to it."""
    said = {
        record.cell.artifact_name: record.artifact_identity,
        record.cell.adapter_name: record.adapter_identity or "",
    }
    return tuple(Reference(name=name, identity=each) for name, each in said.items() if name)


def reference(record: CellRecord) -> Reference:
    """How another record names a cell's."""
    return Reference(name=f"{CELLS.name}/{record.cell.id}", identity=record.seal)


def weighed(found: Iterable[CellEvidence]) -> tuple[Reference, ...]:
    """How another record names the counterfactuals of these cells, each once."""
    known = [cell.weights.record for cell in found if cell.weights and cell.weights.record]
    seals = {f"counterfactuals/{record.artifact}": record.seal for record in known}
    return tuple(Reference(name=name, identity=seal) for name, seal in seals.items())


def completions(record: CellRecord) -> dict[str, Completion]:
    """A cell's answers by key, in the order they were given."""
    path = CELLS / record.cell.id / records.COMPLETIONS
    return {answer.key: answer for answer in load_lines(Completion, path)}


def vocabulary() -> SourceVocabulary:
    """What the source calls each id."""
    return load(SourceVocabulary, ROOT_PROMPTS.parent / "vocabulary.json")


def evidence(project: params.Params, *, whole: bool = False) -> Mapping[str, CellEvidence]:
    """Every planned cell with its answers, verdicts and distributions, by id, in plan order.

    `whole` checks distributions against their records too, counterfactuals' among them: for
    whoever reads them.

    Raises:
        RefusedError: as `cell_records`.
    """
    scores: dict[str, dict[str, ItemScore]] = {}
    for score in load_lines(ItemScore, SCORES):
        scores.setdefault(score.cell, {})[score.key] = score
    planned = {cell.spec.id: cell for cell in plan.planned(project)}
    cells = cell_records(project, whole=whole)
    kept = {
        record.cell.id: texts.distributions(
            CELLS / record.cell.id, record.forced, plan.sources(project, record.cell)
        )
        for record in cells
    }
    return {
        record.cell.id: CellEvidence(
            record=record,
            completions=completions(record),
            scores=scores.get(record.cell.id, {}),
            distributions=kept[record.cell.id],
            weights=_weights(project, planned[record.cell.id], record, kept, whole=whole),
            census=records.read(record.cell.artifact_name).census,
        )
        for record in cells
    }


def _weights(
    project: params.Params,
    cell: PlannedCell,
    record: CellRecord,
    kept: Mapping[str, dict[str, Distributions]],
    *,
    whole: bool,
) -> StoredWeights:
    """The counterfactual of a cell, as its route says.

    Raises:
        RefusedError: it was made of other bytes than the cell ran, or was edited.
    """
    spec, route = cell.spec, cell.route
    if route.weights == "itself":
        own = _counterfactual(record) if route.hop == "merge" else None
        return StoredWeights(kept[spec.id], own, itself=True)
    if route.weights == "checkpoint":
        same = cell_id(routes.REFERENCE, spec.variant, spec.form)
        return StoredWeights(kept.get(same, {}))
    if routes.FORMATS[route.format].counterfactual is None:
        return StoredWeights(
            {}, none=f"{spec.id}: stored weights of format {route.format} have no counterfactual"
        )
    counterfactual = _counterfactual(record)
    home = texts.counterfactual(spec.artifact_name)
    if whole:
        for text in counterfactual.forced:
            _as_recorded(home, text)
    return StoredWeights(
        texts.distributions(home, counterfactual.forced, plan.sources(project, spec)),
        counterfactual,
    )


def _as_recorded(home: Path, text: ForcedRecord) -> None:
    folder = home / texts.DISTRIBUTIONS / text.text
    for name, sha256 in ((LOGITS, text.logits_sha256), (ROWS, text.rows_sha256)):
        path = folder / name
        actual = digest.sha256_file(path) if path.is_file() else "missing"
        if actual != sha256:
            raise RefusedError(
                f"{path}: sha256 {actual[:12]}, {sha256[:12]} in {home / texts.RECORD}",
                remedy=records.AUDIT,
            )


def text_names(project: params.Params) -> tuple[str, ...]:
    """The texts that any cell of the plan is put through, each once."""
    named = [name for cell in plan.planned(project) for name in plan.texts(cell)]
    return tuple(dict.fromkeys(named))


def artifacts(project: params.Params) -> tuple[ArtifactRecord, ...]:
    """Records of the planned cells' artifacts and all they descend from, parents first."""
    known: dict[str, ArtifactRecord] = {}
    ordered: dict[str, ArtifactRecord] = {}

    def add(name: str) -> None:
        if name not in known:
            record = known.setdefault(name, records.read(name))
            for parent in record.parents:
                add(parent.name)
            ordered[name] = record

    for spec in plan.plan(project):
        for name in (spec.artifact_name, spec.adapter_name):
            if name:
                add(name)
    return tuple(ordered.values())


def _counterfactual(record: CellRecord) -> CounterfactualRecord:
    path = texts.counterfactual(record.cell.artifact_name) / texts.RECORD
    records.require(path, path.parent)
    counterfactual = records.load_sealed(CounterfactualRecord, path)
    if counterfactual.artifact_identity != record.artifact_identity:
        raise RefusedError(
            f"{path}: made of {counterfactual.artifact_identity[:12]}…, the cell ran "
            f"{record.artifact_identity[:12]}…",
            remedy=records.AUDIT,
        )
    return counterfactual
