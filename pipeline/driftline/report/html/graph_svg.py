"""The lineage as a drawing: cells as boxes with what their artifact is, hops as weighted lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from markupsafe import Markup

from driftline.report.changes import components, is_change
from driftline.report.escape import visible
from driftline.report.figures import bits, brief
from driftline.report.html.layout import Layout, Placed, layered
from driftline.report.html.markup import NONE, fill, joined
from driftline.report.html.names import Names
from driftline.report.model import ReportInput
from driftline.report.views import artifact_rows
from driftline.schema.cells import CellRecord, CellSpec
from driftline.schema.hops import Finding, HopDrift
from driftline.schema.scores import EvalsetScore

WIDTH, GAP, ABOVE = 178, 112, 14
"""Pixels: a box, the space right of it where hops are, the space below it."""
HEAD, LINE = 40, 15
"""Pixels: the lines about the artifact, one line of scores."""
SCORES = 6
"""Scores in a box, at most."""
FITS = 27
"""Characters of a box's line."""
MANY = 400
"""Cells beyond which nothing is drawn: the table has them all."""
WEIGHTS = (1e-9, 1e-5, 1e-3, 1e-2, 1e-1)
"""Mean KL in nats at which a line becomes a step wider."""


@dataclass(frozen=True)
class Score:
    """A cell's correct of scored items on one evalset."""

    evalset: str
    figure: str
    full: bool


@dataclass(frozen=True)
class Node:
    """One cell as a box: its artifact, what ran it, the file's facts, its scores."""

    cell: CellRecord
    title: str
    facts: str
    scores: tuple[Score, ...]
    more: int

    @property
    def state(self) -> str:
        """The outcome where it is not `ok`."""
        return "" if self.cell.outcome.state == "ok" else self.cell.outcome.state

    @property
    def height(self) -> int:
        """Pixels."""
        lines = (len(self.scores) + 1) // 2 + bool(self.more) + bool(self.state)
        return HEAD + LINE * lines + (6 if lines else 0)


@dataclass(frozen=True)
class Edge:
    """One hop as a line: how it looks and what is written at it."""

    hop: HopDrift
    anchor: str
    at: int
    look: str
    weight: int
    cause: str
    cost: str
    damage: str


@dataclass(frozen=True)
class Drawing:
    """Everything that is drawn, and the same as a tree of lines for narrow screens."""

    svg: Markup
    tree: tuple[tuple[int, Node, Edge | None], ...]


def drawing(evidence: ReportInput, names: Names) -> Drawing:
    """The graph of all cells; no picture, but the tree, where there are very many."""
    nodes = {node.cell.cell.id: node for node in _nodes(evidence)}
    edges = {hop.hop.child: _edge(evidence, names, hop) for hop in evidence.drift.hops}
    layout = layered(
        {name: node.height for name, node in nodes.items()},
        [(hop.hop.parent, hop.hop.child) for hop in evidence.drift.hops],
        ABOVE,
    )
    joined = {child for _, child in layout.edges}
    return Drawing(
        svg=_svg(layout, nodes, edges) if 0 < len(nodes) <= MANY else NONE,
        tree=tuple(
            (layout.nodes[name].column, node, edges[name] if name in joined else None)
            for name, node in _in_depth(layout, nodes)
        ),
    )


def _in_depth(layout: Layout, nodes: dict[str, Node]) -> list[tuple[str, Node]]:
    """Parents right before their children."""
    children: dict[str, list[str]] = {}
    for parent, child in layout.edges:
        children.setdefault(parent, []).append(child)
    waiting = [name for name in reversed(nodes) if layout.nodes[name].column == 0]
    ordered = []
    while waiting:
        name = waiting.pop()
        ordered.append((name, nodes[name]))
        waiting += reversed(children.get(name, []))
    return ordered


# ------------------------------------------------------------------------------------- what it says


def _nodes(evidence: ReportInput) -> list[Node]:
    sizes = {row.record.identity: row for row in artifact_rows(evidence.artifacts)}
    nodes = []
    for cell in evidence.cells:
        row = sizes.get(cell.artifact_identity)
        adapter = sizes.get(cell.adapter_identity or "")
        facts = [cell.cell.runtime]
        if row is not None and adapter is None:
            census = row.record.census
            facts += [f"{bits(census.bits_per_weight).removesuffix('.00')} bpw"] if census else []
            facts.append(human(row.size))
        elif adapter is not None:
            facts.append(f"+ adapter {human(adapter.size)}")
        own = list(evidence.scores_by_cell.get(cell.cell.id, {}).values()) if cell.ran else []
        nodes.append(
            Node(
                cell=cell,
                title=_attached(cell.cell) if cell.cell.adapter else cell.cell.artifact_name,
                facts=" · ".join(facts),
                scores=tuple(_score(each) for each in own[:SCORES]),
                more=max(0, len(own) - SCORES),
            )
        )
    return nodes


def _attached(cell: CellSpec) -> str:
    """A checkpoint with its adapter: `base + audit`."""
    return f"{PurePosixPath(cell.artifact).name} + {cell.variant}"


def _score(score: EvalsetScore) -> Score:
    correct = score.states.get("correct", 0)
    return Score(score.evalset, f"{correct}/{score.n_scored}", correct == score.n_scored)


def human(size: int) -> str:
    """Bytes in the unit people use: `2.1 MB`."""
    units = ("B", "kB", "MB", "GB", "TB")
    step = min((len(str(size)) - 1) // 3, len(units) - 1)
    value = size / 1000**step
    return (
        f"{value:.0f} {units[step]}" if not step or value >= 9.95 else f"{value:.1f} {units[step]}"
    )


def _edge(evidence: ReportInput, names: Names, hop: HopDrift) -> Edge:
    own = components(hop, evidence.drift.findings)
    return Edge(
        hop=hop,
        anchor=names.hops[hop.hop.name],
        at=names.places[hop.hop.name],
        look=look(hop, evidence.drift.findings),
        weight=_weight(hop),
        cause=" + ".join(own) if own else {"adapter": "adapter"}.get(hop.hop.kind, ""),
        cost=_cost(hop),
        damage=f"{len(hop.worse)} worse" if hop.worse else "",
    )


def look(hop: HopDrift, findings: Iterable[Finding]) -> str:
    """How a hop is drawn and listed: by the worst that happened on it."""
    if not hop.compared:
        return "missing"
    if hop.worse:
        return "worse"
    if any(finding.where == hop.hop.name and finding.component for finding in findings):
        return "fault"
    if hop.hop.kind == "adapter":
        return "adapter"
    return "tokens" if any(is_change(hop, item) for item in hop.items) else "calm"


def _weight(hop: HopDrift) -> int:
    """Steps of `WEIGHTS` that its mean KL reaches; 0 where nothing was measured."""
    if hop.split is None:
        return 0
    return sum(hop.split.end_to_end.kl_mean.value >= step for step in WEIGHTS)


def _cost(hop: HopDrift) -> str:
    if not hop.compared:
        return "not compared"
    return f"{brief(hop.split.end_to_end.kl_mean.value)} nats" if hop.split else ""


# ------------------------------------------------------------------------------------ how it looks


def _svg(layout: Layout, nodes: dict[str, Node], edges: dict[str, Edge]) -> Markup:
    width = layout.columns * (WIDTH + GAP) - GAP + 4
    height = round(layout.height) + 4
    head = '<svg class="graph" role="group" aria-label="lineage" viewBox="-2 -2 {} {}" width="{}">'
    parents = {child: parent for parent, child in layout.edges}
    drawn = []
    for name, node in nodes.items():
        place = layout.nodes[name]
        if name not in parents:
            drawn.append(_box(node, place))
            continue
        above = parents[name]
        line = _line(layout.nodes[above], nodes[above], place, node, edges[name])
        drawn.append(_hop(edges[name], line, _box(node, place)))
    return joined(fill(head, width, height, width), *drawn, Markup("</svg>"))


def _hop(edge: Edge, line: Markup, box: Markup) -> Markup:
    """A link to the hop: its line, its label and the cell it leads to."""
    whole = '<a class="hop {} w{}" href="#{}" data-hop="{}" aria-label="{}">{}{}</a>'
    label = f"hop {edge.hop.hop.name}, {edge.hop.hop.kind}: {edge.cause} {edge.damage} {edge.cost}"
    return fill(whole, edge.look, edge.weight, edge.anchor, edge.at, visible(label), line, box)


def _line(start: Placed, parent: Node, end: Placed, child: Node, edge: Edge) -> Markup:
    x1, y1 = start.column * (WIDTH + GAP) + WIDTH, start.top + parent.height / 2
    x2, y2 = end.column * (WIDTH + GAP), end.top + child.height / 2
    middle = x1 + 22
    path = f"M{x1} {y1:g}C{middle} {y1:g} {x1 + 4} {y2:g} {x1 + 26} {y2:g}H{x2}"
    above, below = y2 - 8 - edge.weight / 2, y2 + 13 + edge.weight / 2
    parts = (
        fill('<path class="reach" d="{}"/><path class="line" d="{}"/>', path, path),
        _text(x2 - 5, above, edge.cause, "cause"),
        _text(x2 - 5, below, edge.damage, "cause"),
        _text(x2 - 5, below + 13 * bool(edge.damage), edge.cost, "cost"),
    )
    return joined(*parts)


def _box(node: Node, place: Placed) -> Markup:
    x, y = place.column * (WIDTH + GAP), place.top
    outline = '<rect class="box" x="{}" y="{:g}" width="{}" height="{}" rx="5"/><title>{}</title>'
    drawn = [
        fill(outline, x, y, WIDTH, node.height, visible(f"{node.cell.cell.id}: {node.title}")),
        _text(x + 9, y + 17, shortened(node.title), "name"),
        _text(x + 9, y + 32, shortened(node.facts, FITS + 6), "facts"),
    ]
    below = y + HEAD + 8
    if node.state:
        drawn.append(_text(x + 9, below, node.state, "state"))
        below += LINE
    for at, score in enumerate(node.scores):
        column, line = at % 2, at // 2
        kind = "full" if score.full else "short"
        words = f"{shortened(score.evalset, 9)} {score.figure}"
        drawn.append(_text(x + 9 + column * 84, below + LINE * line, words, kind))
    if node.more:
        lines = (len(node.scores) + 1) // 2
        drawn.append(_text(x + 9, below + LINE * lines, f"{node.more} more evalsets", "facts"))
    return joined(*drawn)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    if not text:
        return NONE
    return fill('<text class="{}" x="{:g}" y="{:g}">{}</text>', kind, x, y, visible(text))


def shortened(text: str, most: int = FITS) -> str:
    """The end of a text that is too long for its place, which is what tells names apart."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
