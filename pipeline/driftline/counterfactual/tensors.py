"""Stored tensors against those they came from, and whether the storage type explains it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.schema.weights import Explained, TensorChange

Array = NDArray[np.float32]
SLACK = 1.1
"""How much larger than the storage type's own error an error may be and still be `within`."""
_LAYER = re.compile(r"^(?:.*\.)?(?:layers|h|blk|blocks)\.(\d+)\.(.+)$")


def relative_error(before: Array, after: Array) -> float:
    """Frobenius norm of the difference over that of `before`; infinite shapes apart count as 1."""
    if before.shape != after.shape:
        return 1.0
    scale = float(np.linalg.norm(before.astype(np.float64)))
    gap = float(np.linalg.norm(after.astype(np.float64) - before))
    if not np.isfinite(gap):
        return 1.0
    return gap / scale if scale else float(gap > 0)


def place(name: str) -> tuple[int | None, str]:
    """Layer and module of a name: `model.layers.3.mlp.up_proj.weight` is (3, mlp.up_proj)."""
    match = _LAYER.match(name)
    layer, module = (int(match[1]), match[2]) if match else (None, name.removeprefix("model."))
    return layer, module.removesuffix(".weight")


def change(
    name: str, *, before: Array, after: Array, stored: str, again: Array | None = None
) -> TensorChange:
    """One tensor before and after it was stored.

    Args:
        name: the reference runtime's name.
        before: what it came from, float32.
        after: what is stored, as float32.
        stored: the storage type's name.
        again: `before` stored in that type anew, as float32; None where that cannot be done.
    """
    layer, module = place(name)
    error = relative_error(before, after)
    return TensorChange(
        name=name,
        layer=layer,
        module=module,
        stored=stored,
        relative_error=error,
        explained=_explained(before, after, again, error),
    )


def added(
    loaded: Mapping[str, Array], parent: Mapping[str, Array], kinds: Mapping[Any, str]
) -> Iterator[TensorChange]:
    """Tensors the parent has under no name: a copy of one of its own (a tied head) is no change."""
    for name in sorted(loaded.keys() - parent.keys()):
        if not any(np.array_equal(loaded[name], values) for values in parent.values()):
            nothing = np.zeros_like(loaded[name])
            yield change(
                name,
                before=nothing,
                after=loaded[name],
                stored=kinds.get(name, "absent"),
                again=nothing,
            )


def _explained(before: Array, after: Array, again: Array | None, error: float) -> Explained:
    if again is None:
        return "within" if error <= 0.5 else "beyond"
    if np.array_equal(again, after):
        return "exact"
    return "within" if 0 < error <= SLACK * relative_error(before, again) else "beyond"


def unreturned(
    stored: Iterable[tuple[str, Array, str]], loaded: Mapping[str, Array], names: Mapping[str, str]
) -> str:
    """What of an artifact a loader did not give back, empty when it gave everything.

    Whatever a loader may permute, it must return every tensor's values, each once.

    Args:
        stored: every stored tensor: name, values, storage type.
        loaded: what the loader made of them.
        names: what the loader calls each stored tensor.
    """
    for name, values, _ in stored:
        own = names.get(name)
        if own is None:
            return f"the loader has no place for tensor {name}"
        if not same_values(values, loaded[own]):
            return f"the loader changed the values of tensor {name}"
    return ""


def same_values(a: Array, b: Array) -> bool:
    """Whether two tensors hold the same numbers in any order: what no permutation can change."""
    if a.size != b.size:
        return False
    return np.array_equal(_bits(a), _bits(b))


def _bits(values: Array) -> Any:
    """Two 64-bit sums over mixed bit patterns, in linear time."""
    raw = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint32)
    mixed = raw.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return np.array([mixed.sum(), (mixed * mixed).sum()])
