"""The gate on the working tree or a commit: reads policy, blessings and evidence, then judges."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from driftline.compare import comparison
from driftline.errors import DriftlineError, InputError
from driftline.evidence import history
from driftline.evidence.lineage import Evidence
from driftline.gate import blessings, evaluation, policy
from driftline.project import params
from driftline.project.params import Params
from driftline.project.sections.reading import PARAMS_FILE
from driftline.schema.budget import Budget
from driftline.schema.comparison import Baseline
from driftline.schema.gate import Blessing, GateReport
from driftline.schema.values import load
from driftline.store.digest import sha256_file


def judge(revision: str | None, *, today: date) -> tuple[GateReport, Evidence]:
    """The report on the working tree (None), or on a release or git revision, and its evidence.

    A revision is judged by the policy and the blessings it has.

    Raises:
        InputError: there is no such revision, or its params.yaml or blessings.yaml is none.
        RefusedError: the evidence was edited, or made with another params.yaml.
    """
    commit = None if revision is None else history.commit_of(revision)
    project = params.read() if commit is None else _project(commit, str(revision))
    accepted = accepted_at(commit, where=f"{revision}:" if revision else "")
    evidence = history.at(revision)
    evaluation.check_made_with(project, evidence)
    return evaluation.evaluate(policy.policy(project), evidence, accepted, today=today), evidence


BUDGETS = Path("reports") / "budget"
"""Error budgets that `driftline budget` left; no stage makes them."""


def budgets() -> tuple[tuple[Budget, ...], tuple[str, ...]]:
    """Every error budget there is, and the files that are none of this version."""
    known, unread = [], []
    for path in sorted(BUDGETS.glob("*.json")):
        try:
            known.append(load(Budget, path))
        except ValidationError:
            unread.append(path.as_posix())
    return tuple(known), tuple(unread)


def inputs(project: Params) -> dict[str, Any]:
    """What reports read beside evidence: policy, blessings, the baseline's commit, error budgets.

    Raises:
        InputError: blessings.yaml is none, or there is no such baseline.
    """
    name = project.baseline
    return {
        "budgets": {path.name: sha256_file(path) for path in sorted(BUDGETS.glob("*.json"))},
        "gate": project.gate,
        "blessings": [each.model_dump(mode="json") for each in accepted_at(None)],
        "baseline": None if name is None else {"name": name, "commit": history.commit_of(name)},
    }


def judge_working_tree(project: Params) -> tuple[GateReport, Baseline | None]:
    """The working tree's evidence against the policy, every blessing in force, and the baseline.

    A policy that cannot be applied, or a baseline that cannot be compared, is said, not raised:
    whatever was measured is to be seen all the same. Nothing of it depends on the day.
    """
    evidence = history.at(None)
    try:
        accepted = accepted_at(None)
        report = evaluation.evaluate(
            policy.policy(project), evidence, accepted, today=evaluation.ALWAYS
        )
    except DriftlineError as error:
        report = evaluation.refused(error, today=evaluation.ALWAYS)
    return report, baseline(project, evidence)


def baseline(project: Params, evidence: Evidence) -> Baseline | None:
    """The baseline that params.yaml names against some evidence, or why it cannot be compared."""
    name, commit = project.baseline, ""
    if name is None:
        return None
    try:
        commit = history.commit_of(name)
        return Baseline(
            name=name, commit=commit, comparison=comparison.compare(history.at(name), evidence)
        )
    except DriftlineError as error:
        return Baseline(name=name, commit=commit, problem=error.message)


def accepted_at(commit: str | None, *, where: str = "") -> tuple[Blessing, ...]:
    """Entries of blessings.yaml in the working tree (None) or at a commit; none without the file.

    Args:
        commit: 40-hex, or None.
        where: what messages put before the file's name.

    Raises:
        InputError: it is not YAML, or not a list of blessings; all problems at once.
    """
    text = _here(blessings.FILE) if commit is None else _there(commit, blessings.FILE)
    name = f"{where}{blessings.FILE}"
    return blessings.parse(_yaml(text, name), where=name)


def _project(commit: str, name: str) -> Params:
    where = f"{name}:{PARAMS_FILE}"
    given = _yaml(_there(commit, PARAMS_FILE), where)
    return params.parse(params.upgraded(given) if isinstance(given, dict) else given, where=where)


def _yaml(text: str | None, where: str) -> Any:
    try:
        return yaml.safe_load(text or "")
    except yaml.YAMLError as error:
        raise InputError(f"{where}: not YAML: {error}", remedy=f"correct {where}") from None


def _here(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _there(commit: str, path: Path) -> str | None:
    """A file of the project at a commit; None where it has none."""
    if not history.git("ls-tree", "--name-only", commit, "--", path.as_posix()):
        return None
    return history.git("cat-file", "blob", f"{commit}:./{path.as_posix()}")
