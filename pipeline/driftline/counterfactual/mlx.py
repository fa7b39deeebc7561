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

from driftline.conversions import mlx as conversion
from driftline.counterfactual import fields
from driftline.counterfactual.base import StoredFormat
from driftline.counterfactual.tensors import added, change, unreturned
from driftline.project.sections.mlx import MlxRecipe
from driftline.runtimes.transformers import load_model
from driftline.schema.weights import TensorChange

Array = NDArray[np.float32]

_QUANTIZATION = ("quantization", "quantization_config")
_PARTS = ("scales", "biases")


class Mlx(StoredFormat):
    """An MLX folder; nothing makes one from another, so it is held against its checkpoint alone."""

    kind = "mlx"
    shrunk = ("num_hidden_layers", "hidden_size", "intermediate_size")

    def load(self, folder: Path) -> Any:
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

    def fields(self, folder: Path) -> dict[str, str]:
        """Config, tokenizer and template."""
        return fields.of_folder(folder)

    def unfaithful(self, folder: Path, loaded: Mapping[str, Array]) -> str:
        """What of the folder the loader did not give back; MLX keeps the checkpoint's names."""
        return unreturned(raw(folder), loaded, {name: name for name in loaded})

    def against_checkpoint(
        self, folder: Path, loaded: Mapping[str, Array], checkpoint: Mapping[str, Array]
    ) -> tuple[TensorChange, ...]:
        """Loaded tensors against the checkpoint's, which MLX quantizes again to compare."""
        types = {name: stored for name, _, stored in raw(folder)}
        rules = _rules(folder)
        changes = []
        for name, before in checkpoint.items():
            stored = types.get(name, "absent")
            after = loaded[name] if name in loaded else np.zeros_like(before)
            again = _again(before, stored, rules(name.rpartition(".")[0]))
            changes.append(change(name, before=before, after=after, stored=stored, again=again))
        return (*changes, *added(loaded, checkpoint, types))

    def convert_control(self, checkpoint: Path, destination: Path) -> None:
        """Convert to float32 with mlx-lm."""
        conversion.convert(checkpoint, destination, MlxRecipe(dtype="float32"))


def raw(folder: Path) -> Iterator[tuple[str, Array, str]]:
    """Every weight by name, as float32, and its storage type; scales and biases are applied."""
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
