"""The teacher-forced pass: a text through `Runtime.force`, reduced row by row.

Nothing as wide as the vocabulary outlives its chunk. What is written grows sequence by sequence, so
that an interrupted pass goes on where it stopped. Files are described in `store.distributions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from driftline.runtimes.base import TextJob
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.forced import Corpora, ForcedSequence
from driftline.schema.values import dump_lines, load, load_lines
from driftline.store.distributions import (
    IDS,
    LOGITS,
    ROW,
    ROWS,
    SEQUENCES,
    RowFile,
    gather,
    reduce,
    top_ids,
    width_of,
)

Force = Callable[[Sequence[int], int], Iterator[Any]]
"""`Runtime.force`, or a counterfactual's: (ids, first row) → chunks of logits."""
Say = Callable[[str, int], None]
"""Told (what is being forced, sequences in all)."""


def golden(
    prompts: Sequence[PinnedPrompt], answers: Mapping[str, Completion]
) -> list[ForcedSequence]:
    """Golden prompts, each followed by the reference's greedy answer, in the prompts' order.

    The answer's last id is only a target: what a model says after its own end means nothing.
    """
    return [
        ForcedSequence(
            kind="golden",
            source=prompt.evalset,
            id=prompt.id,
            ids=(*prompt.ids, *answers[prompt.key].output_ids[:-1]),
            target=answers[prompt.key].output_ids[-1],
            n_prompt=len(prompt.ids),
        )
        for prompt in prompts
        if prompt.key in answers
    ]


def write_text(
    text: TextJob, out: Path, prompts: Sequence[PinnedPrompt], answers: Mapping[str, Completion]
) -> None:
    """Leave in `out` the sequences of the text whose reference gave `answers`."""
    sequences = golden(prompts, answers)
    if text.corpora is not None:
        windows = load(Corpora, text.corpora).windows
        sequences += [window for window in windows if window.source in text.sources]
    out.mkdir(parents=True, exist_ok=True)
    dump_lines(sequences, out / SEQUENCES)


def force(source: Force, text: TextJob, out: Path, *, reverse: bool, say: Say) -> None:
    """Force a text through `source` and write its distributions into `out`.

    Args:
        source: where logits come from.
        text: its `folder` holds sequences and partition; without one it is this cell's own: the
            sequences lie in `out`, and the partition is written there as well.
        out: folder; what an interrupted pass left in it is kept.
        reverse: force, and write, the last sequence first.
        say: told of every sequence.

    Raises:
        ValueError: `source` gave more or fewer rows than it was given ids, or NaN.
    """
    every = list(load_lines(ForcedSequence, (text.folder or out) / SEQUENCES))
    sequences = [each for each in every if each.source in text.sources]
    writer = _Writer(text, every, out, total=sum(each.n_rows for each in sequences))
    ordered = sequences[::-1] if reverse else sequences
    done = writer.resume([each.n_rows for each in ordered])
    for sequence in ordered[done:]:
        say(f"forced {sequence.key}", len(ordered))
        given = 0
        for logits in source(sequence.ids, sequence.first_row):
            writer.append(sequence, given, logits)
            given += len(logits)
        if given != sequence.n_rows:
            raise ValueError(f"{sequence.key}: {given} rows of logits, {sequence.n_rows} expected")
    writer.close()


class _Writer:
    """The files of one text in one cell; opened when the first logits tell their width."""

    def __init__(
        self, text: TextJob, every: Sequence[ForcedSequence], out: Path, *, total: int
    ) -> None:
        self._out, self._total, self._top_k = out, total, text.top_k
        self._folder = text.folder
        self._starts, at = {}, 0
        for sequence in every:
            self._starts[sequence.key] = at
            at += sequence.n_rows
        self._files: dict[str, RowFile] = {}

    @property
    def _names(self) -> tuple[str, ...]:
        return (LOGITS, ROWS) if self._folder else (LOGITS, ROWS, IDS)

    def resume(self, lengths: Sequence[int]) -> int:
        """Keep what an interrupted pass wrote of whole sequences; how many those are."""
        if not all((self._out / name).exists() for name in self._names):
            return 0
        self._open(width_of(self._out / LOGITS))
        written, kept, sequences = min(file.rows for file in self._files.values()), 0, 0
        for length in lengths:
            if kept + length > written:
                break
            kept, sequences = kept + length, sequences + 1
        for file in self._files.values():
            file.keep(kept)
        return sequences

    def append(self, sequence: ForcedSequence, given: int, logits: Any) -> None:
        """Rows `given` and following of a sequence."""
        ids = self._partition(sequence, given, logits)
        if not self._files:
            self._open(ids.shape[1])
        rows = reduce(logits, ids, sequence.targets[given : given + len(logits)])
        if not np.isfinite(rows["log_z"]).all():
            raise ValueError(f"{sequence.key}: logits that are not numbers, or infinite")
        self._files[LOGITS].append(gather(logits, ids))
        self._files[ROWS].append(rows)
        if self._folder is None:
            self._files[IDS].append(ids)

    def _partition(self, sequence: ForcedSequence, given: int, logits: Any) -> Any:
        if self._folder is None:
            return top_ids(logits, min(self._top_k, logits.shape[1]))
        start = self._starts[sequence.key] + given
        return np.array(np.load(self._folder / IDS, mmap_mode="r")[start : start + len(logits)])

    def _open(self, width: int) -> None:
        shapes = {LOGITS: ("<f4", (self._total, width)), ROWS: (ROW, (self._total,))}
        shapes[IDS] = ("<i4", (self._total, width))
        for name in self._names:
            dtype, shape = shapes[name]
            self._files[name] = RowFile(self._out / name, dtype, shape)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
