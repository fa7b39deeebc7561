"""Executes a GitHub workflow's steps, one by one, as its runner would on a machine of its own.

`run` steps are run by bash as they stand. Of `uses` only what the workflows have is known: a
checkout is a clone, Python and pip's cache are there already, and of an artifact the files have to
exist. Expressions are those of the workflows too; anything else is an error.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

THERE = ("actions/setup-python", "actions/cache")
"""Actions that set up what the tests' own environment already is."""


@dataclass(frozen=True)
class Step:
    """A step that was executed: its name, exit code, and what it printed."""

    name: str
    code: int
    output: str


@dataclass(frozen=True)
class Machine:
    """A runner with an empty folder.

    `origin` is what is cloned, `prepare` makes the clone's environment, `base` is the environment
    of every step, `context` has `github.event_name` and whatever else expressions name.
    """

    home: Path
    origin: Path
    prepare: Callable[[Path], None]
    base: Mapping[str, str]
    context: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.home / "work"

    @property
    def summary(self) -> Path:
        return self.home / "summary.md"

    def job(self, workflow: Path, name: str) -> dict[str, Step]:
        """Every step of a job that GitHub would run.

        After one that failed those are, and only those, whose condition does not ask for success.
        """
        self.home.mkdir(parents=True)
        data = yaml.safe_load(workflow.read_text())
        job = data["jobs"][name]
        shared = {**data.get("env", {}), **job.get("env", {})}
        done: dict[str, Step] = {}
        failed = False
        for step in job["steps"]:
            condition = str(step.get("if", ""))
            if (failed and "cancelled()" not in condition) or not self._holds(condition):
                continue
            found = self._step(step, shared)
            done[found.name] = found
            failed = failed or bool(found.code and not step.get("continue-on-error"))
        return done

    def _step(self, step: Mapping[str, Any], shared: Mapping[str, str]) -> Step:
        name = step["name"]
        if "run" in step:
            return self._shell(name, step["run"], {**shared, **step.get("env", {})})
        action, given = step["uses"].partition("@")[0], step.get("with", {})
        if action == "actions/checkout":
            self._clone(self._filled(given.get("ref", "")))
        elif action == "actions/upload-artifact":
            lost = [path for path in given["path"].split() if not (self.folder / path).exists()]
            return Step(name, 1 if lost else 0, f"missing: {lost}")
        elif action not in THERE:
            raise AssertionError(f"{name}: no idea what {action} does")
        return Step(name, 0, "")

    def _clone(self, ref: str) -> None:
        branch = ["--branch", ref] if ref else []
        subprocess.run(
            ["git", "clone", "-q", *branch, str(self.origin), str(self.folder)], check=True
        )
        self.prepare(self.folder)

    def _shell(self, name: str, script: str, given: Mapping[str, Any]) -> Step:
        """As GitHub runs it: `bash --noprofile --norc -eo pipefail`, in the checkout."""
        path = self.home / "path"
        added = path.read_text().split() if path.exists() else []
        env = {
            **self.base,
            **{key: self._filled(str(value)) for key, value in given.items()},
            "PATH": os.pathsep.join([*reversed(added), self.base["PATH"]]),
            "GITHUB_ACTIONS": "true",
            "GITHUB_PATH": str(path),
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return Step(name, done.returncode, done.stdout)

    def _filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: self._value(found[1]), text)

    def _value(self, name: str) -> str:
        return "" if name.startswith(("secrets.", "vars.")) else self.context[name]

    def _holds(self, condition: str) -> bool:
        """A condition of clauses joined by `&&`."""
        inside = condition.removeprefix("${{").removesuffix("}}").strip()
        return all(map(self._clause, filter(None, inside.split(" && "))))

    def _clause(self, clause: str) -> bool:
        if clause == "!cancelled()":
            return True
        found = re.fullmatch(r"([\w.]+) (==|!=) '(\w+)'", clause)
        assert found, f"no idea what {clause} means"
        return (self._value(found[1]) == found[3]) is (found[2] == "==")
