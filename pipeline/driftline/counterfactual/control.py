"""Can the loader that builds counterfactuals be trusted for this architecture?

A file whose tensors differ from the checkpoint's can be a faulty file or a faulty loader, and the
file alone cannot tell which. So the loader is tried on a file whose content is known: a small
random checkpoint with the source's config (fewer layers) and tokenizer, converted at full
precision. It must come back with the same tensors and the same logits, bit for bit; a setting the
loader does not carry over (a rope scaling, a soft cap) shows in the logits.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from driftline.conversions import gguf as gguf_conversion
from driftline.conversions import mlx as mlx_conversion
from driftline.counterfactual import gguf, mlx, reference
from driftline.project.sections.mlx import MlxRecipe
from driftline.schema.weights import ControlRecord

LAYERS = 2
WIDTH = 1024
"""A wider checkpoint is tried with narrower layers: a control takes seconds at any size."""
NARROW = {"hidden_size": 256, "intermediate_size": 512}
IDS = 64
SEED = 20
SHRUNK = {
    "gguf": ("block_count", "embedding_length", "feed_forward_length"),
    "mlx": ("num_hidden_layers", "hidden_size", "intermediate_size"),
}
"""Fields a control checkpoint has otherwise than the source."""
_TOKENIZER = ("tokenizer*", "*.jinja", "special_tokens_map.json", "vocab.json", "merges.txt")

Kind = Literal["gguf", "mlx"]
KINDS: tuple[Kind, ...] = ("gguf", "mlx")
Loader = Callable[[Path], Any]
LOADERS: Mapping[Kind, Loader] = {"gguf": gguf.load, "mlx": mlx.load}


def control(kind: Kind, source: Path, load: Loader | None = None) -> ControlRecord:
    """Try the loader of `kind` (or `load` in its place) on a small checkpoint like `source`."""
    with tempfile.TemporaryDirectory() as folder:
        small, made = Path(folder, "checkpoint"), Path(folder, "converted")
        small.mkdir()
        try:
            tensors = small_checkpoint(source, small, seed=SEED, num_hidden_layers=LAYERS)
            _convert(kind, small, made)
            reason = _round_trip(small, made, load or LOADERS[kind])
            expected = _fields(kind)(made)
        except Exception as error:  # whatever a loader raises is why it cannot be trusted
            return ControlRecord(
                kind=kind, trusted=False, reason=_one_line(error), tensors=0, expected={}
            )
    kept = {name: value for name, value in expected.items() if not _shrunk(kind, name)}
    return ControlRecord(
        kind=kind, trusted=not reason, reason=reason, tensors=tensors, expected=kept
    )


def fields(kind: Kind, folder: Path) -> dict[str, str]:
    """What an artifact has beside its weights, but for what a control has otherwise."""
    return {name: v for name, v in _fields(kind)(folder).items() if not _shrunk(kind, name)}


def _fields(kind: Kind) -> Callable[[Path], dict[str, str]]:
    return {"gguf": gguf.fields, "mlx": mlx.fields}[kind]


def _shrunk(kind: Kind, name: str) -> bool:
    return name.endswith(tuple(f"{sign}{field}" for sign in ".:" for field in SHRUNK[kind]))


def small_checkpoint(source: Path, folder: Path, *, seed: int, **changes: Any) -> int:
    """Write a random float32 checkpoint with the source's config and tokenizer.

    Args:
        source: folder of the checkpoint it resembles.
        folder: existing, empty folder.
        seed: of its weights.
        changes: config fields to set otherwise; None leaves a field out.

    Returns:
        How many tensors it has.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    left_out = {name for name, value in changes.items() if value is None}
    config = {name: v for name, v in (config | changes).items() if name not in left_out}
    if config.get("hidden_size", 0) > WIDTH:
        config |= {name: value for name, value in NARROW.items() if name in config}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for pattern in (*_TOKENIZER, "generation_config.json"):
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder), dtype=torch.float32
    )
    tensors = {}
    for name, values in reference.arrays(model).items():
        # Norms start out as ones: with values of their own no tensor passes for another.
        noise = torch.randn(values.shape) * 0.05
        tensors[name] = noise + 1 if values.ndim == 1 else noise
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return len(tensors)


def _convert(kind: Kind, small: Path, made: Path) -> None:
    if kind == "gguf":
        made.mkdir()
        gguf_conversion.convert(small, made, outtype="f32", name="control")
    else:
        mlx_conversion.convert(small, made, MlxRecipe(dtype="float32"))


def _round_trip(small: Path, made: Path, load: Loader) -> str:
    """What did not come back as it went in, empty when everything did."""
    before = reference.checkpoint(small)
    after = load(made)
    given, found = reference.arrays(before), reference.arrays(after)
    odd = sorted(given.keys() ^ found.keys())
    if odd:
        return f"{len(odd)} tensors have no counterpart, first: {odd[0]}"
    changed = [name for name in given if not np.array_equal(given[name], found[name])]
    if changed:
        return f"{len(changed)} of {len(given)} tensors do not come back, first: {changed[0]}"
    width = before.config.vocab_size
    ids = [int(token) for token in np.random.default_rng(SEED).integers(0, width, IDS)]
    if not np.array_equal(reference.logits(before, ids), reference.logits(after, ids)):
        return "all tensors come back, and the logits are others: the config is not carried over"
    return ""


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
