"""What a local source or adapter folder holds, without hashing an unchanged file twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driftline.files import write_text
from driftline.project.sections.location import Location
from driftline.store import digest

SEEN = Path(".driftline/hashes.json")
"""Local and disposable: sha256 by path, size, time of change and inode."""


def sha256(path: Path) -> str | None:
    """sha256 of a file; None when there is none (whoever reads it complains)."""
    return digest.sha256_file(path) if path.is_file() else None


def fingerprint(location: Location) -> dict[str, Any]:
    """The location as written and, for a local folder, the sha256 of each file in it.

    A folder that does not exist has no files; `pin` is the one that complains.
    """
    if location.path is None:
        return location.model_dump(mode="json", exclude_none=True)
    seen: dict[str, str] = json.loads(SEEN.read_text()) if SEEN.exists() else {}
    before, files = dict(seen), {}
    folder = Path(location.path)
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            status = path.stat()
            key = f"{path}:{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
            files[inside.as_posix()] = seen.setdefault(key, "") or digest.sha256_file(path)
            seen[key] = files[inside.as_posix()]
    if seen != before:
        write_text(SEEN, json.dumps(seen, sort_keys=True, indent=1))
    return {"path": location.path, "files": files}
