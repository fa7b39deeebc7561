"""Everything drift finds in the evidence of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.drift.blame import blame
from pipeline.drift.evidence import CellEvidence
from pipeline.drift.hops import hop_drift, not_compared
from pipeline.schema.answers import PinnedPrompt
from pipeline.schema.hops import DriftReport, Hop, HopDrift


def analyse(
    hops: Sequence[Hop],
    evidence: Mapping[str, CellEvidence],
    pinned: Mapping[str, PinnedPrompt],
) -> DriftReport:
    """Drift over every hop, in their order, and the first change of every answer.

    Args:
        hops: the edges between cells, parents before children.
        evidence: what each cell left behind, by cell id.
        pinned: the golden prompts by key, in the order in which items are listed.

    Raises:
        InputError: a cell completed a prompt that is not pinned.
    """
    return DriftReport(
        hops=tuple(_measure(hop, evidence, pinned) for hop in hops),
        blame=blame(hops, evidence, pinned),
    )


def _measure(
    hop: Hop, evidence: Mapping[str, CellEvidence], pinned: Mapping[str, PinnedPrompt]
) -> HopDrift:
    missing = [name for name in (hop.parent, hop.child) if name not in evidence]
    if missing:
        return not_compared(hop, "; ".join(f"{name}: not scored" for name in missing))
    return hop_drift(hop, evidence[hop.parent], evidence[hop.child], pinned)
