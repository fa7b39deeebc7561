"""What two forced passes left on disk, as records: digests, and the first against the second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from driftline.runtimes.base import TextJob
from driftline.schema.forced import ForcedFloor, ForcedRecord, ForcedSequence
from driftline.schema.values import load_lines
from driftline.store import digest
from driftline.store.distributions import (
    IDS,
    LOGITS,
    ROWS,
    SEQUENCES,
    Chunk,
    Distributions,
    divergence,
)


def collected(
    texts: Sequence[TextJob], folders: Sequence[Path], problems: Sequence[str]
) -> tuple[tuple[ForcedRecord, ...], str]:
    """Records of the texts that were forced whole, and what stopped the others.

    Args:
        texts: as the job had them.
        folders: distributions of the first pass, then of the second, if there was one.
        problems: what each pass reported, empty where nothing.
    """
    problem = next((text for text in problems if text), "")
    if problem:
        return (), " ".join(problem.split())[:500]
    records = []
    for text in texts:
        sequences = _sequences(text, folders[0] / text.name)
        if sequences:
            records.append(record(text, folders[0] / text.name, sequences, _second(text, folders)))
    return tuple(records), ""


def record(
    text: TextJob,
    folder: Path,
    sequences: Sequence[ForcedSequence],
    second: Distributions | None = None,
) -> ForcedRecord:
    """What lies in `folder`, and how far a second pass is from it."""
    first = Distributions(folder, tuple(sequences))
    sample = first.read(sequences[0].key)
    return ForcedRecord(
        text=text.name,
        sequences=len(sequences),
        rows=sum(sequence.n_rows for sequence in sequences),
        width=sample.logits.shape[1],
        logits_sha256=digest.sha256_file(folder / LOGITS),
        rows_sha256=digest.sha256_file(folder / ROWS),
        floor=None if second is None else floor(first, second),
    )


def floor(first: Distributions, second: Distributions) -> ForcedFloor:
    """KL of the second pass from the first, over the sequences both have."""
    total, rows, largest = 0.0, 0, 0.0
    shared = [each.key for each in first.sequences if each.key in second.offsets]
    for (key, before), (_, after) in zip(first.chunks(shared), second.chunks(shared), strict=True):
        if before.logits.shape != after.logits.shape:
            continue  # another answer: the cell is unstable, and says so
        values = divergence(_by_id(first, key, before), _by_id(second, key, after))
        total, rows = total + float(values.sum()), rows + len(values)
        largest = max(largest, float(values.max()))
    return ForcedFloor(rows=rows, mean_kl=total / rows if rows else 0.0, max_kl=largest)


def _by_id(made: Distributions, key: str, chunk: Chunk) -> Chunk:
    """Logits in the order of their ids: a reference's two passes each make a partition."""
    if not (made.folder / IDS).exists():
        return chunk
    start, end = made.offsets[key]
    order = np.argsort(np.load(made.folder / IDS, mmap_mode="r")[start:end], axis=1)
    return Chunk(np.take_along_axis(chunk.logits, order, axis=1), chunk.rows)


def _sequences(text: TextJob, folder: Path) -> list[ForcedSequence]:
    sequences = load_lines(ForcedSequence, (text.folder or folder) / SEQUENCES)
    return [sequence for sequence in sequences if sequence.source in text.sources]


def _second(text: TextJob, folders: Sequence[Path]) -> Distributions | None:
    if len(folders) < 2:
        return None
    folder = folders[1] / text.name
    return Distributions(folder, tuple(_sequences(text, folder)[::-1]))
