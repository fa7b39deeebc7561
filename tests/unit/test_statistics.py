"""Figures of drift: laws, closed forms, and a naive computation on whole vocabularies."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline.drift import statistics
from driftline.drift.statistics import RowSample, holm, paired_scores, summarize
from driftline.schema.forced import ForcedSequence
from driftline.schema.statistics import DistributionDrift, Estimate
from driftline.store.distributions import (
    LOGITS,
    ROW,
    ROWS,
    Chunk,
    Distributions,
    RowFile,
    divergence,
    gather,
    reduce,
    top_ids,
)

Logits = NDArray[np.float32]
FIGURES = (
    "kl_mean",
    "top1_agreement",
    "perplexity_parent",
    "perplexity_child",
    "ln_perplexity_ratio",
    "delta_p_mean",
    "delta_p_rms",
)


def sequence(name: str, rows: int, *, vocabulary: int, first_row: int = 0) -> ForcedSequence:
    """`rows` kept rows of made-up ids; the last has no target in every other sequence."""
    drawn = np.random.default_rng(len(name) + rows).integers(0, vocabulary, first_row + rows + 1)
    return ForcedSequence(
        kind="golden",
        source="made",
        id=name,
        ids=tuple(drawn[:-1].tolist()),
        target=int(drawn[-1]) if rows % 2 else None,
        n_prompt=1,
        first_row=first_row,
    )


def written(
    folder: Path,
    sequences: Sequence[ForcedSequence],
    logits: Sequence[Logits],
    partition: Sequence[NDArray[np.int32]],
) -> Distributions:
    """A cell's distributions on disk, as the forced pass leaves them."""
    folder.mkdir(parents=True)
    total = sum(each.n_rows for each in sequences)
    files = {
        LOGITS: RowFile(folder / LOGITS, "<f4", (total, partition[0].shape[1])),
        ROWS: RowFile(folder / ROWS, ROW, (total,)),
    }
    for each, given_logits, ids in zip(sequences, logits, partition, strict=True):
        files[LOGITS].append(gather(given_logits, ids))
        files[ROWS].append(reduce(given_logits, ids, each.targets))
    for file in files.values():
        file.close()
    return Distributions(folder, tuple(sequences))


def pair(
    folder: Path,
    lengths: Sequence[int],
    *,
    vocabulary: int = 40,
    top_k: int = 40,
    noise: float = 0.3,
    first_row: int = 0,
) -> tuple[Distributions, Distributions, list[Logits], list[Logits]]:
    """Two cells on one text, and the whole logits they come from."""
    random = np.random.default_rng(7)
    sequences = [
        sequence(f"s-{n}", rows, vocabulary=vocabulary, first_row=first_row)
        for n, rows in enumerate(lengths)
    ]
    before = [random.normal(0, 3, (rows, vocabulary)).astype(np.float32) for rows in lengths]
    after = [each + random.normal(0, noise, each.shape).astype(np.float32) for each in before]
    ids = [top_ids(each, top_k) for each in before]
    parent = written(folder / "parent", sequences, before, ids)
    return parent, written(folder / "child", sequences, after, ids), before, after


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    found: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    return found


def mean_and_se(values: NDArray[np.float64]) -> tuple[float, float]:
    """As `llama-perplexity` writes it."""
    mean = values.mean()
    return mean, math.sqrt(max(0.0, (values**2).mean() - mean**2) / (len(values) - 1))


def found_mean(estimate: Estimate | None) -> tuple[float, float]:
    assert estimate is not None
    return estimate.value, estimate.se


def drift(parent: Distributions, child: Distributions) -> DistributionDrift:
    found = statistics.distribution_drift(parent, child)
    assert found is not None
    return found


@pytest.mark.parametrize("first_row", [0, 30])
def test_figures_equal_a_naive_computation_on_whole_vocabularies(
    tmp_path: Path, first_row: int
) -> None:
    parent, child, before, after = pair(tmp_path, [5, 1, 300, 22], first_row=first_row)
    p, q = log_softmax(np.concatenate(before)), log_softmax(np.concatenate(after))
    targets = np.concatenate([each.targets for each in parent.sequences])
    kl = (np.exp(p) * (p - q)).sum(1)
    judged = np.flatnonzero(targets >= 0)
    lp, lq = p[judged, targets[judged]], q[judged, targets[judged]]
    delta = np.exp(lq) - np.exp(lp)
    got = drift(parent, child)

    assert (got.positions, got.sequences) == (328, 4)
    assert found_mean(got.kl_mean) == pytest.approx(mean_and_se(kl), rel=1e-6)
    assert got.kl_median == pytest.approx(np.median(kl), rel=1e-6)
    ranks = {0.9: got.kl_p90, 0.99: got.kl_p99, 0.999: got.kl_p999, 1.0: got.kl_max}
    for rank, value in ranks.items():
        assert value == pytest.approx(np.quantile(kl, rank), rel=1e-6)
    assert got.top1_agreement.value == (p.argmax(1) == q.argmax(1)).mean()
    share = got.top1_agreement.value
    assert got.top1_agreement.se == pytest.approx(math.sqrt(share * (1 - share) / 327))
    for side, name in ((lp, "perplexity_parent"), (lq, "perplexity_child")):
        mean, se = mean_and_se(-side)
        assert found_mean(getattr(got, name)) == pytest.approx(
            (math.exp(mean), math.exp(mean) * se)
        )
    a, b = mean_and_se(lp)[1], mean_and_se(lq)[1]
    covariance = np.cov(lp, lq)[0, 1] / len(lp)
    assert found_mean(got.ln_perplexity_ratio) == pytest.approx(
        (lp.mean() - lq.mean(), math.sqrt(a**2 + b**2 - 2 * covariance)), rel=1e-6
    )
    assert found_mean(got.delta_p_mean) == pytest.approx(mean_and_se(delta), rel=1e-6)
    mean, se = mean_and_se(delta**2)
    assert found_mean(got.delta_p_rms) == pytest.approx(
        (math.sqrt(mean), 0.5 / math.sqrt(mean) * se), rel=1e-6
    )
    for name, rank in statistics.PERCENTILES.items():
        expected = np.quantile(delta, rank)
        assert got.delta_p_percentiles[name] == pytest.approx(expected, rel=1e-6), name
    for name in FIGURES:
        figure = getattr(got, name)
        assert figure.low < figure.value < figure.high, name
    assert got.tail_mass_max == 0.0
    position = np.concatenate([first_row + np.arange(each.n_rows) for each in parent.sequences])
    assert sum(each.n for each in got.by_position) == 328
    for each in got.by_position:
        inside = kl[(position >= each.low) & (position < each.high)]
        assert (each.n, each.kl_mean) == pytest.approx((len(inside), inside.mean()))
    confidence = np.exp(p.max(1))
    assert sum(each.n for each in got.by_confidence) == 328
    for each in got.by_confidence:
        inside = kl[(confidence >= each.low) & (confidence < each.high)]
        assert (each.n, each.kl_mean) == pytest.approx((len(inside), inside.mean()))


def test_a_narrow_partition_is_a_lower_bound_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    parent, child, before, after = pair(tmp_path, [50, 50], top_k=6)
    p, q = (np.exp(log_softmax(np.concatenate(side))) for side in (before, after))
    ids = top_ids(np.concatenate(before), 6)

    def coarse(side: NDArray[np.float64]) -> NDArray[np.float64]:
        kept = np.take_along_axis(side, ids, axis=1)
        return np.column_stack((kept, 1 - kept.sum(1)))

    got, whole = drift(parent, child), (p * np.log(p / q)).sum(1).mean()
    expected = (coarse(p) * np.log(coarse(p) / coarse(q))).sum(1).mean()
    assert got.kl_mean.value == pytest.approx(expected, rel=1e-6)
    assert 0.1 * whole < got.kl_mean.value < whole
    assert got.tail_mass_mean == pytest.approx(coarse(p)[:, -1].mean())
    assert got.tail_mass_max == pytest.approx(coarse(p)[:, -1].max())


@pytest.mark.parametrize("top_k", [40, 6])
def test_identical_distributions_do_not_drift_at_all(tmp_path: Path, top_k: int) -> None:
    parent, *_ = pair(tmp_path, [9, 30], top_k=top_k)
    got = drift(parent, parent)
    none = Estimate(value=0, se=0, low=0, high=0)
    assert got.kl_mean == none
    assert got.top1_agreement == Estimate(value=1, se=0, low=1, high=1)
    assert (got.ln_perplexity_ratio, got.delta_p_mean, got.delta_p_rms) == (none, none, none)
    assert got.perplexity_parent == got.perplexity_child
    assert set(got.delta_p_percentiles.values()) == {0.0}
    assert got.kl_max == 0.0


def test_only_shared_sequences_count(tmp_path: Path) -> None:
    parent, child, *_ = pair(tmp_path, [4, 6, 8])
    first, second = replace(parent, sequences=parent.sequences[:2]), child.sequences[:1]
    got = drift(first, replace(child, sequences=second))
    assert (got.positions, got.sequences) == (4, 1)
    assert statistics.distribution_drift(first, replace(child, sequences=())) is None


def test_other_ids_under_one_key_are_refused(tmp_path: Path) -> None:
    parent, child, *_ = pair(tmp_path, [4])
    other = child.sequences[0].model_copy(update={"ids": (1, 2, 3, 4)})
    with pytest.raises(ValueError, match="different texts"):
        statistics.distribution_drift(parent, replace(child, sequences=(other,)))


def test_ids_the_child_does_not_have_cost_much_and_stay_finite(tmp_path: Path) -> None:
    rows = 6
    text = sequence("s", rows, vocabulary=40).model_copy(update={"ids": (39,) * rows})
    before = np.random.default_rng(1).normal(0, 1, (rows, 40)).astype(np.float32)
    ids = top_ids(before, 40)
    parent = written(tmp_path / "parent", [text], [before], [ids])
    child = written(tmp_path / "child", [text], [before[:, :30]], [ids])
    got = drift(parent, child)
    assert got.kl_mean.value > 100
    assert got.perplexity_child is not None
    assert got.perplexity_child.value > 1e100
    assert got.delta_p_percentiles["max"] < 0
    backward = drift(child, parent)
    assert backward.kl_mean.value > 0.01


# -- laws ----------------------------------------------------------------------------------------

logit = st.floats(-1e4, 1e4, width=32)
wide_logit = st.one_of(logit, st.just(-math.inf), st.floats(-2, 2, width=32))


@st.composite
def chunks(draw: st.DrawFn) -> tuple[Chunk, Chunk]:
    """One row of two cells; either vocabulary may be the larger, any logit but one -inf."""
    sizes = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    width = draw(st.integers(1, max(sizes)))
    ids = np.arange(width, dtype=np.int32)[None]
    made = []
    for size in sizes:
        row = [draw(logit), *draw(st.lists(wide_logit, min_size=size - 1, max_size=size - 1))]
        logits = np.array([draw(st.permutations(row))], dtype=np.float32)
        made.append(Chunk(gather(logits, ids), reduce(logits, ids, [0])))
    return made[0], made[1]


@given(chunks())
@settings(max_examples=300)
def test_divergence_is_finite_not_negative_and_what_the_plain_sum_says(
    both: tuple[Chunk, Chunk],
) -> None:
    parent, child = both
    (value,) = divergence(parent, child)
    assert math.isfinite(value)
    assert value >= -1e-12
    assert divergence(parent, parent) == [0.0]
    p, q = (np.append(side.log_probs, side.log_tail) for side in both)
    possible = p > -math.inf
    if (q[possible] - p[possible] > -1e4).all():
        plain = (np.exp(p[possible]) * (p[possible] - q[possible])).sum()
        assert value == pytest.approx(plain, rel=1e-9, abs=1e-9)


@st.composite
def samples(draw: st.DrawFn) -> RowSample:
    """Anything `compare` could give."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    rows = sum(lengths)

    def column(values: st.SearchStrategy[Any]) -> NDArray[Any]:
        return np.array(draw(st.lists(values, min_size=rows, max_size=rows)))

    log_p = st.one_of(st.floats(-20, 0), st.just(-math.inf))
    judged = column(st.booleans())
    return RowSample(
        kl=column(st.one_of(st.just(0.0), st.floats(0, 1e4))),
        agree=column(st.booleans()),
        parent_log_p=np.where(judged, column(log_p), np.nan),
        child_log_p=np.where(judged, column(log_p), np.nan),
        confidence=column(st.floats(0, 1)),
        tail=column(st.floats(0, 1)),
        position=column(st.integers(0, 5000)),
        answer=np.ones(sum(lengths), dtype=bool),
        lengths=np.array(lengths),
        keys=np.array([f"sql/{n}" for n in range(len(lengths))]),
    )


@given(samples())
@settings(max_examples=60, deadline=None)
def test_figures_are_finite_and_ordered(sample: RowSample) -> None:
    got = summarize(sample)  # the schema refuses NaN and infinity
    ranks = [0.0, got.kl_median, got.kl_p90, got.kl_p99, got.kl_p999, got.kl_max]
    assert ranks == sorted(ranks)
    delta = list(got.delta_p_percentiles.values())
    assert delta == sorted(delta)
    for name in FIGURES:
        figure = getattr(got, name)
        if figure is not None:
            assert figure.se >= 0
            assert figure.low <= figure.high
    assert 0 <= got.top1_agreement.low <= got.top1_agreement.high <= 1
    for bins in (got.by_position, got.by_confidence):
        assert sum(each.n for each in bins) == got.positions
        total = sum(each.n * each.kl_mean for each in bins)
        assert total == pytest.approx(got.kl_mean.value * got.positions)
        assert all(a.high <= b.low for a, b in pairwise(bins))
    none = np.isnan(sample.parent_log_p).all()
    assert (got.perplexity_parent is None) == none == (got.delta_p_percentiles == {})


@given(samples())
@settings(max_examples=30, deadline=None)
def test_turning_a_hop_around_turns_its_signs(sample: RowSample) -> None:
    turned = replace(sample, parent_log_p=sample.child_log_p, child_log_p=sample.parent_log_p)
    there, back = summarize(sample), summarize(turned)
    assert there.perplexity_parent == back.perplexity_child
    assert there.delta_p_rms == back.delta_p_rms
    if there.ln_perplexity_ratio and back.ln_perplexity_ratio:
        assert there.ln_perplexity_ratio.value == -back.ln_perplexity_ratio.value
        assert there.perplexity_parent is not None
        assert there.perplexity_child is not None
        ratio = there.perplexity_child.value / there.perplexity_parent.value
        assert math.log(ratio) == pytest.approx(there.ln_perplexity_ratio.value, abs=1e-9)


@given(samples())
@settings(max_examples=60, deadline=None)
def test_sequences_have_the_divergence_of_the_whole_between_them(sample: RowSample) -> None:
    each = statistics.per_sequence(sample)
    assert [one.key for one in each] == sample.keys.tolist()
    assert [one.rows for one in each] == sample.lengths.tolist()
    mean = sum(one.rows * one.kl_mean for one in each) / len(sample.kl)
    assert mean == pytest.approx(summarize(sample).kl_mean.value, rel=1e-12)
    starts = np.cumsum(sample.lengths) - sample.lengths
    for one, start in zip(each, starts.tolist(), strict=True):
        own = sample.kl[start : start + one.rows]
        assert one.kl_mean == pytest.approx(own.mean(), rel=1e-12)


def test_rows_about_answers_keep_the_keys_of_their_sequences() -> None:
    sample = rows([1, 2, 3, 4, 5, 6], [3, 1, 2])
    answers = replace(sample, answer=np.array([0, 1, 1, 0, 0, 1], dtype=bool)).answers()
    assert answers is not None
    found = [(each.key, each.rows, each.kl_mean) for each in statistics.per_sequence(answers)]
    assert found == [("sql/0", 2, 2.5), ("sql/2", 1, 6.0)]


def rows(kl: Sequence[float], lengths: Sequence[int], **changes: Any) -> RowSample:
    """Given divergences, everything else the same in every row."""
    n = len(kl)
    base = RowSample(
        kl=np.array(kl, dtype=np.float64),
        agree=np.ones(n, dtype=bool),
        parent_log_p=np.full(n, -1.0),
        child_log_p=np.full(n, -1.0),
        confidence=np.full(n, 0.5),
        tail=np.zeros(n),
        position=np.arange(n),
        answer=np.ones(sum(lengths), dtype=bool),
        lengths=np.array(lengths),
        keys=np.array([f"sql/{n}" for n in range(len(lengths))]),
    )
    return replace(base, **changes)


def test_one_row_is_a_figure_without_uncertainty() -> None:
    got = summarize(rows([0.25], [1]))
    assert got.kl_mean == Estimate(value=0.25, se=0, low=0.25, high=0.25)
    assert (got.kl_median, got.kl_p999, got.kl_max) == (0.25, 0.25, 0.25)
    assert got.perplexity_child is not None
    assert got.perplexity_child.value == pytest.approx(math.e)


def test_one_sequence_has_a_normal_interval_within_its_rows() -> None:
    wide = summarize(rows([0.0, 0.0, 0.0, 1.0], [4])).kl_mean
    assert wide.se == pytest.approx(0.25)
    assert (wide.low, wide.high) == pytest.approx((0.0, 0.25 + 1.96 * 0.25))


def test_an_interval_knows_that_rows_of_one_sequence_go_together() -> None:
    """40 sequences whose 25 rows are equal: as uncertain as 40 rows, not as 1000."""
    values = np.random.default_rng(3).exponential(1.0, 40)
    together = summarize(rows(np.repeat(values, 25).tolist(), [25] * 40)).kl_mean
    alone = summarize(rows(values.tolist(), [1] * 40)).kl_mean
    assert together.low == pytest.approx(alone.low)
    assert together.high == pytest.approx(alone.high)
    half_width = (together.high - together.low) / 2
    assert half_width == pytest.approx(1.96 * alone.se, rel=0.15)
    assert together.se == pytest.approx(alone.se / 5, rel=0.05)


def test_sequences_count_by_their_rows() -> None:
    """A resample's mean is over rows: a long sequence without drift outweighs short ones."""
    got = summarize(rows([1.0] * 4 + [0.0] * 96, [1] * 4 + [96])).kl_mean
    assert got.value == pytest.approx(0.04)
    assert got.low < 0.015


@pytest.mark.parametrize(
    ("position", "edges"),
    [(0, (0, 16)), (15, (0, 16)), (16, (16, 32)), (63, (32, 64)), (64, (64, 128))],
)
def test_positions_are_binned_at_powers_of_two(position: int, edges: tuple[int, int]) -> None:
    (found,) = summarize(rows([0.5], [1], position=np.array([position]))).by_position
    assert ((found.low, found.high), found.n, found.kl_mean) == (edges, 1, 0.5)


@pytest.mark.parametrize(("p", "low"), [(0.0, 0.0), (0.3, 0.3), (0.999, 0.9), (1.0, 0.9)])
def test_confidence_is_binned_in_tenths(p: float, low: float) -> None:
    (found,) = summarize(rows([0.5], [1], confidence=np.array([p]))).by_confidence
    assert (found.low, found.n) == (low, 1)


def test_sixty_comparisons_are_quick(tmp_path: Path) -> None:
    parent, child, *_ = pair(tmp_path, [60] * 90, vocabulary=768, top_k=768)
    sample = statistics.compare(parent, child, list(parent.offsets))
    summarize(sample)  # imports
    started = time.process_time()
    summarize(sample)
    assert time.process_time() - started < 0.5


# -- scores --------------------------------------------------------------------------------------


def test_flips_are_judged_by_the_exact_test() -> None:
    before, after = [1.0] * 8, [0.0] * 5 + [1.0] * 3
    got = paired_scores(before, after, worse=5, better=0)
    assert got.mcnemar_p == pytest.approx(2 * 0.5**5)
    assert got.holm_p is None
    assert (got.items, got.worse, got.better) == (8, 5, 0)
    assert got.difference.value == -0.625
    assert got.difference.low < -0.625 < got.difference.high < 0
    assert paired_scores(before, after, worse=1, better=7).mcnemar_p == pytest.approx(18 / 2**8)


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (1, 1), (4, 4)])
def test_even_flips_are_no_evidence(worse: int, better: int) -> None:
    assert statistics.mcnemar(worse, better) == 1.0


def test_equal_scores_do_not_differ() -> None:
    got = paired_scores([0.5, 1.0, 0.1], [0.5, 1.0, 0.1], worse=0, better=0)
    assert got.difference == Estimate(value=0, se=0, low=0, high=0)
    one = paired_scores([1.0], [0.0], worse=1, better=0).difference
    assert one == Estimate(value=-1, se=0, low=-1, high=-1)


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 0.0])])
def test_scores_that_are_not_pairs_are_refused(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="scores before"):
        paired_scores(before, after, worse=0, better=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_keeps_the_order_and_never_helps(p_values: list[float], random: Any) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    ranked = sorted(zip(p_values, adjusted, strict=True))
    assert [q for _, q in ranked] == sorted(adjusted)
    order = random.sample(range(len(p_values)), len(p_values))
    assert holm([p_values[i] for i in order]) == tuple(adjusted[i] for i in order)
    assert min(adjusted) == min(1.0, min(p_values) * len(p_values))
