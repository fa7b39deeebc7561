"""The report's tables as plain rows, still unescaped: the template escapes what it prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from driftline.report.escape import Safe
from driftline.report.figures import score
from driftline.report.model import ReportInput
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.cells import CellRecord
from driftline.schema.values import canonical_json

STATES: tuple[Literal["ok", "error", "skipped", "unstable"], ...] = (
    "ok",
    "error",
    "skipped",
    "unstable",
)


@dataclass(frozen=True)
class Count:
    """How many cells ended in one state."""

    n: int
    state: str


@dataclass(frozen=True)
class ScoreRow:
    """One cell's scores, one per evalset column; a word where there is none."""

    cell: CellRecord
    scores: tuple[Safe, ...]


@dataclass(frozen=True)
class ArtifactRow:
    """One artifact with what is listed of it, as text."""

    record: ArtifactRecord
    size: int
    census: str
    arguments: str


@dataclass(frozen=True)
class Unanswered:
    """Golden prompts one cell that ran gave no answer to."""

    cell: str
    items: tuple[str, ...]


def states(evidence: ReportInput) -> tuple[Count, ...]:
    """Cells per state, every state named."""
    ended = [cell.outcome.state for cell in evidence.cells]
    return tuple(Count(ended.count(state), state) for state in STATES)


def evalsets(evidence: ReportInput) -> tuple[str, ...]:
    """Every scored evalset once, in the order of the scores."""
    return tuple(dict.fromkeys(each.evalset for each in evidence.scores))


def score_rows(evidence: ReportInput, columns: Sequence[str]) -> tuple[ScoreRow, ...]:
    """Scores of every cell; a cell that failed shows its state instead of any score."""
    return tuple(
        ScoreRow(cell, tuple(_score(evidence, cell, name) for name in columns))
        for cell in evidence.cells
    )


def _score(evidence: ReportInput, cell: CellRecord, evalset: str) -> Safe:
    """A figure, a figure qualified by `unstable`, a state instead of one, or a dash."""
    state = cell.outcome.state
    if not evidence.was_asked(cell.cell.id, evalset):
        return Safe("–")
    if not cell.ran:
        return Safe(state)
    figure = score(evidence.scores_by_cell.get(cell.cell.id, {}).get(evalset))
    return figure if state == "ok" else Safe(f"{figure}, {state}")


def artifact_rows(artifacts: Sequence[ArtifactRecord]) -> tuple[ArtifactRow, ...]:
    """Artifacts in the order given."""
    rows = []
    for record in artifacts:
        types = record.census.types if record.census else {}
        rows.append(
            ArtifactRow(
                record=record,
                size=sum(file.size for file in record.files),
                census=", ".join(f"{name} {count}" for name, count in sorted(types.items())),
                arguments=canonical_json(record.arguments),
            )
        )
    return tuple(rows)


def unchecked(evidence: ReportInput) -> tuple[str, ...]:
    """Keys of answered prompts that have no check, in the order of the prompts."""
    keys = {
        key
        for scores in evidence.item_scores.values()
        for key, item in scores.items()
        if item.state == "unchecked"
    }
    return tuple(key for key in evidence.prompts if key in keys)


def errored(evidence: ReportInput) -> tuple[Unanswered, ...]:
    """Per cell that ran, the prompts it gave no answer to, if there are any."""
    rows = []
    for cell in evidence.cells:
        items = evidence.item_scores.get(cell.cell.id, {}) if cell.ran else {}
        keys = tuple(key for key, item in items.items() if item.state == "errored")
        if keys:
            rows.append(Unanswered(cell.cell.id, keys))
    return tuple(rows)
