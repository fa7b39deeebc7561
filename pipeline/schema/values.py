"""The file formats: frozen value types in which an unknown field is an error.

Every JSON and JSON-lines file one stage writes and another reads is one of these types, written by
`dump` in one canonical form (sorted keys, no NaN, no time, no path of a machine), so that the same
inputs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from pipeline.files import write_text


class Value(BaseModel):
    """Base of every file format: frozen, unknown fields refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


V = TypeVar("V", bound=Value)


def canonical(value: Value) -> str:
    """Canonical JSON on one line: sorted keys, no NaN, UTF-8 kept readable."""
    return canonical_json(value.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """Canonical JSON of plain data, on one line."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


def dump(value: Value, path: Path) -> None:
    """Write one value as indented canonical JSON, atomically."""
    text = json.dumps(
        value.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1
    )
    write_text(path, text + "\n")


def dump_lines(values: Iterable[Value], path: Path) -> None:
    """Write values as canonical JSON lines, atomically."""
    write_text(path, "".join(canonical(value) + "\n" for value in values))


def load(kind: type[V], path: Path) -> V:
    """Read one value.

    Raises:
        pydantic.ValidationError: the file is not of that format.
    """
    return kind.model_validate_json(path.read_bytes())


def load_lines(kind: type[V], path: Path) -> Iterator[V]:
    """Read JSON lines, one value at a time."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield kind.model_validate_json(line)
