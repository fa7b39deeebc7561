"""The working tree held against its records: what has to be here, what is here, what differs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from driftline.errors import DriftlineError
from driftline.evidence import lineage
from driftline.evidence.lineage import Evidence
from driftline.schema.artifacts import ArtifactRecord, FileDigest, Manifest, Reference, TensorDigest
from driftline.schema.cells import CellRecord
from driftline.schema.values import Sealed
from driftline.store import digest, records
from driftline.store.digest import Difference
from driftline.verify import expected, locked, parts, sealed
from driftline.verify.expected import TOP, Believed, Expected, Recorded
from driftline.verify.lock import Lock
from driftline.verify.problems import WORKSPACE, Deviation, LookedAt
from driftline.verify.survey import Actual, WorkingTree, is_here

SHOWN = 8
"""Readers named per input."""

S = TypeVar("S", bound=Sealed)


@dataclass(frozen=True)
class Checked:
    """In what the working tree is not as recorded.

    `disowned` are outs that are as their stages left them and not as forged evidence has them;
    `known` are these and all that deviate. `expected` has the files of every folder that is here
    and that a record describes.
    """

    deviations: tuple[Deviation, ...]
    disowned: tuple[str, ...]
    known: frozenset[str]
    expected: Mapping[str, tuple[FileDigest, ...]]


def check(recorded: Recorded, tree: WorkingTree, looked_at: LookedAt) -> Checked:
    """Hold all that is here against what describes it, against `dvc.lock`, and against its readers.

    One cause is one deviation: what is known to be wrong is not held against anything that follows.
    """
    lock, believed = recorded.lock, _believed(recorded, tree)
    described, manifests = tuple(expected.of_evidence(believed)), sealed.manifests()
    rows = (*described, *_of_manifests(manifests, believed, tree))
    by_evidence = {row.path for row in described}

    compared = tuple(_compared(rows, recorded.evidence, tree, looked_at))
    disowned = tuple(_disowned(compared, by_evidence, recorded, tree))
    deviations = [each for each in compared if each.out not in disowned]
    deviations += _unreadable(manifests)
    deviations += sealed.controls(lock, looked_at)
    identities = _identities(believed, _known(deviations, disowned), lock)
    deviations += sealed.counterfactuals(lock, identities, tree, looked_at)
    known = _known(deviations, disowned)
    deviations += locked.outs(recorded, tree, looked_at, described=by_evidence, but=known)
    known = _known(deviations, disowned)
    deviations += _outdated(recorded, _sound(manifests, known), known)
    return Checked(
        deviations=tuple(deviations),
        disowned=disowned,
        known=_known(deviations, disowned),
        expected={row.path: row.files for row in rows if is_here(row.path)},
    )


# ----------------------------------------------------------------------------- what can be believed


def _believed(recorded: Recorded, tree: WorkingTree) -> Believed:
    """Each record as the evidence has it; where that is doubted, the copy its stage kept."""
    evidence = recorded.evidence
    listed = {row.path: row for row in evidence.index.files}

    def believe(kind: type[S], record: S | None, place: str, copy: Path) -> S | None:
        if record is not None and place not in recorded.doubted:
            return record
        if copy.is_file() and tree.hashes.sha256(copy) == listed[place].sha256:
            return records.load_sealed(kind, copy)
        return None

    artifacts = {
        name: believe(ArtifactRecord, evidence.artifacts.get(name), place, records.path_of(name))
        for name, place in expected.places(listed, lineage.ARTIFACTS, lineage.RECORD).items()
    }
    home = records.ARTIFACTS / lineage.CELLS
    cells = {
        name: believe(CellRecord, evidence.cells.get(name), place, home / name / records.CELL)
        for name, place in expected.places(listed, lineage.CELLS, lineage.CELL).items()
    }
    return Believed(listed, evidence.index.drift_identity, artifacts, cells)


def _disowned(
    deviations: Iterable[Deviation],
    by_evidence: Collection[str],
    recorded: Recorded,
    tree: WorkingTree,
) -> Iterator[str]:
    """Evidence that is not what its stage wrote blames nothing that DVC has as it is here."""
    for out in (each.out for each in deviations if recorded.forged and each.out in by_evidence):
        entry = recorded.lock.outs.get(out)
        if entry is not None and not tree.differs(entry, deep=True):
            yield out


def _known(deviations: Iterable[Deviation], disowned: Iterable[str]) -> frozenset[str]:
    """Outs of which something wrong is known."""
    return frozenset((*(each.out for each in deviations if each.place == WORKSPACE), *disowned))


def _deviates(name: str, known: Collection[str], lock: Lock) -> bool:
    """Whether something under `artifacts/`, or its record, is or lies in an out that is known."""
    path = f"{TOP}/{name}"
    own = (path, (records.RECORDS / name).as_posix(), lock.out_of(path))
    return any(out in known for out in own)


def _identities(believed: Believed, known: Collection[str], lock: Lock) -> dict[str, str]:
    """Of every artifact of which nothing wrong is known."""
    return {
        name: record.identity
        for name, record in believed.artifacts.items()
        if record is not None and not _deviates(name, known, lock)
    }


# ----------------------------------------------------------------------------- the one comparison


def compare(row: Expected, actual: Actual) -> tuple[Difference, ...]:
    """What is extra, missing and changed in a folder, by path in the project."""
    if actual.refused is not None:
        return (actual.refused,)
    inside = digest.differences(row.files, actual.files, _other)
    if not inside and row.contradiction:
        return (Difference("changed", row.path, row.contradiction),)
    return tuple(replace(each, path=Path(row.path, each.path).as_posix()) for each in inside)


def _other(recorded: FileDigest, actual: FileDigest) -> str:
    """In words, how a file is not as recorded; one that was not read is compared by its size."""
    if recorded.size != actual.size:
        return f"{recorded.size} bytes recorded, {actual.size} here"
    if actual.sha256 and recorded.sha256 != actual.sha256:
        return f"sha256 {recorded.sha256[:12]}… recorded, {actual.sha256[:12]}… here"
    return ""


def _compared(
    rows: Iterable[Expected], evidence: Evidence, tree: WorkingTree, looked_at: LookedAt
) -> Iterator[Deviation]:
    """Every folder that is here and not as expected, or has to be here and is not."""
    for row in rows:
        if is_here(row.path):
            looked_at(WORKSPACE, row.path)
            actual = tree.look(row.path, row.always)
            differences = tuple(_edited(row, each) for each in compare(row, actual))
            why = () if actual.refused else _parts(row, evidence, tree)
            if differences:
                yield Deviation(row.path, differences, tuple(why))
        elif row.beside and Path(row.beside).exists():
            yield Deviation(row.path, (Difference("missing", row.record_path),))


def _edited(row: Expected, difference: Difference) -> Difference:
    """A changed record is an edited one: say what in it is other."""
    if (difference.what, difference.path) != ("changed", row.record_path):
        return difference
    detail = parts.of_record(Path(row.record_path), row.record)
    return Difference("edited", row.record_path, detail)


def _parts(row: Expected, evidence: Evidence, tree: WorkingTree) -> Iterator[str]:
    """Which parts of an artifact are others."""
    if row.kind == "artifact" and isinstance(row.record, ArtifactRecord):
        tensors = _tensors(evidence, row.record.name)
        yield from parts.of_artifact(Path(row.path), row.record, tensors, tree.files(row.path))


def _tensors(evidence: Evidence, artifact: str) -> tuple[TensorDigest, ...]:
    try:
        return evidence.tensors(artifact)
    except (OSError, KeyError, ValidationError):
        return ()


# ------------------------------------------------------------------------------------- manifests


def _of_manifests(
    manifests: Mapping[str, Manifest | Difference], believed: Believed, tree: WorkingTree
) -> Iterator[Expected]:
    for folder, manifest in manifests.items():
        if isinstance(manifest, Manifest):
            itself = tree.file(Path(folder), records.MANIFEST, read=tree.deep)
            yield expected.of_manifest(manifest, itself, believed.drift_identity)


def _unreadable(manifests: Mapping[str, Manifest | Difference]) -> Iterator[Deviation]:
    for folder, manifest in manifests.items():
        if isinstance(manifest, Difference):
            yield Deviation(folder, (manifest,))


def _sound(
    manifests: Mapping[str, Manifest | Difference], known: Collection[str]
) -> tuple[Manifest, ...]:
    return tuple(
        manifest
        for folder, manifest in manifests.items()
        if isinstance(manifest, Manifest) and folder not in known
    )


# --------------------------------------------------------------------------------- what read what


def _outdated(
    recorded: Recorded, manifests: Collection[Manifest], known: Collection[str]
) -> Iterator[Deviation]:
    """What was read has to be what lies here; what is known to be wrong is left out."""
    cells = {
        name: cell
        for name, cell in recorded.evidence.cells.items()
        if f"{lineage.CELLS}/{name}/{lineage.CELL}" not in recorded.doubted
    }
    listed = {
        f"{manifest.name}/{row.path}": row.sha256
        for manifest in manifests
        for row in manifest.files
    }
    for wanted, readers in expected.readers(manifests, cells).items():
        sound = [each for each in readers if not _deviates(each, known, recorded.lock)]
        if sound and not _deviates(wanted.name, known, recorded.lock):
            yield from _reference(wanted, sound, listed.get(wanted.name), recorded.lock)


def _reference(
    wanted: Reference, readers: list[str], listed: str | None, lock: Lock
) -> Iterator[Deviation]:
    """What was read against what is here; `listed` is what the manifest beside it says."""
    try:
        identity = records.current(wanted.name)
    except DriftlineError:
        return  # an input that is not here cannot contradict
    path = f"{TOP}/{wanted.name}"
    out = lock.out_of(path) or path
    if identity == wanted.identity:
        return
    if listed == wanted.identity:
        detail = f"sha256 {listed[:12]}… recorded, {identity[:12]}… here"
        yield Deviation(out, (Difference("changed", path, detail),))
        return
    more = f" and {len(readers) - SHOWN} more" if len(readers) > SHOWN else ""
    detail = (
        f"{', '.join(readers[:SHOWN])}{more}: made from {wanted.identity[:12]}…, here it is "
        f"{identity[:12]}…"
    )
    yield Deviation(out, (Difference("broken", path, detail),), stale=True)
