"""Golden prompts and their checks, as evalset files have them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from driftline.schema.messages import Message
from driftline.schema.values import Value


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
