"""How much is lost at most, and at least, given how few items were asked; pure.

Of n items asked before and after, some lose points and some gain: d = after - before is in [-1, 1].
With b the sum of what was lost and c of what was gained, the loss is (b - c) / n. Its one-sided
bounds are the square-and-add combination (MOVER) of Clopper-Pearson bounds of b / n and c / n:

    high = p - q + sqrt((u_p - p)² + (q - l_q)² - 2 r (u_p - p) (q - l_q))
    low  = p - q - sqrt((p - l_p)² + (u_q - q)² - 2 r (p - l_p) (u_q - q))

for p = b / n, q = c / n and r = -sqrt(p q / ((1 - p) (1 - q))), the correlation of two counts of a
multinomial. Sources: Newcombe 1998, "Improved confidence intervals for the difference between
binomial proportions based on paired data", Statistics in Medicine 17, 2635-2650 (square and add);
Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach",
Statistics in Medicine 27, 1693-1702 (any bounds); Clopper and Pearson 1934, Biometrika 26, 404-413.

Where nothing changed, high is 1 - 0.05^(1/n), about 3 / n: the rule of three. A bootstrap would say
0. Scores between 0 and 1 count as parts of a flip, which errs on the safe side: a variance E d² of
parts is at most E |d|, that of whole flips with the same sums.

Laws: neither bound is passed by the true loss more often than alpha (`benchmarks/gate_power.py`
counts it); more items at the same rates never widen them; swapping b and c mirrors them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

ALPHA = 0.05
"""Error of a one-sided bound, and of all proofs of one report together."""
LEAST_P = 1e-15
STEPS = 60
MOST_ITEMS = 10_000_000
"""A question that needs more items than that is not decided by items."""


@dataclass(frozen=True)
class Pairs:
    """`items` asked before and after, of which `lost` and `gained` points of score in all."""

    items: float
    lost: float
    gained: float

    @classmethod
    def of(cls, pairs: Iterable[tuple[float, float]]) -> Pairs:
        """Of scores before and after, each in [0, 1]."""
        changes = [after - before for before, after in pairs]
        lost = math.fsum(-change for change in changes if change < 0)
        return cls(len(changes), lost, math.fsum(change for change in changes if change > 0))

    @property
    def loss(self) -> float:
        """Mean points lost; negative where more were gained."""
        return (self.lost - self.gained) / self.items

    @property
    def swapped(self) -> Pairs:
        """The same with before and after exchanged."""
        return Pairs(self.items, self.gained, self.lost)

    def times(self, items: float) -> Pairs:
        """As many `items` at the same rates."""
        ratio = items / self.items
        return Pairs(items, self.lost * ratio, self.gained * ratio)


def low(pairs: Pairs, alpha: float = ALPHA) -> float:
    """What is lost at least; wrong at most in a share `alpha` of samples."""
    return -high(pairs.swapped, alpha)


def high(pairs: Pairs, alpha: float = ALPHA) -> float:
    """What is lost at most; wrong at most in a share `alpha` of samples."""
    p, q = pairs.lost / pairs.items, pairs.gained / pairs.items
    up = _upper(pairs.lost, pairs.items, alpha) - p
    down = q - _lower(pairs.gained, pairs.items, alpha)
    r = -math.sqrt(p * q / ((1 - p) * (1 - q))) if p < 1 and q < 1 else 0.0
    return min(1.0, p - q + math.sqrt(up * up + down * down - 2 * r * up * down))


def _upper(count: float, items: float, alpha: float) -> float:
    """Clopper-Pearson's upper bound of a share."""
    from scipy.special import betaincinv

    return float(betaincinv(count + 1, items - count, 1 - alpha)) if count < items else 1.0


def _lower(count: float, items: float, alpha: float) -> float:
    """Clopper-Pearson's lower bound of a share."""
    from scipy.special import betaincinv

    return float(betaincinv(count, items - count + 1, alpha)) if count > 0 else 0.0


def p_value(pairs: Pairs, margin: float) -> float:
    """The least alpha at which a loss above `margin` is proven; 1 where there is none to prove."""
    if pairs.loss <= margin:
        return 1.0
    if low(pairs, LEAST_P) > margin:
        return LEAST_P
    least, most = math.log(LEAST_P), math.log(0.5)
    for _ in range(STEPS):
        middle = (least + most) / 2
        if low(pairs, math.exp(middle)) > margin:
            most = middle
        else:
            least = middle
    return math.exp(most)


def items_that_decide(pairs: Pairs, margin: float, alpha: float = ALPHA) -> int | None:
    """The fewest items, at the rates seen, at which a bound leaves `margin` to one side.

    Found with the very bounds above, which take any number of items. About half of all samples of
    that size decide where something was lost; all of them where nothing ever is. None where the
    loss seen is the margin itself.

    Args:
        pairs: what was seen, of one item or more.
        margin: the loss that is allowed.
        alpha: of the bound that proves more; the one that excludes it has `ALPHA`.
    """
    least, most = 0, 1
    while not _decided(pairs.times(most), margin, alpha):
        least, most = most, 2 * most
        if most > MOST_ITEMS:
            return None
    while most - least > 1:
        middle = (least + most) // 2
        if _decided(pairs.times(middle), margin, alpha):
            most = middle
        else:
            least = middle
    return most


def _decided(pairs: Pairs, margin: float, alpha: float) -> bool:
    if pairs.loss > margin:
        return low(pairs, alpha) > margin
    return high(pairs) <= margin
