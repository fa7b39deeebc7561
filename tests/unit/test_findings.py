"""Findings: each code fires for its own fault and alone, and a clean hop has none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.drift import findings as module
from driftline.drift.evidence import CellEvidence, StoredWeights
from driftline.drift.findings import findings, reference_findings
from driftline.drift.hops import hop_drift
from driftline.drift.statistics import RowSample, paired_scores, summarize
from driftline.project.routes import ROOT_CELL
from driftline.schema.artifacts import Census
from driftline.schema.cells import Capabilities
from driftline.schema.hops import Cause, Finding, Hop, HopDrift, HopKind, Split
from driftline.schema.statistics import DistributionDrift, PairedScores
from driftline.schema.text import PromptClass, PromptDifference, TextDrift
from driftline.schema.weights import CounterfactualRecord, FieldChange, TensorChange
from driftline.store.safetensors_header import BITS
from tests.factories import completion, evidence, prompts

ITEMS = prompts("clauses", count=12)
VOCABULARY = 768
ATTACHED, MERGED = "transformers/audit/attached", "transformers/audit/checkpoint"
F32, Q4, MLX = "llamacpp/base/f32", "llamacpp/base/q4_k_m", "mlx/base/4bit"
CELLS: Mapping[HopKind, tuple[str, str]] = {
    "adapter": (ROOT_CELL, ATTACHED),
    "merge": (ATTACHED, MERGED),
    "convert": (ROOT_CELL, F32),
    "quantize": (F32, Q4),
    "runtime": (ROOT_CELL, "vllm/base/checkpoint"),
}
KINDS: tuple[HopKind, ...] = get_args(HopKind)


def nats(kl: float, *, perplexity: float = 2.0, child: float = 2.0) -> DistributionDrift:
    """Drift of four rows of that KL, with these perplexities."""
    return summarize(
        RowSample(
            kl=np.full(4, kl),
            agree=np.ones(4, dtype=np.bool_),
            parent_log_p=np.full(4, -np.log(perplexity)),
            child_log_p=np.full(4, -np.log(child)),
            confidence=np.full(4, 0.6),
            tail=np.zeros(4),
            position=np.arange(4),
            answer=np.ones(4, dtype=np.bool_),
            lengths=np.array([4]),
            keys=np.array(["clauses/c-0"]),
        )
    )


def tensor(name: str = "mlp.up_proj", **changes: Any) -> TensorChange:
    facts: dict[str, Any] = {
        "name": f"model.layers.1.{name}.weight",
        "layer": 1,
        "module": name,
        "stored": "Q4_K",
        "relative_error": 0.07,
        "explained": "exact",
    }
    return TensorChange(**{**facts, **changes})


def record(**changes: Any) -> CounterfactualRecord:
    facts: dict[str, Any] = {
        "artifact": "gguf/base/q4_k_m",
        "artifact_identity": "a",
        "parent": "gguf/base/f32",
        "parent_identity": "b",
        "trusted": True,
        "tensors": (tensor(), tensor("self_attn.q_proj")),
    }
    return CounterfactualRecord(**{**facts, **changes})


def census(**elements: int) -> Census:
    """One tensor per storage type, with so many weights."""
    return Census(
        types=dict.fromkeys(elements, 1),
        elements=elements,
        tensors=len(elements),
        weights=sum(elements.values()),
        bits_per_weight=4.56,
    )


FULL = census(F32=100)
STORED: Mapping[HopKind, tuple[CounterfactualRecord | None, Census]] = {
    "adapter": (None, FULL),
    "merge": (record(tensors=(tensor(stored="float32", explained=None),)), census(float32=100)),
    "convert": (record(tensors=(tensor(stored="F32", relative_error=0.0),)), FULL),
    "quantize": (record(), census(Q4_K=900, Q6_K=100, F32=5)),
    "runtime": (None, FULL),
}
"""What a clean hop of each kind leads to."""
KL: Mapping[HopKind, tuple[float, float]] = {
    "adapter": (1.4, 0.0),
    "merge": (1e-9, 0.0),
    "convert": (4e-7, 4e-7),
    "quantize": (0.05, 2e-4),
    "runtime": (1e-12, 1e-12),
}
"""Mean KL end to end and of arithmetic that a clean hop of each kind has."""


@dataclass(frozen=True)
class Case:
    """A hop and both its ends, as `findings` takes them."""

    hop: HopDrift
    parent: CellEvidence
    child: CellEvidence
    vocabulary: int = VOCABULARY

    @property
    def found(self) -> list[Finding]:
        return list(findings(self.hop, self.parent, self.child, ITEMS, self.vocabulary))

    @property
    def codes(self) -> list[str]:
        return [each.code for each in self.found]

    def hopped(self, **changes: Any) -> Case:
        """With something else found on the hop."""
        return replace(self, hop=self.hop.model_copy(update=changes))

    def recorded(self, **changes: Any) -> Case:
        """With something else known of the child's stored weights."""
        return replace(
            self, child=replace(self.child, weights=StoredWeights({}, record(**changes)))
        )

    def counted(self, found: Census | None) -> Case:
        """With other storage types in the child."""
        return replace(self, child=replace(self.child, census=found))

    def measured(self, whole: DistributionDrift, numerics: float | None = None) -> Case:
        """With other distributions."""
        part = None if numerics is None else nats(numerics)
        return self.hopped(split=Split(end_to_end=whole, numerics=part))

    def because(self, *reasons: str) -> Case:
        """With answers that part for these reasons, from the first item on."""
        items = tuple(
            item.model_copy(update={"cause": Cause(component="text", reason=reason)})
            for item, reason in zip(self.hop.items, reasons, strict=False)
        )
        return self.hopped(items=(*items, *self.hop.items[len(reasons) :]))


def clean(kind: HopKind, *, child: str | None = None) -> Case:
    """A hop as it should be: everything it has is explained."""
    before, after = CELLS[kind][0], child or CELLS[kind][1]
    answers = {key: completion(prompt) for key, prompt in ITEMS.items()}
    settings = {"decoding": "greedy (argmax)", "context_length": 512}
    parent = replace(
        evidence(before, answers, settings=settings), weights=StoredWeights({}), census=FULL
    )
    stored, counted = STORED[kind]
    ended = replace(
        evidence(after, answers, settings=settings),
        weights=StoredWeights({}, stored),
        census=counted,
    )
    drift = hop_drift(Hop(parent=before, child=after, kind=kind), parent, ended, ITEMS)
    whole, arithmetic = KL[kind]
    case = Case(drift, parent, ended).measured(nats(whole), arithmetic)
    return case.hopped(scores=scores(worse=0, better=0))


def scores(*, worse: int, better: int, holm_p: float | None = 1.0) -> PairedScores:
    before = [1.0] * worse + [0.0] * better + [1.0] * (12 - worse - better)
    after = [0.0] * worse + [1.0] * better + [1.0] * (12 - worse - better)
    made = paired_scores(before, after, worse=worse, better=better)
    return made.model_copy(update={"holm_p": holm_p})


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_hop_has_none(kind: HopKind) -> None:
    case = clean(kind)
    assert case.found == []
    nothing_known = replace(case.child, weights=None, census=None)
    assert replace(case, child=nothing_known).hopped(split=None, scores=None).found == []


def test_every_code_is_tried_here() -> None:
    source = Path(module.__file__).read_text(encoding="utf-8")
    tried = Path(__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source))
    assert len(codes) > 20
    assert [code for code in sorted(codes) if f'"{code}"' not in tried] == []


class TestPrompts:
    def differences(self, cause: PromptClass, count: int) -> TextDrift:
        return TextDrift(
            prompts=tuple(
                PromptDifference(
                    evalset=prompt.evalset,
                    item=prompt.id,
                    cause=cause,
                    position=0,
                    pinned_piece="<s>",
                    own_piece=None,
                    detail=f"what happened to {prompt.id}",
                )
                for prompt in list(ITEMS.values())[:count]
            )
        )

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("cause", "code"),
        [
            ("template", "template-differs"),
            ("bos", "bos-differs"),
            ("eos", "eos-in-prompt"),
            ("special", "special-token-split"),
            ("tokenizer", "tokenizer-differs"),
        ],
    )
    def test_each_class(self, kind: HopKind, cause: PromptClass, code: str) -> None:
        (found,) = clean(kind).hopped(text=self.differences(cause, 2)).found
        assert (found.code, found.component) == (code, "text")
        assert found.where == f"{CELLS[kind][0]} → {CELLS[kind][1]}"
        assert found.message.endswith(" for 2 of 12 prompts: what happened to c-000")
        assert found.items == ("clauses/c-000", "clauses/c-001")

    def test_ten_examples_at_most(self) -> None:
        (found,) = clean("convert").hopped(text=self.differences("bos", 12)).found
        assert len(found.items) == module.EXAMPLES
        assert " for 12 of 12 prompts" in found.message

    def test_several_classes_at_once(self) -> None:
        both = self.differences("tokenizer", 1).prompts + self.differences("template", 2).prompts
        case = clean("convert").hopped(text=TextDrift(prompts=both))
        assert case.codes == ["template-differs", "tokenizer-differs"]


class TestFields:
    CONFIG = (FieldChange(field="llama.rope.freq_base", expected="10000.0", found="20000.0"),)

    @pytest.mark.parametrize("kind", ["merge", "convert", "quantize"])
    def test_of_the_text(self, kind: HopKind) -> None:
        fields = tuple(f"tokenizer.{name}: expected 1, found 2" for name in "abcd")
        (found,) = clean(kind).hopped(text=TextDrift(fields=fields)).found
        assert (found.code, found.component) == ("text-metadata", "text")
        assert found.message == "; ".join(fields[:3])

    def test_of_how_to_generate(self) -> None:
        penalty = "generation_config.json:repetition_penalty: expected nothing, found 1.3"
        (found,) = clean("merge").hopped(text=TextDrift(fields=(penalty,))).found
        assert (found.code, found.component) == ("generation-defaults", "text")
        assert found.message.startswith(penalty)
        many = TextDrift(fields=tuple(f"{penalty}{n}" for n in range(4)))
        (found,) = clean("merge").hopped(text=many).found
        assert found.message.count("1.3") == 3 and "1.30; generation" in found.message
        both = TextDrift(fields=(penalty, "tokenizer.json: expected a, found b"))
        assert clean("merge").hopped(text=both).codes == ["text-metadata", "generation-defaults"]

    @pytest.mark.parametrize("kind", ["merge", "convert", "quantize"])
    def test_of_the_model(self, kind: HopKind) -> None:
        stored, _ = STORED[kind]
        assert stored is not None
        (found,) = clean(kind).recorded(tensors=stored.tensors, config=self.CONFIG).found
        assert (found.code, found.component) == ("model-metadata", "weights")
        assert found.message == "llama.rope.freq_base: expected 10000.0, found 20000.0"

    def test_of_the_model_are_not_another_runtimes_doing(self) -> None:
        assert clean("runtime").recorded(config=self.CONFIG).found == []

    @pytest.mark.parametrize("before", [{"config": CONFIG}, {"text_fields": CONFIG}])
    def test_those_wrong_before_a_conversion_are_not_blamed_on_it(
        self, before: dict[str, Any]
    ) -> None:
        case = clean("convert").hopped(text=TextDrift(fields=("tokenizer: expected 1, found 2",)))
        case = replace(case, child=replace(case.child, weights=StoredWeights({}, record())))
        assert case.codes == ["text-metadata"]
        parent = replace(case.parent, weights=StoredWeights({}, record(**before)))
        assert replace(case, parent=parent).found == []
        right = replace(case.parent, weights=StoredWeights({}, record()))
        assert replace(case, parent=right).codes == ["text-metadata"]

    def test_a_quantized_file_is_held_against_its_parents_fields(self) -> None:
        case = clean("quantize").recorded(config=self.CONFIG)
        parent = replace(case.parent, weights=StoredWeights({}, record(config=self.CONFIG)))
        assert replace(case, parent=parent).codes == ["model-metadata"]


class TestEndings:
    @pytest.mark.parametrize(
        ("reason", "code"),
        [
            ("the child went on after the token that ended the parent's answer", "stop-ignored"),
            ("the child went on after the stop string that ended the parent's", "stop-ignored"),
            ("the child stopped at a token or string at which the parent", "stopped-early"),
            ("the child was cut off (length)", "truncated"),
            ("the child was cut off (context)", "truncated"),
            ("not greedy: its own most likely token is ahead by 1.5 nats", "not-greedy"),
        ],
    )
    def test_each_reason(self, reason: str, code: str) -> None:
        (found,) = clean("convert").because(reason, "something else", reason).found
        assert (found.code, found.component) == (code, "text")
        assert found.message == f"2 of 12 answers: {reason}"
        assert found.items == ("clauses/c-000", "clauses/c-002")

    def test_ordinary_causes_are_none(self) -> None:
        ordinary = (
            "the stored weights alone, in the reference runtime, already prefer this token",
            "decoded token by token it rounds otherwise than teacher-forced",
            "back to the reference's answer, which the parent left",
            "the prompt has other ids",
            "the parent was cut off (length), the child went on",
        )
        assert clean("quantize").because(*ordinary).found == []

    def test_a_runtime_that_says_it_is_not_greedy(self) -> None:
        case = clean("convert")
        chain = {"decoding": "min_p 0.05, then argmax"}
        told = case.child.record.model_copy(update={"settings": chain})
        (found,) = replace(case, child=replace(case.child, record=told)).found
        assert (found.code, found.component) == ("not-greedy", "text")
        assert found.message == f"{F32} decodes otherwise: min_p 0.05, then argmax"
        told = case.child.record.model_copy(update={"settings": {}})
        assert replace(case, child=replace(case.child, record=told)).found == []

    def test_a_sampler_is_found_once_and_where_it_begins(self) -> None:
        case = clean("quantize").because("not greedy: its own most likely token is ahead by 1 nats")
        chain = {"decoding": "min_p 0.05, then argmax"}
        told = case.child.record.model_copy(update={"settings": chain})
        case = replace(case, child=replace(case.child, record=told))
        (found,) = case.found
        assert (found.code, found.items) == ("not-greedy", ("clauses/c-000",))
        before = case.parent.record.model_copy(update={"settings": chain})
        assert replace(case, parent=replace(case.parent, record=before)).found == []


class TestRefused:
    def refusing(self, *keys: str) -> Case:
        case = clean("convert")
        kept = {key: each for key, each in case.child.completions.items() if key not in keys}
        return replace(case, child=replace(case.child, completions=kept))

    def test_prompts_without_an_answer(self) -> None:
        (found,) = self.refusing("clauses/c-003", "clauses/c-001").found
        assert (found.code, found.component) == ("prompt-refused", "text")
        assert found.items == ("clauses/c-001", "clauses/c-003")
        assert found.message == ("2 prompts that the parent answers got none (context: 512 tokens)")

    def test_a_runtime_that_names_no_limit(self) -> None:
        case = self.refusing("clauses/c-001")
        silent = case.child.record.model_copy(update={"settings": {}})
        (found,) = replace(case, child=replace(case.child, record=silent)).found
        assert found.message == "1 prompts that the parent answers got none"

    def test_all_of_them(self) -> None:
        (found,) = self.refusing(*ITEMS).found
        assert (found.code, len(found.items)) == ("prompt-refused", module.EXAMPLES)

    def test_those_the_parent_did_not_answer_either(self) -> None:
        case = self.refusing("clauses/c-001")
        parent = replace(case.parent, completions=case.child.completions)
        assert replace(case, parent=parent).found == []

    def test_an_evalset_the_child_was_not_given(self) -> None:
        case = clean("convert")
        assert replace(case, child=replace(case.child, completions={}, scores={})).found == []

    @pytest.mark.parametrize("failed", ["parent", "child"])
    def test_a_cell_that_failed_refused_nothing(self, failed: str) -> None:
        case = self.refusing("clauses/c-001")
        end = getattr(case, failed)
        outcome = end.record.outcome.model_copy(update={"state": "error", "reason": "x"})
        told = replace(end, record=end.record.model_copy(update={"outcome": outcome}))
        assert replace(case, **{failed: told}).found == []


class TestWeights:
    @pytest.mark.parametrize("kind", ["convert", "quantize"])
    def test_a_loader_that_cannot_be_trusted(self, kind: HopKind) -> None:
        odd = (tensor(explained="beyond"),)
        case = clean(kind).recorded(trusted=False, reason="the loader failed", tensors=odd)
        (found,) = case.found
        assert (found.code, found.component) == ("split-withheld", None)
        assert found.message == "the loader failed"

    @pytest.mark.parametrize("explained", ["within", "beyond"])
    def test_a_tensor_that_storing_the_parents_does_not_give(self, explained: str) -> None:
        odd = tensor(explained=explained, relative_error=0.08125)
        (found,) = clean("quantize").recorded(tensors=(tensor(relative_error=0.9), odd)).found
        assert (found.code, found.component) == ("tensor-unexplained", "weights")
        assert found.message == (
            "1 tensor is not what storing the parent's as Q4_K gives; furthest: "
            "model.layers.1.mlp.up_proj.weight, relative error 0.0813"
        )

    def test_the_furthest_of_several(self) -> None:
        odd = [tensor(f"m{n}", explained="beyond", relative_error=n / 10) for n in (1, 3, 2)]
        (found,) = clean("quantize").recorded(tensors=tuple(odd)).found
        assert found.message.startswith("3 tensors are not what ")
        assert "furthest: model.layers.1.m3.weight" in found.message

    @pytest.mark.parametrize("field", ["head_count", "rope.dimension_count", "key_length"])
    def test_wrong_head_counts_explain_what_they_reorder(self, field: str) -> None:
        config = (FieldChange(field=f"llama.{field}", expected="4", found="8"),)
        names = ("self_attn.q_proj", "self_attn.k_proj")
        rows = tuple(tensor(name, explained="beyond") for name in names)
        assert clean("quantize").recorded(tensors=rows).codes == ["tensor-unexplained"]
        assert clean("quantize").recorded(tensors=rows, config=config).codes == ["model-metadata"]
        other = (FieldChange(field="llama.rope.freq_base", expected="1", found="2"),)
        case = clean("quantize").recorded(tensors=rows, config=other)
        assert case.codes == ["model-metadata", "tensor-unexplained"]
        more = (*rows, tensor("self_attn.v_proj", explained="beyond"))
        case = clean("quantize").recorded(tensors=more, config=config)
        assert case.codes == ["model-metadata", "tensor-unexplained"]
        assert case.found[1].message.startswith("1 tensor is ")

    def test_another_runtime_stores_nothing(self) -> None:
        assert clean("runtime").recorded(tensors=(tensor(explained="beyond"),)).found == []

    def test_an_adapter_that_does_nothing(self) -> None:
        case = clean("adapter")
        (found,) = case.measured(nats(0.0), 0.0).found
        assert (found.code, found.component) == ("no-op-adapter", "weights")
        assert case.hopped(split=None).found == []

    def test_a_merge_that_does_nothing(self) -> None:
        same = tuple(tensor(f"m{n}", explained=None, relative_error=0.0) for n in range(2))
        case = clean("merge")
        (found,) = case.recorded(tensors=same).measured(nats(1.0)).found
        assert (found.code, found.component) == ("no-op-merge", "weights")
        some = (*same, tensor(explained=None, stored="float32"))
        assert case.recorded(tensors=some).found == []
        assert case.recorded(tensors=()).found == []

    @pytest.mark.parametrize(
        ("stored", "limit"),
        [("float32", 1e-6), ("float16", 1e-4), ("bfloat16", 1e-3), ("float8_e4m3fn", 1e-3)],
    )
    def test_a_merge_that_is_not_what_was_attached(self, stored: str, limit: float) -> None:
        case = clean("merge").recorded(tensors=(tensor(explained=None, stored=stored),))
        assert case.measured(nats(0.9 * limit)).found == []
        (found,) = case.measured(nats(1.1 * limit)).found
        assert (found.code, found.component) == ("merge-differs", "weights")
        assert f"as {stored} explains ({limit:g})" in found.message

    def test_a_merge_of_which_nothing_is_known_is_held_to_float32(self) -> None:
        case = clean("merge")
        case = replace(case, child=replace(case.child, weights=None))
        assert case.measured(nats(1e-5)).codes == ["merge-differs"]


QUANTIZED: Mapping[str, int] = {
    "Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8, "Q2_K": 2, "Q3_K": 3, "Q4_K": 4,
    "Q5_K": 5, "Q6_K": 6, "IQ1_S": 1, "IQ2_XXS": 2, "IQ3_S": 3, "IQ4_NL": 4, "IQ4_XS": 4,
    "TQ1_0": 1, "TQ2_0": 2, "MXFP4": 4, "affine-4bit-g64": 4, "affine-8bit-g32": 8,
    "float32": 32, "float16": 16, "bfloat16": 16,
}  # fmt: skip
"""Storage types of GGUF and MLX by name; `BITS` has those of Safetensors."""


class TestLabels:
    def stored(self, label: str, elements: dict[str, int]) -> Case:
        """A quantized artifact; its arithmetic, held to limits by runtime and type, is exact."""
        case = clean("quantize", child=label).counted(census(**elements))
        return case.measured(nats(0.01), 0.0)

    @pytest.mark.parametrize(
        ("label", "elements"),
        [
            ("llamacpp/base/q8_0", {"Q8_0": 9, "F32": 1}),
            ("llamacpp/base/q4_k_m", {"Q4_K": 6, "Q6_K": 4}),
            ("llamacpp/base/q2_k", {"Q2_K": 6, "Q3_K": 3, "Q4_K": 1}),
            ("mlx/base/4bit", {"affine-4bit-g64": 9, "float32": 1}),
            ("llamacpp/base/q4_k_m", {"Q4_K": 6, "F16": 9, "BF16": 9}),
            ("mlx/base/4bit", {"affine-4bit-g64": 6, "float16": 9, "bfloat16": 9}),
            ("llamacpp/base/f32", {"F32": 9}),
        ],
    )
    def test_what_the_name_promises(self, label: str, elements: dict[str, int]) -> None:
        assert self.stored(label, elements).found == []

    @pytest.mark.parametrize(
        ("label", "elements", "below"),
        [
            ("llamacpp/base/q8_0", {"Q8_0": 9, "Q4_0": 1}, ": Q4_0 is below the label"),
            ("llamacpp/base/q4_k_m", {"Q4_K": 9, "Q2_K": 1}, ": Q2_K is below the label"),
            ("llamacpp/base/q4_k_m", {"Q4_K": 4, "Q6_K": 6}, ""),
            ("llamacpp/base/q4_k_m", {"F32": 10}, ""),
            ("mlx/base/4bit", {"affine-4bit-g64": 4, "affine-8bit-g64": 6}, ""),
            ("mlx/base/4bit", {"affine-4bit-g64": 9, "affine-2bit-g64": 1}, "is below the label"),
        ],
    )
    def test_something_else(self, label: str, elements: dict[str, int], below: str) -> None:
        (found,) = self.stored(label, elements).found
        assert (found.code, found.component) == ("not-as-labelled", "weights")
        assert found.message.startswith(f"{label.rpartition('/')[2]} is 4.56 bits per weight ")
        assert found.message.endswith(below)
        assert ("below" in found.message) == bool(below)

    @pytest.mark.parametrize("name", ["mixed", "quick", "habit", "12", "bf16"])
    def test_a_name_that_promises_no_bits(self, name: str) -> None:
        case = self.stored(MLX, {"affine-2bit-g64": 9})
        assert case.codes == ["not-as-labelled"]
        spec = case.child.record.cell.model_copy(update={"form": name})
        renamed = case.child.record.model_copy(update={"cell": spec})
        assert replace(case, child=replace(case.child, record=renamed)).found == []

    @pytest.mark.parametrize(("kind", "bits"), [*BITS.items(), *QUANTIZED.items()])
    def test_bits_of_every_storage_type_there_is(self, kind: str, bits: int) -> None:
        assert module.bits_of(kind) == (32 if kind == "BOOL" else bits)

    def test_floats_of_eight_bits_are_below_no_label_of_as_many(self) -> None:
        assert self.stored("llamacpp/base/q8_0", {"F8_E4M3": 10}).found == []

    def test_only_where_something_was_stored(self) -> None:
        odd = census(Q2_K=10)
        for kind in ("adapter", "merge", "runtime"):
            case = clean(kind, child=Q4).counted(odd)
            assert "not-as-labelled" not in case.codes
        assert clean("convert", child=Q4).counted(odd).codes == ["not-as-labelled"]
        assert clean("quantize").counted(None).measured(nats(0.0), 0.0).found == []


class TestNumerics:
    @pytest.mark.parametrize(
        ("cell", "found", "limit"),
        [
            (F32, {"F32": 9}, module.NUMERICS_LIMIT_PLAIN),
            ("vllm/base/checkpoint", {"float32": 9}, module.NUMERICS_LIMIT_PLAIN),
            (Q4, {"Q4_K": 9, "F32": 1}, module.NUMERICS_LIMIT_LOW),
            (F32, {"F16": 9}, module.NUMERICS_LIMIT_LOW),
            (MLX, {"affine-4bit-g64": 9}, module.NUMERICS_LIMIT_EXACT),
            (MLX, {"float32": 9}, module.NUMERICS_LIMIT_EXACT),
        ],
    )
    def test_more_than_usual(self, cell: str, found: dict[str, int], limit: float) -> None:
        case = clean("runtime", child=cell).counted(census(**found))
        assert case.measured(nats(1.0), 0.9 * limit).found == []
        (finding,) = case.measured(nats(1.0), 1.1 * limit).found
        assert (finding.code, finding.component) == ("numerics-high", "numerics")
        assert f"{1.1 * limit:.2g} nats a token, {limit:g} is usual" in finding.message

    def test_products_are_exact_on_a_cpu_and_where_a_runtime_claims_it(self) -> None:
        case = clean("runtime", child=MLX).counted(census(float32=9))
        case = case.measured(nats(1.0), 2 * module.NUMERICS_LIMIT_EXACT)

        def codes(**changes: Any) -> list[str]:
            told = case.child.record.model_copy(update=changes)
            return replace(case, child=replace(case.child, record=told)).codes

        assert codes() == codes(settings={"device": "cpu"}) == ["numerics-high"]
        assert codes(settings={"device": "gpu"}) == []
        assert codes(capabilities=Capabilities()) == []

    def test_without_a_census_it_is_held_to_full_precision(self) -> None:
        case = clean("runtime").counted(None)
        assert case.measured(nats(1.0), 2e-5).codes == ["numerics-high"]

    def test_a_withheld_split_has_none(self) -> None:
        assert clean("quantize").measured(nats(9.0)).found == []


class TestResults:
    def test_no_log_probabilities(self) -> None:
        case = clean("runtime")
        told = case.child.record.model_copy(update={"not_forced": "ValueError: no logits"})
        silent = replace(case, child=replace(case.child, record=told))
        (found,) = silent.found
        assert (found.code, found.component) == ("missing-log-probs", None)
        assert (
            found.message == "vllm/base/checkpoint gave no log-probabilities: ValueError: no logits"
        )
        outcome = told.outcome.model_copy(update={"state": "error"})
        failed = replace(silent.child, record=told.model_copy(update={"outcome": outcome}))
        assert replace(silent, child=failed).found == []

    def test_no_log_probabilities_of_a_runtime_that_promises_none(self) -> None:
        case = clean("runtime")
        unable = {
            "not_forced": "NotImplementedError",
            "capabilities": Capabilities(distributions=False),
        }
        told = case.child.record.model_copy(update=unable)
        assert replace(case, child=replace(case.child, record=told)).found == []

    def test_chance_level(self) -> None:
        case = clean("quantize")
        high, low = 0.95 * VOCABULARY, 0.85 * VOCABULARY
        (found,) = case.measured(nats(6.0, child=high)).found
        assert (found.code, found.component) == ("chance-level", None)
        assert found.message == f"perplexity {high:.4g} with a vocabulary of 768"
        assert case.measured(nats(6.0, child=low)).found == []
        assert case.measured(nats(0.0, perplexity=high, child=high)).found == []
        bare = {"perplexity_parent": None, "perplexity_child": None}
        assert case.measured(nats(6.0, child=high).model_copy(update=bare)).found == []
        assert replace(case, vocabulary=0).measured(nats(6.0, child=high)).found == []

    def test_a_conversion_that_improves_the_model(self) -> None:
        case = clean("quantize").hopped(better=("clauses/c-001", "clauses/c-002"))
        (found,) = case.hopped(scores=scores(worse=1, better=9, holm_p=0.049)).found
        assert (found.code, found.component) == ("suspiciously-better", None)
        assert found.items == ("clauses/c-001", "clauses/c-002")
        assert "9 answers became right and 1 wrong (McNemar p 0.049)" in found.message

    @pytest.mark.parametrize(
        ("worse", "better", "p"), [(1, 9, 0.05), (9, 1, 0.001), (5, 5, 0.001), (0, 9, None)]
    )
    def test_nothing_suspicious(self, worse: int, better: int, p: float | None) -> None:
        told = scores(worse=worse, better=better, holm_p=p)
        assert clean("quantize").hopped(scores=told).found == []


class TestReference:
    def test_answers_cut_off_at_their_limit(self) -> None:
        answers = {key: completion(prompt) for key, prompt in ITEMS.items()}
        keys = list(ITEMS)[1:]
        cell = evidence(ROOT_CELL, answers, dict.fromkeys(keys, "truncated"))
        (found,) = reference_findings(cell)
        assert (found.code, found.where) == ("reference-truncated", ROOT_CELL)
        assert found.component is None
        assert found.message.startswith("11 of the reference's own answers are cut off")
        assert found.items == tuple(keys[: module.EXAMPLES])

    def test_wrong_answers_are_no_fault_of_the_pipeline(self) -> None:
        answers = {key: completion(prompt) for key, prompt in ITEMS.items()}
        assert list(reference_findings(evidence(ROOT_CELL, answers))) == []
        assert (
            list(reference_findings(evidence(ROOT_CELL, answers, dict.fromkeys(ITEMS, "wrong"))))
            == []
        )


@given(st.sampled_from(KINDS), st.floats(0, 10), st.floats(0, 10), st.floats(1, 2000))
def test_a_finding_is_about_its_hop_and_says_something(
    kind: HopKind, whole: float, numerics: float, perplexity: float
) -> None:
    """Whatever was measured; and more of it never makes a finding go away."""
    case = clean(kind).measured(nats(whole, child=perplexity), numerics)
    for found in case.found:
        assert found.where == case.hop.hop.name
        assert found.message
    more = case.measured(nats(whole + 1, child=perplexity), numerics + 1)
    assert set(case.codes) - {"no-op-adapter"} <= set(more.codes)
