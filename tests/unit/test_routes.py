"""The one table: dvc.yaml holds to it, everything derived follows, a package can add to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import yaml

from driftline.errors import InputError
from driftline.probe import closure
from driftline.project import graph, params, plan, routes, tasks
from driftline.project.routes import CONVERSIONS, FORMATS, ROUTES, Route
from driftline.runtimes import registry
from tests import factories
from tests.paths import ROOT

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PROJECT = factories.project()
ROW = ROUTES[-1]


def body(stage: str) -> dict[str, Any]:
    found: dict[str, Any] = STAGES[stage].get("do", STAGES[stage])
    return found


def of_variant(row: Route) -> str:
    """How a stage of dvc.yaml says its variant."""
    if row.scope == "source":
        return "base"
    return "${item}" if "foreach" in STAGES[row.stage] else "${item.variant}"


def form_of(row: Route) -> str:
    """How it says its form: the name, the value of params.yaml, or an item of the matrix."""
    if not routes.is_place(row.forms):
        return row.forms
    matrix = STAGES[row.stage].get("matrix", {})
    over = [name for name, values in matrix.items() if values == row.forms]
    return f"${{item.{over[0]}}}" if over else row.forms


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: row.stage)
def test_a_score_stage_of_dvc_yaml_is_its_row(row: Route) -> None:
    stage, variant, form = body(row.stage), of_variant(row), form_of(row)
    cell = f"{row.runtime}/{variant}/{form}"
    assert stage["cmd"] == f"python -m driftline.stages.score {cell.replace('/', ' ')}"
    source = FORMATS[row.format].artifact("base" if row.adapter else variant, form)
    assert {
        f"artifacts/code/score_{row.runtime}",
        f"artifacts/tasks/{cell}.json",
        f"artifacts/attempts/{cell}",
        f"artifacts/env/{row.runtime}.json",
        f"artifacts/{source}",
    } <= set(stage["deps"])
    assert f"artifacts/cells/{cell}" in stage["outs"]
    assert (f"artifacts/texts/{variant}" in stage["outs"]) == row.writes_text
    over = f"${{runtimes.{row.runtime}.variants}}"
    if row.scope != "source":
        given = STAGES[row.stage]
        assert over in (given.get("foreach"), given.get("matrix", {}).get("variant"))


def test_every_stage_that_scores_or_converts_has_its_row() -> None:
    scoring = {name for name in STAGES if "stages.score " in body(name)["cmd"]}
    assert scoring == {row.stage for row in ROUTES}
    converting = {body(name)["cmd"].split()[2].rpartition(".")[2] for name in STAGES}
    assert {row.stage for row in CONVERSIONS} <= converting


def test_a_counterfactual_stage_is_there_for_each_route_that_needs_one() -> None:
    wanted = {(row.runtime, row.forms) for row in ROUTES if row.weights == "counterfactual"}
    found = set()
    for name in STAGES:
        words = body(name)["cmd"].split()
        if words[2].endswith(".counterfactual") and words[3] != "merged":
            matrix = STAGES[name]["matrix"]
            inner = re.fullmatch(r"\$\{item\.(\w+)\}", words[5])
            found.add((words[3], matrix[inner[1]] if inner else words[5]))
    assert found == wanted


def test_classes_named_by_the_table_are_there() -> None:
    for row in ROUTES:
        kind = registry.resolve(row.target)
        assert kind.software.distributions and kind.software.install
        assert kind.capabilities.adapters or not row.adapter
    for name in closure.code_names():
        assert closure.code_of_stages()[name], name


def test_the_table_says_once_what_exists() -> None:
    assert len({row.stage for row in ROUTES}) == len(ROUTES)
    assert len({(row.runtime, row.forms, row.scope) for row in ROUTES}) == len(ROUTES)
    assert {row.format for row in ROUTES} == set(FORMATS)
    assert ROUTES[0].parent is None and all(row.parent for row in ROUTES[1:])


def test_a_task_holds_all_that_a_cell_reads() -> None:
    for cell in plan.planned(PROJECT):
        task = tasks.of(PROJECT, cell)
        assert task.inputs[0] == cell.spec.artifact_name
        own = cell.spec.id == plan.reference(PROJECT, cell.spec.variant)
        assert task.writes_text == own
        assert ("prompts/corpora.json" in task.inputs) == own
        assert (f"texts/{cell.spec.variant}" in task.inputs) != own
    assert len(tasks.all_of(PROJECT)) == len(plan.plan(PROJECT)) == 26


def test_a_task_says_nothing_of_other_runtimes() -> None:
    """So that a new runtime, format or key of params.yaml re-scores nothing."""
    less = factories.project(vllm=[], gguf={"outtype": "f32", "quantizations": []})
    before = {task.cell.id: task for task in tasks.all_of(PROJECT)}
    after = tasks.all_of(less)
    assert all(before[task.cell.id] == task for task in after) and len(after) == 14


# --------------------------------------------------------------------- what packages add


def brought(value: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[EntryPoint]:
    monkeypatch.setattr(f"{__name__}.BROUGHT", value, raising=False)
    yield EntryPoint("twin", f"{__name__}:BROUGHT", routes.ENTRY_POINTS)


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def adding(value: object) -> tuple[Route, ...]:
        points = list(brought(value, monkeypatch))
        monkeypatch.setattr(routes, "entry_points", lambda group: points)
        routes.routes.cache_clear()
        return routes.routes()

    yield adding
    monkeypatch.undo()
    routes.routes.cache_clear()


def test_a_package_adds_a_route_and_its_cells_come_last(add: Any) -> None:
    twin = Route(**{**vars(ROW), "runtime": "twin", "stage": "score_twin"})
    assert add(twin)[-1] == twin == add((twin,))[-1]
    data = PROJECT.model_dump(mode="json")
    project = params.parse(
        {**data, "runtimes": {**data["runtimes"], "twin": {"variants": ["audit"]}}}, where="test"
    )
    assert [spec.id for spec in plan.plan(project)][-1] == "twin/audit/checkpoint"
    assert graph.hops(project)[-1].name.endswith("→ twin/audit/checkpoint")
    assert graph.hops(project)[:-1] == graph.hops(PROJECT)
    assert "twin" in routes.movable()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (ROW, "a route of vllm over checkpoint of format checkpoint, which is there already"),
        (
            Route(**{**vars(ROW), "runtime": "twin", "format": "onnx"}),
            "format onnx, which is there already or has no format",
        ),
        ("vllm", "is str, expected a driftline.project.routes.Route"),
    ],
)
def test_what_a_package_brings_is_checked(add: Any, value: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        add(value)
    assert said in str(caught.value) and "twin" in str(caught.value)


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("odd", "no_such_module_at_all:ROUTE", routes.ENTRY_POINTS)
    monkeypatch.setattr(routes, "entry_points", lambda group: [point])
    routes.routes.cache_clear()
    with pytest.raises(InputError, match=r"entry point odd .* ModuleNotFoundError") as caught:
        routes.routes()
    assert "no_such_module_at_all:ROUTE" in caught.value.remedy
    monkeypatch.undo()
    routes.routes.cache_clear()


# ------------------------------------------------------------------- who knows a name

KNOWS = ("runtimes/", "conversions/", "counterfactual/", "project/routes.py")
"""Where runtimes and formats are, and the table."""
MAY_KNOW = {
    "stages/": "a stage is of one tool: convert_gguf, quantize, convert_mlx, merge",
    "project/params.py": "the two sections that are called so",
    "faults/": "a fault is planted in one tool's file or loop, in a cell that is named",
    "golden/prompts.py": "the source's own tokenizer is a Transformers one",
    "budget/swapping.py": "the reference runtime's model, as in counterfactual/",
    "cli.py": "`fetch-converter` is a command of one tool",
    "compare/inputs.py": "packages whose version decides how a prompt is pinned",
    "compare/software.py": "the package whose source the converter is taken from",
    "schema/gate.py": "the default policy names cells, as a user's own does",
    "starter/": "packages that a new project installs",
    "store/facts.py": "a file's ending says how its header is read",
    "store/gguf_header.py": "reads that header",
}
"""What else names one, and why it may."""
NAMES = re.compile(r"\b(transformers|llamacpp|llama_cpp\w*|vllm|mlx|gguf)\b")


def naming() -> Iterator[tuple[str, int, str]]:
    """Every line of code that names a runtime or a format: not comments, not docstrings."""
    for path in sorted((ROOT / "pipeline" / "driftline").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {
            node.value.lineno + offset
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            for offset in range((node.value.end_lineno or 0) - node.value.lineno + 1)
        }
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            said = line.partition("  #")[0]
            if number not in prose and not said.lstrip().startswith("#") and NAMES.search(said):
                yield path.relative_to(ROOT / "pipeline" / "driftline").as_posix(), number, line


def test_nothing_outside_the_table_names_a_runtime_or_a_format_without_a_reason() -> None:
    outside = [each for each in naming() if not each[0].startswith(KNOWS)]
    unexplained = [each for each in outside if not each[0].startswith(tuple(MAY_KNOW))]
    assert unexplained == []
    for place in MAY_KNOW:
        assert any(path.startswith(place) for path, _, _ in outside), f"{place} names none"
