"""Small static charts as SVG: every number of theirs is written beside them or in their label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from driftline.report.figures import brief, edge, estimate, interval, size
from driftline.report.html.markup import fill, joined
from driftline.schema.budget import Budget, GroupCost
from driftline.schema.statistics import Bin, Estimate

BAR, TALL = 46, 64
"""Pixels: a bar with the space beside it, and the highest bar."""
PLOT = 168
"""Pixels of an interval's scale."""
LEAST, MOST = -13, 1
"""Decades on that scale, in nats; what is smaller or larger stands at its end."""
END = Markup("</svg>")
SHADES = 8
"""Steps of colour in a heat map."""


def bars(bins: Sequence[Bin], what: str) -> Markup:
    """Mean KL per bin as bars from 0, each with its figure above and its lower edge below."""
    top = max((each.kl_mean for each in bins), default=0.0)
    width = BAR * len(bins) + 30
    drawn = [_bar(at, each, each.kl_mean / top if top else 0.0) for at, each in enumerate(bins)]
    last = bins[-1].high if bins else 0.0
    drawn.append(_words(BAR * len(bins), TALL + 29, edge(last), "x"))
    label = f"mean KL by {what}: " + ", ".join(
        f"{edge(each.low)}–{edge(each.high)}: {brief(each.kl_mean)} ({size(each.n)})"
        for each in bins
    )
    head = '<svg class="bars" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}">'
    return joined(fill(head, label, width, TALL + 36, width), *drawn, END)


def _bar(at: int, each: Bin, share: float) -> Markup:
    height = round(TALL * share, 1)
    box = '<rect x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
    title = f"{edge(each.low)} to {edge(each.high)}: {brief(each.kl_mean)} nats, {size(each.n)}"
    return joined(
        fill(box, BAR * at + 4, TALL + 16 - height, BAR - 10, height, title),
        _words(BAR * at + (BAR - 2) / 2, TALL + 12 - height, brief(each.kl_mean), "y"),
        _words(BAR * at, TALL + 29, edge(each.low), "x"),
    )


def _words(x: float, y: float, text: str, kind: str) -> Markup:
    return fill('<text class="{}" x="{:g}" y="{:g}">{}</text>', kind, x, y, text)


def plot(value: Estimate, floor: float | None) -> Markup:
    """A mean KL with its interval on a scale of decades; the noise floor as a hollow mark.

    An exact 0 has no place on it and stands before its beginning.
    """
    label = f"{estimate(value)} nats {interval(value)}"
    head = '<svg class="plot" role="img" aria-label="{}" viewBox="0 0 {} 16" width="{}">'
    rule = '<path class="rule" d="M12 8H{}"/>'
    drawn = [fill(head, label, PLOT, PLOT), fill(rule, PLOT)]
    for decade in range(LEAST, MOST + 1, 2):
        tick = '<path class="rule" d="M{:g} 6v4"/>'
        drawn.append(fill(tick, _place(10.0**decade)))
    if floor:
        ring = (
            '<circle class="floor" cx="{:g}" cy="8" r="2.5"><title>noise floor {}</title></circle>'
        )
        drawn.append(fill(ring, _place(floor), brief(floor)))
    if value.low > 0:
        whisker = '<path class="span" d="M{:g} 8H{:g}"/>'
        drawn.append(fill(whisker, _place(value.low), _place(value.high)))
    shape = '<circle cx="{:g}" cy="8" r="3.5"/>' if value.value > 0 else '<path d="M3 5h6v6h-6z"/>'
    drawn.append(fill(shape, _place(value.value)))
    return joined(*drawn, END)


def _place(value: float) -> float:
    """Pixels from the left."""
    if value <= 0:
        return 6.0
    decade = min(max(math.log10(value), LEAST), MOST)
    return round(16 + (PLOT - 22) * (decade - LEAST) / (MOST - LEAST), 1)


def chance(probability: float) -> Markup:
    """A probability as the filled part of a bar."""
    whole = (
        '<svg class="chance" aria-hidden="true" viewBox="0 0 60 8" width="60" height="8">'
        '<rect class="rest" width="60" height="8"/><rect width="{:g}" height="8"/></svg>'
    )
    return fill(whole, round(60 * probability, 1))


# -------------------------------------------------------------------------------------- heat maps


@dataclass(frozen=True)
class Heat:
    """One group of tensors: what swapping it alone costs, and its shade from 0 to `SHADES`."""

    kl: float
    shade: int


@dataclass(frozen=True)
class HeatRow:
    """One layer, or one module outside the layers, which then has a single cost."""

    name: str
    cells: tuple[Heat | None, ...]


@dataclass(frozen=True)
class HeatMap:
    """A budget as a table: layers down, modules across."""

    budget: Budget
    modules: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    others: tuple[HeatRow, ...]


def heat_map(budget: Budget) -> HeatMap:
    """Every group of a budget in its place; shades are shares of the costliest."""
    top = max((cost.kl for cost in budget.groups), default=0.0)
    inside = [cost for cost in budget.groups if cost.layer is not None]
    modules = tuple(sorted({cost.module for cost in inside}))
    layers = sorted({cost.layer for cost in inside if cost.layer is not None})
    return HeatMap(
        budget=budget,
        modules=modules,
        rows=tuple(
            HeatRow(f"layer {layer}", _cells(inside, layer, modules, top)) for layer in layers
        ),
        others=tuple(
            HeatRow(cost.module, (_heat(cost, top),))
            for cost in budget.groups
            if cost.layer is None
        ),
    )


def _cells(
    costs: Iterable[GroupCost], layer: int, modules: Sequence[str], top: float
) -> tuple[Heat | None, ...]:
    by_module = {cost.module: _heat(cost, top) for cost in costs if cost.layer == layer}
    return tuple(by_module.get(module) for module in modules)


def _heat(cost: GroupCost, top: float) -> Heat:
    return Heat(cost.kl, round(SHADES * cost.kl / top) if top else 0)
