"""The cache policy: code under `deps` is exact, and imports only point down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from scripts import closure

PIPELINE = closure.ROOT / "pipeline"

# Lower layers first: a module imports from its own layer only where that is listed as allowed.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("__init__", "errors", "files", "progress"),
    ("schema",),
    ("digest",),
    ("params", "records", "safetensors_header", "locations"),
    ("plan",),
    ("evalset", "prompts", "grade"),
    ("runtimes", "conversions", "drift", "lineage"),
    ("environment", "cells"),
    ("report",),
    ("check", "evidence"),
    ("stages", "cli"),
)
SAME_LAYER_IS_FINE = {
    "schema",
    "__init__",
    "errors",
    "runtimes",
    "conversions",
    "drift",
    "report",
    "params",
}
WITHIN = {("records", "params"), ("locations", "params"), ("grade", "evalset")}


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
        if target_top == top and top in SAME_LAYER_IS_FINE:
            continue
        allowed = target_level < level or (top, target_top) in WITHIN
        assert allowed, f"{path.name} (layer {top}) imports {target} (layer {target_top})"


def test_every_stage_names_exactly_its_import_closure() -> None:
    pipeline = YAML(typ="safe").load(closure.DVC_FILE)
    for name, stage in closure.stages(pipeline):
        known = {entry for entry in stage["deps"] if closure.is_code(entry)}
        assert known == closure.wanted(stage["cmd"]), f"{name}: python -m scripts.closure --write"


def test_one_runtimes_code_is_no_dependency_of_another() -> None:
    mlx = closure.wanted("python -m pipeline.stages.score mlx base 8bit")
    assert "pipeline/runtimes/mlx.py" in mlx
    assert not mlx & {
        f"pipeline/runtimes/{name}.py" for name in ("llamacpp", "transformers", "vllm")
    }


def test_report_code_is_no_dependency_of_a_conversion() -> None:
    pipeline = YAML(typ="safe").load(closure.DVC_FILE)
    for name, stage in closure.stages(pipeline):
        if name not in ("report",):
            assert not [entry for entry in stage["deps"] if "pipeline/report" in entry], name


@pytest.mark.parametrize("module", ["pipeline.cli", "pipeline.stages.probe"])
def test_starting_up_imports_nothing_heavy(module: str) -> None:
    heavy = "torch transformers datasets llama_cpp mlx mlx_lm vllm pandas peft gguf sqlglot dvc"
    code = f"import sys, {module}; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=closure.ROOT
    )
    assert done.stdout.strip() == ""
