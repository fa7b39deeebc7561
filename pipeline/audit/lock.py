"""`dvc.lock` as values: which stage made which path, and what it says of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.audit.problems import Problem
from pipeline.errors import RefusedError

FILES = (Path("dvc.lock"), Path("probe") / "dvc.lock")
PLACE = "dvc.lock"


@dataclass(frozen=True)
class Entry:
    """One path of one stage; `md5` ends in `.dir` for a folder, `nfiles` is then its files."""

    stage: str
    path: str
    md5: str
    size: int
    nfiles: int | None

    @property
    def is_folder(self) -> bool:
        """Whether the path is a folder."""
        return self.md5.endswith(".dir")


@dataclass(frozen=True)
class Lock:
    """Every stage's outs by path, and the paths each stage read."""

    outs: Mapping[str, Entry] = field(default_factory=dict)
    deps: tuple[Entry, ...] = ()

    def maker(self, path: str) -> str:
        """The stage that made `path`, or a folder it lies in; empty when none did."""
        parts = path.split("/")
        for length in range(len(parts), 0, -1):
            found = self.outs.get("/".join(parts[:length]))
            if found is not None:
                return found.stage
        return ""

    def remake(self, path: str) -> str:
        """The command that makes `path` again, whatever DVC believes of it."""
        stage = self.maker(path)
        return f"rm -rf {path} && dvc repro --force --single-item {stage}" if stage else ""


def read(files: tuple[Path, ...] = FILES) -> Lock:
    """Read the lock files that are there.

    Raises:
        RefusedError: one of them is not a lock file.
    """
    outs: dict[str, Entry] = {}
    deps: list[Entry] = []
    for file in files:
        if file.is_file():
            for name, stage in _stages(file):
                full = name if file.parent == Path() else f"{file.parent}/dvc.yaml:{name}"
                outs |= {entry.path: entry for entry in _entries(full, stage, "outs")}
                deps += _entries(full, stage, "deps")
    return Lock(outs, tuple(deps))


def _stages(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_loader())  # noqa: S506 - safe
        yield from data["stages"].items()
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(
            f"{file}: not a DVC lock file: {' '.join(str(error).split())[:200]}",
            remedy=f"git checkout {file}   (or remove it, then: dvc repro)",
        ) from None


def _loader() -> type[Any]:
    """The C loader where PyYAML has it: ten times as fast on a large lock file."""
    found: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return found


def _entries(stage: str, body: Mapping[str, Any], which: str) -> list[Entry]:
    return [
        Entry(stage, each["path"], each["md5"], int(each.get("size", -1)), each.get("nfiles"))
        for each in body.get(which, ())
        if "md5" in each
    ]


def contradictions(lock: Lock) -> Iterator[Problem]:
    """A stage that read another object than the one its maker's entry names."""
    for dep in lock.deps:
        out = lock.outs.get(dep.path)
        if out is not None and (out.md5, out.size) != (dep.md5, dep.size):
            yield Problem(
                PLACE,
                dep.path,
                "changed",
                f"stage {dep.stage} read md5 {dep.md5} ({dep.size} bytes), "
                f"its maker's entry says {out.md5} ({out.size} bytes)",
                out.stage,
                "git checkout dvc.lock   (or: dvc repro)",
            )
