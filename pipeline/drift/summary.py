"""One sentence per hop that a reviewer understands: what it cost, and because of what; pure."""

from __future__ import annotations

from collections import Counter

from pipeline.schema.hops import HopDrift, ItemDrift, Split

NOTHING = 1e-9
"""Mean KL in nats below which two distributions are the same for every purpose."""


def summary(hop: HopDrift) -> str:
    """What the hop cost and why; empty when it was not compared."""
    if not hop.compared:
        return ""
    parts = [_flips(hop), *_components(hop.split), *_causes(hop)]
    return "; ".join(part for part in parts if part)


def _flips(hop: HopDrift) -> str:
    name = _name(hop)
    parted = hop.n_items - hop.n_same_sequence
    if hop.hop.kind == "adapter":
        return f"the adapter changes {parted} of {hop.n_items} answers, as it is meant to"
    if not hop.worse and not hop.better:
        if not parted:
            return f"{name} changes no answer of {hop.n_items}"
        return f"{name} words {parted} of {hop.n_items} answers otherwise and flips none"
    sets = Counter(key.partition("/")[0] for key in (*hop.worse, *hop.better))
    where = ", ".join(f"{count} in {evalset}" for evalset, count in sets.most_common())
    better = f" ({len(hop.better)} for the better)" if hop.better else ""
    return (
        f"{name} flips {len(hop.worse) + len(hop.better)} of {hop.n_items} items{better}: {where}"
    )


def _name(hop: HopDrift) -> str:
    """What the hop introduces, in a word or two."""
    runtime, _, form = hop.hop.child.split("/")
    if hop.hop.kind == "runtime":
        return f"{runtime} instead of the reference runtime"
    return "merging" if hop.hop.kind == "merge" else form


def _components(split: Split | None) -> list[str]:
    if split is None:
        return []
    whole = split.end_to_end.kl_mean.value
    if whole == 0:
        return ["its distributions are the same to the bit"]
    if split.weights is None or split.numerics is None:
        return [f"{_nats(whole)} a token in all, not split: {split.withheld}"]
    weights, numerics = split.weights.kl_mean.value, split.numerics.kl_mean.value
    if whole < NOTHING:
        return [f"its distributions are the same to rounding ({_nats(whole)} a token)"]
    return [f"{_nats(whole)} a token: {_shares(weights, numerics)}"]


def _shares(weights: float, numerics: float) -> str:
    """Which part is larger, and by how much; never a sum."""
    if weights == 0:
        return f"all of it arithmetic ({_nats(numerics)}), the stored weights are unchanged"
    if numerics == 0:
        return f"all of it the stored weights ({_nats(weights)})"
    if numerics < weights / 20:
        return f"the stored weights ({_nats(weights)}); arithmetic adds {_nats(numerics)}"
    if weights < numerics / 20:
        return f"the runtime's arithmetic ({_nats(numerics)}); the weights give {_nats(weights)}"
    return f"stored weights {_nats(weights)} and the runtime's arithmetic {_nats(numerics)} alike"


def _causes(hop: HopDrift) -> list[str]:
    """Components of the flips (of the parted answers when nothing flipped), and their near-ties."""
    flipped = [item for item in hop.items if item.flip != "none"]
    items = flipped or [item for item in hop.items if item.cause is not None]
    if not items or hop.hop.kind == "adapter":
        return []
    counted = Counter(_component(item) for item in items)
    named = ", ".join(f"{count} by {name}" for name, count in counted.most_common())
    near = [item for item in items if item.cause is not None and item.cause.near_tie]
    what = "flips" if flipped else "changed answers"
    return [f"{what}: {named}; {_near(len(near), len(items))}"]


def _component(item: ItemDrift) -> str:
    if item.cause is None or item.cause.component is None:
        return "a cause not told apart"
    return item.cause.component


def _near(near: int, total: int) -> str:
    if not near:
        return "none a near-tie"
    return "all near-ties" if near == total else f"{near} near-ties"


def _nats(value: float) -> str:
    return f"{value:.2g} nats"
