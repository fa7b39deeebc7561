"""Cells: what is scored, and how it went."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from driftline.schema.artifacts import FileDigest, Reference
from driftline.schema.forced import ForcedRecord
from driftline.schema.values import Sealed, Value


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
    Of what is skipped, `missing` has no runtime here, and `elsewhere` is another machine's to make.
    """

    state: Literal["ok", "error", "skipped", "unstable"]
    kind: Literal["", "raised", "crashed", "deadline", "missing", "elsewhere"] = ""
    reason: str = ""
    remedy: str = ""
    last_item: str = ""


class NoiseFloor(Value):
    """The cell against itself: the golden set a second time, in reverse order, in a new process."""

    items: int
    different: tuple[str, ...]
    max_logprob_difference: float


class Capabilities(Value):
    """What a runtime can give; a finding asks for a capability, never for a runtime by name.

    `distributions`: next-token logits of a text it is given. `log_probs`: those of its own answers.
    `token_ids`: the ids of a prompt as it read it, and of its answer. `own_template`: it renders a
    chat with the artifact's own template. `adapters`: a LoRA adapter can be attached unmerged.
    `exact_products`: on CPU it multiplies stored weights dequantized to float32, so that its
    arithmetic is the reference's.
    """

    distributions: bool = True
    log_probs: bool = True
    token_ids: bool = True
    own_template: bool = True
    adapters: bool = False
    exact_products: bool = False


class CellRecord(Sealed):
    """One scored cell: what ran, with which settings in force, and how it ended.

    `settings` and `build` are what the runtime reported of itself; `artifact_identity` is that of
    the artifact's bytes as verified right before loading. `inputs` are the records of all it read:
    artifact, adapter, prompts, texts. `decode` is what was asked for. `outputs` are the other files
    of the cell's folder. `forced` is what it kept of each teacher-forced text, `not_forced` why
    there is nothing though there should be. `capabilities` are its runtime's. `code_sha256` and
    `environment_sha256` are the sha256 of `artifacts/code/score_<runtime>` and of the folder's
    `environment.json`.
    """

    schema_version: Literal[2] = 2
    cell: CellSpec
    outcome: Outcome
    artifact_identity: str
    adapter_identity: str | None
    inputs: tuple[Reference, ...] = ()
    prompts_sha256: str
    completions_sha256: str | None
    outputs: tuple[FileDigest, ...] = ()
    floor: NoiseFloor | None
    forced: tuple[ForcedRecord, ...] = ()
    not_forced: str = ""
    capabilities: Capabilities = Capabilities()
    decode: dict[str, JsonValue] = Field(default_factory=dict)
    code_sha256: str = ""
    environment_sha256: str = ""
    build: dict[str, JsonValue]
    settings: dict[str, JsonValue]
