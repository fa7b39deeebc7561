"""Which hop changed an answer first.

A cell is held against its *reference*: the root of the lineage or, below an adapter, the cell where
that adapter is attached. An adapter is there to change answers, so its own hop is measured like any
other but never blamed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from driftline.drift.evidence import CellEvidence
from driftline.drift.hops import NO_VERDICT, flip
from driftline.schema.answers import PinnedPrompt
from driftline.schema.hops import Blame, Cause, Hop, HopDrift


def path_to(cell: str, parents: Mapping[str, Hop]) -> tuple[Hop, ...]:
    """The hops from a cell's reference to the cell; empty for a reference.

    Args:
        cell: id of the cell.
        parents: the hop into each cell; following them up ends at a root.
    """
    path: list[Hop] = []
    while cell in parents and parents[cell].kind != "adapter":
        path.append(parents[cell])
        cell = parents[cell].parent
    return tuple(reversed(path))


def blame(
    measured: Sequence[HopDrift],
    evidence: Mapping[str, CellEvidence],
    pinned: Mapping[str, PinnedPrompt],
) -> tuple[Blame, ...]:
    """First change per cell and prompt, in the order of `measured`, then of `pinned`.

    Only prompts that changed somewhere on the way to the cell are listed, and only where the cell
    itself has an answer. A cell on the way without an answer cannot be blamed or cleared: a change
    behind it is put on the whole stretch, named `last cell with an answer → first that differs`.
    """
    hops = [each.hop for each in measured]
    parents = {hop.child: hop for hop in hops}
    causes = {(each.hop.name, item.key): item.cause for each in measured for item in each.items}
    entries = []
    for hop in hops:
        path = path_to(hop.child, parents)
        if not path or hop.child not in evidence:
            continue
        cells = [evidence.get(name) for name in (path[0].parent, *(step.child for step in path))]
        for key, prompt in pinned.items():
            entry = _first_changes(hop.child, cells, key=key, prompt=prompt)
            if entry is not None:
                entries.append(_explained(entry, key, causes))
    return tuple(entries)


def _explained(entry: Blame, key: str, causes: Mapping[tuple[str, str], Cause | None]) -> Blame:
    """With the causes of the two hops; a stretch of several hops has none."""
    return entry.model_copy(
        update={
            "sequence_cause": causes.get((entry.sequence_hop or "", key)),
            "verdict_cause": causes.get((entry.verdict_hop or "", key)),
        }
    )


def _first_changes(
    cell: str, cells: Sequence[CellEvidence | None], *, key: str, prompt: PinnedPrompt
) -> Blame | None:
    """Blame for one prompt along `cells`, reference first and `cell` last."""
    answered = [each for each in cells if each is not None and each.answer(key) is not None]
    if not answered or answered[-1].id != cell:
        return None
    reference = cells[0]
    known = reference is not None and answered[0] is reference
    sequence = _sequence_hop(answered, key) if known else None
    verdict = _verdict_hop(answered, key)
    if sequence is None and verdict is None:
        return None
    return Blame(
        cell=cell,
        evalset=prompt.evalset,
        item=prompt.id,
        sequence_hop=sequence,
        verdict_hop=verdict,
    )


def _sequence_hop(answered: Sequence[CellEvidence], key: str) -> str | None:
    """The first step whose child's tokens are not those of `answered[0]`, the reference."""
    reference = answered[0].completions[key].output_ids
    for before, after in pairwise(answered):
        if after.completions[key].output_ids != reference:
            return _name(before, after)
    return None


def _verdict_hop(answered: Sequence[CellEvidence], key: str) -> str | None:
    """The first step whose child is correct where its parent is not, or the other way round."""
    with_verdict = [cell for cell in answered if cell.state(key) not in NO_VERDICT]
    for before, after in pairwise(with_verdict):
        if flip(before.state(key), after.state(key)) != "none":
            return _name(before, after)
    return None


def _name(parent: CellEvidence, child: CellEvidence) -> str:
    """Same form as `Hop.name`, which has no kind in it."""
    return Hop(parent=parent.id, child=child.id, kind="runtime").name
