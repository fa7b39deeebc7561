"""Small real projects for end-to-end tests: the repository's own pipeline over a few prompts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.params_data import with_runtimes
from tests.paths import ROOT

ITEMS: list[dict[str, Any]] = [
    {
        "id": f"count-{year}",
        "messages": [{"role": "user", "content": f"How many invoices from Oslo since {year}?"}],
        "reference": f"SELECT COUNT(*) FROM invoices WHERE city = 'Oslo' AND year >= {year};",
        "checks": [{"kind": "exact"}],
    }
    for year in range(2001, 2009)
]

NOTES = " ".join(f"Since {year} the city of Oslo has {year % 7} invoices." for year in range(60))
"""A corpus of a few windows."""

PARAMS: dict[str, Any] = {
    "source": {"path": "models/clerk"},
    "adapters": {},
    "variants": ["base"],
    "evalsets": {"base": ["small"]},
    "merge": {"dtype": "float32"},
    "gguf": {"outtype": "f32", "quantizations": ["q8_0"]},
    "mlx": {
        "artifacts": ["4bit"],
        "recipes": {"4bit": {"dtype": "float32", "bits": 4, "group_size": 64}},
    },
    "vllm": [],
    "decode": {"max_new_tokens": 64, "context_length": 256},
    "distributions": {
        "top_k": 64,
        "corpora": {"notes": {"path": "corpora/notes.txt", "window": 64}},
    },
    "limits": {"threads": 1, "deadline_s": 300},
}


@dataclass(frozen=True)
class Run:
    """One `dvc repro`: its exit code, output, and the stages that ran."""

    code: int
    output: str

    @property
    def ran(self) -> list[str]:
        marker = "Running stage '"
        return [
            line.split(marker)[1].split("'")[0]
            for line in self.output.splitlines()
            if marker in line
        ]


@dataclass(frozen=True)
class Project:
    """A project folder with its own copy of the pipeline."""

    folder: Path

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        code = [str(self.folder.absolute() / "pipeline"), extra.pop("PYTHONPATH", "")]
        own = {"PATH": path, "PYTHONPATH": os.pathsep.join(filter(None, code))}
        return {**kept, **own, "DVC_NO_ANALYTICS": "1", **extra}

    def dvc(self, *arguments: str, **extra: str) -> Run:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.folder,
            env=self.environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Run(done.returncode, done.stdout)

    def repro(self, *arguments: str, **extra: str) -> Run:
        return self.dvc("repro", *arguments, **extra)

    def stage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one stage as DVC would."""
        return subprocess.run(
            [sys.executable, "-m", f"driftline.stages.{arguments[0]}", *arguments[1:]],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def driftline(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "driftline.cli", *arguments],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    def edit(self, **changes: Any) -> None:
        """Replace top-level keys of params.yaml."""
        path = self.folder / "params.yaml"
        data = {**yaml.safe_load(path.read_text()), **changes}
        path.write_text(yaml.safe_dump(data, sort_keys=False))

    def cell(self, name: str) -> dict[str, Any]:
        path = self.folder / "artifacts" / "cells" / name / "cell.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def create(folder: Path, *, items: list[dict[str, Any]] | None = None, **changes: Any) -> Project:
    """Make a project in `folder`, with git and DVC as a clone would have them."""
    folder.mkdir(parents=True, exist_ok=True)
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", ignore=skip)
    shutil.copytree(ROOT / "models" / "clerk", folder / "models" / "clerk")
    shutil.copyfile(ROOT / "dvc.yaml", folder / "dvc.yaml")
    (folder / "probe").mkdir()
    shutil.copyfile(ROOT / "probe" / "dvc.yaml", folder / "probe" / "dvc.yaml")
    (folder / "evalsets").mkdir()
    write_items(folder / "evalsets" / "small.jsonl", items or ITEMS)
    (folder / "corpora").mkdir()
    (folder / "corpora" / "notes.txt").write_text(NOTES)
    (folder / "params.yaml").write_text(
        yaml.safe_dump(with_runtimes({**PARAMS, **changes}), sort_keys=False)
    )
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / ".gitignore").write_text("*\n")
    project = Project(folder)
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    assert project.dvc("init", "-q").code == 0
    project.dvc("config", "core.analytics", "false")
    return project


def write_items(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
