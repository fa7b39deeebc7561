"""Pin a source checkpoint or an adapter: a byte copy of the files that matter, and its identity.

From a local folder the files are copied; from the Hub they are fetched at one commit, into the
Hub's own cache (HF_HOME), and compared with the digests the Hub lists before they are copied.
Nothing is written at the destination unless everything was found whole and free of code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import JsonValue

from driftline import __version__
from driftline.conversions.checkpoint_lint import (
    JSON_LIMIT,
    Kind,
    belongs,
    check,
    code_problems,
    config_problems,
    lint,
    missing_problems,
    refuse,
    shard_names,
    walk,
)
from driftline.errors import InputError, RefusedError, ToolError
from driftline.files import new_directory
from driftline.project.sections.location import COMMIT, Location
from driftline.project.sections.reading import PARAMS_FILE
from driftline.schema.artifacts import ArtifactRecord, FileDigest
from driftline.store import digest
from driftline.store.safetensors_header import census

CHUNK = 2**20
LEFT_OUT_SHOWN = 20
HUB_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class _Found:
    """What to copy (name in the checkpoint to file), and how it was found."""

    files: Mapping[str, Path]
    left_out: tuple[str, ...]
    tool: str
    tool_version: str
    arguments: dict[str, JsonValue]


@dataclass(frozen=True)
class _Listed:
    """A file as the Hub lists it: size in bytes, git blob id, sha256 when it is stored in LFS."""

    size: int
    blob: str
    sha256: str | None


def pin(location: Location, kind: Kind, destination: Path, name: str) -> ArtifactRecord:
    """Make `destination` a verified copy of a checkpoint or an adapter.

    Args:
        location: a local folder, or a Hub repository at a 40-hex commit.
        kind: "source" or "adapter".
        destination: the folder to make; what was there before is replaced.
        name: the artifact's name in this project; the last part of an adapter's is its key under
            `adapters` in params.yaml.

    Returns:
        The record, with identity and census as read back from the copy.

    Raises:
        InputError: no such folder, repository or commit, or a revision that can move.
        RefusedError: files that could run code, are missing, malformed or not what the Hub lists.
        ToolError: the Hub cannot be reached or failed, or the copy did.
    """
    where = kind if kind == "source" else f"adapters.{name.rpartition('/')[2]}"
    if location.path is not None:
        checkpoint = _local(location.path, kind, where)
    else:
        checkpoint = _hub(str(location.repo), str(location.revision), kind, where)
    with new_directory(destination) as folder:
        files = _copy(checkpoint.files, folder)
        lint(folder, kind)
        counted = census(folder)
    return ArtifactRecord(
        name=name,
        kind=kind,
        conversion="pin",
        identity=digest.identity(files),
        files=files,
        parents=(),
        tool=checkpoint.tool,
        tool_version=checkpoint.tool_version,
        arguments=checkpoint.arguments,
        census=counted,
        notes=_notes(checkpoint.left_out),
    )


def _copy(files: Mapping[str, Path], folder: Path) -> tuple[FileDigest, ...]:
    """Copy, then read the copy back: a row per file."""
    read = {name: _copy_file(path, folder / name) for name, path in files.items()}
    rows = digest.rows(folder)
    if {row.path: row.sha256 for row in rows} != read:
        raise ToolError(
            f"{folder}: the copy is not what was read",
            remedy="check the disk (space, dmesg) and run again",
        )
    return rows


def _copy_file(path: Path, target: Path) -> str:
    """Copy one file and return the sha256 of what was read."""
    sha256 = hashlib.sha256()
    target.parent.mkdir(exist_ok=True)
    with path.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK):
            sha256.update(chunk)
            writer.write(chunk)
    return sha256.hexdigest()


def _notes(left_out: Iterable[str]) -> tuple[str, ...]:
    names = [name if name.isprintable() else repr(name) for name in sorted(left_out)]
    if not names:
        return ()
    more = f" and {len(names) - LEFT_OUT_SHOWN} more" if len(names) > LEFT_OUT_SHOWN else ""
    return (f"left out: {', '.join(names[:LEFT_OUT_SHOWN])}{more}",)


def _local(path: str, kind: Kind, where: str) -> _Found:
    folder = Path(path)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "not found"
        raise InputError(
            f"{where}.path: {path!r} {what}",
            remedy=f"correct {where}.path in {PARAMS_FILE}; it is relative to the project's top",
        )
    files, problems = walk(folder)
    refuse(path, problems + check(files, kind))
    kept = {name: file for name, file in files.items() if belongs(name)}
    return _Found(
        files=kept,
        left_out=tuple(files.keys() - kept.keys()),
        tool="driftline pin",
        tool_version=__version__,
        arguments={"path": path},
    )


# --------------------------------------------------------------------------------------- the Hub


def _hub(repo: str, revision: str, kind: Kind, where: str) -> _Found:
    """Fetch what belongs to the checkpoint, the small files first: weights only if those are fine.

    A file that was interrupted resumes within the run; a later run fetches again only the files
    that were not finished.
    """
    from huggingface_hub import __version__ as hub_version

    with _told(repo, where):
        if not COMMIT.fullmatch(revision):
            _refuse_moving(repo, revision, where)
        listed = _list(repo, revision)
        at = f"{repo} at {revision}"
        refuse(at, _listing_problems(listed, kind))
        small = [name for name in listed if belongs(name) and not name.endswith(".safetensors")]
        files = {name: _fetch(repo, revision, name, listed[name]) for name in small}
        refuse(at, config_problems(files))
        shards = shard_names(files, kind)
        refuse(at, _shard_problems(listed, shards, kind))
        files |= {name: _fetch(repo, revision, name, listed[name]) for name in sorted(shards)}
        refuse(at, check(files, kind))
    return _Found(
        files=files,
        left_out=tuple(listed.keys() - files.keys()),
        tool="huggingface-hub",
        tool_version=hub_version,
        arguments={"repo": repo, "revision": revision},
    )


def _list(repo: str, revision: str) -> dict[str, _Listed]:
    """Every file of the repository at a commit.

    Raises:
        ValueError: the answer is of another commit, or lacks a size or a digest.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=HUB_TIMEOUT_S)
    if info.sha != revision:
        raise ValueError(f"the Hub answered with commit {info.sha} when asked for {revision}")
    listed = {}
    for file in info.siblings or ():
        if file.size is None or file.blob_id is None:
            raise ValueError(f"the Hub lists {file.rfilename!r} without its size or digest")
        sha256 = file.lfs.sha256 if file.lfs else None
        listed[file.rfilename] = _Listed(size=file.size, blob=file.blob_id, sha256=sha256)
    return dict(sorted(listed.items()))


def _listing_problems(listed: Mapping[str, _Listed], kind: Kind) -> list[str]:
    """What the names and sizes alone say; pickles beside Safetensors are simply not fetched."""
    large = [
        f"{name!r}: {file.size} bytes, more than {JSON_LIMIT}"
        for name, file in listed.items()
        if belongs(name) and not name.endswith(".safetensors") and file.size > JSON_LIMIT
    ]
    return code_problems(listed) + missing_problems(listed, kind) + large


def _shard_problems(listed: Mapping[str, _Listed], shards: set[str], kind: Kind) -> list[str]:
    problems = [f"{name!r}: missing" for name in shards - listed.keys()]
    if kind == "source" and "model.safetensors" in listed.keys() - shards:
        # Transformers would load the one, other runtimes the shards: two checkpoints in one.
        problems.append("'model.safetensors': extra, beside an index that names other shards")
    return problems


def _fetch(repo: str, revision: str, name: str, listed: _Listed) -> Path:
    """One file in the Hub's cache, as listed; a stale or flipped copy there is fetched again.

    Raises:
        RefusedError: what the Hub sends is not what it lists.
    """
    from huggingface_hub import hf_hub_download

    for force in (False, True):
        fetched = hf_hub_download(repo, name, revision=revision, force_download=force)
        path = Path(fetched).resolve()
        if _is_as_listed(path, listed):
            return path
    raise RefusedError(
        f"{repo} at {revision}: {name!r} is not what the Hub lists, fetched twice:\n"
        f"  expected {listed.size} bytes, {_expected(listed)}\n"
        f"  found    {path.stat().st_size} bytes, sha256 {digest.sha256_file(path)}",
        remedy="run again; if it stays, a proxy or mirror (HF_ENDPOINT) alters files",
    )


def _expected(listed: _Listed) -> str:
    return f"sha256 {listed.sha256}" if listed.sha256 else f"git blob {listed.blob}"


def _is_as_listed(path: Path, listed: _Listed) -> bool:
    if path.stat().st_size != listed.size:
        return False
    if listed.sha256 is not None:
        return digest.sha256_file(path) == listed.sha256
    return _git_blob(path) == listed.blob


def _git_blob(path: Path) -> str:
    """Git's id of a small file's bytes. Source: https://git-scm.com/book/en/v2 (10.2)."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()


def _refuse_moving(repo: str, revision: str, where: str) -> NoReturn:
    """Say which commit a branch, a tag or a short commit is now.

    Raises:
        InputError: always.
    """
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    problem = f"{where}.revision: {revision!r} can move; expected a 40-hex commit of {repo}"
    try:
        commit = HfApi().model_info(repo, revision=revision, timeout=HUB_TIMEOUT_S).sha
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except (httpx2.HTTPError, OSError) as error:
        raise InputError(
            f"{problem}\n  (the Hub could not be asked: {_one_line(error)})",
            remedy=f"`git ls-remote {constants.ENDPOINT}/{repo} {revision}` prints it; "
            f"write it as {where}.revision in {PARAMS_FILE}",
        ) from None
    raise InputError(
        f"{problem}\n  {revision!r} is at this moment {commit}",
        remedy=f"write in {PARAMS_FILE}, under {where}:\n\n    revision: {commit}\n",
    )


@contextmanager
def _told(repo: str, where: str) -> Iterator[None]:
    """Turn what the Hub's client raises into this project's errors.

    Raises:
        InputError: no such repository, revision or file for this user.
        ToolError: the Hub cannot be reached, or failed.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{where}.revision: {repo} has no such revision ({_one_line(error)})",
            remedy=f"correct {where}.revision in {PARAMS_FILE}",
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(
            f"{where}.repo: {repo!r} is not on the Hub for you ({_one_line(error)})",
            remedy=f"correct {where}.repo in {PARAMS_FILE}; for a private or gated repository ask "
            "for access and set HF_TOKEN",
        ) from None
    # ValueError: not an answer the client can read; RuntimeError: what hf-xet raises.
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, RuntimeError) as error:
        raise ToolError(
            f"{where}: fetching {repo} failed: {_one_line(error)}",
            remedy="run again when the Hub can be reached; finished files are not fetched again",
        ) from None


def _one_line(error: Exception) -> str:
    """The client's message, shortened, without the query of a URL: that may hold a signature."""
    text = re.sub(r"\?[^\s'\"]*", "", " ".join(str(error).split())) or type(error).__name__
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= 200 else f"{text[:200]}…"


def check_location(location: Location, kind: Kind, where: str) -> None:
    """What `pin` would refuse before it fetches anything; the Hub is asked for a branch only.

    Raises:
        InputError: the folder is not there, or the revision is not a commit.
        RefusedError: something in the folder must not be loaded.
    """
    if location.path is not None:
        _local(location.path, kind, where)
    elif not COMMIT.fullmatch(str(location.revision)):
        with _told(str(location.repo), where):
            _refuse_moving(str(location.repo), str(location.revision), where)
