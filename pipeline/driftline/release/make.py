"""Making releases: the evidence of HEAD, checked against HEAD, frozen under a name.

Everything is read from git's objects at HEAD, nothing from the working tree: a release is of a
commit. It is refused where the commit contradicts itself (evidence made with other params.yaml or
evalsets than it has), or where the working tree has something else than the commit, because
whoever releases then means something else than what they would get.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from driftline.errors import DriftlineError, InputError, RefusedError, ToolError
from driftline.evidence import history, lineage
from driftline.evidence.history import RELEASES, GitTree
from driftline.evidence.lineage import Evidence
from driftline.files import new_directory, write_text
from driftline.gate import blessings, evaluation, judgement, policy
from driftline.golden import evalset
from driftline.project import params
from driftline.release import bom, cards, contents, signatures, statements
from driftline.report import release as page
from driftline.schema.gate import GateReport
from driftline.schema.release import ReleaseRecord
from driftline.schema.values import canonical, canonical_json
from driftline.store.digest import sha256_text

WATCHED = (history.FOLDER.as_posix(), "dvc.lock", "params.yaml", evalset.FOLDER.as_posix())
"""What the working tree must have as HEAD has it."""
MOST_SHOWN = 20
AGAIN = "driftline run, then: git add dvc.lock reports && git commit"

Texts = Mapping[str, str]
"""Files of a release by path from the releases' folder."""


@dataclass(frozen=True)
class Made:
    """A release that now lies in the working tree: `written` False when it did already, the same.

    `unsigned` says that a signature of what was there before was removed.
    """

    record: ReleaseRecord
    paths: tuple[str, ...]
    written: bool
    unsigned: bool = False


def make(name: str, *, force: bool = False) -> Made:
    """Write the release of HEAD.

    Args:
        name: of the release.
        force: replace a release of this name that has another content.

    Raises:
        InputError: the name could not be one, or HEAD's params.yaml is none.
        RefusedError: HEAD's evidence is not that of HEAD, the working tree differs from HEAD, or
            there is a release of this name with another content.
        ToolError: git failed.
    """
    contents.checked_name(name)
    commit = _head()
    _refuse_uncommitted()
    lock = _blob(commit, "dvc.lock")
    evidence = lineage.read(GitTree(commit, "HEAD"))
    _refuse_other_params(commit, evidence)
    _refuse_other_evalsets(commit, evidence)
    record = contents.release(
        name, commit, evidence, hashlib.sha256(lock).hexdigest(), _gate(commit, evidence)
    )
    texts = files_of(record, evidence)
    paths = tuple(f"{RELEASES.as_posix()}/{path}" for path in texts)
    different = _differences(name, texts)
    if not different:
        return Made(record, paths, written=False)
    if not force:
        _refuse_to_replace(record, different)
    return Made(record, paths, written=True, unsigned=_write(name, texts))


def _gate(commit: str, evidence: Evidence) -> GateReport:
    """HEAD's evidence against its policy and blessings, as of its own date.

    A blessing expires; whether one had when the commit was made is a fact of the commit.
    """
    project = params.parse(_yaml(commit, "params.yaml"), where="HEAD:params.yaml")
    given = judgement.accepted_at(commit, where="HEAD:")
    today = date.fromisoformat(history.git("show", "-s", "--format=%cs", commit))
    return evaluation.evaluate(policy.policy(project), evidence, given, today=today)


def files_of(record: ReleaseRecord, evidence: Evidence) -> Texts:
    """Every file of a release but its signature, by path from the releases' folder."""
    name = record.name
    texts = {
        f"{name}.json": _json(record.model_dump(mode="json")),
        f"{name}.md": page.render(record),
        f"{name}/bom.cdx.json": _json(bom.bom(record)),
    }
    for path, statement in statements.statements(evidence).items():
        texts[f"{name}/attestations/{path}"] = _json(statement)
    for path, card in cards.cards(record).items():
        texts[f"{name}/cards/{path}"] = card
    return texts


def _json(value: Any) -> str:
    """Canonical JSON as `schema.values.dump` writes it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1)
    return f"{text}\n"


# ---------------------------------------------------------------------------------- HEAD, and not


def _head() -> str:
    try:
        return history.git("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except ToolError as error:
        raise InputError(
            f"there is no commit to release here: {error.message}",
            remedy="driftline run, then: git add . && git commit   (in a git repository)",
        ) from None


def _refuse_uncommitted() -> None:
    """Refuse a working tree that has something else than HEAD.

    Raises:
        RefusedError: files that HEAD does not have, or has otherwise, are named.
    """
    differing = tuple(_uncommitted())
    if differing:
        lines = [f"{what:8} {path}" for what, path in differing]
        accepted = blessings.FILE.as_posix()
        paths = (*WATCHED, *(path for _, path in differing if path == accepted))
        raise RefusedError(
            f"the working tree is not HEAD, and a release is of HEAD:\n  {_shown(lines)}",
            remedy=f"git add {' '.join(paths)} && git commit   (or take HEAD's: "
            f"git checkout HEAD -- {' '.join(paths)})",
        )


def _uncommitted() -> Iterator[tuple[str, str]]:
    """What is extra, missing or changed against HEAD, from the project's top."""
    prefix = history.git("rev-parse", "--show-prefix")
    told = history.git(
        *("--no-optional-locks", "status", "--porcelain", "-z"),
        *("--untracked-files=all", "--no-renames", "--", *WATCHED, blessings.FILE.as_posix()),
    )
    for line in told.split("\0"):
        if line:
            status, path = line[:2], line[3:].removeprefix(prefix)
            if "D" in status:
                yield "missing", path
            else:
                yield ("extra" if status[0] in "?A" else "changed"), path


def _blob(commit: str, path: str) -> bytes:
    """A file of the project at a commit.

    Raises:
        RefusedError: it has none there.
    """
    done = subprocess.run(
        ["git", "cat-file", "blob", f"{commit}:./{path}"], capture_output=True, check=False
    )
    if done.returncode:
        raise RefusedError(
            f"HEAD has no {path}", remedy=f"git add {path} && git commit   (made by: driftline run)"
        )
    return done.stdout


def _refuse_other_params(commit: str, evidence: Evidence) -> None:
    """Refuse evidence that was made with another params.yaml than HEAD's.

    Keys that the stage `lineage` does not depend on change no result (`limits.deadline_s`): it does
    not run again for them, so they may differ.
    """
    project = params.parse(_yaml(commit, "params.yaml"), where="HEAD:params.yaml")
    here = dict(_leaves(project.model_dump(mode="json")))
    there = dict(_leaves(evidence.index.params))
    read = tuple(f"{key}." for key in _keys_of_lineage(commit))
    lines = [
        f"{key}: {there.get(key, 'not there')} then, {here.get(key, 'not there')} now"
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key) and f"{key}.".startswith(read)
    ]
    if lines:
        raise RefusedError(
            f"HEAD's evidence was made with another params.yaml:\n  {_shown(lines)}", remedy=AGAIN
        )


def _keys_of_lineage(commit: str) -> tuple[str, ...]:
    """Keys of params.yaml that the stage which writes the evidence depends on."""
    try:
        return tuple(str(key) for key in _yaml(commit, "dvc.yaml")["stages"]["lineage"]["params"])
    except (KeyError, TypeError):
        raise RefusedError(
            "HEAD:dvc.yaml has no stage lineage with params",
            remedy="take dvc.yaml from the driftline that made the evidence, and commit it",
        ) from None


def _yaml(commit: str, path: str) -> Any:
    try:
        return yaml.safe_load(_blob(commit, path).decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"HEAD:{path}: not YAML: {error}", remedy="correct and commit it"
        ) from None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """`outer.inner` and the value there as JSON."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, canonical_json(value)


def _refuse_other_evalsets(commit: str, evidence: Evidence) -> None:
    """Refuse evidence that was made with other golden prompts than HEAD's."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (each.name for each in evidence.index.evalsets):
            path = Path(folder) / f"{name}.jsonl"
            path.write_bytes(_blob(commit, evalset.path_of(name).as_posix()))
            here = _items(path, folder)
            there = {item.id: item.sha256 for item in evidence.evalset(name).values()}
            lines += [f"extra    {name}/{id_}" for id_ in sorted(here.keys() - there.keys())]
            lines += [f"missing  {name}/{id_}" for id_ in sorted(there.keys() - here.keys())]
            lines += [
                f"changed  {name}/{id_}"
                for id_ in sorted(here.keys() & there.keys())
                if here[id_] != there[id_]
            ]
    if lines:
        raise RefusedError(
            f"HEAD's evidence was made with other golden prompts:\n  {_shown(lines)}",
            remedy=AGAIN,
        )


def _items(path: Path, folder: str) -> dict[str, str]:
    """Digests of an evalset's items by id, as the lineage stage makes them."""
    try:
        return {item.id: sha256_text(canonical(item)) for item in evalset.load([path])}
    except InputError as error:
        told = error.message.replace(f"{folder}/", f"HEAD:{evalset.FOLDER.as_posix()}/")
        raise InputError(told, remedy=error.remedy) from None


# ---------------------------------------------------------------------------------------- writing


def _differences(name: str, texts: Texts) -> list[str]:
    """Files of the release of that name that are not these, each as a line."""
    folder = RELEASES / name
    inside = {
        path.relative_to(RELEASES).as_posix() for path in folder.rglob("*") if not path.is_dir()
    }
    lines = [f"extra    {path}" for path in sorted(inside - texts.keys())]
    for path, text in texts.items():
        file = RELEASES / path
        if not file.is_file():
            lines.append(f"missing  {path}")
        elif file.read_bytes() != _bytes(text):
            lines.append(f"changed  {path}")
    return lines


def _bytes(text: str) -> bytes:
    """As `files.write_text` writes them."""
    return text.encode("utf-8", "backslashreplace")


def _refuse_to_replace(record: ReleaseRecord, different: list[str]) -> None:
    """Refuse to replace a release, unless it was never finished."""
    path = RELEASES / f"{record.name}.json"
    if not path.is_file():
        return
    raise RefusedError(
        f"{path}: there is a release of this name with another content, {_of(record.name)}; "
        f"this one is of {record.commit}:\n  {_shown(different)}",
        remedy=f"choose another name, or replace it: driftline release {record.name} --force",
    )


def _of(name: str) -> str:
    try:
        return f"of {history.commit_of(name)}"
    except DriftlineError:
        return "which is no record of this version"


def _shown(lines: list[str]) -> str:
    more = [f"and {len(lines) - MOST_SHOWN} more"] if len(lines) > MOST_SHOWN else []
    return "\n  ".join([*lines[:MOST_SHOWN], *more])


def _write(name: str, texts: Texts) -> bool:
    """Write a release, its record last; whether a signature of the one before was removed."""
    signature = signatures.path_of(name)
    unsigned = signature.is_file()
    (RELEASES / f"{name}.json").unlink(missing_ok=True)
    signature.unlink(missing_ok=True)
    with new_directory(RELEASES / name) as folder:
        for path, text in texts.items():
            if path.startswith(f"{name}/"):
                write_text(folder / path.removeprefix(f"{name}/"), text)
    write_text(RELEASES / f"{name}.md", texts[f"{name}.md"])
    write_text(RELEASES / f"{name}.json", texts[f"{name}.json"])
    return unsigned
