"""A project of its own: driftline from its wheel, `driftline init` in an empty repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import closure
from pipeline.conversions.llama_cpp_source import location
from pipeline.history import FolderTree
from pipeline.lineage import evidence
from pipeline.starter import files
from tests.conftest import need
from tests.paths import ROOT

pytestmark = pytest.mark.e2e

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
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        path = f"{self.bin}{os.pathsep}{kept['PATH']}"
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**kept, "PATH": path, "TORCH_INDEX": "", "DVC_NO_ANALYTICS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

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
    environment = made.folder / ".venv"
    venv.create(environment, symlinks=True)
    pip(made.bin / "python", "install", str(build_wheel(tmp_path_factory.mktemp("wheel"))))
    # What driftline needs is this environment's. A folder that a .pth file names is searched, its
    # own .pth files are not read: the editable driftline in it stays out.
    (packages,) = environment.glob("lib/python3*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (environment / "share").mkdir(exist_ok=True)
    (environment / "share" / "driftline").symlink_to(location().parent)
    return made


def test_the_wheel_has_every_file_of_the_package(starter: Starter) -> None:
    (installed,) = starter.folder.glob(".venv/lib/python3*/site-packages/pipeline")
    here = {path.relative_to(closure.PACKAGE) for path in closure.PACKAGE.rglob("*.*")}
    wanted = {path for path in here if "__pycache__" not in path.parts}
    assert {path for path in wanted if not (installed / path).exists()} == set()


def test_from_an_empty_repository_to_a_gate_that_passes(starter: Starter) -> None:
    where = starter.call("python", "-c", "import pipeline; print(pipeline.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(starter.folder / ".venv")

    made = starter.call("driftline", "init")
    assert made.returncode == 0, made.stdout
    for name in (*files.PIPELINE, *files.EXAMPLE, *files.CI["github"]):
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
    found = evidence.read(FolderTree(starter.folder / "reports" / "lineage"))
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
