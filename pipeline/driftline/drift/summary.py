"""One sentence per hop that a reviewer understands: what it cost, and because of what; pure.

KL is not additive: its parts are named side by side, never summed and never given as shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause, Component, HopDrift, ItemDrift, Split

NOTHING = 1e-9
"""Mean KL in nats below which two distributions are the same for every purpose."""
ALIKE = 2
"""Two parts that differ by no more than this factor are called alike."""
ALONE = 20
"""A part that is this many times the other is named alone."""
NAMES: Mapping[Component, str] = {
    "text": "the text path",
    "weights": "the stored weights",
    "numerics": "the runtime's arithmetic",
}
"""What a reviewer calls each component."""


def summary(hop: HopDrift, child: CellSpec) -> str:
    """What the hop into `child` cost and why; empty when it was not compared."""
    if not hop.compared:
        return ""
    parts = (_answers(hop, _name(hop, child)), _distributions(hop.split), _causes(hop))
    return "; ".join(part for part in parts if part)


def _answers(hop: HopDrift, name: str) -> str:
    parted = hop.n_items - hop.n_same_sequence
    if hop.hop.kind == "adapter":
        if not parted:
            return f"the adapter changes no answer of {hop.n_items}, though it is there to"
        return f"the adapter changes {parted} of {hop.n_items} answers, as it is meant to"
    if _flipped(hop):
        better = f", {len(hop.better)} for the better" if hop.better else ""
        return f"{name} flips {_where(hop)}{better}"
    if parted:
        return f"{name} words {parted} of {hop.n_items} answers otherwise and flips none"
    return f"{name} changes no answer of {hop.n_items}"


def _where(hop: HopDrift) -> str:
    """`3 of 40 clauses items`; of several evalsets each, the one with most flips first."""
    asked = Counter(item.evalset for item in hop.items)
    flipped = Counter(item.evalset for item in _flipped(hop)).most_common()
    if len(flipped) == 1:
        ((evalset, count),) = flipped
        return f"{count} of {asked[evalset]} {evalset} items"
    each = ", ".join(f"{count} of {asked[evalset]} in {evalset}" for evalset, count in flipped)
    return f"{sum(count for _, count in flipped)} of {hop.n_items} items: {each}"


def _flipped(hop: HopDrift) -> list[ItemDrift]:
    return [item for item in hop.items if item.flip != "none"]


def _name(hop: HopDrift, child: CellSpec) -> str:
    """What the hop introduces, in a word or two."""
    if hop.hop.kind == "runtime":
        return f"{child.runtime} instead of the reference runtime"
    return "merging" if hop.hop.kind == "merge" else child.form


def _distributions(split: Split | None) -> str:
    if split is None:
        return ""
    whole = split.end_to_end.kl_mean.value
    if whole == 0:
        return "its distributions are the same to the bit"
    if whole < NOTHING:
        return f"its distributions are the same to rounding ({_nats(whole)} a token)"
    if split.weights is None or split.numerics is None:
        return f"{_cost(split)}, not split" + (f": {split.withheld}" if split.withheld else "")
    return f"{_cost(split)}: {_parts(split.weights.kl_mean.value, split.numerics.kl_mean.value)}"


def _cost(split: Split) -> str:
    """Mean KL; that of the answers, which users meet, before that of all, to which parts belong."""
    whole = split.end_to_end.kl_mean.value
    if split.answers is None:
        return f"{_nats(whole)} a token"
    answers = split.answers.kl_mean.value
    return f"{_nats(answers)} a token of the answers, {_nats(whole)} of the whole text"


def _parts(weights: float, numerics: float) -> str:
    """Which part is larger, and both of them; never a sum."""
    if weights == 0:
        return f"arithmetic alone ({_nats(numerics)}), the stored weights are unchanged"
    if numerics == 0:
        return f"the stored weights alone ({_nats(weights)}), arithmetic is the same to the bit"
    (most, larger), (other, smaller) = sorted(
        ((NAMES["weights"], weights), (NAMES["numerics"], numerics)), key=lambda part: -part[1]
    )
    if larger > ALONE * smaller:
        return f"{most} ({_nats(larger)}), hardly {other} ({_nats(smaller)})"
    if larger > ALIKE * smaller:
        return f"mostly {most} ({_nats(larger)}), less {other} ({_nats(smaller)})"
    return f"{most} ({_nats(larger)}) and {other} ({_nats(smaller)}) alike"


def _causes(hop: HopDrift) -> str:
    """Components of the flips (of the parted answers when nothing flipped), and their near-ties."""
    flipped = _flipped(hop)
    items = flipped or [item for item in hop.items if item.cause is not None]
    if not items or hop.hop.kind == "adapter":
        return ""
    counted = Counter(_because(item.cause) for item in items)
    named = ", ".join(f"{count} {because}" for because, count in counted.most_common())
    what = "flips" if flipped else "changed answers"
    near = _near([item.cause for item in items])
    return f"{what}: {named}" + (f"; {near}" if near else "")


def _because(cause: Cause | None) -> str:
    if cause is None:
        return "by other text of the same tokens"
    if cause.component is not None:
        return f"by {NAMES[cause.component]}"
    if cause.reason.startswith("back to the reference"):
        return "back to the reference's answer"
    return "not told apart"


def _near(causes: Sequence[Cause | None]) -> str:
    """How many are near-ties, and a bound on their margins; empty where none was measured."""
    known = [each for each in causes if each is not None and each.margin is not None]
    margins = [each.margin for each in known if each.near_tie and each.margin is not None]
    if not margins:
        return "none a near-tie" if known else ""
    bound = f"under {_above(max(margins))} nats" if max(margins) else "of 0 nats"
    what = f"a near-tie {bound}" if len(margins) == 1 else f"near-ties {bound}"
    if len(margins) < len(causes):
        return f"{len(margins)} of them {what}"
    return f"all {what}" if len(margins) > 1 else what


def _above(value: float) -> str:
    """The least number of two significant digits above a positive `value`."""
    exact = Decimal(repr(value))
    unit = Decimal(1).scaleb(exact.adjusted() - 1)
    return f"{float((exact // unit + 1) * unit):.2g}"


def _nats(value: float) -> str:
    return f"{value:.2g} nats"
