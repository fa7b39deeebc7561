"""What is stored in each artifact, tensor by tensor: how far it is, and what explains it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from driftline.schema.weights import CounterfactualRecord, Explained, FieldChange, TensorChange

FURTHEST = 5
"""How many tensors are named per artifact."""
EXPLAINED: tuple[Explained, ...] = ("exact", "within", "beyond")


@dataclass(frozen=True)
class StoredRow:
    """One artifact: its tensors per explanation, and those furthest from what they came from.

    `furthest` has tensors that nothing explains first, then those with the largest relative error.
    """

    record: CounterfactualRecord
    counts: tuple[tuple[int, Explained], ...]
    furthest: tuple[TensorChange, ...]

    @property
    def fields(self) -> tuple[FieldChange, ...]:
        """Fields beside the weights that are not what they should be."""
        return (*self.record.config, *self.record.text_fields)


def stored_rows(records: Iterable[CounterfactualRecord]) -> tuple[StoredRow, ...]:
    """Artifacts: without a split first, then most tensors beyond explanation, then most fields."""
    return tuple(sorted(map(_row, records), key=_rank))


def _row(record: CounterfactualRecord) -> StoredRow:
    explained = [tensor.explained for tensor in record.tensors]
    changed = [each for each in record.tensors if each.relative_error > 0 or _beyond(each)]
    changed.sort(key=lambda each: (not _beyond(each), -each.relative_error))
    return StoredRow(
        record=record,
        counts=tuple((explained.count(each), each) for each in EXPLAINED if each in explained),
        furthest=tuple(changed[:FURTHEST]),
    )


def _beyond(tensor: TensorChange) -> bool:
    return tensor.explained == "beyond"


def _rank(row: StoredRow) -> tuple[bool, int, int, float]:
    beyond = sum(map(_beyond, row.record.tensors))
    largest = row.furthest[0].relative_error if row.furthest else 0.0
    return row.record.trusted, -beyond, -len(row.fields), -largest
