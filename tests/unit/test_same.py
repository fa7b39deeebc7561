"""What makes two cells run the same model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from driftline.compare import sameness
from driftline.errors import InputError, RefusedError
from driftline.report.comparison import differing
from driftline.schema.artifacts import Census
from driftline.schema.comparison import ModelFacts
from tests.unit.lineage_trees import ADAPTER, PROJECT, SOURCE, World, templated

WORLD = World()
BASE = WORLD.evidence()
MLX = PROJECT.mlx.model_dump(mode="json")
DECODE = PROJECT.decode.model_dump(mode="json")
LIMITS = PROJECT.limits.model_dump(mode="json")
ATTACHED, MERGED = "transformers/audit/attached", "transformers/audit/checkpoint"
VLLM, Q8, FOUR = "vllm/audit/checkpoint", "llamacpp/audit/q8_0", "mlx/audit/4bit"


def of(cell: str, world: World = WORLD) -> ModelFacts:
    return sameness.facts(world.evidence(), cell)


def lines(a: ModelFacts, b: ModelFacts) -> list[str]:
    return [detail.line for detail in sameness.differences(a, b)]


def what(a: ModelFacts, b: ModelFacts) -> list[str]:
    return [detail.what for detail in sameness.differences(a, b)]


@pytest.mark.parametrize("cell", sorted(BASE.cells))
def test_a_cell_runs_the_same_model_as_itself(cell: str) -> None:
    assert sameness.differences(of(cell), of(cell)) == ()
    assert sameness.identity(of(cell)) == sameness.identity(of(cell))


def test_another_runtime_is_the_same_model() -> None:
    assert sameness.differences(of(MERGED), of(VLLM)) == ()
    assert sameness.identity(of(MERGED)) == sameness.identity(of(VLLM))


def test_every_other_cell_is_another_model() -> None:
    found = {sameness.identity(of(cell)) for cell in BASE.cells}
    assert len(found) == len(BASE.cells) - 1  # the merged checkpoint is in two runtimes


def test_where_what_a_model_is_comes_from() -> None:
    found = of(Q8)
    assert found.source == BASE.artifacts["checkpoints/base"].identity
    assert found.adapter == BASE.artifacts["adapters/audit"].identity
    assert [step.conversion for step in found.conversions] == ["merge", "convert", "quantize"]
    assert found.conversions[2].arguments == {"ftype": "q8_0"}
    assert "origin" not in found.conversions[1].arguments
    assert found.decode == DECODE


def test_attached_and_merged_have_the_same_adapter_and_not_the_same_steps() -> None:
    assert of(ATTACHED).adapter == of(MERGED).adapter is not None
    assert of(ATTACHED).conversions == ()
    assert what(of(ATTACHED), of(MERGED)) == ["conversions.1"]


def test_a_source_without_an_adapter_has_none() -> None:
    assert of("llamacpp/base/q8_0").adapter is None


@pytest.mark.parametrize(
    ("world", "cell", "fields"),
    [
        (
            WORLD.but(source=replace(SOURCE, tensors=dict.fromkeys(SOURCE.tensors, "x"))),
            Q8,
            ["source"],
        ),
        (WORLD.but(source=templated("other")), Q8, ["source", "template"]),
        (
            WORLD.but(
                source=replace(SOURCE, metadata={**SOURCE.metadata, "tokenizer.model": "sha256 x"})
            ),
            MERGED,
            ["source", "tokenizer"],
        ),
        (
            WORLD.but(adapters={"audit": replace(ADAPTER, tensors={"a": "b"})}),
            FOUR,
            ["adapter"],
        ),
        (
            WORLD.params(
                mlx={**MLX, "recipes": {**MLX["recipes"], "4bit": {"bits": 4, "group_size": 32}}}
            ),
            FOUR,
            ["conversions.2.arguments.group_size"],
        ),
        (WORLD.params(merge={"dtype": "float16"}), Q8, ["conversions.1.arguments.dtype"]),
        (WORLD.params(decode={**DECODE, "stop": ["x"]}), Q8, ["decode.stop"]),
    ],
)
def test_each_field_that_makes_another_model_is_named(
    world: World, cell: str, fields: list[str]
) -> None:
    assert what(of(cell), of(cell, world)) == fields
    assert sameness.identity(of(cell)) != sameness.identity(of(cell, world))


@pytest.mark.parametrize(
    "world",
    [
        WORLD.params(source={"path": "elsewhere"}),
        WORLD.params(limits={**LIMITS, "threads": 2}),
        WORLD.but(packages={"torch": "2.0"}, code={"quantize": "edited"}, where="elsewhere"),
    ],
)
def test_what_makes_no_other_model(world: World) -> None:
    for cell in BASE.cells:
        assert sameness.differences(of(cell), of(cell, world)) == ()


def test_a_tool_of_another_version_makes_another_model() -> None:
    facts = of(Q8)
    steps = (*facts.conversions[:2], facts.conversions[2].model_copy(update={"tool_version": "2"}))
    other = facts.model_copy(update={"conversions": steps})
    assert lines(facts, other) == ["conversions.3.tool_version 1.0 → 2"]


def test_the_quantization_is_what_is_found_and_not_the_label() -> None:
    """The same name and arguments, and other types in the file."""
    record = BASE.artifacts["gguf/audit/q8_0"]
    fallback = Census(
        types={"F32": 4, "Q8_0": 1},
        elements={"F32": 64, "Q8_0": 16},
        tensors=5,
        weights=80,
        bits_per_weight=27.3,
    )
    artifacts = {**BASE.artifacts, record.name: record.model_copy(update={"census": fallback})}
    other = sameness.facts(replace(BASE, artifacts=artifacts), Q8)
    assert what(of(Q8), other) == [
        "stored.bits_per_weight",
        "stored.elements.F32",
        "stored.elements.Q8_0",
        "stored.types.F32",
        "stored.types.Q8_0",
    ]
    assert lines(of(Q8), other)[0] == "stored.bits_per_weight 32.0 → 27.3"


def test_the_same_exactly_where_nothing_differs() -> None:
    every = [of(cell) for cell in BASE.cells]
    for a in every:
        for b in every:
            assert (sameness.differences(a, b) == ()) == (
                sameness.identity(a) == sameness.identity(b)
            )


def test_a_field_that_is_null_is_not_one_that_is_missing() -> None:
    facts = of(Q8)
    other = facts.model_copy(update={"decode": {**facts.decode, "grammar": None}})
    assert lines(facts, other) == ["decode.grammar not there → none"]


def test_an_unknown_cell_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r'did you mean "llamacpp/audit/q8_0"') as caught:
        of("llamacpp/audit/q8")
    assert caught.value.exit_code == 2


def test_a_record_that_is_not_there_is_refused() -> None:
    artifacts = {k: v for k, v in BASE.artifacts.items() if k != "checkpoints/audit"}
    with pytest.raises(RefusedError, match="no record of checkpoints/audit"):
        sameness.facts(replace(BASE, artifacts=artifacts), Q8)


def test_what_is_printed() -> None:
    found = list(differing(sameness.differences(of(ATTACHED), of(MERGED))))
    assert found == [
        "not the same model: 1 field differs",
        "  conversions.1: not there → merge by merge tool",
    ]
