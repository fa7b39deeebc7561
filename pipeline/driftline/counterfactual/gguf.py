"""A GGUF in the reference runtime: Transformers' own loader, and what the file holds beside it."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.conversions.gguf import FILE_NAME
from driftline.counterfactual.tensors import added, change, place, unreturned
from driftline.runtimes.transformers import load_model
from driftline.schema.weights import TensorChange
from driftline.store.facts import written

Array = NDArray[np.float32]

_SILENT = ("GGUF.", "general.")
"""Says nothing of how the model runs; the quantization's label has the census instead."""


def load(folder: Path) -> Any:
    """The stored tensors, dequantized to float32, under the file's own config."""
    with contextlib.redirect_stderr(io.StringIO()):  # a bar per file that nothing turns off
        return load_model(folder, gguf_file=FILE_NAME)


def fields(folder: Path) -> dict[str, str]:
    """Every metadata field but the names, as `fields.written`."""
    found = _reader(folder).fields.items()
    return {
        name: written(field.contents()) for name, field in found if not name.startswith(_SILENT)
    }


def unfaithful(folder: Path, loaded: Mapping[str, Array]) -> str:
    """What of the file the loader did not give back, empty when it gave everything."""
    return unreturned(raw(folder), loaded, names(folder, loaded))


def against_checkpoint(
    folder: Path, loaded: Mapping[str, Array], parent: Mapping[str, Array]
) -> tuple[TensorChange, ...]:
    """Loaded tensors against the checkpoint's, by the reference runtime's names.

    An unquantized type explains exactly what casting to it does.
    """
    known = names(folder, loaded)
    kinds = {known.get(tensor.name): tensor.tensor_type.name for tensor in _reader(folder).tensors}
    found = []
    for name, before in parent.items():
        after = loaded.get(name)
        kind = kinds.get(name, "absent")
        missing = np.zeros_like(before) if after is None else after
        found.append(
            change(name, before=before, after=missing, stored=kind, again=_cast(before, kind))
        )
    return (*found, *added(loaded, parent, kinds))


def against_gguf(folder: Path, parent: Path, known: Iterable[str]) -> tuple[TensorChange, ...]:
    """Stored tensors against those of the GGUF they were quantized from.

    The parent's tensor is quantized again by llama.cpp's own code, which is deterministic: a file
    its quantizer wrote is explained to the bit.

    Args:
        folder: of the quantized file.
        parent: of the file it was made from.
        known: the reference runtime's tensors, for their names.
    """
    found, before = [], {tensor.name: tensor for tensor in _reader(parent).tensors}
    own = names(folder, known)
    for name, after, kind in raw(folder):
        if name in before:
            source = _values(before[name])
            again = requantized(source, kind) if source.shape == after.shape else None
        else:
            source, again = np.zeros_like(after), None
        shown = own.get(name, name)
        found.append(change(shown, before=source, after=after, stored=kind, again=again))
    return tuple(found)


def raw(folder: Path) -> Iterator[tuple[str, Array, str]]:
    """Every stored tensor by name, dequantized in the file's own layout, and its type's name."""
    for tensor in _reader(folder).tensors:
        yield tensor.name, _values(tensor), tensor.tensor_type.name


def _values(tensor: Any) -> Array:
    from gguf.quants import dequantize

    found: Array = dequantize(tensor.data, tensor.tensor_type)
    return found


def names(folder: Path, known: Iterable[str]) -> dict[str, str]:
    """The reference runtime's name of each GGUF tensor, by gguf-py's own table."""
    import gguf

    architecture = _reader(folder).get_field("general.architecture").contents()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    listed = list(known)
    layers = 1 + max((layer for name in listed if (layer := place(name)[0]) is not None), default=0)
    table = gguf.get_tensor_name_map(kinds[architecture], layers)
    found = {}
    for name in listed:
        own = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if own is not None:
            found[own] = name
    return found


def requantized(values: Array, kind: str) -> Array | None:
    """`values` through llama.cpp's quantizer and back; None for a type that needs more."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quant_shape_to_byte_shape

    own = GGMLQuantizationType[kind]
    if own is GGMLQuantizationType.F32:
        return values
    library = _ggml()
    if library.ggml_quantize_requires_imatrix(int(own)):
        return None
    source = np.ascontiguousarray(values, dtype=np.float32)
    width = source.shape[-1]
    stored = np.zeros(quant_shape_to_byte_shape(source.shape, own), dtype=np.uint8)
    library.ggml_quantize_chunk(
        int(own), source.ctypes.data, stored.ctypes.data, 0, source.size // width, width, None
    )
    found: Array = dequantize(stored, own)
    return found


def _cast(values: Array, kind: str) -> Array | None:
    return requantized(values, kind) if kind in ("F32", "F16", "BF16") else None


@cache
def _ggml() -> Any:
    """ggml as llama-cpp-python ships it; its quantizer has no Python binding."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    (path,) = [*folder.glob("libggml-base.so"), *folder.glob("libggml-base.dylib")]
    library = ctypes.CDLL(str(path))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    library.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    return library


def _reader(folder: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(str(folder / FILE_NAME))
