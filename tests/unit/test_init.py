"""`driftline init`: what it plans, what it never writes over, what it says of bad options."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from click.testing import CliRunner, Result

from driftline.bisect import question
from driftline.bisect.question import Side
from driftline.cli import main
from driftline.commands import check
from driftline.errors import InputError, ToolError
from driftline.gate.policy import policy
from driftline.golden import evalset
from driftline.project import params
from driftline.project import plan as cells
from driftline.project.params import Params
from driftline.project.sections.location import Location
from driftline.schema.gate import GatePolicy
from driftline.starter import layout, places, requirement, shipped, writer
from driftline.starter.layout import Choice
from driftline.starter.requirement import Requirement
from tests.paths import ROOT
from tests.unit.lineage_trees import World

INDEX = Requirement("driftline[llamacpp,mlx]==1.2.3")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXAMPLE = Choice(ci=None)
OWN = layout.own(
    Location(repo="acme/base", revision=COMMIT),
    {"tone": Location(path="adapters/my tone"), "1e3": Location(repo="acme/x", revision=COMMIT)},
    None,
)
BARE = layout.own(Location(path="model"), {}, None)


def read(files: Mapping[str, bytes]) -> Params:
    return params.parse(yaml.safe_load(files["params.yaml"]), where="params.yaml")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", "--ci", "none", *arguments])


def tree(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    inside = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: data for name, data in inside.items() if not name.startswith(".git/")}


# -------------------------------------------------------------------------------- what is shipped


def test_every_file_of_the_example_is_shipped() -> None:
    folders = ["models/clerk", "models/adapters/audit", ".dvc", "probe/dvc.yaml"]
    listed = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) <= set(shipped.SHIPPED)
    assert len(set(shipped.SHIPPED)) == len(shipped.SHIPPED)


def test_a_checkout_has_what_it_ships_at_its_top() -> None:
    assert shipped.shipped("dvc.yaml") == ROOT / "dvc.yaml"


def test_a_wheel_has_it_among_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.setattr(shipped, "DATA", tmp_path)
    assert shipped.shipped("dvc.yaml") == tmp_path / "dvc.yaml"
    with pytest.raises(ToolError, match=r"models/clerk/config.json: not found.*\n.*pip install"):
        shipped.shipped("models/clerk/config.json")


# --------------------------------------------------------------------------------------- the plan


def test_pipeline_and_example_are_this_repositorys_bytes() -> None:
    made = layout.files(EXAMPLE, INDEX)
    for name in (*shipped.PIPELINE, *shipped.EXAMPLE):
        assert made[name] == (ROOT / name).read_bytes(), name
    assert list(made) == sorted(made)


def test_own_source_brings_no_example() -> None:
    made = layout.files(OWN, INDEX)
    assert not [name for name in made if name.startswith("models/")]
    assert [name for name in made if name.startswith("evalsets/")] == [
        "evalsets/golden.jsonl",
        "evalsets/golden.md",
    ]


@pytest.mark.parametrize("choice", [EXAMPLE, OWN, BARE])
def test_params_say_what_was_chosen(choice: Choice) -> None:
    found = read(layout.files(choice, INDEX))
    assert found.source == choice.source
    assert found.adapters == choice.adapters
    assert found.variants == (tuple(choice.adapters) or ("base",))
    assert found.evalset_names == choice.evalsets
    assert found.gguf.quantizations == ("q8_0", "q4_k_m")
    assert len(found.mlx.artifacts) == 1
    assert found.runtimes["vllm"].variants == ()
    assert [cell for cell in cells.plan(found) if cell.runtime == "mlx"]


@pytest.mark.parametrize("choice", [EXAMPLE, OWN, BARE])
def test_the_gate_section_is_the_default_spelled_out(choice: Choice) -> None:
    found = read(layout.files(choice, INDEX))
    assert policy(found) == GatePolicy()
    # Spelled out: every default is written, not left to hold by itself.
    assert set(found.gate) == set(GatePolicy.model_fields)


@pytest.mark.parametrize("text", ["plain/path-1.x_y", "a b", "1e3", "null", "no", 'q"u', "ü", "#x"])
def test_a_scalar_is_read_back_as_it_was(text: str) -> None:
    assert yaml.safe_load(f"{{path: {layout.scalar(text)}}}") == {"path": text}


def test_constraints_are_the_locks_pins() -> None:
    made = layout.files(EXAMPLE, INDEX)["constraints.txt"].decode().splitlines()
    lock = (ROOT / shipped.CORE_LOCK).read_text().splitlines()
    assert [line for line in made if "==" in line] == [line for line in lock if "==" in line]
    assert not [line for line in made if "make lock" in line]


@pytest.mark.parametrize("target", ["run", "test", "setup", "setup-vllm"])
def test_the_makefile_has_the_targets_that_ci_uses(target: str, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes(layout.files(EXAMPLE, INDEX)["Makefile"])
    for name in ("requirements.txt", "constraints.txt", "requirements-vllm.txt"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "-n", target, "TORCH_INDEX=", "PYTHON=python3", "PIP_ARGS=--find-links dist"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    setup = "--constraint constraints.txt --requirement requirements.txt --find-links dist"
    assert (setup in done.stdout) == (target != "setup-vllm")
    commands = {"run": ["run"], "test": ["check", "verify", "gate"]}
    assert [
        line.removeprefix(".venv/bin/driftline ")
        for line in done.stdout.splitlines()
        if line.startswith(".venv/bin/driftline ") and "fetch-converter" not in line
    ] == commands.get(target, [])


@pytest.mark.parametrize("ci", list(shipped.CI))
def test_the_ci_file_is_this_repositorys(ci: str) -> None:
    made = layout.files(Choice(ci=ci), INDEX)
    for name in shipped.CI[ci]:
        assert made[name] == (ROOT / name).read_bytes()
    others = {name for each, names in shipped.CI.items() if each != ci for name in names}
    assert not set(made) & others


# ----------------------------------------------------------------------------------- requirements

VCS: dict[str, Any] = {
    "url": "https://git.example.org/driftline.git",
    "vcs_info": {"vcs": "git", "commit_id": COMMIT, "requested_revision": "main"},
}


@pytest.mark.parametrize(
    ("direct_url", "line", "local"),
    [
        (None, "==1.2.3", False),
        (VCS, f" @ git+https://git.example.org/driftline.git@{COMMIT}", False),
        (
            {**VCS, "subdirectory": "tools"},
            f" @ git+https://git.example.org/driftline.git@{COMMIT}#subdirectory=tools",
            False,
        ),
        ({**VCS, "url": "file:///home/x/driftline"}, "==1.2.3", True),
        ({"url": "file:///home/x/d-1.2.3.whl", "archive_info": {}}, "==1.2.3", True),
        ({"url": "file:///home/x/d", "dir_info": {"editable": True}}, "==1.2.3", True),
        (
            {"url": "https://example.org/d.whl", "archive_info": {"hashes": {"sha256": "ab12"}}},
            " @ https://example.org/d.whl#sha256=ab12",
            False,
        ),
    ],
)
def test_driftline_is_named_as_it_was_installed(
    direct_url: dict[str, Any] | None, line: str, local: bool
) -> None:
    text = None if direct_url is None else json.dumps(direct_url)
    found = requirement.requirement(text, "1.2.3")
    assert found == Requirement(f"driftline[llamacpp,mlx]{line}", local)
    written = layout.requirements(found)
    assert written.endswith(f"\n{found.line}\n")
    assert "/home" not in written
    assert ("--find-links" in written) == local


# ------------------------------------------------------------------------------------ golden


def test_the_template_shows_every_check_once(repository: Path) -> None:
    writer.write(layout.files(BARE, INDEX), repository)
    items = evalset.load([evalset.path_of("golden")])
    assert 4 <= len(items) <= 6
    kinds = [each.kind for item in items for each in item.checks]
    assert sorted(kinds) == sorted(evalset.KINDS)
    card = (repository / "evalsets" / "golden.md").read_text()
    assert not [kind for kind in kinds if f"`{kind}`" not in card]
    assert not [item.id for item in items if f"`{item.id}`" not in card]


# --------------------------------------------------------------------------------- the command


def test_the_example_passes_its_check(repository: Path) -> None:
    done = init()
    assert done.exit_code == 0, done.output
    assert "make run" in done.output
    assert "make test" in done.output
    assert check.project() == "in order: 7 cells, 66 golden prompts in 2 evalsets"


def test_an_own_source_passes_its_check(repository: Path) -> None:
    shutil.copytree(ROOT / "models" / "clerk", repository / "models" / "clerk")
    shutil.copytree(ROOT / "models" / "adapters" / "privacy", repository / "privacy")
    done = init("--source", "./models/clerk/", "--adapter", "mine=privacy")
    assert done.exit_code == 0, done.output
    assert "golden.jsonl" in done.output
    assert check.project() == "in order: 7 cells, 6 golden prompts in 1 evalsets"


def test_again_writes_nothing(repository: Path) -> None:
    init()
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    done = init()
    assert done.exit_code == 0, done.output
    assert "nothing to write" in done.output
    assert before == {path: path.stat().st_mtime_ns for path in repository.rglob("*")}


def test_a_deleted_file_comes_back(repository: Path) -> None:
    init()
    before = tree(repository)
    (repository / "dvc.yaml").unlink()
    assert "written: 1 files: dvc.yaml" in init().output
    assert tree(repository) == before


def test_nothing_is_written_over_and_all_is_named(repository: Path) -> None:
    (repository / "params.yaml").write_text("source: {path: mine}\n")
    (repository / "Makefile").mkdir()
    (repository / "evalsets").write_text("a file where a folder has to be")
    (repository / "elsewhere").mkdir()
    (repository / "probe").symlink_to("elsewhere")
    (repository / ".dvcignore").symlink_to("nowhere")
    shutil.copyfile(ROOT / "dvc.yaml", repository / "dvc.yaml")
    before = tree(repository)
    done = init()
    assert done.exit_code == 2
    named = [line.strip() for line in done.output.splitlines() if line.startswith("  ")]
    assert named[:-1] == [".dvcignore", "Makefile", "evalsets", "params.yaml", "probe"]
    assert named[-1].startswith("remedy: move them away")
    assert tree(repository) == before


def test_code_beside_it_stays(repository: Path) -> None:
    (repository / "src").mkdir()
    (repository / "src" / "train.py").write_text("print()\n")
    assert init().exit_code == 0
    assert (repository / "src" / "train.py").read_text() == "print()\n"


# -------------------------------------------------------------------------------- bad options


@pytest.mark.parametrize(
    ("arguments", "said", "remedy"),
    [
        (["--adapter", "a=b"], "--adapter needs --source", "--source PATH"),
        (["--source", "missing"], "no such folder", "REPO@REVISION"),
        (["--source", ""], "no such folder", "REPO@REVISION"),
        (["--source", "."], "is no folder", "folder of this repository"),
        (["--source", "a.txt"], "is no folder", "folder of this repository"),
        (["--source", "../"], "outside of this repository", "copy it in"),
        (["--source", "/usr/lib"], "outside of this repository", "models/lib"),
        (["--source", "link"], "outside of this repository", "copy it in"),
        (["--source", "acme/base@main"], "'main' is not a commit", "acme/base@COMMIT"),
        (["--source", f"acme/base@{COMMIT[:-1]}"], "is not a commit", "/acme/base/commits"),
        (["--source", "acme/base@"], "'' is not a commit", "acme/base@COMMIT"),
        (["--source", "m", "--adapter", "m"], "'m' has no name", "NAME=PATH"),
        (["--source", "m", "--adapter", "base=m"], "'base' cannot name", "none of base"),
        (["--source", "m", "--adapter", "-x=m"], "'-x' cannot name", "letters"),
        (["--source", "m", "--adapter", "x=m", "--adapter", "x=m"], "twice", "of its own"),
        (["--source", "m", "--adapter", "x=acme/l@v1"], "--adapter x: acme/l", "x acme/l@COMMIT"),
    ],
)
def test_a_bad_option_is_said_with_its_remedy(
    repository: Path, arguments: list[str], said: str, remedy: str
) -> None:
    (repository / "m").mkdir()
    (repository / "a.txt").touch()
    (repository / "link").symlink_to("/usr/lib")
    before = tree(repository)
    done = init(*arguments)
    assert done.exit_code == 2, done.output
    message, _, advice = done.output.partition("\n  remedy: ")
    assert said in message
    assert remedy in advice
    assert tree(repository) == before


def test_a_folder_whose_name_looks_like_a_pinned_repository_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model@v1").mkdir()
    assert places.location("model@v1", "--source", tmp_path) == Location(path="model@v1")


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = init()
    assert done.exit_code == 2
    assert "remedy: git init" in done.output
    assert not tree(tmp_path)


def test_not_the_top_of_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "inside").mkdir()
    monkeypatch.chdir(repository / "inside")
    done = init()
    assert done.exit_code == 2
    assert f"remedy: cd {repository}" in done.output
    assert not tree(repository)


@pytest.mark.parametrize("name", ["driftline.py", "driftline/__init__.py"])
def test_a_package_that_would_stand_in_for_ours_is_refused(repository: Path, name: str) -> None:
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).touch()
    with pytest.raises(InputError, match="would be run instead of driftline's"):
        writer.check_place(repository)


def test_a_package_called_pipeline_is_the_users_own_affair(repository: Path) -> None:
    (repository / "pipeline").mkdir()
    (repository / "pipeline" / "__init__.py").touch()
    writer.check_place(repository)


# ----------------------------------------------------------------------- no checkout to bisect with


@pytest.mark.parametrize(("outside", "said"), [(True, 1), (False, 0)])
def test_an_installed_driftlines_code_is_not_testable(outside: bool, said: int) -> None:
    good, bad = (
        World(code=code).evidence() for code in ({}, {"score_mlx": "edited", "drift": "edited"})
    )
    lines = list(question._untestable(good, bad, (), code_outside=outside))
    assert len(lines) == said
    assert all("driftline code score_mlx" in line for line in lines)


@pytest.mark.parametrize(
    ("paths", "has"), [({"params.yaml", "dvc.yaml"}, False), ({"pipeline/driftline/cli.py"}, True)]
)
def test_whether_a_commit_has_driftlines_code(paths: set[str], has: bool) -> None:
    found = Side("x", "x", cast(Any, None), {}, cast(Any, None), frozenset(paths))
    assert question._has_code(found) == has
