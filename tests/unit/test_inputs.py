"""One changed input is named, and nothing else; what it explains is traced back to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from driftline.compare import checkpoints, inputs
from driftline.compare.inputs import Inputs
from driftline.compare.software import environment_differences
from driftline.errors import RefusedError
from driftline.evidence import chain
from driftline.evidence.lineage import Evidence
from driftline.schema.comparison import Detail, InputChange
from tests.unit.lineage_trees import ADAPTER, PROJECT, SOURCE, Folder, World, templated

WORLD = World()
BASE = WORLD.evidence()

MLX = PROJECT.mlx.model_dump(mode="json")
RECIPES = MLX["recipes"]
GGUF = PROJECT.gguf.model_dump(mode="json")
DECODE = PROJECT.decode.model_dump(mode="json")
DISTRIBUTIONS = PROJECT.distributions.model_dump(mode="json")
LIMITS = PROJECT.limits.model_dump(mode="json")
CORPUS = DISTRIBUTIONS["corpora"]["notes"]


def metadata(folder: Folder, **fields: str | None) -> Folder:
    """A folder with other fields; None removes one. `__` stands for the colon."""
    named = {name.replace("__", ":").replace("_json", ".json"): v for name, v in fields.items()}
    merged = {**folder.metadata, **named}
    return replace(folder, metadata={k: v for k, v in merged.items() if v is not None})


def items(**changes: str | None) -> World:
    """The world with other items in `clauses`; None removes one. `_` stands for the hyphen."""
    named = {name.replace("_", "-"): text for name, text in changes.items()}
    merged = {**WORLD.items["clauses"], **named}
    kept = {name: text for name, text in merged.items() if text is not None}
    return WORLD.but(items={**WORLD.items, "clauses": kept})


def adapter(folder: Folder) -> World:
    return WORLD.but(adapters={"audit": folder})


LORA_ALPHA = metadata(ADAPTER, adapter_config_json__lora_alpha="32")
OTHER_WEIGHTS = replace(SOURCE, tensors={**SOURCE.tensors, "layer.3.weight": "other"})
MANY_WEIGHTS = replace(SOURCE, tensors=dict.fromkeys(SOURCE.tensors, "other"))
TOKENIZER = replace(SOURCE, metadata={**SOURCE.metadata, "tokenizer.model": "sha256 other"})

ONE_LESS = {
    **WORLD.project.model_dump(mode="json")["runtimes"],
    "mlx": {"variants": ["audit"]},
}
ONE_THING: dict[str, tuple[World, str, tuple[str, ...]]] = {
    "weights": (WORLD.but(source=OTHER_WEIGHTS), "source weights", ("1 of 5 tensors: layer.3",)),
    "all weights": (WORLD.but(source=MANY_WEIGHTS), "source weights", ("… (2 more)",)),
    "tokenizer": (WORLD.but(source=TOKENIZER), "source tokenizer", ("tokenizer.model sha256",)),
    "template": (WORLD.but(source=templated("other")), "source template", ("chat_template.jinja",)),
    "config": (
        WORLD.but(source=metadata(SOURCE, config_json__rms_norm_eps="1e-06")),
        "source config",
        ("config.json:rms_norm_eps 1e-05 → 1e-06",),
    ),
    "a new config field": (
        WORLD.but(source=metadata(SOURCE, config_json__rope="{}")),
        "source config",
        ("+config.json:rope {}",),
    ),
    "only bytes of a file": (
        WORLD.but(bytes_of={"files of checkpoints/base": "padding"}),
        "source files",
        ("changed file model",),
    ),
    "source location": (
        WORLD.params(source={"path": "elsewhere/clerk"}),
        "source location",
        (),
    ),
    "adapter alpha": (
        adapter(LORA_ALPHA),
        "adapter audit",
        ("adapter_config.json:lora_alpha 16 → 32",),
    ),
    "adapter weights": (
        adapter(replace(ADAPTER, tensors=dict.fromkeys(ADAPTER.tensors, "b"))),
        "adapter audit",
        ("4 of 4 tensors: layer.0.lora_A.weight",),
    ),
    "adapter location": (
        WORLD.params(adapters={"audit": {"path": "elsewhere"}}),
        "adapter location audit",
        (),
    ),
    "merge": (WORLD.params(merge={"dtype": "bfloat16"}), "merge settings dtype", ()),
    "outtype": (WORLD.params(gguf={**GGUF, "outtype": "f16"}), "gguf outtype", ()),
    "a quantization more": (
        WORLD.params(gguf={**GGUF, "quantizations": ["q8_0", "q4_k_m"]}),
        "quantization q4_k_m",
        (),
    ),
    "recipe": (
        WORLD.params(mlx={**MLX, "recipes": {**RECIPES, "4bit": {"bits": 4, "group_size": 32}}}),
        "mlx recipe 4bit",
        ("group_size 64 → 32",),
    ),
    "a recipe more": (
        WORLD.params(mlx={**MLX, "artifacts": ["4bit", "8bit"]}),
        "mlx recipe 8bit",
        (),
    ),
    "runs elsewhere": (WORLD.params(runtimes=ONE_LESS), "runs in mlx", ("−base",)),
    "runs in": (WORLD.params(vllm=[]), "runs in vllm", ("−audit",)),
    "decode": (WORLD.params(decode={**DECODE, "max_new_tokens": 32}), "decode max_new_tokens", ()),
    "top k": (
        WORLD.params(distributions={**DISTRIBUTIONS, "top_k": 32}),
        "distributions top_k",
        (),
    ),
    "threads": (WORLD.params(limits={**LIMITS, "threads": 2}), "threads", ()),
    "item more": (items(c_99="new"), "evalset clauses", ("+c-99",)),
    "item less": (items(c_03=None), "evalset clauses", ("−c-03",)),
    "item changed": (items(c_03="other", c_01="more"), "evalset clauses", ("c-01 ", "c-03 ")),
    "items in another order": (
        WORLD.but(
            items={**WORLD.items, "clauses": dict(list(WORLD.items["clauses"].items())[::-1])}
        ),
        "evalset clauses",
        ("the same items in another order",),
    ),
    "asked": (
        WORLD.params(evalsets={"base": ["clauses", "audit"], "audit": ["audit"]}),
        "evalset audit",
        ("+asked of base",),
    ),
    "corpus text": (WORLD.but(corpora={"notes": "another"}), "corpus notes", ("text ",)),
    "corpus window": (
        WORLD.params(
            distributions={**DISTRIBUTIONS, "corpora": {"notes": {**CORPUS, "window": 32}}}
        ),
        "corpus notes",
        ("window 64 → 32",),
    ),
    "package": (
        WORLD.but(packages={"transformers": "5.1"}),
        "package transformers",
        ("touches convert mlx, merge, mlx cells, transformers cells, vllm cells",),
    ),
    "package in one runtime": (
        WORLD.but(packages={"transformers in vllm": "4.9"}),
        "package transformers",
        ("touches vllm cells",),
    ),
    "rebuilt package": (WORLD.but(packages={"torch": "1.0+rebuilt"}), "package torch", ()),
    "converter": (
        WORLD.but(converter="other"),
        "package llama_cpp_python",
        ("GGUF converter", "touches convert gguf, llamacpp cells, quantize"),
    ),
    "python": (WORLD.but(machine={**WORLD.machine, "python": "3.12.1"}), "package python", ()),
    "runtime missing": (
        WORLD.but(missing={"vllm": "no .venv-vllm"}),
        "runtime vllm",
        (),
    ),
    "cpu": (
        WORLD.but(machine={**WORLD.machine, "cpu_features": ["avx2", "sve"]}),
        "hardware",
        ("−fma", "+sve"),
    ),
    "cpu name": (
        WORLD.but(machine={**WORLD.machine, "cpu": "Mustermann 9000"}),
        "hardware",
        ("+cpu Mustermann 9000",),
    ),
    "code": (WORLD.but(code={"quantize": "edited"}), "driftline code quantize", ()),
    "code of a runtime": (WORLD.but(code={"score_mlx": "edited"}), "driftline code score_mlx", ()),
}


@pytest.mark.parametrize("what", ONE_THING)
def test_one_changed_input_is_named_and_no_other(what: str) -> None:
    world, label, lines = ONE_THING[what]
    changed = world.evidence()
    assert list(chain.faults(changed)) == []
    (found,) = inputs.changes(BASE, changed)
    assert found.label == label
    text = "\n".join(detail.line for detail in found.details)
    for line in lines:
        assert line in text, text
    assert found.before != found.after or found.details


@pytest.mark.parametrize("what", ONE_THING)
def test_swapping_the_two_swaps_before_and_after(what: str) -> None:
    changed = ONE_THING[what][0].evidence()
    there, back = inputs.changes(BASE, changed), inputs.changes(changed, BASE)
    assert [swapped(change) for change in there] == list(back)


def swapped(change: InputChange) -> InputChange:
    details = (Detail(what=d.what, before=d.after, after=d.before) for d in change.details)
    return change.model_copy(
        update={"before": change.after, "after": change.before, "details": tuple(details)}
    )


@pytest.mark.parametrize("what", ONE_THING)
def test_nothing_differs_from_itself(what: str) -> None:
    world = ONE_THING[what][0]
    assert inputs.changes(world.evidence(), world.evidence()) == ()
    assert inputs.consequences(world.evidence(), world.evidence()) == ()


@pytest.mark.parametrize("what", ONE_THING)
def test_everything_that_follows_is_traced_to_that_input(what: str) -> None:
    world, label, _ = ONE_THING[what]
    for found in inputs.consequences(BASE, world.evidence()):
        if found.before and found.after:
            assert found.because == (label,), found.name


def changed_artifacts(world: World) -> set[str]:
    found = inputs.consequences(BASE, world.evidence())
    return {each.name for each in found if each.kind == "artifact"}


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("recipe", {"mlx/base/4bit", "mlx/audit/4bit"}),
        ("package", set()),
        ("code", set()),
        ("cpu", set()),
        ("a quantization more", {"gguf/base/q4_k_m", "gguf/audit/q4_k_m"}),
        (
            "adapter alpha",
            {
                *("adapters/audit", "checkpoints/audit", "gguf/audit/f32"),
                *("gguf/audit/q8_0", "mlx/audit/4bit"),
            },
        ),
    ],
)
def test_what_follows_is_what_was_made_from_it(what: str, names: set[str]) -> None:
    assert changed_artifacts(ONE_THING[what][0]) == names


def test_a_template_renders_every_prompt_anew_and_no_item_is_said_to_have_changed() -> None:
    found = inputs.consequences(BASE, ONE_THING["template"][0].evidence())
    prompts = {each.name: each.because for each in found if each.kind == "prompts"}
    assert prompts == {
        "clauses: 12 of 12 prompts": ("source template",),
        "audit: 12 of 12 prompts": ("source template",),
    }


def test_prompts_that_nothing_explains_are_unexplained() -> None:
    found = inputs.consequences(BASE, WORLD.but(prompt=lambda text: text.upper()).evidence())
    assert [(each.kind, each.because) for each in found] == [("prompts", ()), ("prompts", ())]


# -- unexplained -----------------------------------------------------------------------------------


def traced(before: Evidence, after: Evidence) -> dict[str, tuple[str, ...]]:
    return {each.name: each.because for each in inputs.consequences(before, after)}


def test_the_same_inputs_with_other_bytes_are_unexplained() -> None:
    odd = WORLD.but(bytes_of={"gguf/base/f32": "x"}).evidence()
    assert inputs.changes(BASE, odd) == ()
    assert traced(BASE, odd) == {
        "gguf/base/f32": (),
        "gguf/base/q8_0": ("gguf/base/f32 (unexplained)",),
    }


@pytest.mark.parametrize(
    ("explained", "label"),
    [
        ({"packages": {"llama_cpp_python": "2.0"}}, "package llama_cpp_python"),
        ({"code": {"convert_gguf": "edited"}}, "driftline code convert_gguf"),
        ({"machine": {**WORLD.machine, "cpu_features": ["sve"]}}, "hardware"),
    ],
)
def test_other_bytes_after_a_recorded_change_are_explained_by_it(
    explained: dict[str, Any], label: str
) -> None:
    odd = WORLD.but(bytes_of={"gguf/base/f32": "x"}, **explained).evidence()
    found = traced(BASE, odd)
    assert found["gguf/base/f32"] == found["gguf/base/q8_0"] == (label,)


def test_a_change_elsewhere_explains_nothing() -> None:
    odd = WORLD.but(bytes_of={"gguf/base/f32": "x"}, packages={"mlx": "2.0"}).evidence()
    assert traced(BASE, odd)["gguf/base/f32"] == ()


def at_commit(commit: str, folder: Folder = SOURCE) -> World:
    return WORLD.params(source={"repo": "a/b", "revision": commit * 40}).but(source=folder)


def test_a_hub_revision_that_gives_other_bytes_is_unexplained() -> None:
    before, after = at_commit("0").evidence(), at_commit("0", OTHER_WEIGHTS).evidence()
    assert [change.label for change in inputs.changes(before, after)] == ["source weights"]
    assert traced(before, after)["checkpoints/base"] == ()


def test_another_hub_revision_is_a_detail_of_what_it_changed() -> None:
    before, after = at_commit("0").evidence(), at_commit("1", OTHER_WEIGHTS).evidence()
    (found,) = inputs.changes(before, after)
    assert found.label == "source weights"
    assert found.details[0].line == "location a/b@000000000000 → a/b@111111111111"
    assert traced(before, after)["checkpoints/base"] == ("source weights",)


# -- several at once, and the edges ---------------------------------------------------------------


def labels(world: World, before: Evidence = BASE) -> list[str]:
    return [change.label for change in inputs.changes(before, world.evidence())]


def test_several_are_all_named_in_a_fixed_order() -> None:
    world = WORLD.params(merge={"dtype": "float16"}, decode={**DECODE, "context_length": 256}).but(
        source=templated("other"), packages={"mlx": "2.0", "torch": "2.0"}, code={"grade": "x"}
    )
    assert labels(world) == [
        "source template",
        "merge settings dtype",
        "decode context_length",
        "package mlx",
        "package torch",
        "driftline code grade",
    ]


def test_a_package_that_moved_differently_in_two_runtimes_is_one_change() -> None:
    world = WORLD.but(packages={"transformers": "5.1", "transformers in vllm": "4.9"})
    (found,) = inputs.changes(BASE, world.evidence())
    assert (found.before, found.after) == ("1.0", "4.9, 5.1")
    lines = [detail.line for detail in found.details]
    assert "in mlx, transformers 1.0 → 5.1" in lines and "in vllm 1.0 → 4.9" in lines


def test_a_rebuilt_package_says_so_by_its_files() -> None:
    (found,) = inputs.changes(BASE, ONE_THING["rebuilt package"][0].evidence())
    assert found.before.startswith("1.0 (files ") and found.after.startswith("1.0 (files ")
    assert found.before != found.after


def test_a_variant_less_is_named_with_the_runtimes_that_ran_it() -> None:
    assert labels(WORLD.params(variants=["audit"])) == [
        "variants",
        "runs in llamacpp",
        "runs in mlx",
    ]


def test_an_added_adapter_and_its_evalset() -> None:
    evalsets = {"base": ["clauses"], "audit": ["audit"], "more": ["audit"]}
    both = {"audit": ADAPTER, "more": ADAPTER}
    paths = {name: {"path": f"models/adapters/{name}"} for name in both}
    world = WORLD.params(adapters=paths, evalsets=evalsets).but(adapters=both)
    (found,) = inputs.changes(BASE, world.evidence())
    assert (found.label, found.before) == ("adapter more", "")
    assert [detail.line for detail in found.details] == ["+location models/adapters/more"]


def test_an_added_evalset() -> None:
    evalsets = {"base": ["clauses", "new"], "audit": ["audit"]}
    world = WORLD.params(evalsets=evalsets).but(items={**WORLD.items, "new": {"n-1": "q"}})
    (found,) = inputs.changes(BASE, world.evidence())
    assert (found.label, found.before) == ("evalset new", "")
    assert found.after.startswith("1 item, ")
    assert [detail.line for detail in found.details] == ["+asked of base"]


def test_a_recipe_that_no_artifact_is_made_by_is_no_input() -> None:
    recipes = {**RECIPES, "8bit": {"bits": 8, "group_size": 32}}
    assert labels(WORLD.params(mlx={**MLX, "recipes": recipes})) == []


@pytest.mark.parametrize("stage", ["lineage", "report"])
def test_code_that_makes_no_result_is_no_input(stage: str) -> None:
    assert labels(WORLD.but(code={stage: "edited"})) == []


@pytest.mark.parametrize(
    ("stage", "project"),
    [
        ("score_vllm", {"vllm": []}),
        ("convert_mlx", {"mlx": {"artifacts": [], "recipes": {}}}),
        ("quantize", {"gguf": {"outtype": "f32", "quantizations": []}}),
    ],
)
def test_code_of_a_stage_that_made_nothing_is_no_input(stage: str, project: dict[str, Any]) -> None:
    without = WORLD.params(**project)
    assert labels(without.but(code={stage: "edited"}), without.evidence()) == []
    assert f"driftline code {stage}" in labels(WORLD.but(code={stage: "edited"}))


def test_limits_that_change_no_result_are_no_input() -> None:
    assert labels(WORLD.params(limits={**LIMITS, "deadline_s": 7, "workers": 1})) == []


def with_params(**changes: Any) -> Evidence:
    """The same evidence with other keys in the index alone."""
    index = BASE.index.model_copy(update={"params": {**BASE.index.params, **changes}})
    return replace(BASE, index=index)


def test_a_section_nobody_knows_is_still_named() -> None:
    (found,) = inputs.changes(BASE, with_params(ollama={"host": "there"}))
    assert (found.label, found.before, found.after) == ("params ollama.host", "", "there")


def test_threads_are_an_input_though_no_environment_says_so() -> None:
    (found,) = inputs.changes(BASE, with_params(limits={"threads": 2}))
    assert (found.label, found.before, found.after) == ("threads", "1", "2")


def test_the_same_tensors_in_other_files() -> None:
    """As after resharding: other tensor lines, the same tensors."""
    found = checkpoints._tensors(BASE.tensors("checkpoints/base"), BASE.tensors("checkpoints/base"))
    assert [detail.what for detail in found] == [
        "the same tensors, in other files or another order"
    ]


def test_tensors_stored_as_another_type() -> None:
    old = BASE.tensors("checkpoints/base")
    new = [tensor.model_copy(update={"dtype": "BF16"}) for tensor in old]
    lines = [detail.line for detail in checkpoints._tensors(old, new)]
    assert lines[1] == "stored as F32 → BF16"


def test_a_missing_environment_file_is_refused() -> None:
    tree = ONE_THING["package"][0].tree()
    broken = replace(ONE_THING["package"][0].evidence(), tree=tree)
    for path in [path for path in tree.files if path.startswith("environments/")]:
        del tree.files[path]
    with pytest.raises(RefusedError, match="is not among the evidence"):
        inputs.changes(BASE, broken)


def test_only_listings_that_differ_are_read() -> None:
    other = ONE_THING["adapter alpha"][0]
    trees = WORLD.tree(), other.tree()
    found = Inputs(replace(BASE, tree=trees[0]), replace(other.evidence(), tree=trees[1]))
    assert found.consequences and found.changes
    assert trees[0].was_read == trees[1].was_read == []


@pytest.mark.parametrize(
    ("old", "new", "keys"),
    [
        ({"missing": "no x"}, {"missing": "no x", "install": "other"}, []),
        ({"missing": "no x"}, {"missing": "no y"}, [("runtime", "mlx")]),
        ({"distributions": {"a": {"version": "1"}}}, {"distributions": {}}, [("package", "a")]),
        ({"threads": 1}, {"threads": 2}, [("threads", "")]),
        ({"device": "cpu"}, {"device": "gpu"}, [("hardware", "")]),
        ({}, {"cpu": ""}, []),
        ({}, {"cpu": "Mustermann 9000"}, [("hardware", "")]),
        ({"cpu_features": ["a", "b"]}, {"cpu_features": ["b", "a"]}, []),
    ],
)
def test_two_environments(old: dict[str, Any], new: dict[str, Any], keys: list[Any]) -> None:
    found = environment_differences({"runtime": "mlx", **old}, {"runtime": "mlx", **new})
    assert list(found) == keys
