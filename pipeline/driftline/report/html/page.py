"""`reports/lineage.html`: the evidence as one file that needs nothing but a browser.

The page loads nothing and runs nothing but its own script, which its Content-Security-Policy names
by digest; with scripts off everything is still there. Every text that anybody could have written is
escaped by the template and made visible by `text` or `escape.visible`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined
from markupsafe import Markup

from driftline.report import comparison, escape, figures, hops, views
from driftline.report.escape import Safe
from driftline.report.html import charts, graph_svg, prose
from driftline.report.html.candidates import Partings
from driftline.report.html.changes import ChangedItem, changed_items
from driftline.report.html.hops_html import hop_views
from driftline.report.html.items_html import Items
from driftline.report.html.matrix import MARKS, matrix
from driftline.report.html.names import Names
from driftline.report.html.verdict import examples, verdict
from driftline.report.machines import machine_rows
from driftline.report.markdown import FORMATS, TEMPLATES
from driftline.report.model import ReportInput
from driftline.report.settings import runtime_matrix
from driftline.schema.gate import GateReport, GateVerdict
from driftline.schema.text import SourceVocabulary

HTML = TEMPLATES / "html"
NAME = 300
"""Characters shown of a name, a setting, a reason."""
MOST = 100
"""Rows of a table about the gate or the baseline."""
STATES: Mapping[str, str] = {
    "correct": "correct",
    "partial": "partial",
    "wrong": "wrong",
    "unparsed": "unparsed",
    "truncated": "cut at a limit",
    "errored": "no answer",
    "unchecked": "no check",
}
"""Score states as the legend explains them."""

LOOKS = (
    ("worse", "verdicts lost"),
    ("fault", "not as it should be, no verdict lost"),
    ("tokens", "other wording"),
    ("calm", "no change"),
    ("adapter", "adapter, there to change answers"),
    ("missing", "not compared"),
)
"""Looks of a hop as the legend explains them."""


def render(
    evidence: ReportInput,
    *,
    vocabulary: SourceVocabulary | None = None,
    partings: Partings | None = None,
) -> str:
    """The report as one HTML page.

    Args:
        evidence: everything that was measured.
        vocabulary: what the source calls its tokens; without it prompts are shown as text.
        partings: what was likely where answers part, of those that are shown in full.

    Returns:
        The same text for the same arguments: no time, no host, no path.
    """
    style, script = _source("report.css"), _source("report.js")
    changed = changed_items(evidence)
    shown = [item for item in changed if item.full]
    known = {item.key: item for item in changed}
    listed = {item.key for item in shown}
    shown += [
        known.get(key) or ChangedItem(key, (), ())
        for key in examples(evidence)
        if key not in listed
    ]
    names = Names(evidence, tuple(item.key for item in shown))
    items = Items(evidence, names, vocabulary, partings or {})
    context = {
        "style": style,
        "script": script,
        "policy": policy(style, script),
        "names": names,
        "verdict": verdict(evidence),
        **_standing(evidence),
        "graph": graph_svg.drawing(evidence, names),
        "matrix": matrix(evidence, changed, names),
        "items": [items.view(item) for item in shown],
        "unshown": [item for item in changed if item.key not in names.items],
        "hops": hop_views(evidence, names),
        "looks": LOOKS,
        "legend": [(MARKS[state], words) for state, words in STATES.items()],
        **_facts(evidence),
    }
    return environment().get_template("page.html.jinja").render(context)


def _standing(evidence: ReportInput) -> dict[str, Any]:
    """What the evidence is held against: the policy, and the baseline release."""
    gate, baseline = evidence.gate, evidence.baseline
    report = baseline.comparison if baseline else None
    unused = [each.blessing for each in gate.blessings if each.state == "unused"] if gate else []
    return {
        "gate": gate,
        "stopped": _first_of_each_cell(gate),
        "later": evidence.later,
        "unused": unused,
        "most": MOST,
        "baseline": baseline,
        "since": comparison.sections(report) if report else (),
    }


def _first_of_each_cell(gate: GateReport | None) -> tuple[GateVerdict, ...]:
    """The worst check of each cell that stops the gate."""
    found: dict[str, GateVerdict] = {}
    for row in gate.stops if gate else ():
        found.setdefault(row.cell, row)
    return tuple(found.values())


def _facts(evidence: ReportInput) -> dict[str, Any]:
    """What needs no view of its own here: the same as in the other reports."""
    every = evidence.drift.hops
    compared = [hop for hop in every if hop.compared]
    measured = hops.measured(evidence)
    return {
        "cells": evidence.cells,
        "states": views.states(evidence),
        "compared": compared,
        "n_hops": len(every),
        "findings": hops.findings(evidence),
        "has_budget": bool(evidence.budgets),
        "old_budgets": evidence.old_budgets,
        "n_prompts": len(evidence.prompts),
        "tail": hops.tail(measured),
        "cell_rows": hops.cell_rows(evidence),
        "floors": hops.floor_rows(evidence),
        "runtimes": runtime_matrix(evidence.cells),
        "machines": machine_rows(evidence),
        "artifacts": views.artifact_rows(evidence.artifacts),
        "failed": [cell for cell in evidence.cells if not cell.ran],
        "partly": [hop for hop in every if hop.reason],
        "unmeasured": [hop for hop in compared if hop.split is None],
        "withheld": [row for row in measured if row.split.withheld],
        "unchecked": views.unchecked(evidence),
        "errored": views.errored(evidence),
        "unstable": [cell for cell in evidence.cells if cell.unstable],
    }


def policy(style: str, script: str) -> Safe:
    """Nothing may be loaded, and nothing may run but this style and this script."""
    return Safe(
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def _source(name: str) -> Markup:
    """One of our own files as it goes into the page."""
    found = (HTML / name).read_text(encoding="utf-8")
    if "</" in found:
        raise ValueError(f"{name}: an end tag would end it")
    return Markup(found)  # noqa: S704  (it is our own, and has no end tag)


@cache
def environment() -> Environment:
    """Templates that escape whatever they print, and print no bare figure."""
    page = Environment(
        loader=FileSystemLoader(HTML),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FORMATS:
        page.filters[name] = getattr(figures, name)
    page.filters["human"] = graph_svg.human
    page.filters["words"] = lambda value: prose.shown(value, NAME)
    page.filters["chance"] = charts.chance
    page.filters["short"] = _short
    page.filters["day"] = lambda value: Safe(value.isoformat())
    page.filters["short_digest"] = lambda value: Safe(value[:12])
    return page


def _visible(value: object) -> object:
    """Jinja calls this on everything it prints, before it escapes it."""
    if isinstance(value, Markup | Safe | int | Undefined):
        return value
    if isinstance(value, str):
        return escape.visible(value, NAME)
    raise TypeError(f"the template prints a {type(value).__name__} that no filter made text")


def _short(cell: str) -> str:
    """A cell's id without what is the same for neighbours: `mlx/audit/4bit` → `mlx 4bit`."""
    parts = cell.split("/")
    return f"{parts[0]} {parts[-1]}" if len(parts) == 3 else cell
