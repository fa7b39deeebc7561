"""What was measured over each hop and in each cell, in the order a reviewer wants it: worst first.

Rows are still unescaped: the template escapes what it prints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from driftline.report.escape import Safe
from driftline.report.model import ReportInput
from driftline.schema.cells import CellRecord
from driftline.schema.forced import ForcedFloor
from driftline.schema.hops import CellDrift, Finding, HopDrift, Split
from driftline.schema.statistics import DistributionDrift
from driftline.schema.text import PromptClass

PERCENTILES = {
    "min": Safe("least"),
    "p01": Safe("1"),
    "p05": Safe("5"),
    "median": Safe("50"),
    "p95": Safe("95"),
    "p99": Safe("99"),
    "max": Safe("greatest"),
}
"""Percentiles of Δp that are shown, and what they are called."""


@dataclass(frozen=True)
class Measured:
    """One hop with distributions; `floor` is that of its child over the same text."""

    hop: HopDrift
    split: Split
    floor: ForcedFloor | None

    @property
    def percentiles(self) -> tuple[tuple[Safe, float], ...]:
        """Percentiles of Δp by what they are called, smallest first."""
        values = self.split.end_to_end.delta_p_percentiles
        return tuple((shown, values[name]) for name, shown in PERCENTILES.items() if name in values)


@dataclass(frozen=True)
class Tail:
    """The largest probability that a parent has outside the tokens that were compared."""

    hop: HopDrift
    mass: float


@dataclass(frozen=True)
class TextRow:
    """A hop on whose text path something changed; prompts per class, most frequent first."""

    hop: HopDrift
    classes: tuple[tuple[PromptClass, int], ...]


@dataclass(frozen=True)
class CellRow:
    """One cell against its reference, and the hops on the way, costliest first."""

    cell: CellDrift
    hops: tuple[HopDrift, ...]


@dataclass(frozen=True)
class FloorRow:
    """One cell against itself; of several forced texts the one it repeats worst."""

    cell: CellRecord
    forced: ForcedFloor | None
    decoding_gap: float | None


def ranked(hops: Iterable[HopDrift]) -> tuple[HopDrift, ...]:
    """Most verdicts lost first, then most answers parted, then mean KL.

    Adapter hops come last: they are there to change answers.
    """
    return tuple(sorted(hops, key=_rank))


def _rank(hop: HopDrift) -> tuple[bool, int, int, float]:
    nats = hop.split.end_to_end.kl_mean.value if hop.split else 0.0
    adapter = hop.hop.kind == "adapter"
    return adapter, -len(hop.worse), hop.n_same_sequence - hop.n_items, -nats


def worst_hop(evidence: ReportInput) -> HopDrift | None:
    """The first of the ranked hops, if it changed an answer it was not there to change."""
    changed = [
        hop
        for hop in evidence.drift.hops
        if hop.hop.kind != "adapter"
        and (hop.worse or hop.better or hop.n_same_sequence < hop.n_items)
    ]
    return next(iter(ranked(changed)), None)


def findings(evidence: ReportInput) -> tuple[Finding, ...]:
    """Findings of the worst hops first."""
    places: dict[str, int] = {}
    for place, hop in enumerate(ranked(evidence.drift.hops)):
        places.update({hop.hop.name: place, hop.hop.child: place})
    last = len(places)
    return tuple(sorted(evidence.drift.findings, key=lambda each: places.get(each.where, last)))


def measured(evidence: ReportInput) -> tuple[Measured, ...]:
    """Hops with distributions, worst first."""
    records = {cell.cell.id: cell for cell in evidence.cells}
    return tuple(
        Measured(hop=hop, split=hop.split, floor=_floor(hop, records))
        for hop in ranked(evidence.drift.hops)
        if hop.split is not None
    )


def _floor(hop: HopDrift, records: dict[str, CellRecord]) -> ForcedFloor | None:
    """An adapter's hop is measured on the text of its parent, any other on that of its child."""
    child = records.get(hop.hop.child)
    owner = records.get(hop.hop.parent) if hop.hop.kind == "adapter" else child
    if child is None or owner is None:
        return None
    floors = (each.floor for each in child.forced if each.text == owner.cell.variant)
    return next(floors, None)


def tail(rows: Iterable[Measured]) -> Tail | None:
    """The largest tail mass over all comparisons; None when nothing lies outside any partition."""
    tails = [Tail(row.hop, each.tail_mass_max) for row in rows for each in _drifts(row.split)]
    largest = max(tails, key=lambda each: each.mass, default=None)
    return largest if largest is not None and largest.mass > 0 else None


def _drifts(split: Split) -> tuple[DistributionDrift, ...]:
    every = (split.end_to_end, split.weights, split.numerics, split.parent_numerics)
    return tuple(each for each in every if each is not None)


def telling(rows: Iterable[Measured]) -> tuple[Measured, ...]:
    """Hops that moved any distribution at all."""
    return tuple(row for row in rows if row.split.end_to_end.kl_max > 0)


def text_rows(evidence: ReportInput) -> tuple[TextRow, ...]:
    """Hops on whose text path anything changed, worst first."""
    return tuple(
        TextRow(hop, tuple(Counter(each.cause for each in hop.text.prompts).most_common()))
        for hop in ranked(evidence.drift.hops)
        if hop.text.prompts or hop.text.stops or hop.text.fields
    )


def cell_rows(evidence: ReportInput) -> tuple[CellRow, ...]:
    """Cells that were compared and have hops behind them, in plan order."""
    known = evidence.hops_by_name
    compared = {hop.hop.child for hop in evidence.drift.hops if hop.compared}
    return tuple(
        CellRow(each, tuple(known[name] for name in each.hops if name in known))
        for each in evidence.drift.cells
        if each.hops and each.cell in compared
    )


def floor_rows(evidence: ReportInput) -> tuple[FloorRow, ...]:
    """Cells that were run twice, in plan order."""
    rows = []
    for cell in evidence.cells:
        floors = [each.floor for each in cell.forced if each.floor is not None]
        drift = evidence.drift_by_cell.get(cell.cell.id)
        if cell.floor is not None or floors:
            rows.append(
                FloorRow(
                    cell=cell,
                    forced=max(floors, key=lambda floor: floor.max_kl, default=None),
                    decoding_gap=drift.decoding_gap if drift else None,
                )
            )
    return tuple(rows)
