"""Which part of something is another one: an artifact's tensors or fields, a record's fields."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from driftline.errors import DriftlineError
from driftline.schema.artifacts import ArtifactRecord, FileDigest, TensorDigest
from driftline.schema.values import Sealed, seal_of
from driftline.store import facts

SHOWN = 5
"""Tensors and fields named per artifact."""
DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def of_artifact(
    folder: Path,
    record: ArtifactRecord,
    recorded: Iterable[TensorDigest],
    rows: Iterable[FileDigest],
) -> Iterator[str]:
    """A line for its weights, and one for each other part that is not as recorded.

    Args:
        folder: where the artifact lies.
        record: what it should be.
        recorded: its tensors as they should be.
        rows: its files as they are.
    """
    files = sorted(rows, key=lambda row: row.path)
    try:
        own, tensors = facts.of_artifact(folder, files)
    except DriftlineError as error:
        yield error.message
        return
    before, after = ({each.name: each for each in side} for side in (recorded, tensors))
    yield from _weights(before, after)
    odd = {row.path for row in record.files} ^ {row.path for row in files}
    yield from _fields(record.facts.metadata if record.facts else {}, own.metadata, odd)


def _weights(
    before: Mapping[str, TensorDigest], after: Mapping[str, TensorDigest]
) -> Iterator[str]:
    touched = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    if touched:
        yield f"weights: {len(touched)} of {len(before)} tensors are others: {_some(touched)}"
    else:
        yield f"weights: all {len(before)} tensors are as recorded"


def _fields(
    recorded: Mapping[str, str], actual: Mapping[str, str], odd: Collection[str]
) -> Iterator[str]:
    """Fields that are others, part by part, but for those of extra or missing files."""
    changed = sorted(
        name
        for name in recorded.keys() | actual.keys()
        if recorded.get(name) != actual.get(name) and name.partition(":")[0] not in odd
    )
    for part in ("template", "tokenizer", "config"):
        own = [name for name in changed if facts.part_of(name) == part]
        if own:
            listed = [
                f"{name} {_short(recorded.get(name))} → {_short(actual.get(name))}" for name in own
            ]
            yield f"{part}: {_some(listed)}"
    if not changed:
        yield "template, tokenizer, config: as recorded"


def _short(value: str | None) -> str:
    return "none" if value is None else DIGEST.sub(r"\1…", value)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def of_record(path: Path, recorded: Sealed | None) -> str:
    """What became of a sealed record: which fields are others, and whether its seal fits."""
    try:
        data = json.loads(path.read_bytes())
        made = type(recorded).model_validate(data) if recorded else None
    except ValueError:
        return "not a record of this version"
    if recorded is None or made is None:
        return ""
    wanted: dict[str, Any] = recorded.model_dump(mode="json")
    fields = sorted(key for key in wanted if data.get(key) != wanted[key] and key != "seal")
    seal = "sealed again" if made.seal == seal_of(made) else "its seal does not fit"
    return f"other {', '.join(fields) or 'layout'}; {seal}"
