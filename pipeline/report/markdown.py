"""`reports/lineage.md`: the evidence as one Markdown file that GitHub can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    Undefined,
    select_autoescape,
)

from pipeline.report import escape, figures, views
from pipeline.report.escape import Safe
from pipeline.report.graph import flowchart
from pipeline.report.items import Fitted, changed_items, fit, fit_per_hop, token_changes
from pipeline.report.model import ReportInput, ran
from pipeline.report.settings import runtime_matrix

TEMPLATES = Path(__file__).parent / "templates"
LIMIT = 64_000
"""Bytes of the file: a GitHub comment takes 65 536 characters."""
ROOM = 16_000
"""Bytes that the changed answers should have, before the rest is said in less detail."""
NOTES = 1_000
"""Bytes for the lines that say how many answers are left out."""


@dataclass(frozen=True)
class Detail:
    """How much is shown: rows of a table, characters of a text."""

    rows: int
    characters: int


DETAILS = (
    Detail(1000, escape.LIMIT),
    Detail(100, 160),
    Detail(40, 80),
    Detail(12, 60),
    Detail(4, 30),
)
"""From everything to a summary; the first that leaves `ROOM` is taken."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table that are shown, and how many are not."""

    shown: Sequence[Any]
    more: int


def render(evidence: ReportInput, *, limit: int = LIMIT) -> str:
    """The report as Markdown, of at most about `limit` bytes.

    What does not fit is left out and counted: answers first, worst ones last, then rows.
    """
    for detail in DETAILS:
        page = environment(detail)
        context = _context(evidence, detail)
        none = Fitted((), 0)
        frame = _page(page, context, changed=none, parted=none)
        room = limit - NOTES - len(frame.encode())
        if room >= ROOM:
            break
    changed, parted = _fit(page, evidence, max(room, 0))
    return _page(page, context, changed=changed, parted=parted)


@cache
def environment(detail: Detail) -> Environment:
    """Templates that print nothing but numbers and `Safe` text."""
    page = Environment(
        loader=FileSystemLoader(TEMPLATES),
        # Markdown needs other escapes than HTML: the filters below make them, `_only_safe` insists.
        autoescape=select_autoescape(("html",), default_for_string=False),
        undefined=StrictUndefined,
        finalize=_only_safe,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("code", "cell", "line", "quoted", "word", "optional"):
        page.filters[name] = partial(getattr(escape, name), limit=detail.characters)
    for name in ("position", "bits", "small", "size"):
        page.filters[name] = getattr(figures, name)
    page.filters["top"] = partial(_top, rows=detail.rows)
    page.filters["first"] = _first
    return page


def _only_safe(value: object) -> object:
    """Jinja calls this on everything it prints."""
    if isinstance(value, Safe | int | Undefined):  # printing an Undefined raises and names it
        return value
    raise TypeError(f"the template prints a {type(value).__name__} that no filter made safe")


def _top(values: Sequence[Any], rows: int) -> Rows:
    return Rows(values[:rows], max(0, len(values) - rows))


def _first(text: str, count: int) -> str:
    return text[:count]


def _page(page: Environment, context: dict[str, Any], *, changed: Fitted, parted: Fitted) -> str:
    template = page.get_template("lineage.md.jinja")
    return template.render(**context, changed=changed, parted=parted)


def _context(evidence: ReportInput, detail: Detail) -> dict[str, Any]:
    """What the template knows, but for the answers that changed."""
    columns = views.evalsets(evidence)[: detail.rows]
    hops = evidence.drift.hops
    return {
        "max_rows": detail.rows,
        "cells": evidence.cells,
        "states": views.states(evidence),
        "hops": hops,
        "compared": [hop for hop in hops if hop.compared],
        "worst": views.worst_hops(evidence),
        "medians": evidence.median_divergence,
        "graph": flowchart(evidence, max_edges=detail.rows),
        "evalsets": columns,
        "scores": views.score_rows(evidence, columns),
        "floors": [cell for cell in evidence.cells if cell.floor is not None],
        "matrix": runtime_matrix(evidence.cells),
        "artifacts": views.artifact_rows(evidence.artifacts),
        "failed": [cell for cell in evidence.cells if not ran(cell)],
        "partly": [hop for hop in hops if hop.reason],
        "unchecked": views.unchecked(evidence),
        "errored": views.errored(evidence),
    }


def _fit(page: Environment, evidence: ReportInput, room: int) -> tuple[Fitted, Fitted]:
    """Changed verdicts first, token changes into what room is left."""
    macros = _Macros(page.get_template("items.md.jinja"))
    items = changed_items(evidence)
    changed = fit((macros("changed_item", item) for item in items), room, total=len(items))
    left = room - sum(len(text.encode()) for text in changed.texts)
    parted = fit_per_hop(
        token_changes(evidence), left, lambda change, n: macros("token_changes", change, n)
    )
    return changed, parted


class _Macros:
    """The macros of a template as functions; what they print went through `_only_safe`."""

    def __init__(self, template: Template) -> None:
        self._module = template.module

    def __call__(self, name: str, *arguments: object) -> Safe:
        return Safe(getattr(self._module, name)(*arguments))
