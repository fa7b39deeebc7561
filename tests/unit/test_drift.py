from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.drift.analysis import analyse
from driftline.drift.blame import path_to
from driftline.drift.cause import first_difference
from driftline.drift.evidence import CellEvidence
from driftline.drift.hops import flip, hop_drift, median_divergence
from driftline.errors import InputError
from driftline.project import graph, plan
from driftline.project.routes import ROOT_CELL
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.hops import DriftReport, Hop, HopDrift
from driftline.schema.scores import ItemState
from tests.factories import completion, evidence, project, prompts

ROOT = ROOT_CELL
F32, Q8 = "llamacpp/base/f32", "llamacpp/base/q8_0"
STATES: tuple[ItemState, ...] = (
    "correct",
    "wrong",
    "partial",
    "unparsed",
    "truncated",
    "errored",
    "unchecked",
)
PARAMS = project()
HOPS = graph.hops(PARAMS)
CELLS = [cell.id for cell in plan.plan(PARAMS)]
ITEMS = prompts("clauses", "audit", count=2)
HOP = Hop(parent=ROOT, child=F32, kind="convert")

ids = st.lists(st.integers(0, 5), max_size=6).map(tuple)


@st.composite
def two_cells(draw: st.DrawFn) -> tuple[CellEvidence, CellEvidence]:
    """Parent and child over the same few prompts, with anything in them."""
    ends = []
    for cell in (ROOT, F32):
        keys = draw(st.lists(st.sampled_from(sorted(ITEMS)), unique=True))
        answers = {
            key: completion(
                ITEMS[key],
                draw(ids),
                prompt_ids=draw(st.sampled_from([ITEMS[key].ids, (0,)])),
            )
            for key in keys
        }
        states = {key: draw(st.sampled_from(STATES)) for key in keys}
        different = draw(st.lists(st.sampled_from(sorted(ITEMS)), unique=True, max_size=1))
        ends.append(evidence(cell, answers, states, different=different))
    return ends[0], ends[1]


def everywhere(
    answers: Mapping[str, Completion], states: Mapping[str, ItemState] | None = None
) -> dict[str, CellEvidence]:
    """Every cell of the project with the same answers."""
    return {cell: evidence(cell, answers, states) for cell in CELLS}


def same_answers(prompt_map: Mapping[str, PinnedPrompt] = ITEMS) -> dict[str, Completion]:
    return {key: completion(prompt) for key, prompt in prompt_map.items()}


def hop_into(report: DriftReport, cell: str) -> HopDrift:
    return next(hop for hop in report.hops if hop.hop.child == cell)


def descendants(cell: str) -> set[str]:
    """The cell and every cell below it."""
    found = {cell}
    for hop in HOPS:
        if hop.parent in found:
            found.add(hop.child)
    return found


class TestFirstDivergent:
    @given(ids, ids)
    def test_symmetric_and_equal_up_to_there(
        self, left: tuple[int, ...], right: tuple[int, ...]
    ) -> None:
        where = first_difference(left, right)
        assert where == first_difference(right, left)
        if where is None:
            assert left == right
        else:
            assert left[:where] == right[:where]
            assert left[where : where + 1] != right[where : where + 1]

    def test_prefix_parts_at_the_end_of_the_shorter(self) -> None:
        assert first_difference((1, 2), (1, 2, 3)) == 2
        assert first_difference((), (1,)) == 0


class TestFlip:
    @given(st.sampled_from(STATES), st.sampled_from(STATES))
    def test_swapping_ends_swaps_worse_and_better(self, a: ItemState, b: ItemState) -> None:
        swap = {"worse": "better", "better": "worse", "none": "none"}
        assert flip(b, a) == swap[flip(a, b)]

    @pytest.mark.parametrize("state", ["unchecked", "errored"])
    def test_no_verdict_never_flips(self, state: ItemState) -> None:
        assert flip("correct", state) == "none"
        assert flip(state, "correct") == "none"

    def test_correct_to_anything_else_judged_is_worse(self) -> None:
        for state in ("wrong", "partial", "unparsed", "truncated"):
            assert flip("correct", state) == "worse"
        assert flip("wrong", "partial") == "none"


class TestHopDrift:
    @settings(deadline=None)
    @given(two_cells())
    def test_counts_add_up(self, ends: tuple[CellEvidence, CellEvidence]) -> None:
        drift = hop_drift(HOP, *ends, ITEMS)
        divergent = sum(item.first_divergent is not None for item in drift.items)
        assert drift.n_same_sequence + divergent == drift.n_items == len(drift.items)
        assert drift.compared == bool(drift.items)
        assert {item.key for item in drift.items if item.flip == "worse"} == set(drift.worse)

    @settings(deadline=None)
    @given(two_cells())
    def test_swapping_ends_swaps_worse_and_better(
        self, ends: tuple[CellEvidence, CellEvidence]
    ) -> None:
        there = hop_drift(HOP, ends[0], ends[1], ITEMS)
        back = hop_drift(HOP, ends[1], ends[0], ITEMS)
        assert (there.worse, there.better) == (back.better, back.worse)
        assert there.n_same_sequence == back.n_same_sequence
        for one, other in zip(there.items, back.items, strict=True):
            assert one.first_divergent == other.first_divergent
            assert one.parent_piece == other.child_piece

    @settings(deadline=None)
    @given(two_cells())
    def test_a_cell_against_itself_shows_nothing(
        self, ends: tuple[CellEvidence, CellEvidence]
    ) -> None:
        drift = hop_drift(HOP, ends[0], ends[0], ITEMS)
        assert drift.worse == drift.better == ()
        assert drift.n_same_sequence == drift.n_items
        assert median_divergence(drift) is None

    @settings(deadline=None)
    @given(two_cells())
    def test_unstable_items_are_never_drift(self, ends: tuple[CellEvidence, CellEvidence]) -> None:
        drift = hop_drift(HOP, *ends, ITEMS)
        unstable = ends[0].unstable | ends[1].unstable
        assert not unstable & {item.key for item in drift.items}

    def test_pieces_at_the_first_divergent_token(self) -> None:
        item = ITEMS["clauses/c-000"]
        before = evidence(ROOT, {item.key: completion(item, (1, 3, 2))})
        after = evidence(F32, {item.key: completion(item, (1, 2, 2))})
        (found,) = hop_drift(HOP, before, after, ITEMS).items
        assert (found.first_divergent, found.parent_piece, found.child_piece) == (1, "|", " a")

    def test_an_answer_that_ended_has_no_piece(self) -> None:
        item = ITEMS["clauses/c-000"]
        before = evidence(ROOT, {item.key: completion(item, (1, 3))})
        after = evidence(F32, {item.key: completion(item, (1,))})
        (found,) = hop_drift(HOP, before, after, ITEMS).items
        assert (found.first_divergent, found.parent_piece, found.child_piece) == (1, "|", None)

    def test_prompt_mismatch_is_the_childs(self) -> None:
        item = ITEMS["clauses/c-000"]
        wrong = evidence(ROOT, {item.key: completion(item, prompt_ids=(9,))})
        right = evidence(F32, {item.key: completion(item)})
        assert hop_drift(HOP, wrong, right, ITEMS).n_prompt_mismatches == 0
        assert hop_drift(HOP, right, wrong, ITEMS).n_prompt_mismatches == 1

    @pytest.mark.parametrize("state", ["error", "skipped"])
    def test_a_failed_end_is_not_compared(self, state: str) -> None:
        answers = same_answers()
        failed = evidence(F32, answers, state=state, reason="head_dim=8")
        drift = hop_drift(HOP, evidence(ROOT, answers), failed, ITEMS)
        assert (drift.compared, drift.n_items, drift.items) == (False, 0, ())
        assert drift.reason == f"{F32}: {state}: head_dim=8"

    def test_reason_counts_what_was_left_out(self) -> None:
        answers = same_answers()
        fewer = {key: answers[key] for key in answers if key != "clauses/c-001"}
        drift = hop_drift(
            HOP,
            evidence(ROOT, answers, state="unstable", different=["clauses/c-000"]),
            evidence(F32, fewer),
            ITEMS,
        )
        assert drift.compared
        assert drift.reason == (
            f"1 prompt left out as unstable in {ROOT}; "
            f"1 prompt left out as completed only by {ROOT}"
        )
        assert [item.key for item in drift.items] == ["audit/a-000", "audit/a-001"]

    def test_another_evalset_is_not_a_gap(self) -> None:
        answers = same_answers()
        clauses = {key: answers[key] for key in answers if key.startswith("clauses/")}
        drift = hop_drift(HOP, evidence(ROOT, answers), evidence(F32, clauses), ITEMS)
        assert (drift.n_items, drift.reason) == (2, "")

    def test_nothing_in_common_is_not_compared(self) -> None:
        one, other = ITEMS["clauses/c-000"], ITEMS["audit/a-000"]
        drift = hop_drift(
            HOP,
            evidence(ROOT, {one.key: completion(one)}),
            evidence(F32, {other.key: completion(other)}),
            ITEMS,
        )
        assert not drift.compared
        assert drift.reason == "no prompt that both cells completed and repeated"

    def test_an_unpinned_prompt_is_an_error(self) -> None:
        cell = evidence(ROOT, same_answers())
        with pytest.raises(InputError, match="2 completed prompts are not among the pinned"):
            hop_drift(HOP, cell, cell, prompts("clauses", count=2))

    def test_median_over_answers_that_part(self) -> None:
        before = evidence(ROOT, {key: completion(ITEMS[key], (1, 1, 1)) for key in ITEMS})
        tails = [(1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 1, 3)]
        after = {key: completion(ITEMS[key], tail) for key, tail in zip(ITEMS, tails, strict=True)}
        assert median_divergence(hop_drift(HOP, before, evidence(F32, after), ITEMS)) == 2.0


class TestBlame:
    def test_path_starts_at_the_root_or_where_the_adapter_is_attached(self) -> None:
        parents = {hop.child: hop for hop in HOPS}
        starts = {cell: path_to(cell, parents) for cell in CELLS}
        assert starts[ROOT] == starts["transformers/audit/attached"] == ()
        assert [hop.child for hop in starts[Q8]] == [F32, Q8]
        merged = starts["llamacpp/audit/q8_0"]
        assert merged[0].parent == "transformers/audit/attached"
        assert [hop.kind for hop in merged] == ["merge", "convert", "quantize"]

    @settings(deadline=None, max_examples=40)
    @given(st.dictionaries(st.sampled_from(sorted(ITEMS)), ids), st.sampled_from(STATES))
    def test_identical_evidence_blames_nothing(
        self, answers: dict[str, tuple[int, ...]], state: ItemState
    ) -> None:
        completions = {key: completion(ITEMS[key], each) for key, each in answers.items()}
        report = analyse(HOPS, everywhere(completions, dict.fromkeys(answers, state)), ITEMS)
        assert report.blame == ()
        assert all(hop.worse == hop.better == () for hop in report.hops)
        assert all(hop.n_same_sequence == hop.n_items == len(answers) for hop in report.hops)

    @settings(deadline=None, max_examples=40)
    @given(
        st.sampled_from([cell for cell in CELLS if cell != ROOT and "attached" not in cell]),
        st.sampled_from(sorted(ITEMS)),
        st.booleans(),
    )
    def test_one_planted_change_is_blamed_on_the_hop_into_its_cell(
        self, cell: str, key: str, inherited: bool
    ) -> None:
        """Blamed there for the cell and all below it, whether or not they inherit the change."""
        cells = everywhere(same_answers())
        hop = next(hop for hop in HOPS if hop.child == cell)
        for name in descendants(cell) if inherited else {cell}:
            answers = {**same_answers(), key: completion(ITEMS[key], (1, 3, 3))}
            cells[name] = evidence(name, answers, {key: "wrong"})
        report = analyse(HOPS, cells, ITEMS)
        assert {entry.cell for entry in report.blame} == descendants(cell)
        assert {f"{entry.evalset}/{entry.item}" for entry in report.blame} == {key}
        assert {entry.sequence_hop for entry in report.blame} == {hop.name}
        assert {entry.verdict_hop for entry in report.blame} == {hop.name}
        assert [each.hop.child for each in report.hops if each.worse] == [cell]

    def test_an_adapter_is_measured_but_not_blamed(self) -> None:
        key = "audit/a-000"
        cells = everywhere({**same_answers(), key: completion(ITEMS[key], (4,))})
        cells[ROOT] = evidence(ROOT, same_answers(), {key: "wrong"})
        base = [cell for cell in CELLS if "/base/" in cell]
        for cell in base:
            cells[cell] = evidence(cell, same_answers(), {key: "wrong"})
        report = analyse(HOPS, cells, ITEMS)
        assert report.blame == ()
        assert hop_into(report, "transformers/audit/attached").better == (key,)

    def test_a_cell_without_an_answer_is_neither_blamed_nor_cleared(self) -> None:
        key = "clauses/c-000"
        cells = everywhere(same_answers())
        changed = {**same_answers(), key: completion(ITEMS[key], (5,))}
        cells[F32] = evidence(F32, changed, {key: "wrong"}, state="error", reason="killed")
        cells[Q8] = evidence(Q8, changed, {key: "wrong"})
        (entry,) = analyse(HOPS, cells, ITEMS).blame
        assert (entry.cell, entry.sequence_hop) == (Q8, f"{ROOT} → {Q8}")
        assert entry.verdict_hop == f"{ROOT} → {Q8}"

    def test_unstable_answers_are_not_blamed(self) -> None:
        key = "clauses/c-000"
        cells = everywhere(same_answers())
        changed = {**same_answers(), key: completion(ITEMS[key], (5,))}
        cells[Q8] = evidence(Q8, changed, {key: "wrong"}, state="unstable", different=[key])
        report = analyse(HOPS, cells, ITEMS)
        assert report.blame == ()
        assert hop_into(report, Q8).n_items == len(ITEMS) - 1

    def test_without_a_reference_answer_only_verdicts_are_followed(self) -> None:
        key = "clauses/c-000"
        cells = everywhere(same_answers())
        cells[ROOT] = evidence(ROOT, {}, state="error", reason="out of memory")
        changed = {**same_answers(), key: completion(ITEMS[key], (5,))}
        cells[Q8] = evidence(Q8, changed, {key: "wrong"})
        (entry,) = analyse(HOPS, cells, ITEMS).blame
        assert (entry.sequence_hop, entry.verdict_hop) == (None, f"{F32} → {Q8}")

    def test_a_cell_that_was_never_scored(self) -> None:
        cells = everywhere(same_answers())
        del cells[F32]
        report = analyse(HOPS, cells, ITEMS)
        assert hop_into(report, F32).reason == f"{F32}: not scored"
        assert not hop_into(report, Q8).compared
