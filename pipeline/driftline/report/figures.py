"""Figures as text. Whatever has no figure is a word, never a zero."""

from __future__ import annotations

from collections.abc import Callable

from driftline.report.escape import Safe
from driftline.schema.scores import EvalsetScore
from driftline.schema.statistics import Estimate


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


def brief(value: float | None) -> Safe:
    """Two significant digits, more only of a large whole number: `4.8e-07`, `0.0079`, `1,204`."""
    if value is None:
        return Safe("–")
    if value == 0:
        return Safe("0")
    if not 10 <= abs(value) < 1e6:
        return Safe(f"{value:.2g}")
    return Safe(f"{value:,.0f}")


def signed(value: float | None) -> Safe:
    """`brief` with a plus sign: a difference that can go either way."""
    return Safe(f"+{brief(value)}") if value is not None and value > 0 else brief(value)


def estimate(value: Estimate | None) -> Safe:
    """`0.0079 ± 0.0012`; an exact 0 is just that."""
    return _with_error(value, brief)


def change(value: Estimate | None) -> Safe:
    """`+0.012 ± 0.0021`."""
    return _with_error(value, signed)


def _with_error(value: Estimate | None, show: Callable[[float], Safe]) -> Safe:
    if value is None:
        return Safe("–")
    error = "" if value.value == value.se == 0 else f" ± {brief(value.se)}"
    return Safe(f"{show(value.value)}{error}")


def interval(value: Estimate | None) -> Safe:
    """The 95 % interval: `[0.0056, 0.01]`."""
    if value is None:
        return Safe("–")
    return Safe(f"[{brief(value.low)}, {brief(value.high)}]")


def share(value: Estimate | None) -> Safe:
    """A share in [0, 1]: `97.1 % ± 0.4`; 100 % and 0 % only for exactly all and none."""
    if value is None:
        return Safe("–")
    shown = f"{100 * value.value:.1f}".removesuffix(".0")
    if shown == "100" and value.value < 1:
        shown = "over 99.9"
    if shown == "0" and value.value > 0:
        shown = "under 0.1"
    error = "" if value.se == 0 else f" ± {brief(100 * value.se)}"
    return Safe(f"{shown} %{error}")


def points(value: float) -> Safe:
    """A difference of probabilities in percent: `-1.3`."""
    return brief(100 * value)


def percentage(value: Estimate) -> Safe:
    """The same with its error: `-1.3 ± 0.13`."""
    return Safe(f"{points(value.value)} ± {points(value.se)}")


def perplexity(value: Estimate | None) -> Safe:
    """`1.031 ± 0.0015`: never below 1, so that two digits would hide what changes."""
    return Safe("–" if value is None else f"{value.value:.4g} ± {brief(value.se)}")


def edge(value: float) -> Safe:
    """Where a bin begins or ends."""
    return Safe(f"{value:g}")


def size(value: int) -> Safe:
    """Bytes, with thin separators every three digits."""
    return Safe(f"{value:,}")
