"""`driftline run --only`: this machine makes cells for a project that lives on another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from driftline.errors import InputError, did_you_mean
from driftline.machines import imported
from driftline.project import params, plan
from driftline.schema.cells import CellSpec
from driftline.store import records


def run(runtimes: tuple[str, ...], *, force: bool) -> int:
    """Score the cells of `runtimes` on this machine and nothing else.

    What they read was made on the first machine and stays as it is: made here, with this machine's
    arithmetic, it would be another text. What of it is not here is pulled.

    Returns:
        DVC's exit code.

    Raises:
        InputError: no such runtime, or it has no cell, or something it reads is nowhere.
    """
    project = params.read()
    cells = _cells(project, runtimes)
    _pull({path for spec in cells for path in _read_by(project, spec) if not path.exists()})
    stages = ["probe/dvc.yaml:probe", *(plan.stage(project, spec) for spec in cells)]
    forced = ["--force"] if force else []
    return _dvc("repro", "--single-item", *forced, *stages, **{imported.ONLY: ",".join(runtimes)})


def _cells(project: params.Params, runtimes: tuple[str, ...]) -> list[CellSpec]:
    for name in runtimes:
        if name not in params.MOVABLE:
            close = did_you_mean(name, params.MOVABLE)
            raise InputError(
                f'--only: no runtime "{name}"{close}; known: {", ".join(params.MOVABLE)}',
                remedy="driftline run --only RUNTIME   (Transformers runs on the first machine)",
            )
    cells = [spec for spec in plan.plan(project) if spec.runtime in runtimes]
    if not cells:
        raise InputError(
            f"--only: this project has no cell in {', '.join(runtimes)}", remedy="driftline plan"
        )
    return cells


def _pull(absent: set[Path]) -> None:
    if absent:
        _dvc("pull", *sorted(path.as_posix() for path in absent))
    still = sorted(path.as_posix() for path in absent if not path.exists())
    if still:
        raise InputError(
            f"not here, and not in the DVC remote: {', '.join(still)}",
            remedy="on the first machine: driftline run, git commit, dvc push; here: git pull",
        )


def _read_by(project: params.Params, spec: CellSpec) -> Iterator[Path]:
    """What DVC tracks of all that a cell reads: artifacts with their records, whole folders."""
    for name in imported.input_names(project, spec):
        kind = name.partition("/")[0]
        if kind == "prompts":
            yield records.ARTIFACTS / kind
        elif kind == "texts":
            yield records.ARTIFACTS / name
        else:
            yield records.ARTIFACTS / name
            yield records.RECORDS / name


def _dvc(*arguments: str, **environment: str) -> int:
    # Stages are run as `python -m …`: it has to be this Python, activated or not.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, env={**os.environ, "PATH": path, **environment}, check=False)
    return done.returncode
