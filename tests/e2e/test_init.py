"""A project of its own: driftline from its wheel, `driftline init`, then its CI step by step."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

from driftline.conversions.llama_cpp_source import location
from driftline.evidence import lineage
from driftline.evidence.history import FolderTree
from driftline.probe import closure
from driftline.starter import shipped
from tests.conftest import need
from tests.paths import ROOT
from tests.workflow import Machine, Step

pytestmark = pytest.mark.e2e

Steps = dict[str, Step]
NOT_BUILT = ("reports", "tests", "benchmarks", "docs", "models/make")


@dataclass(frozen=True)
class Starter:
    """An empty repository whose `.venv` has driftline from its wheel."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / ".venv" / "bin"

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the repository, with no way to the checkout."""
        env = self.environment()
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**env, "PATH": f"{self.bin}{os.pathsep}{env['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        """Variables with no way to the checkout."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "TORCH_INDEX": "", "DVC_NO_ANALYTICS": "1"}

    def commit(self) -> None:
        for command in (
            ["git", "add", "-A"],
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "x"],
        ):
            done = self.call(*command)
            assert done.returncode == 0, done.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel of what git has or would have: no file that happens to lie here gets in."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    source = folder / "source"
    for name in filter(None, listed.stdout.split("\0")):
        left_out = any(name.startswith(f"{each}/") for each in NOT_BUILT)
        if not left_out and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    pip(sys.executable, "wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("driftline-*.whl")
    return wheel


def pip(python: str | Path, command: str, *arguments: str) -> None:
    quiet = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), command, *quiet, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Starter:
    need("llamacpp")
    need("mlx")
    made = Starter(tmp_path_factory.mktemp("init") / "project")
    subprocess.run(["git", "init", "-q", str(made.folder)], check=True)
    # A package of the user's own that no stage may take for driftline's.
    (made.folder / "pipeline").mkdir()
    (made.folder / "pipeline" / "__init__.py").write_text('raise RuntimeError("not driftline")\n')
    environment = made.folder / ".venv"
    venv.create(environment, symlinks=True)
    pip(made.bin / "python", "install", str(build_wheel(tmp_path_factory.mktemp("wheel"))))
    # What driftline needs is this environment's. A folder that a .pth file names is searched, its
    # own .pth files are not read: the editable driftline in it stays out.
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (environment / "share").mkdir(exist_ok=True)
    (environment / "share" / "driftline").symlink_to(location().parent)
    # pip would have made it where DVC is installed.
    dvc = made.bin / "dvc"
    dvc.write_text(f"#!{made.bin}/python\nimport sys\nfrom dvc.cli import main\nsys.exit(main())\n")
    dvc.chmod(0o755)
    return made


def test_the_wheel_has_every_file_of_the_package(starter: Starter) -> None:
    (installed,) = starter.folder.glob(".venv/lib/python3*/site-packages/driftline")
    here = {path.relative_to(closure.PACKAGE) for path in closure.PACKAGE.rglob("*.*")}
    wanted = {path for path in here if "__pycache__" not in path.parts}
    assert {path for path in wanted if not (installed / path).exists()} == set()


def test_from_an_empty_repository_to_a_gate_that_passes(starter: Starter) -> None:
    where = starter.call("python", "-c", "import driftline; print(driftline.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(starter.folder / ".venv")

    made = starter.call("driftline", "init")
    assert made.returncode == 0, made.stdout
    for name in (*shipped.PIPELINE, *shipped.EXAMPLE, *shipped.CI["github"]):
        assert (starter.folder / name).read_bytes() == (ROOT / name).read_bytes(), name
    assert "driftline[llamacpp,mlx]==" in (starter.folder / "requirements.txt").read_text()
    assert "note: this driftline was installed from a local path" in made.stdout
    (starter.folder / ".venv" / ".ready").touch()
    starter.commit()

    early = starter.call("make", "test")
    assert "in order: 7 cells, 66 golden prompts in 2 evalsets" in early.stdout
    assert "remedy: driftline run" in early.stdout
    assert early.returncode != 0

    # One quantization fewer, to save time: all else is as it was written.
    params = starter.folder / "params.yaml"
    params.write_text(params.read_text().replace("    - q4_k_m\n", ""))
    starter.commit()
    ran = starter.call("make", "run")
    assert ran.returncode == 0, ran.stdout
    assert "report: reports/lineage.html" in ran.stdout
    assert "audit/q8_0" in (starter.folder / "reports" / "lineage.html").read_text()
    found = lineage.read(FolderTree(starter.folder / "reports" / "lineage"))
    assert len(found.cells) == 6
    # A stage's code has the same digests wherever the package is: the same DVC cache serves both.
    for name, code in closure.code_of_stages().items():
        listing = (starter.folder / "artifacts" / "code" / name).read_text()
        assert listing == closure.listing(code), name
    starter.commit()

    tested = starter.call("make", "test")
    assert tested.returncode == 0, tested.stdout
    assert "0 problems" in tested.stdout
    assert "gate: pass" in tested.stdout

    again = starter.call("driftline", "run")
    assert "Running stage" not in again.stdout.replace("Running stage 'probe/dvc.yaml:probe'", "")
    assert starter.call("git", "status", "--porcelain").stdout == ""


# -------------------------------------------------------------------------------------- its nights


@dataclass(frozen=True)
class Hosted:
    """The finished project with a git origin and a DVC remote that has what its run made."""

    starter: Starter
    origin: Path
    homes: Path

    def job(self, workflow: str, name: str, event: str = "schedule") -> tuple[Machine, Steps]:
        """A job of a workflow on a fresh machine, and its steps."""
        machine = Machine(
            home=self.homes / f"{Path(workflow).stem}-{name}-{event}",
            origin=self.origin,
            prepare=self.prepare,
            base=self.starter.environment(),
            context={
                "github.event_name": event,
                "github.event.pull_request.number": "1",
                "github.run_id": "7",
                "github.token": "",
            },
        )
        return machine, machine.job(self.starter.folder / workflow, name)

    def prepare(self, folder: Path) -> None:
        """An environment as `make setup` leaves it, which then has nothing left to do."""
        (folder / ".venv").symlink_to(self.starter.folder / ".venv")
        (self.starter.folder / ".venv" / ".ready").touch()

    def push(self) -> None:
        self.starter.commit()
        done = self.starter.call("git", "push", "-q", "origin", "HEAD:main")
        assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def hosted(starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> Hosted:
    if not (starter.folder / "reports").exists():
        test_from_an_empty_repository_to_a_gate_that_passes(starter)
    homes = tmp_path_factory.mktemp("machines")
    origin = homes / "origin.git"
    for command in (
        ["git", "init", "-q", "--bare", "-b", "main", str(origin)],
        ["git", "remote", "add", "origin", str(origin)],
        ["dvc", "remote", "add", "-q", "-d", "store", str(homes / "store")],
        ["dvc", "push", "-q", "--run-cache"],
    ):
        done = starter.call(*command)
        assert done.returncode == 0, done.stdout
    made = Hosted(starter, origin, homes)
    made.push()
    return made


def succeeded(steps: Steps) -> None:
    for step in steps.values():
        assert step.code == 0, f"{step.name}: {step.output}"


def test_the_nightly_run_step_by_step(hosted: Hosted) -> None:
    machine, steps = hosted.job(shipped.CI["github"][0], "drift")
    succeeded(steps)
    assert list(steps) == [
        "Check out",
        "Python",
        "Restore pip's cache",
        "Set up",
        "Restore what earlier runs made",
        "Run",
        "Gate",
        "Figures against the commit",
        "Keep what this run made",
        "Publish",
    ]
    # Everything but the probe comes from the remote.
    ran = re.findall(r"Running stage '(.*)'", steps["Run"].output)
    assert ran == ["probe/dvc.yaml:probe"], ran
    assert steps["Gate"].output.splitlines()[-1].startswith("gate: pass (")
    summary = machine.summary.read_text()
    assert summary.startswith("## ") and "pass" in summary.splitlines()[0]
    assert "| `llamacpp/audit/q8_0` |" in summary
    suites = ET.parse(machine.folder / "reports" / "ci" / "junit.xml").getroot()
    assert {suite.get("name") for suite in suites} >= {"gate", "llamacpp/audit/q8_0"}
    assert (machine.folder / "reports" / "ci" / "plots" / "index.html").exists()
    status = subprocess.run(
        ["git", "status", "--porcelain"],
        cwd=machine.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert status.stdout == ""


def test_gitlabs_twin(hosted: Hosted) -> None:
    folder = hosted.homes / "gitlab"
    subprocess.run(["git", "clone", "-q", str(hosted.origin), str(folder)], check=True)
    hosted.prepare(folder)
    job = yaml.safe_load((ROOT / shipped.CI["gitlab"][0]).read_text())["drift"]
    env = {**hosted.starter.environment(), "CI_PIPELINE_SOURCE": "schedule"}
    # GitLab runs the first two in one shell, the last in another, whatever became of them.
    for lines in ([*job["before_script"], *job["script"]], job["after_script"]):
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", "\n".join(lines)],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    for path in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]):
        assert (folder / path).exists(), path
    assert (folder / "reports" / "ci" / "metrics.md").exists()


def test_a_pull_request_that_loses_answers_is_red_and_says_which(hosted: Hosted) -> None:
    """A quantization is added that costs answers, and the policy allows none."""
    params = hosted.starter.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("    - q8_0\n", "    - q8_0\n    - q2_k\n"))
    hosted.push()
    try:
        machine, steps = hosted.job(shipped.CI["github"][0], "drift", "pull_request")
    finally:
        params.write_text(before)
        hosted.push()
    assert steps["Gate"].code == 1
    # It is published all the same; the comment is GitHub's own tool's business, and may fail.
    after = list(steps)[list(steps).index("Gate") + 1 :]
    assert after == ["Figures against the commit", "Publish", "Comment on the pull request"]
    assert steps["Figures against the commit"].code == steps["Publish"].code == 0
    ran = re.findall(r"Running stage '(.*)'", steps["Run"].output)
    assert "quantize@audit-q2_k" in ran and "convert_gguf@audit" not in ran
    lines = steps["Gate"].output.splitlines()
    assert lines[0].startswith("::error title=") and "llamacpp/audit/q2_k" in lines[0]
    assert lines[-1].startswith("gate: fail (")
    comment = (machine.folder / "reports" / "ci" / "comment.md").read_text()
    assert "`llamacpp/audit/q2_k`" in comment
    suites = ET.parse(machine.folder / "reports" / "ci" / "junit.xml").getroot()
    assert int(suites.get("failures", "0")) > 0


def test_two_machines_step_by_step(hosted: Hosted) -> None:
    params = hosted.starter.folder / "params.yaml"
    params.write_text(f"{params.read_text()}\nelsewhere: [mlx]\n")
    hosted.push()
    workflow = shipped.CI["github"][1]
    _, first = hosted.job(workflow, "first")
    succeeded(first)
    _, cells = hosted.job(workflow, "mlx")
    succeeded(cells)
    ran = re.findall(r"Running stage '(.*)'", cells["Run the cells of MLX"].output)
    assert [name for name in ran if "probe" not in name] == ["score_mlx@audit-8bit"]
    machine, steps = hosted.job(workflow, "report")
    succeeded(steps)
    assert steps["Gate"].output.splitlines()[-1].startswith("gate: pass (")
    page = (machine.folder / "reports" / "lineage.html").read_text()
    assert "GitHub macos-15" in page
