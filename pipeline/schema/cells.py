"""Cells: what is scored, and how it went."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from pipeline.schema.forced import ForcedRecord
from pipeline.schema.values import Value


class CellSpec(Value):
    """One cell to score: an artifact (with an adapter attached, or none) in a runtime.

    `id` is `runtime/variant/form`; `artifact` and `adapter` are paths relative to the project.
    """

    id: str
    runtime: str
    variant: str
    form: str
    artifact: str
    adapter: str | None = None


class Outcome(Value):
    """How scoring a cell ended. Nothing but `ok` carries a score.

    `kind` tells errors apart: `crashed` (killed by a signal, out of memory, past its deadline) is
    retried by the next run, `raised` (the runtime itself said no) is not until something changes.
    """

    state: Literal["ok", "error", "skipped", "unstable"]
    kind: Literal["", "raised", "crashed", "deadline", "missing"] = ""
    reason: str = ""
    remedy: str = ""
    last_item: str = ""


class NoiseFloor(Value):
    """The cell against itself: the golden set a second time, in reverse order, in a new process."""

    items: int
    different: tuple[str, ...]
    max_logprob_difference: float


class CellRecord(Value):
    """One scored cell: what ran, with which settings in force, and how it ended.

    `settings` and `build` are what the runtime reported of itself; `artifact_identity` is that of
    the artifact's bytes as verified right before loading. `forced` is what it kept of each
    teacher-forced text, `not_forced` why there is nothing though there should be.
    """

    schema_version: Literal[1] = 1
    cell: CellSpec
    outcome: Outcome
    artifact_identity: str
    adapter_identity: str | None
    prompts_sha256: str
    completions_sha256: str | None
    floor: NoiseFloor | None
    forced: tuple[ForcedRecord, ...] = ()
    not_forced: str = ""
    build: dict[str, JsonValue]
    settings: dict[str, JsonValue]
