"""`dvc.lock` held against the working tree, against the evidence, and against itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from driftline.evidence import history, lineage
from driftline.evidence.lineage import Evidence
from driftline.store import digest, records
from driftline.store.digest import Difference
from driftline.verify.expected import MANIFESTS, Recorded
from driftline.verify.lock import FILES, Lock, LockedPath
from driftline.verify.problems import LOCK, Deviation, LookedAt, Problem
from driftline.verify.survey import WorkingTree, is_here

LINEAGE = history.FOLDER.as_posix()
SHOWN = 5


def outs(
    recorded: Recorded,
    tree: WorkingTree,
    looked_at: LookedAt,
    *,
    described: Collection[str],
    but: Collection[str],
) -> Iterator[Deviation]:
    """Every out that is not as `dvc.lock` has it: size and number of files, with `deep` its md5.

    Args:
        recorded: the lock file among it.
        tree: tells what is here.
        looked_at: told of every out.
        described: outs that are as the evidence has them: there the lock file is what is wrong.
        but: outs that are known to be wrong.
    """
    for entry in recorded.lock.outs.values():
        if entry.path in (*but, LINEAGE) or not is_here(entry.path):
            continue
        looked_at(LOCK, entry.path)
        refused = tree.refused(entry.path)
        if refused is not None:
            yield Deviation(entry.path, (refused,))
        elif detail := tree.differs(entry):
            whole = (Difference("changed", entry.path, detail),)
            if entry.path in described or _as_committed(entry, recorded.head, tree):
                yield Deviation(entry.path, whole, place=LOCK)
            else:
                yield Deviation(entry.path, _inside(entry, recorded, tree) or whole)


def _as_committed(entry: LockedPath, head: Lock | None, tree: WorkingTree) -> bool:
    """Whether an out is what the committed lock file has, which has other content than `entry`."""
    committed = head.outs.get(entry.path) if head else None
    if committed is None or committed.content == entry.content:
        return False
    return not tree.differs(committed)


def _inside(entry: LockedPath, recorded: Recorded, tree: WorkingTree) -> tuple[Difference, ...]:
    """Files that are not as DVC's cache lists them for a folder, as far as it does."""
    listed, folder = recorded.listing(entry), Path(entry.path)
    if not listed:
        return ()
    inside = digest.changes(listed, tree.hashes.listing(folder), _other_md5)
    return tuple(replace(each, path=(folder / each.path).as_posix()) for each in inside)


def _other_md5(recorded: str, actual: str) -> str:
    return f"md5 {recorded[:12]}… recorded, {actual[:12]}… here" if recorded != actual else ""


def contradictions(lock: Lock, tree: WorkingTree, but: Collection[str]) -> Iterator[Problem]:
    """Every path of which one stage read other content than the entry of its maker names.

    What the probe writes is left out, here and below: it says what is installed now.

    Args:
        lock: the lock file.
        tree: tells which of the two is right.
        but: outs that are known to be wrong.
    """
    readers: dict[str, list[LockedPath]] = {}
    for dep in lock.deps:
        out = lock.outs.get(dep.path)
        if out is None or out.probed or dep.path in but:
            continue
        if out.content != dep.content:
            readers.setdefault(dep.path, []).append(dep)
    for path, deps in readers.items():
        out, first = lock.outs[path], deps[0]
        right = bool(tree.differs(first)) or not tree.differs(out)
        names = ", ".join(dep.stage for dep in deps)
        detail = (
            f"stage {names} read md5 {first.md5} ({first.size} bytes), the entry of its maker "
            f"{out.stage} says {out.md5} ({out.size} bytes)"
        )
        stage = first.stage if right else out.stage
        yield Problem(LOCK, path, "changed", detail, stage, out=path)


def others_read(lock: Lock, tree: WorkingTree, but: Collection[str]) -> Iterator[Problem]:
    """A stage that read a file in an out, or a folder of outs, with other bytes than lie here."""
    by_probe = {path for path, entry in lock.outs.items() if entry.probed}
    for dep in lock.deps:
        if dep.path in lock.outs or not dep.path.startswith(f"{records.ARTIFACTS}/"):
            continue
        parts = [out for out in lock.outs if out.startswith(f"{dep.path}/")]
        parts += [lock.out_of(dep.path)] if lock.out_of(dep.path) else []
        known = parts and all(Path(out).exists() and out not in but for out in parts)
        if known and not by_probe.intersection(parts) and (detail := tree.differs(dep)):
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
    others = [f"{records.ARTIFACTS}/{name}" for name in MANIFESTS]
    wanted = (*artifacts, *cells, *others, LINEAGE)
    lost = [path for path in wanted if path not in lock.outs]
    if lost:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        detail = f"no entry for {', '.join(lost[:SHOWN])}{more}"
        yield Problem(LOCK, FILES[0].as_posix(), "missing", detail)


def absent(lock: Lock) -> tuple[int, int]:
    """How many of the outs that stages made are not here, and how many there are."""
    made = [path for path, entry in lock.outs.items() if not entry.probed]
    return sum(not Path(path).exists() for path in made), len(made)


def sound(lock: Lock, tree: WorkingTree, but: Collection[str]) -> bool:
    """Whether a lock file agrees with itself and with all that is here, `but` left aside."""
    return not any(contradictions(lock, tree, but)) and not any(
        tree.differs(entry)
        for path, entry in lock.outs.items()
        if path not in but and not entry.probed
    )
