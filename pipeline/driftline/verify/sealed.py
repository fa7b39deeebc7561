"""What carries its own seal: the manifests of folders, controls, counterfactuals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from driftline.errors import DriftlineError, RefusedError
from driftline.schema.artifacts import Manifest
from driftline.schema.values import Sealed
from driftline.schema.weights import ControlRecord, CounterfactualRecord
from driftline.store import records
from driftline.store.digest import Difference
from driftline.verify.expected import MANIFESTS, TOP
from driftline.verify.lock import Lock
from driftline.verify.problems import WORKSPACE, Deviation, LookedAt
from driftline.verify.survey import WorkingTree

S = TypeVar("S", bound=Sealed)


def manifests() -> dict[str, Manifest | Difference]:
    """By folder that has to have one: its manifest, or what is wrong with that."""
    folders = [records.ARTIFACTS / name for name in MANIFESTS]
    folders += sorted((records.ARTIFACTS / "texts").glob("*"))
    return {folder.as_posix(): _manifest(folder) for folder in folders if folder.is_dir()}


def _manifest(folder: Path) -> Manifest | Difference:
    path = folder / records.MANIFEST
    manifest = _load(Manifest, path)
    if isinstance(manifest, Manifest) and f"{TOP}/{manifest.name}" != folder.as_posix():
        return Difference("edited", path.as_posix(), f"that of {manifest.name}")
    return manifest


def controls(lock: Lock, looked_at: LookedAt) -> Iterator[Deviation]:
    """The loaders' controls: each is a record and nothing else."""
    for path in sorted((records.ARTIFACTS / "controls").glob("*.json")):
        looked_at(WORKSPACE, path.as_posix())
        control = _load(ControlRecord, path)
        if isinstance(control, Difference):
            yield Deviation(_out(path, lock), (control,))


def counterfactuals(
    lock: Lock, identities: Mapping[str, str], tree: WorkingTree, looked_at: LookedAt
) -> Iterator[Deviation]:
    """Their records, what these were made of, and with `deep` the distributions beside them.

    Args:
        lock: says which out a record lies in.
        identities: of artifacts by name, as far as nothing is known to be wrong with them.
        tree: tells what is here.
        looked_at: told of every record.
    """
    for path in sorted((records.ARTIFACTS / "counterfactuals").rglob(records.RECORD)):
        looked_at(WORKSPACE, path.as_posix())
        record = _load(CounterfactualRecord, path)
        if isinstance(record, Difference):
            yield Deviation(_out(path, lock), (record,))
            continue
        differences = [*_made_of(path, record, identities)]
        differences += _distributions(path.parent, record, tree) if tree.deep else ()
        if differences:
            yield Deviation(path.parent.as_posix(), tuple(differences))


def _made_of(
    path: Path, record: CounterfactualRecord, identities: Mapping[str, str]
) -> Iterator[Difference]:
    made_of = {record.artifact: record.artifact_identity, record.parent: record.parent_identity}
    for name, identity in made_of.items():
        own = identities.get(name, identity)
        if own != identity:
            detail = f"made of {name} {identity[:12]}…, its record says {own[:12]}…"
            yield Difference("broken", path.as_posix(), detail)


def _distributions(
    folder: Path, record: CounterfactualRecord, tree: WorkingTree
) -> Iterator[Difference]:
    for name, recorded in (pair for kept in record.forced for pair in kept.digests.items()):
        path = folder / name
        if not path.is_file():
            yield Difference("missing", path.as_posix())
        elif (sha256 := tree.hashes.sha256(path)) != recorded:
            detail = f"sha256 {recorded[:12]}… in the record, {sha256[:12]}… here"
            yield Difference("changed", path.as_posix(), detail)


def _out(path: Path, lock: Lock) -> str:
    """The out of a stage that a record is, or lies in."""
    return lock.out_of(path.as_posix()) or path.parent.as_posix()


def _load(kind: type[S], path: Path) -> S | Difference:
    """The sealed record at `path`, or what is wrong with it."""
    if path.is_symlink():
        return Difference("refused", path.as_posix(), "is a symlink")
    try:
        return records.load_sealed(kind, path)
    except DriftlineError as error:
        what = "edited" if isinstance(error, RefusedError) else "missing"
        return Difference(what, path.as_posix(), error.message.removeprefix(f"{path}: "))
