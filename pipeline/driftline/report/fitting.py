"""Making Markdown fit into a number of bytes: as many texts as there is room for; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

FEWER = (256, 64, 32, 16, 8, 4, 2, 1)
"""How many answers are listed on a line: the first number with which all lines fit."""

T = TypeVar("T")


@dataclass(frozen=True)
class Fitted:
    """What is printed of a list, and how many of its entries are not."""

    texts: tuple[str, ...]
    more: int

    @property
    def size(self) -> int:
        """Bytes of UTF-8 that it takes."""
        return sum(len(text.encode()) for text in self.texts)


def fit(texts: Iterable[str], room: int, *, total: int) -> Fitted:
    """The longest beginning of `texts` that takes at most `room` bytes of UTF-8.

    Args:
        texts: `total` texts; those that do not fit are not even asked for.
        room: bytes.
        total: how many there are.
    """
    size = 0
    shown: list[str] = []
    for text in texts:
        size += len(text.encode())
        if size > room:
            break
        shown.append(text)
    return Fitted(tuple(shown), total - len(shown))


def fit_per_hop(hops: Sequence[T], room: int, show: Callable[[T, int], str]) -> Fitted:
    """One line per hop, each with as many answers as let all hops fit into `room` bytes.

    Args:
        hops: what there is to list of each.
        room: bytes of UTF-8.
        show: (one of `hops`, how many to list) → a line that says itself how many it leaves out.
    """
    for count in FEWER:
        lines = (show(each, count) for each in hops)
        fitted = fit(lines, room, total=len(hops))
        if fitted.more == 0:
            return fitted
    return fitted
