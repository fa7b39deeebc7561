"""params.yaml: what it means, and what is said when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.errors import InputError
from driftline.project import graph, params, plan
from driftline.project.routes import ROOT_CELL
from tests.params_data import with_runtimes
from tests.paths import ROOT


def project(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "source": {"path": "models/clerk"},
        "adapters": {"audit": {"path": "models/adapters/audit"}},
        "variants": ["base", "audit"],
        "evalsets": {"base": ["clauses"], "audit": ["audit"]},
        "merge": {"dtype": "float32"},
        "gguf": {"outtype": "f32", "quantizations": ["q8_0"]},
        "mlx": {"artifacts": ["4bit"], "recipes": {"4bit": {"bits": 4, "group_size": 64}}},
        "vllm": ["base"],
        "decode": {"max_new_tokens": 8, "context_length": 64},
        "distributions": {"top_k": 64, "corpora": {}},
        "limits": {"threads": 1},
    }
    return with_runtimes({**data, **changes})


def complaint(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        params.parse(project(**changes), where="params.yaml")
    return str(caught.value)


def test_the_embedded_default_is_valid() -> None:
    found = params.read(ROOT / "params.yaml")
    assert plan.plan(found)[0].id == ROOT_CELL


def test_every_cell_but_the_root_has_one_parent_that_comes_before_it() -> None:
    found = params.parse(project(), where="test")
    order = [spec.id for spec in plan.plan(found)]
    hops = graph.hops(found)
    assert sorted(hop.child for hop in hops) == sorted(order[1:])
    assert all(order.index(hop.parent) < order.index(hop.child) for hop in hops)


def test_hops_follow_the_conversions() -> None:
    found = params.parse(project(), where="test")
    kinds = {hop.child: (hop.parent, hop.kind) for hop in graph.hops(found)}
    assert kinds["transformers/audit/attached"] == (ROOT_CELL, "adapter")
    assert kinds["transformers/audit/checkpoint"] == ("transformers/audit/attached", "merge")
    assert kinds["llamacpp/audit/f32"] == ("transformers/audit/checkpoint", "convert")
    assert kinds["llamacpp/audit/q8_0"] == ("llamacpp/audit/f32", "quantize")
    assert kinds["mlx/base/4bit"] == (ROOT_CELL, "convert")
    assert kinds["vllm/base/checkpoint"] == (ROOT_CELL, "runtime")


def test_stage_names_are_those_dvc_knows() -> None:
    listed = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found = params.parse(project(), where="test")
    for cell in plan.planned(found):
        assert plan.stage(found, cell).partition("@")[0] in listed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"soruce": 1}, 'soruce: unknown key (did you mean "source"?)'),
        ({"gguf": {"outtype": "f32", "quantisations": []}}, '(did you mean "quantizations"?)'),
        ({"variants": ["base", "adit"]}, '"adit" is neither "base" nor an adapter (did you mean'),
        ({"source": {"path": "a", "repo": "b/c", "revision": "d"}}, 'needs either "path"'),
        ({"source": {"repo": "b/c"}}, '"repo" needs "revision"'),
        ({"mlx": {"artifacts": ["5bit"], "recipes": {}}}, '"5bit" has no recipe'),
        ({"mlx": {"artifacts": [], "recipes": {"x": {"bits": 4}}}}, '"bits" and "group_size"'),
        ({"decode": {"max_new_tokens": 0, "context_length": 9}}, "decode.max_new_tokens: "),
        ({"evalsets": {"base": ["clauses"]}}, 'variant "audit" has none'),
        ({"variants": ["base", "base"]}, "listed twice"),
        ({"decode": {"temperature": 0.7}}, "decode.temperature: unknown key"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**changes)


def test_all_mistakes_are_named_at_once() -> None:
    said = complaint(soruce=1, variants=3, limits={"threads": 0})
    assert "soruce" in said and "variants" in said and "limits.threads" in said


def test_the_gates_policy_is_no_part_of_what_evidence_was_made_with() -> None:
    found = params.parse(project(gate={"required": ["*"]}), where="test")
    assert found.gate == {"required": ["*"]}
    assert "gate" not in found.model_dump(mode="json")
    assert params.parse(found.model_dump(mode="json"), where="test").gate == {}
    assert "gate: " in complaint(gate=["*"])


def test_a_file_that_is_not_yaml_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("source: [")
    with pytest.raises(InputError, match="not YAML"):
        params.read(tmp_path / "params.yaml")


def test_an_unknown_cell_is_named_with_the_closest_one() -> None:
    found = params.parse(project(), where="test")
    with pytest.raises(InputError, match="did you mean"):
        plan.cell(found, "llamacpp", "audit", "q8")


OLD = {key: value for key, value in project().items() if key != "runtimes"}


def test_the_old_shape_is_refused_with_the_new_lines() -> None:
    with pytest.raises(InputError) as caught:
        params.parse({**OLD, "vllm": ["audit"]}, where="params.yaml")
    assert "vllm" in caught.value.message
    lines = caught.value.remedy.partition("write:\n")[2]
    assert lines.splitlines() == [
        "runtimes:",
        "  transformers: {variants: [audit]}",
        "  llamacpp: {variants: [base, audit]}",
        "  mlx: {variants: [base, audit]}",
        "  vllm: {variants: [audit]}",
    ]
    # The remedy works: with these lines instead of the key the file is right, and says the same.
    found = params.parse({**OLD, **yaml.safe_load(lines)}, where="params.yaml")
    assert found == params.parse(params.upgraded({**OLD, "vllm": ["audit"]}), where="evidence")


def test_parameters_in_todays_shape_are_left_as_they_are() -> None:
    assert params.upgraded(project()) == project()


def runs(**named: list[str]) -> dict[str, Any]:
    return {**project()["runtimes"], **{name: {"variants": v} for name, v in named.items()}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtimes": runs(vlm=[])}, 'no runtime "vlm" (did you mean "vllm"?)'),
        (
            {"runtimes": {k: v for k, v in runs().items() if k != "mlx"}},
            '"mlx" is missing; to run nothing there, write `mlx: {variants: []}`',
        ),
        ({"runtimes": runs(mlx=["adit"])}, 'runtimes.mlx.variants: "adit" is neither'),
        ({"runtimes": runs(vllm=["base", "base"])}, "runtimes.vllm.variants: a name is listed"),
        ({"runtimes": runs(transformers=["base", "audit"])}, '"base" is always scored there'),
        (
            {"runtimes": runs(transformers=[])},
            '"audit" is compared with its cell in transformers: add it to '
            "runtimes.transformers.variants",
        ),
        (
            {"variants": ["base"], "runtimes": runs(llamacpp=["audit"])},
            'runtimes.llamacpp.variants: "audit" is not converted: add it to "variants"',
        ),
    ],
)
def test_what_runs_where_is_checked(changes: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**changes)


def test_a_variant_runs_only_where_it_is_named() -> None:
    found = params.parse(project(runtimes=runs(mlx=["audit"], llamacpp=[])), where="test")
    cells = [spec.id for spec in plan.plan(found)]
    assert [cell for cell in cells if cell.startswith("mlx/")] == ["mlx/audit/4bit"]
    assert not [cell for cell in cells if cell.startswith("llamacpp/")]
