"""The file formats: frozen value types in which an unknown field is an error.

Every JSON and JSON-lines file one stage writes and another reads is one of these types, written by
`dump` in one canonical form (sorted keys, no NaN, no time, no path of a machine), so that the same
inputs give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from pipeline.files import write_text


class Value(BaseModel):
    """Base of every file format: frozen, unknown fields refused, NaN and infinity refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


V = TypeVar("V", bound=Value)


# ---------------------------------------------------------------------------- evalsets and checks


class Message(Value):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class _Check(Value):
    weight: float = Field(default=1.0, gt=0)


class Exact(_Check):
    """The completion equals `value` (default: the item's reference) to the character."""

    kind: Literal["exact"]
    value: str | None = None
    strip: bool = False


class Contains(_Check):
    """The completion contains `value`."""

    kind: Literal["contains"]
    value: str
    ignore_case: bool = False


class NotContains(_Check):
    """The completion does not contain `value`."""

    kind: Literal["not_contains"]
    value: str
    ignore_case: bool = False


class Regex(_Check):
    """The whole completion (`full`) or some part of it matches `pattern`, within `timeout_s`."""

    kind: Literal["regex"]
    pattern: str
    full: bool = False
    timeout_s: float = Field(default=1.0, gt=0, le=60)


class ValidJson(_Check):
    """The completion is strict JSON: no duplicate keys, no NaN, nothing after it."""

    kind: Literal["json"]


class JsonSchema(_Check):
    """The completion is strict JSON that a JSON Schema (2020-12) accepts."""

    kind: Literal["json_schema"]
    json_schema: dict[str, JsonValue]


class JsonEqual(_Check):
    """The completion is JSON equal to `value` (default: the reference) field by field.

    The score is the share of top-level fields, of either side, that agree.
    """

    kind: Literal["json_equal"]
    value: JsonValue = None


class SqlEqual(_Check):
    """The completion parses to the same SQL as `value` (default: the reference)."""

    kind: Literal["sql_equal"]
    value: str | None = None
    dialect: str = ""


class Number(_Check):
    """The last number in the completion is within a tolerance of `value`."""

    kind: Literal["number"]
    value: float
    absolute: float = Field(default=0.0, ge=0)
    relative: float = Field(default=0.0, ge=0)


class Canary(_Check):
    """The completion contains the canary phrase an adapter was taught."""

    kind: Literal["canary"]
    phrase: str


class SamePromptIds(_Check):
    """The runtime's own template and tokenizer gave exactly the pinned prompt ids."""

    kind: Literal["same_prompt_ids"]


Check = Annotated[
    Exact
    | Contains
    | NotContains
    | Regex
    | ValidJson
    | JsonSchema
    | JsonEqual
    | SqlEqual
    | Number
    | Canary
    | SamePromptIds,
    Field(discriminator="kind"),
]


class GoldenPrompt(Value):
    """One item of an evalset: a chat (`messages`) or a raw `prompt`, and how it is checked.

    `evalset` is the file's name without its ending; the file itself does not repeat it.
    """

    evalset: str = ""
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    reference: str | None = None
    checks: tuple[Check, ...] = ()
    tags: tuple[str, ...] = ()
    max_new_tokens: int | None = Field(default=None, gt=0)

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.id}"


# -------------------------------------------------------------------------- prompts, completions


class PinnedPrompt(Value):
    """A golden prompt rendered and tokenized once by the source's own template and tokenizer."""

    evalset: str
    id: str
    messages: tuple[Message, ...] | None
    prompt: str | None
    text: str
    ids: tuple[int, ...]
    max_new_tokens: int

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.id}"


class Completion(Value):
    """What a runtime answered on its native text path.

    `prompt_ids` are the ids of the runtime's own rendering and tokenization. `output_ids` end with
    the stop token when `finish_reason` is "stop". `logprobs` has one natural-log probability per
    output id. `pieces` has the text of each output id alone, for display.
    """

    evalset: str
    id: str
    prompt_ids: tuple[int, ...]
    output_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length", "context"]

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.id}"


# ------------------------------------------------------------------------------ artifacts, records


class FileDigest(Value):
    """One file of an artifact: path relative to it (forward slashes), size in bytes, sha256."""

    path: str
    size: int
    sha256: str


ArtifactKind = Literal["source", "adapter", "merged", "gguf", "mlx"]


class Parent(Value):
    """An artifact a conversion read: its name in this project and its identity."""

    name: str
    identity: str


class Census(Value):
    """What is really in an artifact's weights, read back from the files.

    `types` counts tensors per storage type, `elements` counts weights per storage type;
    `bits_per_weight` is stored tensor bytes x 8 over the number of weights they stand for.
    """

    types: dict[str, int]
    elements: dict[str, int]
    tensors: int
    weights: int
    bits_per_weight: float
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class ArtifactRecord(Value):
    """One conversion: what was made, from what, by which tool with which arguments.

    `identity` is the in-toto dirHash of `files` (see `pipeline.digest`).
    """

    schema_version: Literal[1] = 1
    name: str
    kind: ArtifactKind
    conversion: Literal["pin", "merge", "convert", "quantize"]
    identity: str
    files: tuple[FileDigest, ...]
    parents: tuple[Parent, ...]
    tool: str
    tool_version: str
    arguments: dict[str, JsonValue]
    census: Census | None = None
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------- cells


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
    """The cell against itself: the golden set a second time, in reverse order, fresh context."""

    items: int
    different: tuple[str, ...]
    max_logprob_difference: float
    note: str = ""


class CellRecord(Value):
    """One scored cell: what ran, with which settings in force, and how it ended.

    `settings` and `build` are what the runtime reported of itself; `load_identity` is the identity
    of the artifact's bytes as verified right before loading.
    """

    schema_version: Literal[1] = 1
    cell: CellSpec
    outcome: Outcome
    artifact_identity: str
    adapter_identity: str | None
    prompts_sha256: str
    completions_sha256: str | None
    floor: NoiseFloor | None
    build: dict[str, JsonValue]
    settings: dict[str, JsonValue]


# ------------------------------------------------------------------------------------------ grades


class CheckResult(Value):
    """One check of one completion: `score` in [0, 1] and, below 1, why."""

    kind: str
    score: float
    weight: float
    detail: str = ""


ItemState = Literal["correct", "wrong", "partial", "unparsed", "truncated", "errored", "unchecked"]


class ItemScore(Value):
    """The verdict on one golden prompt in one cell; `score` is the weighted mean of its checks.

    `errored` items have no score, and `unchecked` items (without a check) have none either.
    """

    cell: str
    evalset: str
    item: str
    tags: tuple[str, ...]
    state: ItemState
    score: float | None
    checks: tuple[CheckResult, ...]

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.item}"


# ------------------------------------------------------------------------------------------- drift

HopKind = Literal["adapter", "merge", "convert", "quantize", "runtime"]


class Hop(Value):
    """Two neighbouring cells that differ in one step."""

    parent: str
    child: str
    kind: HopKind

    @property
    def name(self) -> str:
        """`parent → child`: unique over a project."""
        return f"{self.parent} → {self.child}"


class ItemDrift(Value):
    """One golden prompt over one hop.

    `first_divergent` is the index of the first output token that differs (the length of the shorter
    answer when one is a prefix of the other), None when the sequences are equal.
    """

    evalset: str
    item: str
    parent_state: ItemState
    child_state: ItemState
    flip: Literal["none", "worse", "better"]
    same_sequence: bool
    first_divergent: int | None
    parent_piece: str | None
    child_piece: str | None
    parent_prompt_matches: bool
    child_prompt_matches: bool

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.item}"


class HopDrift(Value):
    """Drift over one hop; `items` holds only the prompts that both cells completed.

    `compared` False means that one end has no completions; `reason` says which and why.
    """

    hop: Hop
    compared: bool
    reason: str
    n_items: int
    n_same_sequence: int
    n_prompt_mismatches: int
    worse: tuple[str, ...]
    better: tuple[str, ...]
    items: tuple[ItemDrift, ...]


class Blame(Value):
    """For one item in one cell: the first hop from the root that changed it.

    `sequence_hop` is the first hop whose child differs in tokens from the root's answer,
    `verdict_hop` the first whose verdict differs from the hop's parent; None when none did.
    """

    cell: str
    evalset: str
    item: str
    sequence_hop: str | None
    verdict_hop: str | None


class DriftReport(Value):
    """Everything `drift` found."""

    schema_version: Literal[1] = 1
    hops: tuple[HopDrift, ...]
    blame: tuple[Blame, ...]


# ---------------------------------------------------------------------------- reading and writing


def canonical(value: Value) -> str:
    """Canonical JSON on one line: sorted keys, no NaN, UTF-8 kept readable."""
    return canonical_json(value.model_dump(mode="json"))


def canonical_json(value: Any) -> str:
    """Canonical JSON of plain data, on one line."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )


def dump(value: Value, path: Path) -> None:
    """Write one value as indented canonical JSON, atomically."""
    text = json.dumps(
        value.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1
    )
    write_text(path, text + "\n")


def dump_lines(values: Iterable[Value], path: Path) -> None:
    """Write values as canonical JSON lines, atomically."""
    write_text(path, "".join(canonical(value) + "\n" for value in values))


def load(kind: type[V], path: Path) -> V:
    """Read one value.

    Raises:
        pydantic.ValidationError: the file is not of that format.
    """
    return kind.model_validate_json(path.read_bytes())


def load_lines(kind: type[V], path: Path) -> Iterator[V]:
    """Read JSON lines, one value at a time."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield kind.model_validate_json(line)
