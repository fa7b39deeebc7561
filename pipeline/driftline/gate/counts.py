"""Checks that count, or hold a measured divergence against its limit; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from driftline.drift.statistics import paired_means
from driftline.gate.policy import ALL, Limit, Scope
from driftline.gate.readings import HopFacts
from driftline.gate.rows import DIGITS, TOO_FEW, count, more_items, row, would_decide
from driftline.schema.gate import NO_LIMIT, CheckKind, GateVerdict, Verdict
from driftline.schema.lineage import HopEvidence
from driftline.schema.statistics import Estimate

ROWS_FOR_P99 = 299
"""The fewest positions whose largest value is above the 99th percentile with 95 % confidence:
0.99^299 < 0.05 (Wilks 1941, "Determination of sample sizes for setting tolerance limits")."""


def counted(hop: HopFacts, scope: Scope, limits: Mapping[str, Limit]) -> Iterator[GateVerdict]:
    """Every check of some items of a hop but those of scores."""
    items = len(hop.within(hop.changes, scope))
    is_scored = scope == ALL or bool(hop.within(hop.right, scope))
    if "min_items" in limits or (is_scored and not items):
        yield _number(hop, scope, items, limits.get("min_items"))
    if "max_flips" in limits and items:
        yield _flips(hop, scope, items, limits["max_flips"])
    if "max_kl" in limits and hop.evidence.compared:
        yield _kl(hop, scope, limits["max_kl"])
    if "max_kl_p99" in limits and hop.evidence.compared:
        yield _kl_p99(hop, limits["max_kl_p99"])


def _number(hop: HopFacts, scope: Scope, items: int, limit: Limit | None) -> GateVerdict:
    needed = max(1, int(limit.value) if limit else 1)
    said = f"{count(items, 'item')} with a score at both ends, {needed} required"
    if not items:
        said = f"nothing was compared: {hop.evidence.reason or 'no item has a score at both ends'}"
    short = items < needed
    return row(
        "items",
        hop.child,
        "undecided" if short else "pass",
        said,
        hop=hop.evidence,
        scope=scope,
        items=items,
        measured=needed - items,
        limit=needed,
        need=needed if short else None,
        cause=TOO_FEW if short else "",
        look=more_items(hop, scope) if short else "",
        rule=limit.rule if limit else None,
    )


def _flips(hop: HopFacts, scope: Scope, items: int, limit: Limit) -> GateVerdict:
    """Answers that were right and are not, but for near-ties, which rounding decides."""
    worse = hop.within(hop.evidence.worse, scope)
    lost = tuple(key for key in worse if key not in hop.evidence.near_ties)
    ties = len(worse) - len(lost)
    cause = hop.causes(lost)
    said = f"{len(lost)} of {items} flipped"
    if lost:
        said += f" ({cause}, {'not a near-tie' if len(lost) == 1 else 'not near-ties'})"
    if ties:
        said += f", {count(ties, 'near-tie')} beside"
    return row(
        "flips",
        hop.child,
        "fail" if len(lost) > limit.value else "pass",
        f"{said}, {int(limit.value)} allowed",
        hop=hop.evidence,
        scope=scope,
        items=items,
        measured=float(len(lost)),
        limit=limit.value,
        cause=cause,
        keys=lost,
        look=f"driftline explain {lost[0]}" if lost else "",
        rule=limit.rule,
    )


# --------------------------------------------------------------------------------------------- KL


def _kl(hop: HopFacts, scope: Scope, limit: Limit) -> GateVerdict:
    """Mean KL less the noise floor's, by its interval over sequences."""
    sequences = hop.within(hop.kl, scope)
    estimate = hop.evidence.kl if scope == ALL else _mean([hop.kl[key] for key in sequences])
    if estimate is None:
        return _unmeasured("kl", hop, scope, limit)
    low, value, high = (x - hop.floor[0] for x in (estimate.low, estimate.value, estimate.high))
    verdict: Verdict = "undecided"
    if low > limit.value:
        verdict = "fail"
    elif high <= limit.value:
        verdict = "pass"
    need = None
    said = f"KL {value:.3g} nats a token (95 %: {low:.3g} to {high:.3g}), {limit.value:g} allowed"
    if verdict == "undecided":
        need = _sequences_that_decide(low, value, high, limit.value, len(sequences))
        said += "; " + would_decide(need, "sequence")
    cause = _cause(hop.evidence)
    return row(
        "kl",
        hop.child,
        verdict,
        said,
        hop=hop.evidence,
        scope=scope,
        items=len(sequences),
        measured=high,
        limit=limit.value,
        low=round(low, DIGITS),
        high=round(high, DIGITS),
        need=need,
        cause=cause,
        look="" if verdict == "pass" else _look(hop, sequences, cause),
        rule=limit.rule,
    )


def _mean(sequences: list[tuple[float, int]]) -> Estimate | None:
    """Mean over the rows of some sequences."""
    if not sequences:
        return None
    values, rows = zip(*sequences, strict=True)
    return paired_means([0.0] * len(rows), values, rows)


def _sequences_that_decide(
    low: float, value: float, high: float, limit: float, sequences: int
) -> int | None:
    """An interval is as wide as 1 / sqrt(n): n times the square of how much too wide it is."""
    if value == limit or not sequences:
        return None
    reach = high - value if value < limit else value - low
    return math.ceil(sequences * (reach / (limit - value)) ** 2)


def _kl_p99(hop: HopFacts, limit: Limit) -> GateVerdict:
    """The 99th percentile less the noise floor's; few positions do not show one."""
    if hop.evidence.kl_p99 is None:
        return _unmeasured("kl_p99", hop, ALL, limit)
    value = hop.evidence.kl_p99 - hop.floor[1]
    rows = sum(rows for _, rows in hop.kl.values())
    verdict: Verdict = "fail" if value > limit.value else "pass"
    said = f"KL {value:.3g} nats at the 99th percentile of positions, {limit.value:g} allowed"
    need = None
    if verdict == "pass" and rows < ROWS_FOR_P99:
        verdict, need = "undecided", ROWS_FOR_P99
        said += f"; {ROWS_FOR_P99} positions would decide, {rows} were measured"
    cause = _cause(hop.evidence)
    return row(
        "kl_p99",
        hop.child,
        verdict,
        said,
        hop=hop.evidence,
        items=len(hop.kl),
        measured=value,
        limit=limit.value,
        need=need,
        cause=cause,
        look="" if verdict == "pass" else _look(hop, hop.kl, cause),
        rule=limit.rule,
    )


def _unmeasured(check: CheckKind, hop: HopFacts, scope: Scope, limit: Limit) -> GateVerdict:
    why = hop.evidence.withheld or "no distributions were kept"
    return row(
        check,
        hop.child,
        "undecided",
        f"KL was not measured: {why}; {limit.value:g} nats allowed",
        hop=hop.evidence,
        scope=scope,
        limit=limit.value,
        cause="not measured",
        look=f'write max_{check}: "{NO_LIMIT}" in a rule on cells that never have it',
        rule=limit.rule,
    )


def _cause(evidence: HopEvidence) -> str:
    """The larger part of a hop's drift."""
    if evidence.weights_kl is None or evidence.numerics_kl is None:
        return "not split"
    return "weights" if evidence.weights_kl.value >= evidence.numerics_kl.value else "numerics"


def _look(hop: HopFacts, sequences: Iterable[str], cause: str) -> str:
    """What shows where the divergence is: tensor groups, or the golden prompt with the most."""
    if cause == "weights" and hop.kind in ("convert", "quantize"):
        return f"driftline budget {hop.child}"
    golden = [key for key in sequences if key in hop.asked]
    if not golden:
        return "reports/lineage.md#distributions"
    return f"driftline explain {max(golden, key=lambda key: (hop.kl[key][0], key))}"
