"""What must hold if the split into text, weights and numerics is right, on the real checkpoint.

`pytest -s` prints each figure.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.budget.swapping import ForcedText, Subject, budget
from driftline.counterfactual import reference
from driftline.counterfactual.base import StoredFormat
from driftline.counterfactual.control import small_checkpoint
from driftline.counterfactual.gguf import Gguf
from driftline.counterfactual.mlx import Mlx
from driftline.faults.bench import items
from driftline.faults.catalogue import F32
from driftline.faults.recipe import Recipe
from driftline.faults.runs import TEXT, Chain, Tampering
from driftline.project.sections.mlx import MlxRecipe
from driftline.runtimes.base import Job
from driftline.runtimes.llamacpp import LlamaCppRuntime
from driftline.schema.budget import Budget
from driftline.schema.hops import HopDrift, Split
from driftline.schema.items import GoldenPrompt
from driftline.store.distributions import IDS
from tests.conftest import need
from tests.paths import ROOT

pytestmark = pytest.mark.faults

CLERK = ROOT / "models" / "clerk"
STORIES = os.environ.get("STORIES260K", "")


def chain(folder: Path, recipe: Recipe) -> Chain:
    for runtime in ("transformers", "llamacpp", "mlx"):
        need(runtime)
    return Chain(recipe, folder)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    recipe = Recipe(
        CLERK,
        items(("sql", "clauses", "pods"), 2),
        mlx=MlxRecipe(bits=8, group_size=64),
        mlx_name="8bit",
    )
    return chain(tmp_path_factory.mktemp("converted"), recipe)


def hop(found: Chain, child: str) -> HopDrift:
    return next(each for each in found.healthy.report.hops if each.hop.child == child)


def split(found: Chain, child: str) -> Split:
    made = hop(found, child).split
    assert made is not None and not made.withheld, made
    return made


def means(found: Split) -> tuple[float, float, float]:
    """Mean KL in nats: end to end, weights, numerics."""
    assert found.weights is not None and found.numerics is not None
    shown = (
        found.end_to_end.kl_mean.value,
        found.weights.kl_mean.value,
        found.numerics.kl_mean.value,
    )
    print("end to end {:.3g}, weights {:.3g}, numerics {:.3g} nats".format(*shown))
    return shown


def test_a_float32_gguf_changes_no_weight(converted: Chain) -> None:
    found = split(converted, "llamacpp/base/f32")
    _, weights, numerics = means(found)
    assert found.weights is not None
    assert weights == found.weights.kl_max == 0.0
    assert 0 < numerics < 1e-5


def test_q8_0_has_both_parts_and_of_one_order(converted: Chain) -> None:
    """llama.cpp rounds activations to 8 bits as well."""
    _, weights, numerics = means(split(converted, "llamacpp/base/q8_0"))
    assert weights > 0 and numerics > 0
    assert 0.1 < weights / numerics < 10


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("8bit", MlxRecipe(bits=8, group_size=64)),
        ("4bit", MlxRecipe(bits=4, group_size=64)),
        ("mixed", MlxRecipe(mixed="mixed_3_6")),
    ],
)
def test_mlx_adds_no_arithmetic_of_its_own(name: str, recipe: MlxRecipe, tmp_path: Path) -> None:
    made = chain(tmp_path, Recipe(CLERK, items(("sql",), 2), mlx=recipe, mlx_name=name))
    _, weights, numerics = means(split(made, f"mlx/base/{name}"))
    assert numerics < 1e-9 < weights


def test_attached_and_merged_are_the_same_in_float32(tmp_path: Path) -> None:
    adapter = ROOT / "models" / "adapters" / "audit"
    made = chain(tmp_path, Recipe(CLERK, items(("audit",), 3), adapter=adapter))
    whole, weights, numerics = means(split(made, "transformers/tuned/checkpoint"))
    assert whole == weights < 1e-8
    assert numerics == 0.0


def test_swapping_nothing_gives_exactly_nothing(converted: Chain) -> None:
    """The reference, loaded and forced anew, is what its cell kept; one changed tensor is not."""
    kept = converted.healthy.evidence["transformers/base/checkpoint"].distributions["base"]
    starts = {key: start for key, (start, _) in kept.offsets.items()}
    text = ForcedText(kept, converted.healthy.root / TEXT / "base" / IDS, starts, kept.sequences)
    model = reference.checkpoint(CLERK)
    own = {name: values.copy() for name, values in reference.arrays(model).items()}

    def spent(child: dict[str, Any]) -> Budget:
        return budget(Subject("nothing", "", ""), model, child, text, lambda *_: None)

    nothing = spent(own)
    assert (nothing.control, nothing.whole, nothing.groups) == (0.0, 0.0, ())
    name = "model.layers.1.mlp.up_proj.weight"
    changed = spent({**own, name: own[name] * np.float32(1.01)})
    assert changed.control == 0.0 < changed.whole == changed.groups[0].kl
    assert [each.tensors for each in changed.groups] == [(name,)]


@pytest.mark.parametrize(
    ("stored", "artifact"), [(Gguf(), "gguf/base/q8_0"), (Mlx(), "mlx/base/8bit")]
)
def test_a_counterfactual_ties_the_head_to_the_stored_embedding(
    converted: Chain, stored: StoredFormat, artifact: str
) -> None:
    """Replacing the embedding alone would move drift of the head's weights into numerics."""
    model = stored.load(converted.healthy.root / artifact)
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight.data_ptr() == embedding.data_ptr()
    source = reference.arrays(reference.checkpoint(CLERK))["model.embed_tokens.weight"]
    assert 0 < np.abs(embedding.detach().numpy() - source).max() < 0.01


class TwoThreads(LlamaCppRuntime):
    """The same cell with two threads."""

    def __init__(self, job: Job) -> None:
        decode = job.decode.model_copy(update={"threads": 2})
        super().__init__(job.model_copy(update={"decode": decode}))


class SmallBatches(LlamaCppRuntime):
    """The same cell, evaluating 32 tokens at a time."""

    batch = 32


@pytest.mark.parametrize("runtime", [TwoThreads, SmallBatches])
def test_threads_and_batches_are_never_weights(
    converted: Chain, runtime: type[LlamaCppRuntime]
) -> None:
    report = converted.run(Tampering(F32, runtime=runtime), runtime.__name__).report
    found = next(each for each in report.hops if each.hop.child == F32).split
    assert found is not None
    _, weights, numerics = means(found)
    assert weights == 0.0
    assert numerics < 1e-5
    assert report.findings == ()


def test_a_setting_that_a_runtime_ignores_is_found_as_its_arithmetic(tmp_path: Path) -> None:
    """mlx-lm 0.32.2 reads no `rope_parameters` for a Llama: nobody planted this (docs/drift.md)."""
    source = tmp_path / "checkpoint"
    source.mkdir()
    rope = {"rope_theta": 500000.0, "rope_type": "default"}
    small_checkpoint(CLERK, source, seed=5, num_hidden_layers=2, rope_parameters=rope)
    (tmp_path / "chain").mkdir()
    made = chain(tmp_path / "chain", Recipe(source, items(("sql",), 2), max_new_tokens=12))
    blamed = {(each.where, each.code, each.component) for each in made.healthy.report.findings}
    hop = "transformers/base/checkpoint → mlx/base/4bit"
    assert {each for each in blamed if each[2]} == {(hop, "numerics-high", "numerics")}


TABLE = {
    ("q8_0", "f32"): (4.8e-7, 0.0, 4.8e-7),
    ("q8_0", "q8_0"): (4.5e-4, 2.2e-4, 2.4e-4),
    ("q4_k_m", "q4_k_m"): (8.0e-3, 7.9e-3, 1.9e-4),
    ("q8_0", "8bit"): (1.8e-4, 1.8e-4, None),
    ("q4_k_m", "4bit"): (5.6e-2, 5.6e-2, None),
}
"""stories260k: mean KL from the reference over 87 positions, weights and numerics, two digits."""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chain]:
    golden = json.loads((Path(STORIES) / "golden.json").read_text())
    # 87 ids are forced: the prompt with BOS, 5, and all but the last of the 83 that follow.
    item = GoldenPrompt(
        evalset="stories", id="lily", prompt=golden["prompt"], max_new_tokens=88 - 5
    )
    bits = {"q8_0": (8, "8bit"), "q4_k_m": (4, "4bit")}
    return {
        quantization: chain(
            tmp_path_factory.mktemp(name),
            Recipe(
                Path(STORIES),
                (item,),
                quantization=quantization,
                mlx=MlxRecipe.model_validate({"bits": count, "group_size": 32}),
                mlx_name=name,
            ),
        )
        for quantization, (count, name) in bits.items()
    }


@pytest.mark.skipif(not STORIES, reason="STORIES260K does not name the checkpoint's folder")
@pytest.mark.parametrize(("made", "form"), list(TABLE))
def test_the_published_checkpoint_drifts_as_it_was_measured(
    stories: dict[str, Chain], made: str, form: str
) -> None:
    runtime = "mlx" if form.endswith("bit") else "llamacpp"
    cell = f"{runtime}/base/{form}"
    whole = next(each for each in stories[made].healthy.report.cells if each.cell == cell).drift
    assert whole is not None and whole.positions == 87
    _, weights, numerics = means(split(stories[made], cell))
    expected = TABLE[made, form]
    assert (two_digits(whole.kl_mean.value), two_digits(weights)) == expected[:2]
    if expected[2] is None:
        assert numerics < 1e-11
    else:
        assert two_digits(numerics) == expected[2]


def two_digits(value: float) -> float:
    return float(f"{value:.1e}")
