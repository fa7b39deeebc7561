"""What has to be in the working tree, listed from the records; pure.

`dvc.lock` is such a list already: see `lock`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from driftline.evidence import lineage
from driftline.evidence.lineage import Evidence
from driftline.schema.artifacts import ArtifactRecord, FileDigest, Manifest, Reference
from driftline.schema.cells import CellRecord
from driftline.schema.values import Sealed
from driftline.store import digest, records
from driftline.verify.lock import Lock, LockedPath

TOP = records.ARTIFACTS.as_posix()
MANIFESTS = ("prompts", "evalset", "grades", "drift")
"""Folders that every project has, beside artifacts, their records and cells."""


@dataclass(frozen=True)
class Recorded:
    """All that says what has to be in the working tree, and how far it can be believed.

    `doubted` are evidence files, relative to `reports/lineage`, that are not what the index says:
    what they say is not held against anything. `forged` is whether the evidence as a whole is not
    what `dvc.lock` has. `lock` is what DVC recorded, `head` the same as committed, where it is.
    `listing` gives the md5 of each file in a folder by path; empty where that is unknown.
    """

    evidence: Evidence
    doubted: Collection[str]
    forged: bool
    lock: Lock
    head: Lock | None
    listing: Callable[[LockedPath], Mapping[str, str]]


@dataclass(frozen=True)
class Believed:
    """What the evidence says that can be held against something.

    `listed` are its files by path, `drift_identity` is that of the drift it is of. Records are by
    name; None where neither the evidence nor the copy that its stage kept can be believed.
    """

    listed: Mapping[str, FileDigest]
    drift_identity: str
    artifacts: Mapping[str, ArtifactRecord | None]
    cells: Mapping[str, CellRecord | None]


@dataclass(frozen=True)
class Expected:
    """One folder as a record has it: what it is, and every file of it with size and sha256.

    `path` is relative to the project, those of `files` relative to it. `record` describes the
    folder, or lies in it, at `record_path`; None where none is believed. Files named in `always`
    are small: they are read even where no bytes are asked for. The folder need not be here, unless
    what `beside` names is. `contradiction` is how its record is not what another one says of it.
    """

    path: str
    kind: Literal["artifact", "record", "cell", "manifest"]
    files: tuple[FileDigest, ...]
    record: Sealed | None
    record_path: str = ""
    always: Collection[str] = ()
    beside: str = ""
    contradiction: str = ""


def places(listed: Iterable[str], kind: str, record: str) -> dict[str, str]:
    """Artifacts or cells in the evidence by name: where their record, a file `record`, lies."""
    start, end = f"{kind}/", f"/{record}"
    return {
        path[len(start) : -len(end)]: path
        for path in listed
        if path.startswith(start) and path.endswith(end)
    }


def of_evidence(believed: Believed) -> Iterator[Expected]:
    """Each artifact, the record beside it, and each cell."""
    for name, artifact in believed.artifacts.items():
        yield _record(name, artifact, believed.listed)
        if artifact is not None:
            yield Expected(f"{TOP}/{name}", "artifact", artifact.files, artifact)
    for name, cell in believed.cells.items():
        if cell is not None:
            yield _cell(name, cell, believed.listed)


def _record(name: str, record: ArtifactRecord | None, listed: Mapping[str, FileDigest]) -> Expected:
    place = f"{lineage.ARTIFACTS}/{name}"
    rows = [
        *_copy(listed, f"{place}/{lineage.RECORD}", records.RECORD),
        *_copy(listed, f"{place}/{lineage.TENSORS}", records.TENSORS),
    ]
    if record is not None and record.environment_sha256:
        environment = f"{lineage.ENVIRONMENTS}/{record.environment_sha256}.json"
        rows += _copy(listed, environment, records.ENVIRONMENT)
    return Expected(
        path=(records.RECORDS / name).as_posix(),
        kind="record",
        files=tuple(rows),
        record=record,
        record_path=records.path_of(name).as_posix(),
        always=tuple(row.path for row in rows),
        beside=f"{TOP}/{name}",
    )


def _cell(name: str, cell: CellRecord, listed: Mapping[str, FileDigest]) -> Expected:
    row = _copy(listed, f"{lineage.CELLS}/{name}/{lineage.CELL}", records.CELL)
    path = f"{TOP}/{lineage.CELLS}/{name}"
    return Expected(
        path=path,
        kind="cell",
        files=(*row, *cell.outputs),
        record=cell,
        record_path=f"{path}/{records.CELL}",
        always=(records.CELL,),
    )


def _copy(listed: Mapping[str, FileDigest], path: str, name: str) -> Iterator[FileDigest]:
    """What a stage's own copy of an evidence file has to be."""
    if path in listed:
        yield listed[path].model_copy(update={"path": name})


def of_manifest(manifest: Manifest, itself: FileDigest, drift_identity: str) -> Expected:
    """A folder that carries its own manifest, `itself`: that file is what it is."""
    other_drift = manifest.name == "drift" and digest.identity(manifest.files) != drift_identity
    return Expected(
        path=f"{TOP}/{manifest.name}",
        kind="manifest",
        files=(*manifest.files, itself),
        record=manifest,
        contradiction="not the drift that reports/lineage is of" if other_drift else "",
    )


def readers(
    manifests: Iterable[Manifest], cells: Mapping[str, CellRecord]
) -> dict[Reference, list[str]]:
    """Who says of what that it was made from exactly that."""
    read = [(manifest.name, manifest.inputs) for manifest in manifests]
    read += [(f"{lineage.CELLS}/{name}", cell.inputs) for name, cell in cells.items()]
    by_input: dict[Reference, list[str]] = {}
    for reader, inputs in read:
        for each in inputs:
            by_input.setdefault(each, []).append(reader)
    return by_input
