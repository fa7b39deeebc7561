"""The greedy loop: where an answer ends, and why it is said to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.runtimes import stepwise
from driftline.runtimes.stepwise import Step


def endless(*tokens: int) -> Iterator[Step]:
    for token in tokens:
        yield Step(token, -1.0)
    while True:
        yield Step(9, -1.0)


def run(tokens: Iterator[Step], limit: int, stop: str = "") -> tuple[list[int], bool]:
    found, ended = stepwise.take(
        tokens,
        limit=limit,
        end_ids=frozenset({2}),
        ended_by_text=lambda ids: stop in "".join(map(str, ids)),
        watch_text=bool(stop),
    )
    return [step.token for step in found], ended


def test_the_end_token_is_the_last_step() -> None:
    assert run(endless(5, 6, 2, 7), limit=10) == ([5, 6, 2], True)


def test_the_limit_cuts_an_answer_that_does_not_end() -> None:
    assert run(endless(5, 6), limit=4) == ([5, 6, 9, 9], False)


def test_an_end_token_in_the_last_place_still_ends() -> None:
    assert run(endless(5, 2), limit=2) == ([5, 2], True)


def test_a_stop_string_may_span_tokens() -> None:
    assert run(endless(5, 6, 7), limit=9, stop="67") == ([5, 6, 7], True)


@given(st.integers(1, 50), st.integers(1, 50))
def test_the_reason_says_what_ran_out_first(limit: int, room: int) -> None:
    assert stepwise.finish_reason(True, limit=limit, room=room) == "stop"
    expected = "length" if limit <= room else "context"
    assert stepwise.finish_reason(False, limit=limit, room=room) == expected


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [("one\ntwo", ("\n",), "one"), ("one", ("\n",), "one"), ("a b c", (" c", " b"), "a")],
)
def test_text_is_cut_at_the_first_stop_string(
    text: str, stops: tuple[str, ...], expected: str
) -> None:
    assert stepwise.cut(text, stops) == expected


def test_a_continuation_keeps_the_space_a_decoder_drops() -> None:
    words = {1: "▁Once", 2: "▁upon", 3: "s"}

    def decode(ids: Sequence[int]) -> str:
        joined = "".join(words[token] for token in ids)
        return joined.replace("▁", " ").removeprefix(" ")

    assert stepwise.continuation(decode, [2, 3], [1]) == " upons"
