"""A layered layout of a forest: one column per generation, no two boxes overlap; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Placed:
    """Where a node's box is: its column, counted from 0, and its upper edge."""

    column: int
    top: float


@dataclass(frozen=True)
class Layout:
    """Every node's place, and the edges that were used: one into each node at most."""

    nodes: Mapping[str, Placed]
    edges: tuple[tuple[str, str], ...]
    columns: int
    height: float


def layered(
    heights: Mapping[str, float], edges: Iterable[tuple[str, str]], gap: float
) -> Layout:
    """Place nodes so that children stand right of their parent, around its middle.

    A subtree has a band of its own, so that nothing in it meets anything of another one. Edges from
    or to a node that is not there are left out, and so is any that would close a circle.

    Args:
        heights: of each node's box, in the order in which siblings stand.
        edges: (parent, child); the first into a child counts.
        gap: between boxes that stand above each other.
    """
    parents = _forest(heights, edges)
    children: dict[str, list[str]] = {name: [] for name in heights}
    for name in heights:
        if name in parents:
            children[parents[name]].append(name)
    roots = [name for name in heights if name not in parents]
    order = _preorder(roots, children)
    bands = _bands(order, children, heights, gap)
    placed: dict[str, Placed] = {}
    tops = dict(zip(roots, _stacked(roots, bands, 0.0, gap), strict=True))
    for name in order:
        column = placed[parents[name]].column + 1 if name in parents else 0
        inner = _sum(children[name], bands, gap)
        first = tops[name] + (bands[name] - inner) / 2
        tops.update(zip(children[name], _stacked(children[name], bands, first, gap), strict=True))
        placed[name] = Placed(column, tops[name] + (bands[name] - heights[name]) / 2)
    return Layout(
        nodes=placed,
        edges=tuple((parents[name], name) for name in heights if name in parents),
        columns=max((place.column for place in placed.values()), default=-1) + 1,
        height=_sum(roots, bands, gap),
    )


def _forest(heights: Mapping[str, float], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parent of each node that has one."""
    found: dict[str, str] = {}
    for parent, child in edges:
        if parent not in heights or child not in heights or child in found:
            continue
        above: str | None = parent
        while above is not None and above != child:
            above = found.get(above)
        if above is None:
            found[child] = parent
    return found


def _preorder(roots: Sequence[str], children: Mapping[str, Sequence[str]]) -> list[str]:
    found: list[str] = []
    waiting = list(reversed(roots))
    while waiting:
        name = waiting.pop()
        found.append(name)
        waiting += reversed(children[name])
    return found


def _bands(
    order: Sequence[str],
    children: Mapping[str, Sequence[str]],
    heights: Mapping[str, float],
    gap: float,
) -> dict[str, float]:
    """Height of each subtree."""
    bands: dict[str, float] = {}
    for name in reversed(order):
        bands[name] = max(heights[name], _sum(children[name], bands, gap))
    return bands


def _sum(names: Sequence[str], bands: Mapping[str, float], gap: float) -> float:
    return sum(bands[name] for name in names) + gap * max(0, len(names) - 1)


def _stacked(
    names: Sequence[str], bands: Mapping[str, float], first: float, gap: float
) -> list[float]:
    found = []
    for name in names:
        found.append(first)
        first += bands[name] + gap
    return found
