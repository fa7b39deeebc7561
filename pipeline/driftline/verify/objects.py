"""DVC's cache and remotes, object by object: DVC itself trusts a read-only object unread."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.errors import InputError, ToolError, did_you_mean
from driftline.verify import problems
from driftline.verify.hashes import md5_of
from driftline.verify.lock import Lock, LockedPath
from driftline.verify.problems import REMOTE, Audit, Problem

Say = Callable[[str], None]
CACHE = problems.CACHE
Owners = Mapping[str, list[str]]
"""By object: the paths of this commit's outs that it is."""
OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
SHOWN = 3


@contextmanager
def repository() -> Iterator[Any]:
    """The project's DVC repository.

    Raises:
        InputError: there is none here.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo()
    except DvcException as error:
        raise InputError(f"no DVC repository here: {error}", remedy="dvc init") from None
    with repo:
        yield repo


def remote_names(repo: Any) -> tuple[str, ...]:
    """Every configured remote, the default first."""
    known = list(repo.config["remote"])
    default = repo.config["core"].get("remote")
    return tuple(sorted(known, key=lambda name: (name != default, name)))


def known_remotes(repo: Any, names: Iterable[str] | None) -> tuple[str, ...]:
    """The remotes to look at: those named, else the default one, if there is any.

    Raises:
        InputError: there is no such remote.
    """
    known = remote_names(repo)
    if names is None:
        return known[:1]
    for name in names:
        if name not in known:
            raise InputError(
                f'no DVC remote "{name}"{did_you_mean(name, known)} (known: '
                f"{', '.join(known) or 'none'})",
                remedy="dvc remote list",
            )
    return tuple(dict.fromkeys(names))


# ------------------------------------------------------------------------------------ one store


class Store:
    """Objects by name, in the local cache or in a remote; read once, and never trusted."""

    def __init__(self, store: Any, place: str, *, local: bool) -> None:
        """Look at DVC's `store`, which messages call `place`; `local` if its paths are files."""
        self._store, self.place, self.local = store, place, local
        self._known: dict[str, str | None] = {}
        self._listed: dict[str, dict[str, str]] = {}

    def path(self, oid: str) -> str:
        """Where an object lies."""
        path: str = self._store.oid_to_path(oid)
        return _shown(Path(path)) if self.local else path

    def md5(self, oid: str) -> str | None:
        """md5 of an object's bytes, None when it is not there."""
        if oid not in self._known:
            try:
                with self._store.fs.open(self._store.oid_to_path(oid), "rb") as file:
                    self._known[oid] = md5_of(file)
            except FileNotFoundError:
                self._known[oid] = None
        return self._known[oid]

    def whole(self, oid: str) -> bool:
        """Whether it has the object, as its name says."""
        return self.md5(oid) == oid.removesuffix(".dir")

    def broken(self, oid: str) -> bool:
        """Whether it has something else under the object's name."""
        return self.md5(oid) not in (None, oid.removesuffix(".dir"))

    def listing(self, oid: str) -> dict[str, str]:
        """Objects by path inside the folder a `.dir` object lists; empty where it is not whole."""
        if not oid.endswith(".dir") or not self.whole(oid):
            return {}
        if oid not in self._listed:
            with self._store.fs.open(self._store.oid_to_path(oid), "rb") as file:
                listed = json.load(file)
            self._listed[oid] = {each["relpath"]: each["md5"] for each in listed}
        return self._listed[oid]

    def objects(self, entry: LockedPath) -> list[str]:
        """Every object of an out, as far as it is listed."""
        return [entry.md5, *dict.fromkeys(self.listing(entry.md5).values())]


@dataclass
class Stores:
    """The local cache, and the remotes that were looked at, in their order."""

    cache: Store
    remotes: dict[str, Store] = field(default_factory=dict)

    @classmethod
    def of(cls, repo: Any) -> Stores:
        """Those of a DVC repository, no remote yet."""
        return cls(Store(repo.cache.local, CACHE, local=True))

    def owners(self, lock: Lock) -> Owners:
        """As far as any store lists what is in a folder."""
        owners: dict[str, list[str]] = {}
        for path, entry in lock.outs.items():
            if path.startswith("reports/") or entry.probed:
                continue  # not in DVC's cache
            owners.setdefault(entry.md5, []).append(path)
            for inside, oid in self.listing(entry).items():
                owners.setdefault(oid, []).append(f"{path}/{inside}")
        return owners

    def listing(self, entry: LockedPath) -> dict[str, str]:
        """Objects by path inside an out."""
        listed = (store.listing(entry.md5) for store in (self.cache, *self.remotes.values()))
        return next(filter(None, listed), {})


# ----------------------------------------------------------------------------------- the checks


def check_cache(repo: Any, stores: Stores, lock: Lock, audit: Audit, say: Say) -> None:
    """Every object of the local cache, whether or not this commit names it."""
    root = Path(repo.cache.local.path)
    broken = []
    for path in sorted(root.glob("[0-9a-f][0-9a-f]/*")):
        oid = path.parent.name + path.name
        if OID.fullmatch(oid):
            say(path.name)
            audit.count(CACHE)
            if stores.cache.broken(oid):
                broken.append(oid)
    owners = stores.owners(lock) if broken else {}
    audit.problems += [_corrupt(stores.cache, oid, owners, lock) for oid in broken]


def check_remote(repo: Any, name: str, stores: Stores, lock: Lock, audit: Audit, say: Say) -> None:
    """Every object of this commit that a remote has.

    Raises:
        ToolError: it cannot be reached.
    """
    place, absent = f"{REMOTE} {name}", []
    remote = repo.cloud.get_remote_odb(name)
    store = Store(remote, place, local=getattr(remote.fs, "protocol", "") == "local")
    stores.remotes[name] = store
    try:
        owners = stores.owners(lock)
        for oid in sorted(owners):
            say(oid)
            if store.md5(oid) is None:
                absent.append(oid)
                continue
            audit.count(place)
            if store.broken(oid):
                audit.problems.append(_corrupt(store, oid, owners, lock))
        halves = {
            oid
            for entry in lock.outs.values()
            for oid in store.listing(entry.md5).values()
            if store.md5(oid) is None
        }
    except Exception as error:  # every kind of remote raises its own
        del stores.remotes[name]
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ToolError(
            f"remote {name} cannot be read: {said}", remedy=f"dvc status -c -r {name}"
        ) from None
    audit.problems += [_lost(store, oid, owners, lock) for oid in sorted(halves)]
    gone = len(absent) - len(halves)
    if absent and len(absent) == len(owners):
        said = f"remote {name} has none of the {gone} objects of this commit, or does not answer"
        audit.notes.append(f"{said}: dvc status -c -r {name}")
    elif gone:
        said = f"{gone} of {len(owners)} objects of this commit are not in remote {name}"
        audit.notes.append(f"{said}: dvc push -r {name}")


def _corrupt(store: Store, oid: str, owners: Owners, lock: Lock) -> Problem:
    said = f"md5 {store.md5(oid)}, its name says {oid.removesuffix('.dir')}"
    return _problem(store, oid, "changed", said, owners.get(oid, []), lock)


def _lost(store: Store, oid: str, owners: Owners, lock: Lock) -> Problem:
    """A folder without one of its files: `dvc pull` fails on it, `dvc push` does not see it."""
    said = "a listing that names it is there"
    return _problem(store, oid, "missing", said, owners.get(oid, []), lock)


def _problem(store: Store, oid: str, what: str, said: str, named: list[str], lock: Lock) -> Problem:
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    owned = f"it is {', '.join(named[:SHOWN])}{more}" if named else "this commit does not use it"
    out = lock.out_of(named[0]) if named else ""
    path = store.path(oid)
    return Problem(store.place, path, what, f"{said}; {owned}", lock.maker(out), out=out, oid=oid)


def _shown(path: Path) -> str:
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
