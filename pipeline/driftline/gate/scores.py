"""Checks of scores by interval, corrected for how many there are; pure.

Each is a loss of points that may be at most a margin: a loss over a hop, a gain (the same with
before and after exchanged), or wrong answers (a loss from all right).

- More than the margin is *proven* where the lower bound is above it, and where anything changed at
  all beyond the chance of many tries: with many hops and evalsets some answers flip one way by
  luck, so the exact McNemar tests of all of them are corrected together (Holm 1979). Of pipelines
  whose hops change answers as often for better as for worse at most 5 % fail, however many hops
  there are; how much is lost each interval says by itself. An accuracy below its floor is tested
  exactly, in the same family.
- More than the margin is *excluded* where the upper bound is at most the margin. The gate passes
  only if every test excludes it, and such an intersection needs no correction (Berger 1982,
  "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24, 295-300): one hop
  that loses more than allowed passes in at most 5 % of runs, however many hops there are.
- Between the two nothing is decided, and the number of items that would decide is said.

A gain beyond its limit stops the gate where it is proven; it need not be excluded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from driftline.drift.statistics import holm
from driftline.gate import margins
from driftline.gate.margins import ALPHA, Pairs
from driftline.gate.policy import Limit, Scope
from driftline.gate.readings import HopFacts
from driftline.gate.rows import DIGITS, TOO_FEW, count, more_items, points, row, would_decide
from driftline.schema.gate import GateVerdict, Verdict

Bound = Literal["least", "most", "alone"]
"""Which bound is shown: what is lost at least, at most, or at least if this were the only test."""


@dataclass(frozen=True)
class Interval:
    """Points lost, between one-sided bounds, against a margin.

    `row` is the verdict as far as it is known before the correction for all tests; `say` puts what
    was seen, and the bound that matters, into words. `test` names the test of the family whose p
    value is `p`. `excluded` says whether more than the margin has to be excluded; `needed` how many
    items would decide, given the error left for a test.
    """

    row: GateVerdict
    low: float
    high: float
    margin: float
    test: str
    p: float
    say: Callable[[GateVerdict, Bound], str]
    needed: Callable[[float], int | None]
    excluded: bool = True


def intervals(hop: HopFacts, scope: Scope, limits: Mapping[str, Limit]) -> Iterator[Interval]:
    """Every interval of scores on some items of a hop."""
    pairs = hop.pairs(scope)
    if pairs.items and "max_loss" in limits:
        yield _change("loss", hop, scope, pairs, limits["max_loss"])
    if pairs.items and "max_gain" in limits:
        yield _change("gain", hop, scope, pairs.swapped, limits["max_gain"])
    if "min_accuracy" in limits and (keys := hop.within(hop.right, scope)):
        yield _accuracy(hop, scope, keys, limits["min_accuracy"])


def corrected(every: Sequence[Interval]) -> Iterator[GateVerdict]:
    """Verdicts of all intervals of a report; a loss and a gain of the same items are one test."""
    family = {each.test: each.p for each in every}
    if family:
        adjusted = dict(zip(family, holm(tuple(family.values())), strict=True))
        for each in every:
            yield _decided(each, is_real=adjusted[each.test] < ALPHA, family=len(family))


def _decided(interval: Interval, *, is_real: bool, family: int) -> GateVerdict:
    beyond = interval.low > interval.margin
    proven, alone = beyond and is_real, beyond and not is_real
    verdict: Verdict = "fail" if proven else "pass"
    bound: Bound = "least" if proven else "alone" if alone else "most"
    need, said = None, interval.say(interval.row, bound)
    if alone:
        said += f"; not proven among {count(family, 'test')}"
    if not proven and interval.excluded and interval.high > interval.margin:
        verdict = "undecided"
        need = interval.needed(ALPHA / family)
        said += "; " + would_decide(need)
    return interval.row.model_copy(
        update={
            "verdict": verdict,
            "message": said,
            "need": need,
            "cause": interval.row.cause or (TOO_FEW if verdict == "undecided" else ""),
            "look": "" if verdict == "pass" else interval.row.look,
        }
    )


def _change(
    check: Literal["loss", "gain"], hop: HopFacts, scope: Scope, pairs: Pairs, limit: Limit
) -> Interval:
    """Points lost; for a gain with before and after exchanged."""
    keys = hop.changed(scope, better=check == "gain")
    low, high = margins.low(pairs), margins.high(pairs)
    made = row(
        check,
        hop.child,
        "pass",
        "",
        hop=hop.evidence,
        scope=scope,
        items=int(pairs.items),
        measured=high,
        limit=limit.value,
        low=round(low, DIGITS),
        high=round(high, DIGITS),
        cause=hop.causes(keys) if keys else "",
        keys=keys,
        look=f"driftline explain {keys[0]}" if keys else more_items(hop, scope),
        rule=limit.rule,
    )
    return Interval(
        made,
        low,
        high,
        limit.value,
        test=f"{hop.child}{scope.suffix}",
        p=margins.sign_p(pairs),
        say=partial(_loss if check == "loss" else _gain, pairs.loss),
        needed=lambda alpha: margins.items_that_decide(pairs, limit.value, alpha=alpha),
        excluded=check == "loss",
    )


def _loss(loss: float, check: GateVerdict, bound: Bound) -> str:
    shown = f"at least {points(check.low)}"
    if bound == "most":
        shown = f"at most {points(check.high)} lost"
    return f"{_changed(check, -loss)} (95 %: {shown}), {points(check.limit)} allowed"


def _gain(gain: float, check: GateVerdict, bound: Bound) -> str:
    least = points(max(check.low or 0.0, 0.0))
    said = f"{_changed(check, gain)} (95 %: at least {least} gained), {points(check.limit)} allowed"
    return f"improved, explain it or bless it: {said}" if bound == "least" else said


def _changed(check: GateVerdict, gain: float) -> str:
    verb = "gains" if gain > 0 else "loses"
    return f"{verb} {points(abs(gain))} points of {count(check.items, 'item')}"


def _accuracy(hop: HopFacts, scope: Scope, keys: tuple[str, ...], limit: Limit) -> Interval:
    """Wrong answers against the share that may be."""
    wrong, items = tuple(key for key in keys if not hop.right[key]), len(keys)
    low, high = margins.lower(len(wrong), items), margins.upper(len(wrong), items)
    margin = round(1 - limit.value, DIGITS)
    pairs = Pairs.flips(items, len(wrong), 0)
    made = row(
        "accuracy",
        hop.child,
        "pass",
        "",
        hop=hop.evidence,
        scope=scope,
        items=items,
        measured=high,
        limit=limit.value,
        low=round(1 - high, DIGITS),
        high=round(1 - low, DIGITS),
        keys=wrong,
        look=f"driftline explain {wrong[0]}" if wrong else more_items(hop, scope),
        rule=limit.rule,
    )
    return Interval(
        made,
        low,
        high,
        margin,
        test=made.id,
        p=margins.tail(len(wrong), items, margin),
        say=_right,
        needed=lambda alpha: margins.items_that_decide(pairs, margin, alpha=alpha),
    )


def _right(check: GateVerdict, bound: Bound) -> str:
    shown = f"at most {points(check.high)}"
    if bound == "most":
        shown = f"at least {points(check.low)}"
    said = f"{check.items - len(check.keys)} of {count(check.items, 'item')} right"
    return f"{said} (95 %: {shown} %), {points(check.limit)} % required"
