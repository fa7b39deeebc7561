"""The text component of drift: what a runtime made of a prompt, and how its answers end."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Value

PromptClass = Literal["template", "bos", "eos", "special", "tokenizer"]
"""How a prompt went wrong: other template text, a BOS (or EOS) doubled or missing, a special token
split into plain pieces, or other pieces for the same text (normalization, merges, scores)."""


class SourceVocabulary(Value):
    """What the source's tokenizer calls each id.

    `pieces` are indexed by id; `special` are the ids of special and added tokens, ascending.
    """

    pieces: tuple[str, ...]
    special: tuple[int, ...]
    bos: int | None
    eos: tuple[int, ...]


class PromptDifference(Value):
    """One golden prompt whose ids, on a runtime's own text path, are not the pinned ones.

    `position` is the first index that differs; the pieces there are None past an end.
    """

    evalset: str
    item: str
    cause: PromptClass
    position: int
    pinned_piece: str | None
    own_piece: str | None
    detail: str

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.item}"


class StopDifference(Value):
    """End tokens, stop strings or limits in force that differ between the cells of a hop."""

    setting: str
    parent: str
    child: str


class TextDrift(Value):
    """The text path over one hop.

    `prompts` lists those whose ids are pinned ones before the hop and not after it, `stops` the
    rules for ending an answer that differ, `fields` the tokenizer and template fields of the
    artifact that are not what its converter writes for this source.
    """

    prompts: tuple[PromptDifference, ...] = ()
    stops: tuple[StopDifference, ...] = ()
    fields: tuple[str, ...] = ()
