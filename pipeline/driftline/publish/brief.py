"""The gate in short as Markdown: for a job's summary, and for a comment on a pull request; pure.

Text that a model, an artifact or a user wrote is in code spans, where nothing of it is markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from driftline.evidence.lineage import Evidence
from driftline.gate import words
from driftline.report.comparison import body
from driftline.report.escape import Safe, cell, code, optional, prose, word
from driftline.report.figures import brief, percent
from driftline.schema.cells import CellRecord
from driftline.schema.comparison import Baseline
from driftline.schema.gate import GateReport, GateVerdict
from driftline.schema.lineage import HopEvidence

MARKER = "<!-- driftline -->"
"""First line of a comment, by which a workflow finds its own."""
SUMMARY = 900_000
"""Bytes of a summary: GitHub takes 1 MiB of a step."""
COMMENT = 65_000
"""Characters of a comment: GitHub takes 65 536."""
ROWS = (1000, 300, 100, 40, 12, 4, 1, 0)
"""Rows of one table: the most with which a page is short enough."""
HOPS = 10
EVALSETS = 12
BASELINE = 12
"""Hops, columns of scores, and rows of what differs from the baseline, at most."""
MESSAGE = 600
DASH = Safe("–")

T = TypeVar("T")


def summary(
    report: GateReport, evidence: Evidence | None, *, baseline: str = "", limit: int = SUMMARY
) -> str:
    """The report for `$GITHUB_STEP_SUMMARY`.

    Args:
        report: of the gate.
        evidence: what it is about; None where that was refused.
        baseline: a section of Markdown to put behind it if there is room.
        limit: bytes of UTF-8 it has at most.
    """
    return _fitting(report, evidence, baseline, (), lambda page: len(page.encode()) <= limit)


def comment(
    report: GateReport, evidence: Evidence | None, *, baseline: str = "", limit: int = COMMENT
) -> str:
    """The same for a pull request, behind a line by which it is found again.

    Args:
        report: of the gate.
        evidence: what it is about; None where that was refused.
        baseline: a section of Markdown to put behind it if there is room.
        limit: characters it has at most.
    """
    return _fitting(report, evidence, baseline, (MARKER,), lambda page: len(page) <= limit)


def since(baseline: Baseline) -> str:
    """What differs from the baseline, inputs first, or why it could not be compared."""
    lines = ["", f"### Since {code(baseline.name)}", ""]
    if baseline.comparison is None:
        return "\n".join([*lines, f"Not compared: {code(baseline.problem)}"])
    more = f"{code(f'driftline compare {baseline.name}')} has all"
    return "\n".join([*lines, *body(baseline.comparison, BASELINE, heading="####", more=more)])


def _fitting(
    report: GateReport,
    evidence: Evidence | None,
    baseline: str,
    start: Sequence[str],
    fits: Callable[[str], bool],
) -> str:
    sections = _sections(report, evidence)
    for most in ROWS:
        lines = [*start, *_page(report, sections, most)]
        page = "\n".join(lines) + "\n"
        if fits(page):
            break
    else:
        page = "\n".join([*start, _headline(report)]) + "\n"
    with_baseline = f"{page}\n{baseline.rstrip()}\n"
    return with_baseline if baseline and fits(with_baseline) else page


# -------------------------------------------------------------------------------------- the page


@dataclass(frozen=True)
class _Section:
    """A heading over a table of `count` rows, of which `rows` gives the first few."""

    title: str
    columns: tuple[Safe, ...]
    count: int
    rows: Callable[[int], Sequence[tuple[Safe, ...]]]
    cap: int = max(ROWS)


def _section(
    title: str,
    columns: Sequence[str],
    entries: Sequence[T],
    row: Callable[[T], tuple[Safe, ...]],
    cap: int = max(ROWS),
) -> _Section:
    heads = tuple(name if isinstance(name, Safe) else Safe(name) for name in columns)
    return _Section(
        title, heads, len(entries), lambda most: [row(each) for each in entries[:most]], cap
    )


def _sections(report: GateReport, evidence: Evidence | None) -> tuple[_Section, ...]:
    always = (
        _section("Reasons", _REASON, report.stops, _reason),
        _section("Accepted", _ACCEPTED, report.accepted, _accepted),
        _section("Not judged", ("cell", "because"), report.skipped, _skipped),
        _section("Notes", ("note",), words.notes(report), lambda text: (prose(text, MESSAGE),)),
    )
    return always if evidence is None else (*always, _scores(evidence), _hops(evidence))


def _page(report: GateReport, sections: Sequence[_Section], most: int) -> Iterator[str]:
    yield _headline(report)
    for section in sections:
        shown = min(most, section.cap, section.count)
        more = section.count - shown
        if not section.count:
            continue
        yield from ("", f"### {section.title}")
        if shown:
            yield from ("", _row(section.columns), "|" + "---|" * len(section.columns))
            yield from map(_row, section.rows(shown))
        if more:
            yield from ("", f"{more} more")


def _row(cells: Sequence[Safe]) -> str:
    return f"| {' | '.join(cells)} |"


def _headline(report: GateReport) -> str:
    return f"## gate: {word(report.verdict)}\n\n{words.counts(report)}"


# ---------------------------------------------------------------------------------------- checks

_REASON = ("verdict", "hop or cell", "found", "cause", "items", "look closer", "id")
_ACCEPTED = ("id", "found", "by", "until", "why")


def _reason(row: GateVerdict) -> tuple[Safe, ...]:
    said = prose(row.message, MESSAGE)
    if row.remark:
        said = Safe(f"{said}; {prose(row.remark, MESSAGE)}")
    return (
        word(row.verdict),
        cell(words.subject(row)),
        said,
        optional(row.cause),
        optional(words.items(row)),
        optional(row.look),
        cell(row.id),
    )


def _accepted(row: GateVerdict) -> tuple[Safe, ...]:
    by = row.blessed
    said = prose(words.said(row), MESSAGE)
    if by is None:
        return (cell(row.id), said, DASH, DASH, DASH)
    return (cell(row.id), said, cell(by.by), Safe(by.expires), cell(by.reason, MESSAGE))


def _skipped(row: GateVerdict) -> tuple[Safe, ...]:
    return cell(words.subject(row)), prose(row.message, MESSAGE)


# ------------------------------------------------------------------------------------- evidence


def _scores(evidence: Evidence) -> _Section:
    """Right of scored items, a cell a row and an evalset a column."""
    names = [each.name for each in evidence.index.evalsets]
    columns = ["cell", *map(cell, names[:EVALSETS])]
    if len(names) > EVALSETS:
        columns.append(f"{len(names) - EVALSETS} more evalsets")
    return _section(
        "Scores",
        columns,
        [evidence.cells[name] for name in sorted(evidence.cells)],
        lambda record: _score(evidence, record, names),
    )


def _score(evidence: Evidence, record: CellRecord, names: Sequence[str]) -> tuple[Safe, ...]:
    tail = (Safe(""),) if len(names) > EVALSETS else ()
    if not record.ran:
        state = word(record.outcome.state)
        return (cell(record.cell.id), *(state for _ in names[:EVALSETS]), *tail)
    right, scored = Counter[str](), Counter[str]()
    for item in evidence.items(record.cell.id).values():
        evalset = item.key.partition("/")[0]
        scored[evalset] += item.score is not None
        right[evalset] += item.state == "correct"
    unstable = ", unstable" if record.outcome.state == "unstable" else ""
    return (
        cell(record.cell.id),
        *(
            Safe(f"{right[each]}/{scored[each]} {percent(right[each] / scored[each])}{unstable}")
            if scored[each]
            else DASH
            for each in names[:EVALSETS]
        ),
        *tail,
    )


def _hops(evidence: Evidence) -> _Section:
    """The hops with the most KL; adapters, which are there to change answers, last."""
    compared = [each for each in evidence.index.hops if each.compared]
    return _section(
        "Worst hops",
        ("hop", "KL, nats a token", "99th percentile", "worse", "better"),
        sorted(compared, key=_worst_first),
        _hop,
        cap=HOPS,
    )


def _worst_first(hop: HopEvidence) -> tuple[bool, float, int, str]:
    kl = hop.kl.value if hop.kl else 0.0
    return hop.hop.kind == "adapter", -kl, -len(hop.worse), hop.hop.name


def _hop(hop: HopEvidence) -> tuple[Safe, ...]:
    return (
        cell(f"{hop.hop.kind} {hop.hop.name}"),
        brief(hop.kl.value if hop.kl else None),
        brief(hop.kl_p99),
        Safe(len(hop.worse)),
        Safe(len(hop.better)),
    )
