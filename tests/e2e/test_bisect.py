"""`driftline bisect` between two real commits: four inputs changed at once, one of them guilty."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests import projects
from tests.conftest import need
from tests.paths import ROOT
from tests.projects import Project

pytestmark = pytest.mark.e2e

CELL = "mlx/audit/4bit"
FRAGILE = ("audit-001", "audit-006")
"""Items that 2 bits a weight get wrong."""
REWORDED = "reworded"
"""An item that is right at 2 bits as GOOD words it, and wrong as BAD does."""
CHANGED = ["mlx recipe 4bit", "evalset small", "adapter audit", "template"]


def items(*, reworded: str) -> list[dict[str, Any]]:
    """`FRAGILE`, and one with the text of item `reworded`."""
    lines = (ROOT / "evalsets" / "audit.jsonl").read_text().splitlines()
    known = {each["id"]: each for each in map(json.loads, lines)}
    return [*(known[name] for name in FRAGILE), {**known[reworded], "id": REWORDED}]


@dataclass(frozen=True)
class Bisected:
    """What a finished `driftline bisect` said."""

    code: int
    said: str
    errors: str

    @property
    def runs(self) -> list[str]:
        return [line for line in self.said.splitlines() if line.startswith("run ")]

    @property
    def executed(self) -> list[int]:
        """Stages each run executed."""
        return [int(line.rpartition("(")[2].split()[0]) for line in self.runs]

    @property
    def verdict(self) -> str:
        return self.said.splitlines()[-1]


def bisect(project: Project, *arguments: str) -> Bisected:
    done = project.driftline("bisect", *arguments)
    assert "Traceback" not in done.stderr, done.stderr
    return Bisected(done.returncode, done.stdout, done.stderr)


def git(project: Project, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(project: Project, name: str) -> None:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", name)
    git(project, "tag", name)


def change_four_inputs(folder: Path) -> None:
    """Three that do no harm, and a recipe that takes half the bits away."""
    adapter = folder / "models" / "adapters" / "audit" / "adapter_model.safetensors"
    save_file(load_file(adapter), adapter, metadata={"format": "pt", "saved": "again"})
    with (folder / "models" / "clerk" / "chat_template.jinja").open("a") as template:
        template.write("{# renders the same text #}")
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("bits: 4", "bits: 2"))
    projects.write_items(folder / "evalsets" / "small.jsonl", items(reworded="audit-012"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    need("llamacpp")
    need("mlx")
    made = projects.create(
        tmp_path_factory.mktemp("bisect") / "project",
        items=items(reworded="audit-002"),
        adapters={"audit": {"path": "models/adapters/audit"}},
        variants=["audit"],
        evalsets={"audit": ["small"]},
        gguf={"outtype": "f32", "quantizations": []},
        distributions={"top_k": 64, "corpora": {}},
    )
    adapter = "models/adapters/audit"
    shutil.copytree(ROOT / adapter, made.folder / adapter)
    (made.folder / ".gitignore").write_text(".driftline/\n__pycache__/\n")
    first = made.repro()
    assert first.code == 0, first.output
    commit(made, "good")
    change_four_inputs(made.folder)
    second = made.repro()
    assert second.code == 0, second.output
    commit(made, "bad")
    return made


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file but git's, DVC's and local ones."""
    left_out = (".git", ".dvc", ".driftline", "__pycache__")
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not set(path.relative_to(folder).parts) & set(left_out)
    }


@pytest.fixture
def untouched(project: Project) -> Iterator[Project]:
    """The project, which must be left as it is: files, git's status, worktrees, local folder."""
    before = contents(project.folder), git(project, "status", "--porcelain")
    yield project
    assert (contents(project.folder), git(project, "status", "--porcelain")) == before
    assert len(git(project, "worktree", "list").splitlines()) == 1
    assert not list((project.folder / ".driftline").glob("bisect-*"))


def test_the_guilty_one_of_four_inputs_is_named_and_asking_again_runs_nothing(
    untouched: Project,
) -> None:
    found = bisect(untouched, "good", "bad")
    assert found.code == 0, found.said + found.errors
    assert f"inputs that changed: {len(CHANGED)}\n" in found.said
    assert [line.split("  ")[1] for line in found.said.splitlines()[2:6]] == CHANGED
    assert "what moved: 3 verdicts of 1 cell\n" in found.said
    assert f"  {CELL}  small/audit-001  correct → partial\n" in found.said
    assert found.verdict == (
        "guilty: mlx recipe 4bit (alone it moves 2 of 3 verdicts; with it taken back 0 of 3 "
        f"remain); {len(found.runs)} runs"
    )
    assert 2 <= len(found.runs) <= 4
    assert sum(found.executed) > 0

    again = bisect(untouched, "good", "bad", "--json")
    assert again.code == 0, again.errors
    data = json.loads(again.said)
    assert data["guilty"] == [{"names": ["mlx recipe 4bit"], "interaction": False, "mended": True}]
    assert len(data["runs"]) == len(found.runs)
    assert [run["executed"] for run in data["runs"]] == [0] * len(found.runs)
    assert all(run["from_run_cache"] > 0 for run in data["runs"])


def test_two_inputs_that_only_do_it_together_are_an_interaction(untouched: Project) -> None:
    found = bisect(untouched, "good", "bad", "--item", f"small/{REWORDED}")
    assert found.code == 0, found.said + found.errors
    assert found.verdict == (
        "interaction: mlx recipe 4bit + evalset small (together they move 1 of 1 verdict; without "
        "mlx recipe 4bit 0 of 1; without evalset small 0 of 1; with them taken back 0 of 1 "
        f"remain); {len(found.runs)} runs"
    )


def test_without_verdicts_the_drift_of_a_hop_is_measured(untouched: Project) -> None:
    found = bisect(untouched, "good", "bad", "--by", "kl")
    assert found.code == 0, found.said + found.errors
    assert f"mean KL of transformers/audit/checkpoint → {CELL}, in nats" in found.said
    assert found.verdict.startswith("guilty: mlx recipe 4bit (alone it moves mean KL from 0.0")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, 143)])
def test_stopped_halfway_it_leaves_nothing_behind(
    untouched: Project, sent: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "driftline.cli", "bisect", "good", "bad", "--confirm"]
    process = subprocess.Popen(
        command,
        cwd=untouched.folder,
        env=untouched.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A run started in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    home = untouched.folder / ".driftline"
    until = time.monotonic() + 120
    while not list(home.glob("bisect-*/tree/artifacts/env/*")) and time.monotonic() < until:
        time.sleep(0.05)  # until `dvc repro` is under way
    assert len(git(untouched, "worktree", "list").splitlines()) == 2
    assert working_in(home)
    os.kill(process.pid, sent)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert not working_in(home)


def working_in(folder: Path) -> list[str]:
    """Processes whose working folder is, or was, inside `folder`."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            place = str(link.readlink())
        except OSError:
            continue
        if place.startswith(f"{folder}/"):
            found.append(place)
    return found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("good", "worse"), '"worse" is neither a release nor a git revision'),
        (("good", "good"), "are the same commit"),
        (("bad", "good"), "driftline bisect good bad"),
        (("good", "bad", "--cell", "mlx/audit/4bits"), f'did you mean "{CELL}"'),
        (("good", "bad", "--item", "small/audit-01"), 'did you mean "small/audit-001"'),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_screen(
    untouched: Project, arguments: tuple[str, ...], said: str
) -> None:
    found = bisect(untouched, *arguments)
    assert found.code == 2
    assert said in found.errors and "remedy: " in found.errors
