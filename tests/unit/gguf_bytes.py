"""GGUF files byte by byte, well formed or not."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
LAYOUTS = {
    U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?",
    U64: "<Q", I64: "<q", F64: "<d",
}  # fmt: skip
F32_TENSOR, Q8_0_TENSOR = 0, 8


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def field(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(name: bytes, inner: int, count: int, entries: bytes) -> bytes:
    return field(name, ARRAY, struct.pack("<IQ", inner, count) + entries)


def tensor(name: bytes, shape: Sequence[int], kind: int, offset: int) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


def gguf(
    fields: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A file: `counts` of tensors and fields are what it claims, by default the truth."""
    claimed = (len(tensors), len(fields)) if counts is None else counts
    head = magic + struct.pack("<IQQ", version, *claimed) + b"".join(fields) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data
