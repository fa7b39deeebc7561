"""Cells made on another machine: whether one stands for a cell of this project, and where it lies.

`elsewhere` in params.yaml names runtimes whose cells are not made here. The other machine makes
them (`driftline run --only RUNTIME`); `driftline import-cells` brings each to `imports/<cell>/`: an
`import.json` in git, and the folder `cell/` exactly as the other machine wrote it, in DVC. The
score stage takes that folder instead of running, as long as it is still the same cell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from driftline.errors import DriftlineError, InputError, RefusedError
from driftline.project import params, plan
from driftline.schema.answers import Completion
from driftline.schema.artifacts import Reference
from driftline.schema.cells import CellRecord, CellSpec, Outcome
from driftline.schema.imports import ImportRecord, Machine
from driftline.schema.values import canonical_json, load_lines
from driftline.store import digest, records

FOLDER = Path("imports")
RECORD = "import.json"
CELL = "cell"
ONLY = "DRIFTLINE_ONLY"
"""Environment variable: runtimes that run here whatever params.yaml says, separated by commas."""
RAN = ("ok", "unstable")
"""Outcomes with answers."""
SHOWN = 3
"""Differences named in an outcome."""


# ------------------------------------------------------------------------------- what is expected


@dataclass(frozen=True)
class Wanted:
    """What a cell must have run, read and been asked for to be this project's.

    `inputs` has the artifact first, then the attached adapter if there is one.
    """

    spec: CellSpec
    inputs: tuple[Reference, ...]
    decode: dict[str, JsonValue]

    @property
    def artifact_identity(self) -> str:
        """Of the artifact it runs."""
        return self.inputs[0].identity

    @property
    def adapter_identity(self) -> str | None:
        """Of the attached adapter."""
        return self.inputs[1].identity if self.spec.adapter else None

    @property
    def prompts_sha256(self) -> str:
        """Of the file of pinned prompts it answers."""
        return next(each.identity for each in self.inputs if each.name.startswith("prompts/"))


def prompts_of(spec: CellSpec) -> str:
    """File under `artifacts/prompts` that a cell answers."""
    return f"{'root' if spec.id == params.ROOT_CELL else spec.variant}.jsonl"


def input_names(project: params.Params, spec: CellSpec) -> tuple[str, ...]:
    """Everything a cell reads, by name under `artifacts/`, the artifact first."""
    own = spec.id == plan.reference(project, spec.variant)
    read = (name for name in plan.texts(project, spec) if not own or name != spec.variant)
    return (
        plan.artifact_of(spec),
        *([plan.adapter_of(spec)] if spec.adapter else []),
        f"prompts/{prompts_of(spec)}",
        *(["prompts/corpora.json"] if own else []),
        *(f"texts/{name}" for name in read),
    )


def wanted(
    project: params.Params, spec: CellSpec, inputs: Iterable[Reference] | None = None
) -> Wanted:
    """What `spec` must have been made of.

    Args:
        project: whose cell it is.
        spec: the cell.
        inputs: `input_names` as just verified; without them as their records say.

    Raises:
        InputError: there is no record of an input.
        RefusedError: a record was edited.
    """
    names = input_names(project, spec)
    found = inputs or (Reference(name=name, identity=records.current(name)) for name in names)
    asked = project.decode.model_dump(mode="json")
    return Wanted(spec, tuple(found), {**asked, "threads": project.limits.threads})


# ---------------------------------------------------------------------------- expected and found


@dataclass(frozen=True)
class Mismatch:
    """One field in which a cell's record is not what this project needs."""

    field: str
    expected: str
    found: str

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.field}: expected {self.expected}, found {self.found}"


def mismatches(record: CellRecord, wanted: Wanted) -> tuple[Mismatch, ...]:
    """Every field that makes `record` another cell than the one wanted; pure.

    Law: none if and only if the two name the same cell of the same artifact (and adapter), asked
    the same prompts, teacher-forced through the same texts, with the same decode settings.
    """
    spec = wanted.spec.model_dump(mode="json")
    inputs = {each.name: each.identity for each in wanted.inputs}
    own = {
        "artifact_identity": wanted.artifact_identity,
        "adapter_identity": wanted.adapter_identity,
        "prompts_sha256": wanted.prompts_sha256,
    }
    read = {each.name: each.identity for each in record.inputs}
    return (
        *_differing("cell.", spec, record.cell.model_dump(mode="json")),
        *_differing("", own, {name: getattr(record, name) for name in own}),
        *_differing("inputs.", inputs, read),
        *_differing("decode.", wanted.decode, record.decode),
    )


def _differing(
    prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Mismatch]:
    for name in dict.fromkeys((*expected, *found)):
        if name not in expected or name not in found or expected[name] != found[name]:
            yield Mismatch(prefix + name, _shown(expected, name), _shown(found, name))


def _shown(side: Mapping[str, Any], name: str) -> str:
    value = side.get(name)
    if name not in side or value is None:
        return "none"
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    return canonical_json(value)


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
    if outcome.state not in RAN:
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
            yield f"{path}: expected {_shown(both, 'said')}, found {_shown(both, 'listed')}"


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
        ran_in = environment(folder)
    except RefusedError as error:
        yield error.message
        return
    if ran_in.get("runtime") != record.cell.runtime or "missing" in ran_in:
        said = f"{ran_in.get('runtime')}, {ran_in.get('missing', 'installed')}"
        yield f"{records.ENVIRONMENT}: expected that of {record.cell.runtime}, found {said}"


# --------------------------------------------------------------------------------- environments


def environment(folder: Path) -> dict[str, Any]:
    """What was installed where the cell in `folder` ran; empty when it does not say.

    Raises:
        RefusedError: the file is there, and no environment.
    """
    path = folder / records.ENVIRONMENT
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RefusedError(f"{records.ENVIRONMENT}: not an environment", remedy="dvc repro")
    return value


def machine_of(environment: Mapping[str, Any]) -> Machine:
    """Where an environment is."""
    return Machine(**{name: str(environment.get(name, "")) for name in Machine.model_fields})


def software_of(environment: Mapping[str, Any]) -> dict[str, str]:
    """Versions by name of what an environment's runtime is made of, and of Python."""
    installed = environment.get("distributions") or {}
    versions = {name: str(each.get("version", "")) for name, each in installed.items()}
    return {"python": str(environment.get("python", "")), **versions}


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


def made_where(project: params.Params, spec: CellSpec) -> str:
    """What decides where a cell is made, for DVC: empty for one that simply runs here.

    Raises:
        RefusedError: its import was edited.
    """
    if spec.runtime in only():
        return ""
    import_record = read(spec.id)
    if import_record is not None:
        return f"import {import_record.seal}\n"
    return "elsewhere\n" if spec.runtime in project.elsewhere else ""


@dataclass(frozen=True)
class NotHere:
    """A cell that is not run here: the folder it was imported to, or how it ends without one."""

    folder: Path | None
    outcome: Outcome


def not_here(project: params.Params, wanted: Wanted) -> NotHere | None:
    """Whether and how a cell is made without running it; None: it runs here.

    Raises:
        InputError: it was imported, and its bytes are not here.
        RefusedError: the import is not what its record says, or of a cell that cannot be imported.
    """
    spec = wanted.spec
    if spec.runtime in only():
        return None
    import_record = read(spec.id)
    if import_record is not None:
        return _imported(project, wanted, import_record)
    if spec.runtime in project.elsewhere:
        return NotHere(None, _skipped("made on another machine, not imported yet", spec))
    return None


def _imported(project: params.Params, wanted: Wanted, import_record: ImportRecord) -> NotHere:
    spec, home = wanted.spec, folder_of(wanted.spec.id)
    if problem := unimportable(project, spec):
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


def unimportable(project: params.Params, spec: CellSpec) -> str:
    """Why a cell has to run here; empty when it need not."""
    if spec.id != plan.reference(project, spec.variant):
        return ""
    return (
        f"{spec.id} is the reference of {spec.variant}: it writes the text that every cell of "
        f"{spec.variant} is put through, so it has to run here"
    )


def _skipped(reason: str, spec: CellSpec, otherwise: str = "") -> Outcome:
    there = f"there: driftline run --only {spec.runtime}   here: driftline import-cells REV"
    return Outcome(state="skipped", kind="elsewhere", reason=reason, remedy=there + otherwise)
