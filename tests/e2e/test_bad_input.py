"""Bad input: one screen that says what, where and what to do; exit code 2 or 3; nothing written."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests import projects
from tests.paths import ROOT
from tests.projects import Project


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def branch(project: Project) -> None:
    project.edit(source={"repo": "acme/clerk", "revision": "main"})


def pickle(project: Project) -> None:
    folder = project.folder / "models" / "clerk"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")


def auto_map(project: Project) -> None:
    path = project.folder / "models" / "clerk" / "config.json"
    edit_json(path, auto_map={"AutoModelForCausalLM": "evil.Model"})


def duplicate_id(project: Project) -> None:
    projects.write_items(project.folder / "evalsets" / "small.jsonl", [*projects.ITEMS[:2]] * 2)


def invalid_regex(project: Project) -> None:
    item = {**projects.ITEMS[0], "checks": [{"kind": "regex", "pattern": "(a"}]}
    projects.write_items(project.folder / "evalsets" / "small.jsonl", [item])


def unknown_key(project: Project) -> None:
    project.edit(gguff={})


def truncated(project: Project) -> None:
    path = project.folder / "models" / "clerk" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def overlong_header(project: Project) -> None:
    path = project.folder / "models" / "clerk" / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])


CASES: list[tuple[Callable[[Project], None], int, str]] = [
    (branch, 2, "40-hex"),
    (pickle, 3, "pytorch_model.bin"),
    (auto_map, 3, "auto_map"),
    (duplicate_id, 2, "small.jsonl:3"),
    (invalid_regex, 2, "small.jsonl:1"),
    (unknown_key, 2, 'gguff: unknown key (did you mean "gguf"?)'),
    (truncated, 3, "model.safetensors"),
    (overlong_header, 3, "model.safetensors"),
]


@pytest.mark.parametrize(
    ("spoil", "code", "expected"), CASES, ids=lambda case: getattr(case, "__name__", None)
)
def test_it_is_refused_in_one_screen_and_nothing_is_written(
    tmp_path: Path, spoil: Callable[[Project], None], code: int, expected: str
) -> None:
    project = projects.create(tmp_path / "project")
    spoil(project)
    done = project.driftline("run")
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert expected in said
    assert "remedy: " in said
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 24
    assert [path.name for path in (project.folder / "artifacts").iterdir()] == [".gitignore"]
    assert not (project.folder / "reports").exists()


def test_an_adapter_of_another_base_is_refused_before_it_is_merged(tmp_path: Path) -> None:
    project = projects.create(tmp_path / "project")
    adapter = project.folder / "models" / "adapter"
    adapter.mkdir()
    source = ROOT / "models" / "adapters" / "audit"
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).write_bytes((source / name).read_bytes())
    edit_json(adapter / "adapter_config.json", base_model_name_or_path="acme/other")
    project.edit(
        adapters={"audit": {"path": "models/adapter"}},
        evalsets={"base": ["small"], "audit": ["small"]},
    )
    done = project.driftline("run")
    said = done.stdout + done.stderr
    assert done.returncode == 3, said
    assert "'acme/other'" in said and "'models/clerk'" in said
    assert "Traceback" not in said
    assert not (project.folder / "artifacts" / "checkpoints").exists()


def test_the_message_names_every_line_of_an_evalset_that_is_wrong(tmp_path: Path) -> None:
    project = projects.create(tmp_path / "project")
    path = project.folder / "evalsets" / "small.jsonl"
    path.write_text('{"id": "a"}\nnot json\n{"id": "b", "prompt": "x", "chekcs": []}\n')
    done = project.driftline("check")
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert all(f"small.jsonl:{line}" in said for line in (1, 2, 3))
    assert 'did you mean "checks"?' in said


def test_check_says_what_is_in_order(tmp_path: Path) -> None:
    project = projects.create(tmp_path / "project")
    done = project.driftline("check")
    assert done.returncode == 0, done.stderr
    assert "4 cells, 8 golden prompts in 1 evalsets" in done.stdout
    assert yaml.safe_load((project.folder / "params.yaml").read_text())["variants"] == ["base"]
