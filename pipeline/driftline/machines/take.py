"""`driftline import-cells`: cells of another machine, from its commit and the DVC remote.

Everything is fetched beside the project first, object by object with its digest, and held against
this project's records; only what matches is moved in. DVC's own way (`DVCFileSystem`) is not taken:
it neither recomputes a digest nor forgets a folder listing that was wrong once.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from driftline.errors import InputError, RefusedError, ToolError
from driftline.evidence import history
from driftline.files import new_directory
from driftline.machines import imported
from driftline.project import params, plan, tasks
from driftline.schema.cells import CellRecord, Outcome
from driftline.schema.imports import ImportRecord
from driftline.schema.tasks import CellTask
from driftline.schema.values import dump, sealed
from driftline.store import environments, needs, records
from driftline.verify import lock as locks
from driftline.verify import objects
from driftline.verify.hashes import CHUNK

WORK = Path(".driftline")
What = Literal["imported", "known", "refused", "absent", "left"]
MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Verdict:
    """What became of one cell.

    `imported`, or `known` (it already was); `refused`: it is not this project's, or not what it
    says; `absent`: its bytes cannot be had; `left`: the other machine has not made it either.
    """

    cell: str
    what: What
    lines: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True)
class Origin:
    """Where cells are taken from: a revision as the user named it, and its commit."""

    revision: str
    commit: str
    made_at: str

    def where(self, cell: str) -> str:
        """What to call a cell's folder there."""
        return f"{self.revision}:artifacts/cells/{cell}"


@dataclass(frozen=True)
class _Candidate:
    """A cell that may come in: its folder as fetched, and what will be said of it."""

    folder: Path
    record: ImportRecord


def take(revision: str, *, cells: Iterable[str] = (), made_at: str = "") -> tuple[Verdict, ...]:
    """Import cells that the commit `revision` has: those this project lacks, or those named.

    Every one is checked before any comes in; what is refused leaves nothing behind.

    Args:
        revision: a git revision, like the fetched branch of the other machine.
        cells: ids of cells to import whether or not this project lacks them.
        made_at: what to call the machine; by default what its environment says.

    Raises:
        InputError: no such revision or cell, or the project was not run yet.
        RefusedError: a record of this project was edited.
    """
    project = params.read()
    named = tuple(dict.fromkeys(cells))
    chosen = [_planned(project, name) for name in named] or _lacking(project)
    origin = Origin(revision, history.commit_of(revision), made_at.strip())
    lock = _lock_at(origin)
    WORK.mkdir(exist_ok=True)
    with objects.repository() as repo, tempfile.TemporaryDirectory(dir=WORK) as temporary:
        stores, verdicts = Sources(repo), []
        for number, task in enumerate(chosen):
            spec, folder = task.cell, Path(temporary, str(number))
            wanted = needs.wanted(task)
            try:
                if problem := imported.unimportable(task):
                    raise RefusedError(problem, remedy="driftline run")
                verdicts.append(_candidate(stores, lock, origin, wanted, folder, asked=bool(named)))
            except RefusedError as error:
                lines = tuple(error.message.splitlines())
                verdicts.append(Verdict(spec.id, "refused", lines, error.remedy))
            except ToolError as error:
                verdicts.append(Verdict(spec.id, "absent", (error.message,), error.remedy))
        return tuple(
            _bring(repo, each) if isinstance(each, _Candidate) else each for each in verdicts
        )


def _candidate(
    stores: Sources,
    lock: locks.Lock,
    origin: Origin,
    wanted: needs.Wanted,
    folder: Path,
    *,
    asked: bool,
) -> _Candidate | Verdict:
    """A cell as the other machine has it, fetched to `folder` and checked.

    One that it has not made either is left, unless it was `asked` for.

    Raises:
        RefusedError: it is not what it says, or not this project's.
        ToolError: its bytes cannot be had.
    """
    spec = wanted.spec
    entry = lock.outs.get(f"artifacts/cells/{spec.id}")
    if entry is None or not entry.is_folder:
        problem = f"{origin.revision}:dvc.lock has no such cell"
        remedy = f"there: driftline run --only {spec.runtime}, then commit dvc.lock"
        if asked:
            raise RefusedError(problem, remedy=remedy)
        return Verdict(spec.id, "left", (problem,), remedy)
    fetch(stores, entry, folder)
    outcome = _outcome(folder)
    if outcome is None or outcome.ran or asked:
        return _checked(origin, wanted, folder)
    return Verdict(spec.id, "left", (f"{outcome.state} there too: {outcome.reason}",))


# ------------------------------------------------------------------------------------ which cells


def _planned(project: params.Params, name: str) -> CellTask:
    return tasks.of(project, plan.find(project, name))


def _lacking(project: params.Params) -> list[CellTask]:
    """Planned cells that have no answers here, those that have to run here left out."""
    return [
        task
        for task in tasks.all_of(project)
        if not imported.unimportable(task) and not _has_answers(task)
    ]


def _has_answers(task: CellTask) -> bool:
    outcome = _outcome(records.ARTIFACTS / "cells" / task.cell.id)
    return outcome is not None and outcome.ran


def _outcome(folder: Path) -> Outcome | None:
    """How the cell in `folder` ended; None where there is no such record, or an edited one."""
    try:
        return records.load_sealed(CellRecord, folder / records.CELL).outcome
    except (InputError, RefusedError):
        return None


def _lock_at(origin: Origin) -> locks.Lock:
    """`dvc.lock` of the commit.

    Raises:
        InputError: it has none.
        RefusedError: it is not a lock file.
    """
    remedy = "there: driftline run --only RUNTIME, then commit dvc.lock"
    place = f"{origin.revision}:dvc.lock"
    try:
        return locks.parse(history.git("show", f"{origin.commit}:./dvc.lock"), Path(place))
    except ToolError:
        raise InputError(f"{place}: not there", remedy=remedy) from None
    except RefusedError as error:
        raise RefusedError(error.message, remedy=remedy) from None


# ------------------------------------------------------------------------------------ its bytes


@dataclass
class Sources:
    """DVC's cache and its remotes, the default one first; a remote is opened when it is needed."""

    repo: Any
    _open: dict[str, Any] = field(default_factory=dict)

    def copy(self, oid: str, target: Path) -> None:
        """Write an object to `target`, from the first store that has it.

        Raises:
            RefusedError: what the store has under this name is something else.
            ToolError: no store has it, or none could be read.
        """
        problems = []
        for name in (objects.CACHE, *objects.remote_names(self.repo)):
            try:
                md5 = self._copy(name, oid, target)
            except FileNotFoundError:
                problems.append(f"not in {_called(name)}")
                continue
            except Exception as error:  # every kind of remote raises its own
                said = " ".join(str(error).split())[:200] or type(error).__name__
                problems.append(f"{_called(name)} cannot be read: {said}")
                continue
            if md5 != oid.removesuffix(".dir"):
                raise RefusedError(
                    f"object {oid} in {_called(name)}: expected md5 "
                    f"{oid.removesuffix('.dir')}, found {md5}",
                    remedy=_repair(name),
                )
            return
        raise ToolError(
            f"object {oid}: {'; '.join(problems)}",
            remedy="there: dvc push   here: dvc remote list",
        )

    def _copy(self, name: str, oid: str, target: Path) -> str:
        """md5 of what was written."""
        store = self._store(name)
        digest = hashlib.md5(usedforsecurity=False)
        with store.fs.open(store.oid_to_path(oid), "rb") as source, target.open("wb") as file:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
        return digest.hexdigest()

    def _store(self, name: str) -> Any:
        if name not in self._open:
            here = name == objects.CACHE
            cloud = self.repo.cloud
            self._open[name] = self.repo.cache.local if here else cloud.get_remote_odb(name)
        return self._open[name]


def _called(name: str) -> str:
    return "DVC's cache" if name == objects.CACHE else f"remote {name}"


def _repair(name: str) -> str:
    if name == objects.CACHE:
        return "driftline verify --deep   (says which object to remove)"
    return f"delete the object in remote {name}, then there: dvc push -r {name}"


def fetch(stores: Sources, entry: locks.LockedPath, folder: Path) -> None:
    """Write the folder that a lock file's entry names to `folder`, which does not exist yet.

    Raises:
        RefusedError: an object is not what its name says, or the listing names a path outside.
        ToolError: an object cannot be had.
    """
    listing = folder.with_name(f"{folder.name}.dir")
    stores.copy(entry.md5, listing)
    for path, oid in listed(listing.read_bytes(), entry.md5):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        stores.copy(oid, target)


def listed(listing: bytes, oid: str) -> Iterator[tuple[str, str]]:
    """Relative path and object of every file in a folder, as DVC lists them.

    Raises:
        RefusedError: it is no such list, or a path leads out of the folder.
    """
    remedy = "there: driftline run --only RUNTIME, dvc push, and commit dvc.lock"
    try:
        files = [(str(row["relpath"]), str(row["md5"])) for row in json.loads(listing)]
    except (ValueError, KeyError, TypeError):
        raise RefusedError(f"object {oid}: not a listing of a folder", remedy=remedy) from None
    folders = {str(parent) for path, _ in files for parent in PurePosixPath(path).parents}
    if len({path for path, _ in files} - folders) != len(files):
        raise RefusedError(f"object {oid}: a path is listed twice", remedy=remedy)
    for path, md5 in files:
        plain = PurePosixPath(path)
        inside = not plain.is_absolute() and ".." not in plain.parts and plain.as_posix() == path
        if not inside or not path.isprintable() or "\\" in path:
            raise RefusedError(f"object {oid}: {path!r} is no file in the folder", remedy=remedy)
        if not MD5.fullmatch(md5):
            raise RefusedError(f"object {oid}: {path} has the object {md5!r}", remedy=remedy)
    yield from files


# ------------------------------------------------------------------------------------ its worth


def _checked(origin: Origin, wanted: needs.Wanted, folder: Path) -> _Candidate:
    """The cell in `folder`, which is what its record says and the one that is wanted.

    Raises:
        RefusedError: it is not.
    """
    spec = wanted.spec
    where = origin.where(spec.id)
    again = f"there: driftline run --only {spec.runtime}, git commit, dvc push"
    record = imported.read_cell(folder, where=where, remedy=again)
    differing = needs.mismatches(record, wanted)
    if differing:
        lines = "\n  ".join(each.line for each in differing)
        raise RefusedError(
            f"{where} is another cell than this project's:\n  {lines}",
            remedy=f"there: merge this project's commit, dvc pull, then {again[7:]}",
        )
    environment = environments.environment(folder)
    machine = environments.machine_of(environment)
    made = ImportRecord(
        cell=spec.id,
        revision=origin.commit,
        made_at=origin.made_at or machine.label or "another machine",
        machine=machine,
        software=environments.software_of(environment),
        artifact_identity=record.artifact_identity,
        adapter_identity=record.adapter_identity,
        environment_sha256=record.environment_sha256,
        cell_seal=record.seal,
        notes=tuple(_notes(record)),
    )
    return _Candidate(folder, sealed(made))


def _notes(record: CellRecord) -> Iterator[str]:
    stage = f"score_{record.cell.runtime}"
    here = records.code_of(stage)
    if record.code_sha256 != here:
        yield f"code_sha256 of {stage}: {here[:12]}… here, {record.code_sha256[:12]}… there"
    if record.outcome.state == "unstable":
        yield f"unstable there: {record.outcome.reason}"


def _bring(repo: Any, candidate: _Candidate) -> Verdict:
    """Move a cell in: its folder to DVC, then its record, which is what makes it count.

    Raises:
        ToolError: DVC would not take it.
    """
    from dvc.exceptions import DvcException

    record = candidate.record
    home = imported.folder_of(record.cell)
    known = imported.read(record.cell)
    label = record.machine.label
    place = label if record.made_at == label else f"{record.made_at} ({label})"
    origin = f"{place}, from {record.revision[:12]}"
    lines = (origin, *(f"note: {note}" for note in record.notes))
    if known is not None and known == record and (home / imported.CELL).is_dir():
        return Verdict(record.cell, "known", lines)
    target = home / imported.CELL
    with new_directory(target) as folder:
        shutil.copytree(candidate.folder, folder, dirs_exist_ok=True)
    repo.scm_context.quiet = True  # what to do next is said once, at the end
    try:
        repo.add([target.as_posix()])
    except DvcException as error:
        shutil.rmtree(target)
        raise ToolError(
            f"{target}: DVC does not take it: {error}",
            remedy=f"dvc add {target}   (says more), then import it again",
        ) from None
    dump(record, home / imported.RECORD)
    return Verdict(record.cell, "imported", lines)
