"""What restores an object: the cheapest command that DVC really lets do it.

Each of these was found out by trying (DVC 3.67):

- `dvc checkout` restores an out from the cache, if what is there was removed first: DVC remembers a
  file it checked out as good, whatever its bytes.
- Nothing replaces a read-only object of the cache: not `dvc fetch`, not `dvc commit`, and a stage
  that runs again gets its output back from it, flipped. It has to be removed.
- `dvc push` asks a remote for a folder's listing (`.dir`) alone: with that there, a file of the
  folder that is missing is not pushed. Both have to be removed.
- `dvc repro` does not see a size edited in `dvc.lock`.

Commands are for a shell, from the project's folder, in the order of `Problem.order`.
"""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from driftline.errors import DriftlineError
from driftline.evidence import history
from driftline.schema.artifacts import FileDigest
from driftline.verify.hashes import Hashes, folder_md5
from driftline.verify.lock import FILES, Lock, LockedPath
from driftline.verify.objects import Stores
from driftline.verify.problems import CACHE, EVIDENCE, LOCK, WORKSPACE, Problem

LINEAGE = history.FOLDER.as_posix()
CHECKOUT_LOCK = f"git checkout HEAD -- {FILES[0]}"


@dataclass
class Remedies:
    """Knows every store, and so which of them still has an object as it should be.

    Args:
        lock: what DVC recorded.
        head: the same as committed, if that describes all that is as it should be.
        stores: the cache and the remotes looked at.
        hashes: of what was read.
        expected: files of outs that a record describes.
        problems: all that is wrong.
    """

    lock: Lock
    head: Lock | None
    stores: Stores
    hashes: Hashes
    expected: Mapping[str, tuple[FileDigest, ...]]
    problems: list[Problem] = field(default_factory=list)

    def all(self) -> list[Problem]:
        """The problems, each with its remedy."""
        return [replace(each, remedy=each.remedy or self._of(each)) for each in self.problems]

    def _of(self, problem: Problem) -> str:
        if problem.place == CACHE:
            return self._cached(problem)
        if problem.place == LOCK:
            return self._lock_entry(problem)
        if problem.place == WORKSPACE:
            return self._out(problem.out, stale=problem.stale)
        if problem.place == EVIDENCE:
            return self._evidence
        return self._remote(problem)

    # ---------------------------------------------------------------------------- the workspace

    @cached_property
    def _broken(self) -> set[str]:
        """Outs that are not as they should be in the workspace."""
        return {each.out for each in self.problems if each.place == WORKSPACE}

    @cached_property
    def _lock_first(self) -> str:
        """What puts the lock file right before it is followed."""
        return f"{CHECKOUT_LOCK} && " if self.head is not None else ""

    def _entry(self, out: str) -> LockedPath | None:
        return (self.head or self.lock).outs.get(out)

    def _out(self, out: str, *, stale: bool) -> str:
        """What restores an out of a stage; `stale` where the cache has it as it lies here."""
        entry = self._entry(out)
        if entry is None:
            return "dvc repro"
        if _in_git(out):
            return self._from_git(out, entry) or _again(entry.stage)
        if entry.probed:
            return f"rm -rf {shlex.quote(out)} && {_again(entry.stage)}"
        return self._from_dvc(entry, stale=stale)

    def _from_dvc(self, entry: LockedPath, *, stale: bool) -> str:
        """From the cache if that is whole, from a remote that is, from its stage at last."""
        path, cache = shlex.quote(entry.path), self.stores.cache
        bad = [oid for oid in self._objects(entry) if not cache.whole(oid)]
        remove = " ".join(["rm -rf", path, *(shlex.quote(cache.path(oid)) for oid in bad)])
        if not bad and not stale and self._as_recorded(entry):
            return f"{self._lock_first}{remove} && dvc checkout {path}"
        remotes = self.stores.remotes.items()
        remote = next((name for name, store in remotes if all(map(store.whole, bad))), "")
        if bad and remote and not stale:
            return f"{self._lock_first}{remove} && dvc pull -r {shlex.quote(remote)} {path}"
        if entry.stage.endswith(".dvc"):
            return f"{remove} && dvc pull {shlex.quote(entry.stage)}"
        return f"{remove} && {_again(entry.stage)}"

    def _objects(self, entry: LockedPath) -> list[str]:
        """Every object of an out, as far as any store lists what is in a folder."""
        return [entry.md5, *dict.fromkeys(self.stores.listing(entry).values())]

    def _as_recorded(self, entry: LockedPath) -> bool:
        """Whether what the cache has for an out is what its record says."""
        wanted = {row.path: row.sha256 for row in self.expected.get(entry.path, ()) if row.sha256}
        listed = self.stores.listing(entry)
        return not wanted or all(
            path in listed and self.hashes.sha256(Path(self.stores.cache.path(listed[path]))) == sha
            for path, sha in wanted.items()
        )

    # ---------------------------------------------------------------------------------- the cache

    def _cached(self, problem: Problem) -> str:
        """A broken object goes; where the workspace has the right one, that takes its place."""
        cache = self.stores.cache
        path = shlex.quote(cache.path(problem.oid))
        if not problem.out:
            return f"rm -f {path}"
        if copy := self._copy(problem.oid):
            return f"install -m 444 {shlex.quote(copy)} {path}"
        entry = self.lock.outs[problem.out]
        if problem.oid.endswith(".dir") and self._here(entry):
            # Remade from what is here; that fails, and changes nothing, if anything else is other.
            return f"rm -f {path} && (dvc commit {entry.stage} || {_again(entry.stage)})"
        if problem.out in self._broken:
            return self._out(problem.out, stale=False)
        for name, store in self.stores.remotes.items():
            if store.whole(problem.oid):
                where = f"-r {shlex.quote(name)} {shlex.quote(problem.out)}"
                return f"rm -f {path} && dvc fetch {where}"
        return f"rm -rf {shlex.quote(problem.out)} {path} && {_again(entry.stage)}"

    def _copy(self, oid: str) -> str:
        """A file of the workspace that is what an object should be."""
        for out, entry in self.lock.outs.items():
            if entry.md5 == oid and not entry.is_folder and self._is(Path(out), oid):
                return out
            for inside, md5 in self.stores.listing(entry).items():
                if md5 == oid and self._is(Path(out, inside), oid):
                    return f"{out}/{inside}"
        return ""

    def _is(self, path: Path, oid: str) -> bool:
        return path.is_file() and not path.is_symlink() and self.hashes.md5(path) == oid

    def _here(self, entry: LockedPath) -> bool:
        path = Path(entry.path)
        return path.exists() and self.hashes.oid(path) == entry.md5

    # ----------------------------------------------------------------------------------- dvc.lock

    def _lock_entry(self, problem: Problem) -> str:
        if self.head is not None:
            return CHECKOUT_LOCK
        return _again(problem.stage) if problem.stage else "dvc repro"

    # ------------------------------------------------------------------------------- the evidence

    @cached_property
    def _evidence(self) -> str:
        entry = self._entry(LINEAGE)
        if entry is not None and (command := self._from_git(LINEAGE, entry)):
            return command
        reads = self.lock.reads(entry.stage) if entry else ()
        if reads and all(Path(dep.path).exists() for dep in reads):
            return _again("lineage")
        return f"rm -rf {LINEAGE} && git checkout HEAD -- {LINEAGE}"

    def _from_git(self, path: str, entry: LockedPath) -> str:
        """The command that takes what `entry` says from the commit; empty if that has another."""
        md5 = _folder_at_head() if entry.is_folder else _file_at_head(path)
        return f"rm -rf {path} && git checkout HEAD -- {path}" if md5 == entry.md5 else ""

    # -------------------------------------------------------------------------------- the remotes

    def _remote(self, problem: Problem) -> str:
        """An object goes together with every listing that names it, and is pushed again."""
        name = problem.place.partition(" ")[2]
        store = self.stores.remotes[name]
        gone = [problem.oid]
        for entry in self.lock.outs.values():
            if problem.oid in self.stores.listing(entry).values():
                gone.append(entry.md5)
        paths = [store.path(oid) for oid in dict.fromkeys(gone) if store.md5(oid) is not None]
        remove = (
            f"rm -f {' '.join(map(shlex.quote, paths))}" if store.local else _remover(name, paths)
        )
        return f"{self._into_cache(problem)}{remove} && dvc push -r {shlex.quote(name)}"

    def _into_cache(self, problem: Problem) -> str:
        """What brings an object into the cache first, where it is not there at all."""
        if self.stores.cache.md5(problem.oid) is not None:
            return ""
        entry = self.lock.outs[problem.out]
        if self._here(entry):
            return f"dvc commit {entry.stage} && "
        return f"{self._out(problem.out, stale=True)} && "


def _folder_at_head() -> str:
    """DVC's name of the evidence that is committed; empty where there is none."""
    tree = history.GitTree("HEAD", "HEAD")
    try:
        return folder_md5({path: _md5(tree.read(path)) for path in tree.paths()})
    except (DriftlineError, OSError):
        return ""


def _file_at_head(path: str) -> str:
    command = ["git", "show", f"HEAD:./{path}"]
    done = subprocess.run(command, capture_output=True, check=False)
    return "" if done.returncode else _md5(done.stdout)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _again(stage: str) -> str:
    return f"dvc repro --force --single-item {shlex.quote(stage)}"


def _in_git(out: str) -> bool:
    return out.startswith("reports/")


def _remover(name: str, paths: list[str]) -> str:
    """DVC has no command that removes an object from a remote, but a way to do it."""
    code = f"from dvc.repo import Repo; Repo().cloud.get_remote_odb({name!r}).fs.remove({paths!r})"
    return f"python -c {shlex.quote(code)}"
