"""`driftline run --only`: this machine makes cells for a project that lives on another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from driftline.commands.common import dvc
from driftline.errors import InputError, did_you_mean
from driftline.machines import imported
from driftline.project import params, plan, routes, tasks
from driftline.project.plan import PlannedCell
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
    read = (path for cell in cells for path in _read_by(tasks.of(project, cell).inputs))
    _pull({path for path in read if not path.exists()})
    stages = ["probe/dvc.yaml:probe", *(plan.stage(project, cell) for cell in cells)]
    forced = ["--force"] if force else []
    return dvc("repro", "--single-item", *forced, *stages, **{imported.ONLY: ",".join(runtimes)})


def _cells(project: params.Params, runtimes: tuple[str, ...]) -> list[PlannedCell]:
    movable = routes.movable()
    for name in runtimes:
        if name not in movable:
            close = did_you_mean(name, movable)
            raise InputError(
                f'--only: no runtime "{name}"{close}; known: {", ".join(movable)}',
                remedy="driftline run --only RUNTIME   (the reference runs on the first machine)",
            )
    cells = [cell for cell in plan.planned(project) if cell.spec.runtime in runtimes]
    if not cells:
        raise InputError(
            f"--only: this project has no cell in {', '.join(runtimes)}", remedy="driftline plan"
        )
    return cells


def _pull(absent: set[Path]) -> None:
    if absent:
        dvc("pull", *sorted(path.as_posix() for path in absent))
    still = sorted(path.as_posix() for path in absent if not path.exists())
    if still:
        raise InputError(
            f"not here, and not in the DVC remote: {', '.join(still)}",
            remedy="on the first machine: driftline run, git commit, dvc push; here: git pull",
        )


def _read_by(inputs: Iterable[str]) -> Iterator[Path]:
    """What DVC tracks of all that a cell reads: artifacts with their records, whole folders."""
    for name in inputs:
        kind = name.partition("/")[0]
        if kind == "prompts":
            yield records.ARTIFACTS / kind
        elif kind == "texts":
            yield records.ARTIFACTS / name
        else:
            yield records.ARTIFACTS / name
            yield records.RECORDS / name
