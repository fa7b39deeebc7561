"""A git worktree that mixes the inputs of two commits, and `dvc repro` in it.

It shares DVC's cache with the project and writes nothing else of it: neither its files, nor
dvc.lock, nor git's index. It is gone when its block ends; a killed run's is removed by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from driftline.bisect import mixing
from driftline.bisect.question import MESSAGE, Question, Side, json_at
from driftline.bisect.search import Mix
from driftline.errors import ToolError
from driftline.evidence import history
from driftline.machines import imported
from driftline.probe import environment
from driftline.project import params, routes
from driftline.project.params import Params
from driftline.project.sections.reading import PARAMS_FILE
from driftline.schema.values import canonical_json
from driftline.store import records
from driftline.verify import objects

LOCAL = Path(".driftline")
PREFIX = "bisect-"
ENVIRONMENT = ".venv"
"""Looked for beside the project: a runtime's own software."""
GIT = ("-c", f"core.hooksPath={os.devnull}", "--literal-pathspecs")
GRACE_S = 10.0


@dataclass(frozen=True)
class Repro:
    """One `dvc repro`: exit code, stages that ran (not the probe) or were restored, last words."""

    code: int = 0
    executed: int = 0
    restored: int = 0
    reason: str = ""


def repro(tree: Tree, stages: tuple[str, ...], say: Callable[[str], None]) -> Repro:
    """Run stages in the worktree; `say` is called with the name of each that is not cached."""
    executed, restored, lines = 0, 0, []
    command = [sys.executable, "-m", "dvc", "repro", *dict.fromkeys(stages)]
    with _process(command, tree.folder, tree.environment) as process:
        for line in process.stdout or ():
            lines.append(line.strip())
            stage = line.partition("'")[2].partition("'")[0]
            if line.startswith("Running stage '"):
                executed += not stage.endswith(":probe")
                say(stage)
            restored += "' is cached - skipping run" in line
        code = process.wait()
    return Repro(code, executed, restored, _reason(lines) if code else "")


def _reason(lines: list[str]) -> str:
    """Why `dvc repro` failed: what the stage said of it, else what DVC said, else its last line."""
    for marks in (("error: ", "refused: "), ("ERROR: ",)):
        said = [line for line in lines if line.startswith(marks)]
        if said:
            return said[-1][:MESSAGE]
    return next((line for line in reversed(lines) if line), "dvc repro failed")[:MESSAGE]


@contextmanager
def _process(
    command: list[str], folder: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A process group of its own, gone when the block ends, however it ends."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout:
            process.stdout.close()


@contextmanager
def stopped_cleanly() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does: the worktree is removed."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Tree:
    """A worktree in which each input is GOOD's or BAD's."""

    def __init__(self, folder: Path, question: Question, env: Mapping[str, str]) -> None:
        """Take over `folder`, which has BAD checked out."""
        self.folder, self.question, self.environment = folder, question, env
        self._owner = {path: group.name for group in question.groups for path in group.paths}
        self._at = dict.fromkeys((*self._owner, str(PARAMS_FILE)), question.bad.commit)

    def mix(self, mix: Mix) -> Params:
        """Make the worktree that mix, and return its parameters.

        Raises:
            InputError: the parameters of the two sides do not go together.
        """
        good, bad = self.question.good, self.question.bad
        data = mixing.mixed(good.data, bad.data, self.question.groups, mix)
        project = params.parse(data, where=f"{PARAMS_FILE} of this mix")
        wanted = {
            path: bad.commit if name in mix else good.commit for path, name in self._owner.items()
        }
        whole = {canonical_json(side.data): side.commit for side in (good, bad)}
        wanted[str(PARAMS_FILE)] = whole.get(canonical_json(data), "")
        for side in (good, bad):
            self._take(side, [path for path, commit in wanted.items() if commit == side.commit])
        if not wanted[str(PARAMS_FILE)]:
            self._write(str(PARAMS_FILE), _yaml(data))
        for group in self.question.groups:
            for path, keys in group.parts:
                self._merge(path, keys, bad if group.name in mix else good)
        return project

    def _take(self, side: Side, paths: list[str]) -> None:
        """Files of one commit, those that are not there already."""
        stale = [path for path in paths if self._at[path] != side.commit]
        there = [path for path in stale if path in side.paths]
        if there:
            history.git(*GIT, "checkout", "--quiet", side.commit, "--", *there, folder=self.folder)
        for path in set(stale) - set(there):
            (self.folder / path).unlink(missing_ok=True)
        self._at.update(dict.fromkeys(stale, side.commit))

    def _merge(self, path: str, keys: tuple[str, ...], side: Side) -> None:
        """Some keys of a JSON file as `side` has them, the others as they are."""
        if self._at[path] == side.commit:
            return
        made, own = json_at(self._at[path], path), json_at(side.commit, path)
        for key in keys:
            made.pop(key, None)
            if key in own:
                made[key] = own[key]
        self._write(path, json.dumps(made, indent=2, ensure_ascii=False) + "\n")

    def _write(self, path: str, text: str) -> None:
        self._at[path] = ""
        (self.folder / path).write_text(text, encoding="utf-8")


class _Quoted(yaml.SafeDumper):
    """YAML in which every text is quoted: `1e3` is a text to one reader and a number to another."""


_Quoted.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


def _yaml(data: Mapping[str, Any]) -> str:
    text: str = yaml.dump(data, Dumper=_Quoted, sort_keys=False, allow_unicode=True, width=1000)
    return text


@contextmanager
def worktree(question: Question) -> Iterator[Tree]:
    """A worktree of BAD under `.driftline`, gone when the block ends.

    It lies in the project so that DVC can link to its cache instead of copying.
    """
    _clear_left_over()
    LOCAL.mkdir(exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=LOCAL)).absolute()
    tree = home / "tree"
    try:
        history.git(*GIT, "worktree", "add", "--quiet", "--detach", str(tree), question.bad.commit)
        folder = tree / history.git("rev-parse", "--show-prefix")
        env = _environment(question, home, folder)
        _share(folder, env)
        own = (environment.software_of(name).venv for name in routes.targets())
        for name in (ENVIRONMENT, *filter(None, own), *_not_in_git(question)):
            _link(Path(name), folder / name)
        attempts = records.ARTIFACTS / "attempts"
        if attempts.is_dir():  # a cell that was retried here is not run again there
            shutil.copytree(attempts, folder / attempts, dirs_exist_ok=True)
        yield Tree(folder, question, env)
    finally:
        _remove(home)


def _environment(question: Question, home: Path, folder: Path) -> dict[str, str]:
    """This Python first, because stages are `python -m …`; DVC's own notes are thrown away.

    Where the project is a checkout of driftline, its stages run the code of the worktree.

    Every cell is run here, also one that another machine makes for the project.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **kept,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        **({"PYTHONPATH": str(code)} if (code := folder / "pipeline").is_dir() else {}),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_NO_ANALYTICS": "1",
        imported.ONLY: ",".join(routes.movable()),
    }


def _share(folder: Path, env: Mapping[str, str]) -> None:
    """Let the worktree use the project's DVC cache, and link to it in the same way."""
    with objects.repository() as repo:
        settings = {"cache.dir": repo.cache.local_cache_dir}
        if types := repo.config["cache"].get("type"):
            settings["cache.type"] = ",".join(types)
    for name, value in settings.items():
        command = [sys.executable, "-m", "dvc", "config", "--local", name, value]
        done = subprocess.run(
            command, cwd=folder, env=dict(env), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ToolError(
                f"DVC does not work in a worktree of {folder.name}: {done.stderr.strip()}",
                remedy="commit .dvc/config: the worktree needs it",
            )


def _not_in_git(question: Question) -> Iterator[str]:
    """Local folders and corpora of either side that neither commit holds, but the project does."""
    tracked = question.good.paths | question.bad.paths
    for side in (question.good, question.bad):
        project = side.project
        places = [project.source, *project.adapters.values()]
        paths = [place.path for place in places]
        paths += [corpus.path for corpus in project.distributions.corpora.values()]
        for path in map(mixing.normal, paths):
            known = any(each == path or each.startswith(f"{path}/") for each in tracked)
            if path and not known and not Path(path).is_absolute() and ".." not in Path(path).parts:
                yield path


def _link(here: Path, there: Path) -> None:
    if here.exists() and not there.exists() and not there.is_symlink():
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(here.absolute())


def _remove(home: Path) -> None:
    """Remove a worktree from disk and from git's list."""
    tree = home / "tree"
    with contextlib.suppress(ToolError):
        history.git(*GIT, "worktree", "remove", "--force", "--force", str(tree))
    shutil.rmtree(home, ignore_errors=True)


def _clear_left_over() -> None:
    """Worktrees of runs that were killed before they could remove theirs."""
    for home in LOCAL.glob(f"{PREFIX}*-*"):
        pid = home.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            _remove(home.absolute())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
