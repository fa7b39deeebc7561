"""`reports/lineage.html`: the evidence as one file that needs nothing but a browser.

The page loads nothing and runs nothing but its own script, which its Content-Security-Policy names
by digest; with scripts off everything is still there. Every text that anybody could have written is
escaped by the template and made visible by `text` or `escape.visible`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined
from markupsafe import Markup

from driftline.report import comparison, escape, figures
from driftline.report.candidates import Partings
from driftline.report.changes import ChangedItem, changed_items, changes, selected
from driftline.report.context import FORMATS, TEMPLATES, shared
from driftline.report.escape import Safe
from driftline.report.html import charts, graph_svg, prose
from driftline.report.html.hops_html import hop_views
from driftline.report.html.items_html import Items
from driftline.report.html.matrix import MARKS, matrix
from driftline.report.html.names import Names
from driftline.report.model import ReportInput
from driftline.report.verdict import examples, verdict
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
    every = changes(evidence)
    changed, full = changed_items(evidence, every), frozenset(c.place for c in selected(every))
    shown = _shown(evidence, changed, full)
    names = Names(evidence, tuple(item.key for item in shown))
    items = Items(evidence, names, full, vocabulary, partings or {})
    context = {
        **shared(evidence),
        **_own_files(),
        **_gate_and_baseline(evidence),
        "names": names,
        "verdict": verdict(evidence),
        "graph": graph_svg.drawing(evidence, names),
        "matrix": matrix(evidence, changed, names),
        "items": [items.view(item) for item in shown],
        "unshown": [item for item in changed if item.key not in names.items],
        "hops": hop_views(evidence, names),
        "n_prompts": len(evidence.prompts),
        "looks": LOOKS,
        "legend": [(MARKS[state], words) for state, words in STATES.items()],
    }
    return environment().get_template("page.html.jinja").render(context)


def _shown(
    evidence: ReportInput, changed: Sequence[ChangedItem], full: Collection[tuple[int, str]]
) -> list[ChangedItem]:
    """Items with a change in full, then those that are named somewhere."""
    shown = [item for item in changed if any(each.place in full for each in item.changes)]
    known, listed = {item.key: item for item in changed}, {item.key for item in shown}
    named = (key for key in examples(evidence) if key not in listed)
    return [*shown, *(known.get(key) or ChangedItem(key, ()) for key in named)]


def _own_files() -> dict[str, Any]:
    """Style and script, and the policy that allows these alone."""
    style, script = _source("report.css"), _source("report.js")
    return {"style": style, "script": script, "policy": policy(style, script)}


def _gate_and_baseline(evidence: ReportInput) -> dict[str, Any]:
    """What is shown of them here alone, and of the error budgets."""
    gate, baseline = evidence.gate, evidence.baseline
    report = baseline.comparison if baseline else None
    unused = [each.blessing for each in gate.blessings if each.state == "unused"] if gate else []
    return {
        "stopped": _first_of_each_cell(gate),
        "unused": unused,
        "since": comparison.sections(report) if report else (),
        "most": MOST,
        "has_budget": bool(evidence.budgets),
        "old_budgets": evidence.old_budgets,
    }


def _first_of_each_cell(gate: GateReport | None) -> tuple[GateVerdict, ...]:
    """The worst check of each cell that stops the gate."""
    checks: dict[str, GateVerdict] = {}
    for row in gate.stops if gate else ():
        checks.setdefault(row.cell, row)
    return tuple(checks.values())


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
    text = (HTML / name).read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{name}: an end tag would end it")
    return Markup(text)  # noqa: S704  (it is our own, and has no end tag)


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
