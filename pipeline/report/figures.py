"""Figures as text. Whatever has no figure is a word, never a zero."""

from __future__ import annotations

from pipeline.report.escape import Safe
from pipeline.report.model import EvalsetScore


def percent(share: float) -> Safe:
    """A share in [0, 1] as whole percent; 100 % and 0 % only for exactly all and none."""
    rounded = round(100 * share)
    if rounded == 100 and share < 1:
        return Safe("over 99 %")
    if rounded == 0 and share > 0:
        return Safe("under 1 %")
    return Safe(f"{rounded} %")


def score(value: EvalsetScore | None) -> Safe:
    """`41/44 93 %`: correct of scored items; what has no verdict is named after it."""
    if value is None:
        return Safe("–")
    notes = [
        f"{value.states[state]} {state}"
        for state in ("errored", "unchecked")
        if value.states.get(state)
    ]
    if value.accuracy is None:
        return Safe(", ".join(notes) or "no items")
    figure = f"{value.states.get('correct', 0)}/{value.n_scored} {percent(value.accuracy)}"
    return Safe(", ".join([figure, *notes]))


def position(value: float | None) -> Safe:
    """A median of token positions, which may end in .5."""
    return Safe("–" if value is None else f"{value:g}")


def bits(value: float) -> Safe:
    """Bits per weight."""
    return Safe(f"{value:.2f}")


def small(value: float) -> Safe:
    """A difference that is often tiny: `0`, `3.1e-07`."""
    return Safe("0" if value == 0 else f"{value:.1e}")


def size(value: int) -> Safe:
    """Bytes, with thin separators every three digits."""
    return Safe(f"{value:,}")
