"""`dvc repro` on a small real project: what runs, what does not, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.evidence import lineage
from driftline.evidence.history import FolderTree
from driftline.store import digest
from tests import projects
from tests.conftest import need
from tests.projects import Project

pytestmark = pytest.mark.e2e

ALWAYS = ["probe/dvc.yaml:probe"]
LIGHT = ["grade", "drift", "lineage", "report"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    need("llamacpp")
    need("mlx")
    made = projects.create(tmp_path_factory.mktemp("repro") / "project")
    first = made.repro()
    assert first.code == 0, first.output
    return made


@pytest.fixture
def settled(project: Project) -> Iterator[Project]:
    """The project with nothing left to do."""
    assert project.repro().code == 0
    yield project


def model_runs(ran: list[str]) -> list[str]:
    return [stage for stage in ran if stage.startswith("score")]


def test_every_cell_is_scored_and_the_report_written(project: Project) -> None:
    for name in ("transformers/base/checkpoint", "llamacpp/base/f32", "llamacpp/base/q8_0"):
        assert project.cell(name)["outcome"]["state"] == "ok"
    metrics = json.loads((project.folder / "reports" / "metrics.json").read_text())
    accuracy = metrics["cells"]["transformers"]["base"]["checkpoint"]["small"]["accuracy"]
    assert accuracy == 1.0
    report = (project.folder / "reports" / "lineage.md").read_text()
    assert "```mermaid" in report and "llamacpp/base/q8_0" in report


def test_every_hop_is_split_and_the_corpus_is_part_of_it(project: Project) -> None:
    report = json.loads((project.folder / "artifacts" / "drift" / "drift.json").read_text())
    hops = {hop["hop"]["child"]: hop for hop in report["hops"]}
    assert report["findings"] == []
    full, quantized = hops["llamacpp/base/f32"]["split"], hops["llamacpp/base/q8_0"]["split"]
    assert full["weights"]["kl_max"] == 0.0
    assert quantized["weights"]["kl_mean"]["value"] > 0
    assert quantized["numerics"]["kl_mean"]["value"] > 0
    # 8 golden sequences and the windows of the corpus, whose second half alone is kept
    assert full["end_to_end"]["sequences"] > 8
    # 64 of 768 tokens are kept: the rest is one class, and said to be there
    assert 0 < full["end_to_end"]["tail_mass_max"] < 1
    text = (project.folder / "artifacts" / "texts" / "base" / "sequences.jsonl").read_text()
    windows = [each for each in map(json.loads, text.splitlines()) if each["kind"] == "corpus"]
    assert all(len(each["ids"]) == 63 and each["first_row"] == 32 for each in windows)


def test_the_evidence_says_what_the_drift_report_says(project: Project) -> None:
    report = json.loads((project.folder / "artifacts" / "drift" / "drift.json").read_text())
    found = lineage.read(FolderTree(project.folder / "reports" / "lineage"))
    assert set(found.artifacts) == {
        "checkpoints/base",
        "gguf/base/f32",
        "gguf/base/q8_0",
        "mlx/base/4bit",
    }
    assert set(found.cells) == {*found.hops, "transformers/base/checkpoint"}
    asked = [f"small/{item['id']}" for item in projects.ITEMS]
    assert list(found.items("transformers/base/checkpoint")) == asked
    for hop in report["hops"]:
        own = found.hops[hop["hop"]["child"]]
        items = found.items(hop["hop"]["child"])
        assert list(items)[: len(asked)] == asked
        assert all(each.kl is not None and each.text_sha256 for each in items.values())
        rows = sum(each.rows for each in items.values())
        mean = sum(each.rows * (each.kl or 0) for each in items.values()) / rows
        assert own.kl is not None and mean == pytest.approx(own.kl.value, rel=1e-9)
        assert rows == hop["split"]["end_to_end"]["positions"]
    for name, record in found.artifacts.items():
        assert record.census is not None and record.facts is not None
        assert len(found.tensors(name)) == record.census.tensors or name.startswith("mlx/")
        assert record.identity == digest.identity(digest.rows(project.folder / "artifacts" / name))
    templates = {each.facts.template_sha256 for each in found.artifacts.values() if each.facts}
    assert len(templates) == 1 and None not in templates


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("drift", "cells/llamacpp/base/q8_0/distributions/base/rows.npy"),
        ("drift", "counterfactuals/gguf/base/q8_0/distributions/base/logits.npy"),
        ("drift", "counterfactuals/mlx/base/4bit/record.json"),
        ("drift", "grades/scores.jsonl"),
        ("drift", "texts/base/sequences.jsonl"),
        ("grade", "cells/mlx/base/4bit/completions.jsonl"),
        ("grade", "evalset/items.jsonl"),
        ("grade", "prompts/root.jsonl"),
        ("lineage", "records/gguf/base/q8_0/record.json"),
        ("lineage", "texts/base/ids.npy"),
        ("report", "cells/mlx/base/4bit/cell.json"),
        ("report", "drift/drift.json"),
    ],
)
def test_a_flipped_bit_is_refused_by_the_stage_that_reads_it(
    settled: Project, stage: str, path: str
) -> None:
    file = settled.folder / "artifacts" / path
    whole = file.read_bytes()
    half = len(whole) // 2
    flipped = bytes([whole[half] ^ 1])
    file.unlink()  # DVC may have linked it to its cache
    file.write_bytes(whole[:half] + flipped + whole[half + 1 :])
    try:
        done = settled.stage(stage)
    finally:
        file.write_bytes(whole)
    assert done.returncode == 3, done.stderr
    assert Path(path).name in done.stderr and "remedy: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_budget_names_the_worst_tensors_and_controls_itself(project: Project) -> None:
    done = project.driftline("budget", "llamacpp/base/q8_0", "--sequences", "3")
    assert done.returncode == 0, done.stderr
    assert "zero control (nothing swapped): 0\n" in done.stdout
    written = project.folder / "reports" / "budget" / "llamacpp-base-q8_0.json"
    found = json.loads(written.read_text())
    assert found["control"] == 0.0 < found["whole"]
    assert 0.5 < found["additivity"] < 2
    assert found["groups"][0]["kl"] >= found["groups"][-1]["kl"] > 0
    assert "<svg" in written.with_suffix(".svg").read_text()


@pytest.mark.parametrize(
    ("hop", "said"),
    [("llamacpp/base/q8", 'did you mean "llamacpp/base/q8_0"'), ("nothing", "no hop")],
)
def test_a_budget_of_no_hop_says_which_there_are(project: Project, hop: str, said: str) -> None:
    done = project.driftline("budget", hop)
    assert done.returncode == 2
    assert said in done.stderr and "mlx/base/4bit" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_machine_path_or_host_is_in_a_file_another_stage_reads(project: Project) -> None:
    host = os.uname().nodename
    for path in sorted((project.folder / "artifacts").rglob("*")):
        if path.suffix in (".json", ".jsonl", ".md") and path.is_file():
            text = path.read_text()
            assert str(project.folder) not in text, path
            assert sys.prefix not in text, path
            assert len(host) < 5 or host not in text, path


def test_nothing_changed_runs_only_the_probe(settled: Project) -> None:
    assert settled.repro().ran == ALWAYS


def test_policy_blessings_and_baseline_make_the_report_anew_and_nothing_else(
    settled: Project,
) -> None:
    def page() -> str:
        return (settled.folder / "reports" / "lineage.html").read_text()

    for command in (
        ["config", "user.name", "Reviewer"],
        ["config", "user.email", "reviewer@example.org"],
        ["add", "-A"],
        ["commit", "-q", "-m", "evidence"],
        ["tag", "before"],
    ):
        subprocess.run(["git", *command], cwd=settled.folder, check=True)
    settled.edit(baseline="before", gate={"rules": [{"kinds": ["quantize"], "max_kl": 0.0}]})
    assert settled.repro().ran == [*ALWAYS, "report"]
    assert "Gate: fail." in page()
    assert "What differs from the baseline at" in page() and "No input differs" in page()
    blessed = settled.driftline("bless", "kl:llamacpp/base/q8_0", "--reason", "it is 8 bits")
    assert blessed.returncode == 0, blessed.stderr
    assert settled.repro().ran == [*ALWAYS, "report"]
    assert "Gate: pass." in page() and "it is 8 bits" in page()
    assert "it is 8 bits" in (settled.folder / "reports" / "lineage.md").read_text()
    (settled.folder / "blessings.yaml").write_text("- {id: x}\n")
    refused = settled.repro()
    assert refused.code != 0 and "blessings.yaml" in refused.output
    (settled.folder / "blessings.yaml").unlink()
    settled.edit(gate={"rules": []})


def test_a_quantization_more_runs_that_conversion_and_its_cell(settled: Project) -> None:
    settled.edit(gguf={"outtype": "f32", "quantizations": ["q8_0", "q4_k_m"]})
    ran = settled.repro().ran
    assert sorted(ran) == sorted(
        [
            *ALWAYS,
            "quantize@base-q4_k_m",
            "score_quantized@base-q4_k_m",
            "counterfactual_quantized@base-q4_k_m",
            *LIGHT,
        ]
    )


def test_a_comment_in_a_runtimes_module_runs_that_runtimes_cells(settled: Project) -> None:
    with (settled.folder / "pipeline" / "driftline" / "runtimes" / "mlx.py").open("a") as module:
        module.write("# a comment\n")
    before = settled.cell("mlx/base/4bit")
    assert sorted(settled.repro().ran) == sorted([*ALWAYS, "score_mlx@base-4bit", *LIGHT])
    # what is read again is the record alone: it says which code made it
    changed = {key for key, value in settled.cell("mlx/base/4bit").items() if value != before[key]}
    assert changed == {"code_sha256", "seal"}


def test_a_conversion_made_again_with_the_same_bytes_makes_nothing_else_stale(
    settled: Project,
) -> None:
    with (settled.folder / "pipeline" / "driftline" / "stages" / "convert_mlx.py").open(
        "a"
    ) as module:
        module.write("# a comment\n")
    again = settled.repro()
    assert again.code == 0, again.output
    assert sorted(again.ran) == sorted(
        [*ALWAYS, "convert_mlx@base-4bit", "drift", "lineage", "report"]
    )


def test_a_changed_check_runs_no_model(settled: Project) -> None:
    items = [
        {**item, "checks": [{"kind": "contains", "value": "SELECT"}]} for item in projects.ITEMS
    ]
    projects.write_items(settled.folder / "evalsets" / "small.jsonl", items)
    ran = settled.repro().ran
    assert "grade" in ran
    assert model_runs(ran) == []


def test_another_llama_cpp_runs_its_conversions_and_cells(settled: Project, tmp_path: Path) -> None:
    """Another version of the package is found first on the path, as an upgrade would leave it."""
    fake = tmp_path / "llama_cpp_python-9.9.9.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 9.9.9\n"
    )
    (fake / "RECORD").write_text("")
    ran = settled.repro("--dry", PYTHONPATH=str(tmp_path))
    assert ran.code == 0
    settled.dvc("repro", "-s", "probe/dvc.yaml:probe", PYTHONPATH=str(tmp_path))
    stale = settled.repro("--dry", PYTHONPATH=str(tmp_path)).ran
    changed = [
        stage for stage in stale if stage.startswith(("convert", "quantize", "score", "pin"))
    ]
    assert changed, stale
    assert all("gguf" in stage or "quantize" in stage or "quantized" in stage for stage in changed)


def test_a_worker_killed_halfway_is_one_cells_error_and_is_done_again(settled: Project) -> None:
    many = [{**item, "id": f"{item['id']}-{n}"} for n in range(10) for item in projects.ITEMS]
    projects.write_items(settled.folder / "evalsets" / "small.jsonl", many)
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=settled.folder,
        env=settled.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    _kill_worker(settled, "mlx-base-4bit-1")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    killed = settled.cell("mlx/base/4bit")["outcome"]
    assert (killed["state"], killed["kind"]) == ("error", "crashed")
    assert "SIGKILL" in killed["reason"]
    assert killed["last_item"].startswith("small/")
    assert settled.cell("llamacpp/base/q8_0")["outcome"]["state"] == "ok"
    assert "SIGKILL" in (settled.folder / "reports" / "lineage.md").read_text()

    journals = list((settled.folder / ".driftline" / "journals").glob("*.jsonl"))
    assert [journal.stat().st_size > 0 for journal in journals] == [True, True]
    again = settled.repro()
    assert model_runs(again.ran) == ["score_mlx@base-4bit"]
    assert settled.cell("mlx/base/4bit")["outcome"]["state"] == "ok"
    assert not any(journal.exists() for journal in journals)


def _kill_worker(project: Project, name: str) -> None:
    """SIGKILL the worker of a cell once it, and its twin, have answered something."""
    until = time.monotonic() + 240
    job = f".driftline/jobs/{name}.json"
    journals = project.folder / ".driftline" / "journals"
    while time.monotonic() < until:
        if running := _processes(job):
            written = [path.stat().st_size for path in journals.glob("*.jsonl")]
            if len(written) == 2 and all(written):
                for pid in running:
                    os.kill(pid, signal.SIGKILL)
                return
        time.sleep(0.05)
    raise AssertionError("the worker never started")


def _processes(argument: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argument.encode() in words and b"driftline.runtimes.worker" in words:
            found.append(int(folder.name))
    return found
