"""CI files are what GitHub and GitLab read, and call only what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.cli import main
from tests.paths import ROOT

GITHUB = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"


def validate(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", GITHUB, ids=lambda path: path.name)
def test_github_workflows_are_valid(path: Path, tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    done = validate(path, *schema)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / path.name
    broken.write_text(path.read_text().replace("runs-on:", "run-on:"))
    assert validate(broken, *schema).returncode == 1


def test_gitlabs_is_valid(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci")
    done = validate(GITLAB, *schema)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / GITLAB.name
    broken.write_text(GITLAB.read_text().replace("when: always", "when: ever"))
    assert validate(broken, *schema).returncode == 1


def scripts(data: Any) -> str:
    """Every shell script of a CI file."""
    if isinstance(data, dict):
        own = [
            data[key] for key in ("run", "script", "before_script", "after_script") if key in data
        ]
        flat = [line for each in own for line in (each if isinstance(each, list) else [each])]
        return "\n".join([*flat, *(scripts(value) for value in data.values())])
    return "\n".join(map(scripts, data)) if isinstance(data, list) else ""


@pytest.mark.parametrize("path", [*GITHUB, GITLAB], ids=lambda path: path.name)
def test_commands_and_options_exist(path: Path) -> None:
    text = scripts(yaml.safe_load(path.read_text())).replace("\\\n", " ")
    calls = re.findall(r"\bdriftline ([a-z-]+)([^|&;\n]*)", text)
    assert {name for name, _ in calls} >= {"run", "gate"} or path.name == "test.yml"
    for name, rest in calls:
        command = main.commands[name]
        known = {option for each in command.params for option in each.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for line in re.findall(r"\bmake ([a-z -]+)", text):
        assert set(line.split()) <= targets


@pytest.mark.parametrize("path", GITHUB, ids=lambda path: path.name)
def test_no_expression_is_pasted_into_a_script(path: Path) -> None:
    """What a pull request's author writes could otherwise be run; it goes through `env`."""
    assert "${{" not in scripts(yaml.safe_load(path.read_text()))
