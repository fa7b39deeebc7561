"""Identity of a tree of files, recomputable with coreutils.

`identity` is the in-toto `dirHash`: the sha256 of the lines `<sha256>  <path>` sorted by path. In a
folder whose file names have no newline and no backslash, this prints it too:

    find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs -d '\\n' sha256sum -- | sha256sum

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md (dirHash1 is the same
sum in base64).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from driftline.errors import RefusedError
from driftline.schema.artifacts import FileDigest

T = TypeVar("T")


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal; memory is bounded."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """sha256 of UTF-8 text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def rows(folder: Path, *, but: Iterable[str] = ()) -> tuple[FileDigest, ...]:
    """One row per file under `folder`, sorted by path as bytes.

    Args:
        folder: any folder.
        but: files and folders in it to leave out, relative to it.

    Raises:
        RefusedError: a symlink, device, socket or pipe is among them, or there is no file at all.
    """
    left_out = tuple(but)
    digests = []
    for path in regular_files(folder):
        name = path.relative_to(folder).as_posix()
        if not any(name == each or name.startswith(f"{each}/") for each in left_out):
            size = path.stat().st_size
            digests.append(FileDigest(path=name, size=size, sha256=sha256_file(path)))
    if not digests:
        raise RefusedError(
            f"{folder}: no file in it", remedy="point at a folder that holds a checkpoint"
        )
    return tuple(sorted(digests, key=lambda row: row.path.encode()))


def regular_files(folder: Path) -> list[Path]:
    """Every file under `folder`.

    Raises:
        RefusedError: something in it, or it itself, is neither a plain file nor a folder.
    """
    files = []
    for path in (folder, *sorted(folder.rglob("*"))):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISREG(mode):
            files.append(path)
        elif not stat.S_ISDIR(mode):
            what = "a symlink" if stat.S_ISLNK(mode) else "not a plain file"
            raise RefusedError(
                f"{path}: is {what}; an artifact is made of plain files only",
                remedy=f"replace it by the file itself (cp -L) or remove it from {folder}",
            )
    return files


def identity(files: Iterable[FileDigest]) -> str:
    """dirHash of rows, in hexadecimal. Law: it depends on paths and bytes alone, not on order."""
    ordered = sorted(files, key=lambda row: row.path.encode())
    return sha256_text("".join(f"{row.sha256}  {row.path}\n" for row in ordered))


def verify(
    folder: Path, expected: Iterable[FileDigest], *, remedy: str, but: tuple[str, ...] = ()
) -> str:
    """Check `folder` against its record and return its identity.

    Args:
        folder: what is recorded.
        expected: its files as recorded.
        remedy: what to do when they differ.
        but: files and folders in it that are neither looked at nor expected.

    Raises:
        RefusedError: files are extra, missing or changed; each is named.
    """
    wanted = [row for row in expected if not row.path.startswith(tuple(f"{b}/" for b in but))]
    present = rows(folder, but=but)
    lines = [change.line for change in differences(wanted, present)]
    if lines:
        shown = "\n  ".join(lines[:20])
        raise RefusedError(f"{folder} is not what its record says:\n  {shown}", remedy=remedy)
    return identity(present)


@dataclass(frozen=True)
class Difference:
    """One file that is not what it should be.

    `what` is extra, missing or changed; of a record also edited, broken or refused.
    """

    what: str
    path: str
    detail: str = ""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.what:8} {self.path}" + (f": {self.detail}" if self.detail else "")


def other_sha256(recorded: FileDigest, actual: FileDigest) -> str:
    """In words, how the bytes of a file are not those recorded; empty where they are."""
    if recorded.sha256 == actual.sha256:
        return ""
    return f"sha256 {recorded.sha256[:12]}… in the record, {actual.sha256[:12]}… on disk"


def differences(
    expected: Iterable[FileDigest],
    found: Iterable[FileDigest],
    other: Callable[[FileDigest, FileDigest], str] = other_sha256,
) -> tuple[Difference, ...]:
    """What is extra, missing and changed among files, each sorted by path; see `changes`."""
    recorded, actual = ({row.path: row for row in rows} for rows in (expected, found))
    return changes(recorded, actual, other)


def changes(
    recorded: Mapping[str, T], actual: Mapping[str, T], other: Callable[[T, T], str]
) -> tuple[Difference, ...]:
    """What is extra, missing and changed, each sorted by path.

    Args:
        recorded: what should be there, by path.
        actual: what is there.
        other: in words, how the second of two is not the first; empty where it is.
    """
    both = sorted(recorded.keys() & actual.keys())
    details = {path: other(recorded[path], actual[path]) for path in both}
    return (
        *(Difference("extra", path) for path in sorted(actual.keys() - recorded.keys())),
        *(Difference("missing", path) for path in sorted(recorded.keys() - actual.keys())),
        *(Difference("changed", path, detail) for path, detail in details.items() if detail),
    )
