"""Items x cells: every score state of every item that changed, and of the others where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from driftline.report.changes import ChangedItem, is_change
from driftline.report.escape import Safe
from driftline.report.figures import score as score_figure
from driftline.report.html.names import Names, numbers
from driftline.report.model import ReportInput
from driftline.schema.cells import CellRecord
from driftline.schema.hops import ItemDrift

ROWS = 400
"""Items with a row of their own, at most."""
EXCERPT = 90
"""Characters of a question beside its item."""
MARKS: Mapping[str, str] = {
    "correct": "c",
    "partial": "p",
    "wrong": "w",
    "unparsed": "u",
    "truncated": "t",
    "errored": "e",
    "unchecked": "n",
}
"""Classes of the score states: each has a shape and a colour."""


@dataclass(frozen=True)
class Column:
    """One cell; `state` where it is not `ok`."""

    cell: CellRecord
    state: str


@dataclass(frozen=True)
class Group:
    """Neighbouring columns of one variant."""

    variant: str
    span: int


@dataclass(frozen=True)
class Mark:
    """One item in one cell: classes of its state and change, and the same in words."""

    classes: str
    words: str


NOTHING = Mark("o", "not asked")


@dataclass(frozen=True)
class Row:
    """One item. `anchor` leads to its answers, empty where they are not shown."""

    key: str
    question: str
    anchor: str
    hops: str
    components: str
    tags: str
    changed: bool
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Total:
    """One cell's score on one evalset: for a narrow column, and in full."""

    brief: str
    figure: Safe


@dataclass(frozen=True)
class Section:
    """One evalset: its scores per cell, its items, and how many of them have no row."""

    evalset: str
    number: int
    scores: tuple[Total, ...]
    rows: tuple[Row, ...]
    n_changed: int
    n_same: int
    same_shown: bool

    @property
    def changed_left_out(self) -> int:
        """Items that changed and have no row."""
        return self.n_changed - sum(row.changed for row in self.rows)


@dataclass(frozen=True)
class Matrix:
    """The whole table."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    sections: tuple[Section, ...]

    @property
    def same_shown(self) -> bool:
        """Whether unchanged items have rows too."""
        return any(section.same_shown for section in self.sections)


def matrix(evidence: ReportInput, changed: Sequence[ChangedItem], names: Names) -> Matrix:
    """Rows of items that changed, worst first, then of the others if all of them fit."""
    listed = {item.key: item for item in changed[:ROWS]}
    everything = len(evidence.prompts) <= ROWS
    keys = (*listed, *(key for key in evidence.prompts if everything and key not in listed))
    every_changed = {item.key for item in changed}
    evalsets = tuple(names.evalsets)
    cells = by_variant(evidence.cells)
    drift = _Drift(evidence)
    sections = []
    for number, evalset in enumerate(evalsets):
        own = [key for key, prompt in evidence.prompts.items() if prompt.evalset == evalset]
        n_changed = sum(key in every_changed for key in own)
        sections.append(
            Section(
                evalset=evalset,
                number=number,
                scores=tuple(_total(evidence, cell, evalset) for cell in cells),
                rows=tuple(
                    _row(evidence, cells, key, listed.get(key), names, drift)
                    for key in keys
                    if key in evidence.prompts and evidence.prompts[key].evalset == evalset
                ),
                n_changed=n_changed,
                n_same=len(own) - n_changed,
                same_shown=everything,
            )
        )
    columns = tuple(_column(cell) for cell in cells)
    groups = groupby(columns, key=lambda column: column.cell.cell.variant)
    return Matrix(
        columns=columns,
        groups=tuple(Group(variant, len(tuple(own))) for variant, own in groups),
        sections=tuple(sections),
    )


def _total(evidence: ReportInput, cell: CellRecord, evalset: str) -> Total:
    if not evidence.was_asked(cell.cell.id, evalset):
        return Total("", Safe("not asked"))
    if not cell.ran:
        return Total(cell.outcome.state, Safe(cell.outcome.state))
    score = evidence.scores_by_cell.get(cell.cell.id, {}).get(evalset)
    if score is None or not score.n_scored:
        return Total("–", score_figure(score))
    return Total(f"{score.states.get('correct', 0)}/{score.n_scored}", score_figure(score))


def _column(cell: CellRecord) -> Column:
    return Column(cell, "" if cell.outcome.state == "ok" else cell.outcome.state)


class _Drift:
    """What happened to each item on the hop into each cell."""

    def __init__(self, evidence: ReportInput) -> None:
        self._changes: dict[tuple[str, str], ItemDrift] = {
            (hop.hop.child, item.key): item
            for hop in evidence.drift.hops
            for item in hop.items
            if is_change(hop, item)
        }

    def of(self, cell: str, key: str) -> ItemDrift | None:
        return self._changes.get((cell, key))


def by_variant(cells: Iterable[CellRecord]) -> tuple[CellRecord, ...]:
    """Cells of one variant together, variants in the order in which they first occur."""
    variants: dict[str, list[CellRecord]] = {}
    for cell in cells:
        variants.setdefault(cell.cell.variant, []).append(cell)
    return tuple(cell for own in variants.values() for cell in own)


def _row(
    evidence: ReportInput,
    cells: Sequence[CellRecord],
    key: str,
    item: ChangedItem | None,
    names: Names,
    drift: _Drift,
) -> Row:
    changes = item.changes if item else ()
    return Row(
        key=key,
        question=excerpt(evidence.question(key)),
        anchor=names.items.get(key, ""),
        hops=numbers(change.at for change in changes),
        components=words(change.component for change in changes),
        tags=names.tag_numbers(key),
        changed=item is not None,
        marks=tuple(_state(evidence, cell, key, drift) for cell in cells),
    )


def words(every: Iterable[str | None]) -> str:
    """Different words in order, as the value of an attribute."""
    return " ".join(sorted({each for each in every if each}))


def excerpt(text: str, most: int = EXCERPT) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else f"{line[:most]}…"


def _state(evidence: ReportInput, cell: CellRecord, key: str, drift: _Drift) -> Mark:
    name = cell.cell.id
    if not evidence.was_asked(name, evidence.prompts[key].evalset):
        return NOTHING
    if not cell.ran:
        return Mark("x", cell.outcome.state)
    score = evidence.item_scores.get(name, {}).get(key)
    if score is None:
        return Mark("o", "no answer")
    change = drift.of(name, key)
    classes = [MARKS[score.state]]
    said: list[str] = [score.state]
    if change is not None and change.flip != "none":
        classes.append("k" if change.flip == "worse" else "g")
        said.append(f"was {change.parent_state}")
    elif change is not None:
        classes.append("d")
        said.append("other tokens")
    if key in cell.unstable:
        classes.append("z")
        said.append("unstable")
    return Mark(" ".join(classes), ", ".join(said))
