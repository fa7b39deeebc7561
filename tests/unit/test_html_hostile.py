"""Hostile text in the HTML report: every shape is inert and well-formed."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from driftline.report.candidates import Candidate, Parting
from driftline.report.html.page import render
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.budget import Budget, GroupCost
from driftline.schema.cells import CellSpec
from driftline.schema.text import SourceVocabulary
from driftline.store.digest import sha256_text
from tests.factories import completion, prompts, report_input
from tests.unit.html_pages import tree, words, xml
from tests.unit.report_evidence import BAD, HOSTILE, PROJECT, Q8, nasty, with_gate
from tests.unit.test_report_hostile import TestHostileReport as Markdown

MORE = (
    "</script><script>alert(1)</script>",
    "</style><style>*{display:none}</style>",
    "</title></head><body onload=alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)' autofocus '",
    "<svg/onload=alert(1)><iframe srcdoc='<script>alert(1)</script>'>",
    "<a href=javascript:alert(1)>x</a><form action=//evil.example><button>",
    "<base href=//evil.example><meta http-equiv=refresh content=0;url=//evil.example>",
    "<!-- --!> <![CDATA[ x ]]> <?php ?>",
    "&lt;script&gt; &#60;script&#62; &NotAnEntity; &",
    "=cmd|' /C calc'!A0",
    "<details open ontoggle=alert(1)><summary>x",
    "]]></text></svg><script>alert(1)</script>",
    "\u2028\u2029\u0085<plaintext>",
    "\ufdd0\ufffe\uffff\U0001ffff",
)
CORPUS = (*HOSTILE, *MORE)
ALLOWED = {
    "html head meta title link style body a nav main header section h1 h2 h3 h4 p ul li span b u i",
    "em mark code div label input select option button output table thead tbody tr th td colgroup",
    "col caption details summary article figure figcaption svg path rect circle text br script",
    "time",
}
TAGS = {tag for line in ALLOWED for tag in line.split()}


def everywhere(text: str) -> str:
    """A page in which every text that anybody could have written is `text`."""
    evidence: ReportInput = Markdown().evidence(text)
    vocabulary = SourceVocabulary(pieces=(text,) * 12, special=(1, 3), bos=1, eos=(2,))
    likely = (Candidate(1, text, -0.1), Candidate(2, text, -3.0))
    partings = {
        (hop.hop.name, item.key): Parting(likely, likely, likely)
        for hop in evidence.drift.hops
        for item in hop.items
    }
    answers = {
        cell: {
            key: answer.model_copy(
                update={"prompt_text": text, "prompt_ids": (5, 1) if cell == Q8 else (1, 2)}
            )
            for key, answer in given.items()
        }
        for cell, given in evidence.completions.items()
    }
    scores = {
        cell: {
            key: score.model_copy(
                update={
                    "tags": (text or "tag",),
                    "checks": tuple(
                        check.model_copy(update={"detail": text, "score": 0.0})
                        for check in score.checks
                    ),
                }
            )
            for key, score in given.items()
        }
        for cell, given in evidence.item_scores.items()
    }
    budgets = [
        Budget(
            hop=hop.hop.name,
            parent_identity=text,
            child_identity=text,
            positions=1,
            control=0.0,
            whole=0.1,
            additivity=None,
            groups=(
                GroupCost(layer=0, module=text, tensors=(text,), kl=0.1),
                GroupCost(layer=None, module=text, tensors=(text,), kl=0.1),
            ),
        )
        for hop in evidence.drift.hops
    ]
    found = replace(
        with_gate(evidence, text),
        completions=answers,
        item_scores=scores,
        budgets=tuple(budgets),
    )
    return render(found, vocabulary=vocabulary, partings=partings)


def check(page: str) -> None:
    """Nothing of it is markup: only our elements, no handler, nothing from elsewhere."""
    root = tree(page)
    xml(page)
    assert {node.tag for node in root.iter()} <= TAGS
    scripts = list(root.iter("script"))
    assert len(scripts) == 1
    assert (scripts[0].text or "").startswith('"use strict";')
    assert sum(node.tag == "style" for node in root.iter()) == 1
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    for node in root.iter():
        for name, value in node.attrib.items():
            harmless(node.tag, str(name), value, set(ids))
    assert not BAD.search(page.replace("\n", ""))
    assert not re.search(r"^\s*::|##\w*\[", page, re.M)
    page.encode()


def harmless(tag: str, name: str, value: str, ids: set[Any]) -> None:
    assert not name.lower().startswith("on"), (tag, name)
    assert name not in ("style", "src", "srcdoc", "srcset", "action", "formaction", "data", "ping")
    if name == "href":
        assert value == "data:," if tag == "link" else value.removeprefix("#") in ids
    if tag == "meta":
        assert value != "refresh"


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_nothing_of_it_is_markup(text: str) -> None:
    check(everywhere(text))


@settings(max_examples=15, deadline=None)
@given(nasty)
def test_nothing_of_anything_is_markup(text: str) -> None:
    check(everywhere(text))


def test_what_was_said_can_be_read() -> None:
    said = "<script>alert('x & y')</script>"
    root = tree(everywhere(said))
    texts = [words(node) for node in root.iter("div") if node.get("class") == "text"]
    assert said in texts


def test_a_line_of_five_megabytes() -> None:
    text = "x" * 5_000_000
    start = time.perf_counter()
    page = everywhere(text)
    took = time.perf_counter() - start
    assert sha256_text(text) in page
    assert "5,000,000 characters in all" in page
    assert len(page) < 3_000_000
    assert took < 60
    check(page)


def test_300_items_in_26_cells_stay_small() -> None:
    items = prompts("clauses", "sql", "audit", "privacy", count=75)
    places = {cell.cell.id: n for n, cell in enumerate(report_input(PROJECT, {}).cells)}

    def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
        return completion(prompt, (1, 2, places[each.id]), text=f"{each.id} " + "long answer " * 99)

    page = render(report_input(PROJECT, items, answer=answer))
    assert len(page.encode()) < 6_000_000
    assert page.count('<details class="item"') <= 400
