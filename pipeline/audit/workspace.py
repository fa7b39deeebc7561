"""The working tree held against its records: names and sizes always, bytes on request."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline import facts, records
from pipeline.audit.hashes import Hashes, folder_md5
from pipeline.audit.lock import Entry, Lock
from pipeline.audit.problems import Audit, Problem
from pipeline.digest import Difference, differences, regular_files
from pipeline.errors import DriftlineError, RefusedError
from pipeline.lineage import evidence as lineage
from pipeline.lineage.evidence import Evidence
from pipeline.schema.artifacts import ArtifactRecord, FileDigest, Manifest, TensorDigest
from pipeline.schema.values import Sealed
from pipeline.schema.weights import ControlRecord, CounterfactualRecord

PLACE = "workspace"
TOP = records.ARTIFACTS
MANIFESTS = ("prompts", "evalset", "grades", "drift")
SHOWN = 5
"""Tensors and fields named per artifact."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Walk:
    """One walk over the working tree: what is found goes into `audit`."""

    evidence: Evidence
    lock: Lock
    audit: Audit
    hashes: Hashes
    deep: bool
    say: Say

    def run(self) -> None:
        """Check every artifact, cell and folder that is here."""
        digests = {row.path: row.sha256 for row in self.evidence.index.files}
        for name, artifact in self.evidence.artifacts.items():
            self._record_files(records.RECORDS / name, f"{lineage.ARTIFACTS}/{name}", digests)
            self._folder(TOP / name, artifact.files, artifact=artifact)
        for name, cell in self.evidence.cells.items():
            folder = TOP / lineage.CELLS / name
            self._record_files(folder, f"{lineage.CELLS}/{name}", digests, names=(records.CELL,))
            self._folder(folder, cell.outputs, but=records.CELL)
        for path in _manifests():
            self._manifest(path)
        for kind, path in _sealed():
            self._sealed(kind, path)
        for entry in self.lock.outs.values():
            self._locked(entry)

    # ------------------------------------------------------------------------- one object each

    def _record_files(
        self,
        folder: Path,
        place: str,
        digests: Mapping[str, str],
        names: tuple[str, ...] = (records.RECORD, records.TENSORS),
    ) -> None:
        """The stage's own copy of a record must be the one that is evidence in git."""
        for name in names:
            path, wanted = folder / name, digests.get(f"{place}/{name}")
            if wanted is None or not path.is_file():
                continue
            self.audit.count(PLACE)
            if self.hashes.sha256(path) != wanted:
                detail = f"not the one in reports/lineage/{place} ({wanted[:12]}…)"
                self._problem(path, "edited", detail)

    def _folder(
        self,
        folder: Path,
        expected: Iterable[FileDigest],
        *,
        but: str = "",
        artifact: ArtifactRecord | None = None,
    ) -> None:
        if not folder.exists() and not folder.is_symlink():
            self.audit.count("not in the workspace")
            return
        self.say(str(folder))
        self.audit.count(PLACE)
        try:
            found = self._rows(folder, but)
        except RefusedError as error:
            self._problem(folder, "refused", error.message)
            return
        wanted = list(expected)
        changes = differences(wanted, found) if self.deep else _by_size(wanted, found)
        why = self._why(folder, artifact, found) if changes and artifact and self.deep else ""
        for change in changes:
            detail = f"{change.detail.removeprefix(': ')}{why}"
            self._problem(folder / change.path, change.what, detail)

    def _rows(self, folder: Path, but: str = "") -> list[FileDigest]:
        """Files as they are; without `deep` their sha256 is left empty."""
        found = []
        for path in regular_files(folder):
            name = path.relative_to(folder).as_posix()
            if name != but:
                sha256 = self.hashes.sha256(path) if self.deep else ""
                found.append(FileDigest(path=name, size=path.stat().st_size, sha256=sha256))
        return found

    def _why(self, folder: Path, record: ArtifactRecord, rows: Iterable[FileDigest]) -> str:
        """Which parts of an artifact are others: tensors, fields of metadata, or both."""
        try:
            own, tensors = facts.of_artifact(folder, sorted(rows, key=lambda row: row.path))
        except DriftlineError as error:
            return f"\n         {error.message}"
        before = {tensor.name: tensor for tensor in self._tensors(record.name)}
        return "".join(
            f"\n         {line}" for line in _parts(record, own.metadata, before, tensors)
        )

    def _tensors(self, name: str) -> tuple[TensorDigest, ...]:
        try:
            return self.evidence.tensors(name)
        except (OSError, KeyError, ValidationError):
            return ()

    def _manifest(self, path: Path) -> None:
        name = path.parent.relative_to(TOP).as_posix()
        try:
            found = records.load_sealed(Manifest, path)
        except DriftlineError as error:
            self.audit.count(PLACE)
            self._problem(path, "edited", error.message)
            return
        if found.name != name:
            self._problem(path, "changed", f"is the manifest of {found.name}")
        self._folder(path.parent, found.files, but=records.MANIFEST)
        for reference in found.inputs:
            try:
                records.check_input(name, reference)
            except RefusedError as error:
                self._problem(path.parent, "broken", error.message)
            except DriftlineError:
                continue  # an input that is not here cannot contradict

    def _sealed(self, kind: type[Sealed], path: Path) -> None:
        self.audit.count(PLACE)
        try:
            found = records.load_sealed(kind, path)
        except DriftlineError as error:
            self._problem(path, "edited", error.message)
            return
        if isinstance(found, CounterfactualRecord):
            known = self.evidence.artifacts.get(found.artifact)
            if known is not None and known.identity != found.artifact_identity:
                detail = (
                    f"made of {found.artifact} {found.artifact_identity[:12]}…, whose record says "
                    f"{known.identity[:12]}…"
                )
                self._problem(path, "broken", detail)
            if self.deep:
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
                    self._problem(path, "missing", "")
                elif self.hashes.sha256(path) != wanted:
                    self._problem(path, "changed", f"sha256 {wanted[:12]}… in the record")

    def _locked(self, entry: Entry) -> None:
        """An out as `dvc.lock` has it: size and number of files, with `deep` its md5."""
        path = Path(entry.path)
        if not path.exists() or path.is_symlink():
            return
        self.audit.count("dvc.lock")
        files = [path] if path.is_file() else _plain(path)
        size, count = sum(each.stat().st_size for each in files), len(files)
        if size != entry.size or (entry.is_folder and count != entry.nfiles):
            self._lock_problem(
                entry,
                f"{entry.nfiles or 1} files of {entry.size} bytes in dvc.lock, "
                f"{count} of {size} in the workspace",
            )
        elif self.deep:
            found = self._md5(path, files)
            if found != entry.md5:
                self._lock_problem(entry, f"md5 {entry.md5} in dvc.lock, {found} in the workspace")

    def _md5(self, path: Path, files: Iterable[Path]) -> str:
        if path.is_file():
            return self.hashes.md5(path)
        return folder_md5(
            {each.relative_to(path).as_posix(): self.hashes.md5(each) for each in files}
        )

    def _lock_problem(self, entry: Entry, detail: str) -> None:
        self.audit.problems.append(
            Problem(
                "dvc.lock",
                entry.path,
                "changed",
                detail,
                entry.stage,
                f"git checkout dvc.lock   (or: {self.lock.remake(entry.path)})",
            )
        )

    def _problem(self, path: Path, what: str, detail: str) -> None:
        name = path.as_posix()
        made = Problem(
            PLACE, name, what, detail, self.lock.maker(name), self.lock.remake(self._out(name))
        )
        self.audit.problems.append(made)

    def _out(self, path: str) -> str:
        """The out of a stage that `path` is or lies in."""
        parts = path.split("/")
        for length in range(len(parts), 0, -1):
            if "/".join(parts[:length]) in self.lock.outs:
                return "/".join(parts[:length])
        return path


def _by_size(expected: Iterable[FileDigest], found: Iterable[FileDigest]) -> list[Difference]:
    """Differences that need no byte read: names and sizes."""
    recorded = {row.path: row.size for row in expected}
    actual = {row.path: row.size for row in found}
    listed = [Difference("extra", path) for path in sorted(actual.keys() - recorded.keys())]
    listed += [Difference("missing", path) for path in sorted(recorded.keys() - actual.keys())]
    return listed + [
        Difference("changed", path, f": {recorded[path]} bytes in the record, {actual[path]} here")
        for path in sorted(recorded.keys() & actual.keys())
        if recorded[path] != actual[path]
    ]


def _parts(
    record: ArtifactRecord,
    metadata: Mapping[str, str],
    before: Mapping[str, TensorDigest],
    tensors: Iterable[TensorDigest],
) -> Iterator[str]:
    after = {tensor.name: tensor for tensor in tensors}
    touched = sorted(
        name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    )
    said = record.facts.metadata if record.facts else {}
    fields = sorted(
        name for name in said.keys() | metadata.keys() if said.get(name) != metadata.get(name)
    )
    if touched:
        yield f"weights: {len(touched)} of {len(before)} tensors are others: {_some(touched)}"
    else:
        yield f"weights: all {len(before)} tensors are as recorded"
    for part in ("template", "tokenizer", "config"):
        own = [name for name in fields if facts.part_of(name) == part]
        if own:
            shown = ", ".join(f"{n} {said.get(n)} → {metadata.get(n)}" for n in own[:SHOWN])
            yield f"{part}: {shown}"
    if not fields:
        yield "metadata: as recorded"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _manifests() -> list[Path]:
    named = [TOP / name for name in MANIFESTS]
    named += sorted((TOP / "texts").glob("*"))
    return [folder / records.MANIFEST for folder in named if folder.is_dir()]


def _sealed() -> Iterator[tuple[type[Sealed], Path]]:
    for path in sorted((TOP / "controls").glob("*.json")):
        yield ControlRecord, path
    for path in sorted((TOP / "counterfactuals").rglob(records.RECORD)):
        yield CounterfactualRecord, path


def _plain(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if stat.S_ISREG(path.lstat().st_mode)]
