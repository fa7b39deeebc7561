"""Text and figures in a report: nothing a model wrote is markup, no figure is a lie."""

from __future__ import annotations

import re
from html import unescape as unhtml

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.report import escape, figures, markdown
from driftline.store.digest import sha256_text
from tests.unit.report_evidence import (
    PARSER,
    estimate,
    nasty,
    unescaped,
)


class TestEscape:
    @settings(deadline=None)
    @given(nasty)
    def test_visible_is_one_printable_line(self, text: str) -> None:
        shown = escape.visible(text)
        assert shown.isprintable()
        assert not shown.lstrip().startswith("::")
        assert not re.search(r"##\w*\[", shown)

    @settings(deadline=None)
    @given(nasty.filter(lambda text: len(text) < 100))
    def test_visible_is_unambiguous(self, text: str) -> None:
        assert unescaped(escape.visible(text, 10_000)) == text

    @settings(deadline=None)
    @given(st.text(min_size=301, max_size=400))
    def test_a_long_text_is_cut_and_named(self, text: str) -> None:
        shown = escape.visible(text)
        mark = f"… [{len(text)} characters, sha256 {sha256_text(text)}]"
        assert shown.endswith(mark)
        assert len(shown) <= 300 + len(mark) + len("\\x3a") * 3

    @settings(deadline=None)
    @given(nasty)
    def test_code_is_one_code_span(self, text: str) -> None:
        (inline,) = (token for token in PARSER.parse(escape.code(text)) if token.type == "inline")
        (span,) = list(inline.children or [])
        shown = escape.visible(text)
        assert (span.type, span.content) == (
            ("code_inline", shown) if shown else ("text", "(empty)")
        )

    @settings(deadline=None)
    @given(nasty, nasty)
    def test_cell_stays_in_its_cell(self, left: str, right: str) -> None:
        table = f"| a | b |\n| - | - |\n| {escape.cell(left)} | {escape.cell(right)} |\n"
        inlines = [token for token in PARSER.parse(table) if token.type == "inline"]
        assert len(inlines) == 4
        for inline, text in zip(inlines[2:], (left, right), strict=True):
            (span,) = list(inline.children or [])
            assert span.content == (escape.visible(text) or "(empty)")

    @settings(deadline=None)
    @given(st.lists(nasty, min_size=1, max_size=4).map("; ".join))
    def test_prose_is_plain_words_and_code_spans_in_its_cell(self, text: str) -> None:
        table = f"| a | b |\n| - | - |\n| {escape.prose(text)} | x |\n"
        inlines = [token for token in PARSER.parse(table) if token.type == "inline"]
        assert [inlines[2].children is not None, inlines[3].content] == [True, "x"]
        spans = list(inlines[2].children or [])
        assert {span.type for span in spans} <= {"text", "code_inline"}
        assert "".join(span.content for span in spans) == "; ".join(
            clause or "(empty)" for clause in escape.visible(text).split("; ")
        )
        for span in spans:
            if span.type == "text":
                assert re.fullmatch(r"[A-Za-z0-9 ,;:.()'/_+%-]*", span.content)
                assert not re.search(r"\w\.[A-Za-z]|://|::|\b[0-9a-f]{7}|\bGH-", span.content)

    def test_prose_leaves_what_drift_writes_alone(self) -> None:
        said = (
            "q8_0 flips 3 of 40 clauses items; 0.0045 nats a token of the answers, 0.0022 of the "
            "whole text: mostly the stored weights (2.4e-04 nats); flips: 3 by the runtime's "
            "arithmetic; all near-ties under 0.05 nats"
        )
        assert escape.prose(said) == said
        assert escape.prose("one; see www.evil.example; two") == "one; `see www.evil.example`; two"
        assert escape.prose("_a_") == "`_a_`"
        assert escape.prose("by deadbeef1") == "`by deadbeef1`"
        assert escape.prose("0000000") == "`0000000`"
        assert escape.prose("a GH-12") == "`a GH-12`"

    @settings(deadline=None)
    @given(nasty)
    def test_html_is_one_element_on_one_line(self, text: str) -> None:
        shown = escape.html(text)
        assert re.fullmatch(r"<code>[^<>\n]*</code>", shown)
        assert unhtml(shown) == f"<code>{escape.visible(text)}</code>"

    @settings(deadline=None)
    @given(nasty)
    def test_a_mermaid_label_has_no_syntax(self, text: str) -> None:
        assert re.fullmatch(r"(?:[\w \-./:,+=()→·%…]|#\d+;)*", escape.label(text))

    @settings(deadline=None)
    @given(st.lists(nasty))
    def test_identifiers_keep_names_apart(self, names: list[str]) -> None:
        found = escape.identifiers(names)
        assert len(set(found.values())) == len(set(names))
        assert all(re.fullmatch("[A-Za-z0-9_]*", each) for each in found.values())

    def test_plain_text_is_left_alone(self) -> None:
        assert escape.visible("SELECT a::int — naïve 東京 🙂") == "SELECT a::int — naïve 東京 🙂"
        assert escape.code("a b") == "`a b`"
        assert escape.quoted(" the") == '`" the"`'
        assert escape.quoted(None) == "(end)"

    def test_the_template_prints_nothing_unescaped(self) -> None:
        page = markdown.environment(markdown.DETAILS[0])
        with pytest.raises(TypeError, match="that no filter made safe"):
            page.from_string("{{ text }}").render(text="<b>")
        with pytest.raises(jinja2.UndefinedError):
            page.from_string("{{ mistyped }}").render()
        assert page.from_string("{{ text|code }}").render(text="<b>") == "`<b>`"


def test_percent_never_rounds_to_all_or_none() -> None:
    assert [figures.percent(each) for each in (0, 0.001, 0.5, 41 / 44, 0.999, 1)] == [
        "0 %",
        "under 1 %",
        "50 %",
        "93 %",
        "over 99 %",
        "100 %",
    ]


def test_figures_are_short() -> None:
    values = (0.0, 4.8e-7, 0.00789, 0.5, 9.96, 12.3, 1234.4, 5e7, -0.004)
    assert [figures.brief(each) for each in values] == [
        "0",
        "4.8e-07",
        "0.0079",
        "0.5",
        "10",
        "12",
        "1,234",
        "5e+07",
        "-0.004",
    ]
    assert figures.brief(None) == figures.signed(None) == figures.estimate(None) == "–"
    assert figures.interval(None) == figures.share(None) == figures.perplexity(None) == "–"
    assert [figures.signed(each) for each in (0.0, 0.02, -0.02)] == ["0", "+0.02", "-0.02"]


def test_estimates_show_their_error() -> None:
    assert figures.estimate(estimate(0.0079, 0.0012)) == "0.0079 ± 0.0012"
    assert figures.estimate(estimate(0.0, 0.0)) == "0"
    assert figures.change(estimate(0.0079, 0.0012)) == "+0.0079 ± 0.0012"
    assert figures.interval(estimate(1.0, 0.5)) == "[0.5, 1.5]"
    assert figures.perplexity(estimate(1.0312, 0.0015)) == "1.031 ± 0.0015"
    shares = (0.0, 0.0001, 0.971, 0.99996, 1.0)
    assert [figures.share(estimate(each, 0.0)) for each in shares] == [
        "0 %",
        "under 0.1 %",
        "97.1 %",
        "over 99.9 %",
        "100 %",
    ]
    assert figures.share(estimate(0.971, 0.004)) == "97.1 % ± 0.4"


# --------------------------------------------------------------------------------- whole reports
