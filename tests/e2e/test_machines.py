"""Cells of another machine: pushed from one clone, made in another, merged into one report."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from driftline.evidence import lineage
from driftline.evidence.history import FolderTree
from tests import projects
from tests.conftest import need
from tests.projects import Project

pytestmark = pytest.mark.e2e

CELL = "mlx/base/4bit"
STAGE = "score_mlx@base-4bit"
PROBE = "probe/dvc.yaml:probe"
OTHERS = ("transformers/base/checkpoint", "llamacpp/base/f32")
BUCKET = "driftline"
MAC = {
    '"machine": platform.machine()': '"machine": "arm64"',
    '"system": platform.system()': '"system": "Darwin"',
    '"cpu": _cpu()': '"cpu": "Apple M2"',
}


def git(project: Project, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=project.folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(project: Project, message: str) -> str:
    git(project, "add", "-A")
    git(project, "commit", "-qm", message)
    return git(project, "rev-parse", "HEAD")


def author(project: Project) -> Project:
    git(project, "config", "user.name", "tester")
    git(project, "config", "user.email", "tester@example.org")
    return project


def succeeded(done: Any) -> Any:
    code = done.code if isinstance(done, projects.Run) else done.returncode
    assert code == 0, done
    return done


def ran(output: str) -> list[str]:
    return projects.Run(0, output).ran


def report(project: Project) -> str:
    return (project.folder / "reports" / "lineage.md").read_text()


@dataclass(frozen=True)
class Remote:
    """A DVC remote: how it is named and added, and how an object in it is replaced."""

    name: str
    settings: tuple[tuple[str, ...], ...]
    replace: Callable[[str, bytes], None]

    def add(self, project: Project) -> None:
        for words in self.settings:
            succeeded(project.dvc("remote", *words))


@dataclass(frozen=True)
class World:
    """Two machines: the project's own, another, the git server between them, the DVC remote."""

    first: Project
    other: Project
    remote: Remote

    def branch(self, name: str) -> str:
        """Push what the other machine has, as a branch."""
        git(self.other, "checkout", "-qB", name)
        made = commit(self.other, name)
        git(self.other, "push", "-qf", "origin", name)
        succeeded(self.other.dvc("push"))
        git(self.first, "fetch", "-q", "origin")
        return made


# ------------------------------------------------------------------------------------- machines


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose MLX cell is another machine's to make, as far as it gets alone."""
    need("llamacpp")
    need("mlx")
    folder = tmp_path_factory.mktemp("first") / "project"
    small = {
        "distributions": {"top_k": 64, "corpora": {}},
        "gguf": {"outtype": "f32", "quantizations": []},
        "elsewhere": ["mlx"],
    }
    made = author(projects.create(folder, items=projects.ITEMS[:3], **small))
    (made.folder / "artifacts" / ".gitignore").write_text("*\n!.gitignore\n")
    (made.folder / ".gitignore").write_text("/.driftline/\n__pycache__/\n")
    succeeded(made.repro())
    commit(made, "run")
    return made


@pytest.fixture(scope="module")
def folder_remote(tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """A folder both machines see."""
    store = tmp_path_factory.mktemp("store")

    def replace(oid: str, data: bytes) -> None:
        path = store / "files" / "md5" / oid[:2] / oid[2:]
        path.chmod(0o644)
        path.write_bytes(data)

    return Remote("shared", (("add", "-d", "shared", str(store)),), replace)


@pytest.fixture(scope="module")
def s3_remote() -> Iterator[Remote]:
    """A bucket of an S3 server on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("NO_PROXY", host)
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket=BUCKET)

        def replace(oid: str, data: bytes) -> None:
            key = f"cells/files/md5/{oid[:2]}/{oid[2:]}"
            assert client.head_object(Bucket=BUCKET, Key=key)
            client.put_object(Bucket=BUCKET, Key=key, Body=data)

        settings = (
            ("add", "-d", "s3", f"s3://{BUCKET}/cells"),
            ("modify", "s3", "endpointurl", f"http://{host}:{port}"),
        )
        yield Remote("s3", settings, replace)
    server.stop()


def build(run_once: Project, remote: Remote, folder: Path, *, pull: bool) -> World:
    """Push the project from one machine, and make its MLX cell on another."""
    first = Project(folder / "first")
    shutil.copytree(run_once.folder, first.folder)
    remote.add(first)
    commit(first, "remote")
    hub = folder / "hub.git"
    subprocess.run(["git", "clone", "-q", "--bare", first.folder, hub], check=True)
    git(first, "remote", "add", "origin", str(hub))
    succeeded(first.dvc("push"))
    other = Project(folder / "other")
    subprocess.run(["git", "clone", "-q", hub, other.folder], check=True)
    author(other)
    disguise(other)
    if pull:
        succeeded(other.dvc("pull"))
    return World(first, other, remote)


def disguise(other: Project) -> None:
    """What the probe says of the other machine, and a line of its code, are others than here."""
    probe = other.folder / "pipeline" / "driftline" / "probe" / "environment.py"
    text = probe.read_text()
    for here, there in MAC.items():
        assert text.count(here) == 1
        text = text.replace(here, there)
    probe.write_text(text)
    with (other.folder / "pipeline" / "driftline" / "runtimes" / "mlx.py").open("a") as module:
        module.write("# for Metal\n")


@pytest.fixture(scope="module")
def local(
    run_once: Project, folder_remote: Remote, tmp_path_factory: pytest.TempPathFactory
) -> World:
    """Over a folder: the other machine has pulled everything, and has not run anything yet."""
    return build(run_once, folder_remote, tmp_path_factory.mktemp("local"), pull=True)


@dataclass(frozen=True)
class Merged:
    """What came of the way there and back."""

    world: World
    made: str
    commit: str
    imported: subprocess.CompletedProcess[str]
    again: projects.Run


def there_and_back(world: World) -> Merged:
    made = succeeded(world.other.driftline("run", "--only", "mlx")).stdout
    revision = world.branch("mlx-cells")
    imported = world.first.driftline("import-cells", "origin/mlx-cells", "--made-at", "mac mini")
    return Merged(world, made, revision, succeeded(imported), succeeded(world.first.repro()))


@pytest.fixture(scope="module")
def merged(local: World) -> Merged:
    return there_and_back(local)


@pytest.fixture(scope="module")
def merged_s3(
    run_once: Project, s3_remote: Remote, tmp_path_factory: pytest.TempPathFactory
) -> Merged:
    """Over S3; the other machine pulls no more than it needs."""
    return there_and_back(build(run_once, s3_remote, tmp_path_factory.mktemp("s3"), pull=False))


@pytest.fixture(params=["merged", "merged_s3"])
def either(request: pytest.FixtureRequest) -> Merged:
    found: Merged = request.getfixturevalue(request.param)
    return found


# ------------------------------------------------------------------------------- the first machine


def test_a_cell_to_be_made_elsewhere_is_skipped_and_the_rest_complete(run_once: Project) -> None:
    outcome = run_once.cell(CELL)["outcome"]
    assert (outcome["state"], outcome["kind"]) == ("skipped", "elsewhere")
    assert outcome["reason"] == "made on another machine, not imported yet"
    assert "driftline run --only mlx" in outcome["remedy"]
    assert "driftline import-cells REV" in outcome["remedy"]
    for name in OTHERS:
        assert run_once.cell(name)["outcome"]["state"] == "ok"
    assert "not imported yet" in report(run_once)


# ------------------------------------------------------------------------------ there and back


def test_the_other_machine_runs_nothing_but_the_cell(either: Merged) -> None:
    assert ran(either.made) == [PROBE, STAGE]
    assert either.world.other.cell(CELL)["outcome"]["state"] == "ok"


def test_what_the_cell_does_not_read_need_not_be_there(merged_s3: Merged) -> None:
    artifacts = merged_s3.world.other.folder / "artifacts"
    assert (artifacts / "mlx").is_dir() and (artifacts / "texts").is_dir()
    assert not (artifacts / "gguf").exists() and not (artifacts / "counterfactuals").exists()


def test_the_import_says_what_came_from_where(either: Merged) -> None:
    assert f"imported      {CELL}\n" in either.imported.stdout
    assert f"mac mini (Darwin arm64, Apple M2), from {either.commit[:12]}" in either.imported.stdout
    assert "note: code_sha256 of score_mlx: " in either.imported.stdout
    first = either.world.first
    home = first.folder / "imports" / CELL
    record = json.loads((home / "import.json").read_text())
    assert (record["cell"], record["revision"]) == (CELL, either.commit)
    assert record["made_at"] == "mac mini"
    assert record["cell_seal"] == first.cell(CELL)["seal"]
    tracked = git(first, "status", "--short", "-uall", "imports").splitlines()
    assert [line.removeprefix("?? ") for line in tracked] == [
        f"imports/{CELL}/{name}" for name in (".gitignore", "cell.dvc", "import.json")
    ]


def test_the_cell_is_taken_over_byte_for_byte(either: Merged) -> None:
    here, there = (
        project.folder / "artifacts" / "cells" / CELL
        for project in (either.world.first, either.world.other)
    )
    files = sorted(path.relative_to(there) for path in there.rglob("*") if path.is_file())
    assert len(files) >= 6
    for file in files:
        assert (here / file).read_bytes() == (there / file).read_bytes(), file


def test_merging_runs_no_model_and_one_report_has_every_cell_and_its_machine(
    either: Merged,
) -> None:
    assert either.again.ran == [PROBE, STAGE, "grade", "drift", "lineage", "report"]
    assert f"{CELL}: ok  (imported)" in either.again.output
    page = report(either.world.first)
    assert "3 cells: 3 ok, 0 error, 0 skipped, 0 unstable." in page
    table = page.partition("Where each cell ran:")[2].strip().partition("\n\n")[0]
    rows = [
        [part.strip() for part in line.split(" | ")] for line in table.strip("|").splitlines()[2:]
    ]
    made = {cell: row[:2] for row in rows for cell in row[2].strip(" |").split(", ")}
    assert set(made) == {f"`{name}`" for name in (*OTHERS, CELL)}
    for name in OTHERS:
        assert made[f"`{name}`"][0].removeprefix("| ").startswith("`Linux ")
        assert made[f"`{name}`"][1] == "here"
    assert made[f"`{CELL}`"] == [
        "| `Darwin arm64, Apple M2`",
        f"`mac mini`, imported from `{either.commit[:12]}`",
    ]


def test_the_evidence_has_the_import_and_is_whole(either: Merged) -> None:
    first = either.world.first
    here = first.folder / "reports" / "lineage" / "cells" / CELL / "import.json"
    assert here.read_bytes() == (first.folder / "imports" / CELL / "import.json").read_bytes()
    found = lineage.read(FolderTree(first.folder / "reports" / "lineage"))
    assert {name: each.made_at for name, each in found.imports.items()} == {CELL: "mac mini"}
    ran_in = json.loads(found.environment(found.cells[CELL].environment_sha256))
    assert (ran_in["system"], ran_in["cpu"]) == ("Darwin", "Apple M2")
    done = first.driftline("verify", "--deep")
    assert done.returncode == 0, done.stdout
    assert f"remote {either.world.remote.name}" in done.stdout


def test_afterwards_nothing_is_left_to_do(either: Merged) -> None:
    assert either.world.first.repro().ran == [PROBE]
    known = either.world.first.driftline("import-cells", either.commit)
    assert known.returncode == 0
    assert "nothing to import" in known.stdout


def test_the_import_travels_on_to_a_third_clone(merged: Merged, tmp_path: Path) -> None:
    first = merged.world.first
    commit(first, "merged")
    git(first, "push", "-q", "origin", "HEAD")
    succeeded(first.dvc("push"))
    third = Project(tmp_path / "third")
    hub = git(first, "remote", "get-url", "origin")
    subprocess.run(["git", "clone", "-q", hub, third.folder], check=True)
    succeeded(third.dvc("pull"))
    assert third.repro().ran == [PROBE]
    assert succeeded(third.driftline("verify", "--deep"))
    # made again from the import alone, and the same to the byte
    before = third.cell(CELL)
    shutil.rmtree(third.folder / "artifacts" / "cells" / CELL)
    succeeded(third.repro("--force", "--single-item", STAGE))
    assert third.cell(CELL) == before

    shutil.rmtree(third.folder / "imports" / CELL / "cell")
    absent = third.repro("--force", "--single-item", STAGE)
    assert absent.code != 0
    assert f"dvc pull imports/{CELL}/cell.dvc" in absent.output

    succeeded(third.dvc("pull", f"imports/{CELL}/cell.dvc"))
    flipped = third.folder / "imports" / CELL / "cell" / "completions.jsonl"
    flipped.write_bytes(flipped.read_bytes().replace(b"SELECT", b"DELETE", 1))
    refused = third.repro("--force", "--single-item", STAGE)
    assert refused.code != 0
    assert f"imports/{CELL}/cell is not what its record says" in refused.output
    assert "changed  completions.jsonl" in refused.output


def test_another_artifact_makes_the_import_stale_and_the_cell_says_so(
    merged: Merged, tmp_path: Path
) -> None:
    moved = Project(tmp_path / "moved")
    shutil.copytree(merged.world.first.folder, moved.folder)
    recipe = {"dtype": "float32", "bits": 8, "group_size": 64}
    moved.edit(mlx={"artifacts": ["4bit"], "recipes": {"4bit": recipe}})
    succeeded(moved.repro("--single-item", "convert_mlx@base-4bit"))
    output = succeeded(moved.repro("--single-item", STAGE)).output
    outcome = moved.cell(CELL)["outcome"]
    assert (outcome["state"], outcome["kind"]) == ("skipped", "elsewhere"), output
    assert f"imported from {merged.commit[:12]} does not match any more" in outcome["reason"]
    assert "artifact_identity: expected " in outcome["reason"]
    assert f"git rm -r imports/{CELL}" in outcome["remedy"]


# ------------------------------------------------------------------------------------- refusals


@pytest.fixture
def elsewhere(local: World, merged: Merged, run_once: Project, tmp_path: Path) -> Iterator[World]:
    """The first machine before anything was imported, and a copy of the other one to spoil."""
    first, other = Project(tmp_path / "first"), Project(tmp_path / "other")
    shutil.copytree(run_once.folder, first.folder)
    local.remote.add(first)
    commit(first, "remote")
    git(first, "remote", "add", "origin", git(local.first, "remote", "get-url", "origin"))
    shutil.copytree(local.other.folder, other.folder)
    assert merged.commit == git(other, "rev-parse", "HEAD")
    yield World(first, other, local.remote)
    assert not (first.folder / "imports").exists()
    assert git(first, "status", "--short") == ""


def refused(world: World, branch: str, *options: str, code: int = 3) -> str:
    done = world.first.driftline("import-cells", f"origin/{branch}", *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_other_decode_settings_are_refused_by_name(elsewhere: World) -> None:
    elsewhere.other.edit(decode={"max_new_tokens": 32, "context_length": 256})
    succeeded(elsewhere.other.driftline("run", "--only", "mlx"))
    elsewhere.branch("decode")
    said = refused(elsewhere, "decode")
    assert f"refused       {CELL}" in said
    assert "decode.max_new_tokens: expected 64, found 32" in said
    assert "artifact_identity" not in said


def test_another_artifact_is_refused_by_name(elsewhere: World) -> None:
    recipe = {"dtype": "float32", "bits": 8, "group_size": 64}
    elsewhere.other.edit(mlx={"artifacts": ["4bit"], "recipes": {"4bit": recipe}})
    succeeded(elsewhere.other.repro("--single-item", "convert_mlx@base-4bit"))
    succeeded(elsewhere.other.driftline("run", "--only", "mlx"))
    elsewhere.branch("artifact")
    said = refused(elsewhere, "artifact")
    assert "artifact_identity: expected " in said and f"inputs.{CELL}: expected " in said
    assert "decode" not in said


def test_answers_edited_after_they_were_given_are_refused(elsewhere: World) -> None:
    answers = elsewhere.other.folder / "artifacts" / "cells" / CELL / "completions.jsonl"
    answers.write_bytes(answers.read_bytes().replace(b"SELECT", b"DELETE", 1))
    succeeded(elsewhere.other.dvc("commit", "-f", STAGE))
    elsewhere.branch("edited")
    said = refused(elsewhere, "edited")
    assert f"origin/edited:artifacts/cells/{CELL} is not what its record says" in said
    assert "changed  completions.jsonl" in said
    assert str(elsewhere.first.folder) not in said and ".driftline" not in said


def test_bytes_changed_in_the_remote_are_refused(elsewhere: World, local: World) -> None:
    git(elsewhere.first, "fetch", "-q", "origin")
    answers = local.other.folder / "artifacts" / "cells" / CELL / "completions.jsonl"
    good, oid = answers.read_bytes(), _md5(answers)
    elsewhere.remote.replace(oid, good.replace(b"SELECT", b"DELETE", 1))
    try:
        said = refused(elsewhere, "mlx-cells")
    finally:
        elsewhere.remote.replace(oid, good)
    assert f"object {oid} in remote shared: expected md5 {oid}, found " in said


def test_a_cell_that_was_not_pushed_is_not_to_be_had(elsewhere: World, tmp_path: Path) -> None:
    git(elsewhere.first, "fetch", "-q", "origin")
    succeeded(elsewhere.first.dvc("remote", "modify", "shared", "url", str(tmp_path / "empty")))
    said = refused(elsewhere, "mlx-cells", code=4)
    assert "not in DVC's cache; not in remote shared" in said
    git(elsewhere.first, "checkout", "-q", ".dvc/config")


def test_a_reference_is_not_imported(elsewhere: World) -> None:
    git(elsewhere.first, "fetch", "-q", "origin")
    root = "transformers/base/checkpoint"
    said = refused(elsewhere, "mlx-cells", "--cell", root)
    assert f"{root} is the reference of base" in said and "has to run here" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-branch",), '"no-such-branch" is neither a release nor a git revision'),
        (("HEAD", "--cell", "mlx/base/4bits"), 'did you mean "mlx/base/4bit"'),
    ],
)
def test_what_does_not_exist_is_bad_input(
    elsewhere: World, arguments: tuple[str, ...], said: str
) -> None:
    done = elsewhere.first.driftline("import-cells", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_a_cell_the_other_machine_skipped_too_is_left(elsewhere: World) -> None:
    done = succeeded(elsewhere.first.driftline("import-cells", "HEAD"))
    assert f"not there     {CELL}" in done.stdout
    assert "skipped there too: made on another machine, not imported yet" in done.stdout


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ("mxl", 'no runtime "mxl" (did you mean "mlx"?)'),
        ("transformers", "the reference runs on the first machine"),
        ("vllm", "this project has no cell in vllm"),
    ],
)
def test_only_a_runtime_with_cells_can_be_run_alone(
    elsewhere: World, runtime: str, said: str
) -> None:
    done = elsewhere.other.driftline("run", "--only", runtime)
    assert done.returncode == 2
    assert said in done.stderr


# --------------------------------------------------------------------------------------- the bucket


def test_a_byte_flipped_in_the_bucket_is_found(merged_s3: Merged) -> None:
    world = merged_s3.world
    answers = world.first.folder / "artifacts" / "cells" / CELL / "completions.jsonl"
    good, oid = answers.read_bytes(), _md5(answers)
    world.remote.replace(oid, good.replace(b"S", b"s", 1))
    try:
        done = world.first.driftline("verify", "--deep", "--remote", "s3")
    finally:
        world.remote.replace(oid, good)
    assert done.returncode == 3, done.stdout
    assert f"changed  remote s3: {BUCKET}/cells/files/md5/{oid[:2]}/{oid[2:]}" in done.stdout
    assert "completions.jsonl" in done.stdout
    assert done.stdout.count("changed  ") == 1


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
