"""Pinned prompts, and what runtimes answer to them."""

from __future__ import annotations

from typing import Literal

from driftline.schema.messages import Message
from driftline.schema.values import Value


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

    `prompt_ids` are the ids of the runtime's own rendering and tokenization, `prompt_text` is the
    rendered text before it (None where the runtime does not tell). `output_ids` end with
    the stop token when `finish_reason` is "stop". `logprobs` has one natural-log probability per
    output id. `pieces` has the text of each output id alone, for display.
    """

    evalset: str
    id: str
    prompt_ids: tuple[int, ...]
    prompt_text: str | None = None
    output_ids: tuple[int, ...]
    pieces: tuple[str, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: Literal["stop", "length", "context"]

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.id}"
