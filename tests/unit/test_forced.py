"""The teacher-forced pass: what is written, and that an interrupted one goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.runtimes import forced
from driftline.runtimes.base import TextJob
from driftline.runtimes.collect import floor, record
from driftline.schema.forced import ForcedSequence
from driftline.schema.values import dump_lines
from driftline.store import distributions
from driftline.store.distributions import LOGITS, ROWS, Distributions

VOCABULARY = 12
SEQUENCES = tuple(
    ForcedSequence(
        kind="golden", source="set", id=f"i-{n}", ids=tuple(range(1, 4 + n)), target=0, n_prompt=2
    )
    for n in range(4)
)


class Source:
    """Logits that follow from the ids; dies before its `fails`-th sequence, if that is given."""

    def __init__(self, fails: int | None = None) -> None:
        self.asked: list[int] = []
        self._fails = fails

    def __call__(self, ids: Sequence[int], first_row: int) -> Iterator[Any]:
        if self._fails is not None and len(self.asked) == self._fails:
            raise RuntimeError("died")
        self.asked.append(len(ids))
        rng = np.random.default_rng(len(ids))
        logits = rng.normal(size=(len(ids), VOCABULARY)).astype(np.float32)
        for start in range(first_row, len(ids), 2):
            yield logits[start : start + 2]


def text(folder: Path, top_k: int = 100) -> TextJob:
    folder.mkdir(exist_ok=True)
    dump_lines(SEQUENCES, folder / distributions.SEQUENCES)
    return TextJob(name="t", folder=None, sources=("set",), top_k=top_k)


def run(job: TextJob, out: Path, source: Source, *, reverse: bool = False) -> None:
    forced.force(source, job, out, reverse=reverse, say=lambda *_: None)


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(text(whole), whole, Source())
    job = text(broken)
    with pytest.raises(RuntimeError, match="died"):
        run(job, broken, Source(fails=2))
    again = Source()
    run(job, broken, again)
    assert again.asked == [len(each.ids) for each in SEQUENCES[2:]]
    for name in (LOGITS, ROWS, "ids.npy"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_a_source_with_too_few_rows_is_refused(tmp_path: Path) -> None:
    def short(ids: Sequence[int], first_row: int) -> Iterator[Any]:
        yield np.zeros((1, VOCABULARY), dtype=np.float32)

    with pytest.raises(ValueError, match="1 rows of logits, 3 expected"):
        forced.force(short, text(tmp_path), tmp_path, reverse=False, say=lambda *_: None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    def broken(ids: Sequence[int], first_row: int) -> Iterator[Any]:
        yield np.full((len(ids), VOCABULARY), value, dtype=np.float32)

    with pytest.raises(ValueError, match="set/i-0"):
        forced.force(broken, text(tmp_path), tmp_path, reverse=False, say=lambda *_: None)


@pytest.mark.parametrize("top_k", [100, 5])
def test_the_second_pass_in_reverse_is_the_first_to_the_bit(tmp_path: Path, top_k: int) -> None:
    """Each pass of a reference makes its own partition; equal logits are no distance apart."""
    first, second = tmp_path / "first", tmp_path / "second"
    run(text(first, top_k), first, Source())
    run(text(second, top_k), second, Source(), reverse=True)
    found = floor(Distributions(first, SEQUENCES), Distributions(second, SEQUENCES[::-1]))
    assert found.rows == sum(each.n_rows for each in SEQUENCES)
    assert found.mean_kl == found.max_kl == 0.0


def test_two_passes_are_compared_by_id_not_by_rank(tmp_path: Path) -> None:
    def mirrored(ids: Sequence[int], first_row: int) -> Iterator[Any]:
        for logits in Source()(ids, first_row):
            yield logits[:, ::-1]

    first, second = tmp_path / "first", tmp_path / "second"
    run(text(first), first, Source())
    forced.force(mirrored, text(second), second, reverse=True, say=lambda *_: None)
    found = floor(Distributions(first, SEQUENCES), Distributions(second, SEQUENCES[::-1]))
    assert found.mean_kl > 0.1


def test_a_record_has_what_was_kept(tmp_path: Path) -> None:
    job = text(tmp_path, top_k=5)
    run(job, tmp_path, Source())
    found = record(job, tmp_path, SEQUENCES)
    assert (found.sequences, found.width) == (4, 5)
    assert found.rows == sum(each.n_rows for each in SEQUENCES)
    assert np.load(tmp_path / LOGITS).shape == (found.rows, 5)
