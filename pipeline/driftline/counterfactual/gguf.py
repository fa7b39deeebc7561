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

from driftline.conversions import gguf as conversion
from driftline.conversions.gguf import FILE_NAME
from driftline.counterfactual.base import StoredFormat
from driftline.counterfactual.tensors import added, change, place, unreturned
from driftline.runtimes.transformers import load_model
from driftline.schema.weights import TensorChange
from driftline.store.facts import written

Array = NDArray[np.float32]

_SILENT = ("GGUF.", "general.")
"""Says nothing of how the model runs; the quantization's label has the census instead."""


class Gguf(StoredFormat):
    """One GGUF file in a folder: converted from a checkpoint, or quantized from another GGUF."""

    kind = "gguf"
    shrunk = ("block_count", "embedding_length", "feed_forward_length")

    def load(self, folder: Path) -> Any:
        """The stored tensors, dequantized to float32, under the file's own config."""
        with contextlib.redirect_stderr(io.StringIO()):  # a bar per file that nothing turns off
            return load_model(folder, gguf_file=FILE_NAME)

    def fields(self, folder: Path) -> dict[str, str]:
        """Every metadata field but the names."""
        return {
            name: written(field.contents())
            for name, field in _reader(folder).fields.items()
            if not name.startswith(_SILENT)
        }

    def unfaithful(self, folder: Path, loaded: Mapping[str, Array]) -> str:
        """What of the file the loader did not give back, by gguf-py's table of names."""
        return unreturned(raw(folder), loaded, names(folder, loaded))

    def against_checkpoint(
        self, folder: Path, loaded: Mapping[str, Array], checkpoint: Mapping[str, Array]
    ) -> tuple[TensorChange, ...]:
        """Loaded tensors against the checkpoint's: an unquantized type explains its cast."""
        known = names(folder, loaded)
        types = {known.get(each.name): each.tensor_type.name for each in _reader(folder).tensors}
        changes = []
        for name, before in checkpoint.items():
            stored = types.get(name, "absent")
            after = loaded[name] if name in loaded else np.zeros_like(before)
            again = _cast(before, stored)
            changes.append(change(name, before=before, after=after, stored=stored, again=again))
        return (*changes, *added(loaded, checkpoint, types))

    def against_parent(
        self, folder: Path, parent: Path, loaded: Mapping[str, Array]
    ) -> tuple[TensorChange, ...]:
        """Stored tensors against those of the GGUF they were quantized from.

        The parent's tensor is quantized again by llama.cpp's own code, which is deterministic: a
        file its quantizer wrote is explained to the bit.
        """
        before = {tensor.name: tensor for tensor in _reader(parent).tensors}
        known = names(folder, loaded)
        changes = []
        for name, after, stored in raw(folder):
            if name in before:
                source = _values(before[name])
                again = requantized(source, stored) if source.shape == after.shape else None
            else:
                source, again = np.zeros_like(after), None
            shown = known.get(name, name)
            changes.append(change(shown, before=source, after=after, stored=stored, again=again))
        return tuple(changes)

    def convert_control(self, checkpoint: Path, destination: Path) -> None:
        """Convert to float32 with llama.cpp's own converter."""
        destination.mkdir()
        conversion.convert(checkpoint, destination, outtype="f32", name="control")


def raw(folder: Path) -> Iterator[tuple[str, Array, str]]:
    """Every stored tensor by name, dequantized in the file's own layout, and its type's name."""
    for tensor in _reader(folder).tensors:
        yield tensor.name, _values(tensor), tensor.tensor_type.name


def _values(tensor: Any) -> Array:
    from gguf.quants import dequantize

    values: Array = dequantize(tensor.data, tensor.tensor_type)
    return values


def names(folder: Path, known: Iterable[str]) -> dict[str, str]:
    """The reference runtime's name of each GGUF tensor, by gguf-py's own table."""
    import gguf

    architecture = _reader(folder).get_field("general.architecture").contents()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    listed = list(known)
    layers = 1 + max((layer for name in listed if (layer := place(name)[0]) is not None), default=0)
    table = gguf.get_tensor_name_map(kinds[architecture], layers)
    named = ((table.get_name(name, try_suffixes=(".weight", ".bias")), name) for name in listed)
    return {own: name for own, name in named if own is not None}


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
    returned: Array = dequantize(stored, own)
    return returned


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
