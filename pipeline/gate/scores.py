"""Checks of scores by interval, corrected for how many there are; pure.

Each is a loss of points from some reference that may be at most a margin: a loss over a hop, a gain
(the same with before and after exchanged), or wrong answers (a loss from all right).

- More than the margin is *proven* where the lower bound is above it. With many hops and evalsets
  some bound is above by chance, so proofs are corrected over all tests of a report (Holm 1979): a
  pipeline that loses no more than allowed anywhere fails by them in at most 5 % of runs.
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

from pipeline.drift.statistics import holm
from pipeline.gate import margins
from pipeline.gate.facts import HopFacts
from pipeline.gate.margins import ALPHA, Pairs
from pipeline.gate.policy import Limit, Scope
from pipeline.gate.rows import DIGITS, TOO_FEW, count, more_items, points, row, would_decide
from pipeline.schema.gate import GateVerdict, Verdict


@dataclass(frozen=True)
class Interval:
    """Points lost against a margin.

    `row` is the verdict as far as it is known before the correction for all tests, `say` its
    message once it is known whether more was proven. `excluded` says whether more than the margin
    has to be excluded.
    """

    row: GateVerdict
    pairs: Pairs
    margin: float
    say: Callable[[GateVerdict, bool], str]
    excluded: bool = True

    @property
    def p(self) -> float:
        """Least error at which more than the margin is proven."""
        return margins.p_value(self.pairs, self.margin)


def intervals(hop: HopFacts, scope: Scope, limits: Mapping[str, Limit]) -> Iterator[Interval]:
    """Every test of scores on some items of a hop."""
    pairs = hop.pairs(scope)
    if pairs.items and "max_loss" in limits:
        yield _loss(hop, scope, pairs, limits["max_loss"])
    if pairs.items and "max_gain" in limits:
        yield _gain(hop, scope, pairs.swapped, limits["max_gain"])
    if "min_accuracy" in limits and (keys := hop.within(hop.right, scope)):
        yield _accuracy(hop, scope, keys, limits["min_accuracy"])


def corrected(found: Sequence[Interval]) -> Iterator[GateVerdict]:
    """Verdicts of all tests of a report."""
    if found:
        for test, p in zip(found, holm([test.p for test in found]), strict=True):
            yield _decided(test, proven=p < ALPHA, alpha=ALPHA / len(found))


def _decided(test: Interval, *, proven: bool, alpha: float) -> GateVerdict:
    verdict: Verdict = "fail" if proven else "pass"
    need, said = None, test.say(test.row, proven)
    if not proven and test.excluded and margins.high(test.pairs) > test.margin:
        verdict = "undecided"
        need = margins.items_that_decide(test.pairs, test.margin, alpha)
        said += "; " + would_decide(need)
    return test.row.model_copy(
        update={
            "verdict": verdict,
            "message": said,
            "need": need,
            "cause": test.row.cause or (TOO_FEW if verdict == "undecided" else ""),
            "look": "" if verdict == "pass" else test.row.look,
        }
    )


def _loss(hop: HopFacts, scope: Scope, pairs: Pairs, limit: Limit) -> Interval:
    keys = hop.changed(scope, better=False)

    def say(found: GateVerdict, proven: bool) -> str:
        bound = f"at least {points(found.low)}" if proven else f"at most {points(found.high)} lost"
        return f"{_changed(found, -pairs.loss)} (95 %: {bound}), {points(limit.value)} allowed"

    made = _row("loss", hop, scope, pairs, limit, keys)
    return Interval(made, pairs, limit.value, say)


def _gain(hop: HopFacts, scope: Scope, swapped: Pairs, limit: Limit) -> Interval:
    keys = hop.changed(scope, better=True)

    def say(found: GateVerdict, proven: bool) -> str:
        said = _changed(found, swapped.loss)
        said += f" (95 %: at least {points(max(found.low or 0.0, 0.0))} gained), "
        said += f"{points(limit.value)} allowed"
        return f"improved, explain it or bless it: {said}" if proven else said

    made = _row("gain", hop, scope, swapped, limit, keys)
    return Interval(made, swapped, limit.value, say, excluded=False)


def _changed(found: GateVerdict, gain: float) -> str:
    verb = "gains" if gain > 0 else "loses"
    return f"{verb} {points(abs(gain))} points of {count(found.items, 'item')}"


def _row(
    check: str, hop: HopFacts, scope: Scope, pairs: Pairs, limit: Limit, keys: tuple[str, ...]
) -> GateVerdict:
    return row(
        "gain" if check == "gain" else "loss",
        hop.child,
        "pass",
        "",
        hop=hop.evidence,
        scope=scope,
        items=int(pairs.items),
        measured=margins.high(pairs),
        limit=limit.value,
        low=round(margins.low(pairs), DIGITS),
        high=round(margins.high(pairs), DIGITS),
        cause=hop.causes(keys) if keys else "",
        keys=keys,
        look=f"driftline explain {keys[0]}" if keys else more_items(hop, scope),
        rule=limit.rule,
    )


def _accuracy(hop: HopFacts, scope: Scope, keys: tuple[str, ...], limit: Limit) -> Interval:
    wrong = tuple(key for key in keys if not hop.right[key])
    pairs = Pairs(len(keys), len(wrong), 0)

    def say(found: GateVerdict, proven: bool) -> str:
        bound = f"at most {points(found.high)}" if proven else f"at least {points(found.low)}"
        said = f"{len(keys) - len(wrong)} of {count(len(keys), 'item')} right"
        return f"{said} (95 %: {bound} %), {points(limit.value)} % required"

    made = row(
        "accuracy",
        hop.child,
        "pass",
        "",
        hop=hop.evidence,
        scope=scope,
        items=len(keys),
        measured=margins.high(pairs),
        limit=limit.value,
        low=round(1 - margins.high(pairs), DIGITS),
        high=round(1 - margins.low(pairs), DIGITS),
        keys=wrong,
        look=f"driftline explain {wrong[0]}" if wrong else more_items(hop, scope),
        rule=limit.rule,
    )
    return Interval(made, pairs, round(1 - limit.value, DIGITS), say)
