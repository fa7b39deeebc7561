"""Drift over one hop: two cells, answer by answer.

Laws: a cell compared with itself shows no drift; every item either has the same tokens or a first
divergent one; swapping parent and child swaps `worse` and `better` and finds the same answers
equal.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from driftline.drift.cause import Ends, first_difference
from driftline.drift.cause import cause as cause_of
from driftline.drift.evidence import CellEvidence
from driftline.drift.split import Comparisons, split, text_of
from driftline.drift.statistics import paired_scores
from driftline.drift.text import text_drift
from driftline.errors import InputError
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.hops import Cause, Hop, HopDrift, ItemDrift
from driftline.schema.scores import ItemState
from driftline.schema.statistics import PairedScores
from driftline.schema.text import SourceVocabulary

Flip = Literal["none", "worse", "better"]

NO_VERDICT: tuple[ItemState, ...] = ("unchecked", "errored")
"""States that say nothing about the answer, so that no change of verdict starts or ends there."""


def flip(parent: ItemState, child: ItemState) -> Flip:
    """How the verdict changed: `worse` is correct → anything else that is a verdict."""
    if parent in NO_VERDICT or child in NO_VERDICT:
        return "none"
    if (parent == "correct") == (child == "correct"):
        return "none"
    return "worse" if parent == "correct" else "better"


def item_drift(
    parent: Completion,
    child: Completion,
    *,
    parent_state: ItemState,
    child_state: ItemState,
    pinned: PinnedPrompt,
    cause: Cause | None = None,
) -> ItemDrift:
    """One golden prompt over one hop.

    Args:
        parent: the answer before the step.
        child: the answer after it, to the same prompt.
        parent_state: the verdict on `parent`.
        child_state: the verdict on `child`.
        pinned: the prompt, whose ids each runtime's own prompt ids are held against.
        cause: why they part, where that is known.
    """
    where = first_difference(parent.output_ids, child.output_ids)
    return ItemDrift(
        evalset=pinned.evalset,
        item=pinned.id,
        parent_state=parent_state,
        child_state=child_state,
        flip=flip(parent_state, child_state),
        same_sequence=where is None,
        first_divergent=where,
        parent_piece=_piece(parent, where),
        child_piece=_piece(child, where),
        parent_prompt_matches=parent.prompt_ids == pinned.ids,
        child_prompt_matches=child.prompt_ids == pinned.ids,
        cause=cause,
    )


def _piece(completion: Completion, where: int | None) -> str | None:
    """Text of one output token, None where the answer has already ended."""
    if where is None or where >= len(completion.pieces):
        return None
    return completion.pieces[where]


def hop_drift(
    hop: Hop,
    parent: CellEvidence,
    child: CellEvidence,
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary | None = None,
    made: Comparisons | None = None,
) -> HopDrift:
    """Drift over one hop, on the prompts that both cells completed and repeated.

    `vocabulary` names pieces of prompts that differ, `made` saves comparisons made before.

    What is left out is counted in `reason`: prompts in a noise floor's `different`, and prompts
    that only one of the cells completed of an evalset that both were given.
    `n_prompt_mismatches` counts prompts whose ids in the *child* are not the pinned ones.

    Raises:
        InputError: a completed prompt is not among the pinned ones.
    """
    failures = [end.failure for end in (parent, child) if end.failure]
    if failures:
        return not_compared(hop, "; ".join(failures))
    _check_pinned(parent, child, pinned=pinned)
    text = text_of(hop, parent, child)
    items = tuple(_items(text, parent, child, pinned))
    left_out = _left_out(parent, child)
    if not items:
        return not_compared(
            hop, "; ".join(("no prompt that both cells completed and repeated", *left_out))
        )
    parts, not_split = split(text, parent, child, made or Comparisons())
    return HopDrift(
        hop=hop,
        compared=True,
        reason="; ".join(left_out),
        n_items=len(items),
        n_same_sequence=sum(item.same_sequence for item in items),
        n_prompt_mismatches=sum(not item.child_prompt_matches for item in items),
        worse=tuple(item.key for item in items if item.flip == "worse"),
        better=tuple(item.key for item in items if item.flip == "better"),
        items=items,
        scores=_scores(items, parent, child),
        text=text_drift(parent, child, pinned, vocabulary),
        split=parts,
        not_split=not_split,
    )


def _scores(
    items: Sequence[ItemDrift], parent: CellEvidence, child: CellEvidence
) -> PairedScores | None:
    """Scores of the items both ends have one for; None when there is none."""
    pairs = []
    for item in items:
        before, after = parent.scores.get(item.key), child.scores.get(item.key)
        if before is None or after is None or before.score is None or after.score is None:
            continue
        pairs.append((before.score, after.score))
    if not pairs:
        return None
    return paired_scores(
        [before for before, _ in pairs],
        [after for _, after in pairs],
        worse=sum(item.flip == "worse" for item in items),
        better=sum(item.flip == "better" for item in items),
    )


def not_compared(hop: Hop, reason: str) -> HopDrift:
    """A hop without a measurement, and why."""
    return HopDrift(
        hop=hop,
        compared=False,
        reason=reason,
        n_items=0,
        n_same_sequence=0,
        n_prompt_mismatches=0,
        worse=(),
        better=(),
        items=(),
    )


def median_divergence(hop: HopDrift) -> float | None:
    """Median index of the first divergent token over the answers that part; None if none does."""
    places = [item.first_divergent for item in hop.items if item.first_divergent is not None]
    return float(statistics.median(places)) if places else None


def _items(
    text: str, parent: CellEvidence, child: CellEvidence, pinned: Mapping[str, PinnedPrompt]
) -> list[ItemDrift]:
    items = []
    for key, prompt in pinned.items():
        before, after = parent.answer(key), child.answer(key)
        if before is not None and after is not None:
            items.append(
                item_drift(
                    before,
                    after,
                    parent_state=parent.state(key),
                    child_state=child.state(key),
                    pinned=prompt,
                    cause=cause_of(text, parent, child, Ends(before, after, prompt)),
                )
            )
    return items


def _check_pinned(*cells: CellEvidence, pinned: Mapping[str, PinnedPrompt]) -> None:
    for cell in cells:
        strange = [key for key in cell.answered if key not in pinned]
        if strange:
            shown = ", ".join(strange[:3])
            raise InputError(
                f"{cell.id}: {len(strange)} completed prompts are not among the pinned ones: "
                f"{shown}",
                remedy="run `dvc repro`: the cell was scored on other prompts",
            )


def _left_out(parent: CellEvidence, child: CellEvidence) -> list[str]:
    """What `items` does not hold, one phrase per cause."""
    phrases = []
    both = set(parent.answered) & set(child.answered)
    for cell in (parent, child):
        count = len(both & cell.unstable)
        if count:
            phrases.append(f"{_prompts(count)} left out as unstable in {cell.id}")
    shared = _evalsets(parent) & _evalsets(child)
    for cell, other in ((parent, child), (child, parent)):
        alone = set(cell.answered) - set(other.answered)
        count = sum(cell.completions[key].evalset in shared for key in alone)
        if count:
            phrases.append(f"{_prompts(count)} left out as completed only by {cell.id}")
    return phrases


def _prompts(count: int) -> str:
    return f"{count} prompt" if count == 1 else f"{count} prompts"


def _evalsets(cell: CellEvidence) -> set[str]:
    return {cell.completions[key].evalset for key in cell.answered}
