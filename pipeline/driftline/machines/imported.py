"""Cells made on another machine: whether one stands for a cell of this project, and where it lies.

`elsewhere` in params.yaml names runtimes whose cells are not made here. The other machine makes
them (`driftline run --only RUNTIME`); `driftline import-cells` brings each to `imports/<cell>/`: an
`import.json` in git, and the folder `cell/` exactly as the other machine wrote it, in DVC. The
score stage takes that folder instead of running, as long as it is still the same cell.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from driftline.errors import DriftlineError, InputError, RefusedError
from driftline.schema.answers import Completion
from driftline.schema.cells import CellRecord, CellSpec, Outcome
from driftline.schema.imports import ImportRecord
from driftline.schema.tasks import CellTask
from driftline.schema.values import load_lines
from driftline.store import digest, environments, records
from driftline.store.needs import Wanted, mismatches, shown

FOLDER = Path("imports")
RECORD = "import.json"
CELL = "cell"
ONLY = "DRIFTLINE_ONLY"
"""Environment variable: runtimes that run here whatever params.yaml says, separated by commas."""
ELSEWHERE = "elsewhere"
"""What `made_where` says of a cell that another machine makes and that is not imported yet."""
SHOWN = 3
"""Differences named in an outcome."""


# ------------------------------------------------------------------------------- a cell's folder


def read_cell(folder: Path, *, where: str, remedy: str) -> CellRecord:
    """The record of a cell that ran, whose folder was just found to be exactly what it says.

    Args:
        folder: its `cell.json` and all the files that record lists.
        where: what to call the folder in a message.
        remedy: what to do when it is refused.

    Raises:
        RefusedError: the record was edited, a file is extra, missing or changed, the cell has no
            answers, or its environment is not the one it ran in.
    """
    try:
        record = records.load_sealed(CellRecord, folder / records.CELL)
        digest.verify(folder, record.outputs, but=(records.CELL,), remedy=remedy)
    except DriftlineError as error:
        message = error.message.replace(folder.as_posix(), where)
        raise RefusedError(message, remedy=remedy) from None
    problems = [*_of_outcome(record), *_of_files(record), *_of_contents(record, folder)]
    if problems:
        raise RefusedError(f"{where}: " + "\n  ".join(problems), remedy=remedy)
    return record


def _of_outcome(record: CellRecord) -> Iterator[str]:
    outcome = record.outcome
    if not outcome.ran:
        yield f"outcome: expected ok or unstable, found {outcome.state}: {outcome.reason}"


def _of_files(record: CellRecord) -> Iterator[str]:
    """What the record says of single files must be what it lists among its outputs."""
    listed = {row.path: row.sha256 for row in record.outputs}
    said: dict[str, str | None] = {
        records.COMPLETIONS: record.completions_sha256,
        records.ENVIRONMENT: record.environment_sha256,
    }
    for text in record.forced:
        said |= text.digests
    for path, sha256 in said.items():
        if listed.get(path) != sha256:
            both = {"said": sha256, "listed": listed.get(path)}
            yield f"{path}: expected {shown(both, 'said')}, found {shown(both, 'listed')}"


def _of_contents(record: CellRecord, folder: Path) -> Iterator[str]:
    path = folder / records.COMPLETIONS
    try:
        answers = list(load_lines(Completion, path)) if path.is_file() else []
    except (ValidationError, UnicodeDecodeError) as error:
        yield f"{records.COMPLETIONS}: not answers of this version: {str(error).splitlines()[0]}"
        return
    if record.floor is None or record.floor.items != len(answers):
        items = record.floor.items if record.floor else "none"
        yield f"{records.COMPLETIONS}: expected {items} answers, found {len(answers)}"
    try:
        ran_in = environments.environment(folder)
    except RefusedError as error:
        yield error.message
        return
    if ran_in.get("runtime") != record.cell.runtime or "missing" in ran_in:
        said = f"{ran_in.get('runtime')}, {ran_in.get('missing', 'installed')}"
        yield f"{records.ENVIRONMENT}: expected that of {record.cell.runtime}, found {said}"


# ------------------------------------------------------------------------------------- on disk


def folder_of(cell: str) -> Path:
    """Where the import of a cell lies."""
    return FOLDER / cell


def read(cell: str) -> ImportRecord | None:
    """The record of a cell's import, None when it was not imported.

    Raises:
        RefusedError: it was edited, or is another cell's.
    """
    path = folder_of(cell) / RECORD
    if not path.is_file():
        return None
    remedy = f"git checkout {path}   (or, to run the cell here: git rm -r {path.parent})"
    try:
        record = records.load_sealed(ImportRecord, path)
    except RefusedError as error:
        raise RefusedError(error.message, remedy=remedy) from None
    if record.cell != cell:
        raise RefusedError(
            f"{path}: is the import of {record.cell}, expected that of {cell}", remedy=remedy
        )
    return record


def import_of(record: CellRecord) -> ImportRecord | None:
    """The import that a scored cell is, None for a cell that ran here.

    Raises:
        RefusedError: the import was edited.
    """
    import_record = read(record.cell.id)
    itself = import_record is not None and import_record.cell_seal == record.seal
    return import_record if itself else None


# ------------------------------------------------------------------------- where a cell is made


def only() -> tuple[str, ...]:
    """Runtimes that run here whatever params.yaml says, as `driftline run --only` asked."""
    return tuple(filter(None, os.environ.get(ONLY, "").split(",")))


def made_where(spec: CellSpec, elsewhere: Collection[str]) -> str:
    """What decides where a cell is made, for DVC: empty for one that simply runs here.

    Args:
        spec: the cell.
        elsewhere: runtimes whose cells another machine makes.

    Raises:
        RefusedError: its import was edited.
    """
    if spec.runtime in only():
        return ""
    import_record = read(spec.id)
    if import_record is not None:
        return f"import {import_record.seal}\n"
    return f"{ELSEWHERE}\n" if spec.runtime in elsewhere else ""


@dataclass(frozen=True)
class NotHere:
    """A cell that is not run here: the folder it was imported to, or how it ends without one."""

    folder: Path | None
    outcome: Outcome


def not_here(wanted: Wanted, elsewhere: Collection[str]) -> NotHere | None:
    """Whether and how a cell is made without running it; None: it runs here.

    Args:
        wanted: what it must have been made of.
        elsewhere: runtimes whose cells another machine makes.

    Raises:
        InputError: it was imported, and its bytes are not here.
        RefusedError: the import is not what its record says, or of a cell that cannot be imported.
    """
    spec = wanted.spec
    if spec.runtime in only():
        return None
    import_record = read(spec.id)
    if import_record is not None:
        return _imported(wanted, import_record)
    if spec.runtime in elsewhere:
        return NotHere(None, _skipped("made on another machine, not imported yet", spec))
    return None


def _imported(wanted: Wanted, import_record: ImportRecord) -> NotHere:
    spec, home = wanted.spec, folder_of(wanted.spec.id)
    if problem := unimportable(wanted.task):
        raise RefusedError(f"{home}: {problem}", remedy=f"git rm -r {home}")
    folder = home / CELL
    if not folder.is_dir():
        raise InputError(
            f"{folder}: the imported cell is not here, only its record",
            remedy=f"dvc pull {folder}.dvc   (or, to run the cell here: git rm -r {home})",
        )
    remedy = f"rm -r {folder} && dvc checkout {folder}.dvc   (driftline verify --deep: the cache)"
    record = read_cell(folder, where=folder.as_posix(), remedy=remedy)
    if record.seal != import_record.cell_seal:
        raise RefusedError(
            f"{folder}: its record has the seal {record.seal[:12]}…, {home / RECORD} names "
            f"{import_record.cell_seal[:12]}…",
            remedy=remedy,
        )
    differing = mismatches(record, wanted)
    if not differing:
        return NotHere(folder, record.outcome)
    shown = "; ".join(each.line for each in differing[:SHOWN])
    more = f"; {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    origin = f"the cell imported from {import_record.revision[:12]} does not match any more"
    here = f"   or run it here: git rm -r {home}"
    return NotHere(None, _skipped(f"{origin}: {shown}{more}", spec, here))


def unimportable(task: CellTask) -> str:
    """Why a cell has to run here; empty when it need not."""
    spec = task.cell
    if not task.writes_text:
        return ""
    return (
        f"{spec.id} is the reference of {spec.variant}: it writes the text that every cell of "
        f"{spec.variant} is put through, so it has to run here"
    )


def _skipped(reason: str, spec: CellSpec, otherwise: str = "") -> Outcome:
    there = f"there: driftline run --only {spec.runtime}   here: driftline import-cells REV"
    return Outcome(state="skipped", kind="elsewhere", reason=reason, remedy=there + otherwise)
