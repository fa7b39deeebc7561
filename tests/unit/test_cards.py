"""Hub cards: the Hub's own client reads back what the release says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load

from driftline.project import params
from driftline.project.sections.location import Location
from driftline.project.sections.runtimes import RuntimeSettings
from driftline.release.cards import cards
from driftline.schema.cells import Outcome
from driftline.schema.release import ReleaseRecord
from tests.unit.release_evidence import HUB, MLX, Q8, SMALL, VLLM, made, released

SKIPPED = Outcome(state="skipped", kind="missing", reason="no package", remedy="pip install x")
UNSTABLE = Outcome(state="unstable", reason="1 of 4 answers differ on repeat")
STATES: Any = {Q8: {"pods/p-0": "wrong"}}
LOCAL_ADAPTER = HUB.model_copy(update={"adapters": {"audit": Location(path="models/a")}})
LOCAL_SOURCE = HUB.model_copy(update={"source": SMALL.source})


def loaded(record: ReleaseRecord, name: str, folder: Path) -> Any:
    """A card as the Hub's client reads it."""
    path = folder / "README.md"
    path.write_text(cards(record)[f"{name}.md"], encoding="utf-8")
    return ModelCard.load(path)


def test_every_shipped_artifact_has_a_card() -> None:
    assert set(cards(released())) == {
        "checkpoints/audit.md",
        *(
            f"{kind}/{variant}/{form}.md"
            for variant in ("base", "audit")
            for kind, form in (("gguf", "f32"), ("gguf", "q8_0"), ("mlx", "4bit"))
        ),
    }


@pytest.mark.parametrize(
    ("project", "artifact", "base", "relation"),
    [
        (HUB, "gguf/base/q8_0", "acme/clerk", "quantized"),
        (HUB, "mlx/base/4bit", "acme/clerk", "quantized"),
        (HUB, "gguf/base/f32", "acme/clerk", None),
        (HUB, "checkpoints/audit", ["acme/clerk", "acme/audit"], "merge"),
        (HUB, "gguf/audit/q8_0", ["acme/clerk", "acme/audit"], "merge"),
        (LOCAL_ADAPTER, "checkpoints/audit", "acme/clerk", "finetune"),
        (LOCAL_ADAPTER, "gguf/audit/q8_0", "acme/clerk", "finetune"),
        (LOCAL_SOURCE, "checkpoints/audit", None, None),
        (LOCAL_SOURCE, "gguf/base/q8_0", None, None),
        (SMALL, "gguf/base/q8_0", None, None),
    ],
)
def test_it_names_the_repositories_it_descends_from_and_how(
    project: params.Params, artifact: str, base: Any, relation: str | None, tmp_path: Path
) -> None:
    record = released(made(project))
    card = loaded(record, artifact, tmp_path)
    assert card.data.base_model == base
    assert card.data.get("base_model_relation") == relation
    assert ("base_model is left out" in card.text) == (base is None)


def test_the_hubs_client_reads_the_scores_back(tmp_path: Path) -> None:
    record = released(made(HUB, states=STATES))
    card = loaded(record, "gguf/base/q8_0", tmp_path)
    (result,) = card.data.eval_results
    pods = next(each for each in record.evalsets if each.name == "pods")
    assert result.metric_value == 0.75
    assert (result.metric_type, result.metric_config) == ("accuracy", Q8)
    assert (result.dataset_name, result.dataset_revision) == ("pods", pods.sha256)
    assert (card.data.library_name, card.data.pipeline_tag) == ("gguf", "text-generation")
    # and what it would write again is what is there
    front = cards(record)["gguf/base/q8_0.md"].split("---\n")[1]
    assert yaml.safe_load(card.data.to_yaml(line_break="\n")) == yaml.safe_load(front)
    assert metadata_load(tmp_path / "README.md") == yaml.safe_load(front)


def test_each_runtime_of_an_artifact_is_a_result_of_its_own(tmp_path: Path) -> None:
    project = SMALL.model_copy(
        update={"runtimes": {**SMALL.runtimes, "vllm": RuntimeSettings(variants=("base", "audit"))}}
    )
    card = loaded(released(made(project)), "checkpoints/audit", tmp_path)
    cells = [result.metric_config for result in card.data.eval_results]
    assert cells == ["transformers/audit/checkpoint", "vllm/audit/checkpoint"]


def test_what_did_not_run_has_no_score_and_says_so(tmp_path: Path) -> None:
    record = released(made(outcomes={MLX: SKIPPED, VLLM: SKIPPED}))
    card = loaded(record, "mlx/base/4bit", tmp_path)
    assert card.data.eval_results is None and "model-index" not in card.content
    assert f"No score: `{MLX}` ended skipped." in card.text


def test_an_unstable_cell_is_said_to_be(tmp_path: Path) -> None:
    card = loaded(released(made(outcomes={Q8: UNSTABLE})), "gguf/base/q8_0", tmp_path)
    assert f"| `{Q8}`, unstable | `pods` | 4 | 4 |" in card.text


def test_it_says_what_is_in_the_files_and_how_to_check_them() -> None:
    record = released()
    for artifact in record.artifacts:
        card = cards(record).get(f"{artifact.name}.md")
        if card is not None:
            assert f"| identity (dirHash) | `{artifact.identity}` |" in card
            listing = "".join(f"{file.sha256}  {file.path}\n" for file in artifact.files)
            assert f"\n{listing}" in card
            assert record.commit in card and f"Release `{record.name}`" in card


@pytest.mark.parametrize(
    "text", ["```\n# x", "---\nlicense: mit\n---", "<script>", "\x1b[31m", "–"]
)
def test_words_that_came_with_a_checkpoint_stay_inside_ascii_json(
    text: str, tmp_path: Path
) -> None:
    changes: Any = {"gguf/base/q8_0": {"tool": text, "arguments": {text: text}, "notes": (text,)}}
    record = released(made(HUB, changes=changes))
    plain = released(made(HUB))
    card = loaded(record, "gguf/base/q8_0", tmp_path)
    assert card.data.to_dict() == loaded(plain, "gguf/base/q8_0", tmp_path).data.to_dict()
    before, _, rest = card.text.partition("```json\n")
    told, _, after = rest.partition("\n```\n")
    assert yaml.safe_load(told)["arguments"] == {text: text}
    assert told.isascii() and text not in before + after
