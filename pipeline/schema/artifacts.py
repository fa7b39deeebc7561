"""Artifacts and the records of the conversions that made them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from pipeline.schema.values import Value


class FileDigest(Value):
    """One file of an artifact: path relative to it (forward slashes), size in bytes, sha256."""

    path: str
    size: int
    sha256: str


ArtifactKind = Literal["source", "adapter", "merged", "gguf", "mlx"]


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


class ArtifactRecord(Value):
    """One conversion: what was made, from what, by which tool with which arguments.

    `identity` is the in-toto dirHash of `files` (see `pipeline.digest`).
    """

    schema_version: Literal[1] = 1
    name: str
    kind: ArtifactKind
    conversion: Literal["pin", "merge", "convert", "quantize"]
    identity: str
    files: tuple[FileDigest, ...]
    parents: tuple[Parent, ...]
    tool: str
    tool_version: str
    arguments: dict[str, JsonValue]
    census: Census | None = None
    notes: tuple[str, ...] = ()
