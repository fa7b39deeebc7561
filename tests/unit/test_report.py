from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.digest import sha256_text
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
from pipeline.schema.scores import ItemState
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
VLLM = "vllm/base/checkpoint"

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


# --------------------------------------------------------------------------------- whole reports


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
            "Lineage",
            "Scores",
            "Drift per hop",
            "Answers that changed",
            "Noise floor",
            "Runtimes",
            "Artifacts",
            "What was not checked",
        ]

    def test_nothing_changed(self) -> None:
        report = render(report_input(PROJECT, ITEMS))
        assert "26 cells: 26 ok, 0 error, 0 skipped, 0 unstable." in report
        assert "No answer changed over the 25 hops that were compared" in report
        assert section(report, "Answers that changed").strip() == "None."
        assert section(report, "What was not checked").strip().startswith("Nothing:")

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
        assert row(report, hop) == f"| `{hop}` | adapter | 4 | 0 | 0 | 4 | 0 | 0 |"

    def test_what_an_adapter_broke_is_news(self) -> None:
        report = render(report_input(PROJECT, ITEMS, **one_bad_cell("transformers/audit/attached")))
        assert "### `audit/a-001`" in section(report, "Answers that changed")

    def test_a_changed_answer(self) -> None:
        given = one_bad_cell(Q2, answer_text="dire")
        references = {"clauses/c-001": "the reference"}
        report = render(report_input(PROJECT, ITEMS, references=references, **given))
        block = section(report, "Answers that changed").split("### ")[1]
        assert block.strip() == (
            "`clauses/c-001`\n\n"
            "asked `question`, expected `the reference`\n\n"
            f"- **correct → wrong** at `{F32} → {Q2}` (quantize): "
            'first divergent token 1, `" a"` → ``"`"``\n\n'
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
        assert row(report, hop) == f"| `{hop}` | runtime | not compared | – | – | – | – | – |"
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
        return report_input(
            SMALL,
            items,
            answer=answer,
            verdict=verdict,
            records=records,
            artifacts=artifacts,
            references={prompt.key: text},
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
        assert not kinds & {"html_inline", "html_block", "image", "code_block"}
        links = {token.attrs["href"] for token in found if token.type == "link_open"}
        assert links <= {"#what-was-not-checked"}
        assert sum(token.type == "heading_open" for token in found) == self.headings
        assert all(token.info in ("mermaid", "diff") for token in found if token.type == "fence")
        prose = " ".join(token.content for token in found if token.type == "text")
        assert "evil" not in prose and "@someone" not in prose
        (graph,) = (token for token in found if token.info == "mermaid")
        for line in graph.content.splitlines():
            assert re.fullmatch(MERMAID, line), line

    headings = 1 + 8 + 1 + 1 + 4
    """Title, sections, the changed item, the other tokens, the runtimes."""

    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    def test_explain_is_safe_in_a_terminal(self, text: str) -> None:
        shown = explain_item(self.evidence(text), "clauses/c-1", {F32: "make x"})
        assert shown.replace("\n", "").isprintable()
        assert not re.search(r"^\s*::|##\w*\[", shown, re.M)
        assert len(shown) < 200_000


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
        }
        assert data["states"] == {
            "ok_cells": 26,
            "error_cells": 0,
            "skipped_cells": 0,
            "unstable_cells": 0,
        }

    @pytest.mark.parametrize("state", ["error", "skipped", "unstable"])
    def test_only_ok_cells_have_scores(self, state: Any) -> None:
        records = {Q8: record(Q8, state=state, reason="x")}
        data: Any = metrics(report_input(PROJECT, ITEMS, records=records))
        assert "q8_0" not in data["cells"]["llamacpp"]["base"]
        assert ("q8_0" in data["hops"]["llamacpp"]["base"]) == (state == "unstable")

    def test_keys_are_plain_and_do_not_collide(self) -> None:
        names = ["q8.0", "q8-0", "error"]
        evidence = report_input(
            project(gguf={"outtype": "f32", "quantizations": names}), ITEMS, records={}
        )
        data: Any = metrics(evidence)
        forms = data["cells"]["llamacpp"]["base"]
        assert len(forms) == 4
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
        assert shown.count("prompt ids: NOT as pinned") == 1

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
    assert names == {"lineage.md.jinja", "items.md.jinja"}
    assert Path(markdown.__file__).parent == markdown.TEMPLATES.parent


def test_a_report_without_any_evidence() -> None:
    empty = report_input(SMALL, {}, artifacts=())
    empty = replace(empty, cells=(), scores=())
    assert "0 cells" in render(empty)
