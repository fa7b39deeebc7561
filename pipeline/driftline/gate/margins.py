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
"""Error of a one-sided bound."""
MOST_ITEMS = 10_000_000
"""A question that needs more items than that is not decided by items."""


@dataclass(frozen=True)
class Pairs:
    """`items` asked before and after: points `lost` and `gained` in all, items that `fell`, `rose`.

    No count has to be whole: a plan has fractions.
    """

    items: float
    lost: float
    gained: float
    fell: float
    rose: float

    @classmethod
    def of(cls, changes: Iterable[float]) -> Pairs:
        """Of what each item gained, in [-1, 1]."""
        gains = tuple(changes)
        falls = [-change for change in gains if change < 0]
        rises = [change for change in gains if change > 0]
        return cls(len(gains), math.fsum(falls), math.fsum(rises), len(falls), len(rises))

    @classmethod
    def flips(cls, items: float, worse: float, better: float) -> Pairs:
        """Of verdicts that flipped."""
        return cls(items, worse, better, worse, better)

    @property
    def loss(self) -> float:
        """Mean points lost; negative where more were gained."""
        return (self.lost - self.gained) / self.items

    @property
    def swapped(self) -> Pairs:
        """The same with before and after exchanged."""
        return Pairs(self.items, self.gained, self.lost, self.rose, self.fell)

    def times(self, items: float) -> Pairs:
        """As many `items` at the same rates."""
        counts = (self.lost, self.gained, self.fell, self.rose)
        return Pairs(items, *(count * items / self.items for count in counts))


def low(pairs: Pairs, alpha: float = ALPHA) -> float:
    """What is lost at least; wrong at most in a share `alpha` of samples."""
    return -high(pairs.swapped, alpha)


def high(pairs: Pairs, alpha: float = ALPHA) -> float:
    """What is lost at most; wrong at most in a share `alpha` of samples."""
    p, q = pairs.lost / pairs.items, pairs.gained / pairs.items
    up = upper(pairs.lost, pairs.items, alpha) - p
    down = q - lower(pairs.gained, pairs.items, alpha)
    r = -math.sqrt(p * q / ((1 - p) * (1 - q))) if p < 1 and q < 1 else 0.0
    return min(1.0, p - q + math.sqrt(up * up + down * down - 2 * r * up * down))


def upper(count: float, items: float, alpha: float = ALPHA) -> float:
    """Clopper-Pearson's one-sided upper bound of a share."""
    from scipy.special import betainccinv

    return float(betainccinv(count + 1, items - count, alpha)) if count < items else 1.0


def lower(count: float, items: float, alpha: float = ALPHA) -> float:
    """Clopper-Pearson's one-sided lower bound of a share."""
    from scipy.special import betaincinv

    return float(betaincinv(count, items - count + 1, alpha)) if count > 0 else 0.0


def tail(count: float, items: float, share: float) -> float:
    """Probability of `count` or more of `items`, each with probability `share`.

    That of a binomial as an incomplete beta function, which takes any number of items.
    """
    from scipy.special import betainc

    return float(betainc(count, items - count + 1, share)) if count > 0 else 1.0


def sign_p(pairs: Pairs) -> float:
    """Exact two-sided McNemar (sign) test: were falls and rises equally likely? 1 without any.

    Source: McNemar 1947; twice the smaller tail of a binomial at one half, at most 1.
    """
    more = max(pairs.fell, pairs.rose)
    return min(1.0, 2 * tail(more, pairs.fell + pairs.rose, 0.5))


def items_that_decide(pairs: Pairs, margin: float, *, alpha: float = ALPHA) -> int | None:
    """The fewest items, at the rates seen, at which a bound leaves `margin` to one side.

    Found with the very bounds above, which take any number of items. About half of all samples of
    that size decide where something was lost; all of them where nothing ever is. None where the
    loss seen is the margin itself.

    Args:
        pairs: what was seen, of one item or more.
        margin: the loss that is allowed.
        alpha: what `sign_p` has to be below for more than the margin to count.
    """

    def decided(items: int) -> bool:
        seen = pairs.times(items)
        if pairs.loss > margin:
            return low(seen) > margin and sign_p(seen) < alpha
        return high(seen) <= margin

    least, most = 0, 1
    while not decided(most):
        least, most = most, 2 * most
        if most > MOST_ITEMS:
            return None
    while most - least > 1:
        middle = (least + most) // 2
        if decided(middle):
            most = middle
        else:
            least = middle
    return most
