"""DVC's cache and remotes, object by object: DVC itself trusts a read-only object unread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.audit.hashes import md5_of
from pipeline.audit.lock import Lock
from pipeline.audit.problems import Audit, Problem
from pipeline.errors import InputError, ToolError, did_you_mean

Say = Callable[[str], None]
CACHE = "cache"


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


def check_cache(repo: Any, lock: Lock, audit: Audit, say: Say) -> None:
    """Every object of the local cache, whether or not this commit names it."""
    store = repo.cache.local
    owners = _owners(store, lock)
    root = Path(store.path)
    for path in sorted(root.glob("[0-9a-f][0-9a-f]/*")):
        say(path.name)
        audit.count(CACHE)
        oid = path.parent.name + path.name
        with path.open("rb") as file:
            found = md5_of(file)
        if found != oid.removesuffix(".dir"):
            audit.problems.append(_corrupt(CACHE, _shown(path), oid, found, owners, lock))


def check_remote(repo: Any, name: str, lock: Lock, audit: Audit, say: Say) -> None:
    """Every object of this commit that a remote has.

    Raises:
        InputError: there is no such remote.
        ToolError: it cannot be reached.
    """
    known = remote_names(repo)
    if name not in known:
        raise InputError(
            f'no DVC remote "{name}"{did_you_mean(name, known)} (known: '
            f"{', '.join(known) or 'none'})",
            remedy="dvc remote list",
        )
    store = repo.cloud.get_remote_odb(name)
    place, absent = f"remote {name}", 0
    try:
        owners = _owners(store, lock) | _owners(repo.cache.local, lock)
        for oid in sorted(owners):
            say(oid)
            found = _remote_md5(store, oid)
            if found is None:
                absent += 1
                continue
            audit.count(place)
            if found != oid.removesuffix(".dir"):
                shown = store.oid_to_path(oid)
                audit.problems.append(_corrupt(place, shown, oid, found, owners, lock))
    except OSError as error:
        raise ToolError(
            f"remote {name} cannot be read: {' '.join(str(error).split())[:300]}",
            remedy=f"dvc status -c -r {name}",
        ) from None
    if absent:
        audit.notes.append(f"{absent} objects of this commit are not in remote {name}: dvc push")


def _remote_md5(store: Any, oid: str) -> str | None:
    """md5 of an object's bytes, None when the remote does not have it."""
    try:
        with store.fs.open(store.oid_to_path(oid), "rb") as file:
            return md5_of(file)
    except FileNotFoundError:
        return None


def _owners(store: Any, lock: Lock) -> dict[str, str]:
    """Path of the out that each object of this commit belongs to, as far as `store` tells."""
    owners: dict[str, str] = {}
    for path, entry in lock.outs.items():
        if path.startswith("reports/"):
            continue  # in git, not in DVC's cache
        owners[entry.md5] = path
        if entry.is_folder:
            for inside, oid in _folder(store, entry.md5).items():
                owners.setdefault(oid, f"{path}/{inside}")
    return owners


def _folder(store: Any, oid: str) -> dict[str, str]:
    """Objects by path inside the folder a `.dir` object lists; empty where that is not readable."""
    try:
        with store.fs.open(store.oid_to_path(oid), "rb") as file:
            return {each["relpath"]: each["md5"] for each in json.load(file)}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _corrupt(
    place: str, shown: str, oid: str, found: str, owners: Mapping[str, str], lock: Lock
) -> Problem:
    owner = owners.get(oid, "")
    what = f"md5 {found}, its name says {oid.removesuffix('.dir')}"
    detail = f"{what}; it is {owner}" if owner else f"{what}; this commit does not use it"
    if place != CACHE:
        remedy = f"delete it there, then: dvc push -r {place.removeprefix('remote ')}"
        return Problem(place, shown, "changed", detail, lock.maker(owner), remedy)
    remake = lock.remake(_out(owner, lock)) if owner else ""
    remedy = f"rm -f {shown}" + (f" && {remake}" if remake else "")
    return Problem(place, shown, "changed", detail, lock.maker(owner), remedy)


def _out(path: str, lock: Lock) -> str:
    return next((out for out in lock.outs if path == out or path.startswith(f"{out}/")), path)


def _shown(path: Path) -> str:
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
