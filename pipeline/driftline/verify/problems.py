"""What an audit finds: one object that does not match, the stage that made it, what restores it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby

from driftline.errors import DriftlineError
from driftline.store.digest import Difference
from driftline.verify.lock import Lock

CACHE, LOCK, WORKSPACE, EVIDENCE, REMOTE = "cache", "dvc.lock", "workspace", "evidence", "remote"
ORDER = (CACHE, LOCK, WORKSPACE, EVIDENCE, REMOTE)
"""Places in the order in which they are restored: each needs those before it."""
SHOWN = 8
"""Files named per out."""

LookedAt = Callable[[str, str], None]
"""Called with (place, what is looked at there now)."""


@dataclass(frozen=True)
class Problem:
    """One object that is not what it should be.

    `place` is where it lies (cache, dvc.lock, workspace, evidence, a remote's name), `what` is
    extra, missing, changed, edited, broken or refused; `stage` made it (empty where none did) and
    `remedy` is the command, for a shell, that restores it. `out` is the output of the stage that
    `object` is or lies in, `oid` DVC's name of it in the cache or a remote. `stale` where DVC's
    cache has it as it lies here, so that only its stage can make the right one again.
    """

    place: str
    object: str
    what: str
    detail: str = ""
    stage: str = ""
    remedy: str = ""
    out: str = ""
    oid: str = ""
    stale: bool = False

    @property
    def order(self) -> tuple[int, str, str]:
        """Remedies followed in this order build on each other."""
        place = self.place.partition(" ")[0]
        rank = ORDER.index(place) if place in ORDER else len(ORDER)
        return rank, self.object, self.what

    @property
    def lines(self) -> list[str]:
        """For people: what and where, then why."""
        own = [f"{self.what:8} {self.place}: {self.object}"]
        return own + [f"{'':9}{line}" for line in self.detail.splitlines()]


@dataclass(frozen=True)
class Deviation:
    """In what one out of a stage is not what it should be; `why` are lines that explain it.

    `place` and `stale` are those of the problem that it is; paths are relative to the project.
    """

    out: str
    differences: tuple[Difference, ...]
    why: tuple[str, ...] = ()
    place: str = WORKSPACE
    stale: bool = False


def as_problems(deviations: Iterable[Deviation], lock: Lock) -> Iterator[Problem]:
    """One per out and place, with the stage that made it."""
    merged: dict[tuple[str, str], Deviation] = {}
    for each in deviations:
        key = each.place, each.out
        merged[key] = _both(merged[key], each) if key in merged else each
    for deviation in merged.values():
        yield _problem(deviation, lock.maker(deviation.out))


def _both(one: Deviation, other: Deviation) -> Deviation:
    return replace(
        one,
        differences=(*one.differences, *other.differences),
        why=(*one.why, *other.why),
        stale=one.stale or other.stale,
    )


def _problem(deviation: Deviation, stage: str) -> Problem:
    """A single difference is named itself; several are listed under the out they lie in."""
    out, differences = deviation.out, deviation.differences
    path, what, lines = differences[0].path, differences[0].what, [differences[0].detail]
    if len(differences) > 1:
        path, lines = out, [_line(out, each) for each in differences[:SHOWN]]
        lines += [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
        what = what if {each.what for each in differences} == {what} else "changed"
    detail = "\n".join(filter(None, (*lines, *deviation.why)))
    return Problem(deviation.place, path, what, detail, stage, out=out, stale=deviation.stale)


def _line(out: str, difference: Difference) -> str:
    return replace(difference, path=difference.path.removeprefix(f"{out}/")).line


def shown(problems: Iterable[Problem]) -> list[str]:
    """For people: what one command restores is listed together, the command once."""
    lines = []
    for (stage, remedy), group in groupby(problems, key=lambda each: (each.stage, each.remedy)):
        for problem in group:
            lines += problem.lines
        lines += [f"{'':9}made by stage {stage}"] if stage else []
        lines += [f"{'':9}remedy: {remedy}"] if remedy else []
    return lines


@dataclass
class Audit:
    """Problems found so far, and how much was looked at, place by place.

    `unreachable` are the places that could not be looked at.
    """

    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unreachable: list[DriftlineError] = field(default_factory=list)

    def count(self, place: str, objects: int = 1) -> None:
        """Note that `objects` more were looked at in `place`."""
        self.checked[place] = self.checked.get(place, 0) + objects
