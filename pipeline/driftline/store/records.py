"""Records on disk: read with their seal checked, and what they describe checked against them.

Every folder under `artifacts/` that one stage writes and another reads has a record: artifacts an
`ArtifactRecord` under `artifacts/records/<name>/`, cells a `CellRecord`, anything else a `Manifest`
inside the folder. Whoever reads a folder checks it first: DVC serves flipped bits without a word.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue

from driftline.errors import InputError, RefusedError
from driftline.files import new_directory, write_text
from driftline.schema import artifacts as names
from driftline.schema.artifacts import (
    ArtifactRecord,
    Census,
    Manifest,
    Parent,
    Reference,
    StepName,
)
from driftline.schema.values import (
    NotARecordError,
    Sealed,
    dump,
    parse_sealed,
    seal_as_written,
    sealed,
)
from driftline.store import digest, facts

ARTIFACTS = Path(names.ARTIFACTS)
RECORDS = ARTIFACTS / "records"
RECORD = "record.json"
TENSORS = "tensors.jsonl"
ENVIRONMENT = "environment.json"
MANIFEST = "manifest.json"
CELL, COMPLETIONS, ERRORS = "cell.json", "completions.jsonl", "errors.jsonl"
AUDIT = "driftline verify --deep   (names all that differs, and what restores it)"
"""Remedy for what is not as recorded: only an audit knows where it still is."""

S = TypeVar("S", bound=Sealed)


def load_sealed(kind: type[S], path: Path) -> S:
    """Read a record and check its seal, which is of the JSON as it was written.

    Raises:
        InputError: there is none.
        RefusedError: it is not such a record, or was edited, or is a symlink.
    """
    try:
        record, seal = parse_sealed(kind, _bytes_at(path))
    except NotARecordError as error:
        raise RefusedError(f"{path}: {error}", remedy=AUDIT) from None
    _check_seal(path, said=record.seal, seal=seal)
    return record


def _bytes_at(path: Path) -> bytes:
    if path.is_symlink():
        raise RefusedError(f"{path}: is a symlink; a record is a plain file", remedy=AUDIT)
    if not path.is_file():
        raise InputError(f"{path}: no record", remedy="dvc repro")
    return path.read_bytes()


def _check_seal(path: Path, *, said: str, seal: str) -> None:
    if said != seal:
        raise RefusedError(
            f"{path}: its seal is {said[:12] or 'missing'}…, its content has {seal[:12]}…: the "
            "record was edited",
            remedy=AUDIT,
        )


def require(record: Path, folder: Path) -> None:
    """Refuse a folder that is here without its record.

    Raises:
        RefusedError: it is.
    """
    if folder.exists() and not record.is_file():
        raise RefusedError(f"{record}: missing, though {folder} is here", remedy=AUDIT)


# ------------------------------------------------------------------------------------- artifacts


def path_of(name: str) -> Path:
    """Record of the artifact `kind/variant/form` (or `kind/name`)."""
    return RECORDS / name / RECORD


def read(name: str) -> ArtifactRecord:
    """Read an artifact's record.

    Raises:
        InputError: there is none, nor an artifact.
        RefusedError: it is not its record, or was edited, or the artifact has none.
    """
    require(path_of(name), ARTIFACTS / name)
    record = load_sealed(ArtifactRecord, path_of(name))
    if record.name != name:
        raise RefusedError(
            f"{path_of(name)}: is the record of {record.name}, expected that of {name}",
            remedy=AUDIT,
        )
    return record


def verified(name: str) -> ArtifactRecord:
    """The record of an artifact whose bytes were just found to be exactly what it says.

    Its parents' records, where they are here, must be the ones it was made from.

    Raises:
        RefusedError: files are extra, missing or changed, or a parent is another one.
    """
    record = read(name)
    identity = digest.verify(ARTIFACTS / name, record.files, remedy=AUDIT)
    if identity != record.identity:
        raise RefusedError(
            f"{path_of(name)}: identity {record.identity[:12]}… does not follow from its files "
            f"({identity[:12]}…)",
            remedy=AUDIT,
        )
    for parent in record.parents:
        if path_of(parent.name).is_file():
            check_input(name, Reference(name=parent.name, identity=parent.identity))
    return record


def check_beside(record: ArtifactRecord) -> None:
    """Refuse a listing of tensors or an environment that is not the one its record names.

    Raises:
        RefusedError: it is another one, or missing.
    """
    said = {
        TENSORS: record.facts.tensors_sha256 if record.facts else None,
        ENVIRONMENT: record.environment_sha256,
    }
    for name, wanted in said.items():
        path = RECORDS / record.name / name
        sha256 = digest.sha256_file(path) if path.is_file() else "missing"
        if wanted and wanted != sha256:
            raise RefusedError(
                f"{path}: sha256 {sha256[:12]}…, {wanted[:12]}… in the record beside it",
                remedy=AUDIT,
            )


def check_input(reader: str, wanted: Reference) -> None:
    """Refuse something made from another input than the one that is here now.

    Raises:
        InputError: there is no record of the input.
        RefusedError: its identity is another one.
    """
    identity = current(wanted.name)
    if wanted.identity != identity:
        raise RefusedError(
            f"{reader} was made from {wanted.name} {wanted.identity[:12]}…, "
            f"here it is {identity[:12]}…",
            remedy=f"dvc repro   (if that changes nothing: {AUDIT})",
        )


def current(name: str) -> str:
    """Identity of what lies at `artifacts/<name>`, as its record has it; a file is hashed.

    Of a cell and of a counterfactual it is the seal of the record.

    Raises:
        InputError: there is no record of it.
        RefusedError: the record was edited.
    """
    if path_of(name).is_file():
        return read(name).identity
    if (ARTIFACTS / name).is_file():
        return digest.sha256_file(ARTIFACTS / name)
    if name.startswith("cells/"):
        return _seal_at(ARTIFACTS / name / CELL)
    if name.startswith("counterfactuals/"):
        return _seal_at(ARTIFACTS / name / RECORD)
    own = ARTIFACTS / name / MANIFEST
    if not own.is_file():
        require(path_of(name), ARTIFACTS / name)
    return digest.identity(load_sealed(Manifest, own).files)


def _seal_at(path: Path) -> str:
    """The seal of a record of whatever kind, checked on what the file says.

    Not by its type: a new field of a cell's record must not make `pin` another program.
    """
    try:
        said, seal = seal_as_written(_bytes_at(path))
    except NotARecordError as error:
        raise RefusedError(f"{path}: {error}", remedy=AUDIT) from None
    _check_seal(path, said=said, seal=seal)
    return seal


def reference(record: ArtifactRecord) -> Reference:
    """How another record names this one."""
    return Reference(name=record.name, identity=record.identity)


def write(
    name: str,
    *,
    command: tuple[str, ...],
    kind: str,
    conversion: StepName,
    parents: Iterable[ArtifactRecord],
    tool: str,
    tool_version: str,
    arguments: dict[str, JsonValue],
    census: Census | None,
    runtime: str | None = None,
    notes: tuple[str, ...] = (),
) -> ArtifactRecord:
    """Write the record of the artifact that now lies at `artifacts/<name>`.

    Args:
        name: of the artifact.
        command: the stage that made it, then its arguments.
        kind: of the artifact.
        conversion: the step.
        parents: records of what it was made from.
        tool: what did the work.
        tool_version: its version, with those of what it works with.
        arguments: what the tool was told.
        census: what is in its weights.
        runtime: whose environment the conversion depends on, None for no environment.
        notes: anything a reader of the record should know.
    """
    files = digest.rows(ARTIFACTS / name)
    found, tensors = facts.of_artifact(ARTIFACTS / name, files)
    environment = None if runtime is None else environment_of(runtime)
    record = sealed(
        ArtifactRecord(
            name=name,
            kind=kind,
            conversion=conversion,
            identity=digest.identity(files),
            files=files,
            parents=tuple(Parent(name=p.name, identity=p.identity) for p in parents),
            command=f"python -m driftline.stages.{' '.join(command)}",
            tool=tool,
            tool_version=tool_version,
            code_sha256=code_of(command[0]),
            environment_sha256=digest.sha256_file(environment) if environment else None,
            arguments=arguments,
            census=census,
            facts=found,
            notes=notes,
        )
    )
    with new_directory(RECORDS / name) as folder:
        dump(record, folder / RECORD)
        write_text(folder / TENSORS, facts.listing(tensors))
        if environment is not None:
            shutil.copyfile(environment, folder / ENVIRONMENT)
    return record


def code_of(stage: str) -> str:
    """sha256 of the listing of a stage's code, as the probe wrote it."""
    return digest.sha256_file(probed(ARTIFACTS / "code" / stage))


def environment_of(runtime: str) -> Path:
    """The probed environment of a runtime."""
    return probed(ARTIFACTS / "env" / f"{runtime}.json")


def probed(path: Path) -> Path:
    """A file the probe writes.

    Raises:
        InputError: it is not there.
    """
    if not path.is_file():
        raise InputError(f"{path}: not probed yet", remedy="dvc repro probe/dvc.yaml")
    return path


# ------------------------------------------------------------------------------------- manifests


def write_manifest(folder: Path, name: str, inputs: Iterable[Reference]) -> None:
    """Write the manifest of `folder`, which will be `artifacts/<name>`."""
    made = Manifest(name=name, inputs=tuple(inputs), files=digest.rows(folder))
    dump(sealed(made), folder / MANIFEST)


def manifest(name: str, *, but: str | None = None) -> Reference:
    """The manifest of `artifacts/<name>`, whose files were just found to be what it says.

    What it was made from, where that is here, must be what lies here now.

    Args:
        name: of the folder.
        but: a folder inside it that is not looked at.

    Raises:
        InputError: there is none.
        RefusedError: it was edited, or files are extra, missing or changed, or it was made from
            something else.
    """
    folder = ARTIFACTS / name
    require(folder / MANIFEST, folder)
    made = load_sealed(Manifest, folder / MANIFEST)
    if made.name != name:
        raise RefusedError(
            f"{folder / MANIFEST}: is the manifest of {made.name}, expected that of {name}",
            remedy=AUDIT,
        )
    digest.verify(folder, made.files, but=(MANIFEST, *([but] if but else [])), remedy=AUDIT)
    for wanted in made.inputs:
        if _is_here(wanted.name):
            check_input(name, wanted)
    return Reference(name=name, identity=digest.identity(made.files))


def _is_here(name: str) -> bool:
    return (ARTIFACTS / name).exists() or path_of(name).is_file()


def file(folder: str, name: str) -> Reference:
    """One file of `artifacts/<folder>`, which was just found to be what the manifest there says.

    Raises:
        InputError: there is no manifest.
        RefusedError: it was edited, or lists no such file, or the file is another one.
    """
    path = ARTIFACTS / folder / name
    require(path.with_name(MANIFEST), path.parent)
    made = load_sealed(Manifest, path.with_name(MANIFEST))
    listed = {row.path: row.sha256 for row in made.files}
    sha256 = digest.sha256_file(path) if path.is_file() else "missing"
    if listed.get(name) != sha256:
        raise RefusedError(
            f"{path}: sha256 {sha256[:12]}…, {listed.get(name, 'nothing')[:12]}… in its manifest",
            remedy=AUDIT,
        )
    return Reference(name=f"{folder}/{name}", identity=sha256)
