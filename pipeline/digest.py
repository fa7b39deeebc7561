"""Identity of a tree of files, recomputable with coreutils.

`identity` is the in-toto `dirHash`: the sha256 of the lines `<sha256>  <path>` sorted by path. In a
folder whose file names have no newline, this prints it too:

    find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum

Source: https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md (dirHash1 is the same
sum in base64).
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from pathlib import Path

from pipeline.errors import RefusedError
from pipeline.schema.artifacts import FileDigest


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal; memory is bounded."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """sha256 of UTF-8 text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def rows(folder: Path) -> tuple[FileDigest, ...]:
    """One row per file under `folder`, sorted by path as bytes.

    Raises:
        RefusedError: a symlink, device, socket or pipe is among them, or there is no file at all.
    """
    found = []
    for path in regular_files(folder):
        found.append(
            FileDigest(
                path=path.relative_to(folder).as_posix(),
                size=path.stat().st_size,
                sha256=sha256_file(path),
            )
        )
    if not found:
        raise RefusedError(
            f"{folder}: no file in it", remedy="point at a folder that holds a checkpoint"
        )
    return tuple(sorted(found, key=lambda row: row.path.encode()))


def regular_files(folder: Path) -> list[Path]:
    """Every file under `folder`.

    Raises:
        RefusedError: something in it is neither a plain file nor a folder.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            found.append(path)
        elif not stat.S_ISDIR(mode):
            what = "a symlink" if stat.S_ISLNK(mode) else "not a plain file"
            raise RefusedError(
                f"{path}: is {what}; an artifact is made of plain files only",
                remedy=f"replace it by the file itself (cp -L) or remove it from {folder}",
            )
    return found


def identity(files: Iterable[FileDigest]) -> str:
    """dirHash of rows, in hexadecimal. Law: it depends on paths and bytes alone, not on order."""
    ordered = sorted(files, key=lambda row: row.path.encode())
    return sha256_text("".join(f"{row.sha256}  {row.path}\n" for row in ordered))


def verify(folder: Path, expected: Iterable[FileDigest], *, remedy: str) -> str:
    """Check `folder` against its record and return its identity.

    Raises:
        RefusedError: files are extra, missing or changed; each is named.
    """
    recorded = {row.path: row for row in expected}
    found = {row.path: row for row in rows(folder)}
    lines = [f"extra    {path}" for path in sorted(found.keys() - recorded.keys())]
    lines += [f"missing  {path}" for path in sorted(recorded.keys() - found.keys())]
    for path in sorted(recorded.keys() & found.keys()):
        if found[path] != recorded[path]:
            lines.append(
                f"changed  {path}: sha256 {recorded[path].sha256[:12]}… in the record, "
                f"{found[path].sha256[:12]}… on disk"
            )
    if lines:
        shown = "\n  ".join(lines[:20])
        raise RefusedError(f"{folder} is not what its record says:\n  {shown}", remedy=remedy)
    return identity(found.values())
