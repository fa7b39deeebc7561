"""`driftline show`: the same figures as the reports, in whatever width there is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from driftline.report.figures import estimate
from driftline.report.model import ReportInput
from driftline.report.terminal import Column, fitting, tables
from tests.factories import report_input
from tests.unit.report_evidence import BAD, HOSTILE, ITEMS, PROJECT, Q2, VLLM, failing
from tests.unit.test_html_page import evidence
from tests.unit.test_report_hostile import TestHostileReport as Markdown


def printed(found: ReportInput, width: int) -> str:
    """What a terminal of that width shows."""
    console = Console(width=width, file=io.StringIO(), highlight=False)
    for part in tables(found, width, 10):
        console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, printed(evidence(), width).splitlines())) <= width


def test_everything_is_there_where_it_fits() -> None:
    found = evidence()
    text = printed(found, 250)
    assert "not shown here" not in text
    assert "2 answers became worse, over 1 of 25 hops." in text
    assert f"llamacpp/base/f32 → {Q2}" in text
    assert "3/4 75 %" in text
    split = found.hops_by_child[Q2].split
    assert split is not None
    assert estimate(split.end_to_end.kl_mean) in text
    assert "correct → wrong" in text


def test_what_does_not_fit_is_named() -> None:
    text = printed(evidence(), 70)
    assert "not shown here: " in text
    assert "3/4" in text
    assert "75 %" not in text


def test_columns_are_given_up_in_the_order_of_need() -> None:
    first = Column("name", ("a" * 20,), 0)
    others = [Column(str(need), ("x" * 8,), need) for need in (3, 1, 2)]
    columns = (first, *others)
    assert fitting(columns, 200) == columns
    assert [column.title for column in fitting(columns, 20 + 2 * 11 + 6)] == ["name", "1", "2"]
    assert fitting(columns, 10) == (first,)


def test_a_failed_cell_is_a_word() -> None:
    text = printed(report_input(PROJECT, ITEMS, records=failing(VLLM)), 200)
    line = next(line for line in text.splitlines() if line.strip().startswith(VLLM))
    assert line.split() == [VLLM, "error", "error", "error", "–", "–"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_harmless_in_a_terminal(text: str) -> None:
    shown = printed(Markdown().evidence(text), 100)
    assert not BAD.search(shown)
    assert "\x1b" not in shown
