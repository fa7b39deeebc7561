"""Checks before any work: cheap, nothing is loaded into a runtime, nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftline.errors import LAST_ERROR
from driftline.evidence import history
from driftline.gate import judgement, policy
from driftline.golden import evalset
from driftline.probe import environment
from driftline.project import params, plan, routes


def project() -> str:
    """Check the project's configuration and inputs.

    Returns:
        One line that says what was found to be in order.

    Raises:
        InputError: params.yaml, an evalset or blessings.yaml is wrong; or the baseline is none.
        RefusedError: a local source or adapter must not be loaded.
    """
    settings = params.read()
    items = evalset.load([evalset.path_of(name) for name in settings.evalset_names])
    _lint(settings)
    policy.policy(settings)
    judgement.accepted_at(None)
    if settings.baseline is not None:
        history.commit_of(settings.baseline)
    cells = len(plan.plan(settings))
    sets = len(settings.evalset_names)
    return f"in order: {cells} cells, {len(items)} golden prompts in {sets} evalsets"


def _lint(project: params.Params) -> None:
    from driftline.conversions.merge import check_belongs
    from driftline.conversions.pin import check_location

    check_location(project.source, "source", "source")
    for name, location in project.adapters.items():
        check_location(location, "adapter", f"adapters.{name}")
        if location.path is not None:
            check_belongs(Path(location.path), project.source)


def exit_code_of_failed_run() -> int:
    """Exit code of the stage that made `dvc repro` fail; 4 when it left none."""
    try:
        return int(LAST_ERROR.read_text())
    except (OSError, ValueError):
        return 4


def runtimes() -> tuple[list[str], bool]:
    """One block of lines per runtime, and whether all of them are here."""
    lines, complete = [], True
    for name in routes.targets():
        facts = environment.probe(name, threads=1)
        if "missing" in facts:
            complete = False
            lines.append(f"missing  {name:13} {facts['missing']}")
            lines.append(f"         {'':13} install: {facts['install']}")
            continue
        lines.append(f"found    {name:13} {_versions(facts)}")
        if environment.NOT_FETCHED in facts.values():
            complete = False
            lines.append(f"         {'':13} GGUF converter missing: driftline fetch-converter")
    return lines, complete


def _versions(facts: dict[str, Any]) -> str:
    parts = [f"{name} {each['version']}" for name, each in facts["distributions"].items()]
    return f"{', '.join(parts)}; Python {facts['python']}"
