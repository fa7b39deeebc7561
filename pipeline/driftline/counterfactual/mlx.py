"""An MLX folder in the reference runtime: its tensors dequantized by MLX, under its own config."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.counterfactual import fields as beside
from driftline.counterfactual.tensors import added, change, unreturned
from driftline.runtimes.transformers import load_model
from driftline.schema.weights import TensorChange

Array = NDArray[np.float32]

_QUANTIZATION = ("quantization", "quantization_config")
_PARTS = ("scales", "biases")


def load(folder: Path) -> Any:
    """The stored tensors, dequantized to float32, under the folder's own config.

    They go through the reference runtime's own loader, as a checkpoint of their own.
    """
    from safetensors.numpy import save_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as made:
        checkpoint = Path(made)
        plain = {name: value for name, value in config.items() if name not in _QUANTIZATION}
        (checkpoint / "config.json").write_text(json.dumps(plain), encoding="utf-8")
        for path in folder.glob("generation_config.json"):
            shutil.copyfile(path, checkpoint / path.name)
        tensors = {name: values for name, values, _ in raw(folder)}
        save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
        return load_model(checkpoint, use_safetensors=True)


def fields(folder: Path) -> dict[str, str]:
    """Config, tokenizer and template, as `fields.of_folder`."""
    return beside.of_folder(folder)


def unfaithful(folder: Path, loaded: Mapping[str, Array]) -> str:
    """What of the folder the loader did not give back, empty when it gave everything."""
    return unreturned(raw(folder), loaded, {name: name for name in loaded})


def against_checkpoint(
    folder: Path, loaded: Mapping[str, Array], parent: Mapping[str, Array]
) -> tuple[TensorChange, ...]:
    """Loaded tensors against the checkpoint's; MLX quantizes the checkpoint's again to compare."""
    kinds = {name: kind for name, _, kind in raw(folder)}
    rules = _rules(folder)
    found = []
    for name, before in parent.items():
        after = loaded.get(name)
        kind = kinds.get(name, "absent")
        missing = np.zeros_like(before) if after is None else after
        again = _again(before, kind, rules(name.rpartition(".")[0]))
        found.append(change(name, before=before, after=missing, stored=kind, again=again))
    return (*found, *added(loaded, parent, kinds))


def raw(folder: Path) -> Iterator[tuple[str, Array, str]]:
    """Every weight by name, as float32, and how it is stored; scales and biases are applied."""
    import mlx.core as mx

    rules = _rules(folder)
    for path in sorted(folder.glob("*.safetensors")):
        tensors: Any = mx.load(str(path))
        for name, stored in tensors.items():
            tensor = stored
            module, _, part = name.rpartition(".")
            quantized = f"{module}.scales" in tensors
            if quantized and part in _PARTS:
                continue
            kind = str(stored.dtype).rpartition(".")[2]
            if quantized and part == "weight":
                rule = rules(module)
                scales, biases = tensors[f"{module}.scales"], tensors[f"{module}.biases"]
                tensor = mx.dequantize(stored, scales, biases, **rule)
                kind = f"affine-{rule['bits']}bit-g{rule['group_size']}"
            yield name, np.array(tensor.astype(mx.float32)), kind


def _rules(folder: Path) -> Any:
    """Module → its `bits` and `group_size`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantization = config.get("quantization") or {}

    def rule(module: str) -> dict[str, int]:
        own = quantization.get(module)
        chosen = own if isinstance(own, dict) else quantization
        return {key: int(chosen[key]) for key in ("bits", "group_size") if key in chosen}

    return rule


def _again(before: Array, kind: str, rule: Any) -> Array | None:
    import mlx.core as mx

    values: Any = mx.array(before)
    if kind.startswith("affine"):
        packed, scales, biases = mx.quantize(values, **rule)
        return np.array(mx.dequantize(packed, scales, biases, **rule).astype(mx.float32))
    if kind in ("float32", "float16", "bfloat16"):
        return np.array(values.astype(getattr(mx, kind)).astype(mx.float32))
    return None
