"""Writing a planned project: all of it, or, where something is in the way, nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from driftline.errors import InputError

PACKAGE = ("driftline.py", "driftline/__init__.py")
"""`python -m driftline.…` in the project's folder would take these for driftline's own package."""


def check_place(top: Path) -> None:
    """Refuse a folder that no project can be in.

    Raises:
        InputError: it is not the top of a git repository, or has a Python package `driftline`.
    """
    if not (top / ".git").exists():
        above = next((folder for folder in top.parents if (folder / ".git").exists()), None)
        raise InputError(
            "this folder is not the top of a git repository"
            + (f"; {above} is" if above else "; evidence is kept in git"),
            remedy=f"cd {above}, or git init here" if above else "git init",
        )
    for name in PACKAGE:
        if (top / name).exists():
            raise InputError(
                f"{name}: a Python package `driftline` here would be run instead of driftline's",
                remedy="rename it, or make a repository of its own for the evaluation",
            )


def in_the_way(files: Mapping[str, bytes], top: Path) -> list[str]:
    """What is there already and is not what would be written: other content, a link, a folder."""
    return sorted(
        {obstacle for name, data in files.items() if (obstacle := _obstacle(name, data, top))}
    )


def _obstacle(name: str, data: bytes, top: Path) -> str | None:
    path = top / name
    for folder in reversed(path.relative_to(top).parents[:-1]):
        here = top / folder
        if here.is_symlink() or (here.exists() and not here.is_dir()):
            return folder.as_posix()
    if path.is_symlink() or path.is_dir():
        return name
    return name if path.exists() and path.read_bytes() != data else None


def write(files: Mapping[str, bytes], top: Path) -> list[str]:
    """Write what is not there yet.

    Returns:
        The paths that were written.

    Raises:
        InputError: something is in the way; all of it is named, and nothing is written.
    """
    obstacles = in_the_way(files, top)
    if obstacles:
        raise InputError(
            "these are here already, with another content; nothing is written over:\n  "
            + "\n  ".join(obstacles),
            remedy="move them away, or run it in a repository of its own",
        )
    fresh = [name for name in files if not (top / name).exists()]
    for name in fresh:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: half a file would be in the way of the next attempt.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(files[name])
        temporary.replace(path)
    return fresh
