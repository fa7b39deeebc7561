"""What moved between two commits, verdicts and hops: `driftline bisect` asks what did it; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from driftline.evidence.lineage import Evidence
from driftline.schema.scores import ItemState

KL_FLOOR = 1e-6
"""Nats below which a mean KL divergence counts as none: float32 kernels differ by less."""
KL_MOVED = 1.1
"""By what factor a hop's mean KL must have grown to be worth a search."""


@dataclass(frozen=True)
class Moved:
    """One golden prompt (`evalset/id`) that a cell answered right in GOOD and not in BAD.

    `same_answer`: token for token, so that it is the check that moved, or the grader.
    """

    cell: str
    key: str
    before: ItemState
    after: ItemState
    same_answer: bool

    @property
    def pair(self) -> tuple[str, str]:
        """What it is the verdict of."""
        return self.cell, self.key


def moved(good: Evidence, bad: Evidence) -> tuple[Moved, ...]:
    """Every verdict that was correct and is something else, over cells and items both have."""
    return tuple(_moved(good, bad))


def _moved(good: Evidence, bad: Evidence) -> Iterator[Moved]:
    for cell in shared_cells(good, bad):
        before = good.items(cell)
        for key, item in bad.items(cell).items():
            was = before.get(key)
            if was is None or was.state != "correct" or item.state in (None, "correct"):
                continue
            same = was.output_sha256 == item.output_sha256
            yield Moved(cell, key, "correct", item.state or "errored", same)


def shared_cells(good: Evidence, bad: Evidence) -> tuple[str, ...]:
    """Cells that both sides have."""
    return tuple(cell for cell in bad.cells if cell in good.cells)


@dataclass(frozen=True)
class MovedHop:
    """A hop whose mean KL divergence, in nats, grew from `good` to `bad`."""

    parent: str
    child: str
    good: float
    bad: float

    @property
    def factor(self) -> float:
        """By what it grew."""
        return max(self.bad, KL_FLOOR) / max(self.good, KL_FLOOR)

    def nearer_bad(self, kl: float) -> bool:
        """Whether a mix with this mean KL is nearer BAD than GOOD, on a log scale."""
        middle = math.sqrt(max(self.good, KL_FLOOR) * max(self.bad, KL_FLOOR))
        return max(kl, KL_FLOOR) >= middle


def moved_hops(good: Evidence, bad: Evidence) -> tuple[MovedHop, ...]:
    """Hops of both sides that drift more in BAD, by how much more, most first."""
    hops = []
    for cell in shared_cells(good, bad):
        was, now = good.hops.get(cell), bad.hops.get(cell)
        if was and now and was.kl and now.kl and was.hop == now.hop:
            hops.append(MovedHop(was.hop.parent, cell, was.kl.value, now.kl.value))
    worse = (hop for hop in hops if hop.factor >= KL_MOVED)
    return tuple(sorted(worse, key=lambda hop: -hop.factor))
