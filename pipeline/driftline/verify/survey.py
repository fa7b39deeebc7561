"""What lies in the working tree: names and sizes always, bytes on request, no file read twice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from driftline.errors import RefusedError
from driftline.schema.artifacts import FileDigest
from driftline.store import digest
from driftline.store.digest import Difference
from driftline.verify.hashes import Hashes, plain_files
from driftline.verify.lock import LockedPath


@dataclass(frozen=True)
class Actual:
    """A folder as it lies here; a file that was not read has no sha256.

    `refused` where something in it, or it itself, is no plain file or folder: then nothing is read.
    """

    files: tuple[FileDigest, ...] = ()
    refused: Difference | None = None


@dataclass(frozen=True)
class WorkingTree:
    """What lies at paths relative to the project; with `deep` its bytes are read."""

    hashes: Hashes
    deep: bool

    def look(self, path: str, always: Collection[str] = ()) -> Actual:
        """A folder with all its files; those named in `always` are read without `deep` too."""
        try:
            return Actual(self.files(path, only=None if self.deep else always))
        except RefusedError as error:
            return Actual(refused=_refusal(error))

    def files(self, folder: str, *, only: Collection[str] | None = None) -> tuple[FileDigest, ...]:
        """Every file of a folder, and the sha256 of each, or of those named in `only`."""
        top = Path(folder)
        names = (path.relative_to(top).as_posix() for path in digest.regular_files(top))
        return tuple(self.file(top, name, read=only is None or name in only) for name in names)

    def file(self, folder: Path, name: str, *, read: bool) -> FileDigest:
        """One file of a folder, with its sha256 if it is to be `read`."""
        path = folder / name
        sha256 = self.hashes.sha256(path) if read else ""
        return FileDigest(path=name, size=path.stat().st_size, sha256=sha256)

    def refused(self, path: str) -> Difference | None:
        """What at `path`, or under it, is neither a plain file nor a folder; None for nothing."""
        try:
            digest.regular_files(Path(path))
        except RefusedError as error:
            return _refusal(error)
        return None

    def differs(self, locked: LockedPath, *, deep: bool | None = None) -> str:
        """What is other than `dvc.lock` says; empty where that agrees, or nothing is here."""
        path = Path(locked.path)
        if not path.exists():
            return ""
        files = plain_files(path)
        size, count = sum(each.stat().st_size for each in files), len(files)
        expected = locked.nfiles if locked.is_folder else 1
        if size != locked.size or count != expected:
            return (
                f"{expected} files of {locked.size} bytes in dvc.lock, {count} of {size} in the "
                "workspace"
            )
        if self.deep if deep is None else deep:
            md5 = self.hashes.oid(path)
            if md5 != locked.md5:
                return f"md5 {locked.md5} in dvc.lock, {md5} in the workspace"
        return ""


def _refusal(error: RefusedError) -> Difference:
    path, _, detail = error.message.partition(": ")
    return Difference("refused", path, detail)


def is_here(path: str) -> bool:
    """Whether anything lies at `path`, be it a link that leads nowhere."""
    return Path(path).exists() or Path(path).is_symlink()
