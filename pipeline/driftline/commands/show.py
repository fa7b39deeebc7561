"""`driftline show`: cells, hops and the worst answers as tables that fit the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from driftline.commands.common import clean

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from driftline.report.model import ReportInput

WIDE = 160
"""Columns where nobody says how wide the terminal is."""
ITEMS = 10
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


@click.command()
@click.option("--items", default=ITEMS, show_default=True, help="Most changed answers to list.")
@clean
def show(items: int) -> None:
    """Cells, hops and the worst answers on this terminal; what does not fit is named.

    The same figures as in reports/lineage.html and lineage.md.
    """
    from rich.console import Console

    from driftline.errors import InputError
    from driftline.evidence import scored
    from driftline.project import params
    from driftline.report.gather import judged

    project = params.read()
    if not scored.DRIFT.exists():
        raise InputError("nothing has been scored yet", remedy="driftline run")
    width = shutil.get_terminal_size((WIDE, 40)).columns if sys.stdout.isatty() else WIDE
    console = Console(width=width, highlight=False)
    for part in tables(judged(project), width, items):
        console.print(part)


def tables(evidence: ReportInput, width: int, items: int = ITEMS) -> Iterator[RenderableType]:
    """Everything that is printed, none of it wider than `width`."""
    from rich.text import Text

    from driftline.report.escape import visible
    from driftline.report.html.verdict import verdict

    found = verdict(evidence)
    yield Text(found.headline, style="bold")
    for reason in found.reasons[:1]:
        example = f"; for example {reason.example}" if reason.example else ""
        yield Text(visible(f"{reason.hop.hop.name}: {reason.sentence}{example}", 2000))
    yield from map(Text, _gate(evidence))
    yield table("cells", _cells(evidence, width), width)
    yield table("hops, worst first", _hops(evidence, width), width)
    changed = _items(evidence, items)
    if changed:
        yield table("worst answers", changed, width)
        yield Text("each in full: driftline explain EVALSET/ITEM")


def table(title: str, columns: Sequence[Column], width: int) -> Table:
    """The columns that fit into `width`, in their order; the first, a name, is folded if it must.

    What does not fit is named below the table.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

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


def _gate(evidence: ReportInput) -> Iterator[str]:
    """What the policy says, what was accepted, and what differs from the baseline."""
    from driftline.publish import words
    from driftline.report import comparison
    from driftline.report.escape import visible

    gate, baseline = evidence.gate, evidence.baseline
    if gate is not None:
        later = "".join(f"; after {each.after}: {each.verdict}" for each in evidence.later)
        yield f"gate: {gate.verdict} ({words.counts(gate)}{later})"
        for row in gate.stops[:REASONS]:
            said = visible(words.said(row), REASON)
            yield f"  {row.verdict}: {visible(words.subject(row))}: {said}"
        if len(gate.stops) > REASONS:
            yield f"  {len(gate.stops) - REASONS} more: driftline gate"
        for row in gate.accepted:
            if row.blessed:
                why = visible(words.accepted(row.blessed), REASON)
                yield f"  accepted: {visible(row.id)}: {why}"
    if baseline is not None:
        said = visible(baseline.problem)
        if baseline.comparison is not None:
            said = "; ".join(each.title for each in comparison.sections(baseline.comparison))
        yield f"since {visible(baseline.name)}: {said}"


def _cells(evidence: ReportInput, width: int) -> tuple[Column, ...]:
    """Scores as in the reports; without percent where they would not all fit."""
    whole = _scores(evidence, brief=False)
    return whole if len(fitting(whole, width)) == len(whole) else _scores(evidence, brief=True)


def _scores(evidence: ReportInput, *, brief: bool) -> tuple[Column, ...]:
    from driftline.report import views
    from driftline.report.escape import visible

    evalsets = views.evalsets(evidence)
    rows = views.score_rows(evidence, evalsets)
    scores = [[_brief(score) if brief else score for score in row.scores] for row in rows]
    return (
        Column("cell", tuple(visible(row.cell.cell.id) for row in rows), 0, right=False),
        Column("state", tuple(row.cell.outcome.state for row in rows), 1, right=False),
        *(
            Column(visible(name), tuple(row[at] for row in scores), 2 + at)
            for at, name in enumerate(evalsets)
        ),
    )


def _brief(score: str) -> str:
    """A score without its percentage; its qualifications stay."""
    figure, _, rest = score.partition(" ")
    return figure + rest.partition("%")[2] if "/" in figure else score


def _hops(evidence: ReportInput, width: int) -> tuple[Column, ...]:
    from driftline.report import hops
    from driftline.report.escape import visible
    from driftline.report.figures import brief, estimate, interval, signed
    from driftline.report.html.changes import components

    every = hops.ranked(evidence.drift.hops)
    blamed = [", ".join(components(hop, evidence.drift.findings)) for hop in every]
    same = [f"{hop.n_same_sequence}/{hop.n_items}" if hop.compared else "–" for hop in every]
    splits = [hop.split for hop in every]
    scores = [hop.scores for hop in every]
    return (
        Column(
            "hop into" if width < NARROW else "hop",
            tuple(
                visible(hop.hop.child if width < NARROW else hop.hop.name, 1000) for hop in every
            ),
            0,
            right=False,
        ),
        Column("kind", tuple(hop.hop.kind for hop in every), 4, right=False),
        Column("cause", tuple(blamed), 2, right=False),
        Column("same", tuple(same), 5),
        Column("worse", tuple(str(len(h.worse)) if h.compared else "–" for h in every), 1),
        Column("better", tuple(str(len(h.better)) if h.compared else "–" for h in every), 6),
        Column(
            "score difference",
            tuple(
                f"{signed(s.difference.value)} {interval(s.difference)}" if s else "–"
                for s in scores
            ),
            9,
        ),
        Column("Holm p", tuple(brief(s.holm_p if s else None) for s in scores), 10),
        Column("mean KL", tuple(estimate(s.end_to_end.kl_mean) if s else "–" for s in splits), 3),
        Column(
            "weights",
            tuple(brief(s.weights.kl_mean.value) if s and s.weights else "–" for s in splits),
            7,
        ),
        Column(
            "numerics",
            tuple(brief(s.numerics.kl_mean.value) if s and s.numerics else "–" for s in splits),
            8,
        ),
    )


def _items(evidence: ReportInput, most: int) -> tuple[Column, ...]:
    from driftline.report.escape import visible
    from driftline.report.html.changes import changed_items

    lines = [change for item in changed_items(evidence) for change in item.changes][:most]
    if not lines:
        return ()
    return (
        Column("item", tuple(visible(each.item.key) for each in lines), 0, right=False),
        Column(
            "verdict",
            tuple(f"{each.item.parent_state} → {each.item.child_state}" for each in lines),
            2,
            right=False,
        ),
        Column("at", tuple(visible(each.hop.hop.child) for each in lines), 1, right=False),
        Column("cause", tuple(each.component or "–" for each in lines), 3, right=False),
        Column(
            "token",
            tuple(
                "–" if each.item.first_divergent is None else str(each.item.first_divergent)
                for each in lines
            ),
            5,
        ),
        Column(
            "before → after",
            tuple(
                f"{_piece(each.item.parent_piece)} → {_piece(each.item.child_piece)}"
                for each in lines
            ),
            4,
            right=False,
        ),
    )


def _piece(piece: str | None) -> str:
    from driftline.report.escape import visible

    return "(end)" if piece is None else f'"{visible(piece, 20)}"'
