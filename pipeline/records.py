"""Where records are, and artifacts checked against theirs before anyone uses them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import JsonValue, ValidationError

from pipeline import digest
from pipeline.errors import InputError, RefusedError
from pipeline.schema.artifacts import ArtifactKind, ArtifactRecord, Census, Parent
from pipeline.schema.values import dump, load

ARTIFACTS = Path("artifacts")
RECORDS = ARTIFACTS / "records"


def path_of(name: str) -> Path:
    """Record of the artifact `kind/variant/form` (or `kind/name`)."""
    return RECORDS / f"{name}.json"


def read(name: str) -> ArtifactRecord:
    """Read an artifact's record.

    Raises:
        InputError: there is none.
        RefusedError: it is not a record.
    """
    path = path_of(name)
    if not path.exists():
        raise InputError(f"{path}: no record of {name}", remedy="dvc repro")
    try:
        return load(ArtifactRecord, path)
    except ValidationError as error:
        raise RefusedError(
            f"{path}: not an artifact record: {error.errors()[0]['msg']}", remedy="dvc repro -f"
        ) from None


def verified(name: str) -> ArtifactRecord:
    """The record of an artifact whose bytes were just found to be exactly what it says.

    Raises:
        RefusedError: files are extra, missing or changed.
    """
    record = read(name)
    found = digest.verify(
        ARTIFACTS / name,
        record.files,
        remedy=f"remove {ARTIFACTS / name} and its DVC cache entry, then: dvc repro",
    )
    if found != record.identity:
        raise RefusedError(
            f"{path_of(name)}: identity {record.identity[:12]}… does not follow from its files "
            f"({found[:12]}…)",
            remedy="the record was edited: dvc repro -f",
        )
    return record


def write(
    name: str,
    *,
    kind: ArtifactKind,
    conversion: str,
    parents: Iterable[ArtifactRecord],
    tool: str,
    tool_version: str,
    arguments: dict[str, JsonValue],
    census: Census | None,
) -> None:
    """Write the record of the artifact that now lies at `artifacts/<name>`."""
    files = digest.rows(ARTIFACTS / name)
    record = ArtifactRecord.model_validate(
        {
            "name": name,
            "kind": kind,
            "conversion": conversion,
            "identity": digest.identity(files),
            "files": files,
            "parents": tuple(Parent(name=p.name, identity=p.identity) for p in parents),
            "tool": tool,
            "tool_version": tool_version,
            "arguments": arguments,
            "census": census,
        }
    )
    dump(record, path_of(name))
