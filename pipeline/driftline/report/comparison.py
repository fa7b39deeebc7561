"""A comparison of two commits for a terminal and as Markdown; computes no number.

Both are written from the same `Section`s, so that they say the same. Text that came from a file is
plain `str` there and escaped by whoever prints it; `Safe` is our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from driftline.report import escape
from driftline.report.escape import Safe, visible
from driftline.report.figures import brief, interval, signed
from driftline.schema.comparison import (
    PRESENT,
    CellComparison,
    ComparisonReport,
    Consequence,
    Detail,
    Flip,
    HopComparison,
    InputChange,
)

ROWS = 40
"""Rows of one table in a terminal."""
DETAILS = (100, 40, 12, 4)
"""Rows of one table in Markdown: the most of which a page is short enough."""
LIMIT = 60_000
"""Characters of a page: a GitHub comment takes 65 536."""
LINES = 12
"""Lines shown of one change, and items of one list."""
DASH = Safe("–")

Cell = str | tuple[str, ...]
"""One cell of a table: a text, or several on lines of their own."""


@dataclass(frozen=True)
class Section:
    """A heading, remarks under it, and a table; `loud` is what nobody may miss."""

    title: Safe
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    loud: bool = False


def sections(report: ComparisonReport, lines: int = LINES) -> tuple[Section, ...]:
    """Everything there is to say, in the order in which it is said."""
    return (
        _inputs(report, lines),
        *_unexplained(report),
        *_consequences(report),
        *_cells(report, lines),
        *_one_sided(report),
        *_hops(report, lines),
    )


# --------------------------------------------------------------------------------- what was given


def _inputs(report: ComparisonReport, lines: int) -> Section:
    count = len(report.inputs)
    if not count:
        return Section(Safe("No input differs"))
    return Section(
        Safe(f"{_number(count, 'input')} differ{'s' * (count == 1)}"),
        columns=("input", "before", "after", "what"),
        rows=tuple(
            (change.label, *_sides(change), _shortened(_lines(change.details), lines))
            for change in report.inputs
        ),
    )


def _sides(change: InputChange) -> tuple[str, str]:
    """Both sides; where one is not there, or has nothing but being there, a word."""
    return _side(change.before), _side(change.after)


def _side(text: str) -> str:
    return DASH if not text else Safe("there") if text == PRESENT else text


def _lines(details: Sequence[Detail]) -> list[str]:
    """One line each; things that merely are there or not share one."""
    shown = []
    for bare, group in groupby(details, key=_bare):
        lines = [each.line for each in group]
        shown += [" ".join(lines)] if bare else lines
    return shown


def _bare(detail: Detail) -> bool:
    return PRESENT in (detail.before, detail.after)


def _shortened(texts: Sequence[str], most: int) -> tuple[str, ...]:
    if len(texts) <= most:
        return tuple(texts)
    return (*texts[:most], Safe(f"… {len(texts) - most} more"))


def _unexplained(report: ComparisonReport) -> Iterator[Section]:
    if report.unexplained:
        yield Section(
            Safe("UNEXPLAINED: the same inputs gave other bytes"),
            notes=(
                Safe(
                    "Nothing that is recorded of how these were made differs. Either a tool does "
                    "not repeat itself, or something that it reads is not recorded."
                ),
            ),
            columns=("what", "before", "after"),
            rows=tuple((each.name, *_digests(each)) for each in report.unexplained),
            loud=True,
        )


def _consequences(report: ComparisonReport) -> Iterator[Section]:
    if report.consequences:
        yield Section(
            Safe(f"What follows from it: {_number(len(report.consequences), 'change')}"),
            columns=("what", "before", "after", "explained by"),
            rows=tuple(
                (_named(each), *_digests(each), _because(each)) for each in report.consequences
            ),
        )


def _named(consequence: Consequence) -> str:
    return f"evalset {consequence.name}" if consequence.kind == "prompts" else consequence.name


def _digests(consequence: Consequence) -> tuple[str, str]:
    sides = (consequence.before, consequence.after)
    return (_digest(sides[0]), _digest(sides[1]))


def _digest(sha256: str) -> str:
    return sha256[:12] or DASH


def _because(consequence: Consequence) -> Cell:
    if consequence.because:
        return consequence.because
    return Safe("params.yaml")


# ------------------------------------------------------------------------------- what came of it


def _cells(report: ComparisonReport, lines: int) -> Iterator[Section]:
    both = report.same_cells + len(report.cells)
    compared = [cell for cell in report.cells if cell.compared]
    telling = [cell for cell in compared if _tells(cell)]
    if not both:
        yield Section(Safe("Nothing to compare: no cell is on both sides"))
        return
    notes = [f"{report.same_cells} as they were, {len(compared)} scored again"]
    silent = [cell for cell in compared if not _tells(cell)]
    if silent:
        remarks = sorted({remark for cell in silent for remark in cell.remarks})
        shown = f" ({'; '.join(_shortened(remarks, 3))})" if remarks else ""
        notes.append(f"{len(silent)} of these answered as before{shown}")
    if not report.comparable:
        yield Section(Safe(f"Nothing is comparable: none of {_number(both, 'cell')}"))
    else:
        yield Section(
            Safe(f"Cells on both sides: {both}"),
            notes=(", ".join(notes),),
            columns=_CELL_COLUMNS if telling else (),
            rows=tuple(_cell(cell, lines) for cell in sorted(telling, key=_worst_first)),
        )
    refused = [(cell.reason, cell.cell) for cell in report.cells if not cell.compared]
    yield from _not_compared("cell", refused, lines, _hint(report))


_CELL_COLUMNS = (
    "cell",
    "items",
    "other answers",
    "worse",
    "better",
    "score change",
    "p (Holm)",
    "what",
)


def _tells(cell: CellComparison) -> bool:
    moved = cell.scores is not None and cell.scores.difference.value != 0
    return bool(cell.changed or cell.worse or cell.better or moved)


def _worst_first(cell: CellComparison) -> tuple[float, str]:
    return (cell.scores.difference.value if cell.scores else 0.0), cell.cell


def _cell(cell: CellComparison, lines: int) -> tuple[Cell, ...]:
    scores = cell.scores
    said = [
        *cell.remarks,
        *(_flip("worse", each) for each in cell.worse),
        *(_flip("better", each) for each in cell.better),
    ]
    return (
        cell.cell,
        Safe(cell.items),
        Safe(cell.changed),
        Safe(len(cell.worse)),
        Safe(len(cell.better)),
        _change(scores.difference.value, interval(scores.difference)) if scores else DASH,
        brief(scores.holm_p) if scores else DASH,
        _shortened(said, lines),
    )


def _change(value: float, between: Safe) -> Safe:
    """`+0.012 [0.0056, 0.019]`; an exact 0 is just that."""
    return Safe(f"{signed(value)} {between}") if value or between != "[0, 0]" else Safe("0")


def _flip(which: str, flip: Flip) -> str:
    return f"{which}: {flip.key} {flip.before} → {flip.after}"


def _hint(report: ComparisonReport) -> tuple[Safe, ...]:
    if report.common or not any(change.kind == "evalset" for change in report.inputs):
        return ()
    return (Safe("--common compares the items that are the same on both sides"),)


def _not_compared(
    what: str, refused: list[tuple[str, str]], lines: int, notes: tuple[Safe, ...]
) -> Iterator[Section]:
    """What cannot be compared, by reason: no figure is shown of it."""
    if refused:
        reasons: dict[str, list[str]] = {}
        for reason, name in refused:
            reasons.setdefault(reason, []).append(name)
        yield Section(
            Safe(f"Not comparable: {_number(len(refused), what)}"),
            notes=notes,
            columns=("because", f"{what}s"),
            rows=tuple((reason, _shortened(names, lines)) for reason, names in reasons.items()),
        )


def _one_sided(report: ComparisonReport) -> Iterator[Section]:
    for side, names in (
        ("Cells added", report.added_cells),
        ("Cells removed", report.removed_cells),
    ):
        if names:
            yield Section(
                Safe(f"{side}: {len(names)}"),
                columns=("cell",),
                rows=tuple((name,) for name in names),
            )


def _hops(report: ComparisonReport, lines: int) -> Iterator[Section]:
    compared = [hop for hop in report.hops if hop.compared]
    if compared or report.same_hops:
        telling = [hop for hop in compared if hop.difference and hop.difference.value != 0]
        again = len(compared) - len(telling)
        notes = [f"{report.same_hops + again} drift exactly as they did"]
        if telling:
            notes.append("KL in nats a row, over forced sequences with the same ids on both sides")
        yield Section(
            Safe(f"Hops on both sides that can be compared: {len(compared) + report.same_hops}"),
            notes=(Safe("; ".join(notes)),),
            columns=_HOP_COLUMNS if telling else (),
            rows=tuple(_hop(hop) for hop in sorted(telling, key=_furthest_first)),
        )
    refused = [(hop.reason, hop.name) for hop in report.hops if not hop.compared]
    yield from _not_compared("hop", refused, lines, ())


_HOP_COLUMNS = ("hop", "sequences", "before", "after", "difference", "p (Holm)", "drifts")


def _furthest_first(hop: HopComparison) -> tuple[float, str]:
    return (-abs(hop.difference.value) if hop.difference else 0.0), hop.name


def _hop(hop: HopComparison) -> tuple[Cell, ...]:
    change = hop.difference
    most = max(hop.sequences_before, hop.sequences_after)
    return (
        hop.name,
        Safe(f"{hop.sequences} of {most}"),
        brief(hop.before),
        brief(hop.after),
        _change(change.value, interval(change)) if change else DASH,
        brief(hop.holm_p),
        Safe("too few to say" if hop.verdict == "unknown" else hop.verdict),
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# ------------------------------------------------------------------------------------ the terminal


def terminal(report: ComparisonReport) -> Iterator[RenderableType]:
    """The comparison as rich text and tables, which fit the width they are printed at."""
    yield Text(f"{visible(report.before)} → {visible(report.after)}", style="bold")
    for section in sections(report):
        yield Text()
        yield Text(section.title, style="bold red" if section.loud else "bold")
        for note in section.notes:
            yield Text(f"  {visible(note)}")
        if section.rows:
            yield _table(section)
        if len(section.rows) > ROWS:
            yield Text(f"  … {len(section.rows) - ROWS} more (--json has all)")


def _table(section: Section) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=True, show_edge=False)
    for name in section.columns:
        table.add_column(Text(name), overflow="fold")
    for row in section.rows[:ROWS]:
        table.add_row(*(_text(cell) for cell in row))
    return table


_STYLES = {"more": "red", "less": "green"}


def _text(cell: Cell) -> Text:
    pieces = (cell,) if isinstance(cell, str) else cell
    shown = "\n".join(visible(piece) for piece in pieces)
    style = _STYLES.get(shown, "") if isinstance(cell, Safe) else ""
    return Text(shown, style=style)


# -------------------------------------------------------------------------------------- Markdown


def markdown(report: ComparisonReport) -> str:
    """The comparison as Markdown for a pull request, short enough for a comment."""
    for rows in DETAILS:
        page = "\n".join(_page(report, rows)) + "\n"
        if len(page) <= LIMIT:
            break
    return page


def _page(report: ComparisonReport, rows: int) -> Iterator[Safe]:
    yield Safe(f"# {escape.code(report.before)} → {escape.code(report.after)}")
    yield from body(report, rows, heading="##", more="`--json` has all")


def body(report: ComparisonReport, rows: int, *, heading: str, more: str) -> Iterator[Safe]:
    """Lines of Markdown, sections under `heading`, at most `rows` rows each, then `more`."""
    for section in sections(report, min(rows, LINES)):
        yield Safe("")
        yield Safe(f"{heading} {'⚠ ' if section.loud else ''}{section.title}")
        for note in section.notes:
            yield Safe("")
            yield note if isinstance(note, Safe) else escape.prose(note)
        if section.rows:
            yield Safe("")
            yield _row(tuple(Safe(name) for name in section.columns))
            yield Safe("|" + "---|" * len(section.columns))
            for row in section.rows[:rows]:
                yield _row(row)
        if len(section.rows) > rows:
            yield Safe("")
            yield Safe(f"… {len(section.rows) - rows} more ({more})")


def _row(cells: tuple[Cell, ...]) -> Safe:
    return Safe(f"| {' | '.join(_markdown(cell) for cell in cells)} |")


def _markdown(cell: Cell) -> Safe:
    pieces = (cell,) if isinstance(cell, str) else cell
    return Safe("<br>".join(p if isinstance(p, Safe) else escape.cell(p) for p in pieces))


# ------------------------------------------------------------------------------------ same or not


def differing(details: Sequence[Detail]) -> Iterator[str]:
    """Every field in which two models differ, a line each, for a terminal."""
    yield f"not the same model: {_number(len(details), 'field')} differ{'s' * (len(details) == 1)}"
    for each in details:
        yield f"  {visible(each.what)}: {visible(each.before)} → {visible(each.after)}"
