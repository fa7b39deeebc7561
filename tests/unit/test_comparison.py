"""Cells and hops of two commits: what is compared, what is not and why, and the figures."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.compare.comparison import compare
from driftline.drift import statistics
from driftline.evidence.lineage import Evidence
from driftline.schema.cells import Outcome
from driftline.schema.comparison import CellComparison, ComparisonReport, HopComparison
from driftline.schema.scores import ItemState
from driftline.schema.statistics import Estimate
from tests.unit.lineage_trees import (
    ADAPTER,
    PROJECT,
    SEQUENCES,
    World,
    little,
    templated,
)

WORLD = World(where="before")
BASE = WORLD.evidence()
ROOT, F32, Q8 = "transformers/base/checkpoint", "llamacpp/base/f32", "llamacpp/base/q8_0"
MLX, VLLM, MERGED = "mlx/base/4bit", "vllm/audit/checkpoint", "transformers/audit/checkpoint"
DECODE = PROJECT.decode.model_dump(mode="json")
DISTRIBUTIONS = PROJECT.distributions.model_dump(mode="json")


def against(world: World, *, common: bool = False, before: World | None = None) -> ComparisonReport:
    old = BASE if before is None else before.evidence()
    return compare(old, world.but(where="after").evidence(), common=common)


def cell(report: ComparisonReport, name: str) -> CellComparison:
    return next(each for each in report.cells if each.cell == name)


def hop(report: ComparisonReport, child: str) -> HopComparison:
    return next(each for each in report.hops if each.child == child)


def only_in(name: str, change: Callable[[str], str]) -> Callable[[str, str], str]:
    return lambda cell, key: change(key) if cell == name else key


def states(name: str, **of: ItemState) -> Callable[[str, str], ItemState]:
    """Verdicts of one cell by item (`_` for the hyphen); correct elsewhere."""
    named = {item.replace("_", "-"): state for item, state in of.items()}
    return lambda cell, key: (
        named.get(key.partition("/")[2], "correct") if cell == name else "correct"
    )


def q8(**changes: Any) -> World:
    """The world with other bytes in the q8_0 of the base, by an edit of the quantizing code."""
    return WORLD.but(code={"quantize": "edited"}, bytes_of={"gguf/base/q8_0": "x"}, **changes)


# -- cells -----------------------------------------------------------------------------------------


def test_evidence_compared_with_itself_differs_in_nothing() -> None:
    found = compare(BASE, WORLD.evidence())
    assert (found.inputs, found.consequences, found.unexplained) == ((), (), ())
    assert (found.cells, found.hops) == ((), ())
    assert (found.same_cells, found.same_hops) == (10, 9)
    assert found.comparable == 10


def test_flips_both_ways_are_named_with_their_verdicts() -> None:
    before = WORLD.but(state=states(Q8, c_05="wrong"))
    after = q8(
        state=states(Q8, c_01="wrong", c_02="partial"),
        answer=only_in(Q8, lambda key: key + "!" if key[-1] in "1259" else key),
    )
    found = cell(against(after, before=before), Q8)
    assert (found.items, found.changed) == (SEQUENCES, 5)  # 01 02 05 09 11
    assert [(f.key, f.before, f.after) for f in found.worse] == [
        ("clauses/c-01", "correct", "wrong"),
        ("clauses/c-02", "correct", "partial"),
    ]
    assert [(f.key, f.before, f.after) for f in found.better] == [
        ("clauses/c-05", "wrong", "correct")
    ]
    assert found.scores is not None
    assert found.scores.mcnemar_p == 1.0 == found.scores.holm_p
    assert found.scores.difference.value == pytest.approx(-1 / SEQUENCES)
    assert found.scores.difference.low < 0 <= found.scores.difference.high


def test_p_values_are_corrected_for_the_cells_that_were_scored_again() -> None:
    worse: dict[str, ItemState] = {f"c_{n:02}": "wrong" for n in range(8)}
    found = against(q8(state=states(Q8, **worse)))
    scores = cell(found, Q8).scores
    assert scores is not None and scores.mcnemar_p == pytest.approx(2 / 2**8)
    assert scores.holm_p == scores.mcnemar_p  # q8_0 of the base alone was scored again
    everywhere = against(q8(state=states(Q8, **worse), packages={"llama_cpp_python": "2.0"}))
    again = cell(everywhere, Q8).scores
    assert len(everywhere.cells) == 4 and again is not None
    assert again.holm_p == pytest.approx(4 * 2 / 2**8)


def test_a_cell_that_is_as_it_was_is_counted_and_not_read() -> None:
    before, after = WORLD.tree(), q8().tree()
    sides = replace(BASE, tree=before), replace(q8().evidence(), tree=after)
    found = compare(*sides)
    assert [each.cell for each in found.cells] == [Q8]
    assert found.same_cells == 9
    assert [path for path in before.was_read if "items" in path] == [f"cells/{Q8}/items.jsonl"]
    assert [path for path in after.was_read if "items" in path] == []


FAILED = Outcome(state="error", kind="crashed", reason="killed by SIGKILL")
SKIPPED = Outcome(state="skipped", kind="missing", reason="no .venv-vllm")
NOT_COMPARABLE: dict[str, tuple[World, str, str]] = {
    "it failed": (
        WORLD.but(outcomes={Q8: FAILED}),
        Q8,
        "after: error: killed by SIGKILL",
    ),
    "it was skipped": (WORLD.but(outcomes={VLLM: SKIPPED}), VLLM, "after: skipped: no .venv-vllm"),
    "an item changed": (
        WORLD.but(items={**WORLD.items, "clauses": {**WORLD.items["clauses"], "c-03": "other"}}),
        Q8,
        "evalset clauses: 1 changed, 11 the same",
    ),
    "items came and went": (
        WORLD.but(items={**WORLD.items, "clauses": {"c-00": "question 0", "c-99": "?"}}),
        Q8,
        "evalset clauses: 1 added, 11 removed, 1 the same",
    ),
    "it is asked more": (
        WORLD.params(evalsets={"base": ["clauses", "audit"], "audit": ["audit"]}),
        Q8,
        "not asked audit before",
    ),
    "decode": (
        WORLD.params(decode={**DECODE, "max_new_tokens": 8}),
        Q8,
        "decode max_new_tokens 16 → 8",
    ),
    "settings": (
        WORLD.but(settings={Q8: {"n_batch": 512}}),
        Q8,
        "settings n_batch null → 512",
    ),
    "settings of the same artifact": (
        WORLD.but(settings={Q8: {"end_ids": [2]}}),
        Q8,
        "settings end_ids null → [2]",
    ),
}


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("why", NOT_COMPARABLE)
def test_no_figure_where_cells_cannot_be_compared(why: str, common: bool) -> None:
    world, name, reason = NOT_COMPARABLE[why]
    found = cell(against(world, common=common), name)
    if (common and "evalset" in reason) or (common and "asked" in reason):
        assert found.compared
        return
    assert found.reason == reason
    assert found == CellComparison(cell=name, reason=reason)


def test_the_root_is_asked_every_evalset() -> None:
    items = {**WORLD.items, "audit": {**WORLD.items["audit"], "a-00": "other"}}
    found = against(WORLD.but(items=items))
    assert cell(found, ROOT).reason == "evalset audit: 1 changed, 11 the same"
    assert Q8 not in {each.cell for each in found.cells}


def test_every_reason_is_given() -> None:
    world = WORLD.params(decode={**DECODE, "max_new_tokens": 8, "context_length": 256}).but(
        outcomes={Q8: FAILED}
    )
    assert cell(against(world), Q8).reason == (
        "after: error: killed by SIGKILL; decode context_length 512 → 256; "
        "decode max_new_tokens 16 → 8"
    )


def test_a_cell_that_failed_on_both_sides_is_not_said_to_be_as_it_was() -> None:
    failed = WORLD.but(outcomes={Q8: FAILED})
    found = against(failed, before=failed.but(where="before"))
    assert cell(found, Q8).reason.startswith("before: error")
    assert found.same_cells == 9 == found.comparable


def test_what_a_runtime_reads_from_another_artifact_is_no_other_setting() -> None:
    found = cell(against(q8(settings={Q8: {"end_ids": [2], "quantization": {"bits": 4}}})), Q8)
    assert found.compared


def test_a_setting_in_force_counts_with_another_artifact_too() -> None:
    found = cell(against(q8(settings={Q8: {"kv_cache": "float16"}})), Q8)
    assert found.reason == 'settings kv_cache null → "float16"'


def test_other_prompts_for_the_same_items_are_compared_and_said() -> None:
    found = against(WORLD.but(source=templated("other")))
    assert all(each.compared for each in found.cells)
    assert cell(found, Q8).remarks == ("12 items rendered or tokenized to other prompts",)


def test_unstable_answers_are_left_out() -> None:
    unstable = Outcome(state="unstable", reason="1 of 12 answers differ on repeat")
    after = q8(
        outcomes={Q8: unstable},
        unstable={Q8: ("clauses/c-01",)},
        state=states(Q8, c_01="wrong", c_02="wrong"),
        answer=only_in(Q8, lambda key: key + "!"),
    )
    found = cell(against(after), Q8)
    assert (found.items, found.changed) == (11, 11)
    assert [flip.key for flip in found.worse] == ["clauses/c-02"]
    assert found.remarks == ("1 item left out as unstable",)


def test_items_without_a_verdict_do_not_flip_and_have_no_score() -> None:
    found = cell(against(q8(state=states(Q8, c_01="errored", c_02="unchecked"))), Q8)
    assert (found.worse, found.better) == ((), ())
    assert found.scores is not None and found.scores.items == 10
    assert found.remarks == ("2 items without a verdict",)


def test_a_cell_nobody_checks_has_no_scores() -> None:
    world = q8(state=lambda cell, key: "unchecked")
    before = WORLD.but(state=lambda cell, key: "unchecked")
    assert cell(against(world, before=before), Q8).scores is None


# -- items in common ------------------------------------------------------------------------------


def with_items(**changes: str | None) -> World:
    items = {**WORLD.items["clauses"], **{k.replace("_", "-"): v for k, v in changes.items()}}
    kept = {name: text for name, text in items.items() if text is not None}
    return q8(items={**WORLD.items, "clauses": kept})


def test_common_compares_the_items_both_have_unchanged() -> None:
    after = with_items(c_00=None, c_01="other", c_99="new").but(
        state=states(Q8, c_01="wrong", c_02="wrong")
    )
    found = cell(against(after, common=True), Q8)
    assert found.items == 10
    assert found.remarks[0] == "on the 10 items both have unchanged"
    assert [flip.key for flip in found.worse] == ["clauses/c-02"]
    assert found.scores is not None and found.scores.items == 10


def test_common_is_no_remark_where_every_item_is_the_same() -> None:
    assert cell(against(q8(), common=True), Q8).remarks == ()


def test_common_leaves_an_evalset_out_that_only_one_side_is_asked() -> None:
    world = WORLD.params(evalsets={"base": ["clauses", "audit"], "audit": ["audit"]})
    found = cell(against(world, common=True), Q8)
    assert found.items == SEQUENCES
    assert found.remarks == ("on the 12 items both have unchanged",)


def test_no_item_in_common() -> None:
    world = WORLD.but(items={**WORLD.items, "clauses": {"x-1": "other"}})
    assert cell(against(world, common=True), Q8).reason == (
        "evalset clauses: 1 added, 12 removed, 0 the same; no item in common"
    )


# -- cells on one side, nothing comparable, unexplained answers -----------------------------------


def test_cells_on_one_side_are_listed() -> None:
    gguf = {"outtype": "f32", "quantizations": ["q4_k_m"]}
    found = against(WORLD.params(gguf=gguf))
    assert found.added_cells == ("llamacpp/audit/q4_k_m", "llamacpp/base/q4_k_m")
    assert found.removed_cells == ("llamacpp/audit/q8_0", "llamacpp/base/q8_0")
    assert found.same_cells == 8
    assert {each.because for each in found.consequences} == {()}
    assert found.unexplained == ()


def test_nothing_comparable_counts_as_none() -> None:
    found = against(WORLD.params(decode={**DECODE, "max_new_tokens": 8}))
    assert found.comparable == 0 and len(found.cells) == 10


def test_other_answers_from_the_same_inputs_are_unexplained() -> None:
    found = against(WORLD.but(answer=only_in(Q8, lambda key: key[::-1])))
    (odd,) = found.unexplained
    assert (odd.kind, odd.name) == ("answers", f"{Q8}: 12 of 12 answers")
    assert found.inputs == ()


@pytest.mark.parametrize(
    "world",
    [
        WORLD.but(packages={"llama_cpp_python": "2.0"}),
        WORLD.but(code={"score_llamacpp": "edited"}),
        q8(),
        WORLD.but(outcomes={Q8: Outcome(state="unstable")}, unstable={Q8: ("clauses/c-00",)}),
    ],
)
def test_other_answers_with_a_reason_are_not_unexplained(world: World) -> None:
    found = against(world.but(answer=only_in(Q8, lambda key: key[::-1])))
    assert cell(found, Q8).changed
    assert found.unexplained == ()


def test_other_prompts_and_another_adapter_are_reasons_too() -> None:
    """Though neither the artifact nor any software differs."""
    attached = "transformers/audit/attached"
    stronger = replace(ADAPTER, metadata={**ADAPTER.metadata, "adapter_config.json:r": "16"})
    for name, world in (
        (Q8, WORLD.but(prompt=lambda text: text.upper())),
        (attached, WORLD.but(adapters={"audit": stronger})),
    ):
        found = against(world.but(answer=only_in(name, lambda key: key[::-1])))
        assert cell(found, name).changed == SEQUENCES
        assert [each for each in found.unexplained if each.kind == "answers"] == []


def test_other_bytes_from_the_same_inputs_are_unexplained() -> None:
    found = against(WORLD.but(bytes_of={"gguf/base/f32": "x"}))
    assert [each.name for each in found.unexplained] == ["gguf/base/f32"]
    assert [each.name for each in found.consequences] == ["gguf/base/q8_0"]


# -- hops -----------------------------------------------------------------------------------------


def kl(child: str, change: Callable[[str], float]) -> Callable[[str, str], float]:
    return lambda cell, key: change(key) if cell == child else little(cell, key)


def shifted(by: float) -> Callable[[str, str], float]:
    return kl(Q8, lambda key: little(Q8, key) + by + 1e-7 * (sum(map(ord, key)) % 5))


@pytest.mark.parametrize(("by", "verdict"), [(1e-3, "more"), (-5e-4, "less")])
def test_a_hop_drifts_more_or_less(by: float, verdict: str) -> None:
    found = hop(against(q8(kl=shifted(by))), Q8)
    assert (found.parent, found.verdict) == (F32, verdict)
    assert (found.sequences, found.sequences_before, found.sequences_after) == (15, 15, 15)
    assert found.difference is not None and found.before is not None and found.after is not None
    assert found.difference.value == pytest.approx(by, abs=1e-6)
    assert found.after - found.before == pytest.approx(found.difference.value)
    assert found.wilcoxon_p is not None and found.wilcoxon_p < 1e-3
    assert found.holm_p == found.wilcoxon_p


def test_a_difference_that_goes_both_ways_is_the_same_drift() -> None:
    signs = {f"clauses/c-{n:02}": (-1) ** n for n in range(SEQUENCES)}
    change = kl(Q8, lambda key: little(Q8, key) + 1e-4 * signs.get(key, 0))
    found = hop(against(q8(kl=change)), Q8)
    assert found.verdict == "same"
    assert found.difference is not None
    assert found.difference.low < 0 < found.difference.high


def test_p_values_are_corrected_for_the_hops_compared() -> None:
    both = kl(Q8, lambda key: little(Q8, key) + 1e-3)
    world = q8(kl=lambda cell, key: both(cell, key) if cell == Q8 else 2 * little(cell, key))
    found = against(world)
    assert len(found.hops) == 9
    plain = hop(found, Q8).wilcoxon_p
    assert plain is not None and hop(found, Q8).holm_p == pytest.approx(min(1.0, 9 * plain))


def test_only_sequences_with_the_same_ids_pair() -> None:
    """What the reference answered to three prompts is another text now."""
    moved = ("clauses/c-00", "clauses/c-01", "clauses/c-02")
    world = q8(kl=shifted(1e-3), reference=lambda key: f"{key} otherwise" if key in moved else key)
    found = hop(against(world), Q8)
    assert (found.sequences, found.sequences_before, found.sequences_after) == (12, 15, 15)


def test_the_mean_is_over_rows() -> None:
    change = kl(Q8, lambda key: little(Q8, key) + (1e-3 if key.startswith("clauses") else 0))
    found = hop(against(q8(kl=change)), Q8)
    rows = {key: 10 + len(key) % 3 for key in (*_keys(), *(f"notes/window-{n}" for n in range(3)))}
    assert found.rows == sum(rows.values())
    share = sum(rows[key] for key in _keys()) / found.rows
    assert found.difference is not None
    assert found.difference.value == pytest.approx(share * 1e-3)


def _keys() -> list[str]:
    return [f"clauses/{item}" for item in WORLD.items["clauses"]]


def test_a_handful_of_sequences_gives_no_verdict() -> None:
    few = {"clauses": {"c-00": "a", "c-01": "b"}, "audit": {"a-00": "a"}}
    before = WORLD.but(items=few)
    found = hop(against(q8(items=few, kl=shifted(1.0)), before=before), Q8)
    assert (found.sequences, found.verdict) == (5, "unknown")
    assert found.difference is not None and found.difference.low > 0


def test_hops_that_cannot_be_compared_say_why() -> None:
    others = templated("other")
    no_text = WORLD.but(source=others, corpora={"notes": "another"})
    assert hop(against(no_text), Q8).reason == (
        "no teacher-forced sequence has the same ids on both sides"
    )
    assert hop(against(WORLD.but(outcomes={Q8: FAILED})), Q8).reason == (
        "after: not measured: killed by SIGKILL"
    )
    wide = WORLD.params(distributions={**DISTRIBUTIONS, "top_k": 32})
    assert hop(against(wide), Q8).reason == "another partition: 64 → 32 logits kept a position"
    f16 = WORLD.params(gguf={"outtype": "f16", "quantizations": ["q8_0"]})
    assert hop(against(f16), Q8).reason == (
        "starts from another cell: llamacpp/base/f32 → llamacpp/base/f16"
    )


def test_a_hop_that_cannot_be_compared_has_no_figure() -> None:
    found = hop(against(WORLD.but(outcomes={Q8: FAILED})), Q8)
    assert (found.difference, found.before, found.wilcoxon_p, found.sequences) == (None,) * 3 + (0,)


# -- the statistics -------------------------------------------------------------------------------


def test_paired_means_by_hand() -> None:
    found = statistics.paired_means([0.0, 1.0], [1.0, 4.0], [1, 3])
    assert found.value == pytest.approx((1 * 1 + 3 * 3) / 4)
    spread = (1 / 4) ** 2 * (1 - 2.5) ** 2 + (3 / 4) ** 2 * (3 - 2.5) ** 2
    assert found.se == pytest.approx((2 * spread) ** 0.5)
    assert (found.low, found.high) == (1.0, 3.0)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Sequences drawn from a known distribution: about 95 of 100 intervals hold the truth."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        lengths = random.integers(5, 40, 60)
        change = 0.3 + random.normal(0, 1, 60)
        found = statistics.paired_means([0.0] * 60, change.tolist(), lengths.tolist())
        held += found.low <= 0.3 <= found.high
    assert 0.90 <= held / 300 <= 0.99


sequences = st.lists(
    st.tuples(st.floats(0, 9), st.floats(0, 9), st.integers(1, 50)), min_size=1, max_size=9
)


@given(sequences)
@settings(deadline=None)
def test_swapping_turns_the_difference_around(drawn: list[tuple[float, float, int]]) -> None:
    before, after, rows = ([each[n] for each in drawn] for n in range(3))
    there = statistics.paired_means(before, after, rows)  # type: ignore[arg-type]
    back = statistics.paired_means(after, before, rows)  # type: ignore[arg-type]
    assert (back.value, back.se) == pytest.approx((-there.value, there.se))
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    least = min(b - a for a, b, _ in drawn)
    greatest = max(b - a for a, b, _ in drawn)
    assert least - 1e-9 <= there.low <= there.high <= greatest + 1e-9


def test_nothing_changed_is_exactly_nothing() -> None:
    zero = Estimate(value=0, se=0, low=0, high=0)
    assert statistics.paired_means([0.1, 0.2], [0.1, 0.2], [3, 4]) == zero
    assert statistics.wilcoxon([0.1, 0.2], [0.1, 0.2]) == 1.0


def test_wilcoxon_by_hand() -> None:
    """Six pairs that all grew: two of 2^6 sign patterns are as extreme."""
    before = [0.0] * 6
    assert statistics.wilcoxon(before, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 2**6)
    assert statistics.wilcoxon([*before, 7.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == (
        pytest.approx(2 / 2**6)
    )


@pytest.mark.parametrize(
    ("before", "after", "lengths"), [([], [], []), ([1.0], [1.0, 2.0], [1]), ([1.0], [1.0], [1, 2])]
)
def test_what_is_not_paired_is_refused(
    before: list[float], after: list[float], lengths: list[int]
) -> None:
    with pytest.raises(ValueError, match="before"):
        statistics.paired_means(before, after, lengths)


# -- time -----------------------------------------------------------------------------------------


def test_time_grows_with_cells_and_not_with_their_square() -> None:
    """Ten times the cells and artifacts take about ten times as long, and seconds at most."""

    def seconds(copies: int) -> float:
        sides = [many(world, copies) for world in (WORLD, q8())]
        started = time.process_time()
        found = compare(*sides)
        taken = time.process_time() - started
        assert found.same_cells == 10 * copies - 1
        return taken

    seconds(10)  # imports
    few, lots = seconds(100), seconds(1000)
    assert lots < 3.0
    assert lots < 40 * max(few, 0.01)


def many(world: World, copies: int) -> Evidence:
    """The evidence of a world with its cells, artifacts and hops under many more names."""
    one = world.evidence()
    cells, artifacts, hops = dict(one.cells), dict(one.artifacts), list(one.index.hops)
    for n in range(1, copies):
        for name, cell in BASE.cells.items():
            spec = cell.cell.model_copy(update={"id": f"{name}-{n}"})
            cells[spec.id] = cell.model_copy(update={"cell": spec})
        for name, record in BASE.artifacts.items():
            artifacts[f"{name}-{n}"] = record.model_copy(update={"name": f"{name}-{n}"})
        for each in BASE.index.hops:
            moved = each.hop.model_copy(update={"child": f"{each.hop.child}-{n}"})
            hops.append(each.model_copy(update={"hop": moved}))
    index = one.index.model_copy(update={"hops": tuple(hops)})
    return replace(one, cells=cells, artifacts=artifacts, index=index)
