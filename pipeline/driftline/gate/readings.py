"""What the gate reads of one hop's evidence; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from driftline.drift.hops import flip
from driftline.evidence.lineage import Evidence
from driftline.gate.margins import Pairs
from driftline.gate.policy import Scope
from driftline.schema.hops import Hop, HopKind
from driftline.schema.lineage import HopEvidence, ItemEvidence


@dataclass(frozen=True)
class HopFacts:
    """One hop with its items: those asked, and of those that both ends repeat what they scored.

    `changes` are points in [-1, 1] of the items with a score at both ends: 1 for a verdict that
    flipped, whatever part of the score is left of it, and the change of the score for any other.
    `right` says of each with a score in the child whether it is right; `kl` has mean KL in nats and
    rows of each forced sequence; `floor` the mean KL of the child's second pass from its first, and
    a bound of its 99th percentile.
    """

    evidence: HopEvidence
    asked: tuple[str, ...]
    changes: Mapping[str, float]
    right: Mapping[str, bool]
    kl: Mapping[str, tuple[float, int]]
    floor: tuple[float, float]
    tags: Mapping[str, tuple[str, ...]]

    @property
    def kind(self) -> HopKind:
        """What kind of step it is."""
        return self.evidence.hop.kind

    @property
    def parent(self) -> str:
        """The cell it starts from."""
        return self.evidence.hop.parent

    @property
    def child(self) -> str:
        """The cell it leads to."""
        return self.evidence.hop.child

    def within(self, keys: Iterable[str], scope: Scope) -> tuple[str, ...]:
        """Those of `keys` in the scope."""
        return tuple(key for key in keys if scope.has(key, self.tags))

    def pairs(self, scope: Scope) -> Pairs:
        """Points lost and gained."""
        return Pairs.of(self.changes[key] for key in self.within(self.changes, scope))

    def changed(self, scope: Scope, *, better: bool) -> tuple[str, ...]:
        """Items that gained (or lost) points, most first."""
        change = self.changes
        keys = [k for k in self.within(change, scope) if change[k] and (change[k] > 0) == better]
        return tuple(sorted(keys, key=lambda key: (-abs(change[key]), key)))

    def causes(self, keys: Collection[str]) -> str:
        """`weights` or `2 weights, 1 not told apart`: components of changed answers."""
        known = self.evidence.causes
        counts = Counter(known.get(key, "not told apart") for key in sorted(keys))
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def hop_facts(
    evidence: Evidence,
    hop: HopEvidence,
    before: Mapping[str, ItemEvidence],
    after: Mapping[str, ItemEvidence],
    tags: Mapping[str, tuple[str, ...]],
) -> HopFacts:
    """One hop whose child ran.

    Args:
        evidence: of the commit.
        hop: one of its hops.
        before: items of the parent.
        after: items of the child.
        tags: of every golden prompt, by key.
    """
    ends = [evidence.cells.get(name) for name in (hop.hop.parent, hop.hop.child)]
    shaky = {key for record in ends if record for key in record.unstable}
    asked = tuple(key for key, item in after.items() if item.state is not None)
    kept = [key for key in asked if key not in shaky and after[key].score is not None]
    both = [key for key in kept if hop.compared and key in before]
    return HopFacts(
        evidence=hop,
        asked=asked,
        changes={
            key: change for key in both if (change := _change(before[key], after[key])) is not None
        },
        right={key: after[key].state == "correct" for key in kept},
        kl={key: (item.kl, item.rows) for key, item in after.items() if item.kl is not None},
        floor=_floor(evidence, hop.hop),
        tags=tags,
    )


def _change(before: ItemEvidence, after: ItemEvidence) -> float | None:
    """Points gained; None where an end has no score."""
    if before.score is None or after.score is None or not before.state or not after.state:
        return None
    flipped = flip(before.state, after.state)
    if flipped == "none":
        return after.score - before.score
    return 1.0 if flipped == "better" else -1.0


def _floor(evidence: Evidence, hop: Hop) -> tuple[float, float]:
    """Mean KL of the child's second pass, and a bound of its 99th percentile.

    A percentile is at most the maximum, and at most 100 times the mean (Markov's inequality). A hop
    where an adapter is attached is measured on its parent's text, any other on the child's own.
    """
    child = evidence.cells[hop.child]
    text = evidence.cells.get(hop.parent, child) if hop.kind == "adapter" else child
    for forced in child.forced:
        if forced.text == text.cell.variant and forced.floor is not None:
            mean = forced.floor.mean_kl
            return mean, min(forced.floor.max_kl, 100 * mean)
    return 0.0, 0.0
