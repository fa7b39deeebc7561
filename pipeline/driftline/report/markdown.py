"""`reports/lineage.md`: the evidence as one Markdown file that GitHub can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    Template,
    Undefined,
    select_autoescape,
)

from driftline.report import comparison, escape, figures, hops, views
from driftline.report.context import FORMATS, TEMPLATES, shared
from driftline.report.escape import Safe
from driftline.report.fitting import Fitted, fit, fit_per_hop
from driftline.report.graph import flowchart
from driftline.report.markdown_items import token_changes, verdict_changes
from driftline.report.model import ReportInput
from driftline.report.stored import FURTHEST, stored_rows
from driftline.schema.comparison import ComparisonReport

LIMIT = 64_000
"""Bytes of the file: a GitHub comment takes 65 536 characters."""
ROOM = 16_000
"""Bytes that answers and figures of hops should have, before the rest is said in less detail."""
FIGURES = 6
"""One part in this many of them is for the figures of hops."""
SINCE = 12
"""Rows of each table about the baseline release: `driftline compare` has a page for itself."""
NOTES = 1_000
"""Bytes for the lines that say how much is left out."""
SENTENCE = 4
"""A sentence may be this many times as long as a name or a token's text."""


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
class Fits:
    """What there was room for: figures of hops, changed verdicts, changes of tokens alone."""

    blocks: Fitted
    changed: Fitted
    parted: Fitted


_NONE = Fitted((), 0)
NOTHING = Fits(blocks=_NONE, changed=_NONE, parted=_NONE)


@dataclass(frozen=True)
class Rows:
    """The rows of a table that are shown, and how many are not."""

    shown: Sequence[Any]
    more: int


def render(evidence: ReportInput, *, limit: int = LIMIT) -> str:
    """The report as Markdown, of at most about `limit` bytes.

    What does not fit is left out and counted: figures and answers first, worst ones last, then
    rows.
    """
    for detail in DETAILS:
        page = environment(detail)
        context = _context(evidence, detail)
        room = limit - NOTES - len(_page(page, context, NOTHING).encode())
        if room >= ROOM:
            break
    return _page(page, context, _fit(page, evidence, max(room, 0)))


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
    for name in ("code", "cell", "line", "quoted", "word", "optional", "html"):
        page.filters[name] = partial(getattr(escape, name), limit=detail.characters)
    page.filters["prose"] = partial(escape.prose, limit=SENTENCE * detail.characters)
    for name in FORMATS:
        page.filters[name] = getattr(figures, name)
    page.filters["top"] = partial(_top, rows=detail.rows)
    page.filters["top_of"] = lambda values, rows: _top(values, rows=min(rows, detail.rows))
    page.filters["day"] = lambda value: Safe(value.isoformat())
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


def _page(page: Environment, context: dict[str, Any], fits: Fits) -> str:
    template = page.get_template("lineage.md.jinja")
    return template.render(**context, blocks=fits.blocks, changed=fits.changed, parted=fits.parted)


def _context(evidence: ReportInput, detail: Detail) -> dict[str, Any]:
    """What the template knows, but for what is fitted in."""
    columns = views.evalsets(evidence)[: detail.rows]
    changed = evidence.baseline.comparison if evidence.baseline else None
    alike = shared(evidence)
    return {
        **alike,
        "max_rows": detail.rows,
        "since": _since(changed, detail) if changed else (),
        "hops": evidence.drift.hops,
        "worst": hops.worst_hop(evidence),
        "why": [hop for hop in hops.ranked(alike["compared"]) if hop.summary],
        "texts": hops.text_rows(evidence),
        "stored": stored_rows(evidence.counterfactuals),
        "furthest": FURTHEST,
        "medians": evidence.median_divergence,
        "graph": flowchart(evidence, max_edges=detail.rows),
        "evalsets": columns,
        "scores": views.score_rows(evidence, columns),
    }


def _since(changed: ComparisonReport, detail: Detail) -> list[Safe]:
    rows = min(detail.rows, SINCE)
    return list(comparison.body(changed, rows, heading="###", more="`driftline compare` has all"))


def _fit(page: Environment, evidence: ReportInput, room: int) -> Fits:
    """Figures of hops into their part, changed verdicts, token changes into what room is left."""
    macros = _Macros(page.get_template("items.md.jinja"), page.get_template("hop.md.jinja"))
    rows = hops.telling(hops.measured(evidence))
    blocks = fit((macros("figures", row) for row in rows), room // FIGURES, total=len(rows))
    left = room - blocks.size
    items = verdict_changes(evidence)
    changed = fit((macros("changed_item", item) for item in items), left, total=len(items))
    parted = fit_per_hop(
        token_changes(evidence),
        left - changed.size,
        lambda change, n: macros("token_changes", change, n),
    )
    return Fits(blocks=blocks, changed=changed, parted=parted)


class _Macros:
    """The macros of templates as functions; what they print went through `_only_safe`."""

    def __init__(self, *templates: Template) -> None:
        self._macros = {
            name: macro
            for template in templates
            for name, macro in vars(template.module).items()
            if callable(macro)
        }

    def __call__(self, name: str, *arguments: object) -> Safe:
        return Safe(self._macros[name](*arguments))
