"""Why two answers part at a token: text, stored weights, or the arithmetic that ran them; pure.

Both cells teacher-forced the reference's answer, so at the token where they part each has a
distribution over the very context it decoded from, as long as the parent still gave the
reference's answer. Four distributions decide: parent A, child B, and their stored weights in the
reference runtime, W(A) and W(B).

- B emitted a token that its own distribution does not prefer: it does not decode greedily (a
  penalty, a sampler), which belongs to the text path; unless it is a near-tie, where evaluating one
  token at a time rounds otherwise than evaluating all at once.
- W(B) already prefers B's token, and W(A) does not: the stored weights.
- Otherwise the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from driftline.drift.evidence import CellEvidence
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.forced import ForcedSequence
from driftline.schema.hops import Cause, Component
from driftline.store.distributions import Distributions

WENT_ON, STOPPED, CUT_OFF = "the child went on", "the child stopped", "the child was cut off"
NOT_GREEDY = "not greedy"
"""How reasons of the text component begin: each is a finding of its own."""

Why = tuple[Component | None, str]
"""A component and the reason."""

NEAR_TIE = 0.1
"""Nats: a parent that prefers its token by no more than this may lose it to rounding."""
DECODING_SLACK = 0.3
"""Nats by which decoding may prefer another token than teacher-forcing without another rule:
llama.cpp's logits differ by up to 0.11 between the two on a 4-bit file."""


@dataclass(frozen=True)
class Prefers:
    """One row of a cell's distribution: its two most likely ids, nats between them."""

    top1: int
    top2: int
    margin: float

    def at_most_behind(self, token: int) -> float:
        """Nats from the most likely id down to `token`; a lower bound beyond the second."""
        return 0.0 if token == self.top1 else self.margin


@dataclass(frozen=True)
class Ends:
    """One item at both ends of a hop."""

    parent: Completion
    child: Completion
    pinned: PinnedPrompt


def cause(text: str, parent: CellEvidence, child: CellEvidence, ends: Ends) -> Cause | None:
    """Why the child's answer parts from the parent's; None when it does not.

    Args:
        text: name of the teacher-forced text both were put through.
        parent: the cell before the hop.
        child: the cell after it.
        ends: their answers.
    """
    before, after = ends.parent.output_ids, ends.child.output_ids
    place = first_difference(before, after)
    if place is None:
        return None
    if _is_reference(child.distributions.get(text) or parent.distributions.get(text), ends):
        return Cause(component=None, reason="back to the reference's answer, which the parent left")
    if ends.child.prompt_ids != ends.parent.prompt_ids:
        return Cause(component="text", reason="the prompt has other ids")
    stopped = _stopped(parent, ends, place)
    if stopped:
        return Cause(component="text", reason=stopped)
    rows = {
        name: _row(kept, ends, place)
        for name, kept in (
            ("parent", parent.distributions.get(text)),
            ("child", child.distributions.get(text)),
            ("parent_weights", _weights(parent, text)),
            ("child_weights", _weights(child, text)),
        )
    }
    return _decide(rows, before[place], after[place])


def _is_reference(kept: Distributions | None, ends: Ends) -> bool:
    """Whether the child gives the reference's own answer: what parts is then the parent's doing."""
    sequence = kept.sequence(ends.pinned.key) if kept else None
    if sequence is None:
        return False
    return (*ends.child.prompt_ids, *ends.child.output_ids) == (*sequence.ids, sequence.target)


def _decide(rows: Mapping[str, Prefers | None], before: int, after: int) -> Cause:
    parent, child = rows["parent"], rows["child"]
    if parent is None or child is None:
        return Cause(component=None, reason="no distribution of this very context was kept")
    component, reason = (
        _not_greedy(parent, child, before, after)
        or _rounded(parent, child, before, after)
        or _split(rows["parent_weights"], rows["child_weights"], after)
    )
    margin, near = parent.margin, parent.margin <= NEAR_TIE
    return Cause(component=component, reason=reason, margin=margin, near_tie=near)


def _not_greedy(parent: Prefers, child: Prefers, before: int, after: int) -> Why | None:
    """A cell that emitted a token far behind another: a penalty, a sampler."""
    for whose, cell, token in (("its own", child, after), ("the parent's", parent, before)):
        gap = cell.at_most_behind(token)
        if gap > DECODING_SLACK:
            word = NOT_GREEDY if cell is child else f"the parent was {NOT_GREEDY}"
            return "text", f"{word}: {whose} most likely token is ahead by {gap:.2g} nats"
    return None


def _rounded(parent: Prefers, child: Prefers, before: int, after: int) -> Why | None:
    """A cell that emitted another token than its first, though not one far behind."""
    if after == child.top1 and before == parent.top1:
        return None
    if after in (child.top1, child.top2) and before in (parent.top1, parent.top2):
        return "numerics", "decoded token by token it rounds otherwise than teacher-forced"
    return None, "two tokens are ahead of it in its cell's distribution: by how much was not kept"


def _split(kept: Prefers | None, stored: Prefers | None, after: int) -> Why:
    """Stored weights of both in the reference runtime: which of them already prefer the token."""
    if stored is None or kept is None:
        return None, "the split is withheld"
    if stored.top1 != after:
        reason = (
            "the stored weights, in the reference runtime, do not prefer it: the arithmetic does"
        )
        return "numerics", reason
    if kept.top1 == after:
        reason = "the stored weights of both already prefer it: the parent's arithmetic did not"
        return "numerics", reason
    reason = "the stored weights alone, in the reference runtime, already prefer this token"
    return "weights", reason


def first_difference(before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Index of the first token that differs (the shorter length for a prefix); None if equal."""
    for index, (left, right) in enumerate(zip(before, after, strict=False)):
        if left != right:
            return index
    return None if len(before) == len(after) else min(len(before), len(after))


def _stopped(parent: CellEvidence, ends: Ends, place: int) -> str:
    """How the rules for ending an answer made it part; empty when tokens did."""
    before, after = ends.parent.output_ids, ends.child.output_ids
    if place == len(before):
        if ends.parent.finish_reason != "stop":
            return f"the parent was cut off ({ends.parent.finish_reason}), the child went on"
        if before and before[-1] in parent.end_ids:
            return f"{WENT_ON} after the token that ended the parent's answer"
        return f"{WENT_ON} after the stop string that ended the parent's answer"
    if place == len(after):
        if ends.child.finish_reason != "stop":
            return f"{CUT_OFF} ({ends.child.finish_reason})"
        return f"{STOPPED} at a token or string at which the parent went on"
    return ""


def _weights(cell: CellEvidence, text: str) -> Distributions | None:
    return cell.weights.distributions.get(text) if cell.weights else None


def _row(kept: Distributions | None, ends: Ends, place: int) -> Prefers | None:
    """What a cell prefers after the common part, if the forced text has that very context."""
    if kept is None:
        return None
    sequence = kept.sequence(ends.pinned.key)
    if sequence is None or not _same_context(sequence, ends, place):
        return None
    context = len(ends.child.prompt_ids) + place  # a prompt of its own may be of another length
    row: Any = kept.read(sequence.key).rows[context - 1 - sequence.first_row]
    return Prefers(
        top1=int(row["top1"]),
        top2=int(row["top2"]),
        margin=float(row["top1_logit"]) - float(row["top2_logit"]),
    )


def _same_context(sequence: ForcedSequence, ends: Ends, place: int) -> bool:
    context = (*ends.child.prompt_ids, *ends.child.output_ids[:place])
    return bool(context) and sequence.ids[: len(context)] == context
