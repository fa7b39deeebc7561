"""The gate's error rates: false alarms on clean pipelines, and which losses it sees.

    python -m benchmarks.gate_power [PIPELINES]        default: 200 for each number of items

False alarms: whole pipelines (an adapter, then merge, GGUF in float and two quantizations, MLX and
vLLM, for two variants of two evalsets each: 14 hops) drawn from a population in which no hop
loses anything, but answers flip both ways at the rates of `NOISE`; the default policy; seeded.

Power: the share of samples in which a hop with a true loss does not pass, and in which the loss is
proven; exact, by enumeration of a trinomial in which `DISCORDANT` of the items flip each way beside
the loss. Coverage of the bounds is enumerated likewise.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache, partial

import numpy as np
from scipy import stats

from driftline.gate import evaluation, margins
from driftline.gate.margins import ALPHA, Pairs
from driftline.project import graph, plan
from driftline.project.routes import ROOT_CELL
from driftline.schema.gate import GatePolicy, GateReport
from driftline.schema.hops import HopKind
from tests.factories import asked, project
from tests.unit.gate_evidence import KL, Made, estimate

SEED = 20260601
TODAY = date(2026, 6, 1)
ACCURACY = 0.85
NOISE: dict[HopKind, float] = {
    "adapter": 0.3,
    "merge": 0.0005,
    "convert": 0.001,
    "quantize": 0.01,
    "runtime": 0.001,
}
"""Share of answers that flip, half of them each way; `convert` to MLX has that of `quantize`."""
DISCORDANT = 0.01
"""Share of items that flip each way beside a true loss, in the power table."""
CLEAN_ITEMS = (50, 100, 200, 400)
ITEMS = (50, 100, 200, 400, 1000)
LOSSES = (0.0, 0.01, 0.02, 0.05, 0.10)
MARGINS = (0.05, 0.02)
LEAST_PROBABILITY = 1e-9

PROJECT = project(
    adapters={"audit": {"path": "a"}, "privacy": {"path": "p"}},
    variants=["audit", "privacy"],
    evalsets={"base": ["clauses"], "audit": ["pods", "sql"], "privacy": ["forms", "tables"]},
    gguf={"outtype": "f32", "quantizations": ["q8_0", "q4_k_m"]},
    mlx={"artifacts": ["4bit"], "recipes": {"4bit": {"bits": 4, "group_size": 64}}},
    vllm=["audit", "privacy"],
)
LOSSY = "llamacpp/audit/q4_k_m"


# ---------------------------------------------------------------------------- clean pipelines


def drawn(items: int, rng: np.random.Generator, *, loss: float = 0.0) -> Made:
    """One pipeline of a population without a loss, but for a true `loss` at `LOSSY`."""
    right: dict[str, dict[str, bool]] = {}
    parents = {hop.child: hop for hop in graph.hops(PROJECT)}
    near_ties: dict[str, tuple[str, ...]] = {}
    fields: dict[str, dict[str, object]] = {}
    for spec in plan.plan(PROJECT):
        keys = [f"{name}/{n:04}" for name in asked(PROJECT, spec) for n in range(items)]
        if spec.id == ROOT_CELL:
            right[spec.id] = dict(zip(keys, rng.random(len(keys)) < ACCURACY, strict=True))
            continue
        hop = parents[spec.id]
        is_lossy = hop.kind == "quantize" or spec.runtime == "mlx"
        rate = NOISE["quantize" if is_lossy else hop.kind]
        before = np.array([right[hop.parent][key] for key in keys])
        after = _noisy(before, rate, rng)
        if spec.id == LOSSY:
            after &= rng.random(len(keys)) >= loss / ACCURACY
        right[spec.id] = dict(zip(keys, after.tolist(), strict=True))
        kl = KL["quantize" if is_lossy else hop.kind] * rng.lognormal(0, 0.3)
        fields[spec.id] = {"kl": estimate(kl, 0.15), "kl_p99": 10 * kl}
        if not is_lossy:
            flipped = (key for key, same in zip(keys, before == after, strict=True) if not same)
            near_ties[spec.id] = tuple(flipped)
    scores = {
        cell: {key: 0.0 for key, is_right in found.items() if not is_right}
        for cell, found in right.items()
    }
    return Made(PROJECT, items=items, scores=scores, hops=fields, near_ties=near_ties)


def _noisy(before: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Answers that flip at a rate, as many from right to wrong as back, on average."""
    flips = np.where(before, rate / 2 / ACCURACY, rate / 2 / (1 - ACCURACY))
    found: np.ndarray = before ^ (rng.random(len(before)) < flips)
    return found


def verdict(made: Made, policy: GatePolicy | None = None) -> GateReport:
    """The gate's, without blessings."""
    return evaluation.evaluate(policy or GatePolicy(), made.evidence(), today=TODAY)


def verdicts(pipelines: int, items: int, *, loss: float = 0.0, seed: int = SEED) -> Counter[str]:
    """How many of so many pipelines got each verdict."""
    rng = np.random.default_rng((seed, items, round(1000 * loss)))
    return Counter(verdict(drawn(items, rng, loss=loss)).verdict for _ in range(pipelines))


# ------------------------------------------------------------------------------------------ power


def outcomes(items: int, lost: float, gained: float) -> Iterator[tuple[int, int, float]]:
    """Every likely count of losses and gains among `items`, with its probability."""
    rest = gained / (1 - lost)
    for b in range(items + 1):
        p = float(stats.binom.pmf(b, items, lost))
        if p < LEAST_PROBABILITY:
            continue
        counts = np.arange(items - b + 1)
        for c, q in zip(counts, stats.binom.pmf(counts, items - b, rest), strict=True):
            if p * q >= LEAST_PROBABILITY:
                yield b, int(c), float(p * q)


@cache
def decision(items: int, b: int, c: int, margin: float, family: int) -> str:
    """The verdict on one hop, all other tests of the `family` far from proving anything."""
    pairs = Pairs.flips(items, b, c)
    if margins.low(pairs) > margin and family * margins.sign_p(pairs) < ALPHA:
        return "fail"
    return "pass" if margins.high(pairs) <= margin else "undecided"


def power(items: int, loss: float, margin: float, family: int) -> dict[str, float]:
    """Probability of each verdict on a hop with a true loss."""
    found = {"pass": 0.0, "undecided": 0.0, "fail": 0.0}
    for b, c, p in outcomes(items, DISCORDANT + loss, DISCORDANT):
        found[decision(items, b, c, margin, family)] += p
    return found


def missed(items: int, lost: float, gained: float) -> tuple[float, float]:
    """How often the true loss is above the upper bound, and below the lower one."""
    loss = lost - gained
    above = below = 0.0
    for b, c, p in outcomes(items, lost, gained):
        pairs = Pairs.flips(items, b, c)
        above += p * (margins.high(pairs) < loss - 1e-12)
        below += p * (margins.low(pairs) > loss + 1e-12)
    return above, below


def worst_coverage(items: int) -> float:
    """The largest error of a one-sided bound over rates of losses and gains."""
    rates = (0.0, 0.002, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
    return max(max(missed(items, p, q)) for p in rates for q in rates if 0 < p + q < 1)


# ---------------------------------------------------------------------------------------- printing


def upper(count: int, of: int) -> float:
    """Clopper-Pearson's 95 % upper bound of a share, for a simulated rate."""
    return float(stats.beta.ppf(0.95, count + 1, of - count)) if count < of else 1.0


def family() -> int:
    """How many tests of scores one of these pipelines has: one for each hop, and evalset on it."""
    report = verdict(drawn(50, np.random.default_rng(SEED)))
    return sum(row.check == "loss" for row in report.checks)


def main(pipelines: int) -> None:
    """Print the tables."""
    print(f"clean pipelines, {pipelines} for each number of items; default policy; seed {SEED}")
    print("items a hop   pass   undecided   fail   stopped (95 % bound)")
    for items in CLEAN_ITEMS:
        start = time.perf_counter()
        found = verdicts(pipelines, items)
        stopped = pipelines - found["pass"]
        print(
            f"{2 * items:11}{found['pass']:7}{found['undecided']:12}{found['fail']:7}   "
            f"{stopped / pipelines:6.1%} (at most {upper(stopped, pipelines):.1%})"
            f"   {time.perf_counter() - start:.0f} s"
        )
    tests = family()
    for margin in MARGINS:
        print(
            f"\none hop among {tests} tests, limit {100 * margin:g} points, "
            f"{200 * DISCORDANT:g} % of items flip beside the loss: not passed / proven"
        )
        _print_grid(partial(power, margin=margin, family=tests))
    print("\nlargest error of a 5 % bound, over rates of losses and gains:")
    for items in (10, 26, 40, 100, 200):
        print(f"{items:6} items  {worst_coverage(items):.2%}")
    some = max(1, pipelines // 4)
    found = verdicts(some, 100, loss=0.05)
    print(
        f"\nwhole pipelines with a true loss of 5 points at one hop, 200 items in two evalsets, "
        f"default policy: {some - found['pass']} of {some} stopped ({dict(found)})"
    )


def _print_grid(table: Callable[[int, float], dict[str, float]]) -> None:
    print(f"{'true loss':>10}" + "".join(f"{items:>15} items" for items in ITEMS))
    for loss in LOSSES:
        cells = (table(items, loss) for items in ITEMS)
        shown = (f"{1 - found['pass']:11.1%} / {found['fail']:6.1%}" for found in cells)
        print(f"{100 * loss:10g}" + " ".join(f"{text:>20}" for text in shown))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
