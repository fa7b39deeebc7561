"""Read what a Safetensors file says of its tensors, without reading a tensor.

A file is an unsigned 64-bit little-endian length, a JSON header of that length, then the tensors'
bytes. This reader accepts only what the safetensors library accepts, and less: two entries of one
name, or an unknown field, are refused too. It reads the header alone, never more than
`HEADER_LIMIT` bytes.

Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.errors import RefusedError
from driftline.schema.artifacts import Census

HEADER_LIMIT = 100_000_000
"""Longest header in bytes; the safetensors library has the same limit."""
RANK_LIMIT = 64
"""Most dimensions of a tensor; PyTorch has the same limit."""
BITS: Mapping[str, int] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
"""Bits per element of every type the format knows."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor: its type, its shape, and its bytes `[start, end)` of the file.

    Law: `(end - start) * 8 == BITS[dtype] * elements`.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """Number of stored elements; 1 for a scalar."""
        return math.prod(self.shape)


def safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """Every tensor of a Safetensors file, in the header's order.

    Args:
        path: a plain file.

    Raises:
        RefusedError: truncated, malformed, or with bytes that belong to no tensor or to two.
    """
    return _told(path)[0]


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The text pairs a Safetensors file carries beside its tensors.

    Raises:
        RefusedError: as `safetensors_header`.
    """
    return _told(path)[1]


def _told(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        return _read(path)
    except ValueError as problem:
        raise RefusedError(
            f"{path}: not a whole Safetensors file: {problem}",
            remedy="download or export it again",
        ) from None
    except OSError as problem:
        raise RefusedError(
            f"{path}: cannot be read: {problem.strerror}", remedy="check the file's permissions"
        ) from None


def census(folder: Path) -> Census:
    """Count what is stored in the Safetensors files right inside `folder`.

    Elements are counted as stored: weights packed several to an integer need a census of their own.

    Raises:
        RefusedError: a file is malformed.
    """
    tensors = [
        info
        for path in sorted(folder.glob("*.safetensors"))
        for info in safetensors_header(path).values()
    ]
    elements: Counter[str] = Counter()
    for info in tensors:
        elements[info.dtype] += info.elements
    weights = elements.total()
    stored = sum(info.end - info.start for info in tensors)
    return Census(
        types=dict(Counter(info.dtype for info in tensors)),
        elements=dict(elements),
        tensors=len(tensors),
        weights=weights,
        bits_per_weight=round(stored * 8 / weights, 4) if weights else 0.0,
    )


def parse_json(data: bytes) -> Any:
    """Parse UTF-8 JSON in which no object has one key twice.

    Raises:
        ValueError: it is not; the message says where.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as problem:
        raise ValueError(f"not UTF-8: byte {problem.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r:.100} is there twice")
    return unique


def _read(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{size} bytes are too few for a header length")
        length = int.from_bytes(prefix, "little")
        if length > HEADER_LIMIT:
            raise ValueError(f"its header would be {length} bytes, more than {HEADER_LIMIT}")
        if length > size - 8:
            raise ValueError(f"its header should have {length} bytes, the file has {size - 8}")
        text = file.read(length)
    if not text.startswith(b"{"):
        raise ValueError("its header does not start with {")
    header = parse_json(text)
    metadata = _metadata(header.pop("__metadata__", None))
    data = 8 + length
    tensors = {name: _tensor(name, entry, data) for name, entry in header.items()}
    _check_coverage(tensors, data, size)
    return tensors, metadata


def _metadata(metadata: Any) -> dict[str, str]:
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("__metadata__ is not a mapping from text to text")
    return metadata


def _tensor(name: str, entry: Any, data: int) -> TensorInfo:
    """One entry of the header; `data` is where the tensors' bytes begin in the file."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r:.100}: expected dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"tensor {name!r:.100}: unknown dtype {dtype!r:.100}")
    if not _counts(shape) or len(shape) > RANK_LIMIT:
        raise ValueError(f"tensor {name!r:.100}: impossible shape {shape!r:.100}")
    if not _counts(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r:.100}: impossible data_offsets {offsets!r:.100}")
    info = TensorInfo(dtype, tuple(shape), data + offsets[0], data + offsets[1])
    if (info.end - info.start) * 8 != BITS[dtype] * info.elements:
        raise ValueError(
            f"tensor {name!r:.100}: {info.end - info.start} bytes cannot be "
            f"{dtype} of shape {list(shape)!r:.100}"
        )
    return info


def _counts(value: Any) -> bool:
    """Whether `value` is a list of integers from 0 to 2^63 - 1 (a bool is not an integer here)."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _check_coverage(tensors: Mapping[str, TensorInfo], data: int, size: int) -> None:
    """Every byte from `data` to the end of the file belongs to exactly one tensor."""
    position = data
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            what = "overlaps the one before it" if info.start < position else "follows a gap"
            raise ValueError(f"tensor {name!r:.100} {what}")
        position = info.end
    if position != size:
        raise ValueError(f"its tensors end at byte {position}, the file at byte {size}")
