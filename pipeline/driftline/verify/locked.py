"""`dvc.lock` held against the working tree, against the evidence, and against itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from driftline.evidence import history, lineage
from driftline.evidence.lineage import Evidence
from driftline.store import records
from driftline.verify.hashes import Hashes, plain_files
from driftline.verify.lock import FILES, Entry, Lock
from driftline.verify.problems import LOCK, Problem

SHOWN = 5
MADE = ("prompts", "evalset", "grades", "drift")
"""Folders under `artifacts/` that every project has, beside artifacts, their records and cells."""


@dataclass(frozen=True)
class Here:
    """The working tree as a lock file would have it; with `deep` its bytes are read."""

    hashes: Hashes
    deep: bool

    def differs(self, entry: Entry, *, deep: bool | None = None) -> str:
        """What is other than in `entry`; empty where that agrees, or nothing is here."""
        path = Path(entry.path)
        if not path.exists():
            return ""
        files = plain_files(path)
        size, count = sum(each.stat().st_size for each in files), len(files)
        wanted = entry.nfiles if entry.is_folder else 1
        if size != entry.size or count != wanted:
            return (
                f"{wanted} files of {entry.size} bytes in dvc.lock, {count} of {size} in the "
                "workspace"
            )
        if self.deep if deep is None else deep:
            found = self.hashes.oid(path)
            if found != entry.md5:
                return f"md5 {entry.md5} in dvc.lock, {found} in the workspace"
        return ""


def contradictions(lock: Lock, here: Here, but: Collection[str]) -> Iterator[Problem]:
    """Every path of which one stage read other content than the entry of its maker names.

    What the probe writes is left out, here and below: it says what is installed now.

    Args:
        lock: the lock file.
        here: tells which of the two is right.
        but: outs that are known to be wrong.
    """
    readers: dict[str, list[Entry]] = {}
    for dep in lock.deps:
        out = lock.outs.get(dep.path)
        if out is None or probed(out) or dep.path in but:
            continue
        if out.content != dep.content:
            readers.setdefault(dep.path, []).append(dep)
    for path, deps in readers.items():
        out, first = lock.outs[path], deps[0]
        right = bool(here.differs(first)) or not here.differs(out)
        names = ", ".join(dep.stage for dep in deps)
        detail = (
            f"stage {names} read md5 {first.md5} ({first.size} bytes), the entry of its maker "
            f"{out.stage} says {out.md5} ({out.size} bytes)"
        )
        stage = first.stage if right else out.stage
        yield Problem(LOCK, path, "changed", detail, stage, out=path)


def others_read(lock: Lock, here: Here, but: Collection[str]) -> Iterator[Problem]:
    """A stage that read a file in an out, or a folder of outs, with other bytes than lie here."""
    by_probe = {path for path, entry in lock.outs.items() if probed(entry)}
    for dep in lock.deps:
        if dep.path in lock.outs or not dep.path.startswith(f"{records.ARTIFACTS}/"):
            continue
        parts = [out for out in lock.outs if out.startswith(f"{dep.path}/")]
        parts += [lock.out_of(dep.path)] if lock.out_of(dep.path) else []
        known = parts and all(Path(out).exists() and out not in but for out in parts)
        if known and not by_probe.intersection(parts) and (detail := here.differs(dep)):
            shown = f"read by stage {dep.stage}: {detail}"
            yield Problem(LOCK, dep.path, "changed", shown, dep.stage, out=dep.path)


def without_entry(lock: Lock, evidence: Evidence) -> Iterator[Problem]:
    """Everything that the evidence is about has to be in the lock file."""
    artifacts = [
        path
        for name in evidence.artifacts
        for path in (f"{records.ARTIFACTS}/{name}", f"{records.RECORDS}/{name}")
    ]
    cells = [f"{records.ARTIFACTS}/{lineage.CELLS}/{name}" for name in evidence.cells]
    others = [f"{records.ARTIFACTS}/{name}" for name in MADE]
    wanted = (*artifacts, *cells, *others, history.FOLDER.as_posix())
    lost = [path for path in wanted if path not in lock.outs]
    if lost:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        detail = f"no entry for {', '.join(lost[:SHOWN])}{more}"
        yield Problem(LOCK, FILES[0].as_posix(), "missing", detail)


def sound(lock: Lock, here: Here, but: Collection[str]) -> bool:
    """Whether a lock file agrees with itself and with all that is here, `but` left aside."""
    return not any(contradictions(lock, here, but)) and not any(
        here.differs(entry)
        for path, entry in lock.outs.items()
        if path not in but and not probed(entry)
    )


def probed(entry: Entry) -> bool:
    """Whether the probe wrote it: what is installed and which code is here now."""
    return entry.stage.startswith(f"{FILES[1].parent}/")
