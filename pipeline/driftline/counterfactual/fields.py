"""What an artifact says of its model and its tokenizer beside the weights, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from driftline.schema.weights import FieldChange
from driftline.store.digest import sha256_file
from driftline.store.facts import written

TEXT_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
JSON_FILES = ("config.json", "tokenizer_config.json", "generation_config.json")
COSMETIC = frozenset(
    {
        "config.json:transformers_version",
        "config.json:_name_or_path",
        "config.json:quantization",
        "config.json:quantization_config",
        "tokenizer_config.json:name_or_path",
        "generation_config.json:transformers_version",
    }
)
"""Say nothing of how the model runs, or (quantization) have a census of their own."""


_TEXT = (
    "tokenizer",
    "generation_config.json:",
    "config.json:bos_token_id",
    "config.json:eos_token_id",
    "config.json:pad_token_id",
)


def of_folder(folder: Path) -> dict[str, str]:
    """Every file beside the weights of a Transformers or MLX folder.

    `config.json` and its like are given key by key as `file:key`, tokenizer and template whole.
    """
    values = {}
    for name in JSON_FILES:
        path = folder / name
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            values.update({f"{name}:{key}": written(value) for key, value in data.items()})
    for name in TEXT_FILES:
        if (folder / name).exists():
            values[name] = f"sha256 {sha256_file(folder / name)}"
    return {name: value for name, value in values.items() if name not in COSMETIC}


def changes(
    expected: Mapping[str, str], found: Mapping[str, str], *, but: Iterable[str] = ()
) -> tuple[FieldChange, ...]:
    """Fields that differ, sorted by name; those in `but` are not looked at."""
    names = sorted((expected.keys() | found.keys()) - set(but))
    return tuple(
        FieldChange(field=name, expected=expected.get(name), found=found.get(name))
        for name in names
        if expected.get(name) != found.get(name)
    )


def is_text(field: str) -> bool:
    """Whether a field belongs to tokenizer, template or generation rather than to the model."""
    return field in TEXT_FILES or field.startswith(_TEXT)
