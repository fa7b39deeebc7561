"""The error budget as a picture and as a table: layers down, modules across."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from rich.table import Table
from rich.text import Text

from driftline.report.escape import visible
from driftline.schema.budget import Budget, GroupCost

LABEL, COLUMN, ROW = 110, 118, 22
"""Pixels: the first column, every other one, and a row."""


def svg(budget: Budget) -> str:
    """The budget as an SVG of rectangles and numbers: the redder, the costlier."""
    modules, rows = _grid(budget)
    top = max((cost.kl for cost in budget.groups), default=0.0)
    body = [_label(LABEL + COLUMN * at, 14, name) for at, name in enumerate(modules)]
    for down, (name, costs) in enumerate(rows):
        body.append(_label(4, 20 + ROW * down + 15, name))
        for cost in costs:
            across = modules.index(cost.module) if cost.layer is not None else 0
            body += _cell(LABEL + COLUMN * across, 20 + ROW * down, cost.kl, top)
    width, height = LABEL + COLUMN * max(1, len(modules)) + 8, 28 + ROW * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="11">\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def table(budget: Budget) -> Table:
    """The same for a terminal."""
    modules, rows = _grid(budget)
    top = max((cost.kl for cost in budget.groups), default=0.0)
    shown = Table("")
    for name in modules:
        shown.add_column(Text(visible(name)))
    for name, costs in rows:
        cells = {cost.module: _shaded(cost.kl, top) for cost in costs}
        if costs and costs[0].layer is None:
            shown.add_row(Text(visible(name)), _shaded(costs[0].kl, top))
        else:
            shown.add_row(Text(name), *(cells.get(module, Text("–")) for module in modules))
    return shown


def worst(budget: Budget, count: int) -> Iterator[str]:
    """The costliest groups, a line each."""
    for cost in budget.groups[:count]:
        where = "" if cost.layer is None else f"layer {cost.layer} "
        yield f"{cost.kl:.3g} nats  {where}{visible(cost.module)}"


def _grid(budget: Budget) -> tuple[list[str], list[tuple[str, list[GroupCost]]]]:
    """Modules of the layers, and a row per layer or tensor outside the blocks."""
    inside = [cost for cost in budget.groups if cost.layer is not None]
    rows: dict[int, list[GroupCost]] = {}
    for cost in inside:
        if cost.layer is not None:
            rows.setdefault(cost.layer, []).append(cost)
    layers = [(f"layer {layer}", rows[layer]) for layer in sorted(rows)]
    others = [(cost.module, [cost]) for cost in budget.groups if cost.layer is None]
    return sorted({cost.module for cost in inside}), [*layers, *others]


def _cell(x: int, y: int, value: float, top: float) -> list[str]:
    light = round(255 - 190 * (value / top if top else 0.0))
    box = (
        f'<rect x="{x}" y="{y}" width="{COLUMN - 2}" height="{ROW - 2}" '
        f'fill="rgb(255,{light},{light})"/>'
    )
    return [box, _label(x + 4, y + 15, f"{value:.2e}")]


def _label(x: int, y: int, text: str) -> str:
    return f'<text x="{x}" y="{y}" fill="#222">{escape(text)}</text>'


def _shaded(value: float, top: float) -> Text:
    share = value / top if top else 0.0
    light = round(255 - 190 * share)
    return Text(f"{value:.2e}", style=f"black on rgb(255,{light},{light})")
