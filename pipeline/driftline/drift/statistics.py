"""Distributions and scores of two cells → drift, with its uncertainty.

Definitions are those of `llama-perplexity --kl-divergence` (llama.cpp, tools/perplexity), so that
its figures can be held against these (`benchmarks/kl_divergence.py` does):

- mean ± sqrt((mean of squares - square of mean) / (N - 1)): the standard error of the mean;
- percentiles interpolate linearly at fraction x (N - 1);
- perplexity = exp(mean of -ln p(target)), ± by the delta method;
- ln of the ratio of perplexities = mean of ln p - ln q at the target; its standard error is that of
  these differences, which is sqrt(var a + var b - 2 cov(a, b)) of the two means;
- Δp = q(target) - p(target), with p the parent's probability; RMS Δp ± (0.5 / RMS) x the standard
  error of the mean of Δp².

Intervals draw whole sequences with replacement (Efron 1979; `scipy.stats.bootstrap`), because rows
of one sequence are not independent. A figure of a mean has the mean's interval carried through its
formula, which percentile intervals allow. With one sequence the mean's interval is ± 1.96 of its
standard errors, within its least and greatest row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from driftline.schema.forced import ForcedSequence
from driftline.schema.statistics import (
    Bin,
    DistributionDrift,
    Estimate,
    PairedScores,
    SequenceDrift,
)
from driftline.store.distributions import CHUNK, Chunk, Distributions, divergence

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 1000
SEED = 1979
DRAWN = 2**16
"""Values drawn at once while resampling: what bounds its memory."""
NORMAL_95 = 1.96
LEAST_LOG_P = -600.0
"""Stands for ln 0 at a target: a perplexity stays finite, and enormous."""
PERCENTILES = {
    "min": 0.0,
    "p001": 0.001,
    "p01": 0.01,
    "p05": 0.05,
    "p10": 0.1,
    "p25": 0.25,
    "median": 0.5,
    "p75": 0.75,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
    "max": 1.0,
}
FIRST_EDGE = 16
"""Where the first bin of positions ends; each later one is as long as all before it."""


@dataclass(frozen=True)
class RowSample:
    """One comparison parent → child, row by row; every array is [rows] but `lengths`.

    `kl` in nats; `agree`: both have the same most likely id; `parent_log_p` and `child_log_p`:
    natural-log probabilities of the target, NaN where there is none, -inf where a vocabulary has no
    such id; `confidence`: the parent's probability of its own most likely id; `tail`: its
    probability of everything outside the partition; `position`: the row's index in the ids of its
    sequence; `answer`: whether it is about an answer, not about a prompt or a corpus. `lengths`
    [sequences]: rows per sequence, none 0, in the order of the rows; `keys` [sequences] names them.
    """

    kl: Floats
    agree: NDArray[np.bool_]
    parent_log_p: Floats
    child_log_p: Floats
    confidence: Floats
    tail: Floats
    position: Ints
    answer: NDArray[np.bool_]
    lengths: Ints
    keys: NDArray[np.str_]

    def answers(self) -> RowSample | None:
        """The rows about answers alone; None when there is none."""
        if not self.answer.any():
            return None
        counts = np.add.reduceat(
            self.answer, np.cumsum(self.lengths) - self.lengths, dtype=np.int64
        )
        kept = {
            column.name: getattr(self, column.name)[self.answer]
            for column in fields(RowSample)
            if column.name not in ("lengths", "keys")
        }
        return RowSample(**kept, lengths=counts[counts > 0], keys=self.keys[counts > 0])


def distribution_drift(parent: Distributions, child: Distributions) -> DistributionDrift | None:
    """Drift over the sequences both have, in the parent's order; None when there is none.

    Raises:
        ValueError: as `compare`.
    """
    sample = shared_rows(parent, child)
    return None if sample is None else summarize(sample)


def shared_rows(parent: Distributions, child: Distributions) -> RowSample | None:
    """Every row of the sequences both have, in the parent's order; None when there is none.

    Raises:
        ValueError: as `compare`.
    """
    theirs = child.offsets
    shared = [each.key for each in parent.sequences if each.key in theirs]
    return compare(parent, child, shared) if shared else None


def compare(parent: Distributions, child: Distributions, keys: Sequence[str]) -> RowSample:
    """Every row of `keys`; one sequence is in memory at a time.

    Args:
        parent: distributions of a text.
        child: of the same text, on the same partition.
        keys: sequences, at least one, that both have.

    Raises:
        ValueError: the two hold another partition, or other ids under one key.
    """
    mine = {sequence.key: sequence for sequence in parent.sequences}
    theirs = {sequence.key: sequence for sequence in child.sequences}
    samples = []
    for (key, before), (_, after) in zip(parent.chunks(keys), child.chunks(keys), strict=True):
        if before.logits.shape != after.logits.shape or mine[key].ids != theirs[key].ids:
            raise ValueError(f"{key}: {parent.folder} and {child.folder} hold different texts")
        samples.append(_sample(mine[key], before, after))
    return RowSample(
        **{
            column.name: np.concatenate([getattr(each, column.name) for each in samples])
            for column in fields(RowSample)
        }
    )


def _sample(sequence: ForcedSequence, parent: Chunk, child: Chunk) -> RowSample:
    targets = np.array(sequence.targets)
    pieces = [slice(start, start + CHUNK) for start in range(0, len(targets), CHUNK)]
    return RowSample(
        kl=np.concatenate([divergence(_part(parent, rows), _part(child, rows)) for rows in pieces]),
        agree=parent.rows["top1"] == child.rows["top1"],
        parent_log_p=_target_log_p(parent, targets),
        child_log_p=_target_log_p(child, targets),
        confidence=np.exp(parent.rows["top1_logit"] - parent.rows["log_z"]),
        tail=np.exp(parent.log_tail),
        position=(position := np.arange(sequence.first_row, len(sequence.ids))),
        answer=(position >= sequence.n_prompt - 1) & (sequence.kind == "golden"),
        lengths=np.array([len(targets)]),
        keys=np.array([sequence.key]),
    )


def _part(chunk: Chunk, rows: slice) -> Chunk:
    return Chunk(chunk.logits[rows], chunk.rows[rows])


def _target_log_p(chunk: Chunk, targets: Ints) -> Floats:
    known = chunk.target_log_prob
    known = np.where(np.isnan(known), -np.inf, known)
    log_p: Floats = np.where(targets < 0, np.nan, known)
    return log_p


def per_sequence(sample: RowSample) -> tuple[SequenceDrift, ...]:
    """Mean KL of each sequence: what two measurements of a hop are paired by."""
    sums = np.add.reduceat(sample.kl, np.cumsum(sample.lengths) - sample.lengths)
    return tuple(
        SequenceDrift(key=key, rows=rows, kl_mean=total / rows)
        for key, rows, total in zip(
            sample.keys.tolist(), sample.lengths.tolist(), sums.tolist(), strict=True
        )
    )


def summarize(sample: RowSample) -> DistributionDrift:
    """The figures of one comparison; each formula is in this module's docstring."""
    kl_mean, agreement = _means(np.stack((sample.kl, sample.agree)), sample.lengths)
    ranks = np.quantile(sample.kl, (0.5, 0.9, 0.99, 0.999, 1.0)).tolist()
    targets = _targets(sample)
    return DistributionDrift(
        positions=len(sample.kl),
        sequences=len(sample.lengths),
        kl_mean=kl_mean,
        kl_median=ranks[0],
        kl_p90=ranks[1],
        kl_p99=ranks[2],
        kl_p999=ranks[3],
        kl_max=ranks[4],
        top1_agreement=agreement,
        perplexity_parent=targets.perplexity_parent,
        perplexity_child=targets.perplexity_child,
        ln_perplexity_ratio=targets.ln_perplexity_ratio,
        delta_p_mean=targets.delta_p_mean,
        delta_p_rms=targets.delta_p_rms,
        delta_p_percentiles=targets.delta_p_percentiles,
        tail_mass_mean=float(sample.tail.mean()),
        tail_mass_max=float(sample.tail.max()),
        by_position=_bins(sample.kl, sample.position, _position_edges(sample.position)),
        by_confidence=_bins(sample.kl, sample.confidence, np.arange(11) / 10),
    )


@dataclass(frozen=True)
class _Targets:
    """What the rows with a target say; all None where there is no such row."""

    perplexity_parent: Estimate | None = None
    perplexity_child: Estimate | None = None
    ln_perplexity_ratio: Estimate | None = None
    delta_p_mean: Estimate | None = None
    delta_p_rms: Estimate | None = None
    delta_p_percentiles: dict[str, float] = field(default_factory=dict)


def _targets(sample: RowSample) -> _Targets:
    has_target = ~np.isnan(sample.parent_log_p)
    if not has_target.any():
        return _Targets()
    counts = np.add.reduceat(has_target, np.cumsum(sample.lengths) - sample.lengths, dtype=np.int64)
    parent = np.maximum(sample.parent_log_p[has_target], LEAST_LOG_P)
    child = np.maximum(sample.child_log_p[has_target], LEAST_LOG_P)
    delta = np.exp(child) - np.exp(parent)
    lost_parent, lost_child, ratio, mean, square = _means(
        np.stack((-parent, -child, parent - child, delta, delta**2)), counts[counts > 0]
    )
    ranks = np.quantile(delta, list(PERCENTILES.values())).tolist()
    return _Targets(
        perplexity_parent=_exponential(lost_parent),
        perplexity_child=_exponential(lost_child),
        ln_perplexity_ratio=ratio,
        delta_p_mean=mean,
        delta_p_rms=_root(square),
        delta_p_percentiles=dict(zip(PERCENTILES, ranks, strict=True)),
    )


def _means(values: Floats, lengths: Ints) -> list[Estimate]:
    """One mean per line of `values` [figures, rows]; `lengths` [sequences], none 0, sum to rows."""
    from scipy import stats

    means, rows = values.mean(axis=1), values.shape[1]
    errors = stats.sem(values, axis=1) if rows > 1 else np.zeros_like(means)
    if len(lengths) > 1:
        low, high = _resampled(values, lengths)
    else:
        span = values.min(axis=1), values.max(axis=1)
        low, high = (np.clip(means + z * errors, *span) for z in (-NORMAL_95, NORMAL_95))
    return [
        Estimate(value=value, se=se, low=least, high=greatest)
        for value, se, least, greatest in zip(
            means.tolist(), errors.tolist(), low.tolist(), high.tolist(), strict=True
        )
    ]


def _resampled(values: Floats, lengths: Ints) -> tuple[Floats, Floats]:
    """95 % percentile intervals [figures] of the means of `values`, over whole sequences."""
    return _bootstrap(np.add.reduceat(values, np.cumsum(lengths) - lengths, axis=1), lengths)


def _bootstrap(sums: Floats, lengths: Ints) -> tuple[Floats, Floats]:
    """The same of sums over sequences [figures, sequences]."""
    from scipy import stats

    interval = stats.bootstrap(
        (sums, lengths[np.newaxis, :].astype(np.float64)),
        _ratio,
        n_resamples=RESAMPLES,
        batch=max(1, DRAWN // sums.size),
        vectorized=True,
        paired=True,
        axis=-1,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return interval.low, interval.high


def _ratio(sums: Floats, counts: Floats, axis: int) -> Floats:
    ratio: Floats = sums.sum(axis=axis) / counts.sum(axis=axis)
    return ratio


def _exponential(mean: Estimate) -> Estimate:
    """e^mean, its standard error by the delta method."""
    value = math.exp(mean.value)
    return Estimate(
        value=value, se=value * mean.se, low=math.exp(mean.low), high=math.exp(mean.high)
    )


def _root(square: Estimate) -> Estimate:
    """The root of a mean of squares, its standard error by the delta method (0 at 0)."""
    value = math.sqrt(square.value)
    se = 0.5 / value * square.se if value else 0.0
    return Estimate(value=value, se=se, low=math.sqrt(square.low), high=math.sqrt(square.high))


def _position_edges(position: Ints) -> Floats:
    """0, 16, 32, 64, … to the first power of two beyond every position."""
    powers = [0, FIRST_EDGE]
    while powers[-1] <= position.max():
        powers.append(2 * powers[-1])
    return np.array(powers, dtype=np.float64)


def _bins(kl: Floats, by: Floats | Ints, edges: Floats) -> tuple[Bin, ...]:
    """Mean KL of the rows between each two `edges`, the last included; empty bins are left out."""
    place = np.clip(np.digitize(by, edges) - 1, 0, len(edges) - 2)
    counts = np.bincount(place, minlength=len(edges) - 1)
    sums = np.bincount(place, weights=kl, minlength=len(edges) - 1)
    return tuple(
        Bin(low=low, high=high, n=n, kl_mean=total / n)
        for low, high, n, total in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), sums.tolist(), strict=True
        )
        if n
    )


def paired_scores(
    before: Sequence[float], after: Sequence[float], *, worse: int, better: int
) -> PairedScores:
    """Scores of the same items before and after a hop.

    Args:
        before: score of each item in [0, 1].
        after: of the same items, in the same order.
        worse: verdicts that flipped away from correct.
        better: verdicts that flipped to correct.

    Raises:
        ValueError: no item, or not the same number of them.
    """
    if not before or len(before) != len(after):
        raise ValueError(f"{len(before)} scores before, {len(after)} after")
    p = mcnemar(worse, better)
    change = np.array([after], dtype=np.float64) - np.array([before], dtype=np.float64)
    if change.any():
        (difference,) = _means(change, np.ones(len(before), dtype=np.int64))
    else:
        difference = Estimate(value=0.0, se=0.0, low=0.0, high=0.0)
    return PairedScores(
        items=len(before),
        worse=worse,
        better=better,
        mcnemar_p=p,
        difference=difference,
    )


def paired_means(
    before: Sequence[float], after: Sequence[float], lengths: Sequence[int]
) -> Estimate:
    """Mean over rows of after minus before, from the means of the same sequences on both sides.

    The interval draws whole sequences. Rows are not known here, so `se` is over sequences too: that
    of a ratio estimator, sqrt(k / (k - 1) sum (n_i / N)^2 (d_i - d)^2) for k sequences of n_i of
    all N rows, d their mean (Cochran 1977, "Sampling Techniques", section 6.4).

    Args:
        before: mean of each sequence.
        after: of the same sequences, in the same order.
        lengths: rows of each, none 0.

    Raises:
        ValueError: no sequence, or not the same number of them.
    """
    if not lengths or not len(before) == len(after) == len(lengths):
        raise ValueError(f"{len(before)} before, {len(after)} after, {len(lengths)} lengths")
    change = np.array(after, dtype=np.float64) - np.array(before, dtype=np.float64)
    counts = np.array(lengths, dtype=np.int64)
    share, k = counts / counts.sum(), len(counts)
    value = float(share @ change)
    if k == 1 or not change.any():
        return Estimate(value=value, se=0.0, low=value, high=value)
    spread = share**2 @ (change - value) ** 2
    low, high = _bootstrap((change * counts)[np.newaxis, :], counts)
    return Estimate(
        value=value,
        se=math.sqrt(k / (k - 1) * spread),
        low=float(low[0]),
        high=float(high[0]),
    )


def wilcoxon(before: Sequence[float], after: Sequence[float]) -> float:
    """Two-sided Wilcoxon signed-rank test on pairs that differ; 1 when none does.

    Source: Wilcoxon 1945, "Individual comparisons by ranking methods"; exact up to 50 pairs without
    ties (`scipy.stats.wilcoxon`).
    """
    from scipy import stats

    change = np.array(after, dtype=np.float64) - np.array(before, dtype=np.float64)
    change = change[change != 0]
    return float(stats.wilcoxon(change).pvalue) if len(change) else 1.0


def mcnemar(worse: int, better: int) -> float:
    """Exact two-sided McNemar test: were flips either way equally likely? 1 without any flip.

    Source: McNemar 1947; the binomial test of `worse` among all flips at one half.
    """
    from scipy import stats

    if worse + better == 0:
        return 1.0
    return float(stats.binomtest(worse, worse + better, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for how many there are, in the order given.

    The i-th smallest of m is multiplied by m - i + 1; none falls below a smaller one's, none
    exceeds 1.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return tuple(adjusted.tolist())
