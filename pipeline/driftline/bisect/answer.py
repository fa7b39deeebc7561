"""`driftline bisect`: mixes of two commits' inputs, run in a worktree of their own and measured.

The worktree shares DVC's cache with the project: a stage that already ran on the same inputs, in
the project or in an earlier mix, is restored from DVC's run-cache, and what a mix makes is kept
there. Nothing else of the project is written: neither its files, nor dvc.lock, nor git's index.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from driftline.bisect import search
from driftline.bisect.moved import MovedHop
from driftline.bisect.question import Question, one_line
from driftline.bisect.search import Found, Mix
from driftline.bisect.worktree import Repro, Tree, repro, stopped_cleanly, worktree
from driftline.drift.statistics import distribution_drift
from driftline.errors import DriftlineError
from driftline.evidence import scored
from driftline.golden.grade import grade
from driftline.progress import progress
from driftline.project import graph, plan
from driftline.project.params import Params
from driftline.schema.cells import CellRecord
from driftline.store import digest, records, texts

Say = Callable[["Run"], None]


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
    ends: search.Ends = "run" if confirm else "recorded" if question.same_here else "as needed"
    made: list[Run] = []
    with stopped_cleanly(), worktree(question) as tree:

        def bad(mix: Mix) -> bool | None:
            number = len(made) + 1
            # Ended before anything is said: a bar takes standard output for its own.
            with progress(f"run {number}") as report:
                run = _run(tree, mix, number, lambda stage: report(stage, 0, 0))
            made.append(run)
            say(run)
            return run.bad

        names = [group.name for group in question.groups]
        guilty = search.search(names, bad, ends=ends)
    return Answer(question, guilty, tuple(made))


class _CannotRunError(Exception):
    """A mix that has no measure; the message says why."""


def _run(tree: Tree, mix: Mix, number: int, say: Callable[[str], None]) -> Run:
    started = time.monotonic()
    done = Repro()
    wrong, kl, bad, problem = None, None, None, ""
    try:
        project = tree.mix(mix)
        done = repro(tree, _stages(tree.question, project), say)
        if done.code:
            raise _CannotRunError(done.reason)
        with contextlib.chdir(tree.folder):
            wrong, kl, bad = _measured(tree.question, project)
    except _CannotRunError as error:
        problem = str(error)
    except DriftlineError as error:
        problem = one_line(error.message)
    except (ValidationError, OSError, KeyError, ValueError) as error:
        # What another commit's code wrote may be of another format than is read here.
        problem = one_line(str(error)) or type(error).__name__
    seconds = round(time.monotonic() - started, 1)
    return Run(number, mix, bad, wrong, kl, done.executed, done.restored, seconds, problem=problem)


def _stages(question: Question, project: Params) -> tuple[str, ...]:
    planned = {each.spec.id: each for each in plan.planned(project)}
    for cell in question.cells:
        if cell not in planned:
            raise _CannotRunError(f"this mix has no cell {cell}")
    return tuple(plan.stage(project, planned[cell]) for cell in question.cells)


def _measured(
    question: Question, project: Params
) -> tuple[frozenset[tuple[str, str]] | None, float | None, bool]:
    """Wrong targets or the hop's mean KL, and whether that is bad, in the current folder."""
    cells = {cell: _scored(cell, whole=bool(question.hop)) for cell in question.cells}
    if question.hop:
        kl = _mean_kl(project, question.hop, cells)
        return None, kl, question.hop.nearer_bad(kl)
    prompts, items = scored.pinned(), scored.items()
    wrong = set()
    for cell, record in cells.items():
        answers = scored.completions(record)
        for target in question.targets:
            if target.cell == cell:
                key = target.key
                score = grade(items[key], prompts[key], answers.get(key), cell)
                if score.state != "correct":
                    wrong.add(target.pair)
    return frozenset(wrong), None, 2 * len(wrong) >= len(question.targets)


def _scored(cell: str, *, whole: bool) -> CellRecord:
    """A cell's record, its files checked; distributions only if `whole`."""
    folder = scored.CELLS / cell
    record = records.load_sealed(CellRecord, folder / records.CELL)
    if not record.ran:
        raise _CannotRunError(f"{cell}: {record.outcome.state}: {record.outcome.reason}")
    but = (records.CELL, *(() if whole else (texts.DISTRIBUTIONS,)))
    digest.verify(folder, record.outputs, but=but, remedy="driftline verify --deep")
    return record


def _mean_kl(project: Params, hop: MovedHop, cells: Mapping[str, CellRecord]) -> float:
    """Mean KL of a hop in nats, end to end, as the drift report has it."""
    edge = next((each for each in graph.hops(project) if each.child == hop.child), None)
    if edge is None or edge.parent != hop.parent:
        raise _CannotRunError(f"this mix has no hop {hop.parent} → {hop.child}")
    parent, child = cells[hop.parent], cells[hop.child]
    text = (parent if edge.kind == "adapter" else child).cell.variant
    kept = []
    for record in (parent, child):
        home = scored.CELLS / record.cell.id
        sources = plan.sources(project, record.cell)
        distributions = texts.distributions(home, record.forced, sources).get(text)
        if distributions is None:
            raise _CannotRunError(f"{record.cell.id}: no distributions: {record.not_forced}")
        kept.append(distributions)
    drift = distribution_drift(*kept)
    if drift is None:
        raise _CannotRunError("the two cells have no teacher-forced sequence in common")
    return drift.kl_mean.value
