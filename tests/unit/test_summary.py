"""One sentence per hop: what a reviewer reads of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.drift import summary as sentences
from driftline.drift.hops import flip, hop_drift, not_compared
from driftline.drift.statistics import RowSample, summarize
from driftline.project.routes import ROOT_CELL
from driftline.schema.hops import Cause, Hop, HopDrift, HopKind, Split
from driftline.schema.scores import ItemState
from driftline.schema.statistics import DistributionDrift
from tests import factories
from tests.factories import completion, evidence, prompts

ITEMS = prompts("clauses", "sql", count=4)
CELLS: Mapping[HopKind, tuple[str, str]] = {
    "adapter": (ROOT_CELL, "transformers/audit/attached"),
    "merge": ("transformers/audit/attached", "transformers/audit/checkpoint"),
    "convert": (ROOT_CELL, "llamacpp/base/f32"),
    "quantize": ("llamacpp/base/f32", "llamacpp/base/q8_0"),
    "runtime": (ROOT_CELL, "vllm/base/checkpoint"),
}
WEIGHTS = Cause(component="weights", reason="the stored weights prefer it", margin=2.0)
ARITHMETIC = Cause(component="numerics", reason="it rounds", margin=0.3)


def summary(hop: HopDrift) -> str:
    """The sentence of a hop into one of the cells of the tests' project."""
    return sentences.summary(hop, factories.spec(hop.hop.child))


def near(margin: float) -> Cause:
    return Cause(component="numerics", reason="it rounds", margin=margin, near_tie=True)


def told(
    *causes: Cause | None, flips: int | None = None, kind: HopKind = "quantize", **changes: Any
) -> HopDrift:
    """A hop over which one answer parts per cause, in the order of `ITEMS`; the first flip.

    Args:
        causes: of the answers that part.
        flips: how many of these become wrong; all by default.
        kind: of the hop.
        changes: what else was found.
    """
    before, after = CELLS[kind]
    parted, wrong = list(ITEMS)[: len(causes)], len(causes) if flips is None else flips
    states: dict[str, ItemState] = dict.fromkeys(parted[:wrong], "wrong")
    parent = evidence(before, {key: completion(prompt) for key, prompt in ITEMS.items()})
    child = evidence(
        after,
        {key: completion(each, (1, 3) if key in parted else (1, 2)) for key, each in ITEMS.items()},
        states,
    )
    drift = hop_drift(Hop(parent=before, child=after, kind=kind), parent, child, ITEMS)
    known = dict(zip(parted, causes, strict=True))
    items = tuple(
        item.model_copy(update={"cause": known[item.key]}) if item.key in known else item
        for item in drift.items
    )
    return drift.model_copy(update={"items": items, **changes})


def nats(kl: float) -> DistributionDrift:
    """Drift of four rows of that KL."""
    return summarize(
        RowSample(
            kl=np.full(4, kl),
            agree=np.ones(4, dtype=np.bool_),
            parent_log_p=np.full(4, -0.5),
            child_log_p=np.full(4, -0.5),
            confidence=np.full(4, 0.6),
            tail=np.zeros(4),
            position=np.arange(4),
            answer=np.ones(4, dtype=np.bool_),
            lengths=np.array([4]),
            keys=np.array(["clauses/c-0"]),
        )
    )


def split(
    whole: float,
    weights: float | None = None,
    numerics: float | None = None,
    *,
    answers: float | None = None,
    withheld: str = "",
) -> Split:
    return Split(
        end_to_end=nats(whole),
        answers=None if answers is None else nats(answers),
        weights=None if weights is None else nats(weights),
        numerics=None if numerics is None else nats(numerics),
        withheld=withheld,
    )


def sentence_of(found: Split) -> str:
    """What is said of distributions over a hop that changes no answer."""
    return summary(told(split=found)).removeprefix("q8_0 changes no answer of 8; ")


class TestAnswers:
    @pytest.mark.parametrize(
        ("kind", "who"),
        [
            ("merge", "merging"),
            ("convert", "f32"),
            ("quantize", "q8_0"),
            ("runtime", "vllm instead of the reference runtime"),
        ],
    )
    def test_what_the_hop_introduces_is_named(self, kind: HopKind, who: str) -> None:
        assert summary(told(kind=kind)) == f"{who} changes no answer of 8"

    def test_a_hop_that_was_not_compared_says_nothing(self) -> None:
        hop = Hop(parent=ROOT_CELL, child="llamacpp/base/f32", kind="convert")
        assert summary(not_compared(hop, "it crashed")) == ""

    def test_an_adapter_is_there_to_change_answers(self) -> None:
        assert summary(told(WEIGHTS, WEIGHTS, kind="adapter")) == (
            "the adapter changes 2 of 8 answers, as it is meant to"
        )
        assert summary(told(kind="adapter")) == (
            "the adapter changes no answer of 8, though it is there to"
        )

    def test_other_words_are_no_flip(self) -> None:
        assert summary(told(WEIGHTS, ARITHMETIC, flips=0)) == (
            "q8_0 words 2 of 8 answers otherwise and flips none; changed answers: 1 by the stored "
            "weights, 1 by the runtime's arithmetic; none a near-tie"
        )

    def test_flips_of_one_evalset_are_counted_against_it(self) -> None:
        assert summary(told(WEIGHTS, WEIGHTS, WEIGHTS)).startswith(
            "q8_0 flips 3 of 4 clauses items; "
        )

    def test_flips_of_several_evalsets_the_most_first(self) -> None:
        assert summary(told(*[WEIGHTS] * 5)).startswith(
            "q8_0 flips 5 of 8 items: 4 of 4 in clauses, 1 of 4 in sql; "
        )
        hop = told(*[WEIGHTS] * 8)
        fewer = tuple(item.model_copy(update={"flip": "none"}) for item in hop.items[:2])
        assert summary(hop.model_copy(update={"items": (*fewer, *hop.items[2:])})).startswith(
            "q8_0 flips 6 of 8 items: 4 of 4 in sql, 2 of 4 in clauses; "
        )

    def test_flips_for_the_better_are_told_apart(self) -> None:
        worse = told(WEIGHTS, WEIGHTS, WEIGHTS)
        better = worse.items[0].model_copy(update={"flip": flip("wrong", "correct")})
        hop = worse.model_copy(
            update={
                "items": (better, *worse.items[1:]),
                "worse": worse.worse[1:],
                "better": worse.worse[:1],
            }
        )
        assert summary(hop).startswith("q8_0 flips 3 of 4 clauses items, 1 for the better; ")
        assert "better" not in summary(worse)


class TestDistributions:
    def test_none_were_kept(self) -> None:
        assert summary(told(not_split="it kept none")) == "q8_0 changes no answer of 8"

    def test_no_change(self) -> None:
        assert sentence_of(split(0.0, 0.0, 0.0)) == "its distributions are the same to the bit"
        assert sentence_of(split(2e-12, 0.0, 2e-12, answers=1e-12)) == (
            "its distributions are the same to rounding (2e-12 nats a token)"
        )
        assert "rounding" not in sentence_of(split(2e-9, 0.0, 2e-9))

    def test_the_answers_first_and_the_parts_of_all(self) -> None:
        assert sentence_of(split(0.045, 0.045, 3.3e-12, answers=0.012)) == (
            "0.012 nats a token of the answers, 0.045 nats of the whole text: the stored weights "
            "(0.045 nats), hardly the runtime's arithmetic (3.3e-12 nats)"
        )
        assert sentence_of(split(0.045, 0.045, 3.3e-12)).startswith("0.045 nats a token: the ")

    @pytest.mark.parametrize(
        ("weights", "numerics", "said"),
        [
            (0.0, 0.3, "arithmetic alone (0.3 nats), the stored weights are unchanged"),
            (0.3, 0.0, "the stored weights alone (0.3 nats), arithmetic is the same to the bit"),
            (0.3, 0.01, "the stored weights (0.3 nats), hardly the runtime's arithmetic (0.01"),
            (0.01, 0.3, "the runtime's arithmetic (0.3 nats), hardly the stored weights (0.01"),
            (0.3, 0.1, "mostly the stored weights (0.3 nats), less the runtime's arithmetic (0.1"),
            (0.1, 0.3, "mostly the runtime's arithmetic (0.3 nats), less the stored weights (0.1"),
            (0.3, 0.2, "the stored weights (0.3 nats) and the runtime's arithmetic (0.2 nats) ali"),
            (0.2, 0.3, "the runtime's arithmetic (0.3 nats) and the stored weights (0.2 nats) ali"),
        ],
    )
    def test_which_part_is_larger(self, weights: float, numerics: float, said: str) -> None:
        assert sentence_of(split(0.4, weights, numerics)).startswith(f"0.4 nats a token: {said}")

    @given(st.floats(1e-8, 10), st.floats(0, 10), st.floats(0, 10))
    def test_every_number_is_a_measured_one(
        self, whole: float, weights: float, numerics: float
    ) -> None:
        """No share and no sum: KL is not additive."""
        said = re.findall(r"\d[\d.e+-]*", sentence_of(split(whole, weights, numerics)))
        assert set(said) <= {f"{value:.2g}" for value in (whole, weights, numerics)}
        assert said[0] == f"{whole:.2g}"

    def test_a_withheld_split_says_why(self) -> None:
        why = "gguf/base/q8_0: the loader failed its control"
        assert sentence_of(split(0.3, withheld=why)) == f"0.3 nats a token, not split: {why}"
        assert sentence_of(split(0.3, answers=0.1, withheld=why)) == (
            f"0.1 nats a token of the answers, 0.3 nats of the whole text, not split: {why}"
        )
        assert sentence_of(split(0.3)) == "0.3 nats a token, not split"
        assert sentence_of(split(0.3, weights=0.1)) == "0.3 nats a token, not split"
        assert sentence_of(split(0.3, numerics=0.1)) == "0.3 nats a token, not split"
        assert sentence_of(split(0.0, withheld=why)) == "its distributions are the same to the bit"


class TestCauses:
    def test_by_the_weights(self) -> None:
        hop = told(WEIGHTS, WEIGHTS, split=split(0.3, 0.3, 0.0, answers=0.4))
        assert summary(hop) == (
            "q8_0 flips 2 of 4 clauses items; 0.4 nats a token of the answers, 0.3 nats of the "
            "whole text: the stored weights alone (0.3 nats), arithmetic is the same to the bit; "
            "flips: 2 by the stored weights; none a near-tie"
        )

    def test_near_ties_of_an_even_split(self) -> None:
        hop = told(near(0.0213), near(0.049), near(0.03), split=split(0.0045, 0.0022, 0.0024))
        assert summary(hop) == (
            "q8_0 flips 3 of 4 clauses items; 0.0045 nats a token: the runtime's arithmetic "
            "(0.0024 nats) and the stored weights (0.0022 nats) alike; flips: 3 by the runtime's "
            "arithmetic; all near-ties under 0.05 nats"
        )

    def test_only_flips_count_where_there_are_any(self) -> None:
        assert summary(told(WEIGHTS, near(0.01), near(0.02), flips=1)).endswith(
            "; flips: 1 by the stored weights; none a near-tie"
        )

    def test_the_most_frequent_cause_first(self) -> None:
        text = Cause(component="text", reason="the prompt has other ids")
        assert "; flips: 2 by the text path, 1 by the stored weights; " in summary(
            told(WEIGHTS, text, text)
        )

    def test_what_nobody_can_tell(self) -> None:
        unknown = Cause(component=None, reason="the split is withheld", margin=0.5)
        back = Cause(component=None, reason="back to the reference's answer, which it left")
        assert summary(told(unknown, back)).endswith(
            "; flips: 1 not told apart, 1 back to the reference's answer; none a near-tie"
        )

    def test_a_flip_of_the_same_tokens(self) -> None:
        hop = told(WEIGHTS)
        same = hop.items[0].model_copy(update={"same_sequence": True, "cause": None})
        hop = hop.model_copy(update={"items": (same, *hop.items[1:])})
        assert summary(hop).endswith("; flips: 1 by other text of the same tokens")

    def test_margins_nobody_measured_make_no_claim(self) -> None:
        text = Cause(component="text", reason="the prompt has other ids")
        assert summary(told(text)).endswith("; flips: 1 by the text path")

    def test_near_ties_among_others(self) -> None:
        text = Cause(component="text", reason="the prompt has other ids")
        assert summary(told(near(0.01), WEIGHTS)).endswith(
            "; 1 of them a near-tie under 0.011 nats"
        )
        assert summary(told(near(0.01), near(0.02), text)).endswith(
            "; 2 of them near-ties under 0.021 nats"
        )
        assert summary(told(near(0.01), text)).endswith("; 1 of them a near-tie under 0.011 nats")
        assert summary(told(near(0.01))).endswith("; a near-tie under 0.011 nats")
        assert summary(told(near(0.0), near(0.0))).endswith("; all near-ties of 0 nats")

    @given(st.lists(st.floats(1e-9, 0.1), min_size=1, max_size=4))
    def test_the_bound_is_above_every_margin_and_close(self, margins: list[float]) -> None:
        said = summary(told(*map(near, margins)))
        bound = float(said.rpartition(" under ")[2].removesuffix(" nats"))
        assert max(margins) < bound <= 1.11 * max(margins)

    def test_an_adapter_needs_no_cause(self) -> None:
        assert "flips" not in summary(told(WEIGHTS, kind="adapter"))


def test_no_part_of_the_sentence_is_half_there() -> None:
    """No empty clause, no separator without one."""
    for kind in CELLS:
        for found in (None, split(0.0), split(0.3, 0.1, 0.2, answers=0.2), split(0.3)):
            for causes in ((), (WEIGHTS,), (None,)):
                said = summary(told(*causes, kind=kind, split=found))
                assert all(part.strip() == part != "" for part in said.split("; ")), said
