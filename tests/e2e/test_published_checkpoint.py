"""A published checkpoint with published greedy output (karpathy/tinyllamas, stories260K).

Runs where `STORIES260K` names a folder with the checkpoint and its `golden.json`.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests import projects
from tests.conftest import need
from tests.paths import ROOT
from tests.projects import Project

CHECKPOINT = os.environ.get("STORIES260K", "")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not CHECKPOINT, reason="STORIES260K does not name the checkpoint's folder"),
]


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    found: dict[str, str] = json.loads((Path(CHECKPOINT) / "golden.json").read_text())
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, str]) -> Project:
    for runtime in ("llamacpp", "mlx", "vllm"):
        need(runtime)
    item = {
        "id": "lily",
        "prompt": golden["prompt"],
        "reference": golden["text"].removeprefix(golden["prompt"]),
        "checks": [{"kind": "exact"}],
        "max_new_tokens": 196,
    }
    made = projects.create(
        tmp_path_factory.mktemp("stories") / "project",
        items=[item],
        source={"path": "models/stories"},
        vllm=["base"],
        mlx={
            "artifacts": ["8bit", "4bit"],
            "recipes": {
                "8bit": {"bits": 8, "group_size": 32},
                "4bit": {"bits": 4, "group_size": 32},
            },
        },
        decode={"max_new_tokens": 196, "context_length": 512},
    )
    shutil.copytree(CHECKPOINT, made.folder / "models" / "stories")
    (made.folder / ".venv-vllm").symlink_to(ROOT / ".venv-vllm")
    done = made.repro()
    assert done.code == 0, done.output
    return made


def text(project: Project, cell: str, golden: dict[str, str]) -> str:
    path = project.folder / "artifacts" / "cells" / cell / "completions.jsonl"
    return golden["prompt"] + str(json.loads(path.read_text())["text"])


@pytest.mark.parametrize("cell", ["transformers/base/checkpoint", "llamacpp/base/f32"])
def test_full_precision_reproduces_the_published_text(
    project: Project, cell: str, golden: dict[str, str]
) -> None:
    assert text(project, cell, golden) == golden["text"]


@pytest.mark.parametrize(
    ("cell", "common"),
    [
        ("llamacpp/base/q8_0", "Lily's mom said, \""),
        ("mlx/base/8bit", "it was too high."),
        ("mlx/base/4bit", "She loved to play outside in the "),
    ],
)
def test_quantization_parts_from_it_and_the_report_names_hop_and_token(
    project: Project, cell: str, common: str, golden: dict[str, str]
) -> None:
    found = text(project, cell, golden)
    assert found != golden["text"]
    assert found.startswith(golden["text"].partition(common)[0] + common)
    report = (project.folder / "reports" / "lineage.md").read_text()
    section = report.partition("## Answers that changed")[2]
    (line,) = (row for row in section.splitlines() if f"→ {cell}`" in row and "divergent" in row)
    assert "first divergent token" in line


def test_vllm_says_itself_why_it_cannot(project: Project) -> None:
    outcome = project.cell("vllm/base/checkpoint")["outcome"]
    assert (outcome["state"], outcome["kind"]) == ("error", "raised")
    assert "head_dim=8" in outcome["reason"]
    assert "head_dim=8" in (project.folder / "reports" / "lineage.md").read_text()
