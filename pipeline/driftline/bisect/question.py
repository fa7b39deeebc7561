"""What `driftline bisect` has to find out: inputs that differ, and what moved; nothing is run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from driftline.bisect import mixing, moved
from driftline.bisect.mixing import Group
from driftline.bisect.moved import Moved, MovedHop
from driftline.compare import inputs
from driftline.compare.software import environment_differences
from driftline.errors import InputError, ToolError, did_you_mean
from driftline.evidence import history
from driftline.evidence.lineage import Evidence
from driftline.probe import environment
from driftline.project import params, routes
from driftline.project.params import Params
from driftline.project.sections.reading import PARAMS_FILE

NOT_SWAPPED = ("package", "runtime", "hardware")
"""Kinds of inputs that no file of a commit holds."""
MAKES_NO_ANSWER = ("grade", "drift", "lineage", "report", "control", "counterfactual")
"""Stages whose code is no part of a cell's answers and distributions."""
MESSAGE = 300
"""Characters of a failed run's message, at most."""


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
    groups = mixing.groups(
        before.data,
        after.data,
        changed,
        json_keys=_json_keys(before, after, changed),
        code=_code_differs(before.evidence, after.evidence, changed),
    )
    outside = not any(_has_code(side) for side in (before, after))
    untestable = tuple(_untestable(before.evidence, after.evidence, groups, code_outside=outside))
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
            f"{name}: no readable {PARAMS_FILE}: {one_line(str(error))}",
            remedy="name a commit of this project",
        ) from None
    project = params.parse(data, where=f"{name}:{PARAMS_FILE}")
    listed = history.git("ls-tree", "-r", "-z", "--name-only", commit)
    return Side(name, commit, evidence, data, project, frozenset(listed.split("\0")) - {""})


def _changed(good: Side, bad: Side) -> tuple[str, ...]:
    """Files that differ, relative to the project."""
    listed = history.git(
        "diff-tree",
        "-r",
        "-z",
        "--no-renames",
        "--relative",
        "--name-only",
        good.commit,
        bad.commit,
    )
    return tuple(path for path in listed.split("\0") if path)


def _json_keys(good: Side, bad: Side, changed: Iterable[str]) -> dict[str, frozenset[str]]:
    """Top-level keys that differ, of tokenizer configs that both sides have."""
    differing = {}
    for path in changed:
        if path.endswith(mixing.TOKENIZER_CONFIG) and path in good.paths & bad.paths:
            was, now = json_at(good.commit, path), json_at(bad.commit, path)
            keys = was.keys() | now.keys()
            differing[path] = frozenset(key for key in keys if was.get(key) != now.get(key))
    return differing


def json_at(commit: str, path: str) -> dict[str, Any]:
    """A JSON object of a commit; an empty one where it is none."""
    try:
        value = json.loads(history.git("show", f"{commit}:./{path}"))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _code_differs(good: Evidence, bad: Evidence, changed: Iterable[str]) -> bool:
    """Whether the code that makes answers differs, or the stages themselves."""
    was, now = good.index.code, bad.index.code
    stages = (was.keys() | now.keys()) - set(MAKES_NO_ANSWER)
    return any(was.get(stage) != now.get(stage) for stage in stages) or any(
        path in mixing.CODE for path in changed
    )


def _has_code(side: Side) -> bool:
    """Whether a commit has driftline's code in it; where it is an installed package, none has."""
    return any(path.startswith(mixing.CODE[0]) for path in side.paths)


def _untestable(
    good: Evidence, bad: Evidence, groups: tuple[Group, ...], *, code_outside: bool = False
) -> Iterator[str]:
    """Inputs whose records differ and that no group holds."""
    names = {group.name for group in groups}
    for change in inputs.changes(good, bad):
        sides = f"{change.before or 'none'} → {change.after or 'none'}"
        code = change.kind == "driftline code" and change.name not in MAKES_NO_ANSWER
        if change.kind in NOT_SWAPPED or (code and code_outside):
            yield f"{change.label}: {sides}: what is installed runs every mix"
        wanted = {
            "source": {"source", "tokenizer", "template"},
            "adapter": {f"adapter {change.name}"},
            "corpus": {"corpora"},
        }.get(change.kind)
        if wanted and not wanted & names:
            yield f"{change.label}: {sides}: its files are not in git: the working tree's run"


def _check_cells(wanted: Iterable[str], good: Side, bad: Side) -> None:
    shared = moved.shared_cells(good.evidence, bad.evidence)
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
    everything = moved.moved(good.evidence, bad.evidence)
    verdicts = [each for each in everything if not only_cells or each.cell in only_cells]
    known = sorted({each.key for each in verdicts})
    for key in only_items:
        if key not in known:
            raise InputError(
                f'--item "{key}": its verdict did not move from correct{did_you_mean(key, known)}',
                remedy=f"moved: {', '.join(known[:10]) or 'none'}",
            )
    verdicts = [each for each in verdicts if not only_items or each.key in only_items]
    if verdicts:
        return tuple(verdicts), None
    none = f"no verdict moved from correct between {good.name} and {bad.name}"
    none += _elsewhere(good, bad, len(everything))
    if by == "verdict":
        raise InputError(none, remedy=f"driftline bisect {good.name} {bad.name} --by kl")
    return (), _hop(good, bad, only_cells, f"{none}, and ")


def _elsewhere(good: Side, bad: Side, all_moved: int) -> str:
    """What moved in other cells, or the other way."""
    if all_moved:
        return f" in these cells ({all_moved} did in others)"
    back = len(moved.moved(bad.evidence, good.evidence))
    turned = f"driftline bisect {bad.name} {good.name}"
    return f" ({back} moved to correct: {turned} asks why)" if back else ""


def _hop(good: Side, bad: Side, only_cells: tuple[str, ...], before: str) -> MovedHop:
    """The hop that grew most; `before` is said where none did."""
    for hop in moved.moved_hops(good.evidence, bad.evidence):
        if not only_cells or hop.child in only_cells:
            return hop
    raise InputError(
        f"{before}no hop's mean KL grew by {moved.KL_MOVED - 1:.0%}",
        remedy=f"driftline compare {good.name} {bad.name}   (what differs at all)",
    )


def _stale(side: Side) -> tuple[str, ...]:
    """A note where the evidence of a commit is not that of its params.yaml."""
    said = f"{side.name}: reports/lineage was made with another params.yaml than the commit's"
    try:
        made = params.parse(dict(side.evidence.params), where=side.name)
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
    wanted = {routes.ROOT_CELL, *(target.cell for target in targets)}
    wanted |= {hop.parent, hop.child} if hop else set()
    for side in (good, bad):
        runs = {side.evidence.cells[c].cell.runtime: side.evidence.cells[c] for c in wanted}
        for runtime, record in runs.items():
            if runtime not in routes.targets():
                yield f"{runtime}, which {side.name} has, is no runtime here"
                continue
            made = json.loads(side.evidence.environment(record.environment_sha256))
            here = environment.probe(runtime, threads=side.project.limits.threads)
            differing = environment_differences(made, here)
            said = [f"{' '.join(key)} {was} → {now}" for key, (was, now, _) in differing.items()]
            if said:
                yield f"{runtime} here is not {side.name}'s: {'; '.join(said)}"


def one_line(text: str) -> str:
    """The start of a message, on one line."""
    return " ".join(text.split())[:MESSAGE]
