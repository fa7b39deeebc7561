"""Why two answers part: small distributions on disk, one planted reason at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.drift.cause import DECODING_SLACK, NEAR_TIE, Ends, cause, first_difference
from driftline.drift.evidence import CellEvidence, StoredWeights
from driftline.project.routes import ROOT_CELL
from driftline.schema.answers import Completion
from driftline.schema.forced import ForcedSequence
from driftline.schema.hops import Cause
from driftline.schema.weights import CounterfactualRecord
from driftline.store.distributions import (
    LOGITS,
    ROW,
    ROWS,
    Distributions,
    RowFile,
    gather,
    reduce,
    top_ids,
)
from tests.factories import completion, evidence, pinned

TEXT = "base"
F32 = "llamacpp/base/f32"
VOCABULARY, TOP_K = 12, 4
END = 2
PROMPT = pinned()
ANSWER = (1, 7, 8, END)
"""The reference's answer; its last id is only a target."""
PLACE = 1
"""Where answers part in these tests, unless they say otherwise."""
HERE, OTHER, THIRD = ANSWER[PLACE], 9, 10
"""The reference's token there, and two that could stand in its place."""
PARTED = (ANSWER[0], OTHER, END)
SEQUENCE = ForcedSequence(
    kind="golden",
    source=PROMPT.evalset,
    id=PROMPT.id,
    ids=(*PROMPT.ids, *ANSWER[:-1]),
    target=END,
    n_prompt=len(PROMPT.ids),
)

Logits = Mapping[int, float]
"""The highest logits where answers part, by id; every other one is 0."""
Finish = Literal["stop", "length", "context"]


def kept(folder: Path, prefers: Logits, *, place: int = PLACE) -> Distributions:
    """A cell's distributions of the text; it prefers each target by 5 nats but at `place`."""
    logits = np.zeros((SEQUENCE.n_rows, VOCABULARY), dtype=np.float32)
    logits[np.arange(SEQUENCE.n_rows), SEQUENCE.targets] = 5.0
    logits[SEQUENCE.n_prompt - 1 + place] = [prefers.get(token, 0.0) for token in range(VOCABULARY)]
    ids = top_ids(logits, TOP_K)
    folder.mkdir(parents=True)
    files = {
        LOGITS: RowFile(folder / LOGITS, "<f4", (SEQUENCE.n_rows, TOP_K)),
        ROWS: RowFile(folder / ROWS, ROW, (SEQUENCE.n_rows,)),
    }
    files[LOGITS].append(gather(logits, ids))
    files[ROWS].append(reduce(logits, ids, SEQUENCE.targets))
    for file in files.values():
        file.close()
    return Distributions(folder, (SEQUENCE,))


def cell(name: str, own: Distributions | None, weights: Distributions | None) -> CellEvidence:
    """A cell that ends answers at `END`, with what was kept of it and of its stored weights."""
    found = evidence(name, {}, settings={"end_ids": [END]})
    return replace(
        found,
        distributions={} if own is None else {TEXT: own},
        weights=None if weights is None else StoredWeights({TEXT: weights}),
    )


def answer(ids: Iterable[int], finish: Finish = "stop", **how: Any) -> Completion:
    return completion(PROMPT, ids, **how).model_copy(update={"finish_reason": finish})


def ends(before: Completion, after: Completion) -> Ends:
    return Ends(before, after, PROMPT)


def prefers(token: int, margin: float, second: int) -> Logits:
    """`token` before `second` by `margin` nats, both far before any other."""
    return {token: 5.0, second: 5.0 - margin}


class Hop:
    """A hop over which OTHER took the place of HERE: the child's stored weights prefer it.

    `told` replaces what one of the four distributions prefers; None: it was not kept.
    """

    def __init__(self, folder: Path, **told: Logits | None) -> None:
        clear: dict[str, Logits | None] = {
            "parent": prefers(HERE, 2.0, OTHER),
            "child": prefers(OTHER, 2.0, HERE),
            "parent_weights": prefers(HERE, 2.0, OTHER),
            "child_weights": prefers(OTHER, 2.0, HERE),
        }
        made = {
            name: None if logits is None else kept(folder / name, logits)
            for name, logits in {**clear, **told}.items()
        }
        self.parent = cell(ROOT_CELL, made["parent"], made["parent_weights"])
        self.child = cell(F32, made["child"], made["child_weights"])

    def cause(
        self, before: Iterable[int] = ANSWER, after: Iterable[int] = PARTED, *, text: str = TEXT
    ) -> Cause:
        found = cause(text, self.parent, self.child, ends(answer(before), answer(after)))
        assert found is not None
        return found


def stopped(before: Completion, after: Completion) -> tuple[str | None, str]:
    """Component and reason where no distribution has a say."""
    parent, child = cell(ROOT_CELL, None, None), cell(F32, None, None)
    found = cause(TEXT, parent, child, ends(before, after))
    assert found is not None
    assert (found.margin, found.near_tie) == (None, False)
    return found.component, found.reason


class TestText:
    def test_the_prompt_was_another(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path)
        other = answer(PARTED, prompt_ids=(9, *PROMPT.ids))
        for before, after in ((answer(ANSWER), other), (other, answer(PARTED[:-1]))):
            found = cause(TEXT, hop.parent, hop.child, ends(before, after))
            assert found == Cause(component="text", reason="the prompt has other ids")

    def test_the_child_ignores_what_ended_the_parent(self) -> None:
        assert stopped(answer(ANSWER), answer((*ANSWER, 5, END))) == (
            "text",
            "the child went on after the token that ended the parent's answer",
        )
        assert stopped(answer(ANSWER[:2]), answer(ANSWER)) == (
            "text",
            "the child went on after the stop string that ended the parent's answer",
        )

    def test_an_answer_that_is_nothing_but_a_stop_string(self) -> None:
        assert stopped(answer(()), answer(ANSWER)) == (
            "text",
            "the child went on after the stop string that ended the parent's answer",
        )

    @pytest.mark.parametrize("finish", ["length", "context"])
    def test_the_parent_was_cut_off(self, finish: Finish) -> None:
        assert stopped(answer(ANSWER[:2], finish), answer(ANSWER)) == (
            "text",
            f"the parent was cut off ({finish}), the child went on",
        )

    @pytest.mark.parametrize("finish", ["length", "context"])
    def test_the_child_was_cut_off(self, finish: Finish) -> None:
        assert stopped(answer(ANSWER), answer(ANSWER[:2], finish)) == (
            "text",
            f"the child was cut off ({finish})",
        )

    def test_the_child_stopped_where_the_parent_went_on(self) -> None:
        assert stopped(answer(ANSWER), answer(ANSWER[:2])) == (
            "text",
            "the child stopped at a token or string at which the parent went on",
        )

    def test_a_token_it_does_not_prefer_was_not_decoded_greedily(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path, child=prefers(HERE, 1.5, OTHER))
        assert hop.cause() == Cause(
            component="text",
            reason="not greedy: its own most likely token is ahead by 1.5 nats",
            margin=2.0,
        )

    def test_not_greedy_at_a_near_tie_of_the_parent(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path, child=prefers(HERE, 1.5, OTHER), parent=prefers(HERE, 0.0625, OTHER))
        found = hop.cause()
        assert (found.component, found.margin, found.near_tie) == ("text", 0.0625, True)

    def test_a_parent_that_was_not_greedy(self, tmp_path: Path) -> None:
        """Its arithmetic has no say: something else chose its token."""
        found = Hop(tmp_path, parent=prefers(OTHER, 2.0, HERE)).cause()
        assert (found.component, found.margin) == ("text", 2.0)
        assert found.reason.startswith("the parent was not greedy: ")

    def test_a_third_token_is_at_least_as_far_behind_as_the_second(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path, child=prefers(HERE, 1.5, THIRD))
        assert hop.cause().reason.startswith("not greedy: ")


class TestTheReferenceAgain:
    REASON = "back to the reference's answer, which the parent left"

    def test_what_parts_is_then_the_parents_doing(self, tmp_path: Path) -> None:
        found = Hop(tmp_path).cause(PARTED, ANSWER)
        assert found == Cause(component=None, reason=self.REASON)

    def test_even_from_another_prompt_and_another_end(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path)
        for before in (answer(PARTED, prompt_ids=(9,)), answer(ANSWER[:2], "length")):
            found = cause(TEXT, hop.parent, hop.child, ends(before, answer(ANSWER)))
            assert found is not None and found.reason == self.REASON

    def test_of_which_the_child_kept_nothing(self, tmp_path: Path) -> None:
        assert Hop(tmp_path, child=None).cause(PARTED, ANSWER).reason == self.REASON

    def test_another_prompt_or_end_is_not_the_reference(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path)
        for after in (answer(ANSWER, prompt_ids=(9,)), answer((*ANSWER[:-1], 5))):
            found = cause(TEXT, hop.parent, hop.child, ends(answer(PARTED), after))
            assert found is not None and found.reason != self.REASON


class TestWeights:
    REASON = "the stored weights alone, in the reference runtime, already prefer this token"

    def test_they_prefer_it_and_the_parents_do_not(self, tmp_path: Path) -> None:
        assert Hop(tmp_path).cause() == Cause(component="weights", reason=self.REASON, margin=2.0)

    @pytest.mark.parametrize("margin", [0.0625, 0.09375, 0.125])
    def test_a_near_tie_is_the_parents(self, tmp_path: Path, margin: float) -> None:
        found = Hop(tmp_path, parent=prefers(HERE, margin, OTHER)).cause()
        assert (found.component, found.margin) == ("weights", margin)
        assert found.near_tie == (margin <= NEAR_TIE)


class TestNumerics:
    REASON = "the stored weights, in the reference runtime, do not prefer it: the arithmetic does"

    def test_the_stored_weights_do_not_prefer_it(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path, child_weights=prefers(HERE, 0.5, OTHER))
        assert hop.cause() == Cause(component="numerics", reason=self.REASON, margin=2.0)

    def test_the_stored_weights_prefer_a_third(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path, child_weights=prefers(THIRD, 0.5, OTHER))
        assert hop.cause().component == "numerics"

    def test_the_parents_weights_preferred_it_before(self, tmp_path: Path) -> None:
        found = Hop(tmp_path, parent_weights=prefers(OTHER, 0.5, HERE)).cause()
        assert found.component == "numerics"
        assert found.reason == (
            "the stored weights of both already prefer it: the parent's arithmetic did not"
        )

    def test_an_exact_tie_is_not_what_the_weights_prefer(self, tmp_path: Path) -> None:
        """Of two equal logits the lower id is the first; the other one was rounded up."""
        found = Hop(tmp_path, child=prefers(HERE, 0.0, OTHER)).cause()
        assert found.component == "numerics"
        assert found.reason.startswith("decoded token by token it rounds otherwise")

    @pytest.mark.parametrize(("gap", "component"), [(0.25, "numerics"), (0.375, "text")])
    def test_decoding_may_round_otherwise_but_not_by_much(
        self, tmp_path: Path, gap: float, component: str
    ) -> None:
        found = Hop(tmp_path, child=prefers(HERE, gap, OTHER)).cause()
        assert (gap <= DECODING_SLACK) == (component == "numerics")
        assert (found.component, found.margin) == (component, 2.0)
        rounds = found.reason == "decoded token by token it rounds otherwise than teacher-forced"
        assert rounds == (component == "numerics")

    def test_a_parent_that_decoded_another_token_than_it_prefers(self, tmp_path: Path) -> None:
        found = Hop(tmp_path, parent=prefers(OTHER, 0.03125, HERE)).cause()
        assert found == Cause(
            component="numerics",
            reason="decoded token by token it rounds otherwise than teacher-forced",
            margin=0.03125,
            near_tie=True,
        )


class TestNotToldApart:
    @pytest.mark.parametrize("which", ["parent_weights", "child_weights"])
    def test_the_split_is_withheld(self, tmp_path: Path, which: str) -> None:
        assert Hop(tmp_path, **{which: None}).cause() == Cause(
            component=None, reason="the split is withheld", margin=2.0
        )

    def test_a_counterfactual_that_was_not_to_be_trusted(self, tmp_path: Path) -> None:
        record = CounterfactualRecord(
            artifact="gguf/base/f32",
            artifact_identity="a",
            parent="checkpoints/base",
            parent_identity="b",
            trusted=False,
            reason="the loader failed its control",
        )
        hop = Hop(tmp_path, parent=prefers(HERE, 0.0625, OTHER))
        hop.child = replace(hop.child, weights=StoredWeights({}, record))
        assert hop.cause() == Cause(
            component=None, reason="the split is withheld", margin=0.0625, near_tie=True
        )

    @pytest.mark.parametrize(
        "told",
        [
            {"child": {HERE: 5.0, THIRD: 4.875}},
            {"parent": {THIRD: 5.0, OTHER: 4.875}},
        ],
    )
    def test_a_token_behind_a_near_tie_of_two_others(
        self, tmp_path: Path, told: dict[str, Logits]
    ) -> None:
        """It may be far behind them: that is no rounding."""
        found = Hop(tmp_path, **told).cause()
        assert found.component is None
        assert found.reason.startswith("two tokens are ahead of it")

    @pytest.mark.parametrize("which", ["parent", "child"])
    def test_no_distribution(self, tmp_path: Path, which: str) -> None:
        assert Hop(tmp_path, **{which: None}).cause() == Cause(
            component=None, reason="no distribution of this very context was kept"
        )

    def test_no_distribution_of_this_text_or_prompt(self, tmp_path: Path) -> None:
        hop = Hop(tmp_path)
        none = "no distribution of this very context was kept"
        assert hop.cause(text="audit").reason == none
        other = PROMPT.model_copy(update={"id": "c-2"})
        found = cause(TEXT, hop.parent, hop.child, Ends(answer(ANSWER), answer(PARTED), other))
        assert found is not None and found.reason == none

    def test_the_parent_had_left_the_reference(self, tmp_path: Path) -> None:
        """Both forced the reference's answer: nothing is known of any other context."""
        none = "no distribution of this very context was kept"
        assert Hop(tmp_path).cause((1, OTHER, 8, END), (1, OTHER, THIRD, END)).reason == none

    def test_beyond_the_references_end(self, tmp_path: Path) -> None:
        none = "no distribution of this very context was kept"
        assert Hop(tmp_path).cause((*ANSWER, 5), (*ANSWER, 6)).reason == none


@pytest.mark.parametrize("place", range(len(ANSWER)))
def test_the_row_is_that_of_the_token_that_differs(tmp_path: Path, place: int) -> None:
    """From the first token of an answer to its end, which is only a target."""

    def at(name: str, token: int, second: int, margin: float) -> Distributions:
        return kept(tmp_path / name, prefers(token, margin, second), place=place)

    here = ANSWER[place]
    parent = cell(
        ROOT_CELL, at("parent", here, OTHER, 0.75), at("parent_weights", here, OTHER, 1.0)
    )
    child = cell(F32, at("child", OTHER, here, 1.0), at("child_weights", OTHER, here, 1.0))
    both = ends(answer(ANSWER), answer((*ANSWER[:place], OTHER, END)))
    assert cause(TEXT, parent, child, both) == Cause(
        component="weights", reason=TestWeights.REASON, margin=0.75
    )


def test_a_shorter_prompt_whose_answer_makes_up_for_it(tmp_path: Path) -> None:
    """Both lack the last id of the prompt, emit it first, and go on from the same context."""
    hop = Hop(tmp_path)
    short, missing = PROMPT.ids[:-1], PROMPT.ids[-1]
    both = ends(
        answer((missing, *ANSWER), prompt_ids=short), answer((missing, *PARTED), prompt_ids=short)
    )
    assert cause(TEXT, hop.parent, hop.child, both) == Cause(
        component="weights", reason=TestWeights.REASON, margin=2.0
    )
    at_the_end = ends(
        answer((missing, *ANSWER), prompt_ids=short),
        answer((missing, *ANSWER[:-1], OTHER), prompt_ids=short),
    )
    found = cause(TEXT, hop.parent, hop.child, at_the_end)
    assert found is not None and found.margin == 5.0


def test_other_rows_have_no_say(tmp_path: Path) -> None:
    hop = Hop(tmp_path)
    elsewhere = kept(tmp_path / "elsewhere", prefers(THIRD, 4.0, OTHER), place=PLACE + 1)
    hop.parent = replace(hop.parent, distributions={TEXT: elsewhere})
    assert hop.cause() == Cause(component="weights", reason=TestWeights.REASON, margin=5.0)


outputs = st.lists(st.integers(0, VOCABULARY - 1), max_size=5).map(tuple)
finishes = st.sampled_from(("stop", "length", "context"))
logits = st.dictionaries(st.sampled_from((HERE, OTHER, THIRD)), st.floats(0, 8, width=16))


@settings(max_examples=60, deadline=None)
@given(st.data(), outputs | st.just(ANSWER), outputs | st.just(PARTED), finishes, finishes)
def test_laws(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    before: tuple[int, ...],
    after: tuple[int, ...],
    parent_finish: Finish,
    child_finish: Finish,
) -> None:
    """Equal answers have no cause, others one; a near-tie is a small margin and nothing else."""
    names = ("parent", "child", "parent_weights", "child_weights")
    told = {name: data.draw(st.none() | logits) for name in names}
    hop = Hop(tmp_path_factory.mktemp("cells"), **told)
    both = ends(answer(before, parent_finish), answer(after, child_finish))
    found = cause(TEXT, hop.parent, hop.child, both)
    assert (found is None) == (before == after)
    if found is None:
        return
    assert found.reason
    assert found.near_tie == (found.margin is not None and found.margin <= NEAR_TIE)
    if found.component == "weights":
        assert None not in told.values()
    if found.margin is not None:
        assert told["parent"] is not None and told["child"] is not None
        place = first_difference(before, after)
        assert before[:place] == ANSWER[:place]
