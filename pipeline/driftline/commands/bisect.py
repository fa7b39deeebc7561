"""`driftline bisect`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from driftline.commands.common import clean

if TYPE_CHECKING:
    from driftline.bisect.answer import Answer, Run
    from driftline.bisect.mixing import Group
    from driftline.bisect.question import Question
    from driftline.bisect.search import Guilty

SHOWN = 10
"""Moved verdicts that are listed."""


@click.command()
@click.argument("good", metavar="GOOD")
@click.argument("bad", metavar="BAD")
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="Only this cell; repeatable.")
@click.option(
    "--item", "items", multiple=True, metavar="EVALSET/ITEM", help="Only this item; repeatable."
)
@click.option(
    "--by",
    type=click.Choice(["verdict", "kl"]),
    help="What is measured; default: verdicts, and the mean KL of a hop where none moved.",
)
@click.option("--confirm", is_flag=True, help="Run GOOD and BAD themselves too.")
@click.option("--json", "as_json", is_flag=True, help="The whole answer as JSON.")
@clean
def bisect(
    good: str,
    bad: str,
    cells: tuple[str, ...],
    items: tuple[str, ...],
    by: str | None,
    confirm: bool,
    as_json: bool,
) -> None:
    """Which of several changed inputs moved a verdict from correct to something else.

    GOOD and BAD are releases or git revisions with committed evidence. Inputs that differ between
    them are swapped, in a temporary worktree and through DVC's run-cache, until the one that did
    it is known, or the ones that only do it together. Nothing of the working tree is touched.

    Exit code 0: found; 1: nothing could be named; 2: no such revision, nothing changed or moved.
    """
    from driftline.bisect import answer as bisects
    from driftline.bisect.question import ask

    question = ask(good, bad, only_cells=cells, only_items=items, by=by)
    if not as_json:
        click.echo("\n".join(_asked(question)))
    answer = bisects.answer(
        question,
        confirm=confirm,
        say=lambda run: None if as_json else click.echo(_run(question, run)),
    )
    click.echo(json.dumps(_data(answer), indent=1) if as_json else "\n".join(_verdict(answer)))
    sys.exit(0 if answer.found.guilty else 1)


# ---------------------------------------------------------------------------------------- question


def _asked(question: Question) -> Iterator[str]:
    good, bad = question.good, question.bad
    yield f"good: {good.name} ({good.commit[:12]})   bad: {bad.name} ({bad.commit[:12]})"
    yield f"inputs that changed: {len(question.groups)}"
    width = max(len(group.name) for group in question.groups)
    yield from (f"  {g.name:{width}}  {_what(g, question)}" for g in question.groups)
    if question.untestable:
        yield "changed, but not testable here:"
        yield from (f"  {line}" for line in question.untestable)
    yield from (f"note: {note}" for note in question.notes)
    yield from _moved(question)


def _what(group: Group, question: Question) -> str:
    """A group's files and values, on one line."""
    from driftline.bisect.mixing import value_at

    said = []
    for key in group.keys:
        sides = [value_at(side.data, key) for side in (question.good, question.bad)]
        was, now = ("none" if v is None else json.dumps(v, ensure_ascii=False) for v in sides)
        said.append(f"{'.'.join(key)}: {was} → {now}")
    said += group.paths[:3]
    said += [f"{', '.join(keys)} in {path}" for path, keys in group.parts]
    more = len(group.paths) - 3
    return ", ".join(said) + (f" and {more} files more" if more > 0 else "")


def _moved(question: Question) -> Iterator[str]:
    if hop := question.hop:
        yield f"what moved: mean KL of {hop.parent} → {hop.child}, in nats"
        yield f"  {hop.good:.3g} → {hop.bad:.3g}"
        return
    cells = len({target.cell for target in question.targets})
    verdicts = _count(len(question.targets), "verdict")
    yield f"what moved: {verdicts} of {_count(cells, 'cell')}"
    for target in question.targets[:SHOWN]:
        yield f"  {target.cell}  {target.key}  {target.before} → {target.after}"
    if len(question.targets) > SHOWN:
        yield f"  and {len(question.targets) - SHOWN} more"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


# -------------------------------------------------------------------------------------------- runs


def _run(question: Question, run: Run) -> str:
    state = {True: "bad", False: "good", None: "unresolved"}[run.bad]
    cost = f"{_count(run.executed, 'stage')} executed, {run.restored} from the run-cache"
    said = run.problem or _measure(question, run.wrong, run.kl)
    mix = _mix(question, run.mix)
    return f"run {run.number}: {mix}: {state}, {said} ({cost}, {run.seconds:.0f} s)"


def _mix(question: Question, mix: frozenset[str]) -> str:
    """What is taken from BAD; where that is nearly everything, what is not."""
    names = [group.name for group in question.groups]
    swapped = [name for name in names if name in mix]
    kept = [name for name in names if name not in mix]
    if not swapped:
        return "GOOD itself"
    if not kept:
        return "BAD itself"
    if len(kept) < len(swapped):
        return f"all but {_joined(kept)}"
    return _joined(swapped)


def _measure(question: Question, wrong: frozenset[Any] | None, kl: float | None) -> str:
    if question.hop:
        return "unknown" if kl is None else f"{kl:.3g} nats"
    return "unknown" if wrong is None else f"{len(wrong)} of {len(question.targets)} not correct"


# ----------------------------------------------------------------------------------------- verdict


def _verdict(answer: Answer) -> Iterator[str]:
    search = answer.found
    runs = _count(len(search.trials), "run")
    if search.unresolved:
        runs += f", {len(search.unresolved)} of them unresolved"
    if not search.guilty:
        yield from _nobody(answer)
        yield f"nothing could be named; {runs}"
        return
    taken: frozenset[str] = frozenset()
    for number, guilty in enumerate(search.guilty):
        taken |= frozenset(guilty.names)
        first = "" if not number else "not the only one: "
        last = f"; {runs}" if number == len(search.guilty) - 1 else ""
        yield f"{first}{_sentence(answer, guilty, taken)}{last}"
    yield from _remaining(answer, taken)


def _nobody(answer: Answer) -> Iterator[str]:
    question, failed = answer.question, answer.found.failed
    if failed == "unresolved":
        yield f"no mix could be run: {answer.runs[-1].problem}"
        return
    side = question.good if failed == "good" else question.bad
    mix = frozenset() if failed == "good" else frozenset(group.name for group in question.groups)
    said = next((run.problem for run in answer.runs if run.mix == mix), "")
    said = said or _measure(question, answer.wrong(mix), answer.kl(mix))
    yield f"{side.name}, run here, is not {failed}: {said}"
    if question.untestable:
        yield f"that leaves what cannot be swapped: {'; '.join(question.untestable)}"
    else:
        yield "so its evidence was made with something that is not in its commit. In a clean clone:"
        yield f"git checkout {side.name} && driftline run && git diff reports/lineage"


def _sentence(answer: Answer, guilty: Guilty, taken: frozenset[str]) -> str:
    """`guilty: mlx recipe 4bit (alone it moves 3 of 3 verdicts; …)`."""
    alone, one = frozenset(guilty.names), len(guilty.names) == 1
    rest = frozenset(group.name for group in answer.question.groups) - taken
    parts = [f"{'alone it moves' if one else 'together they move'} {_moves(answer, alone)}"]
    if not one:
        parts += [
            f"without {name} {_moves(answer, alone - {name}, short=True)}" for name in guilty.names
        ]
    remain = "" if guilty.mended is None else " remain"
    back = _moves(answer, rest, short=True)
    parts.append(f"with {'it' if one else 'them'} taken back {back}{remain}")
    said = _joined(guilty.names)
    if one:
        said = f"guilty: {said}"
    else:
        said = {
            True: f"interaction: {said}",
            False: f"guilty together: {said}, each of its own verdicts",
            None: f"guilty together: {said}, which cannot be told apart",
        }[_interacts(answer, guilty)]
    return f"{said} ({'; '.join(parts)})"


def _moves(answer: Answer, mix: frozenset[str], *, short: bool = False) -> str:
    """`3 of 3 verdicts`, or from where to where the mean KL went."""
    if hop := answer.question.hop:
        kl = answer.kl(mix)
        if kl is None:
            return "could not be run"
        return f"{kl:.3g} nats" if short else f"mean KL from {hop.good:.3g} to {kl:.3g} nats"
    wrong, total = answer.wrong(mix), len(answer.question.targets)
    if wrong is None:
        return "could not be run"
    return f"{len(wrong)} of {total}{'' if short else ' verdict' if total == 1 else ' verdicts'}"


def _interacts(answer: Answer, guilty: Guilty) -> bool | None:
    """Whether several guilty groups only do it together; None where that is not known."""
    from driftline.bisect.search import interacts

    alone = frozenset(guilty.names)
    without = [alone - {name} for name in guilty.names]
    if answer.question.hop:
        return None if any(answer.kl(mix) is None for mix in without) else True
    together = answer.wrong(alone)
    return None if together is None else interacts(together, map(answer.wrong, without))


def _remaining(answer: Answer, taken: frozenset[str]) -> Iterator[str]:
    """Verdicts that stay moved though too few to count: something else moved them."""
    question = answer.question
    left = answer.wrong(frozenset(group.name for group in question.groups) - taken)
    if left and answer.found.guilty[-1].mended and not question.hop:
        cell, key = sorted(left)[0]
        command = f"driftline bisect {question.good.name} {question.bad.name}"
        yield f"what moved the rest: {command} --cell {cell} --item {key}"


def _joined(names: list[str] | tuple[str, ...]) -> str:
    return " + ".join(names)


# -------------------------------------------------------------------------------------------- JSON


def _data(answer: Answer) -> dict[str, Any]:
    question, hop = answer.question, answer.question.hop
    return {
        "schema_version": 1,
        "good": {"name": question.good.name, "commit": question.good.commit},
        "bad": {"name": question.bad.name, "commit": question.bad.commit},
        "changed": [
            {
                "name": group.name,
                "paths": list(group.paths),
                "keys": [".".join(key) for key in group.keys],
                "parts": {path: list(keys) for path, keys in group.parts},
            }
            for group in question.groups
        ],
        "untestable": list(question.untestable),
        "notes": list(question.notes),
        "moved": [
            {"cell": t.cell, "item": t.key, "before": t.before, "after": t.after}
            for t in question.targets
        ],
        "hop": {"parent": hop.parent, "child": hop.child, "good": hop.good, "bad": hop.bad}
        if hop
        else None,
        "runs": [_run_data(run) for run in answer.runs],
        "guilty": [
            {
                "names": list(guilty.names),
                "interaction": _interacts(answer, guilty) if len(guilty.names) > 1 else False,
                "mended": guilty.mended,
            }
            for guilty in answer.found.guilty
        ],
        "failed": answer.found.failed or None,
    }


def _run_data(run: Run) -> dict[str, Any]:
    return {
        "number": run.number,
        "from_bad": sorted(run.mix),
        "bad": run.bad,
        "not_correct": None
        if run.wrong is None
        else [{"cell": cell, "item": key} for cell, key in sorted(run.wrong)],
        "kl": run.kl,
        "executed": run.executed,
        "from_run_cache": run.restored,
        "seconds": run.seconds,
        "problem": run.problem or None,
    }
