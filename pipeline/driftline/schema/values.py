"""The file formats: frozen value types in which an unknown field is an error.

Every JSON and JSON-lines file one stage writes and another reads is one of these types, written by
`dump` in one canonical form (sorted keys, no NaN, no time, no path of a machine), so that the same
inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from driftline.files import write_text


class Value(BaseModel):
    """Base of every file format: frozen, unknown fields refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sealed(Value):
    """A record that carries the sha256 of everything else in it.

    Law: `seal` is the sha256 of the value's canonical JSON with `seal` left out, so that an edited
    record is known by itself, and one that names another by its seal pins all of it.
    """

    seal: str = ""


V = TypeVar("V", bound=Value)
S = TypeVar("S", bound=Sealed)


class NotARecordError(ValueError):
    """Data that is no record of the kind it should be; the message says what is wrong with it."""


def seal_of(value: Sealed) -> str:
    """The seal a record must have, whatever it says it has."""
    return seal_of_data(value.model_dump(mode="json"))


def seal_of_data(plain: Mapping[str, Any]) -> str:
    """The same of a record as plain data, with the fields it was written with."""
    content = canonical_json({name: value for name, value in plain.items() if name != "seal"})
    return hashlib.sha256(content.encode("utf-8", "backslashreplace")).hexdigest()


def sealed(value: S) -> S:
    """The same record with its seal."""
    return value.model_copy(update={"seal": seal_of(value)})


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


def parse_sealed(kind: type[S], data: bytes) -> tuple[S, str]:
    """A record, and the seal that its content as written has.

    The seal is taken of the JSON, not of the value: a field that a later version adds with a
    default leaves the seals of earlier records as they are.

    Raises:
        NotARecordError: it is not of that format.
    """
    plain = _plain(data)
    try:
        return kind.model_validate(plain), seal_of_data(plain)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise NotARecordError(f"not a record of this version ({where}: {problem['msg']})") from None


def seal_as_written(data: bytes) -> tuple[str, str]:
    """The seal a record of any kind says it has, and the one that its content has.

    Raises:
        NotARecordError: it is no record.
    """
    plain = _plain(data)
    said = plain.get("seal") if isinstance(plain, dict) else None
    if not isinstance(said, str):
        raise NotARecordError("not a record of this version (seal: missing)")
    return said, seal_of_data(plain)


def _plain(data: bytes) -> Any:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise NotARecordError(f"not a record of this version (not JSON: {error})") from None


def load_lines(kind: type[V], path: Path) -> Iterator[V]:
    """Read JSON lines, one value at a time."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield kind.model_validate_json(line)
