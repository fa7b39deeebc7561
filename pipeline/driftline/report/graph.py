"""The lineage as a Mermaid flowchart: artifacts, the conversions between them, what runs them."""

from __future__ import annotations

from collections.abc import Iterable

from driftline.report.escape import Safe, identifiers, label
from driftline.report.figures import score
from driftline.report.model import ReportInput
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.cells import CellRecord

MAX_EDGES = 400
"""GitHub's Mermaid draws at most 500 edges."""
STYLE = "classDef failed stroke-dasharray: 5 5"


def flowchart(evidence: ReportInput, *, max_edges: int = MAX_EDGES) -> tuple[Safe, ...]:
    """Lines of the flowchart; none when it would have more edges than `max_edges`.

    Artifacts with the same identity are one node.
    """
    groups = _by_identity(evidence.artifacts)
    ids = identifiers(
        [group[0].name for group in groups.values()] + [cell.cell.id for cell in evidence.cells]
    )
    nodes = {identity: f"a_{ids[group[0].name]}" for identity, group in groups.items()}
    edges = [*_conversions(evidence.artifacts, nodes), *_runs(evidence.cells, nodes, ids)]
    if len(edges) > min(max_edges, MAX_EDGES):
        return ()
    lines = ["flowchart LR"]
    lines += [_artifact_node(nodes[identity], group) for identity, group in groups.items()]
    lines += [_cell_node(f"c_{ids[c.cell.id]}", c, evidence) for c in evidence.cells]
    return tuple(Safe(line) for line in (*lines, *edges, STYLE))


def _by_identity(artifacts: Iterable[ArtifactRecord]) -> dict[str, list[ArtifactRecord]]:
    groups: dict[str, list[ArtifactRecord]] = {}
    for artifact in artifacts:
        groups.setdefault(artifact.identity, []).append(artifact)
    return groups


def _artifact_node(node: str, group: list[ArtifactRecord]) -> str:
    first = group[0]
    parts = [label(artifact.name) for artifact in group]
    facts = [label(first.kind)]
    if first.census is not None:
        facts.append(Safe(f"{first.census.bits_per_weight:.2f} bits per weight"))
    return f'{node}["{" = ".join(parts)}<br/>{", ".join(facts)}"]'


def _cell_node(node: str, cell: CellRecord, evidence: ReportInput) -> str:
    lines = [label(f"{cell.cell.runtime}: {cell.cell.form}")]
    if cell.ran:
        for evalset, value in evidence.scores_by_cell.get(cell.cell.id, {}).items():
            lines.append(Safe(f"{label(evalset)} {label(score(value))}"))
    if cell.outcome.state != "ok":
        lines.append(label(cell.outcome.state))
    style = "" if cell.ran else ":::failed"
    return f'{node}(["{"<br/>".join(lines)}"]){style}'


def _conversions(artifacts: Iterable[ArtifactRecord], nodes: dict[str, str]) -> list[str]:
    edges = []
    for artifact in artifacts:
        for parent in artifact.parents:
            start, end = nodes.get(parent.identity), nodes[artifact.identity]
            if start is not None and start != end:
                edges.append(f'{start} -->|"{label(artifact.conversion)}"| {end}')
    return list(dict.fromkeys(edges))


def _runs(cells: Iterable[CellRecord], nodes: dict[str, str], ids: dict[str, str]) -> list[str]:
    edges = []
    for cell in cells:
        for identity in (cell.artifact_identity, cell.adapter_identity):
            if identity in nodes:
                edges.append(f"{nodes[identity]} -.-> c_{ids[cell.cell.id]}")
    return edges
