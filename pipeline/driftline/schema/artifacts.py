"""Artifacts and the records of the conversions that made them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from driftline.schema.values import Sealed, Value


class FileDigest(Value):
    """One file of an artifact: path relative to it (forward slashes), size in bytes, sha256."""

    path: str
    size: int
    sha256: str


class Reference(Value):
    """Something a stage read, by name under `artifacts/` and by content.

    `identity` is the dirHash of an artifact or a folder, the sha256 of a single file, the seal of a
    cell's record. It does not follow a record's other fields: the same bytes made by another build
    of a tool are the same input.
    """

    name: str
    identity: str


class Manifest(Sealed):
    """What a stage left in one folder of `artifacts/`, and what it read.

    Artifacts and cells have records of their own (`ArtifactRecord`, `CellRecord`); everything else
    that one stage writes and another reads has this one.
    """

    schema_version: Literal[1] = 1
    name: str
    inputs: tuple[Reference, ...]
    files: tuple[FileDigest, ...]


StepName = Literal["pin", "merge", "convert", "quantize"]
ARTIFACTS = "artifacts"
"""Folder of a project under which everything lies that stages make."""
ADAPTERS = "adapters"
"""Folder below it of pinned adapters."""
BASE = "base"
"""The variant that is the source itself, with no adapter."""


class Parent(Value):
    """An artifact a conversion read: its name in this project and its identity."""

    name: str
    identity: str


class Census(Value):
    """What is really in an artifact's weights, read back from the files.

    `types` counts tensors per storage type, `elements` counts weights per storage type;
    `bits_per_weight` is stored tensor bytes x 8 over the number of weights they stand for.
    """

    types: dict[str, int]
    elements: dict[str, int]
    tensors: int
    weights: int
    bits_per_weight: float
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class TensorDigest(Value):
    """One tensor as stored: type, shape as the file has it, sha256 of its bytes."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class Facts(Value):
    """Digests of the parts of an artifact, so that a change of one is not taken for another's.

    `tensors_sha256` is the sha256 of the record's `tensors.jsonl` (one `TensorDigest` a line);
    `metadata` has every field beside the tensors (a GGUF's key-value pairs; of a folder each key of
    its JSON files, other files whole) as canonical JSON, long values as their digest, and
    `metadata_sha256` is the sha256 of its canonical JSON. `tokenizer_sha256` is that of the part of
    `metadata` that belongs to the tokenizer; `template_sha256` is the sha256 of the chat template's
    text, and so the same in every shape that carries the same template. None: it has none.
    """

    tensors_sha256: str
    metadata_sha256: str
    tokenizer_sha256: str | None
    template_sha256: str | None
    metadata: dict[str, str]


class ArtifactRecord(Sealed):
    """One conversion: what was made, from what, by which tool with which arguments.

    `kind` is one of those in the table of conversions (`project.routes`).

    `identity` is the in-toto dirHash of `files` (see `store.digest`). `command` is the stage's
    own; `code_sha256` and `environment_sha256` are the sha256 of `artifacts/code/<stage>` and of
    `artifacts/env/<runtime>.json` it ran with (None where a conversion depends on no environment).
    """

    schema_version: Literal[2] = 2
    name: str
    kind: str
    conversion: StepName
    identity: str
    files: tuple[FileDigest, ...]
    parents: tuple[Parent, ...]
    command: str = ""
    tool: str
    tool_version: str
    code_sha256: str = ""
    environment_sha256: str | None = None
    arguments: dict[str, JsonValue]
    census: Census | None = None
    facts: Facts | None = None
    notes: tuple[str, ...] = ()
