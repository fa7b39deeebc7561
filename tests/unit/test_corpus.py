"""The text that benchmarks force: as long as asked, and the same on every machine."""

from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import pytest
import sentencepiece

from benchmarks import corpus
from tests.paths import ROOT

LENGTHS = (0, 1, 500, 3000, 25_000)


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def text(path: Path, tokens: int) -> str:
    corpus.corpus(path, tokens)
    return path.read_text(encoding="utf-8")


def test_equal_lengths_are_equal_texts_and_longer_ones_begin_with_them(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    made = [text(path, tokens) for tokens in LENGTHS]
    assert made == [text(path, tokens) for tokens in LENGTHS]
    assert all(long.startswith(short) for short, long in pairwise(made))
    assert made[0] == ""
    assert all(each.endswith("\n") for each in made[1:])


@pytest.mark.parametrize("tokens", LENGTHS)
def test_a_text_has_the_tokens_asked_for_and_less_than_an_item_more(
    tmp_path: Path, tokens: int
) -> None:
    path = tmp_path / "text.txt"
    counted = corpus.corpus(path, tokens)
    model = sentencepiece.SentencePieceProcessor(model_file=str(corpus.TOKENIZER))
    longest = max(len(model.encode(part)) for part in islice(corpus._parts(), 1000))
    assert len(model.encode(path.read_text(encoding="utf-8"))) == counted
    assert tokens <= counted < tokens + longest


def test_later_rounds_are_other_items_in_another_order() -> None:
    first = list(islice(corpus._parts(), 1000))
    size = first.index(first[0].translate(str.maketrans("0123456789", "1234567890")))
    assert size > 100
    assert len(set(first)) > 0.9 * len(first)


def test_no_special_token_is_spelt_out(tmp_path: Path) -> None:
    made = text(tmp_path / "text.txt", 25_000)
    assert not [marker for marker in ("<|", "|>", "<s>", "</s>", "<unk>") if marker in made]
