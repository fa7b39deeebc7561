"""Figures of drift, each with its uncertainty."""

from __future__ import annotations

from driftline.schema.values import Value


class Estimate(Value):
    """A figure with its standard error and a 95 % interval.

    `se` treats positions as independent, as `llama-perplexity` does, so that the two can be
    compared; `low` and `high` are a percentile bootstrap over whole sequences (over items, for
    scores), because positions of one sequence are not independent.
    """

    value: float
    se: float
    low: float
    high: float


class SequenceDrift(Value):
    """Mean KL divergence in nats over the `rows` of one teacher-forced sequence."""

    key: str
    rows: int
    kl_mean: float


class Bin(Value):
    """Mean KL divergence over the `n` positions with `low` <= x < `high` (last bin: <=)."""

    low: float
    high: float
    n: int
    kl_mean: float


class DistributionDrift(Value):
    """KL(parent || child) and its companions over the same positions of the same text.

    Definitions are those of `llama-perplexity --kl-divergence` (llama.cpp, tools/perplexity):
    divergences in nats, p of the reference token in [0, 1]. On a partition (parent's reference's
    top K ids and one class for the rest) KL is a lower bound; `tail_mass_mean` and `tail_mass_max`
    are what the parent has outside it. Perplexities are None where no position has a target.
    """

    positions: int
    sequences: int
    kl_mean: Estimate
    kl_median: float
    kl_p90: float
    kl_p99: float
    kl_p999: float
    kl_max: float
    top1_agreement: Estimate
    perplexity_parent: Estimate | None
    perplexity_child: Estimate | None
    ln_perplexity_ratio: Estimate | None
    delta_p_mean: Estimate | None
    delta_p_rms: Estimate | None
    delta_p_percentiles: dict[str, float]
    tail_mass_mean: float
    tail_mass_max: float
    by_position: tuple[Bin, ...]
    by_confidence: tuple[Bin, ...]


class PairedScores(Value):
    """Scores of the same items before and after a hop.

    `mcnemar_p` is the exact two-sided McNemar test on verdict flips, `holm_p` the same corrected
    for all hops of the report (Holm 1979; None for a hop that is not among them); `difference` is
    child minus parent, mean over items of the score in [0, 1], with a paired bootstrap interval.
    """

    items: int
    worse: int
    better: int
    mcnemar_p: float
    holm_p: float | None = None
    difference: Estimate
