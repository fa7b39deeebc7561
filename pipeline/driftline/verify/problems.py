"""What an audit finds: one object that does not match, the stage that made it, what restores it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

from driftline.errors import DriftlineError

CACHE, LOCK, WORKSPACE, EVIDENCE, REMOTE = "cache", "dvc.lock", "workspace", "evidence", "remote"
ORDER = (CACHE, LOCK, WORKSPACE, EVIDENCE, REMOTE)
"""Places in the order in which they are restored: each needs those before it."""


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
