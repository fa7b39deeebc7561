"""`driftline show`: cells, hops and the worst answers as tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from driftline.gate import words
from driftline.report import comparison, hops, views
from driftline.report.changes import Change, changed_items, changes, components
from driftline.report.escape import visible
from driftline.report.figures import brief, estimate, interval, signed
from driftline.report.model import ReportInput
from driftline.report.verdict import verdict
from driftline.schema.comparison import Baseline
from driftline.schema.gate import GateReport, Later
from driftline.schema.hops import HopDrift
from driftline.schema.statistics import DistributionDrift

REASONS = 5
"""Reasons of the gate that are listed."""
REASON = 600
"""Characters shown of one."""
PADDING = 3
NARROW = 110
"""Below this many columns a hop goes by the cell it leads to."""
NAMES = 0.6
"""Share of the width that names may take before they are folded."""


@dataclass(frozen=True)
class Column:
    """One column of a table; one that comes early in `need` is given up last."""

    title: str
    values: tuple[str, ...]
    need: int
    right: bool = True

    @property
    def width(self) -> int:
        """Columns of the terminal that it takes unfolded."""
        return max(len(text) for text in (self.title, *self.values))


def tables(evidence: ReportInput, width: int, items: int) -> Iterator[RenderableType]:
    """Everything that is printed, none of it wider than `width`; of answers the worst `items`."""
    yield from _verdict(evidence)
    yield from map(Text, _held_against(evidence))
    yield table("cells", _cells(evidence, width), width)
    yield table("hops, worst first", _hops(evidence, width), width)
    every = changed_items(evidence, changes(evidence))
    worst = [change for item in every for change in item.changes][:items]
    if worst:
        yield table("worst answers", _answers(worst), width)
        yield Text("each in full: driftline explain EVALSET/ITEM")


def _verdict(evidence: ReportInput) -> Iterator[Text]:
    """The headline and the one hop to know."""
    said = verdict(evidence)
    yield Text(said.headline, style="bold")
    for reason in said.reasons[:1]:
        example = f"; for example {reason.example}" if reason.example else ""
        yield Text(visible(f"{reason.hop.hop.name}: {reason.sentence}{example}", 2000))


def _held_against(evidence: ReportInput) -> Iterator[str]:
    """What the policy says, what was accepted, and what differs from the baseline."""
    if evidence.gate is not None:
        yield from _gate(evidence.gate, evidence.later)
    if evidence.baseline is not None:
        yield _since(evidence.baseline)


def _gate(gate: GateReport, later: Sequence[Later]) -> Iterator[str]:
    after = "".join(f"; after {each.after}: {each.verdict}" for each in later)
    yield f"gate: {gate.verdict} ({words.counts(gate)}{after})"
    for row in gate.stops[:REASONS]:
        said = visible(words.said(row), REASON)
        yield f"  {row.verdict}: {visible(words.subject(row))}: {said}"
    if len(gate.stops) > REASONS:
        yield f"  {len(gate.stops) - REASONS} more: driftline gate"
    for row in gate.accepted:
        if row.blessed:
            why = visible(words.accepted(row.blessed), REASON)
            yield f"  accepted: {visible(row.id)}: {why}"


def _since(baseline: Baseline) -> str:
    said = visible(baseline.problem)
    if baseline.comparison is not None:
        said = "; ".join(each.title for each in comparison.sections(baseline.comparison))
    return f"since {visible(baseline.name)}: {said}"


# ------------------------------------------------------------------------------- making tables fit


def table(title: str, columns: Sequence[Column], width: int) -> Table:
    """The columns that fit into `width`, in their order; the first, a name, is folded if it must.

    What does not fit is named below the table.
    """
    kept = fitting(columns, width)
    left_out = [column.title for column in columns if column not in kept]
    note = f"not shown here: {', '.join(left_out)}" if left_out else None
    made = Table(title=title, title_justify="left", caption=note, caption_justify="left")
    made.box, made.width = box.SIMPLE_HEAD, None
    for column in kept:
        name = column is kept[0]
        made.add_column(
            column.title,
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=not name and column.right,
            max_width=max(12, int(NAMES * width)) if name else None,
        )
    for row in zip(*(column.values for column in kept), strict=True):
        made.add_row(*(Text(text) for text in row))
    return made


def fitting(columns: Sequence[Column], width: int) -> tuple[Column, ...]:
    """As many as fit, those that are needed most first; always the first of all."""
    first = columns[0]
    left = width - min(first.width, max(12, int(NAMES * width))) - 2 * PADDING
    chosen = [first]
    for column in sorted(columns[1:], key=lambda each: each.need):
        if column.width + PADDING <= left:
            chosen.append(column)
            left -= column.width + PADDING
    return tuple(column for column in columns if column in chosen)


# ------------------------------------------------------------------------------------------ cells


def _cells(evidence: ReportInput, width: int) -> tuple[Column, ...]:
    """Scores as in the reports; without percent where they would not all fit."""
    whole = _scores(evidence, short=False)
    return whole if len(fitting(whole, width)) == len(whole) else _scores(evidence, short=True)


def _scores(evidence: ReportInput, *, short: bool) -> tuple[Column, ...]:
    evalsets = views.evalsets(evidence)
    rows = views.score_rows(evidence, evalsets)
    scores = [[_shortened(score) if short else score for score in row.scores] for row in rows]
    return (
        Column("cell", tuple(visible(row.cell.cell.id) for row in rows), 0, right=False),
        Column("state", tuple(row.cell.outcome.state for row in rows), 1, right=False),
        *(
            Column(visible(name), tuple(row[at] for row in scores), 2 + at)
            for at, name in enumerate(evalsets)
        ),
    )


def _shortened(score: str) -> str:
    """A score without its percentage; its qualifications stay."""
    figure, _, rest = score.partition(" ")
    return figure + rest.partition("%")[2] if "/" in figure else score


# ------------------------------------------------------------------------------------------- hops


def _hops(evidence: ReportInput, width: int) -> tuple[Column, ...]:
    every = hops.ranked(evidence.drift.hops)
    blamed = [", ".join(components(hop, evidence.drift.findings)) for hop in every]
    names = [hop.hop.child if width < NARROW else hop.hop.name for hop in every]
    title = "hop into" if width < NARROW else "hop"
    return (
        Column(title, tuple(visible(name, 1000) for name in names), 0, right=False),
        Column("kind", tuple(hop.hop.kind for hop in every), 4, right=False),
        Column("cause", tuple(blamed), 2, right=False),
        *_damage(every),
        *_tests(every),
        *_distributions(every),
    )


def _damage(every: Sequence[HopDrift]) -> tuple[Column, ...]:
    same = [f"{hop.n_same_sequence}/{hop.n_items}" if hop.compared else "–" for hop in every]
    worse = [str(len(hop.worse)) if hop.compared else "–" for hop in every]
    better = [str(len(hop.better)) if hop.compared else "–" for hop in every]
    return (
        Column("same", tuple(same), 5),
        Column("worse", tuple(worse), 1),
        Column("better", tuple(better), 6),
    )


def _tests(every: Sequence[HopDrift]) -> tuple[Column, ...]:
    scores = [hop.scores for hop in every]
    differences = [each.difference if each else None for each in scores]
    shown = [f"{signed(each.value)} {interval(each)}" if each else "–" for each in differences]
    return (
        Column("score difference", tuple(shown), 9),
        Column("Holm p", tuple(brief(each.holm_p if each else None) for each in scores), 10),
    )


def _distributions(every: Sequence[HopDrift]) -> tuple[Column, ...]:
    splits = [hop.split for hop in every]
    whole = [estimate(split.end_to_end.kl_mean if split else None) for split in splits]
    weights = [_mean_kl(split.weights if split else None) for split in splits]
    numerics = [_mean_kl(split.numerics if split else None) for split in splits]
    return (
        Column("mean KL", tuple(whole), 3),
        Column("weights", tuple(weights), 7),
        Column("numerics", tuple(numerics), 8),
    )


def _mean_kl(drift: DistributionDrift | None) -> str:
    return brief(drift.kl_mean.value if drift else None)


# ---------------------------------------------------------------------------------------- answers


def _answers(worst: Sequence[Change]) -> tuple[Column, ...]:
    items = [change.item for change in worst]
    states = [f"{item.parent_state} → {item.child_state}" for item in items]
    places = ["–" if item.first_divergent is None else str(item.first_divergent) for item in items]
    pieces = [f"{_piece(item.parent_piece)} → {_piece(item.child_piece)}" for item in items]
    return (
        Column("item", tuple(visible(item.key) for item in items), 0, right=False),
        Column("verdict", tuple(states), 2, right=False),
        Column("at", tuple(visible(each.hop.hop.child) for each in worst), 1, right=False),
        Column("cause", tuple(each.component or "–" for each in worst), 3, right=False),
        Column("token", tuple(places), 5),
        Column("before → after", tuple(pieces), 4, right=False),
    )


def _piece(piece: str | None) -> str:
    return "(end)" if piece is None else f'"{visible(piece, 20)}"'
