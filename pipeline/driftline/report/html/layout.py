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


def layered(heights: Mapping[str, float], edges: Iterable[tuple[str, str]], gap: float) -> Layout:
    """Place nodes so that children stand right of their parent, the first of them level with it.

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
    tops: dict[str, float] = {}
    columns: dict[str, int] = {}
    below = _stack(roots, 0.0, bands, tops, gap)
    for name in order:
        columns[name] = columns[parents[name]] + 1 if name in parents else 0
        if children[name]:
            first = tops[name] + bands[name].middle - bands[children[name][0]].middle
            _stack(children[name], first, bands, tops, gap)
    return Layout(
        nodes={
            name: Placed(columns[name], tops[name] + bands[name].middle - heights[name] / 2)
            for name in order
        },
        edges=tuple((parents[name], name) for name in heights if name in parents),
        columns=max(columns.values(), default=-1) + 1,
        height=max(0.0, below - gap),
    )


@dataclass(frozen=True)
class _Band:
    """The room a subtree takes from top to bottom, and where the middle of its root's box is."""

    height: float
    middle: float


def _forest(heights: Mapping[str, float], edges: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The parent of each node that has one."""
    parents: dict[str, str] = {}
    for parent, child in edges:
        if parent not in heights or child not in heights or child in parents:
            continue
        above: str | None = parent
        while above is not None and above != child:
            above = parents.get(above)
        if above is None:
            parents[child] = parent
    return parents


def _preorder(roots: Sequence[str], children: Mapping[str, Sequence[str]]) -> list[str]:
    order: list[str] = []
    waiting = list(reversed(roots))
    while waiting:
        name = waiting.pop()
        order.append(name)
        waiting += reversed(children[name])
    return order


def _bands(
    order: Sequence[str],
    children: Mapping[str, Sequence[str]],
    heights: Mapping[str, float],
    gap: float,
) -> dict[str, _Band]:
    bands: dict[str, _Band] = {}
    for name in reversed(order):
        own, below = heights[name] / 2, [bands[child] for child in children[name]]
        first = below[0].middle if below else 0.0
        middle = max(own, first)
        inner = sum(band.height for band in below) + gap * max(0, len(below) - 1)
        bands[name] = _Band(max(middle + own, middle - first + inner), middle)
    return bands


def _stack(
    names: Sequence[str], at: float, bands: Mapping[str, _Band], tops: dict[str, float], gap: float
) -> float:
    """Place bands one below the other from `at` on; where the next would begin."""
    for name in names:
        tops[name] = at
        at += bands[name].height + gap
    return at
