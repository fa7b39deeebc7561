from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape as unhtml
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.digest import sha256_text
from pipeline.drift.statistics import RowSample, summarize
from pipeline.drift.summary import summary
from pipeline.errors import InputError
from pipeline.params import ROOT_CELL
from pipeline.report import escape, figures, markdown
from pipeline.report.explain import explain_item
from pipeline.report.graph import flowchart
from pipeline.report.items import changed_items
from pipeline.report.markdown import LIMIT, render
from pipeline.report.metrics import metrics
from pipeline.report.model import ReportInput
from pipeline.report.settings import flatten, runtime_matrix
from pipeline.schema.answers import Completion, PinnedPrompt
from pipeline.schema.cells import CellRecord, CellSpec
from pipeline.schema.forced import ForcedFloor, ForcedRecord
from pipeline.schema.hops import Cause, CellDrift, Finding, Hop, Split
from pipeline.schema.scores import ItemState
from pipeline.schema.statistics import DistributionDrift, Estimate
from pipeline.schema.text import PromptDifference, StopDifference, TextDrift
from pipeline.schema.weights import CounterfactualRecord, FieldChange, TensorChange
from tests.factories import (
    artifact,
    completion,
    lineage,
    pinned,
    project,
    prompts,
    record,
    report_input,
)

PROJECT = project()
SMALL = project(adapters={}, variants=["base"], evalsets={"base": ["clauses"]}, vllm=["base"])
ITEMS = prompts("clauses", "sql", "audit", "privacy", count=4)
F32, Q2, Q8 = "llamacpp/base/f32", "llamacpp/base/q2_k", "llamacpp/base/q8_0"
VLLM, ATTACHED = "vllm/base/checkpoint", "transformers/audit/attached"

HOSTILE = (
    "a | b || c \\| d",
    "```\n# heading\n```",
    "`tick `` ``` run",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "![image](http://evil.example/x.png) [link](javascript:alert(1))",
    "http://evil.example www.evil.example me@evil.example @someone #1",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "nul\x00 bell\x07 back\b delete\x7f csi\x9b",
    "\u202eright to left\u202c \u2066isolate\u2069 zero\u200bwidth \ufeff",
    "::error file=a::boo\n::set-output name=x::y\n  ::stop-commands::z",
    "##[command]boo ##vso[task.setvariable variable=x]y ##teamcity[z]",
    "line\r\nline\u2028line\u2029line\x85line\x0bline\x0c",
    "\ud800 lone surrogate",
    '"]; click a_x href "javascript:alert(1)"; end %% "` <br/> `" #quot;',
    "{{ 7 * 7 }} {% raw %} {# comment #}",
    "---\n- a\n+ b\n1. c\n> d\n    code",
    " both ends ",
    " ",
    "",
    "x" * 100_000,
    "\x1b" * 100_000,
)
nasty = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("`|\\<>[]()!#:*_~&;{}%\"'@ \n\r\t\x00\x1b\u202ex"), max_size=40),
    st.text(max_size=40),
)
BAD = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def unescaped(shown: str) -> str:
    """What `visible` was given, read back from what it shows."""
    plain = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    return re.sub(
        r"\\(?:([\\nrt])|x(..)|u(....)|U(........))",
        lambda m: plain[m[1]] if m[1] else chr(int(m[2] or m[3] or m[4], 16)),
        shown,
    )


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


class TestEscape:
    @settings(deadline=None)
    @given(nasty)
    def test_visible_is_one_printable_line(self, text: str) -> None:
        shown = escape.visible(text)
        assert shown.isprintable()
        assert not shown.lstrip().startswith("::")
        assert not re.search(r"##\w*\[", shown)

    @settings(deadline=None)
    @given(nasty.filter(lambda text: len(text) < 100))
    def test_visible_is_unambiguous(self, text: str) -> None:
        assert unescaped(escape.visible(text, 10_000)) == text

    @settings(deadline=None)
    @given(st.text(min_size=301, max_size=400))
    def test_a_long_text_is_cut_and_named(self, text: str) -> None:
        shown = escape.visible(text)
        mark = f"… [{len(text)} characters, sha256 {sha256_text(text)}]"
        assert shown.endswith(mark)
        assert len(shown) <= 300 + len(mark) + len("\\x3a") * 3

    @settings(deadline=None)
    @given(nasty)
    def test_code_is_one_code_span(self, text: str) -> None:
        (inline,) = (token for token in PARSER.parse(escape.code(text)) if token.type == "inline")
        (span,) = list(inline.children or [])
        shown = escape.visible(text)
        assert (span.type, span.content) == (
            ("code_inline", shown) if shown else ("text", "(empty)")
        )

    @settings(deadline=None)
    @given(nasty, nasty)
    def test_cell_stays_in_its_cell(self, left: str, right: str) -> None:
        table = f"| a | b |\n| - | - |\n| {escape.cell(left)} | {escape.cell(right)} |\n"
        inlines = [token for token in PARSER.parse(table) if token.type == "inline"]
        assert len(inlines) == 4
        for inline, text in zip(inlines[2:], (left, right), strict=True):
            (span,) = list(inline.children or [])
            assert span.content == (escape.visible(text) or "(empty)")

    @settings(deadline=None)
    @given(st.lists(nasty, min_size=1, max_size=4).map("; ".join))
    def test_prose_is_plain_words_and_code_spans_in_its_cell(self, text: str) -> None:
        table = f"| a | b |\n| - | - |\n| {escape.prose(text)} | x |\n"
        inlines = [token for token in PARSER.parse(table) if token.type == "inline"]
        assert [inlines[2].children is not None, inlines[3].content] == [True, "x"]
        spans = list(inlines[2].children or [])
        assert {span.type for span in spans} <= {"text", "code_inline"}
        assert "".join(span.content for span in spans) == "; ".join(
            clause or "(empty)" for clause in escape.visible(text).split("; ")
        )
        for span in spans:
            if span.type == "text":
                assert re.fullmatch(r"[A-Za-z0-9 ,;:.()'/_+-]*", span.content)
                assert not re.search(r"\w\.[A-Za-z]|://|::|\b[0-9a-f]{7}|\bGH-", span.content)

    def test_prose_leaves_what_drift_writes_alone(self) -> None:
        said = (
            "q8_0 flips 3 of 40 clauses items; 0.0045 nats a token of the answers, 0.0022 of the "
            "whole text: mostly the stored weights (2.4e-04 nats); flips: 3 by the runtime's "
            "arithmetic; all near-ties under 0.05 nats"
        )
        assert escape.prose(said) == said
        assert escape.prose("one; see www.evil.example; two") == "one; `see www.evil.example`; two"
        assert escape.prose("_a_") == "`_a_`"
        assert escape.prose("by deadbeef1") == "`by deadbeef1`"
        assert escape.prose("0000000") == "`0000000`"
        assert escape.prose("a GH-12") == "`a GH-12`"

    @settings(deadline=None)
    @given(nasty)
    def test_html_is_one_element_on_one_line(self, text: str) -> None:
        shown = escape.html(text)
        assert re.fullmatch(r"<code>[^<>\n]*</code>", shown)
        assert unhtml(shown) == f"<code>{escape.visible(text)}</code>"

    @settings(deadline=None)
    @given(nasty)
    def test_a_mermaid_label_has_no_syntax(self, text: str) -> None:
        assert re.fullmatch(r"(?:[\w \-./:,+=()→·%…]|#\d+;)*", escape.label(text))

    @settings(deadline=None)
    @given(st.lists(nasty))
    def test_identifiers_keep_names_apart(self, names: list[str]) -> None:
        found = escape.identifiers(names)
        assert len(set(found.values())) == len(set(names))
        assert all(re.fullmatch("[A-Za-z0-9_]*", each) for each in found.values())

    def test_plain_text_is_left_alone(self) -> None:
        assert escape.visible("SELECT a::int — naïve 東京 🙂") == "SELECT a::int — naïve 東京 🙂"
        assert escape.code("a b") == "`a b`"
        assert escape.quoted(" the") == '`" the"`'
        assert escape.quoted(None) == "(end)"

    def test_the_template_prints_nothing_unescaped(self) -> None:
        page = markdown.environment(markdown.DETAILS[0])
        with pytest.raises(TypeError, match="that no filter made safe"):
            page.from_string("{{ text }}").render(text="<b>")
        with pytest.raises(jinja2.UndefinedError):
            page.from_string("{{ mistyped }}").render()
        assert page.from_string("{{ text|code }}").render(text="<b>") == "`<b>`"


def test_percent_never_rounds_to_all_or_none() -> None:
    assert [figures.percent(each) for each in (0, 0.001, 0.5, 41 / 44, 0.999, 1)] == [
        "0 %",
        "under 1 %",
        "50 %",
        "93 %",
        "over 99 %",
        "100 %",
    ]


def test_figures_are_short() -> None:
    values = (0.0, 4.8e-7, 0.00789, 0.5, 9.96, 12.3, 1234.4, 5e7, -0.004)
    assert [figures.brief(each) for each in values] == [
        "0",
        "4.8e-07",
        "0.0079",
        "0.5",
        "10",
        "12",
        "1,234",
        "5e+07",
        "-0.004",
    ]
    assert figures.brief(None) == figures.signed(None) == figures.estimate(None) == "–"
    assert figures.interval(None) == figures.share(None) == figures.perplexity(None) == "–"
    assert [figures.signed(each) for each in (0.0, 0.02, -0.02)] == ["0", "+0.02", "-0.02"]


def test_estimates_show_their_error() -> None:
    assert figures.estimate(estimate(0.0079, 0.0012)) == "0.0079 ± 0.0012"
    assert figures.estimate(estimate(0.0, 0.0)) == "0"
    assert figures.change(estimate(0.0079, 0.0012)) == "+0.0079 ± 0.0012"
    assert figures.interval(estimate(1.0, 0.5)) == "[0.5, 1.5]"
    assert figures.perplexity(estimate(1.0312, 0.0015)) == "1.031 ± 0.0015"
    shares = (0.0, 0.0001, 0.971, 0.99996, 1.0)
    assert [figures.share(estimate(each, 0.0)) for each in shares] == [
        "0 %",
        "under 0.1 %",
        "97.1 %",
        "over 99.9 %",
        "100 %",
    ]
    assert figures.share(estimate(0.971, 0.004)) == "97.1 % ± 0.4"


# --------------------------------------------------------------------------------- whole reports


def estimate(value: float, se: float = 0.0) -> Estimate:
    return Estimate(value=value, se=se, low=value - se, high=value + se)


def distributions(kl: float, *, tail: float = 0.0) -> DistributionDrift:
    """Drift of 40 rows in two sequences: every second row has `kl` nats, the others twice that."""
    rows = 40
    return summarize(
        RowSample(
            kl=np.where(np.arange(rows) % 2, kl, 2 * kl),
            agree=np.arange(rows) > 0 if kl else np.ones(rows, dtype=np.bool_),
            parent_log_p=np.full(rows, -0.5),
            child_log_p=np.full(rows, -0.5 - kl),
            confidence=np.full(rows, 0.65),
            tail=np.full(rows, tail),
            position=np.arange(rows) % 20,
            answer=np.ones(40, dtype=bool),
            lengths=np.array([20, 20]),
        )
    )


def with_hop(evidence: ReportInput, child: str, **changes: Any) -> ReportInput:
    """The evidence with something else found on the hop into `child`."""
    hops = tuple(
        hop.model_copy(update=changes) if hop.hop.child == child else hop
        for hop in evidence.drift.hops
    )
    return with_drift(evidence, hops=hops)


def with_drift(evidence: ReportInput, **changes: Any) -> ReportInput:
    return replace(evidence, drift=evidence.drift.model_copy(update=changes))


def with_cause(evidence: ReportInput, child: str, cause: Cause) -> ReportInput:
    """Every answer that parted on the hop into `child` did so because of `cause`."""
    items = tuple(
        item if item.same_sequence else item.model_copy(update={"cause": cause})
        for item in evidence.hops_by_child[child].items
    )
    return with_hop(evidence, child, items=items)


def forced(text: str, mean: float | None, largest: float = 0.0) -> ForcedRecord:
    return ForcedRecord(
        text=text,
        sequences=2,
        rows=40,
        width=8,
        logits_sha256=sha256_text("logits"),
        rows_sha256=sha256_text("rows"),
        floor=None if mean is None else ForcedFloor(rows=40, mean_kl=mean, max_kl=largest),
    )


def one_bad_cell(cell: str, answer_text: str = "bad") -> dict[str, Any]:
    """Answers and verdicts in which one cell got item 001 of each evalset wrong."""

    def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
        if each.id == cell and prompt.id.endswith("001"):
            return completion(prompt, (1, 4, 2), text=answer_text)
        return completion(prompt, (1, 2, 2), text="good")

    def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
        return "wrong" if each.id == cell and prompt.id.endswith("001") else "correct"

    return {"answer": answer, "verdict": verdict}


def failing(cell: str, reason: str = "head_dim=8", remedy: str = "make x") -> dict[str, CellRecord]:
    return {cell: record(cell, state="error", reason=reason, remedy=remedy)}


def section(report: str, title: str) -> str:
    return report.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def row(report: str, name: str) -> str:
    return next(line for line in report.splitlines() if line.startswith(f"| `{name}` |"))


class TestRender:
    def test_sections_in_order(self) -> None:
        report = render(report_input(PROJECT, ITEMS))
        assert re.findall(r"^## (.*)$", report, re.M) == [
            "Why",
            "Distributions",
            "Lineage",
            "Scores",
            "Drift per hop",
            "Answers that changed",
            "Text path",
            "Cells against their reference",
            "Noise floor",
            "Stored weights",
            "Runtimes",
            "Artifacts",
            "What was not checked",
        ]

    def test_nothing_changed(self) -> None:
        report = render(report_input(PROJECT, ITEMS))
        assert "26 cells: 26 ok, 0 error, 0 skipped, 0 unstable." in report
        assert "No answer changed over the 25 hops that were compared" in report
        assert section(report, "Answers that changed").strip() == "None."
        assert section(report, "What was not checked").strip() == (
            "Of the hops compared, 25 have no distributions and 0 are not split into weights and "
            "numerics: see [distributions](#distributions)."
        )

    def test_everything_was_checked(self) -> None:
        evidence = report_input(PROJECT, ITEMS)
        for child in evidence.hops_by_child:
            evidence = with_hop(evidence, child, split=Split(end_to_end=distributions(0.0)))
        report = section(render(evidence), "What was not checked")
        assert report.strip().startswith("Nothing: every cell of the plan ran, ")
        whole = Split(end_to_end=distributions(0.0), withheld="x")
        report = section(render(with_hop(evidence, Q2, split=whole)), "What was not checked")
        assert "0 have no distributions and 1 are not split" in report
        assert "Nothing:" not in report

    def test_no_hop_compared_is_not_no_change(self) -> None:
        report = render(report_input(PROJECT, ITEMS, records=failing(ROOT_CELL)))
        assert "No answer changed" in report  # the other variants' hops below their adapters
        cells = [each.id for each in markdown_cells()]
        every = {cell: record(cell, state="error", reason="x") for cell in cells}
        report = render(report_input(PROJECT, ITEMS, records=every))
        assert "No hop could be compared." in report
        assert "No answer changed" not in report

    def test_the_headline_names_the_worst_hop(self) -> None:
        report = render(report_input(PROJECT, ITEMS, **one_bad_cell(Q2)))
        assert (
            f"Worst hop: `{F32} → {Q2}` (quantize): of 8 answers, 2 became worse, 0 better and 6 "
            "are the same token for token." in report
        )

    def test_an_adapter_is_no_damage(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, (1,) if each.variant == "base" else (2, 3))

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            ours = each.variant == "base" and prompt.evalset in ("audit", "privacy")
            return "wrong" if ours else "correct"

        report = render(report_input(PROJECT, ITEMS, answer=answer, verdict=verdict))
        assert "No answer changed" in report
        assert section(report, "Answers that changed").strip() == "None."
        hop = "transformers/base/checkpoint → transformers/audit/attached"
        assert row(section(report, "Drift per hop"), hop) == (
            f"| `{hop}` | adapter | 4 | 0 | 0 | 4 | +1 [1, 1] | 0.12 | – | 0 | 0 |"
        )

    def test_what_an_adapter_broke_is_news(self) -> None:
        report = render(report_input(PROJECT, ITEMS, **one_bad_cell("transformers/audit/attached")))
        assert "### `audit/a-001`" in section(report, "Answers that changed")

    def test_a_changed_answer(self) -> None:
        given = one_bad_cell(Q2, answer_text="dire")
        references = {"clauses/c-001": "the reference"}
        evidence = report_input(PROJECT, ITEMS, references=references, **given)
        report = render(with_cause(evidence, Q2, Cause(component=None, reason="nobody knows")))
        block = section(report, "Answers that changed").split("### ")[1]
        assert block.strip() == (
            "`clauses/c-001`\n\n"
            "asked `question`, expected `the reference`\n\n"
            f"- **correct → wrong** at `{F32} → {Q2}` (quantize): "
            'first divergent token 1, `" a"` → ``"`"``. Cause: not told apart: nobody knows\n\n'
            "```diff\n- good\n+ dire\n```"
        )

    def test_an_earlier_parting_is_named(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            gguf = each.runtime == "llamacpp" and each.variant == "base"
            if gguf and prompt.key == "clauses/c-001":
                return completion(prompt, (3,) if each.id != Q8 else (3, 4))
            return completion(prompt)

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            return "wrong" if each.id == Q8 and prompt.key == "clauses/c-001" else "correct"

        report = render(report_input(PROJECT, ITEMS, answer=answer, verdict=verdict))
        assert f"tokens first parted at `{ROOT_CELL} → {F32}`" in report
        assert f"- `{ROOT_CELL} → {F32}`, 1 answers: `clauses/c-001` 0" in report

    def test_same_tokens_other_text(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, text=" good" if each.id == Q2 else "good")

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            return "wrong" if each.id == Q2 else "correct"

        report = render(report_input(PROJECT, ITEMS, answer=answer, verdict=verdict))
        assert "(quantize): same tokens, other text" in report
        assert "\n- good\n+  good\n" in report

    def test_items_that_got_worse_most_often_come_first(self) -> None:
        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            bad = {"c-001": {Q2}, "c-002": {Q2, Q8}}
            return "wrong" if each.id in bad.get(prompt.id, ()) else "correct"

        found = changed_items(report_input(PROJECT, ITEMS, verdict=verdict))
        assert [(item.key, item.n_worse) for item in found] == [
            ("clauses/c-002", 2),
            ("clauses/c-001", 1),
        ]

    @pytest.mark.parametrize("state", ["error", "skipped"])
    def test_a_failed_cell_is_a_word_never_a_figure(self, state: Any) -> None:
        records = {VLLM: record(VLLM, state=state, reason="head_dim=8", remedy="pip install x")}
        report = render(report_input(PROJECT, ITEMS, records=records))
        assert row(report, VLLM) == f"| `{VLLM}` | {state} | {state} | {state} | – | – |"
        hop = f"{ROOT_CELL} → {VLLM}"
        assert row(report, hop) == (
            f"| `{hop}` | runtime | not compared | – | – | – | – | – | – | – | – |"
        )
        assert "1 of 25 hops could not be compared" in report
        missing = section(report, "What was not checked")
        assert f"| `{VLLM}` | {state}, raised | `head_dim=8` | `pip install x` |" in missing
        assert f"- `{hop}`: `{VLLM}: {state}: head_dim=8`" in missing
        assert f"Nothing was reported by `{VLLM}`." in section(report, "Runtimes")
        assert VLLM not in section(report, "Noise floor")
        assert f'c_vllm_base_checkpoint(["vllm: checkpoint<br/>{state}"]):::failed' in report

    def test_an_unstable_cell(self) -> None:
        records = {Q8: record(Q8, state="unstable", different=["sql/s-001"])}
        given = one_bad_cell(Q8)
        report = render(report_input(PROJECT, ITEMS, records=records, **given))
        assert (
            row(report, Q8) == f"| `{Q8}` | unstable | 3/4 75 %, unstable | 3/4 75 %, unstable "
            "| – | – |"
        )
        assert f"- `{Q8}`: `sql/s-001`" in section(report, "Noise floor")
        assert "sql/s-001" not in section(report, "Answers that changed")
        assert f"1 prompt left out as unstable in {Q8}" in section(report, "What was not checked")

    def test_unanswered_and_unchecked_items(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion | None:
            return None if (each.id, prompt.id) == (Q8, "c-001") else completion(prompt)

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            return "unchecked" if prompt.evalset == "sql" else "correct"

        report = render(report_input(PROJECT, ITEMS, answer=answer, verdict=verdict))
        assert row(report, Q8) == f"| `{Q8}` | ok | 3/3 100 %, 1 errored | 4 unchecked | – | – |"
        missing = section(report, "What was not checked")
        assert f"- `{Q8}`: `clauses/c-001`" in missing
        assert "Items without a check, 4 in all: `sql/s-000`, `sql/s-001`" in missing

    def test_the_artifacts_table(self) -> None:
        report = render(report_input(PROJECT, ITEMS))
        identity = sha256_text("gguf/base/f32")[:12]
        assert row(section(report, "Artifacts"), "gguf/base/f32") == (
            f"| `gguf/base/f32` | gguf | `{identity}` | 1,000 | 8.50 | `F32 9, Q8_0 28` | "
            'convert: `tool` `1.2.3` | `{"outtype":"f32"}` |'
        )

    def test_same_input_same_bytes(self) -> None:
        given = one_bad_cell(Q2)
        assert render(report_input(PROJECT, ITEMS, **given)) == render(
            report_input(PROJECT, ITEMS, **given)
        )


class TestFindings:
    def finding(self, where: str, code: str = "bos-differs") -> Finding:
        return Finding(
            code=code,
            where=where,
            component="text",
            message="BOS is doubled or missing for 2 of 8 prompts",
            items=("clauses/c-000", "sql/s-001"),
        )

    def test_they_stand_below_the_headline(self) -> None:
        evidence = report_input(PROJECT, ITEMS)
        found = self.finding(f"{F32} → {Q8}")
        report = render(with_drift(evidence, findings=(found,)))
        assert re.findall(r"^## (.*)$", report, re.M)[:2] == ["Findings", "Why"]
        assert (
            f"\n- `bos-differs` at `{F32} → {Q8}` (text): BOS is doubled or missing for 2 of 8 "
            "prompts. For example `clauses/c-000`, `sql/s-001`\n"
        ) in section(report, "Findings")
        assert "No findings" not in report

    def test_without_component_and_examples(self) -> None:
        bare = Finding(code="split-withheld", where=Q8, component=None, message="no loader")
        report = render(with_drift(report_input(PROJECT, ITEMS), findings=(bare,)))
        assert f"- `split-withheld` at `{Q8}`: no loader\n" in report

    def test_those_of_the_worst_hop_come_first(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        places = ("elsewhere", f"{F32} → {Q8}", Q2)
        found = tuple(self.finding(where, f"code-{n}") for n, where in enumerate(places))
        report = section(render(with_drift(evidence, findings=found)), "Findings")
        assert re.findall(r"`code-(\d)`", report) == ["2", "1", "0"]

    def test_none_is_said_in_one_line(self) -> None:
        report = render(report_input(PROJECT, ITEMS))
        assert "## Findings" not in report
        assert report.count("\nNo findings: as far as the hops were compared, ") == 1
        every = {cell.id: record(cell, state="error", reason="x") for cell in markdown_cells()}
        report = render(report_input(PROJECT, ITEMS, records=every))
        assert "\nNo findings: no hop was compared.\n" in report
        assert section(report, "Why").strip() == "No hop was compared."


class TestWhy:
    def test_the_worst_first_adapters_last(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        evidence = with_hop(evidence, Q8, split=Split(end_to_end=distributions(0.1)))
        why = section(render(evidence), "Why")
        lines = re.findall(r"^(\d+)\. `(.*?) → (.*?)` \((\w+)\): (.+)$", why, re.M)
        assert [int(n) for n, *_ in lines] == list(range(1, 26))
        assert [child for _, _, child, *_ in lines[:2]] == [Q2, Q8]
        assert [kind for *_, kind, _ in lines[-2:]] == ["adapter", "adapter"]
        hop = evidence.hops_by_child[Q2]
        assert lines[0][-1] == hop.summary == summary(hop)

    def test_a_hop_that_was_not_compared_has_no_reason(self) -> None:
        report = render(report_input(PROJECT, ITEMS, records=failing(VLLM)))
        assert VLLM not in section(report, "Why")
        assert VLLM in section(report, "What was not checked")


class TestDistributions:
    def split(self, **changes: Any) -> Split:
        parts = {
            "end_to_end": distributions(0.01),
            "answers": distributions(0.02),
            "weights": distributions(0.004),
            "numerics": distributions(0.003),
            "parent_numerics": distributions(0.0),
            "rest": -0.0012,
        }
        return Split(**{**parts, **changes})

    def test_the_figures_of_a_hop(self) -> None:
        cell = record(Q2).model_copy(
            update={"forced": (forced("audit", 1.0), forced("base", 2e-9, 1e-8))}
        )
        evidence = report_input(PROJECT, ITEMS, records={Q2: cell})
        split = self.split()
        report = section(render(with_hop(evidence, Q2, split=split)), "Distributions")
        assert split.end_to_end.kl_mean.value == pytest.approx(0.015)
        assert row(report, f"{F32} → {Q2}") == (
            f"| `{F32} → {Q2}` | 40 | 0.015 ± 0.0008 [0.015, 0.015] | 0.03 ± 0.0016 [0.03, 0.03] "
            "| 0.015 | 0.02 | 0.02 | 0.02 "
            "| 97.5 % ± 2.5 | +0.01 ± 0 | 0.006 ± 0.00032 | 0.0045 ± 0.00024 | 0 | -0.0012 "
            "| 2e-09 |"
        )
        assert "KL is not additive" in report
        assert "*rest*, the mean KL beyond weights and numerics, is unexplained" in report
        assert "a bootstrap over whole sequences" in report

    def test_a_hop_without_rows_about_answers(self) -> None:
        evidence = report_input(PROJECT, ITEMS)
        report = section(
            render(with_hop(evidence, Q2, split=self.split(answers=None))), "Distributions"
        )
        assert "| 0.015 ± 0.0008 [0.015, 0.015] | – | 0.015 |" in row(report, f"{F32} → {Q2}")
        assert "on answers, " not in report

    def test_an_adapter_is_measured_on_its_parents_text(self) -> None:
        cell = record(ATTACHED).model_copy(
            update={"forced": (forced("audit", 1.0), forced("base", 3e-9))}
        )
        evidence = report_input(PROJECT, ITEMS, records={ATTACHED: cell})
        report = render(with_hop(evidence, ATTACHED, split=self.split()))
        assert row(section(report, "Distributions"), f"{ROOT_CELL} → {ATTACHED}").endswith(
            "| 3e-09 |"
        )

    def test_withheld_and_missing_are_said(self) -> None:
        evidence = report_input(PROJECT, ITEMS)
        whole = Split(end_to_end=distributions(0.01), withheld="the loader failed")
        evidence = with_hop(evidence, Q2, split=whole)
        evidence = with_hop(evidence, Q8, not_split="it kept none")
        report = section(render(evidence), "Distributions")
        assert "| withheld | withheld | withheld | – | – |" in row(report, f"{F32} → {Q2}")
        assert f"\n- `{F32} → {Q2}`: the loader failed\n" in report
        assert f"\n- `{F32} → {Q8}`: it kept none\n" in report
        assert f"| `{F32} → {Q8}` |" not in report

    def test_no_distributions_at_all(self) -> None:
        report = section(render(report_input(PROJECT, ITEMS)), "Distributions")
        assert "No hop has distributions on both ends." in report
        assert "mean KL" not in report

    def test_the_largest_tail_is_printed_unless_it_is_zero(self) -> None:
        evidence = with_hop(report_input(PROJECT, ITEMS), Q2, split=self.split())
        report = section(render(evidence), "Distributions")
        assert "No parent has any probability outside" in report
        assert "lower bound" not in report and "tail mass" not in report
        thick = self.split(numerics=distributions(0.003, tail=0.00042))
        for child, split in ((Q8, self.split(end_to_end=distributions(1, tail=1e-6))), (Q2, thick)):
            evidence = with_hop(evidence, child, split=split)
        report = section(render(evidence), "Distributions")
        assert "KL is a lower bound" in report
        assert f"is 0.00042 at most (at `{F32} → {Q2}`)." in report
        assert "; tail mass 1e-06 on average, 1e-06 at most" in report

    def test_the_figures_below_the_table(self) -> None:
        evidence = with_hop(report_input(PROJECT, ITEMS), Q2, split=self.split())
        same = self.split(end_to_end=distributions(0.0))
        report = section(render(with_hop(evidence, Q8, split=same)), "Distributions")
        (block,) = re.findall(r"<details>.*?</details>", report, re.S)
        assert block.splitlines() == [
            f"<details><summary><code>{F32} → {Q2}</code></summary>",
            "",
            "- 2 sequences; KL p90 0.02",
            "- perplexity 1.649 ± 0 → 1.665 ± 0; ln of the ratio +0.01 ± 0 [0.01, 0.01]",
            "- on answers, 40 positions: top-1 agreement 97.5 % ± 2.5; perplexity 1.649 ± 0 → "
            "1.682 ± 0; ln of the ratio +0.02 ± 0 [0.02, 0.02]",
            "- Δp of the text's own token in percent: mean -0.6 ± 0, RMS 0.6 ± 0; percentiles "
            "least: -0.6, 1: -0.6, 5: -0.6, 50: -0.6, 95: -0.6, 99: -0.6, greatest: -0.6",
            "- mean KL by position (how many): 0–16: 0.015 (32), 16–32: 0.015 (8)",
            "- mean KL by the parent's confidence (how many): 0.6–0.7: 0.015 (40)",
            "",
            "</details>",
        ]

    def test_a_text_without_targets_has_no_perplexity(self) -> None:
        bare = distributions(0.01).model_copy(
            update=dict.fromkeys(
                (
                    "perplexity_parent",
                    "perplexity_child",
                    "ln_perplexity_ratio",
                    "delta_p_mean",
                    "delta_p_rms",
                )
            )
        )
        split = Split(end_to_end=bare, answers=bare)
        report = section(
            render(with_hop(report_input(PROJECT, ITEMS), Q2, split=split)), "Distributions"
        )
        assert "| 97.5 % ± 2.5 | – | – |" in report
        assert "- on answers, 40 positions: top-1 agreement 97.5 % ± 2.5\n" in report
        assert "perplexity 1" not in report and "Δp of the text" not in report


class TestScores:
    def test_the_difference_and_its_tests(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        scores = evidence.hops_by_child[Q2].scores
        assert scores is not None and scores.difference.value == -0.25
        low, high = scores.difference.low, scores.difference.high
        shown = row(section(render(evidence), "Drift per hop"), f"{F32} → {Q2}")
        assert shown == (
            f"| `{F32} → {Q2}` | quantize | 8 | 6 | 2 | 0 "
            f"| -0.25 [{figures.brief(low)}, {figures.brief(high)}] | 0.5 | 1 | 0 | 1 |"
        )

    def test_holm_is_not_mcnemar(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        scores = evidence.hops_by_child[Q2].scores
        assert scores is not None
        changed = scores.model_copy(update={"mcnemar_p": 0.001, "holm_p": 0.023})
        report = render(with_hop(evidence, Q2, scores=changed))
        assert " | 0.001 | 0.023 | " in row(section(report, "Drift per hop"), f"{F32} → {Q2}")

    def test_no_scores(self) -> None:
        report = render(with_hop(report_input(PROJECT, ITEMS), Q2, scores=None))
        assert row(section(report, "Drift per hop"), f"{F32} → {Q2}").endswith(
            "| 8 | 8 | 0 | 0 | – | – | – | 0 | – |"
        )


class TestCauses:
    NEAR = Cause(component="numerics", reason="it rounds", margin=0.0213, near_tie=True)
    FAR = Cause(component="weights", reason="the stored weights prefer it", margin=2.0)

    def test_of_a_changed_answer(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        report = render(with_cause(evidence, Q2, self.NEAR))
        assert ". Cause: numerics, margin 0.021 nats, near-tie: it rounds\n" in report
        report = render(with_cause(evidence, Q2, self.FAR))
        assert ". Cause: weights, margin 2 nats: the stored weights prefer it\n" in report
        assert "near-tie: " not in report

    def test_where_the_tokens_parted_earlier(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            gguf = each.runtime == "llamacpp" and each.variant == "base"
            if gguf and prompt.key == "clauses/c-001":
                return completion(prompt, (3,) if each.id != Q8 else (3, 4))
            return completion(prompt)

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            return "wrong" if each.id == Q8 and prompt.key == "clauses/c-001" else "correct"

        evidence = report_input(PROJECT, ITEMS, answer=answer, verdict=verdict)
        blamed = tuple(
            each.model_copy(update={"sequence_cause": self.FAR}) for each in evidence.drift.blame
        )
        report = render(with_drift(evidence, blame=blamed))
        assert f"tokens first parted at `{ROOT_CELL} → {F32}` (weights)" in report


class TestTextPath:
    def test_nothing(self) -> None:
        report = section(render(report_input(PROJECT, ITEMS)), "Text path")
        assert report.strip().startswith("No hop is known to change the ids of a prompt")

    def test_classes_first_example_stops_and_fields(self) -> None:
        def prompt(n: int, cause: Any) -> PromptDifference:
            return PromptDifference(
                evalset="clauses",
                item=f"c-00{n}",
                cause=cause,
                position=3,
                pinned_piece=" the",
                own_piece=None if n else "<s>",
                detail="BOS doubled: 2 instead of 1",
            )

        text = TextDrift(
            prompts=(prompt(0, "template"), prompt(1, "bos"), prompt(2, "bos")),
            stops=(StopDifference(setting="end_ids", parent="[2]", child="[2,5]"),),
            fields=("bos_token_id: expected 1, found 2",),
        )
        evidence = with_hop(report_input(PROJECT, ITEMS), Q8, text=text)
        assert section(render(evidence), "Text path").strip().splitlines()[2:] == [
            f"- `{F32} → {Q8}`",
            '  - prompts: 2 bos, 1 template. First `clauses/c-000`: at id 3 `"<s>"` instead of '
            '`" the"`; BOS doubled: 2 instead of 1',
            "  - ending `end_ids`: `[2]` → `[2,5]`",
            "  - field `bos_token_id: expected 1, found 2`",
        ]


class TestCells:
    def test_each_against_its_reference(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2), records=failing(VLLM))
        evidence = with_hop(evidence, F32, split=Split(end_to_end=distributions(0.01)))
        cells = tuple(
            each.model_copy(update={"drift": distributions(0.02)}) if each.cell == Q2 else each
            for each in evidence.drift.cells
        )
        report = section(render(with_drift(evidence, cells=cells)), "Cells against their reference")
        assert row(report, Q2) == (
            f"| `{Q2}` | `{ROOT_CELL}` | 0.03 ± 0.0016 [0.03, 0.03] | 97.5 % ± 2.5 "
            f"| `{Q2}` (2 worse), `{F32}` (0 worse, 0.015) |"
        )
        assert row(report, F32) == f"| `{F32}` | `{ROOT_CELL}` | – | – | `{F32}` (0 worse, 0.015) |"
        merged = "transformers/audit/checkpoint"
        assert row(report, merged).startswith(f"| `{merged}` | `{ATTACHED}` |")
        assert f"\n| `{VLLM}` |" not in report  # it did not run
        assert f"\n| `{ATTACHED}` |" not in report  # it is a reference

    def test_a_hop_on_the_way_that_was_not_compared(self) -> None:
        evidence = report_input(PROJECT, ITEMS)
        failed = with_hop(evidence, F32, compared=False)
        report = section(render(failed), "Cells against their reference")
        assert f"`{F32}` (not compared)" in row(report, Q2)


class TestFloors:
    def test_answers_distributions_and_decoding(self) -> None:
        texts = (forced("base", 1e-9, 2e-9), forced("audit", 3e-9, 4e-7), forced("privacy", None))
        cell = record(F32).model_copy(update={"forced": texts})
        evidence = report_input(PROJECT, ITEMS, records={F32: cell})
        cells = tuple(
            each.model_copy(update={"decoding_gap": 0.11}) if each.cell == F32 else each
            for each in evidence.drift.cells
        )
        report = section(render(with_drift(evidence, cells=cells)), "Noise floor")
        assert row(report, F32) == f"| `{F32}` | 9 | 0 | 0 | 3e-09 | 4e-07 | 0.11 |"
        assert row(report, Q8) == f"| `{Q8}` | 9 | 0 | 0 | – | – | – |"
        assert row(report, ROOT_CELL) == f"| `{ROOT_CELL}` | 9 | 0 | 0 | – | – | – |"

    def test_a_cell_without_answers_of_its_own(self) -> None:
        cell = record(F32).model_copy(update={"floor": None, "forced": (forced("base", 1e-9),)})
        report = section(render(report_input(PROJECT, ITEMS, records={F32: cell})), "Noise floor")
        assert row(report, F32) == f"| `{F32}` | – | – | – | 1e-09 | 0 | – |"


def tensor(module: str, error: float, explained: Any = "exact", layer: int | None = 1) -> Any:
    return TensorChange(
        name=f"model.layers.{layer}.{module}.weight",
        layer=layer,
        module=module,
        stored="Q8_0",
        relative_error=error,
        explained=explained,
    )


def stored(artifact: str, *tensors: TensorChange, **changes: Any) -> CounterfactualRecord:
    facts: dict[str, Any] = {
        "artifact": artifact,
        "artifact_identity": sha256_text(artifact),
        "parent": "gguf/base/f32",
        "parent_identity": sha256_text("gguf/base/f32"),
        "trusted": True,
        "tensors": tensors,
    }
    return CounterfactualRecord(**{**facts, **changes})


class TestStored:
    def section(self, *records: CounterfactualRecord) -> str:
        evidence = replace(report_input(PROJECT, ITEMS), counterfactuals=records)
        return section(render(evidence), "Stored weights")

    def test_none(self) -> None:
        assert "No artifact's stored weights were examined." in self.section()

    def test_the_furthest_five_those_beyond_explanation_first(self) -> None:
        tensors = [tensor(f"m{n}", n / 1000) for n in range(7)]
        report = self.section(
            stored("gguf/base/q8_0", *tensors, tensor("odd", 0.0005, "beyond", layer=None))
        )
        assert report.strip().splitlines()[-1] == (
            "- `gguf/base/q8_0`: 8 tensors against those of `gguf/base/f32`: 7 exact, 1 beyond; "
            "`odd` (`Q8_0`, beyond) 0.0005, "
            "layer 1 `m6` (`Q8_0`, exact) 0.006, layer 1 `m5` (`Q8_0`, exact) 0.005, "
            "layer 1 `m4` (`Q8_0`, exact) 0.004, layer 1 `m3` (`Q8_0`, exact) 0.003"
        )

    def test_the_explanation_is_said_once_where_all_have_the_same(self) -> None:
        report = self.section(stored("a", tensor("m", 0.25)), stored("b", tensor("m", 0.0)))
        against = "1 tensor against those of `gguf/base/f32`"
        assert f"- `a`: {against}: 1 exact; layer 1 `m` (`Q8_0`) 0.25\n" in report
        assert f"- `b`: {against}: 1 exact; none differs\n" in report

    def test_a_merge_needs_no_explanation(self) -> None:
        told = stored("checkpoints/audit", *(tensor(f"m{n}", n / 10, None) for n in range(3)))
        report = self.section(
            told.model_copy(update={"parent": "checkpoints/base"}),
            stored("half", tensor("a", 0.2, None), tensor("b", 0.1), tensor("c", 0.3, "within")),
        )
        assert (
            "- `checkpoints/audit`: 3 tensors against those of `checkpoints/base`; "
            "layer 1 `m2` (`Q8_0`) 0.2, layer 1 `m1` (`Q8_0`) 0.1\n"
        ) in report
        assert (
            ": 1 exact, 1 within; layer 1 `c` (`Q8_0`, within) 0.3, layer 1 `a` (`Q8_0`) 0.2, "
            "layer 1 `b` (`Q8_0`, exact) 0.1\n"
        ) in report

    def test_a_withheld_split_and_fields_come_first(self) -> None:
        changes = (FieldChange(field="rope.freq_base", expected="10000.0", found="500000.0"),)
        added = (FieldChange(field="chat_template", expected=None, found='"x"'),)
        report = self.section(
            stored("far", tensor("m", 0.9)),
            stored("odd", tensor("m", 0.1, "beyond")),
            stored("fields", config=changes, text_fields=added),
            stored("none", trusted=False, reason="the loader failed its control"),
        )
        against = "1 tensor against those of `gguf/base/f32`"
        assert report.strip().splitlines()[2:] == [
            "- `none`: split withheld: the loader failed its control",
            f"- `odd`: {against}: 1 beyond; layer 1 `m` (`Q8_0`) 0.1",
            "- `fields`: no tensors",
            "  - field `rope.freq_base`: expected `10000.0`, found `500000.0`",
            '  - field `chat_template`: expected nothing, found `"x"`',
            f"- `far`: {against}: 1 exact; layer 1 `m` (`Q8_0`) 0.9",
        ]


def markdown_cells() -> list[CellSpec]:
    return [each.cell for each in report_input(PROJECT, ITEMS).cells]


class TestHostileReport:
    """Every text that anybody could have written is hostile, one at a time."""

    def evidence(self, text: str) -> ReportInput:
        prompt = pinned(text=text)
        items = {prompt.key: prompt}

        def answer(each: CellSpec, given: PinnedPrompt) -> Completion:
            made = completion(given, (1, 2) if each.id == F32 else (3, 3), text=text)
            return made.model_copy(update={"pieces": (text, text)})

        def verdict(each: CellSpec, given: PinnedPrompt) -> ItemState:
            return "wrong" if each.id == Q8 else "correct"

        records = {
            **failing(VLLM, reason=text, remedy=text),
            Q8: record(Q8, settings={text or "key": text, "other": [text]}, build={"v": text}),
        }
        artifacts = tuple(
            each.model_copy(
                update={
                    "tool": text,
                    "tool_version": text,
                    "notes": (text,),
                    "arguments": {text: text},
                }
            )
            for each in (*lineage(SMALL), artifact(text, "mlx", "convert"))
        )
        evidence = report_input(
            SMALL,
            items,
            answer=answer,
            verdict=verdict,
            records=records,
            artifacts=artifacts,
            references={prompt.key: text},
        )
        evidence = with_cause(evidence, Q8, Cause(component=None, reason=text, margin=0.1))
        return replace(
            with_drift(self.strange(evidence, text), findings=(self.finding(text),)),
            counterfactuals=self.counterfactuals(text),
        )

    def strange(self, evidence: ReportInput, text: str) -> ReportInput:
        """With hops and cells that are called `text`, and say it wherever they can."""
        whole = distributions(0.1, tail=0.5)
        told = {
            "summary": f"{text}; {text}",
            "split": Split(end_to_end=whole, answers=whole, withheld=text),
            "text": TextDrift(
                prompts=tuple(
                    PromptDifference(
                        evalset=each.evalset,
                        item=each.item,
                        cause="template",
                        position=1,
                        pinned_piece=text,
                        own_piece=text,
                        detail=text,
                    )
                    for each in evidence.hops_by_child[Q8].items
                ),
                stops=(StopDifference(setting=text, parent=text, child=text),),
                fields=(text,),
            ),
        }
        evidence = with_hop(evidence, Q8, **told)
        kept = evidence.hops_by_child[F32]
        hop = Hop(parent=text, child=text, kind="convert")
        silent = kept.model_copy(update={"hop": hop, "split": None, "not_split": text})
        named = kept.model_copy(update={"hop": Hop(parent=text, child=Q2, kind="convert"), **told})
        cell = CellDrift(
            cell=text, reference=text, drift=whole, hops=(named.hop.name,), decoding_gap=0.1
        )
        return with_drift(
            evidence,
            hops=(*evidence.drift.hops, silent, named),
            cells=(*evidence.drift.cells, cell),
        )

    def finding(self, text: str) -> Finding:
        return Finding(code=text, where=text, component=None, message=text, items=(text, text))

    def counterfactuals(self, text: str) -> tuple[CounterfactualRecord, ...]:
        change = FieldChange(field=text, expected=text, found=text)
        odd = tensor(text, 0.1, "beyond").model_copy(update={"stored": text, "name": text})
        return (
            stored(text, odd, tensor("m", 0.0), config=(change,), text_fields=(change,)),
            stored(text, trusted=False, reason=text),
        )

    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    def test_nothing_of_it_is_markup(self, text: str) -> None:
        self.check(render(self.evidence(text)))

    @settings(max_examples=15, deadline=None)
    @given(nasty)
    def test_nothing_of_anything_is_markup(self, text: str) -> None:
        self.check(render(self.evidence(text)))

    def check(self, report: str) -> None:
        assert not BAD.search(report)
        assert not re.search(r"^\s*::|##\w*\[", report, re.M)
        report.encode()
        found = list(tokens(report))
        kinds = {token.type for token in found}
        assert not kinds & {"html_inline", "image", "code_block"}
        blocks = [token.content for token in found if token.type == "html_block"]
        assert len(blocks) == 2 * self.details
        for block in blocks:
            assert re.fullmatch(DETAILS, block.rstrip("\n")), block
        links = {token.attrs["href"] for token in found if token.type == "link_open"}
        assert links <= {"#what-was-not-checked", "#distributions"}
        assert sum(token.type == "heading_open" for token in found) == self.headings
        assert all(token.info in ("mermaid", "diff") for token in found if token.type == "fence")
        prose = " ".join(token.content for token in found if token.type == "text")
        assert "evil" not in prose and "@someone" not in prose
        (graph,) = (token for token in found if token.info == "mermaid")
        for line in graph.content.splitlines():
            assert re.fullmatch(MERMAID, line), line

    headings = 1 + 14 + 1 + 1 + 4
    """Title, sections, the changed item, the other tokens, the runtimes."""
    details = 2
    """Hops with distributions."""

    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    def test_explain_is_safe_in_a_terminal(self, text: str) -> None:
        evidence = self.evidence(text)
        other = evidence.completions[Q8]["clauses/c-1"].model_copy(update={"prompt_ids": (0,)})
        answers = {**evidence.completions, Q8: {"clauses/c-1": other}}
        evidence = replace(evidence, completions=answers)
        shown = explain_item(evidence, "clauses/c-1", {F32: "make x"})
        assert "prompt ids: NOT as pinned: template at id 1, " in shown
        assert "  cause: not told apart, margin 0.1 nats: " in shown
        assert shown.replace("\n", "").isprintable()
        assert not re.search(r"^\s*::|##\w*\[", shown, re.M)
        assert len(shown) < 200_000


DETAILS = r"<details><summary><code>[^<>\n]*</code></summary>|</details>"
LABEL = r"(?:[\w \-./:,+=()→·%…<>]|#\d+;)*"
MERMAID = "|".join(
    (
        "flowchart LR",
        rf'a_\w+\["{LABEL}"\]',
        rf'c_\w+\(\["{LABEL}"\]\)(?::::failed)?',
        rf'a_\w+ -->\|"{LABEL}"\| a_\w+',
        r"a_\w+ -\.-> c_\w+",
        "classDef failed stroke-dasharray: 5 5",
    )
)


class TestSize:
    def evidence(self, count: int, text: str) -> ReportInput:
        """Every cell answers every prompt in its own way, and half of them wrongly."""
        items = prompts("clauses", "sql", "audit", "privacy", count=count // 4)
        places = {cell.id: n for n, cell in enumerate(markdown_cells())}

        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, (1, 2, places[each.id]), text=f"{each.id} {text}")

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            return "wrong" if places[each.id] % 2 or int(prompt.id[2:]) % 3 else "correct"

        return report_input(PROJECT, items, answer=answer, verdict=verdict)

    def test_300_items_in_26_cells(self) -> None:
        evidence = self.evidence(300, "long answer " * 50)
        report = render(evidence)
        assert 0.8 * LIMIT < len(report.encode()) <= LIMIT < 65_536
        more = re.search(r"^(\d+) more with a changed verdict: `driftline explain", report, re.M)
        assert more is not None
        items = changed_items(evidence)
        shown = section(report, "Answers that changed").count("\n### `")
        assert shown > 0
        assert shown + int(more[1]) == len(items)

    def test_token_changes_are_shared_out(self) -> None:
        items = prompts("clauses", "sql", "audit", "privacy", count=75)
        places = {cell.id: n for n, cell in enumerate(markdown_cells())}

        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, (1, 2, places[each.id]))

        report = render(report_input(PROJECT, items, answer=answer))
        assert len(report.encode()) <= LIMIT
        lines = re.findall(r"^- `.* → .*`, (\d+) answers: (.*)$", report, re.M)
        assert len(lines) == 23  # every hop but the two adapters'
        for count, line in lines:
            listed = line.count(" → ")
            more = re.search(r"; (\d+) more$", line)
            assert listed + int(more[1] if more else 0) == int(count)

    def measured(self, evidence: ReportInput, text: str) -> ReportInput:
        """Every hop has everything to say, in `text`, and ten findings."""
        change = FieldChange(field=text, expected=text, found=text)
        hops, found = [], []
        for place, hop in enumerate(evidence.drift.hops):
            whole = distributions(0.001 * (place + 1), tail=1e-6)
            said = TextDrift(
                prompts=tuple(
                    PromptDifference(
                        evalset=item.evalset,
                        item=item.item,
                        cause="template",
                        position=0,
                        pinned_piece=text,
                        own_piece=text,
                        detail=text,
                    )
                    for item in hop.items
                ),
                stops=(StopDifference(setting=text, parent=text, child=text),) * 3,
                fields=(text,) * 20,
            )
            split = Split(end_to_end=whole, answers=whole, withheld=text)
            hops.append(hop.model_copy(update={"split": split, "summary": text, "text": said}))
            found += [
                Finding(
                    code=f"code-{n}",
                    where=hop.hop.name,
                    component="text",
                    message=text,
                    items=(text,) * 10,
                )
                for n in range(10)
            ]
        records = tuple(
            stored(
                each.name,
                *(tensor(f"m{n} {text}", n / 10) for n in range(10)),
                config=(change,) * 20,
                text_fields=(change,) * 20,
            )
            for each in evidence.artifacts
        )
        return replace(
            with_drift(evidence, hops=tuple(hops), findings=tuple(found)), counterfactuals=records
        )

    @pytest.mark.parametrize("size", [1, 40, 5000])
    def test_many_findings_and_figures(self, size: int) -> None:
        evidence = self.measured(report_input(PROJECT, ITEMS, **one_bad_cell(Q2)), "t " * size)
        report = render(evidence)
        assert len(report.encode()) <= LIMIT
        findings = section(report, "Findings")
        shown = len(re.findall(r"^- `code-\d`", findings, re.M))
        more = re.search(r"^- (\d+) more findings$", findings, re.M)
        assert shown > 0
        assert shown + int(more[1] if more else 0) == 250
        assert findings.split("\n- ")[1].startswith("`code-0` at `llamacpp/base/f32 → llama")
        assert "### `clauses/c-001`" in report

    def test_figures_of_hops_leave_room_for_answers(self) -> None:
        evidence = self.measured(self.evidence(300, "long answer " * 50), "short")
        report = render(evidence)
        assert len(report.encode()) <= LIMIT
        figures_shown = section(report, "Distributions")
        blocks = re.findall(r"<details><summary><code>(.*?)</code>", figures_shown)
        table = re.findall(r"^\| `(.*? → .*?)` \|", figures_shown, re.M)
        assert 0 < len(blocks) < 25
        assert blocks == table[: len(blocks)]  # worst first
        assert f" of {25 - len(blocks)} more hops: `artifacts/drift/drift.json`." in figures_shown
        assert section(report, "Answers that changed").count("\n### `") > 0

    def test_huge_records_cost_detail_not_the_limit(self) -> None:
        wide = {f"key {n}": "v" * 400 for n in range(400)}
        cells = [each.id for each in markdown_cells()]
        records = {
            cell: record(cell, settings={**wide, "own": f"{cell} " * 100}, build={"v": "1"})
            for cell in cells
        }
        evidence = report_input(PROJECT, ITEMS, records=records, **one_bad_cell(Q2))
        report = render(evidence)
        assert len(report.encode()) <= LIMIT
        assert "more settings." in report
        assert "### `clauses/c-001`" in report

    def test_all_cells_fail_with_huge_reasons(self) -> None:
        records = {
            each.id: record(each.id, state="error", reason="r" * 5000, remedy="m" * 5000)
            for each in markdown_cells()
        }
        assert len(render(report_input(PROJECT, ITEMS, records=records)).encode()) <= LIMIT


class TestGraph:
    def test_every_edge_joins_nodes_that_are_there(self) -> None:
        lines = flowchart(report_input(PROJECT, ITEMS))
        nodes = {m[0] for line in lines if (m := re.match(r"[ac]_\w+(?=[\[(])", line))}
        edges = [line for line in lines if "->" in line]
        ends = {end for line in edges for end in re.findall(r"\b[ac]_\w+\b", line)}
        assert ends == nodes
        assert len(nodes) == 26 + 23

    def test_an_attached_adapter_leads_to_its_cell(self) -> None:
        lines = flowchart(report_input(PROJECT, ITEMS))
        assert "a_adapters_audit -.-> c_transformers_audit_attached" in lines
        assert "a_checkpoints_base -.-> c_transformers_audit_attached" in lines

    def test_identical_artifacts_are_one_node(self) -> None:
        source = artifact("checkpoints/base", "source", "pin")
        same = artifact("gguf/a", "gguf", "convert", parents=[source], identity="f" * 64)
        twin = artifact("gguf/b", "gguf", "quantize", parents=[same], identity="f" * 64)
        lines = flowchart(report_input(SMALL, prompts("clauses"), artifacts=(source, same, twin)))
        assert 'a_gguf_a["gguf/a = gguf/b<br/>gguf, 8.50 bits per weight"]' in lines
        assert not any("a_gguf_b" in line for line in lines)
        assert [line for line in lines if "-->" in line] == [
            'a_checkpoints_base -->|"convert"| a_gguf_a'
        ]

    def test_too_many_edges_are_not_drawn(self) -> None:
        source = artifact("checkpoints/base", "source", "pin")
        many = [artifact(f"g/{n}", "gguf", "convert", parents=[source]) for n in range(500)]
        evidence = report_input(SMALL, prompts("clauses"), artifacts=(source, *many))
        assert flowchart(evidence) == ()
        report = render(evidence)
        assert "The graph is too large to draw" in report
        assert len(report.encode()) <= LIMIT


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)


class TestSettings:
    @settings(deadline=None)
    @given(st.lists(st.dictionaries(st.sampled_from("pqr"), json_values), min_size=1, max_size=5))
    def test_every_setting_of_every_cell_is_said_once(self, given: list[dict[str, Any]]) -> None:
        cells = [Q8, Q2, F32, "llamacpp/base/q4_k_m", "llamacpp/audit/f32"]
        records = [
            record(cell).model_copy(update={"settings": each, "build": {"version": "1"}})
            for cell, each in zip(cells, given, strict=False)
        ]
        (matrix,) = runtime_matrix(records)
        said: list[tuple[str, str, str]] = []
        for one in matrix.shared:
            said += [(cell, one.key, one.value) for cell in matrix.cells]
        for part in matrix.differing:
            if part.value is not None:
                said += [(cell, part.key, part.value) for cell in part.cells]
        expected = {
            (each.cell.id, key, value)
            for each in records
            for key, value in {**flatten(each.settings), "build.version": "1"}.items()
        }
        assert len(said) == len(set(said))
        assert set(said) == expected

    def test_a_setting_that_differs_is_shown_per_cell(self) -> None:
        records = {Q8: record(Q8, settings={"threads": 2, "dtype": "float32"})}
        report = render(report_input(SMALL, prompts("clauses"), records=records))
        runtimes = section(report, "Runtimes")
        assert f"| `threads` | `2` | `{Q8}` |" in runtimes
        assert f"| `threads` | `1` | `{F32}`, " in runtimes
        assert "| `dtype` | `float32` |\n" in runtimes.split("### `llamacpp`")[1]


MEASURED = {
    "items",
    "worse",
    "better",
    "same_sequence",
    "prompt_mismatches",
    "mcnemar_p",
    "holm_p",
}
"""What every hop that was compared has, with or without distributions."""


class TestMetrics:
    def test_scores_and_hops(self) -> None:
        tree = metrics(report_input(PROJECT, ITEMS, **one_bad_cell(Q2)))
        data = json.loads(json.dumps(tree, allow_nan=False))
        assert data["cells"]["llamacpp"]["base"]["q2_k"]["clauses"] == {
            "accuracy": 0.75,
            "items": 4,
        }
        assert data["hops"]["llamacpp"]["base"]["q2_k"] == {
            "items": 8,
            "worse": 2,
            "better": 0,
            "same_sequence": 0.75,
            "prompt_mismatches": 0,
            "mcnemar_p": 0.5,
            "holm_p": 1.0,
        }
        assert data["findings"] == {}
        assert data["states"] == {
            "ok_cells": 26,
            "error_cells": 0,
            "skipped_cells": 0,
            "unstable_cells": 0,
        }

    def test_distributions(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        near = Cause(component="numerics", reason="x", margin=0.01, near_tie=True)
        first, *others = (item for item in evidence.hops_by_child[Q2].items if item.flip != "none")
        items = (first, *(item.model_copy(update={"cause": near}) for item in others))
        whole, answers, part = distributions(0.01), distributions(0.02), distributions(0.004)
        split = Split(
            end_to_end=whole, answers=answers, weights=part, numerics=distributions(0.002)
        )
        data: Any = metrics(with_hop(evidence, Q2, items=items, split=split))
        found = data["hops"]["llamacpp"]["base"]["q2_k"]
        assert len(others) == 1 and found["worse"] == 2
        assert {name: found[name] for name in found if name not in MEASURED} == {
            "kl_mean": whole.kl_mean.value,
            "kl_p99": whole.kl_p99,
            "kl_max": 0.02,
            "top1_agreement": 0.975,
            "ln_perplexity_ratio": pytest.approx(0.01),
            "weights_kl_mean": part.kl_mean.value,
            "numerics_kl_mean": pytest.approx(0.003),
            "answers_kl_mean": answers.kl_mean.value,
            "answers_top1_agreement": 0.975,
            "answers_ln_perplexity_ratio": pytest.approx(0.02),
            "flips_not_near_ties": 1,
        }
        bare = whole.model_copy(update={"ln_perplexity_ratio": None})
        data = metrics(with_hop(evidence, Q2, split=Split(end_to_end=bare, withheld="x")))
        found = data["hops"]["llamacpp"]["base"]["q2_k"]
        assert set(found) - MEASURED == {
            "kl_mean",
            "kl_p99",
            "kl_max",
            "top1_agreement",
            "flips_not_near_ties",
        }
        data = metrics(with_hop(evidence, Q2, split=Split(end_to_end=bare, answers=bare)))
        found = data["hops"]["llamacpp"]["base"]["q2_k"]
        assert found["answers_kl_mean"] == whole.kl_mean.value
        assert "answers_ln_perplexity_ratio" not in found

    def test_an_adapter_is_not_among_the_corrected(self) -> None:
        data: Any = metrics(report_input(PROJECT, ITEMS))
        adapter = data["hops"]["transformers"]["audit"]["attached"]
        assert adapter["mcnemar_p"] == 1.0 and "holm_p" not in adapter
        assert data["hops"]["transformers"]["audit"]["checkpoint"]["holm_p"] == 1.0

    @pytest.mark.parametrize("state", ["ok", "unstable"])
    def test_drift_from_the_reference(self, state: Any) -> None:
        evidence = report_input(PROJECT, ITEMS, records={Q8: record(Q8, state=state)})
        cells = tuple(
            each.model_copy(update={"drift": distributions(0.02)}) if each.cell == Q8 else each
            for each in evidence.drift.cells
        )
        data: Any = metrics(with_drift(evidence, cells=cells))
        found = data["cells"]["llamacpp"]["base"]
        assert ("q8_0" in found) == (state == "ok")
        if state == "ok":
            assert found["q8_0"]["kl_from_reference"] == pytest.approx(0.03)
        assert "kl_from_reference" not in found["q2_k"]

    def test_an_evalset_called_like_a_figure_keeps_its_own_key(self) -> None:
        name = "kl-from-reference"
        evidence = report_input(
            project(adapters={}, variants=["base"], evalsets={"base": [name]}, vllm=["base"]),
            prompts(name),
        )
        data: Any = metrics(evidence)
        assert data["cells"]["llamacpp"]["base"]["q8_0"]["kl_from_reference_"]["items"] == 3

    def test_findings_per_code(self) -> None:
        codes = ("bos-differs", "no-op-merge", "bos-differs", "error")
        found = tuple(Finding(code=code, where=Q8, component=None, message="x") for code in codes)
        data: Any = metrics(with_drift(report_input(PROJECT, ITEMS), findings=found))
        assert data["findings"] == {"bos_differs": 2, "no_op_merge": 1, "error_": 1}

    @pytest.mark.parametrize("state", ["error", "skipped", "unstable"])
    def test_only_ok_cells_have_scores(self, state: Any) -> None:
        records = {Q8: record(Q8, state=state, reason="x")}
        data: Any = metrics(report_input(PROJECT, ITEMS, records=records))
        assert "q8_0" not in data["cells"]["llamacpp"]["base"]
        assert ("q8_0" in data["hops"]["llamacpp"]["base"]) == (state == "unstable")

    def test_keys_are_plain_and_do_not_collide(self) -> None:
        names = ["q8.0", "q8-0", "error", "error_"]
        evidence = report_input(
            project(gguf={"outtype": "f32", "quantizations": names}), ITEMS, records={}
        )
        data: Any = metrics(evidence)
        forms = data["cells"]["llamacpp"]["base"]
        assert len(forms) == 5
        assert "error" not in forms  # DVC would report that it failed to load some metrics
        assert all(re.fullmatch(r"[A-Za-z0-9_]+", key) for key in forms)


class TestExplain:
    def test_the_path_of_an_item(self) -> None:
        evidence = report_input(
            SMALL,
            prompts("clauses"),
            records=failing(VLLM, reason="head_dim=8"),
            references={"clauses/c-001": "good"},
            **one_bad_cell(Q2),
        )
        evidence = with_cause(evidence, Q2, TestCauses.NEAR)
        shown = explain_item(evidence, "clauses/c-001", {Q2: "dvc repro -sf score@q2_k"})
        blocks = shown.split("\n\n")
        assert "  │ <user>question</user>\nexpected\n  │ good" in blocks[0]
        assert [block.split("  ")[0] for block in blocks[1:]] == [
            cell.cell.id for cell in evidence.cells
        ]
        (bad,) = (block for block in blocks if block.startswith(Q2))
        assert bad == (
            f"{Q2}  wrong\n"
            "  │ bad\n"
            "  exact: failed\n"
            "  prompt ids: as pinned\n"
            f'  first divergent token 1: " a" → "`", against {F32}\n'
            "  cause: numerics, margin 0.021 nats, near-tie: it rounds\n"
            "  ← first changed here (tokens, verdict)\n"
            "  again: dvc repro -sf score@q2_k"
        )
        assert shown.count("← first changed here") == 1
        assert f"{VLLM}  error: head_dim=8 (remedy: make x)" in shown

    def test_a_stretch_without_answers_is_named(self) -> None:
        evidence = report_input(SMALL, prompts("clauses"), records=failing(F32), **one_bad_cell(Q2))
        shown = explain_item(evidence, "clauses/c-001", {})
        assert f"  not compared with {F32}: {F32}: error: head_dim=8" in shown
        assert f"(tokens; somewhere after {ROOT_CELL}, verdict; somewhere after" in shown

    def test_an_inherited_change_is_marked_where_it_began(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, (3,) if each.runtime == "llamacpp" else (1, 2))

        evidence = report_input(SMALL, prompts("clauses"), answer=answer)
        blocks = explain_item(evidence, "clauses/c-001", {}).split("\n\n")
        marked = [block for block in blocks if "← first changed here (tokens)" in block]
        assert [block.split("  ")[0] for block in marked] == [F32]

    def test_prompt_ids_that_are_not_the_pinned_ones(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, prompt_ids=(9,) if each.id == Q8 else None)

        evidence = report_input(SMALL, prompts("clauses"), answer=answer)
        shown = explain_item(evidence, "clauses/c-001", {})
        assert shown.count("prompt ids: NOT as pinned\n") == 1
        difference = PromptDifference(
            evalset="clauses",
            item="c-001",
            cause="bos",
            position=0,
            pinned_piece="<s>",
            own_piece=None,
            detail="BOS missing: 0 instead of 1",
        )
        other = difference.model_copy(update={"item": "c-000", "detail": "another one"})
        told = with_hop(evidence, Q8, text=TextDrift(prompts=(other, difference)))
        assert (
            '\n  prompt ids: NOT as pinned: bos at id 0, (end) instead of "<s>"; '
            "BOS missing: 0 instead of 1\n"
        ) in explain_item(told, "clauses/c-001", {})

    def test_prompt_ids_that_were_wrong_before(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, prompt_ids=(9,) if each.id in (F32, Q8) else None)

        evidence = report_input(SMALL, prompts("clauses"), answer=answer)
        blocks = explain_item(evidence, "clauses/c-001", {}).split("\n\n")
        said = {block.split("  ")[0]: block for block in blocks}
        assert "  prompt ids: NOT as pinned\n" in said[F32]
        assert f"  prompt ids: NOT as pinned, as already in {F32}\n" in said[Q8]
        assert "  prompt ids: as pinned\n" in said[Q2]

    def test_a_cause_nobody_can_tell(self) -> None:
        evidence = report_input(SMALL, prompts("clauses"), **one_bad_cell(Q2))
        unknown = Cause(component=None, reason="the split is withheld")
        shown = explain_item(with_cause(evidence, Q2, unknown), "clauses/c-001", {})
        assert "\n  cause: not told apart: the split is withheld\n" in shown

    def test_unstable_and_cut_answers(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            made = completion(prompt, text="y" * 5000)
            return made.model_copy(update={"finish_reason": "length"})

        records = {Q8: record(Q8, state="unstable", different=["clauses/c-001"])}
        evidence = report_input(SMALL, prompts("clauses"), answer=answer, records=records)
        shown = explain_item(evidence, "clauses/c-001", {})
        assert f"{Q8}  correct, unstable: the cell answered differently" in shown
        assert f"… 5000 characters in all, sha256 {sha256_text('y' * 5000)}" in shown
        assert "  ended by length" in shown
        assert max(map(len, shown.splitlines())) < 160

    def test_an_unknown_item(self) -> None:
        evidence = report_input(SMALL, prompts("clauses"))
        with pytest.raises(InputError, match=r'did you mean "clauses/c-001"\?'):
            explain_item(evidence, "clauses/c-01", {})

    def test_only_cells_that_were_given_the_item(self) -> None:
        shown = explain_item(report_input(PROJECT, ITEMS), "audit/a-001", {})
        assert ROOT_CELL in shown
        assert "llamacpp/audit/q8_0" in shown
        assert "llamacpp/base" not in shown


def test_templates_are_packaged() -> None:
    names = {path.name for path in markdown.TEMPLATES.iterdir()}
    assert names == {
        f"{name}.md.jinja"
        for name in (
            "cells",
            "distributions",
            "hop",
            "items",
            "lineage",
            "stored",
            "text",
            "why",
        )
    }
    assert Path(markdown.__file__).parent == markdown.TEMPLATES.parent


def test_a_report_without_any_evidence() -> None:
    empty = report_input(SMALL, {}, artifacts=())
    empty = replace(empty, cells=(), scores=())
    assert "0 cells" in render(empty)
