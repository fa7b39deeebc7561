"""Per hop: what it cost and why, its figures with intervals, small charts, text, stored tensors."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from driftline.report import hops
from driftline.report.changes import Change, changes, components, of_hop
from driftline.report.html import charts
from driftline.report.html.graph_svg import look
from driftline.report.html.matrix import words
from driftline.report.html.names import Names
from driftline.report.model import ReportInput
from driftline.report.stored import StoredRow, stored_rows
from driftline.schema.cells import CellRecord
from driftline.schema.hops import Component, Finding, HopDrift
from driftline.schema.statistics import DistributionDrift, SequenceDrift

EXAMPLES = 12
"""Changed items that a hop links to."""
FURTHEST = 3
"""Texts named per hop: those whose distributions moved most."""


@dataclass(frozen=True)
class Part:
    """One measured part of a hop, or why there is none."""

    name: str
    drift: DistributionDrift | None
    withheld: bool
    plot: Markup


@dataclass(frozen=True)
class HopView:
    """Everything about one hop."""

    hop: HopDrift
    anchor: str
    at: int
    look: str
    components: tuple[Component, ...]
    attribute: str
    findings: tuple[Finding, ...]
    measured: hops.Measured | None
    parts: tuple[Part, ...]
    median: float | None
    by_position: Markup
    by_confidence: Markup
    text: hops.TextRow | None
    stored: StoredRow | None
    heat: tuple[charts.HeatMap, ...]
    changed: tuple[Change, ...]
    furthest: tuple[SequenceDrift, ...]
    child: CellRecord | None


def hop_views(evidence: ReportInput, names: Names) -> tuple[HopView, ...]:
    """Every hop, worst first."""
    measured = {row.hop.hop.name: row for row in hops.measured(evidence)}
    texts = {row.hop.hop.name: row for row in hops.text_rows(evidence)}
    stored = {row.record.artifact_identity: row for row in stored_rows(evidence.counterfactuals)}
    cells = {cell.cell.id: cell for cell in evidence.cells}
    every = changes(evidence)
    views = []
    for hop in hops.ranked(evidence.drift.hops):
        name, child = hop.hop.name, cells.get(hop.hop.child)
        at = names.places[name]
        row, changed = measured.get(name), of_hop(every, at)
        whole = row.split.end_to_end if row else None
        own = components(hop, evidence.drift.findings)
        views.append(
            HopView(
                hop=hop,
                anchor=names.hops[name],
                at=at,
                look=look(hop, evidence.drift.findings),
                components=own,
                attribute=words((*own, *(change.component for change in changed))),
                findings=tuple(f for f in evidence.drift.findings if f.where == name),
                measured=row,
                parts=_parts(row),
                median=evidence.median_divergence.get(name),
                by_position=charts.bars(whole.by_position, "position") if whole else Markup(""),
                by_confidence=charts.bars(whole.by_confidence, "the parent's confidence")
                if whole
                else Markup(""),
                text=texts.get(name),
                stored=_stored(hop, child, stored),
                heat=tuple(charts.heat_map(each) for each in evidence.budgets if each.hop == name),
                changed=changed,
                furthest=_furthest(hop),
                child=child,
            )
        )
    return tuple(views)


def _stored(
    hop: HopDrift, child: CellRecord | None, rows: dict[str, StoredRow]
) -> StoredRow | None:
    """What is stored in the artifact that the hop made; a change of runtime makes none."""
    if child is None or hop.hop.kind in ("runtime", "adapter"):
        return None
    return rows.get(child.artifact_identity)


def _parts(row: hops.Measured | None) -> tuple[Part, ...]:
    if row is None:
        return ()
    split, floor = row.split, row.floor.mean_kl if row.floor else None
    named = (
        ("end to end", split.end_to_end, floor),
        ("on answers", split.answers, None),
        ("weights", split.weights, None),
        ("numerics", split.numerics, None),
        ("parent's numerics", split.parent_numerics, None),
    )
    return tuple(
        Part(
            name=name,
            drift=drift,
            withheld=drift is None and bool(split.withheld),
            plot=charts.plot(drift.kl_mean, least) if drift else Markup(""),
        )
        for name, drift, least in named
    )


def _furthest(hop: HopDrift) -> tuple[SequenceDrift, ...]:
    sequences = hop.split.sequences if hop.split else ()
    return tuple(sorted(sequences, key=lambda each: -each.kl_mean)[:FURTHEST])
