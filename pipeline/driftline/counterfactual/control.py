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
from pathlib import Path
from typing import Any

import numpy as np

from driftline.counterfactual import reference
from driftline.counterfactual.base import StoredFormat
from driftline.schema.weights import ControlRecord

LAYERS = 2
WIDTH = 1024
"""A wider checkpoint is tried with narrower layers: a control takes seconds at any size."""
NARROW = {"hidden_size": 256, "intermediate_size": 512}
IDS = 64
SEED = 20
_TOKENIZER = ("tokenizer*", "*.jinja", "special_tokens_map.json", "vocab.json", "merges.txt")


def control(stored: StoredFormat, source: Path) -> ControlRecord:
    """Try the loader of a format on a small checkpoint like `source`."""
    with tempfile.TemporaryDirectory() as folder:
        small, made = Path(folder, "checkpoint"), Path(folder, "converted")
        small.mkdir()
        try:
            tensors = small_checkpoint(source, small, seed=SEED, num_hidden_layers=LAYERS)
            stored.convert_control(small, made)
            reason = _round_trip(small, made, stored)
            expected = fields(stored, made)
        except Exception as error:  # whatever a loader raises is why it cannot be trusted
            return ControlRecord(
                kind=stored.kind, trusted=False, reason=one_line(error), tensors=0, expected={}
            )
    return ControlRecord(
        kind=stored.kind, trusted=not reason, reason=reason, tensors=tensors, expected=expected
    )


def fields(stored: StoredFormat, folder: Path) -> dict[str, str]:
    """What an artifact has beside its weights, but for what a control has otherwise."""
    shrunk = tuple(f"{sign}{field}" for sign in ".:" for field in stored.shrunk)
    own = stored.fields(folder)
    return {name: value for name, value in own.items() if not name.endswith(shrunk)}


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


def _round_trip(small: Path, made: Path, stored: StoredFormat) -> str:
    """What did not come back as it went in, empty when everything did."""
    before = reference.checkpoint(small)
    after = stored.load(made)
    given, returned = reference.arrays(before), reference.arrays(after)
    odd = sorted(given.keys() ^ returned.keys())
    if odd:
        return f"{len(odd)} tensors have no counterpart, first: {odd[0]}"
    changed = [name for name in given if not np.array_equal(given[name], returned[name])]
    if changed:
        return f"{len(changed)} of {len(given)} tensors do not come back, first: {changed[0]}"
    width = before.config.vocab_size
    ids = [int(token) for token in np.random.default_rng(SEED).integers(0, width, IDS)]
    if not np.array_equal(reference.logits(before, ids), reference.logits(after, ids)):
        return "all tensors come back, and the logits are others: the config is not carried over"
    return ""


def one_line(error: Exception) -> str:
    """An exception's type and text, white space as one blank, 500 characters at most."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
