"""What `score` and `grade` left on disk, read back: the evidence that drift and reports work on."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline import digest, params, plan, records, texts
from pipeline.distributions import Distributions
from pipeline.drift.evidence import CellEvidence, StoredWeights
from pipeline.errors import RefusedError
from pipeline.schema.answers import Completion, PinnedPrompt
from pipeline.schema.cells import CellRecord
from pipeline.schema.items import GoldenPrompt
from pipeline.schema.scores import ItemScore
from pipeline.schema.text import SourceVocabulary
from pipeline.schema.values import load, load_lines
from pipeline.schema.weights import CounterfactualRecord

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
    if cell.cell.id == params.ROOT_CELL:
        return project.evalset_names
    return project.evalsets[cell.cell.variant]


def cell_records(project: params.Params) -> tuple[CellRecord, ...]:
    """Record of every planned cell, in plan order."""
    return tuple(load(CellRecord, CELLS / spec.id / "cell.json") for spec in plan.plan(project))


def completions(record: CellRecord) -> dict[str, Completion]:
    """A cell's answers by key, in the order they were given.

    Raises:
        RefusedError: they are not the bytes the cell's record names.
    """
    path = CELLS / record.cell.id / "completions.jsonl"
    found = {answer.key: answer for answer in load_lines(Completion, path)}
    if record.completions_sha256 not in (None, digest.sha256_file(path)):
        raise RefusedError(
            f"{path}: not the answers that {path.with_name('cell.json')} was written for",
            remedy=f"remove {path.parent}, then: dvc repro",
        )
    return found


def vocabulary() -> SourceVocabulary:
    """What the source calls each id."""
    return load(SourceVocabulary, ROOT_PROMPTS.parent / "vocabulary.json")


def evidence(project: params.Params) -> Mapping[str, CellEvidence]:
    """Every planned cell with its answers, verdicts and distributions, by id, in plan order."""
    scores: dict[str, dict[str, ItemScore]] = {}
    for score in load_lines(ItemScore, SCORES):
        scores.setdefault(score.cell, {})[score.key] = score
    found = cell_records(project)
    kept = {
        record.cell.id: texts.distributions(
            CELLS / record.cell.id, record.forced, plan.sources(project, record.cell)
        )
        for record in found
    }
    return {
        record.cell.id: CellEvidence(
            record=record,
            completions=completions(record),
            scores=scores.get(record.cell.id, {}),
            distributions=kept[record.cell.id],
            weights=_weights(project, record, kept),
            census=records.read(_artifact(record)).census,
        )
        for record in found
    }


def _artifact(record: CellRecord) -> str:
    return record.cell.artifact.removeprefix(f"{records.ARTIFACTS.name}/")


def _weights(
    project: params.Params, record: CellRecord, kept: Mapping[str, dict[str, Distributions]]
) -> StoredWeights | None:
    """The counterfactual of a cell: its own in the reference runtime, or its artifact's.

    Raises:
        RefusedError: it was made of other bytes than the cell ran.
    """
    spec = record.cell
    if spec.runtime == "transformers":
        merged = spec.form != "attached" and spec.variant != params.BASE
        own = _counterfactual(record) if merged else None
        return StoredWeights(kept[spec.id], own, itself=True)
    if spec.runtime == "vllm":
        return StoredWeights(kept.get(f"transformers/{spec.variant}/checkpoint", {}))
    found = _counterfactual(record)
    home = texts.counterfactual(_artifact(record))
    return StoredWeights(
        texts.distributions(home, found.forced, plan.sources(project, spec)), found
    )


def _counterfactual(record: CellRecord) -> CounterfactualRecord:
    path = texts.counterfactual(_artifact(record)) / texts.RECORD
    found = load(CounterfactualRecord, path)
    if found.artifact_identity != record.artifact_identity:
        raise RefusedError(
            f"{path}: made of {found.artifact_identity[:12]}…, the cell ran "
            f"{record.artifact_identity[:12]}…",
            remedy=f"remove {path.parent}, then: dvc repro",
        )
    return found
