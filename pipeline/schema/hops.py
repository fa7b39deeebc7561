"""Hops between cells, and what changed over them."""

from __future__ import annotations

from typing import Literal

from pipeline.schema.scores import ItemState
from pipeline.schema.values import Value

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
