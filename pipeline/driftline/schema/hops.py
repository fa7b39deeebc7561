"""Hops between cells, what changed over them, and because of what."""

from __future__ import annotations

from typing import Literal

from driftline.schema.scores import ItemState
from driftline.schema.statistics import DistributionDrift, PairedScores, SequenceDrift
from driftline.schema.text import TextDrift
from driftline.schema.values import Value

HopKind = Literal["adapter", "merge", "convert", "quantize", "runtime"]
Component = Literal["text", "weights", "numerics"]


class Hop(Value):
    """Two neighbouring cells that differ in one step."""

    parent: str
    child: str
    kind: HopKind

    @property
    def name(self) -> str:
        """`parent → child`: unique over a project."""
        return f"{self.parent} → {self.child}"


class Cause(Value):
    """Why two answers part: the component, None where the evidence does not say; and the reason.

    `margin` is by how many nats the parent preferred its token there over its second choice (None
    where that was not measured); `near_tie` says that it is small enough for rounding to decide.
    """

    component: Component | None
    reason: str
    margin: float | None = None
    near_tie: bool = False


class ItemDrift(Value):
    """One golden prompt over one hop.

    `first_divergent` is the index of the first output token that differs (the length of the shorter
    answer when one is a prefix of the other), None when the sequences are equal; `cause` is then
    None too.
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
    cause: Cause | None = None

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.item}"


class Split(Value):
    """Drift of next-token distributions over one hop A → B, end to end and in parts.

    `end_to_end` is from A to B over prompts and answers, `answers` the same over the rows about
    answers alone, which is what users meet; `weights` is from W(A) to W(B), the stored weights of
    both in the reference runtime, `numerics` from W(B) to B, `parent_numerics` from W(A) to A.
    `withheld` says why the parts are not known, though the whole is. `rest` is what the mean KL end
    to end has beyond weights and numerics: KL is not additive, so it need not be 0. `sequences` is
    `end_to_end` sequence by sequence.
    """

    end_to_end: DistributionDrift
    answers: DistributionDrift | None = None
    weights: DistributionDrift | None = None
    numerics: DistributionDrift | None = None
    parent_numerics: DistributionDrift | None = None
    rest: float | None = None
    withheld: str = ""
    sequences: tuple[SequenceDrift, ...] = ()


class HopDrift(Value):
    """Drift over one hop; `items` holds only the prompts that both cells completed.

    `compared` False means that one end has no completions; `reason` says which and why. `split` is
    None where no distributions were kept, because of `not_split`. `summary` says in one sentence
    what the hop cost and why.
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
    scores: PairedScores | None = None
    text: TextDrift = TextDrift()
    split: Split | None = None
    not_split: str = ""
    summary: str = ""


class Blame(Value):
    """For one item in one cell: the first hop from the root that changed it.

    `sequence_hop` is the first hop whose child differs in tokens from the root's answer,
    `verdict_hop` the first whose verdict differs from the hop's parent; None when none did. The
    causes are those of the item on that hop.
    """

    cell: str
    evalset: str
    item: str
    sequence_hop: str | None
    verdict_hop: str | None
    sequence_cause: Cause | None = None
    verdict_cause: Cause | None = None


class Finding(Value):
    """Something that is not as it should be, whether or not it cost an answer.

    `code` is stable; `where` is a hop's name or a cell's id; `items` are examples, at most ten.
    """

    code: str
    where: str
    component: Component | None
    message: str
    items: tuple[str, ...] = ()


class CellDrift(Value):
    """One cell against the reference of its lineage, and the hops on the way, costliest first.

    `decoding_gap` is the largest difference in nats between the log-probability of a token as it
    was decoded and as it was teacher-forced, on answers that are the reference's own: arithmetic
    that depends on how many tokens are evaluated at once. It belongs beside the noise floor.
    """

    cell: str
    reference: str
    drift: DistributionDrift | None
    hops: tuple[str, ...]
    decoding_gap: float | None


class DriftReport(Value):
    """Everything `drift` found."""

    schema_version: Literal[3] = 3
    hops: tuple[HopDrift, ...]
    blame: tuple[Blame, ...]
    cells: tuple[CellDrift, ...] = ()
    findings: tuple[Finding, ...] = ()
