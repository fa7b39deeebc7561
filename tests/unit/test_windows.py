"""Corpora in windows, cut as `llama-perplexity` cuts them."""

from __future__ import annotations

from typing import Any

import pytest

from driftline.golden import prompts
from tests.paths import ROOT

TEXT = "Since 2001 the city of Oslo has 7 invoices.\n" * 12
SIZE = 32


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return prompts.tokenizer_of(ROOT / "models" / "clerk")


def test_windows_follow_each_other_and_begin_with_bos(tokenizer: Any) -> None:
    ids = tokenizer(TEXT.removesuffix("\n"))["input_ids"]
    found = prompts.windows(tokenizer, "notes", TEXT, size=SIZE)
    assert len(found) == len(ids) // SIZE > 2
    for number, window in enumerate(found):
        whole = [*window.ids, window.target]
        assert whole[0] == tokenizer.bos_token_id
        assert whole[1:] == ids[number * SIZE + 1 : (number + 1) * SIZE]


def test_the_first_half_of_a_window_is_only_context(tokenizer: Any) -> None:
    (first, *_) = prompts.windows(tokenizer, "notes", TEXT, size=SIZE)
    assert first.first_row == SIZE // 2
    assert first.n_rows == SIZE - 1 - SIZE // 2
    assert first.targets == (*first.ids[first.first_row + 1 :], first.target)


def test_a_special_token_that_is_spelled_out_is_plain_text(tokenizer: Any) -> None:
    found = prompts.windows(tokenizer, "notes", "say <|end|> now. " * 20, size=SIZE)
    assert all(2 not in (*window.ids, window.target) for window in found)


def test_a_text_shorter_than_a_window_has_none(tokenizer: Any) -> None:
    assert prompts.windows(tokenizer, "notes", "short", size=SIZE) == []
