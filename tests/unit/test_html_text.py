"""Text of others as HTML: what is shown is what it is, and nothing of it does anything."""

from __future__ import annotations

import re
from typing import Any

import html5lib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.report.html import prose
from driftline.store.digest import sha256_text
from tests.unit.report_evidence import BAD, HOSTILE, nasty

short = nasty.filter(lambda given_text: len(given_text) < 2000)
NS = "{http://www.w3.org/1999/xhtml}"


def parsed(markup: str) -> Any:
    """The fragment as a browser reads it; a parse error fails."""
    parser = html5lib.HTMLParser(strict=True)
    return parser.parseFragment(markup, container="div")


def read_back(markup: str) -> str:
    """The text behind what `inert` shows: every mark turned into its character again."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if node.tag == f"{NS}i":
            found.append(unmarked(node.text))
            if node.text == "\\n":
                assert node.tail.startswith("\n")
                node.tail = node.tail[1:]
        else:
            found.append(node.text or "")
        for child in node:
            walk(child)
        if node.tag != "DOCUMENT_FRAGMENT":
            found.append(node.tail or "")

    walk(parsed(markup))
    return "".join(found)


def unmarked(mark: str) -> str:
    plain = {"\\n": "\n", "\\r": "\r", "\\t": "\t"}
    return plain.get(mark) or chr(int(mark[2:], 16))


class TestInert:
    @settings(deadline=None)
    @given(short)
    def test_it_shows_exactly_the_text(self, given_text: str) -> None:
        assert read_back(prose.inert(given_text)) == given_text

    @settings(deadline=None)
    @given(short)
    def test_it_is_text_and_marks_and_nothing_else(self, given_text: str) -> None:
        found = prose.inert(given_text)
        assert {node.tag for node in parsed(found).iter()} <= {"DOCUMENT_FRAGMENT", f"{NS}i"}
        assert not BAD.search(found)
        assert not re.search(r"^ *::|##\w*\[", found, re.M)

    def test_a_backslash_is_not_taken_for_a_mark(self) -> None:
        assert prose.inert("a\\n") == "a\\n"
        assert prose.inert("a\n") == "a<i>\\n</i>\n"

    @pytest.mark.parametrize("given_text", HOSTILE, ids=range(len(HOSTILE)))
    def test_a_long_text_is_cut_with_the_digest_of_the_whole(self, given_text: str) -> None:
        whole = given_text * (3_000_000 // max(1, len(given_text)) + 1)
        found = prose.shown(whole)
        assert len(found) < 12 * prose.LIMIT + 500
        if given_text:
            assert sha256_text(whole) in found
            assert f"{len(whole):,} characters in all" in found

    def test_many_lines_are_cut_too(self) -> None:
        found = prose.shown("a\n" * 1000)
        assert found.count("\n") < prose.LINES
        assert "2,000 characters in all" in found

    def test_a_short_text_is_whole(self) -> None:
        assert prose.shown("abc") == "abc"


class TestWindow:
    def test_what_matters_is_marked(self) -> None:
        assert prose.window("kubectl get", (8, 11)) == "kubectl <mark>get</mark>"

    def test_far_into_a_text_only_what_is_around_is_shown(self) -> None:
        whole = "a" * 100_000 + "X" + "b" * 100_000
        found = prose.window(whole, (100_000, 100_001), 1000)
        assert "<mark>X</mark>" in found
        assert "… 99,600 characters before" in found
        assert sha256_text(whole) in found
        assert len(found) < 1500

    @settings(deadline=None)
    @given(short, st.integers(0, 50), st.integers(0, 50))
    def test_it_is_well_formed_wherever_the_mark_is(self, whole: str, at: int, more: int) -> None:
        start = min(at, len(whole))
        parsed(prose.window(whole, (start, min(len(whole), start + more)), 30))


class TestSpans:
    @pytest.mark.parametrize(
        ("whole", "pieces", "place", "expected"),
        [
            ("kubectl get", ("kubectl", "▁get", "<|end|>"), 1, " get"),
            ("get it", ("▁get", "▁it"), 0, "get"),
            ("get it", ("▁get", "▁it"), 1, " it"),
            ("naïve", ("na", "<0xC3>", "<0xAF>", "ve"), 3, "ve"),
            ("a b", ("a", "Ġb"), 1, " b"),
        ],
    )
    def test_a_token_is_found_in_the_text(
        self, whole: str, pieces: tuple[str, ...], place: int, expected: str
    ) -> None:
        span = prose.span_of(whole, pieces, place)
        assert span is not None
        assert whole[slice(*span)] == expected

    def test_the_token_that_ends_an_answer_is_at_its_end(self) -> None:
        assert prose.span_of("get", ("get", "<|end|>"), 1) == (3, 3)
        assert prose.span_of("", ("<|end|>",), 0) == (0, 0)

    def test_half_a_character_has_no_place(self) -> None:
        assert prose.span_of("naïve", ("na", "<0xC3>", "<0xAF>", "ve"), 1) is None

    def test_pieces_that_do_not_spell_the_text_have_none(self) -> None:
        assert prose.span_of("something else", ("a", "b"), 1) is None

    @given(st.lists(st.sampled_from(["a", "▁b", "<0xC3>", "<0xA9>", "\n"]), max_size=6), short)
    def test_a_span_is_always_inside(self, pieces: list[str], whole: str) -> None:
        for place in range(len(pieces) + 1):
            span = prose.span_of(whole, pieces, place)
            assert span is None or 0 <= span[0] <= span[1] <= len(whole)


class TestTokens:
    pieces = ("<unk>", "<s>", "▁a", "b", "<i>")

    def test_special_tokens_are_boxed_and_typed_ones_are_not(self) -> None:
        found = prose.ids((1, 2, 3, 4), self.pieces, frozenset({1}))
        assert found == "<b>&lt;s&gt;</b> ab&lt;i&gt;"

    def test_the_token_that_differs_is_marked_with_its_neighbours_set_apart(self) -> None:
        found = prose.ids_around((1, 2, 3), self.pieces, frozenset({1}), 1)
        assert found == "<b>&lt;s&gt;</b><mark><u>▁a</u></mark><u>b</u>"

    def test_a_missing_end_is_marked(self) -> None:
        found = prose.ids_around((1, 2), self.pieces, frozenset({1}), 2)
        assert found.endswith("<mark>(end)</mark>")

    def test_an_id_without_a_piece_is_a_number(self) -> None:
        assert prose.ids((99,), self.pieces, frozenset()) == "<u>id 99</u>"
