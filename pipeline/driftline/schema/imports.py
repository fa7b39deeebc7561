"""Cells that another machine made: `imports/<cell>/import.json`."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Sealed, Value


class Machine(Value):
    """Where something ran, as its probed environment says; what that leaves out is empty."""

    system: str = ""
    machine: str = ""
    cpu: str = ""

    @property
    def label(self) -> str:
        """For people: `Darwin arm64, Apple M2`."""
        place = " ".join(part for part in (self.system, self.machine) if part)
        return ", ".join(part for part in (place, self.cpu) if part)


class ImportRecord(Sealed):
    """One cell taken over from another machine, beside its folder `cell/`.

    `revision` is the 40-hex commit whose `dvc.lock` had it; `made_at` what people call the machine;
    `machine` and `software` (versions by name) are of the environment it ran in, whose file's
    sha256 is `environment_sha256`; `cell_seal` is that of the cell's own record. `notes` say what
    differs between there and here without making it another cell.
    """

    schema_version: Literal[1] = 1
    cell: str
    revision: str
    made_at: str
    machine: Machine
    software: dict[str, str]
    artifact_identity: str
    adapter_identity: str | None
    environment_sha256: str
    cell_seal: str
    notes: tuple[str, ...] = ()
