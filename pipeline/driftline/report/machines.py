"""Where each cell ran: machines, each said once with the cells it ran."""

from __future__ import annotations

import re
from dataclasses import dataclass

from driftline.report.model import ReportInput
from driftline.schema.imports import ImportRecord, Machine

UNKNOWN = "not recorded"
_MARKS = re.compile(r"\((?:R|TM|C)\)", re.IGNORECASE)
"""What makers put into the name of a CPU."""


@dataclass(frozen=True)
class MachineRow:
    """One machine, and how its cells came here: `label` and `revision` are empty for this one."""

    machine: str
    label: str
    revision: str
    cells: tuple[str, ...]


def machine_rows(evidence: ReportInput) -> tuple[MachineRow, ...]:
    """One row per machine and import, in the order in which they first occur.

    Law: every cell that ran is in exactly one of them.
    """
    rows: dict[tuple[str, str, str], list[str]] = {}
    for cell in evidence.cells:
        if cell.ran:
            name = cell.cell.id
            place = _place(evidence.machines.get(name), evidence.imports.get(name))
            rows.setdefault(place, []).append(name)
    return tuple(MachineRow(*place, tuple(cells)) for place, cells in rows.items())


def _place(machine: Machine | None, imported: ImportRecord | None) -> tuple[str, str, str]:
    if imported is None:
        return _short(machine), "", ""
    label = "" if imported.made_at == imported.machine.label else imported.made_at
    return _short(imported.machine), label, imported.revision


def _short(machine: Machine | None) -> str:
    """A machine as its label says, its CPU without marks and clock."""
    if machine is None or not machine.label:
        return UNKNOWN
    cpu = " ".join(_MARKS.sub("", machine.cpu).partition(" @ ")[0].split())
    return machine.model_copy(update={"cpu": cpu}).label
