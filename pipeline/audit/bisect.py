"""`driftline bisect`: mixes of two commits' inputs, run in a worktree of their own and measured.

The worktree shares DVC's cache with the project: a stage that already ran on the same inputs, in
the project or in an earlier mix, is restored from DVC's run-cache, and what a mix makes is kept
there. Nothing else of the project is written: neither its files, nor dvc.lock, nor git's index.
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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline import cells, digest, environment, history, imports, params, plan, records, texts
from pipeline.audit import objects
from pipeline.drift.statistics import distribution_drift
from pipeline.errors import DriftlineError, InputError, ToolError, did_you_mean
from pipeline.grade import grade
from pipeline.lineage import bisection, graph, inputs
from pipeline.lineage.bisection import Found, Group, Mix, Moved, MovedHop
from pipeline.lineage.evidence import Evidence
from pipeline.params import PARAMS_FILE, Params
from pipeline.progress import progress
from pipeline.schema.cells import CellRecord
from pipeline.schema.values import canonical_json

LOCAL = Path(".driftline")
PREFIX = "bisect-"
ENVIRONMENTS = (".venv", ".venv-vllm")
"""Looked for beside the project: a runtime's own software."""
NOT_SWAPPED = ("package", "runtime", "hardware")
"""Kinds of inputs that no file of a commit holds."""
MAKES_NO_ANSWER = ("grade", "drift", "lineage", "report", "control", "counterfactual")
"""Stages whose code is no part of a cell's answers and distributions."""
GIT = ("-c", f"core.hooksPath={os.devnull}", "--literal-pathspecs")
GRACE_S = 10.0
MESSAGE = 300
"""Characters of a failed run's message, at most."""

Say = Callable[["Run"], None]

# ---------------------------------------------------------------------------------------- question


@dataclass(frozen=True)
class Side:
    """One of the two commits: `data` is its params.yaml as YAML has it, `paths` its files."""

    name: str
    commit: str
    evidence: Evidence
    data: Mapping[str, Any]
    project: Params
    paths: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class Question:
    """Two commits, the inputs that differ, and what moved between them.

    Exactly one of `targets` and `hop` says what is measured: how many verdicts are no longer
    correct, or the mean KL of a hop. `untestable` are inputs that differ and cannot be swapped,
    `notes` what to know of the answer. `same_here`: what is installed is what both were made with,
    so that both ends need no run.
    """

    good: Side
    bad: Side
    groups: tuple[Group, ...]
    targets: tuple[Moved, ...]
    hop: MovedHop | None
    untestable: tuple[str, ...]
    notes: tuple[str, ...]
    same_here: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells that have to be scored."""
        hop = (self.hop.parent, self.hop.child) if self.hop else ()
        wanted = {*hop, *(target.cell for target in self.targets)}
        return tuple(cell for cell in self.bad.evidence.cells if cell in wanted)


def ask(
    good: str,
    bad: str,
    *,
    only_cells: tuple[str, ...] = (),
    only_items: tuple[str, ...] = (),
    by: str | None = None,
) -> Question:
    """What there is to find out between two commits; nothing is run.

    Args:
        good: a release or git revision.
        bad: a later or worse one.
        only_cells: cells whose verdicts (or whose hop) count, all when empty.
        only_items: golden prompts (`evalset/id`) whose verdicts count, all when empty.
        by: "verdict" or "kl"; None for verdicts, and KL where none moved.

    Raises:
        InputError: no such revision, cell or item, nothing changed, or nothing moved.
        RefusedError: there is no evidence at one of them, or it was edited.
    """
    before, after = _side(good), _side(bad)
    if before.commit == after.commit:
        raise InputError(
            f"{good} and {bad} are the same commit {before.commit[:12]}",
            remedy="driftline bisect GOOD BAD, two commits with different evidence",
        )
    _check_cells(only_cells, before, after)
    changed = _changed(before, after)
    groups = bisection.groups(
        before.data,
        after.data,
        changed,
        json_keys=_json_keys(before, after, changed),
        code=_code_differs(before.evidence, after.evidence, changed),
    )
    untestable = tuple(_untestable(before.evidence, after.evidence, groups))
    if not groups:
        listed = "".join(f"\n  {line}" for line in untestable)
        raise InputError(
            f"nothing changed between {good} and {bad} that could be swapped{listed}",
            remedy=f"driftline compare {good} {bad}   (what differs at all)",
        )
    targets, hop = _moved(before, after, only_cells, only_items, by)
    stale = (*_stale(before), *_stale(after))
    other = tuple(_installed(before, after, targets, hop))
    return Question(
        before,
        after,
        groups,
        targets,
        hop,
        untestable,
        notes=(*stale, *_graders(before.evidence, after.evidence, targets), *other),
        same_here=not (untestable or stale or other),
    )


def _side(name: str) -> Side:
    commit = history.commit_of(name)
    evidence = history.at(name)
    try:
        data = yaml.safe_load(history.git("show", f"{commit}:./{PARAMS_FILE}"))
    except (ToolError, yaml.YAMLError) as error:
        raise InputError(
            f"{name}: no readable {PARAMS_FILE}: {_one_line(str(error))}",
            remedy="name a commit of this project",
        ) from None
    project = params.parse(data, where=f"{name}:{PARAMS_FILE}")
    listed = history.git("ls-tree", "-r", "-z", "--name-only", commit)
    return Side(name, commit, evidence, data, project, frozenset(listed.split("\0")) - {""})


def _changed(good: Side, bad: Side) -> tuple[str, ...]:
    """Files that differ, relative to the project."""
    found = history.git(
        "diff-tree",
        "-r",
        "-z",
        "--no-renames",
        "--relative",
        "--name-only",
        good.commit,
        bad.commit,
    )
    return tuple(path for path in found.split("\0") if path)


def _json_keys(good: Side, bad: Side, changed: Iterable[str]) -> dict[str, frozenset[str]]:
    """Top-level keys that differ, of tokenizer configs that both sides have."""
    found = {}
    for path in changed:
        if path.endswith(bisection.TOKENIZER_CONFIG) and path in good.paths & bad.paths:
            was, now = _json(good.commit, path), _json(bad.commit, path)
            keys = was.keys() | now.keys()
            found[path] = frozenset(key for key in keys if was.get(key) != now.get(key))
    return found


def _json(commit: str, path: str) -> dict[str, Any]:
    """A JSON object of a commit; an empty one where it is none."""
    try:
        found = json.loads(history.git("show", f"{commit}:./{path}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _code_differs(good: Evidence, bad: Evidence, changed: Iterable[str]) -> bool:
    """Whether the code that makes answers differs, or the stages themselves."""
    was, now = good.index.code, bad.index.code
    stages = (was.keys() | now.keys()) - set(MAKES_NO_ANSWER)
    return any(was.get(stage) != now.get(stage) for stage in stages) or any(
        path in bisection.CODE for path in changed
    )


def _untestable(good: Evidence, bad: Evidence, groups: tuple[Group, ...]) -> Iterator[str]:
    """Inputs whose records differ and that no group holds."""
    names = {group.name for group in groups}
    for change in inputs.changes(good, bad):
        sides = f"{change.before or 'none'} → {change.after or 'none'}"
        if change.kind in NOT_SWAPPED:
            yield f"{change.label}: {sides}: what is installed runs every mix"
        wanted = {
            "source": {"source", "tokenizer", "template"},
            "adapter": {f"adapter {change.name}"},
            "corpus": {"corpora"},
        }.get(change.kind)
        if wanted and not wanted & names:
            yield f"{change.label}: {sides}: its files are not in git: the working tree's run"


def _check_cells(wanted: Iterable[str], good: Side, bad: Side) -> None:
    shared = bisection.shared_cells(good.evidence, bad.evidence)
    for name in wanted:
        if name not in shared:
            one = [side.name for side in (good, bad) if name in side.evidence.cells]
            why = f"only {one[0]} has it" if one else "no such cell" + did_you_mean(name, shared)
            raise InputError(
                f'--cell "{name}": {why}', remedy=f"name one of: {', '.join(shared) or 'none'}"
            )


def _moved(
    good: Side, bad: Side, only_cells: tuple[str, ...], only_items: tuple[str, ...], by: str | None
) -> tuple[tuple[Moved, ...], MovedHop | None]:
    """What is measured: verdicts, or else a hop."""
    if by == "kl":
        if only_items:
            raise InputError(
                "--item is about verdicts, --by kl about a whole hop",
                remedy="leave one of them out",
            )
        return (), _hop(good, bad, only_cells, "")
    everything = bisection.moved(good.evidence, bad.evidence)
    found = [each for each in everything if not only_cells or each.cell in only_cells]
    known = sorted({each.key for each in found})
    for key in only_items:
        if key not in known:
            raise InputError(
                f'--item "{key}": its verdict did not move from correct{did_you_mean(key, known)}',
                remedy=f"moved: {', '.join(known[:10]) or 'none'}",
            )
    found = [each for each in found if not only_items or each.key in only_items]
    if found:
        return tuple(found), None
    none = f"no verdict moved from correct between {good.name} and {bad.name}"
    none += _elsewhere(good, bad, len(everything))
    if by == "verdict":
        raise InputError(none, remedy=f"driftline bisect {good.name} {bad.name} --by kl")
    return (), _hop(good, bad, only_cells, f"{none}, and ")


def _elsewhere(good: Side, bad: Side, all_moved: int) -> str:
    """What moved in other cells, or the other way."""
    if all_moved:
        return f" in these cells ({all_moved} did in others)"
    back = len(bisection.moved(bad.evidence, good.evidence))
    turned = f"driftline bisect {bad.name} {good.name}"
    return f" ({back} moved to correct: {turned} asks why)" if back else ""


def _hop(good: Side, bad: Side, only_cells: tuple[str, ...], before: str) -> MovedHop:
    """The hop that grew most; `before` is said where none did."""
    for hop in bisection.moved_hops(good.evidence, bad.evidence):
        if not only_cells or hop.child in only_cells:
            return hop
    raise InputError(
        f"{before}no hop's mean KL grew by {bisection.KL_MOVED - 1:.0%}",
        remedy=f"driftline compare {good.name} {bad.name}   (what differs at all)",
    )


def _stale(side: Side) -> tuple[str, ...]:
    """A note where the evidence of a commit is not that of its params.yaml."""
    said = f"{side.name}: reports/lineage was made with another params.yaml than the commit's"
    try:
        made = params.parse(dict(side.evidence.index.params), where=side.name)
    except InputError:
        return (said,)
    return () if made == side.project else (said,)


def _graders(good: Evidence, bad: Evidence, targets: tuple[Moved, ...]) -> Iterator[str]:
    same = sum(target.same_answer for target in targets)
    if same:
        what = "the check"
        if good.index.code.get("grade") != bad.index.code.get("grade"):
            what += ", or the grading code, which differs (every mix is graded by this driftline)"
        yield f"{same} of {len(targets)} answers are the same token for token: there {what} moved"


def _installed(
    good: Side, bad: Side, targets: tuple[Moved, ...], hop: MovedHop | None
) -> Iterator[str]:
    """A note per runtime and commit that was run with other software than is installed."""
    wanted = {params.ROOT_CELL, *(target.cell for target in targets)}
    wanted |= {hop.parent, hop.child} if hop else set()
    for side in (good, bad):
        runs = {side.evidence.cells[c].cell.runtime: side.evidence.cells[c] for c in wanted}
        for runtime, record in runs.items():
            made = json.loads(side.evidence.environment(record.environment_sha256))
            here = environment.probe(runtime, threads=side.project.limits.threads)
            differing = inputs.environment_differences(made, here)
            said = [f"{' '.join(key)} {was} → {now}" for key, (was, now, _) in differing.items()]
            if said:
                yield f"{runtime} here is not {side.name}'s: {'; '.join(said)}"


# ------------------------------------------------------------------------------------------ answer


@dataclass(frozen=True)
class Run:
    """One mix that was run: what it was, what it cost, what was measured.

    `wrong` are the targets that are not correct, `kl` the mean KL of the hop; where neither is
    there, `problem` says why. `executed` stages ran (the probe aside), `restored` ones came from
    DVC's run-cache.
    """

    number: int
    mix: Mix
    bad: bool | None
    wrong: frozenset[tuple[str, str]] | None
    kl: float | None
    executed: int
    restored: int
    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Answer:
    """Who was found guilty, and every run."""

    question: Question
    found: Found
    runs: tuple[Run, ...]

    def wrong(self, mix: Mix) -> frozenset[tuple[str, str]] | None:
        """Targets that a mix gets wrong: as run, or for the two ends as recorded."""
        for run in self.runs:
            if run.mix == mix:
                return run.wrong
        if not mix:
            return frozenset()
        everything = mix == frozenset(group.name for group in self.question.groups)
        return frozenset(t.pair for t in self.question.targets) if everything else None

    def kl(self, mix: Mix) -> float | None:
        """The same of the hop's mean KL."""
        hop = self.question.hop
        for run in self.runs:
            if run.mix == mix:
                return run.kl
        if hop is None:
            return None
        everything = mix == frozenset(group.name for group in self.question.groups)
        return hop.bad if everything else None if mix else hop.good


def answer(question: Question, *, confirm: bool, say: Say) -> Answer:
    """Run mixes until the guilty groups are known.

    Args:
        question: of `ask`.
        confirm: run GOOD and BAD themselves first, whatever was recorded.
        say: called after each run.

    Raises:
        InputError: there is no DVC repository here.
        ToolError: git cannot make a worktree.
    """
    ends: bisection.Ends = "run" if confirm else "recorded" if question.same_here else "as needed"
    made: list[Run] = []
    with _stopped_cleanly(), _worktree(question) as tree:

        def bad(mix: Mix) -> bool | None:
            number = len(made) + 1
            # Ended before anything is said: a bar takes standard output for its own.
            with progress(f"run {number}") as report:
                run = _run(tree, mix, number, lambda stage: report(stage, 0, 0))
            made.append(run)
            say(run)
            return run.bad

        names = [group.name for group in question.groups]
        found = bisection.search(names, bad, ends=ends)
    return Answer(question, found, tuple(made))


# -------------------------------------------------------------------------------------- one mix run


class _CannotRunError(Exception):
    """A mix that has no measure; the message says why."""


def _run(tree: _Tree, mix: Mix, number: int, say: Callable[[str], None]) -> Run:
    started = time.monotonic()
    done = _Repro()
    wrong, kl, bad, problem = None, None, None, ""
    try:
        project = tree.mix(mix)
        done = _repro(tree, _stages(tree.question, project), say)
        if done.code:
            raise _CannotRunError(done.reason)
        with contextlib.chdir(tree.folder):
            wrong, kl, bad = _measured(tree.question, project)
    except _CannotRunError as error:
        problem = str(error)
    except DriftlineError as error:
        problem = _one_line(error.message)
    except (ValidationError, OSError, KeyError, ValueError) as error:
        # What another commit's code wrote may be of another format than is read here.
        problem = _one_line(str(error)) or type(error).__name__
    seconds = round(time.monotonic() - started, 1)
    return Run(number, mix, bad, wrong, kl, done.executed, done.restored, seconds, problem=problem)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE]


def _stages(question: Question, project: Params) -> tuple[str, ...]:
    planned = {spec.id: spec for spec in plan.plan(project)}
    for cell in question.cells:
        if cell not in planned:
            raise _CannotRunError(f"this mix has no cell {cell}")
    return tuple(plan.stage(project, planned[cell]) for cell in question.cells)


def _measured(
    question: Question, project: Params
) -> tuple[frozenset[tuple[str, str]] | None, float | None, bool]:
    """Wrong targets or the hop's mean KL, and whether that is bad, in the current folder."""
    scored = {cell: _scored(cell, whole=bool(question.hop)) for cell in question.cells}
    if question.hop:
        kl = _mean_kl(project, question.hop, scored)
        return None, kl, question.hop.nearer_bad(kl)
    prompts, items = cells.pinned(), cells.items()
    wrong = set()
    for cell, record in scored.items():
        answers = cells.completions(record)
        for target in question.targets:
            if target.cell == cell:
                key = target.key
                found = grade(items[key], prompts[key], answers.get(key), cell)
                if found.state != "correct":
                    wrong.add(target.pair)
    return frozenset(wrong), None, 2 * len(wrong) >= len(question.targets)


def _scored(cell: str, *, whole: bool) -> CellRecord:
    """A cell's record, its files checked; distributions only if `whole`."""
    folder = cells.CELLS / cell
    record = records.load_sealed(CellRecord, folder / records.CELL)
    if record.outcome.state in ("error", "skipped"):
        raise _CannotRunError(f"{cell}: {record.outcome.state}: {record.outcome.reason}")
    but = (records.CELL, *(() if whole else (texts.DISTRIBUTIONS,)))
    digest.verify(folder, record.outputs, but=but, remedy="driftline verify --deep")
    return record


def _mean_kl(project: Params, hop: MovedHop, scored: Mapping[str, CellRecord]) -> float:
    """Mean KL of a hop in nats, end to end, as the drift report has it."""
    edge = next((each for each in graph.hops(project) if each.child == hop.child), None)
    if edge is None or edge.parent != hop.parent:
        raise _CannotRunError(f"this mix has no hop {hop.parent} → {hop.child}")
    parent, child = scored[hop.parent], scored[hop.child]
    text = (parent if edge.kind == "adapter" else child).cell.variant
    kept = []
    for record in (parent, child):
        home = cells.CELLS / record.cell.id
        sources = plan.sources(project, record.cell)
        found = texts.distributions(home, record.forced, sources).get(text)
        if found is None:
            raise _CannotRunError(f"{record.cell.id}: no distributions: {record.not_forced}")
        kept.append(found)
    drift = distribution_drift(*kept)
    if drift is None:
        raise _CannotRunError("the two cells have no teacher-forced sequence in common")
    return drift.kl_mean.value


@dataclass(frozen=True)
class _Repro:
    """One `dvc repro`: exit code, stages that ran (not the probe) or were restored, last words."""

    code: int = 0
    executed: int = 0
    restored: int = 0
    reason: str = ""


def _repro(tree: _Tree, stages: tuple[str, ...], say: Callable[[str], None]) -> _Repro:
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
    return _Repro(code, executed, restored, _reason(lines) if code else "")


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
def _stopped_cleanly() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does: the worktree is removed."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------------------------------- worktree


class _Tree:
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
        data = bisection.mixed(good.data, bad.data, self.question.groups, mix)
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
        made, own = _json(self._at[path], path), _json(side.commit, path)
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
def _worktree(question: Question) -> Iterator[_Tree]:
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
        env = _environment(question, home)
        _share(folder, env)
        for name in (*ENVIRONMENTS, *_not_in_git(question)):
            _link(Path(name), folder / name)
        attempts = records.ARTIFACTS / "attempts"
        if attempts.is_dir():  # a cell that was retried here is not run again there
            shutil.copytree(attempts, folder / attempts, dirs_exist_ok=True)
        yield _Tree(folder, question, env)
    finally:
        _remove(home)


def _environment(question: Question, home: Path) -> dict[str, str]:
    """This Python first, because stages are `python -m …`; DVC's own notes are thrown away.

    Every cell is run here, also one that another machine makes for the project.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {
        **kept,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_NO_ANALYTICS": "1",
        imports.ONLY: ",".join(dict.fromkeys(cell.partition("/")[0] for cell in question.cells)),
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
        found = [place.path for place in places]
        found += [corpus.path for corpus in project.distributions.corpora.values()]
        for path in map(bisection.normal, found):
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
