"""The working tree held against its records: names and sizes always, bytes on request."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from driftline.errors import DriftlineError, RefusedError
from driftline.evidence import history, lineage
from driftline.evidence.lineage import Evidence
from driftline.schema.artifacts import ArtifactRecord, FileDigest, Manifest, Reference, TensorDigest
from driftline.schema.cells import CellRecord
from driftline.schema.values import Sealed
from driftline.schema.weights import ControlRecord, CounterfactualRecord
from driftline.store import digest, records
from driftline.store.digest import Difference
from driftline.verify import parts
from driftline.verify.hashes import plain_files
from driftline.verify.lock import Entry, Lock
from driftline.verify.locked import Here, probed
from driftline.verify.problems import LOCK, WORKSPACE, Audit, Problem

TOP = records.ARTIFACTS
MANIFESTS = ("prompts", "evalset", "grades", "drift")
SHOWN = 8
"""Files named per folder, readers named per input."""

Say = Callable[[str], None]
S = TypeVar("S", bound=Sealed)


@dataclass
class Walk:
    """One walk over the working tree.

    Args:
        evidence: what was recorded.
        doubted: evidence files, relative to `reports/lineage`, that are not what the index says:
            what they say is not held against anything.
        forged: whether the evidence as a whole is not what `dvc.lock` has.
        lock: what DVC recorded; `head` the same as committed, where it is.
        here: reads files.
        listing: md5 by path inside of what a folder's entry stands for; empty where unknown.
        audit: told how much was looked at.
        say: told of every folder.
    """

    evidence: Evidence
    doubted: Collection[str]
    forged: bool
    lock: Lock
    head: Lock | None
    here: Here
    listing: Callable[[Entry], Mapping[str, str]]
    audit: Audit
    say: Say
    found: dict[str, list[Difference]] = field(default_factory=dict)
    """What differs, by the out of a stage it lies in; paths are relative to the project."""
    expected: dict[str, tuple[FileDigest, ...]] = field(default_factory=dict)
    """What an out that a record describes has to be."""
    disowned: list[str] = field(default_factory=list)
    """Outs that are as their stages left them and not as forged evidence has them."""
    _records: dict[str, ArtifactRecord] = field(default_factory=dict)
    _why: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _stale: set[str] = field(default_factory=set)
    _lock_problems: list[Problem] = field(default_factory=list)

    @cached_property
    def _index(self) -> dict[str, FileDigest]:
        return {row.path: row for row in self.evidence.index.files}

    def run(self) -> None:
        """Check every artifact, cell and folder that is here; see `problems`."""
        for name in self._named(lineage.ARTIFACTS, lineage.RECORD):
            self._artifact(name)
        for name in self._named(lineage.CELLS, lineage.CELL):
            self._cell(name)
        if self.forged:
            self._disown()
        manifests = [found for path in _manifests() if (found := self._manifest(path))]
        for path in sorted((TOP / "controls").glob("*.json")):
            self._sealed(ControlRecord, path)
        for path in sorted((TOP / "counterfactuals").rglob(records.RECORD)):
            self._counterfactual(path)
        for entry in self.lock.outs.values():
            self._locked(entry)
        self._references(manifests)

    def problems(self) -> Iterator[Problem]:
        """One per out that differs, and one per entry of the lock file that does."""
        yield from self._lock_problems
        for out, changes in self.found.items():
            first, why = changes[0], self._why.get(out, ())
            path, what, lines = first.path, first.what, [first.detail] if first.detail else []
            if len(changes) > 1:
                path, lines = out, [_line(out, each) for each in changes[:SHOWN]]
                lines += [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
                what = what if {each.what for each in changes} == {what} else "changed"
            yield Problem(
                WORKSPACE,
                path,
                what,
                "\n".join((*lines, *why)),
                self.lock.maker(out),
                out=out,
                stale=out in self._stale,
            )

    # -------------------------------------------------------------- what the evidence is about

    def _named(self, kind: str, record: str) -> list[str]:
        """Artifacts or cells in the evidence, by name."""
        start, end = f"{kind}/", f"/{record}"
        return [
            path[len(start) : -len(end)]
            for path in self._index
            if path.startswith(start) and path.endswith(end)
        ]

    def _artifact(self, name: str) -> None:
        folder, home, place = TOP / name, records.RECORDS / name, f"{lineage.ARTIFACTS}/{name}"
        record = self._trusted(
            ArtifactRecord,
            self.evidence.artifacts.get(name),
            f"{place}/{lineage.RECORD}",
            home / records.RECORD,
        )
        if record is not None:
            self._records[name] = record
        rows = [
            *self._row(f"{place}/{lineage.RECORD}", records.RECORD),
            *self._row(f"{place}/{lineage.TENSORS}", records.TENSORS),
        ]
        if record is not None and record.environment_sha256:
            sha256 = record.environment_sha256
            rows += self._row(f"{lineage.ENVIRONMENTS}/{sha256}.json", records.ENVIRONMENT)
        if folder.exists() and not home.exists() and not home.is_symlink():
            self._note(home.as_posix(), Difference("missing", (home / records.RECORD).as_posix()))
        elif self._folder(home, rows, always=[row.path for row in rows]):
            self._explain_record(home / records.RECORD, record)
        if record is not None and self._folder(folder, record.files):
            said = parts.of_artifact(folder, record, self._tensors(name), self._rows(folder))
            self._why[folder.as_posix()] = tuple(said)

    def _cell(self, name: str) -> None:
        folder, place = TOP / lineage.CELLS / name, f"{lineage.CELLS}/{name}/{lineage.CELL}"
        record = self._trusted(
            CellRecord, self.evidence.cells.get(name), place, folder / records.CELL
        )
        if record is not None:
            rows = [*self._row(place, records.CELL), *record.outputs]
            if self._folder(folder, rows, always=[records.CELL]):
                self._explain_record(folder / records.CELL, record)

    def _row(self, path: str, name: str) -> Iterator[FileDigest]:
        """What a stage's own copy of an evidence file has to be."""
        row = self._index.get(path)
        if row is not None:
            yield row.model_copy(update={"path": name})

    def _trusted(self, kind: type[S], record: S | None, place: str, copy: Path) -> S | None:
        """A record as the evidence has it; where that is doubted, the copy its stage kept."""
        if record is not None and place not in self.doubted:
            return record
        wanted = [row.sha256 for row in self._row(place, "")]
        if copy.is_file() and self.here.hashes.sha256(copy) in wanted:
            return records.load_sealed(kind, copy)
        return None

    def _tensors(self, name: str) -> tuple[TensorDigest, ...]:
        try:
            return self.evidence.tensors(name)
        except (OSError, KeyError, ValidationError):
            return ()

    def _explain_record(self, path: Path, record: Sealed | None) -> None:
        """A changed record is an edited one: say what in it is other."""
        out = path.parent.as_posix()
        changes = self.found[out]
        for n, each in enumerate(changes):
            if each.path == path.as_posix() and each.what == "changed":
                changes[n] = Difference("edited", each.path, parts.of_record(path, record))

    def _disown(self) -> None:
        """Evidence that is not what its stage wrote blames nothing that DVC has as it is here."""
        for out in list(self.found):
            entry = self.lock.outs.get(out)
            if entry is not None and not self.here.differs(entry, deep=True):
                del self.found[out]
                self.disowned.append(out)

    # ---------------------------------------------------------- what carries its own manifest

    def _manifest(self, path: Path) -> Manifest | None:
        """The manifest of a folder that is what it says."""
        out = path.parent.as_posix()
        found = self._load(Manifest, path, out)
        if found is None:
            return None
        if f"{TOP}/{found.name}" != out:
            self._note(out, Difference("edited", path.as_posix(), f"that of {found.name}"))
            return None
        rows = [*found.files, *self._itself(path)]
        if self._folder(path.parent, rows):
            return None
        wanted = self.evidence.index.drift_identity
        if found.name == "drift" and digest.identity(found.files) != wanted:
            detail = "not the drift that reports/lineage is of"
            self._note(out, Difference("changed", out, detail))
            return None
        return found

    def _itself(self, path: Path) -> Iterator[FileDigest]:
        sha256 = self.here.hashes.sha256(path) if self.here.deep else ""
        yield FileDigest(path=path.name, size=path.stat().st_size, sha256=sha256)

    def _sealed(self, kind: type[S], path: Path) -> S | None:
        self.audit.count(WORKSPACE)
        return self._load(kind, path, self.lock.out_of(path.as_posix()) or path.parent.as_posix())

    def _load(self, kind: type[S], path: Path, out: str) -> S | None:
        if path.is_symlink():
            self._note(out, Difference("refused", path.as_posix(), "is a symlink"))
            return None
        try:
            return records.load_sealed(kind, path)
        except DriftlineError as error:
            what = "edited" if isinstance(error, RefusedError) else "missing"
            detail = error.message.removeprefix(f"{path}: ")
            self._note(out, Difference(what, path.as_posix(), detail))
            return None

    def _counterfactual(self, path: Path) -> None:
        out = path.parent.as_posix()
        found = self._sealed(CounterfactualRecord, path)
        if found is None:
            return
        made_of = {found.artifact: found.artifact_identity, found.parent: found.parent_identity}
        for name, identity in made_of.items():
            known = self._records.get(name)
            if known is not None and known.identity != identity and not self._broken(name):
                detail = f"made of {name} {identity[:12]}…, its record says {known.identity[:12]}…"
                self._note(out, Difference("broken", path.as_posix(), detail))
        if self.here.deep:
            self._distributions(path.parent, found)

    def _distributions(self, folder: Path, record: CounterfactualRecord) -> None:
        for kept in record.forced:
            home = folder / "distributions" / kept.text
            for name, wanted in (
                ("logits.npy", kept.logits_sha256),
                ("rows.npy", kept.rows_sha256),
            ):
                path = home / name
                if not path.is_file():
                    self._note(folder.as_posix(), Difference("missing", path.as_posix()))
                elif (sha256 := self.here.hashes.sha256(path)) != wanted:
                    detail = f"sha256 {wanted[:12]}… in the record, {sha256[:12]}… here"
                    self._note(folder.as_posix(), Difference("changed", path.as_posix(), detail))

    # ---------------------------------------------------------------------- one folder, one out

    def _folder(
        self, folder: Path, expected: Iterable[FileDigest], *, always: Collection[str] = ()
    ) -> bool:
        """Note every difference between a folder that is here and what it has to be.

        Returns:
            Whether there is any that is worth a closer look: not where a link was refused.
        """
        out, wanted = folder.as_posix(), tuple(expected)
        if not folder.exists() and not folder.is_symlink():
            return False
        self.say(out)
        self.audit.count(WORKSPACE)
        self.expected[out] = wanted
        if self._refused(out):
            return False
        found = self._rows(folder, always=None if self.here.deep else always)
        changes = list(compare(wanted, found))
        for each in changes:
            self._note(out, Difference(each.what, (folder / each.path).as_posix(), each.detail))
        return bool(changes)

    def _rows(self, folder: Path, *, always: Collection[str] | None = None) -> list[FileDigest]:
        """Files as they are; of a folder's files, all are hashed, or just those in `always`."""
        found = []
        for path in digest.regular_files(folder):
            name = path.relative_to(folder).as_posix()
            hashed = always is None or name in always
            sha256 = self.here.hashes.sha256(path) if hashed else ""
            found.append(FileDigest(path=name, size=path.stat().st_size, sha256=sha256))
        return found

    def _refused(self, out: str) -> bool:
        """Whether something in an out, or it itself, is no plain file or folder."""
        try:
            digest.regular_files(Path(out))
        except RefusedError as error:
            path, _, detail = error.message.partition(": ")
            self._note(out, Difference("refused", path, detail))
            return True
        return False

    def _locked(self, entry: Entry) -> None:
        """An out as `dvc.lock` has it: size and number of files, with `deep` its md5."""
        out = entry.path
        if out in (*self.found, *self.disowned, history.FOLDER.as_posix()):
            return
        if not Path(out).exists() and not Path(out).is_symlink():
            return
        self.audit.count(LOCK)
        if self._refused(out):
            return
        detail = self.here.differs(entry)
        if detail and self._lock_is_wrong(entry):
            self._lock_problems.append(Problem(LOCK, out, "changed", detail, entry.stage, out=out))
        elif detail:
            for each in self._against(entry) or [Difference("changed", out, detail)]:
                self._note(out, each)

    def _against(self, entry: Entry) -> list[Difference]:
        """Files that are not as DVC's cache lists them for a folder, as far as it does."""
        listed = self.listing(entry)
        if not listed:
            return []
        top = Path(entry.path)
        files = {each.relative_to(top).as_posix(): each for each in plain_files(top)}
        wanted = [FileDigest(path=path, size=0, sha256=md5) for path, md5 in listed.items()]
        found = [
            FileDigest(path=path, size=0, sha256=self.here.hashes.md5(each))
            for path, each in files.items()
        ]
        return [
            Difference(
                each.what, (top / each.path).as_posix(), each.detail.replace("sha256", "md5")
            )
            for each in compare(wanted, found)
        ]

    def _lock_is_wrong(self, entry: Entry) -> bool:
        """Whether an out that is not as the lock file has it is all the same as it should be."""
        committed = self.head.outs.get(entry.path) if self.head else None
        recorded = entry.path in self.expected and entry.path not in _manifest_folders()
        if committed is None or committed.content == entry.content:
            return recorded
        return recorded or not self.here.differs(committed)

    # --------------------------------------------------------------------------- what read what

    def _references(self, manifests: Iterable[Manifest]) -> None:
        """What was read has to be what lies here; what is known to differ is left out."""
        read = [(found.name, found.inputs) for found in manifests]
        for name, cell in self.evidence.cells.items():
            if f"{lineage.CELLS}/{name}/{lineage.CELL}" not in self.doubted:
                read.append((f"{lineage.CELLS}/{name}", cell.inputs))
        readers: dict[Reference, list[str]] = {}
        for reader, inputs in read:
            for each in inputs:
                if not self._broken(each.name) and not self._broken(reader):
                    readers.setdefault(each, []).append(reader)
        listed = {
            f"{found.name}/{row.path}": row.sha256 for found in manifests for row in found.files
        }
        for wanted, names in readers.items():
            self._reference(wanted, names, listed.get(wanted.name, ""))

    def _reference(self, wanted: Reference, readers: list[str], listed: str) -> None:
        """What was read against what is here; `listed` is what the manifest beside it says."""
        try:
            found = records.current(wanted.name)
        except DriftlineError:
            return  # an input that is not here cannot contradict
        if found == wanted.identity:
            return
        path = f"{TOP}/{wanted.name}"
        out = self.lock.out_of(path) or path
        if listed == wanted.identity:
            detail = f"sha256 {listed[:12]}… recorded, {found[:12]}… here"
            self._note(out, Difference("changed", path, detail))
            return
        more = f" and {len(readers) - SHOWN} more" if len(readers) > SHOWN else ""
        detail = (
            f"{', '.join(readers[:SHOWN])}{more}: made from {wanted.identity[:12]}…, here it is "
            f"{found[:12]}…"
        )
        self._stale.add(out)
        self._note(out, Difference("broken", path, detail))

    def _broken(self, name: str) -> bool:
        """Whether something under `artifacts/` is known to differ, in itself or in its record."""
        path = f"{TOP}/{name}"
        outs = {path, f"{records.RECORDS}/{name}", self.lock.out_of(path)}
        return bool(outs & (self.found.keys() | set(self.disowned)))

    def _note(self, out: str, change: Difference) -> None:
        self.found.setdefault(out, []).append(change)


def compare(expected: Iterable[FileDigest], found: Iterable[FileDigest]) -> Iterator[Difference]:
    """What is extra, missing and changed; a file without a sha256 is compared by its size."""
    recorded, actual = ({row.path: row for row in rows} for rows in (expected, found))
    for path in sorted(actual.keys() - recorded.keys()):
        yield Difference("extra", path)
    for path in sorted(recorded.keys() - actual.keys()):
        yield Difference("missing", path)
    for path in sorted(recorded.keys() & actual.keys()):
        before, after = recorded[path], actual[path]
        if before.size != after.size:
            yield Difference("changed", path, f"{before.size} bytes recorded, {after.size} here")
        elif after.sha256 and before.sha256 != after.sha256:
            detail = f"sha256 {before.sha256[:12]}… recorded, {after.sha256[:12]}… here"
            yield Difference("changed", path, detail)


def absent(lock: Lock) -> tuple[int, int]:
    """How many of the outs that stages made are not here, and how many there are."""
    made = [path for path, entry in lock.outs.items() if not probed(entry)]
    return sum(not Path(path).exists() for path in made), len(made)


def _line(out: str, change: Difference) -> str:
    inside = change.path.removeprefix(f"{out}/")
    return f"{change.what:8} {inside}" + (f": {change.detail}" if change.detail else "")


def _manifests() -> list[Path]:
    return [Path(folder) / records.MANIFEST for folder in _manifest_folders()]


def _manifest_folders() -> list[str]:
    named = [TOP / name for name in MANIFESTS]
    named += sorted((TOP / "texts").glob("*"))
    return [folder.as_posix() for folder in named if folder.is_dir()]
