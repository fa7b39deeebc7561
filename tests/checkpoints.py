"""Tiny real checkpoints and adapters, for tests of what is refused before any load."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32"}
ADAPTER_CONFIG = {
    "peft_type": "LORA",
    "base_model_name_or_path": "models/clerk",
    "auto_mapping": {
        "base_model_class": "LlamaForCausalLM",
        "parent_library": "transformers.models.llama.modeling_llama",
    },
    "megatron_config": None,
    "megatron_core": "megatron.core",
}
INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")


def write_weights(path: Path, *names: str, size: int = 4) -> None:
    """One float32 tensor of `size` x 3 per name, all different."""
    rng = np.random.default_rng(len(names))
    save_file({name: rng.random((size, 3), np.float32) for name in names}, str(path))


def source(folder: Path) -> Path:
    """A whole checkpoint in one file, with a tokenizer, a README and a hidden folder."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "generation_config.json", {"eos_token_id": 2})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    (folder / "tokenizer.model").write_bytes(b"\n\x07\n\x05<unk>")
    (folder / "README.md").write_text("# a card\n", encoding="utf-8")
    (folder / ".git").mkdir()
    (folder / ".git" / "hook.py").write_text("raise SystemExit", encoding="utf-8")
    write_weights(folder / "model.safetensors", "embed", "norm")
    return folder


def sharded(folder: Path) -> Path:
    """The same in two shards with an index."""
    source(folder)
    (folder / "model.safetensors").unlink()
    write_weights(folder / SHARDS[0], "embed")
    write_weights(folder / SHARDS[1], "norm", "head")
    write_index(folder, {"embed": SHARDS[0], "norm": SHARDS[1], "head": SHARDS[1]})
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    write_json(folder / INDEX, {"metadata": {"total_size": 144}, "weight_map": weight_map})


def adapter(folder: Path) -> Path:
    """A PEFT adapter."""
    folder.mkdir(parents=True)
    write_json(folder / "adapter_config.json", ADAPTER_CONFIG)
    (folder / "README.md").write_text("# a card\n", encoding="utf-8")
    write_weights(folder / "adapter_model.safetensors", "q.lora_A.weight", "q.lora_B.weight")
    return folder


def raw_safetensors(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with any header: bytes as they are, anything else as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path
