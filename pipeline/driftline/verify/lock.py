"""`dvc.lock` as values: which stage made which path, and what it says of each."""

from __future__ import annotations

import gc
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from driftline.errors import RefusedError, ToolError
from driftline.evidence import history

FILES = (Path("dvc.lock"), Path("probe") / "dvc.lock")
TRACKED = ("imports/**/*.dvc",)
"""Files of `dvc add`: each is a lock file of one path that no stage makes."""
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
NUMBER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class LockedPath:
    """One path of one stage; `md5` ends in `.dir` for a folder, `nfiles` is then its files.

    `stage` of a path that no stage makes is its `.dvc` file.
    """

    stage: str
    path: str
    md5: str
    size: int
    nfiles: int | None

    @property
    def is_folder(self) -> bool:
        """Whether the path is a folder."""
        return self.md5.endswith(".dir")

    @property
    def content(self) -> tuple[str, int]:
        """What makes it the same content as another entry's."""
        return self.md5, self.size

    @property
    def probed(self) -> bool:
        """Whether the probe wrote it: what is installed and which code is here now."""
        return self.stage.startswith(f"{FILES[1].parent}/")


@dataclass(frozen=True)
class Lock:
    """Every stage's outs by path, and the paths each stage read."""

    outs: Mapping[str, LockedPath] = field(default_factory=dict)
    deps: tuple[LockedPath, ...] = ()

    def out_of(self, path: str) -> str:
        """The out that `path` is, or lies in; empty when there is none."""
        parts = path.split("/")
        for length in range(len(parts), 0, -1):
            folder = "/".join(parts[:length])
            if folder in self.outs:
                return folder
        return ""

    def maker(self, path: str) -> str:
        """The stage that made `path`, or a folder it lies in; empty when none did."""
        out = self.outs.get(self.out_of(path))
        return out.stage if out else ""

    def reads(self, stage: str) -> tuple[LockedPath, ...]:
        """What a stage read."""
        return tuple(entry for entry in self.deps if entry.stage == stage)


def read(files: tuple[Path, ...] = FILES) -> Lock:
    """Read the lock files that are there, and the `.dvc` files of imported cells.

    Raises:
        RefusedError: one of them is not a lock file.
    """
    here = [parse(_text(file), file) for file in files if file.is_file()]
    if files is FILES:
        here += [_tracked(path) for glob in TRACKED for path in sorted(Path().glob(glob))]
    return _merged(here)


def at_head() -> Lock | None:
    """The same of the commit that is checked out; None where there is none, or it has none."""
    locks = []
    for file in FILES:
        try:
            text = history.git("show", f"HEAD:./{file.as_posix()}")
            locks.append(parse(text, file))
        except (ToolError, RefusedError, OSError):
            if file is FILES[0]:
                return None
    return _merged(locks)


def _merged(locks: list[Lock]) -> Lock:
    outs = {path: entry for lock in locks for path, entry in lock.outs.items()}
    return Lock(outs, tuple(entry for lock in locks for entry in lock.deps))


@lru_cache(maxsize=4)
def parse(text: str, file: Path) -> Lock:
    """The lock file `file`, which has this text; the committed one is often the same.

    Raises:
        RefusedError: it is not one, whole and unbroken.
    """
    outs: dict[str, LockedPath] = {}
    deps: list[LockedPath] = []
    try:
        for name, stage in _loaded(text)["stages"].items():
            full = name if file.parent == Path() else f"{file.parent}/dvc.yaml:{name}"
            outs |= {entry.path: entry for entry in _entries(full, stage, "outs")}
            deps += _entries(full, stage, "deps")
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _broken(file, error) from None
    return Lock(outs, tuple(deps))


def _tracked(file: Path) -> Lock:
    try:
        entries = _entries(file.as_posix(), _loaded(_text(file)), "outs")
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _broken(file, error) from None
    return Lock({entry.path: entry for entry in _beside(file, entries)})


def _beside(file: Path, entries: list[LockedPath]) -> Iterator[LockedPath]:
    """A `.dvc` file names paths relative to itself."""
    for each in entries:
        path = (file.parent / each.path).as_posix()
        yield LockedPath(each.stage, path, each.md5, each.size, each.nfiles)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\n")  # as git prints it
    except UnicodeDecodeError as error:
        raise _broken(file, error) from None


def _broken(file: Path, error: Exception) -> RefusedError:
    said = " ".join(str(error).split())[:200]
    return RefusedError(
        f"{file}: not a DVC lock file: {said}",
        remedy=f"git checkout HEAD -- {shlex.quote(str(file))}",
    )


def _loaded(text: str) -> Any:
    """YAML with every scalar as text, by the C loader where PyYAML has it.

    A lock file of 60,000 stages is read six times as fast so: no scalar's type is guessed, and the
    collector does not walk what can only grow.
    """
    loader: type[Any] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    collects = gc.isenabled()
    gc.disable()
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - builds text, lists and mappings alone
    finally:
        if collects:
            gc.enable()


def _entries(stage: str, body: Mapping[str, Any], which: str) -> list[LockedPath]:
    """The paths of one stage that have an md5.

    Raises:
        ValueError: an entry was cut off or edited beyond reading.
    """
    entries = []
    for each in body.get(which) or ():
        if each.get("hash", "md5") != "md5":
            continue
        path, md5, size = each["path"], each.get("md5"), each.get("size", "-1")
        if not isinstance(md5, str) or not MD5.fullmatch(md5) or not NUMBER.fullmatch(size):
            raise ValueError(f"stage {stage}, {path}: md5 {md5}, size {size}")
        nfiles = each.get("nfiles")
        entries.append(
            LockedPath(stage, path, md5, int(size), None if nfiles is None else int(nfiles))
        )
    return entries
