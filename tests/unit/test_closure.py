"""The cache policy: code under `deps` is exact, and imports only point down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from driftline.probe import closure
from driftline.project import routes
from tests.paths import ROOT

PIPELINE = ROOT / "pipeline" / "driftline"

# Lower layers first: a module imports from its own layer only where that is listed as allowed.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "errors", "files", "progress"),
    ("schema",),
    ("project",),
    ("store",),
    ("golden", "starter"),
    ("runtimes", "conversions", "drift"),
    ("counterfactual",),
    ("probe",),
    ("evidence",),
    ("verify", "compare"),
    ("machines", "gate"),
    ("bisect", "report"),
    ("release", "budget", "publish"),
    ("stages", "faults"),
    ("commands",),
    ("cli",),
)
"""Rooms by floor, lowest first; a module imports from its own room and from lower floors."""


def layer_of(path: Path) -> tuple[int, str]:
    top = path.relative_to(PIPELINE).parts[0].removesuffix(".py")
    for level, names in enumerate(LAYERS):
        if top in names:
            return level, top
    raise AssertionError(f"{path} belongs to no layer: add it to LAYERS")


def modules() -> list[Path]:
    return sorted(PIPELINE.rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PIPELINE).as_posix())
def test_imports_point_down(path: Path) -> None:
    level, top = layer_of(path)
    for target in closure.imported(path):
        target_level, target_top = layer_of(target)
        if target_top == top:
            continue
        assert target_level < level, (
            f"{path.name} (layer {top}) imports {target} (layer {target_top})"
        )


def test_every_stage_depends_on_the_listing_of_its_own_code() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    known = closure.code_of_stages()
    for name, stage in stages.items():
        body = stage.get("do", stage)
        words = body["cmd"].split()
        module = words[words.index("-m") + 1].rpartition(".")[2]
        if module == "probe":
            continue
        own = _listing_of(module, words[words.index("-m") + 2 :])
        listed = [entry for entry in body["deps"] if entry.startswith("artifacts/code/")]
        assert listed == [f"artifacts/code/{own}"], name
        assert PIPELINE / "stages" / f"{module}.py" in known[own]


def _listing_of(module: str, arguments: list[str]) -> str:
    if module == "score":
        return f"score_{arguments[0]}"
    if module == "counterfactual":
        formats = {row.runtime: row.format for row in routes.ROUTES}
        return f"counterfactual_{formats.get(arguments[0], arguments[0])}"
    return module


def test_the_closure_is_what_python_really_loads() -> None:
    """Every module of ours that importing a stage loads is in its closure."""
    for name in closure.STAGES:
        code = (
            f"import sys, driftline.stages.{name}; "
            "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('driftline.')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        loaded = {Path(file) for file in done.stdout.split()}
        logic = {path for path in loaded if path.name != "__init__.py"}
        assert logic <= set(closure.code_of_stages()[name]), name


def test_one_runtimes_code_is_no_dependency_of_another() -> None:
    found = {path.name for path in closure.code_of_stages()["score_mlx"]}
    assert "mlx.py" in found
    assert not found & {"llamacpp.py", "transformers.py", "vllm.py"}


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("control", {"gguf", "mlx"}),
        ("counterfactual_gguf", {"gguf"}),
        ("counterfactual_mlx", {"mlx"}),
    ],
)
def test_a_stage_that_loads_stored_weights_depends_on_those_formats_code(
    name: str, formats: set[str]
) -> None:
    files = set(closure.code_of_stages()[name])
    for format_ in ("gguf", "mlx"):
        assert (PIPELINE / "counterfactual" / f"{format_}.py" in files) == (format_ in formats)


def test_report_code_is_no_dependency_of_anything_else() -> None:
    for name, files in closure.code_of_stages().items():
        if name != "report":
            assert not [path for path in files if path.is_relative_to(PIPELINE / "report")], name


def test_an_edit_changes_the_listing_of_what_imports_it() -> None:
    files = closure.code_of_stages()
    assert PIPELINE / "golden" / "grade.py" in files["grade"]
    assert PIPELINE / "golden" / "grade.py" not in files["score_mlx"]
    assert closure.listing(files["grade"]).count("\n") == len(files["grade"])


@pytest.mark.parametrize("module", ["driftline.cli", "driftline.stages.probe"])
def test_starting_up_imports_nothing_heavy(module: str) -> None:
    heavy = "torch transformers datasets llama_cpp mlx mlx_lm vllm pandas peft gguf sqlglot dvc"
    code = f"import sys, {module}; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("name", "not_read"),
    [
        ("pin", {"schema/cells.py", "schema/weights.py", "schema/items.py", "project/params.py"}),
        ("merge", {"schema/cells.py", "schema/weights.py", "project/params.py"}),
        ("convert_gguf", {"schema/cells.py", "project/params.py", "project/routes.py"}),
        ("convert_mlx", {"schema/cells.py", "project/params.py", "conversions/gguf.py"}),
        ("score_mlx", {"schema/items.py", "project/plan.py", "project/routes.py"}),
        ("score_mlx", {"project/params.py", "golden/grade.py", "schema/hops.py"}),
        ("counterfactual_mlx", {"schema/items.py", "project/params.py", "project/routes.py"}),
        ("counterfactual_mlx", {"counterfactual/gguf.py"}),
        ("prompts", {"schema/statistics.py", "golden/grade.py"}),
    ],
)
def test_a_stage_lists_what_it_reads_and_nothing_wider(name: str, not_read: set[str]) -> None:
    listed = {path.relative_to(PIPELINE).as_posix() for path in closure.code_of_stages()[name]}
    assert not listed & not_read
