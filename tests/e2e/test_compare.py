"""One real change at a time in a real project: `driftline compare` names it, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import projects
from tests.conftest import need
from tests.paths import ROOT
from tests.projects import Project

pytestmark = pytest.mark.e2e

AUDIT = {"audit": {"path": "models/adapters/audit"}}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    need("llamacpp")
    need("mlx")
    made = projects.create(
        tmp_path_factory.mktemp("compare") / "project",
        items=projects.ITEMS[:4],
        adapters=AUDIT,
        gguf={"outtype": "f32", "quantizations": []},
        evalsets={"base": ["small"], "audit": ["small"]},
    )
    shutil.copytree(ROOT / "models" / "adapters" / "audit", made.folder / "models/adapters/audit")
    first = made.repro()
    assert first.code == 0, first.output
    commit(made)
    return made


def git(project: Project, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=project.folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(project: Project) -> None:
    git(project, "add", "--force", "reports")
    git(project, "commit", "--quiet", "--message", "evidence")


def compare(project: Project, *arguments: str) -> dict[str, Any]:
    done = project.driftline("compare", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def changed(project: Project, **environment: str) -> dict[str, Any]:
    """Run, commit, and compare with the commit before."""
    run = project.repro(**environment)
    assert run.code == 0, run.output
    commit(project)
    return compare(project, "HEAD~1", "HEAD")


def labels(report: dict[str, Any]) -> list[str]:
    return [f"{change['kind']} {change['name']}".rstrip() for change in report["inputs"]]


def details(report: dict[str, Any]) -> list[tuple[str, str, str]]:
    (change,) = report["inputs"]
    return [(each["what"], each["before"], each["after"]) for each in change["details"]]


def explained(report: dict[str, Any]) -> dict[str, list[str]]:
    assert report["unexplained"] == []
    return {each["name"]: each["because"] for each in report["consequences"]}


def cells(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {cell["cell"]: cell for cell in report["cells"]}


def test_nothing_differs_from_the_commit_just_made(project: Project) -> None:
    found = compare(project, "HEAD")
    assert found["inputs"] == found["consequences"] == found["unexplained"] == found["cells"] == []
    assert (found["same_cells"], found["same_hops"]) == (5, 4)
    assert (found["before"], found["after"]) == ("HEAD", "the working tree")


def test_another_adapter(project: Project) -> None:
    path = project.folder / "models/adapters/audit/adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "lora_alpha": 2 * config["lora_alpha"]}, indent=2))
    found = changed(project)
    assert labels(found) == ["adapter audit"]
    assert details(found) == [("adapter_config.json:lora_alpha", "16", "32")]
    because = ["adapter audit"]
    assert explained(found) == {"adapters/audit": because, "checkpoints/audit": because}
    assert set(cells(found)) == {"transformers/audit/attached", "transformers/audit/checkpoint"}
    assert found["same_cells"] == 3


def test_another_quantization_recipe(project: Project) -> None:
    recipe = {"dtype": "float32", "bits": 4, "group_size": 32}
    project.edit(mlx={"artifacts": ["4bit"], "recipes": {"4bit": recipe}})
    found = changed(project)
    assert labels(found) == ["mlx recipe 4bit"]
    assert details(found) == [("group_size", "64", "32")]
    assert explained(found) == {"mlx/base/4bit": ["mlx recipe 4bit"]}
    (cell,) = found["cells"]
    assert (cell["cell"], cell["reason"], cell["items"]) == ("mlx/base/4bit", "", 4)
    (hop,) = found["hops"]
    # smaller groups hold the weights better: the hop must drift less, on every sequence
    assert (hop["verdict"], hop["sequences"]) == ("less", hop["sequences_before"])
    assert hop["difference"]["high"] < 0 and hop["holm_p"] < 0.05


def test_another_golden_prompt(project: Project) -> None:
    """Another check, so that no model has to run."""
    odd = {**projects.ITEMS[2], "checks": [{"kind": "contains", "value": "SELECT"}]}
    items = [*projects.ITEMS[:2], odd, projects.ITEMS[3]]
    projects.write_items(project.folder / "evalsets" / "small.jsonl", items)
    found = changed(project)
    assert labels(found) == ["evalset small"]
    ((name, before, after),) = details(found)
    assert name == odd["id"] and before and after and before != after
    assert explained(found) == {}
    reasons = {cell["reason"] for cell in found["cells"]}
    assert (len(found["cells"]), reasons) == (5, {"evalset small: 1 changed, 3 the same"})
    assert all(cell["scores"] is None for cell in found["cells"])
    common = compare(project, "HEAD~1", "HEAD", "--common")
    assert all(cell["reason"] == "" for cell in common["cells"])
    assert len(common["cells"]) + common["same_cells"] == 5


def test_another_template(project: Project) -> None:
    path = project.folder / "models" / "clerk" / "chat_template.jinja"
    path.write_text(path.read_text().replace("'<|end|>'", "' <|end|>'"))
    found = changed(project)
    assert labels(found) == ["source template"]
    assert [what for what, _, _ in details(found)] == ["chat_template.jinja"]
    assert set(map(tuple, explained(found).values())) == {("source template",)}
    assert "small: 4 of 4 prompts" in explained(found)
    assert {cell["reason"] for cell in found["cells"]} == {""}


@pytest.fixture
def edited(project: Project) -> Iterator[Path]:
    """Evidence of the working tree with one digit changed."""
    path = next((project.folder / "reports" / "lineage" / "cells").rglob("cell.json"))
    kept = path.read_text()
    path.write_text(kept.replace('"rows": ', '"rows": 1'))
    yield path
    path.write_text(kept)


def test_edited_evidence_is_refused(project: Project, edited: Path) -> None:
    done = project.driftline("compare", "HEAD")
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert edited.relative_to(project.folder / "reports" / "lineage").as_posix() in done.stderr


def test_an_unknown_revision_says_so(project: Project) -> None:
    done = project.driftline("compare", "no-such-release")
    assert done.returncode == 2 and "neither a release nor a git revision" in done.stderr


def test_the_same_model_or_not(project: Project) -> None:
    cell = "llamacpp/base/f32"
    done = project.driftline("same", f"HEAD:{cell}", cell)
    assert done.returncode == 0 and done.stdout.startswith("the same model ")
    done = project.driftline("same", f"HEAD~1:{cell}", cell)
    assert done.returncode == 1
    assert {line.split(":")[0].strip() for line in done.stdout.splitlines()[1:]} == {
        "source",
        "template",
    }
    done = project.driftline("same", "mlx/base/4bit", cell)
    assert done.returncode == 1 and "conversions.1.tool: mlx_lm.convert" in done.stdout
    done = project.driftline("same", "llamacpp/base/f3", cell)
    assert done.returncode == 2 and f'did you mean "{cell}"' in done.stderr


def test_markdown_and_a_table(project: Project) -> None:
    done = project.driftline("compare", "HEAD~1", "HEAD", "--markdown")
    assert done.returncode == 0 and "## 1 input differs" in done.stdout
    done = project.driftline("compare", "HEAD~1", "HEAD")
    assert done.returncode == 0 and "source template" in done.stdout
    assert "\x1b" not in done.stdout


def test_another_package(project: Project, tmp_path: Path) -> None:
    """mlx-lm by another version: first on the path, as an upgrade would leave it."""
    fake = tmp_path / "mlx_lm-9.9.9.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx_lm\nVersion: 9.9.9\n")
    (fake / "RECORD").write_text("")
    found = changed(project, PYTHONPATH=str(tmp_path))
    assert labels(found) == ["package mlx_lm"]
    assert found["inputs"][0]["after"] == "9.9.9"
    assert details(found) == [("touches convert mlx, mlx cells", "", "")]
    assert explained(found) == {}  # the same code: the same bytes
    (cell,) = found["cells"]
    assert (cell["cell"], cell["changed"]) == ("mlx/base/4bit", 0)
