"""What is in an artifact, part by part: tensors, metadata, tokenizer, template, each with a digest.

Two artifacts with other bytes can differ in their weights, in what is written beside them, or in
both: these digests tell which, and `difference` says where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from driftline.schema.artifacts import Facts, FileDigest, TensorDigest
from driftline.schema.values import canonical, canonical_json
from driftline.store.digest import sha256_text
from driftline.store.gguf_header import gguf_header
from driftline.store.safetensors_header import safetensors_header, safetensors_metadata

LONG = 120
"""Characters of canonical JSON above which a value is kept as a digest."""
CHUNK = 1 << 20
JSON_FILES = (
    "adapter_config.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""Files whose keys are facts of their own; every other file is one fact."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
TOKENIZER_PREFIXES = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json:",
    "tokenizer.",
)
TEMPLATE_FILE = "chat_template.jinja"
TEMPLATES = ("tokenizer.chat_template", "tokenizer_config.json:chat_template", TEMPLATE_FILE)
COSMETIC = ("tokenizer_config.json:name_or_path",)


class _Tensor(Protocol):
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


def written(value: Any) -> str:
    """A value as canonical JSON, a long one as its length and digest.

    What JSON cannot hold is written all the same: NaN as Python does, a lone surrogate escaped.
    """
    text = _plain(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")))
    return text if len(text) <= LONG else f"{len(text)} characters, sha256 {sha256_text(text)}"


def _plain(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def of_artifact(
    folder: Path, files: Iterable[FileDigest]
) -> tuple[Facts, tuple[TensorDigest, ...]]:
    """The facts of an artifact, and each of its tensors.

    Args:
        folder: where it lies.
        files: its files with their digests, just made.

    Raises:
        RefusedError: a weight file is malformed.
    """
    metadata: dict[str, str] = {}
    tensors: list[TensorDigest] = []
    template = None
    for file in files:
        path = folder / file.path
        if path.suffix == ".gguf":
            header = gguf_header(path)
            metadata |= {name: written(value) for name, value in header.fields.items()}
            tensors += _tensors(path, file.path, header.tensors)
            template = header.fields.get("tokenizer.chat_template", template)
        elif path.suffix == ".safetensors":
            tensors += _tensors(path, file.path, safetensors_header(path))
            beside = safetensors_metadata(path)
            metadata |= {f"{file.path}:{key}": written(value) for key, value in beside.items()}
        else:
            metadata |= _fields(path, file)
            if template is None:  # chat_template.jinja comes first, and wins, as in Transformers
                template = _template(path, file.path)
    facts = Facts(
        tensors_sha256=sha256_text(listing(tensors)),
        metadata_sha256=sha256_text(canonical_json(metadata)),
        tokenizer_sha256=_tokenizer(metadata),
        template_sha256=sha256_text(template) if isinstance(template, str) else None,
        metadata=metadata,
    )
    return facts, tuple(tensors)


def listing(tensors: Iterable[TensorDigest]) -> str:
    """`tensors.jsonl`: one tensor a line, in the order of the files."""
    return "".join(canonical(tensor) + "\n" for tensor in tensors)


def _tensors(path: Path, name: str, found: Mapping[str, _Tensor]) -> list[TensorDigest]:
    listed = []
    with path.open("rb") as file:
        for tensor, info in found.items():
            file.seek(info.start)
            sha256, left = hashlib.sha256(), info.end - info.start
            while left:
                chunk = file.read(min(left, CHUNK))
                sha256.update(chunk)
                left -= len(chunk)
            listed.append(
                TensorDigest(
                    file=name,
                    name=tensor,
                    dtype=info.dtype,
                    shape=info.shape,
                    sha256=sha256.hexdigest(),
                )
            )
    return listed


def _fields(path: Path, file: FileDigest) -> dict[str, str]:
    if file.path in JSON_FILES:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            return {_plain(f"{file.path}:{key}"): written(value) for key, value in data.items()}
        except (ValueError, AttributeError, RecursionError):
            pass  # not an object: then it is one fact as a whole
    return {file.path: f"sha256 {file.sha256}"}


def _template(path: Path, name: str) -> str | None:
    if name == TEMPLATE_FILE:
        return path.read_text(encoding="utf-8", errors="backslashreplace")
    if name == "tokenizer_config.json":
        try:
            template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
        except (ValueError, AttributeError, RecursionError):
            return None
        return template if isinstance(template, str) else None
    return None


def part_of(field: str) -> str:
    """Which part of an artifact a field of its metadata is: template, tokenizer or config."""
    if field in TEMPLATES:
        return "template"
    if field in TOKENIZER_FILES or field.startswith(TOKENIZER_PREFIXES):
        return "tokenizer"
    return "config"


def _tokenizer(metadata: Mapping[str, str]) -> str | None:
    own = {
        name: value
        for name, value in metadata.items()
        if part_of(name) == "tokenizer" and name not in COSMETIC
    }
    return sha256_text(canonical_json(own)) if own else None
