"""Next-token distributions on disk: O(positions x K), written and read in chunks.

A text has one *partition*: per row the K most likely ids of its reference cell (the whole
vocabulary when it has at most K entries). Every cell of that text, and every counterfactual, keeps
its own logits at those ids, so that any two of them can be compared, not only neighbours:

- `ids.npy`     int32   [rows, K]: the partition, kept once, beside the text;
- `logits.npy`  float32 [rows, K]: the logits as the runtime gave them, nothing rounded;
- `rows.npy`    ROW     [rows]: what K logits don't say.

`log_z` is the log of the sum of exponentials over the whole vocabulary in float64, so that
`logits - log_z` are log-probabilities that lose nothing to normalisation in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from driftline.schema.forced import ForcedSequence

Floats = NDArray[np.float64]

ROW = np.dtype(
    [
        ("log_z", "<f8"),
        ("log_tail", "<f8"),  # log of the exponentials outside the partition, -inf for none
        ("target_logit", "<f4"),  # NaN where the row has no target
        ("top1", "<i4"),
        ("top1_logit", "<f4"),
        ("top2", "<i4"),
        ("top2_logit", "<f4"),
    ]
)
CHUNK = 256
"""Rows of full-vocabulary logits held at once."""
IMPOSSIBLE = -1e4
"""Stands for the log of a probability the child has at exactly 0: KL stays finite, and enormous."""
_SLICE = 16
"""Rows turned to float64 at once."""

IDS, LOGITS, ROWS = "ids.npy", "logits.npy", "rows.npy"
SEQUENCES = "sequences.jsonl"


class RowFile:
    """An `.npy` file of known length that grows row by row, and goes on where it was cut off."""

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
        """Start the file anew, or go on with one of the same type and shape."""
        self.dtype = np.dtype(dtype)
        self._width = self.dtype.itemsize * int(np.prod(shape[1:]))
        if not path.exists() or _header(path)[:2] != (shape, self.dtype):
            with path.open("wb") as file:
                description = npy.dtype_to_descr(self.dtype)
                layout = {"descr": description, "fortran_order": False, "shape": shape}
                npy.write_array_header_1_0(file, layout)
        self._start = _header(path)[2]
        self._file: IO[bytes] = path.open("ab")

    @property
    def rows(self) -> int:
        """Whole rows in the file."""
        written: int = (self._file.tell() - self._start) // self._width
        return written

    def keep(self, rows: int) -> None:
        """Forget everything after the first `rows` rows."""
        self._file.truncate(self._start + rows * self._width)
        self._file.seek(0, 2)

    def append(self, values: NDArray[Any]) -> None:
        """Add rows, and hand them to the operating system."""
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).tobytes())
        self._file.flush()

    def close(self) -> None:
        """No row follows."""
        self._file.close()


def width_of(path: Path) -> int:
    """Columns of an `.npy` file of rows, whole or cut off."""
    shape: tuple[int, ...] = _header(path)[0]
    return shape[1]


def _header(path: Path) -> tuple[tuple[int, ...], Any, int]:
    """Shape, type and where the rows begin."""
    with path.open("rb") as file:
        npy.read_magic(file)
        shape, _, dtype = npy.read_array_header_1_0(file)
        return shape, dtype, int(file.tell())


def top_ids(logits: NDArray[np.float32], width: int) -> NDArray[np.int32]:
    """Ids of the `width` highest logits of each row, highest first, lowest id first on a tie.

    Args:
        logits: [rows, vocabulary].
        width: at most the vocabulary's size.
    """
    if width >= logits.shape[1]:
        return np.argsort(-logits, axis=1, kind="stable").astype(np.int32)
    # Sorting only what is at least the K-th highest logit; ids ascend, so ties go to the lowest.
    lowest = -np.partition(-logits, width - 1, axis=1)[:, width - 1]
    largest = np.empty((len(logits), width), dtype=np.int32)
    for row, floor in enumerate(lowest):
        near = np.flatnonzero(logits[row] >= floor)
        largest[row] = near[np.argsort(-logits[row, near], kind="stable")[:width]]
    return largest


def gather(logits: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits [rows, K] at `ids` [rows, K]; -inf where the vocabulary has no such id."""
    inside = ids < logits.shape[1]
    gathered = np.take_along_axis(logits, np.where(inside, ids, 0), axis=1)
    return np.where(inside, gathered, np.float32(-np.inf)).astype(np.float32)


def reduce(
    logits: NDArray[np.float32], ids: NDArray[np.int32], targets: Sequence[int]
) -> NDArray[Any]:
    """One `ROW` per row of `logits` [rows, vocabulary], for the partition `ids` [rows, K]."""
    out = np.zeros(len(logits), dtype=ROW)
    for start in range(0, len(logits), _SLICE):
        part = slice(start, start + _SLICE)
        _reduce(logits[part], ids[part], np.asarray(targets[part]), out[part])
    return out


def _reduce(
    logits: NDArray[np.float32],
    ids: NDArray[np.int32],
    targets: NDArray[Any],
    out: NDArray[Any],
) -> None:
    lines = np.arange(len(logits))
    top1 = logits.argmax(1)
    peak = logits[lines, top1].astype(np.float64)
    weights = np.exp(logits.astype(np.float64) - peak[:, None])
    out["log_z"] = peak + np.log(weights.sum(1))
    inside = ids < logits.shape[1]
    for row, known in enumerate(inside):
        weights[row, ids[row, known]] = 0.0
    with np.errstate(divide="ignore"):
        out["log_tail"] = peak + np.log(weights.sum(1))
    known = (targets >= 0) & (targets < logits.shape[1])
    out["target_logit"] = np.where(known, logits[lines, np.where(known, targets, 0)], np.nan)
    out["top1"], out["top1_logit"] = top1, peak
    rest = logits.copy()
    rest[lines, top1] = -np.inf
    top2 = rest.argmax(1)
    out["top2"], out["top2_logit"] = top2, rest[lines, top2]


@dataclass(frozen=True)
class Chunk:
    """Rows of one cell's distributions; arrays share their first axis.

    Law: `exp(log_probs)` over a row plus `exp(log_tail)` is 1.
    """

    logits: NDArray[np.float32]
    rows: NDArray[Any]

    @property
    def log_probs(self) -> Floats:
        """Natural-log probabilities at the partition's ids, [rows, K]."""
        log_probs: Floats = self.logits.astype(np.float64) - self.rows["log_z"][:, None]
        return log_probs

    @property
    def log_tail(self) -> Floats:
        """Natural-log probability of everything outside the partition, [rows]."""
        log_tail: Floats = self.rows["log_tail"] - self.rows["log_z"]
        return log_tail

    @property
    def target_log_prob(self) -> Floats:
        """Natural-log probability of the target, [rows]; NaN where there is none."""
        log_prob: Floats = self.rows["target_logit"].astype(np.float64) - self.rows["log_z"]
        return log_prob

    @property
    def margin(self) -> Floats:
        """Logit of the most likely id minus that of the second, in nats, [rows]."""
        first = self.rows["top1_logit"].astype(np.float64)
        margin: Floats = first - self.rows["top2_logit"].astype(np.float64)
        return margin


def divergence(parent: Chunk, child: Chunk) -> Floats:
    """KL(parent || child) in nats on the partition and one class for the rest, [rows].

    The sum of q - p - p d with d = ln q - ln p: equal to the sum of p ln(p / q) because both sides
    sum to 1, but without a negative term; written p (e^d - 1 - d) where d is small, so that 1e-13
    is not lost to cancellation. Exactly 0 for equal inputs.
    """
    p = np.column_stack((parent.log_probs, parent.log_tail))
    q = np.column_stack((child.log_probs, child.log_tail))
    with np.errstate(invalid="ignore"):  # -inf - -inf: neither side has it
        d = np.maximum(q - p, IMPOSSIBLE)
        near = np.exp(p) * (np.expm1(np.minimum(d, 1.0)) - d)
        far = np.exp(q) - np.exp(p) * (1.0 + d)
    terms = np.where(d > 1.0, far, near)
    nats: Floats = np.where(np.isneginf(p), np.exp(q), terms).sum(1)
    return nats


@dataclass(frozen=True)
class Distributions:
    """One cell's distributions of one text, on disk; `sequences` say which rows are whose."""

    folder: Path
    sequences: tuple[ForcedSequence, ...]

    @property
    def offsets(self) -> dict[str, tuple[int, int]]:
        """Per sequence key, its first row and the row after its last."""
        found, at = {}, 0
        for sequence in self.sequences:
            found[sequence.key] = (at, at + sequence.n_rows)
            at += sequence.n_rows
        return found

    def sequence(self, key: str) -> ForcedSequence | None:
        """The sequence of that key, None when there is none."""
        return next((each for each in self.sequences if each.key == key), None)

    def read(self, key: str) -> Chunk:
        """The rows of one sequence."""
        start, end = self.offsets[key]
        logits = np.load(self.folder / LOGITS, mmap_mode="r")
        rows = np.load(self.folder / ROWS, mmap_mode="r")
        return Chunk(np.array(logits[start:end]), np.array(rows[start:end]))

    def chunks(self, keys: Sequence[str]) -> Iterator[tuple[str, Chunk]]:
        """The rows of each of `keys`, in their order; files are opened once."""
        logits = np.load(self.folder / LOGITS, mmap_mode="r")
        rows = np.load(self.folder / ROWS, mmap_mode="r")
        offsets = self.offsets
        for key in keys:
            start, end = offsets[key]
            yield key, Chunk(np.array(logits[start:end]), np.array(rows[start:end]))
