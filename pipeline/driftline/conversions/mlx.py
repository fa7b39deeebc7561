"""Checkpoint → MLX with mlx-lm, plain or quantized by a recipe."""

from __future__ import annotations

import contextlib
import io
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from driftline.errors import RefusedError, ToolError
from driftline.schema.artifacts import ArtifactRecord, Census
from driftline.store.safetensors_header import safetensors_header

if TYPE_CHECKING:
    from driftline.project.sections.mlx import MlxRecipe

_CONFIG_FACTS = ("model_type", "vocab_size", "tie_word_embeddings", "quantization")


def convert(checkpoint: Path, destination: Path, recipe: MlxRecipe) -> dict[str, JsonValue]:
    """Convert a Safetensors checkpoint to MLX; `destination` must not exist.

    Returns:
        The arguments as recorded.

    Raises:
        ToolError: mlx-lm failed.
    """
    from mlx_lm.convert import convert as mlx_convert

    arguments: dict[str, JsonValue] = {
        "quantize": recipe.bits is not None or recipe.mixed is not None,
        "q_bits": recipe.bits,
        "q_group_size": recipe.group_size or (64 if recipe.mixed else None),
        "q_mode": recipe.mode,
        "quant_predicate": recipe.mixed,
        "dtype": recipe.dtype,
    }
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            mlx_convert(str(checkpoint), str(destination), trust_remote_code=False, **arguments)
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise ToolError(
            f"mlx-lm could not convert {checkpoint}: {type(error).__name__}: {error}",
            remedy="if mlx-lm does not know this architecture, empty mlx.artifacts in params.yaml",
        ) from error
    return arguments


def tool_version() -> str:
    """Version of the tool."""
    return f"mlx-lm {version('mlx-lm')}, mlx {version('mlx')}"


def check_same_weights(parent: ArtifactRecord, child: Census, name: str) -> None:
    """Refuse an MLX folder that stands for more or fewer weights than its parent.

    Raises:
        RefusedError: weight counts differ.
    """
    before = parent.census
    if before and before.weights != child.weights:
        raise RefusedError(
            f"{name}: {child.weights} weights, its parent {parent.name} has {before.weights}",
            remedy="mlx-lm dropped or added tensors of this architecture: do not ship this file",
        )


def census(folder: Path) -> Census:
    """Read back what is in an MLX folder, and check it.

    A quantized weight is stored as packed uint32 plus scales and biases; it counts as one tensor of
    type `affine-<bits>bit-g<group size>`, as the config says for it, and its bits include scales
    and biases.

    Raises:
        RefusedError: no tensor, or a value that is not finite.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantization = config.get("quantization") or {}
    types: dict[str, int] = {}
    elements: dict[str, int] = {}
    stored = 0
    for path in sorted(folder.glob("*.safetensors")):
        header = safetensors_header(path)
        _check_finite(path)
        for name, tensor in header.items():
            stored += tensor.end - tensor.start
            module, _, part = name.rpartition(".")
            quantized = f"{module}.scales" in header
            if quantized and part in ("scales", "biases"):
                continue
            count = 1
            for width in tensor.shape:
                count *= width
            kind = str(tensor.dtype)
            if quantized and part == "weight":
                own = quantization.get(module)
                rule = own if isinstance(own, dict) else quantization
                kind = f"affine-{rule['bits']}bit-g{rule['group_size']}"
                count = count * 32 // rule["bits"]
            types[kind] = types.get(kind, 0) + 1
            elements[kind] = elements.get(kind, 0) + count
    weights = sum(elements.values())
    if not weights:
        raise RefusedError(f"{folder}: no tensor in it", remedy="convert it again")
    return Census(
        types=types,
        elements=elements,
        tensors=sum(types.values()),
        weights=weights,
        bits_per_weight=round(stored * 8 / weights, 4),
        metadata={name: config.get(name) for name in _CONFIG_FACTS},
    )


def _check_finite(path: Path) -> None:
    import mlx.core as mx

    tensors: Any = mx.load(str(path))
    for name, tensor in tensors.items():
        if mx.issubdtype(tensor.dtype, mx.floating) and not mx.isfinite(tensor).all().item():
            raise RefusedError(
                f"{path}: tensor {name} holds a value that is not finite",
                remedy="look at the same tensor in the checkpoint this file was made from",
            )
