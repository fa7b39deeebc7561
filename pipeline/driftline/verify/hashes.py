"""sha256 and md5 of a file in one read, never twice: records speak sha256, DVC speaks md5."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20


class Hashes:
    """Digests of files read so far."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._known: dict[Path, tuple[str, str]] = {}

    def sha256(self, path: Path) -> str:
        """In hexadecimal."""
        return self._of(path)[0]

    def md5(self, path: Path) -> str:
        """In hexadecimal: DVC's key of the file, no evidence of anything."""
        return self._of(path)[1]

    def oid(self, path: Path) -> str:
        """DVC's key of what lies at `path`, a file or a folder; symlinks in it are left out."""
        return self.md5(path) if path.is_file() else folder_md5(self.listing(path))

    def listing(self, folder: Path) -> dict[str, str]:
        """md5 of every plain file in a folder, by path in it."""
        return {each.relative_to(folder).as_posix(): self.md5(each) for each in plain_files(folder)}

    def _of(self, path: Path) -> tuple[str, str]:
        if path not in self._known:
            sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    sha256.update(chunk)
                    md5.update(chunk)
            self._known[path] = sha256.hexdigest(), md5.hexdigest()
        return self._known[path]


def plain_files(path: Path) -> list[Path]:
    """Every plain file under `path`, or `path` itself if it is one, sorted."""
    return [each for each in (path, *sorted(path.rglob("*"))) if stat.S_ISREG(each.lstat().st_mode)]


def md5_of(file: BinaryIO) -> str:
    """md5 of a stream, in hexadecimal."""
    md5 = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(CHUNK):
        md5.update(chunk)
    return md5.hexdigest()


def folder_md5(files: Mapping[str, str]) -> str:
    """DVC's key of a folder from the md5 of each file by relative path: that of its `.dir` object.

    Source: dvc-data, hashfile/tree.py (`Tree.as_bytes`).
    """
    listed = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
    text = json.dumps(listed, sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"
