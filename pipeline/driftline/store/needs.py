"""What a cell must have run, read and been asked for, and in what a record differs from that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.schema.artifacts import Reference
from driftline.schema.cells import CellRecord, CellSpec
from driftline.schema.tasks import CellTask
from driftline.schema.values import canonical_json, load
from driftline.store import records

TASKS = records.ARTIFACTS / "tasks"


def task_path(cell: str) -> Path:
    """Where the probe writes what the processes of a cell are told."""
    return TASKS / f"{cell}.json"


def task(cell: str) -> CellTask:
    """What the processes of a cell are told.

    Raises:
        InputError: the probe wrote none: it has not run, or the plan has no such cell.
    """
    return load(CellTask, records.probed(task_path(cell)))


@dataclass(frozen=True)
class Wanted:
    """What a cell must have run, read and been asked for to be this project's.

    `inputs` are those of the task, in its order: the artifact, then the attached adapter if there
    is one.
    """

    task: CellTask
    inputs: tuple[Reference, ...]

    @property
    def spec(self) -> CellSpec:
        """The cell."""
        return self.task.cell

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


def wanted(task: CellTask, inputs: Iterable[Reference] | None = None) -> Wanted:
    """What the cell of a task must have been made of.

    Args:
        task: of the cell.
        inputs: the task's inputs as just verified; without them as their records say.

    Raises:
        InputError: there is no record of an input.
        RefusedError: a record was edited.
    """
    verified = inputs or (
        Reference(name=name, identity=records.current(name)) for name in task.inputs
    )
    return Wanted(task, tuple(verified))


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
        *_differing("decode.", wanted.task.decode, record.decode),
    )


def _differing(
    prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[Mismatch]:
    for name in dict.fromkeys((*expected, *found)):
        if name not in expected or name not in found or expected[name] != found[name]:
            yield Mismatch(prefix + name, shown(expected, name), shown(found, name))


def shown(side: Mapping[str, Any], name: str) -> str:
    """A field of one side in a message: digests shortened, `none` for what is not there."""
    value = side.get(name)
    if name not in side or value is None:
        return "none"
    if isinstance(value, str) and len(value) == 64:
        return f"{value[:12]}…"
    return canonical_json(value)
