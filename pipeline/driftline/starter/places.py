"""`--source` and `--adapter` as the locations params.yaml will have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from driftline.errors import InputError
from driftline.project.params import NAME, RESERVED
from driftline.project.sections.location import COMMIT, Location

HUB = re.compile(r"(?P<repo>[\w.-]+(?:/[\w.-]+)?)@(?P<revision>\S*)")
PINNED = "REPO@REVISION, a Hub repository at its 40-hex commit"


def location(text: str, option: str, top: Path) -> Location:
    """A folder below `top`, as a relative path, or a pinned Hub repository.

    Args:
        text: as it was typed.
        option: what messages call it.
        top: the project's folder; relative paths are below it.

    Raises:
        InputError: no such folder, one outside of the project, or a revision that can move.
    """
    hub = HUB.fullmatch(text)
    if hub and not (top / text).exists():
        return _pinned(hub["repo"], hub["revision"], option)
    folder = (top / text).resolve()
    if not folder.is_relative_to(top.resolve()):
        raise InputError(
            f"{option}: {text} is outside of this repository, which has to hold what it evaluates",
            remedy=f"copy it in (to models/{folder.name}), or name {PINNED}",
        )
    if not text or not folder.is_dir() or folder == top.resolve():
        what = "is no folder" if text and folder.exists() else "there is no such folder here"
        raise InputError(
            f"{option}: {text!r}: {what}",
            remedy=f"name a folder of this repository, or {PINNED}",
        )
    return Location(path=folder.relative_to(top.resolve()).as_posix())


def _pinned(repo: str, revision: str, option: str) -> Location:
    if not COMMIT.fullmatch(revision):
        raise InputError(
            f"{option}: {repo}: revision {revision!r} is not a commit of 40 hex digits; "
            "a branch or tag can move",
            remedy=f"{option} {repo}@COMMIT   (https://huggingface.co/{repo}/commits lists them)",
        )
    return Location(repo=repo, revision=revision)


def adapters(texts: Iterable[str], top: Path) -> dict[str, Location]:
    """Adapters by name, each typed as `NAME=PLACE`.

    Raises:
        InputError: not of that form, a name that cannot be one or is there twice, or as `location`.
    """
    locations: dict[str, Location] = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals:
            raise InputError(
                f"--adapter: {text!r} has no name",
                remedy="--adapter NAME=PATH, or NAME=REPO@COMMIT",
            )
        if not re.fullmatch(NAME.removesuffix("$"), name) or name in RESERVED:
            raise InputError(
                f"--adapter: {name!r} cannot name an adapter",
                remedy=f"letters, digits, . _ - and none of {', '.join(RESERVED)}",
            )
        if name in locations:
            raise InputError(
                f"--adapter: {name!r} is named twice", remedy="give each adapter a name of its own"
            )
        locations[name] = location(place, f"--adapter {name}", top)
    return locations
