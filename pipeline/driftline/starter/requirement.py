"""How a project names driftline for pip: as pip itself noted where it was installed from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from driftline import __version__

NAME = "driftline[llamacpp,mlx]"
NOTE_FILE = "direct_url.json"
"""What pip writes about an installation that no index gave (PEP 610)."""


@dataclass(frozen=True)
class Requirement:
    """A line of requirements.txt; `local` if the installation came from a path, which no other
    machine has, so that the line names a version alone."""

    line: str
    local: bool = False


def requirement(direct_url: str | None, version: str) -> Requirement:
    """The line for an installation.

    Args:
        direct_url: the text of its direct_url.json; None if an index gave it.
        version: of driftline.
    """
    origin: dict[str, Any] = json.loads(direct_url) if direct_url else {}
    url = str(origin.get("url", ""))
    by_version = f"{NAME}=={version}"
    if not url:
        return Requirement(by_version)
    if url.startswith("file:"):
        return Requirement(by_version, local=True)
    folder = origin.get("subdirectory")
    inside = [f"subdirectory={folder}"] if folder else []
    if vcs := origin.get("vcs_info"):
        pinned = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        return Requirement(f"{NAME} @ {pinned}{_fragment(inside)}")
    hashes = origin.get("archive_info", {}).get("hashes", {})
    digests = [f"sha256={hashes['sha256']}"] if "sha256" in hashes else []
    return Requirement(f"{NAME} @ {url}{_fragment([*digests, *inside])}")


def _fragment(parts: list[str]) -> str:
    return f"#{'&'.join(parts)}" if parts else ""


def installed() -> Requirement:
    """The line for the driftline that is running."""
    try:
        note = distribution("driftline").read_text(NOTE_FILE)
    except PackageNotFoundError:
        return Requirement(f"{NAME}=={__version__}", local=True)
    return requirement(note, __version__)
