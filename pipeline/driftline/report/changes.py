"""Which answers changed, over which hops, worst first: the same for every report; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from driftline.report.model import ReportInput
from driftline.schema.hops import Blame, Component, Finding, HopDrift, ItemDrift

MOST = 400
"""Changes that are shown in full, at most, whatever the number of hops and items."""
PER_HOP = (100_000, 128, 64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
"""How many of each hop are shown in full: the first number with which all stay below `MOST`."""


@dataclass(frozen=True)
class Change:
    """One answer over one hop that changed it; `at` is the hop's place in the plan."""

    at: int
    hop: HopDrift
    item: ItemDrift

    @property
    def component(self) -> Component | None:
        """Why the tokens part, where that is known."""
        return self.item.cause.component if self.item.cause else None

    @property
    def place(self) -> tuple[int, str]:
        """Hop and item: unique over a report."""
        return self.at, self.item.key


@dataclass(frozen=True)
class ChangedItem:
    """One golden prompt that changed, over these hops, in plan order."""

    key: str
    changes: tuple[Change, ...]

    @cached_property
    def n_worse(self) -> int:
        """Hops over which the answer stopped being correct."""
        return sum(each.item.flip == "worse" for each in self.changes)


def is_change(hop: HopDrift, item: ItemDrift) -> bool:
    """An adapter is there to change answers: only what it broke is news."""
    if hop.hop.kind == "adapter":
        return item.flip == "worse"
    return item.flip != "none" or not item.same_sequence


def changes(evidence: ReportInput) -> tuple[Change, ...]:
    """Every change, in plan order."""
    return tuple(
        Change(at, hop, item)
        for at, hop in enumerate(evidence.drift.hops)
        for item in hop.items
        if is_change(hop, item)
    )


def changed_items(evidence: ReportInput, every: Iterable[Change]) -> tuple[ChangedItem, ...]:
    """Items with any of these changes: worse over most hops first, other verdicts before tokens.

    Args:
        evidence: whose prompts' order decides between equals.
        every: all changes, or those that are of interest, in plan order.
    """
    by_key: dict[str, list[Change]] = {}
    for each in every:
        by_key.setdefault(each.item.key, []).append(each)
    places = {key: place for place, key in enumerate(evidence.prompts)}
    in_order = sorted(by_key, key=lambda key: places.get(key, len(places)))
    return tuple(
        sorted((ChangedItem(key, tuple(by_key[key])) for key in in_order), key=_worst_item)
    )


def of_verdict(every: Iterable[Change]) -> tuple[Change, ...]:
    """Those that changed a verdict."""
    return tuple(each for each in every if each.item.flip != "none")


def of_tokens(every: Iterable[Change]) -> tuple[Change, ...]:
    """Those that changed tokens and no verdict."""
    return tuple(each for each in every if each.item.flip == "none")


def of_hop(every: Iterable[Change], at: int) -> tuple[Change, ...]:
    """The changes of one hop, worst first."""
    return tuple(sorted((each for each in every if each.at == at), key=_worst))


def selected(every: Sequence[Change], most: int = MOST) -> tuple[Change, ...]:
    """The worst of each hop, as many of each as let all of them stay below `most`."""
    by_hop: dict[int, list[Change]] = {}
    for each in sorted(every, key=_worst):
        by_hop.setdefault(each.at, []).append(each)
    for count in PER_HOP:
        if sum(len(own[:count]) for own in by_hop.values()) <= most:
            break
    return tuple(each for own in by_hop.values() for each in own[:count])


def _worst(change: Change) -> tuple[int, bool, float]:
    """Worse verdicts first, then better ones, then tokens; clear preferences before near-ties."""
    cause = change.item.cause
    rank = {"worse": 0, "better": 1, "none": 2}[change.item.flip]
    margin = cause.margin if cause and cause.margin is not None else 0.0
    return rank, bool(cause and cause.near_tie), -margin


def _worst_item(item: ChangedItem) -> tuple[int, bool]:
    return -item.n_worse, not of_verdict(item.changes)


def parted_before(evidence: ReportInput, change: Change) -> Blame | None:
    """Where the tokens of this answer parted already on an earlier hop; None where they did not."""
    hop = change.hop.hop
    blame = evidence.blame_by_item.get((hop.child, change.item.key))
    return blame if blame and blame.sequence_hop not in (None, hop.name) else None


def components(hop: HopDrift, findings: Iterable[Finding]) -> tuple[Component, ...]:
    """What is blamed on a hop: components of its findings, then of its changes, most first."""
    of_findings = [
        each.component for each in findings if each.where == hop.hop.name and each.component
    ]
    counts = Counter(
        item.cause.component
        for item in hop.items
        if is_change(hop, item) and item.cause and item.cause.component
    )
    return tuple(dict.fromkeys((*of_findings, *(name for name, _ in counts.most_common()))))
