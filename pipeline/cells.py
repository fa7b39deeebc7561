"""What `score` and `grade` left on disk, read back: the evidence that drift and reports work on."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline import digest, params, plan, records
from pipeline.drift.evidence import CellEvidence
from pipeline.errors import RefusedError
from pipeline.schema.answers import Completion, PinnedPrompt
from pipeline.schema.cells import CellRecord
from pipeline.schema.items import GoldenPrompt
from pipeline.schema.scores import ItemScore
from pipeline.schema.values import load, load_lines

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


def evidence(project: params.Params) -> Mapping[str, CellEvidence]:
    """Every planned cell with its answers and verdicts, by cell id, in plan order."""
    scores: dict[str, dict[str, ItemScore]] = {}
    for score in load_lines(ItemScore, SCORES):
        scores.setdefault(score.cell, {})[score.key] = score
    return {
        record.cell.id: CellEvidence(
            record=record,
            completions=completions(record),
            scores=scores.get(record.cell.id, {}),
        )
        for record in cell_records(project)
    }
