"""Read what a GGUF file says of itself and its tensors, with bounded reads and no tensor loaded.

A file is the magic `GGUF`, a version, counts of tensors and of key-value pairs, the pairs, one
entry per tensor, padding, then the tensors' bytes. Lengths in it are not trusted: nothing is
allocated that the file could not hold (gguf-py 0.19 hangs on 49 bytes that claim a 2^63 array).

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from driftline.errors import RefusedError

KEPT = 16
"""Longest array given as a list; longer ones are given as their length and digest."""
TENSOR_LIMIT = 1_000_000
FIELD_LIMIT = 100_000
RANK_LIMIT = 4
_DEFAULT_ALIGNMENT = 32
_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One stored tensor: its type's name, its shape, and its bytes `[start, end)` of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Fields by key (arrays longer than `KEPT` as length and sha256), tensors by name."""

    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]


def gguf_header(path: Path) -> GgufHeader:
    """Header of a GGUF file.

    Raises:
        RefusedError: truncated, malformed, or of a version other than 2 and 3.
    """
    try:
        with path.open("rb") as file:
            return _Reader(file, path.stat().st_size).header()
    except (ValueError, struct.error) as problem:
        raise RefusedError(
            f"{path}: not a whole GGUF file: {problem}", remedy="convert it again"
        ) from None


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def header(self) -> GgufHeader:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not start with GGUF")
        version = self._number("<I")
        if version not in (2, 3):
            raise ValueError(f"version {version}, expected 2 or 3")
        tensors, fields = self._number("<Q"), self._number("<Q")
        if tensors > TENSOR_LIMIT or fields > FIELD_LIMIT:
            raise ValueError(f"{tensors} tensors and {fields} fields")
        values: dict[str, Any] = {}
        for _ in range(fields):
            name = self._string()
            if name in values:
                raise ValueError(f"field {name!r:.100} is there twice")
            values[name] = self._value(self._number("<I"))
        return GgufHeader(values, self._tensors(tensors, values.get("general.alignment")))

    def _tensors(self, count: int, alignment: Any) -> dict[str, GgufTensor]:
        entries = {}
        for _ in range(count):
            name = self._string()
            rank = self._number("<I")
            if rank > RANK_LIMIT or name in entries:
                raise ValueError(f"tensor {name!r:.100}: rank {rank}, or there twice")
            shape = tuple(self._number("<Q") for _ in range(rank))
            entries[name] = (shape, self._number("<I"), self._number("<Q"))
        step = _DEFAULT_ALIGNMENT if alignment is None else alignment
        if not isinstance(step, int) or step < 1 or step & (step - 1):
            raise ValueError(f"alignment {step!r:.100}, expected a power of two")
        data = -(-self._file.tell() // step) * step
        bytes_of = _bytes_of()
        spans = {}
        for name, (shape, kind, offset) in entries.items():
            dtype, length = bytes_of(kind, shape)
            if data + offset + length > self._size:
                raise ValueError(f"tensor {name!r:.100} ends beyond the file")
            spans[name] = GgufTensor(dtype, shape, data + offset, data + offset + length)
        return spans

    def _value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            raise ValueError(f"value type {kind}")
        inner, count = self._number("<I"), self._number("<Q")
        if inner != _STRING and inner not in _SCALARS:
            raise ValueError(f"an array of value type {inner}")
        if count <= KEPT:
            return [self._value(inner) for _ in range(count)]
        start = self._file.tell()
        self._skip(inner, count)
        length = self._file.tell() - start
        self._file.seek(start)
        return f"{count} entries, sha256 {hashlib.sha256(self._take(length)).hexdigest()}"

    def _skip(self, kind: int, count: int) -> None:
        if kind in _SCALARS:
            self._take(struct.calcsize(_SCALARS[kind]) * count)
            return
        for _ in range(count):
            self._take(self._number("<Q"))

    def _string(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8", "backslashreplace")

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, length: int) -> bytes:
        """Exactly `length` bytes; a length the file cannot hold is never allocated."""
        if length > self._size - self._file.tell():
            raise ValueError(f"it ends at byte {self._size}, inside its header")
        return self._file.read(length)


def _bytes_of() -> Callable[[int, tuple[int, ...]], tuple[str, int]]:
    """Type number and shape → name of the type and stored bytes, by gguf-py's own table."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    def found(kind: int, shape: tuple[int, ...]) -> tuple[str, int]:
        own = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[own]
        return own.name, math.prod(shape) // block * size

    return found
