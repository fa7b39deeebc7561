"""Evidence in the working tree, or at any git revision or release of it."""

from __future__ import annotations

import os
import subprocess
from functools import cached_property
from pathlib import Path

from driftline.errors import InputError, RefusedError, ToolError
from driftline.evidence import lineage
from driftline.evidence.lineage import Evidence
from driftline.schema.release import ReleaseRecord
from driftline.store import records

FOLDER = Path("reports") / "lineage"
RELEASES = Path("reports") / "releases"
HERE = "the working tree"


class FolderTree:
    """Evidence files in a folder of the working tree."""

    def __init__(self, folder: Path = FOLDER, where: str = HERE) -> None:
        """Look at `folder`; `where` is what messages call it."""
        self._folder, self.where = folder, where

    def paths(self) -> tuple[str, ...]:
        """Every file, sorted."""
        return self._paths

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        top = os.fspath(self._folder)
        files = (
            f"{folder}{os.sep}{name}"[len(top) + 1 :]
            for folder, _, names in os.walk(top)
            for name in names
        )
        return tuple(sorted(path.replace(os.sep, "/") for path in files))

    def read(self, path: str) -> bytes:
        """One file's bytes.

        Raises:
            RefusedError: it is a symlink.
        """
        file = self._folder / path
        if file.is_symlink():
            raise RefusedError(
                f"{file}: is a symlink; evidence is made of plain files only",
                remedy=lineage.REMEDY,
            )
        return file.read_bytes()


class GitTree:
    """Evidence files at a commit, read from git's objects: nothing is checked out."""

    def __init__(self, commit: str, where: str) -> None:
        """Look at the 40-hex `commit`; `where` is what messages call it."""
        self.commit, self.where = commit, where

    @cached_property
    def _blobs(self) -> dict[str, str]:
        listed = git("ls-tree", "-r", "-z", self.commit, "--", f"{FOLDER.as_posix()}/")
        blobs = {}
        for line in listed.split("\0"):
            if line:
                facts, _, path = line.partition("\t")
                blobs[path.removeprefix(f"{FOLDER.as_posix()}/")] = facts.split()[2]
        return blobs

    @cached_property
    def _batch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def paths(self) -> tuple[str, ...]:
        """Every file, sorted."""
        return tuple(sorted(self._blobs))

    def read(self, path: str) -> bytes:
        """One file's bytes."""
        pipe = self._batch
        if pipe.stdin is None or pipe.stdout is None:
            raise ValueError("git cat-file was started without pipes")
        pipe.stdin.write(f"{self._blobs[path]}\n".encode())
        pipe.stdin.flush()
        header = pipe.stdout.readline().split()
        if len(header) != 3:
            raise ToolError(
                f"{self.where}: git has no object for {FOLDER / path}",
                remedy="git fetch   (git fsck says what is missing)",
            )
        size = int(header[2])
        data = pipe.stdout.read(size)
        pipe.stdout.read(1)
        return data


def at(name: str | None) -> Evidence:
    """Evidence of a release or git revision; of the working tree for None.

    Raises:
        InputError: there is no such release or revision.
        RefusedError: there is no evidence there, or it was edited.
    """
    if name is None:
        return lineage.read(FolderTree())
    return lineage.read(GitTree(commit_of(name), name))


def commit_of(name: str) -> str:
    """The 40-hex commit of a release (`reports/releases/<name>.json`) or git revision.

    Raises:
        InputError: there is neither.
        RefusedError: the release's record was edited, or is another one's.
    """
    release = RELEASES / f"{name}.json"
    wanted = _released(release, name) if release.is_file() else name
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{wanted}^{{commit}}")
    except ToolError:
        known = ", ".join(sorted(path.stem for path in RELEASES.glob("*.json"))) or "none yet"
        raise InputError(
            f'"{name}" is neither a release nor a git revision here (releases: {known})',
            remedy="git fetch --unshallow --tags, if it is a commit this clone does not have",
        ) from None


def _released(path: Path, name: str) -> str:
    remedy = f"git checkout {path}"
    try:
        record = records.load_sealed(ReleaseRecord, path)
    except RefusedError as error:
        raise RefusedError(error.message, remedy=remedy) from None
    if record.name != name:
        raise RefusedError(f"{path}: is the record of release {record.name}", remedy=remedy)
    return record.commit


def git(*arguments: str, folder: Path | None = None) -> str:
    """What git prints, without the newline at its end.

    Raises:
        ToolError: git failed; its message is shown.
    """
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
    if done.returncode:
        raise ToolError(
            f"git {arguments[0]} failed: {done.stderr.strip() or 'no message'}",
            remedy="run it in a git repository that has this revision",
        )
    return done.stdout.rstrip("\n")
