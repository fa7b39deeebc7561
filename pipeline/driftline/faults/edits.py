"""Planting: one thing of a healthy artifact changed in place, everything else byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.conversions.gguf import FILE_NAME

Array = NDArray[Any]
Change = Callable[[Array], Array]


def wrong_heads(values: Array) -> Array:
    """Rows of a projection as a converter would order them for half as many heads."""
    heads = 2
    shape = (heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    ordered: Array = values.reshape(shape).swapaxes(1, 2).reshape(values.shape)
    return ordered


def gguf_fields(folder: Path, **fields: Any) -> None:
    """Set metadata fields of a GGUF (dots as `__`): a value, a function of the old one, or None
    to leave the field out."""
    _rewrite(folder, {name.replace("__", "."): value for name, value in fields.items()}, {})


def gguf_tensor(folder: Path, name: str, change: Change) -> None:
    """Change the values of one tensor of a float GGUF."""
    _rewrite(folder, {}, {name: change})


def gguf_add(folder: Path, name: str, like: str, change: Change) -> None:
    """Add a float tensor, made out of another one."""
    _rewrite(folder, {}, {}, added={name: (like, change)})


def gguf_lower(folder: Path, name: str, kind: str) -> None:
    """Store one tensor of a GGUF in another, lower type."""
    _rewrite(folder, {}, {}, lowered={name: kind})


def _rewrite(
    folder: Path,
    fields: Mapping[str, Any],
    tensors: Mapping[str, Change],
    *,
    added: Mapping[str, tuple[str, Change]] | None = None,
    lowered: Mapping[str, str] | None = None,
) -> None:
    import gguf

    path = folder / FILE_NAME
    reader = gguf.GGUFReader(str(path))
    architecture = reader.get_field("general.architecture").contents()
    made = path.with_suffix(".new")
    writer = gguf.GGUFWriter(str(made), architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            _copy_field(writer, field, fields)
    stored: list[Array] = []
    for tensor in reader.tensors:
        values, kind = _stored(tensor, tensors.get(tensor.name), (lowered or {}).get(tensor.name))
        _declare(writer, tensor.name, values, kind)
        stored.append(values)
    known = {tensor.name: tensor for tensor in reader.tensors}
    for name, (like, change) in (added or {}).items():
        values, kind = _stored(known[like], change, None)
        _declare(writer, name, values, kind)
        stored.append(values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for values in stored:
        writer.write_tensor_data(values)
    writer.close()
    made.replace(path)


def _copy_field(writer: Any, field: Any, changed: Mapping[str, Any]) -> None:
    import gguf

    kind = field.types[0]
    inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
    value = field.contents()
    if field.name in changed:
        wanted = changed[field.name]
        value = wanted(value) if callable(wanted) else wanted
    if value is not None:
        writer.add_key_value(field.name, value, kind, sub_type=inner)


def _stored(tensor: Any, change: Change | None, lower: str | None) -> tuple[Array, Any]:
    """Bytes of a tensor as they are written, and its type."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    if lower is not None:
        kind = GGMLQuantizationType[lower]
        return quantize(dequantize(tensor.data, tensor.tensor_type), kind), kind
    if change is None:
        return np.array(tensor.data), tensor.tensor_type
    values = dequantize(tensor.data, tensor.tensor_type)
    return np.ascontiguousarray(change(values), dtype=np.float32), GGMLQuantizationType.F32


def _declare(writer: Any, name: str, values: Array, kind: Any) -> None:
    writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes, kind)


def json_file(path: Path, **fields: Any) -> None:
    """Set keys of a JSON file; None leaves a key out."""
    data = json.loads(path.read_text(encoding="utf-8")) | fields
    left_out = {name for name, value in fields.items() if value is None}
    data = {name: value for name, value in data.items() if name not in left_out}
    path.write_text(json.dumps(data), encoding="utf-8")


def text_file(path: Path, old: str, new: str) -> None:
    """Replace a passage of a text file.

    Raises:
        ValueError: it is not there, so that nothing would be planted.
    """
    text = path.read_text(encoding="utf-8")
    if old not in text:
        raise ValueError(f"{path.name} has no {old!r}")
    path.write_text(text.replace(old, new), encoding="utf-8")


def safetensors_file(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change tensors of a Safetensors file, by name."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    made = path.with_suffix(".new")
    save_file(tensors, made, metadata={"format": "pt"})
    made.replace(path)
