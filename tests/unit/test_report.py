"""The Markdown report: its sections, its graph, its settings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.project.routes import ROOT_CELL
from driftline.report import markdown
from driftline.report.changes import changed_items, changes
from driftline.report.context import TEMPLATES
from driftline.report.graph import flowchart
from driftline.report.markdown import LIMIT, render
from driftline.report.settings import flatten, runtime_matrix
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause, Split
from driftline.schema.scores import ItemState
from driftline.store.digest import sha256_text
from tests.factories import (
    artifact,
    completion,
    prompts,
    record,
    report_input,
)
from tests.unit.report_evidence import (
    F32,
    ITEMS,
    PROJECT,
    Q2,
    Q8,
    SMALL,
    VLLM,
    distributions,
    failing,
    markdown_cells,
    one_bad_cell,
    row,
    section,
    with_cause,
    with_hop,
)


class TestRender:
    def test_sections_in_order(self) -> None:
        report = render(report_input(PROJECT, ITEMS))
        assert re.findall(r"^## (.*)$", report, re.M) == [
            "Findings",
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

        evidence = report_input(PROJECT, ITEMS, verdict=verdict)
        items = changed_items(evidence, changes(evidence))
        assert [(item.key, item.n_worse) for item in items] == [
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


def test_templates_are_packaged() -> None:
    names = {path.name for path in TEMPLATES.iterdir() if path.is_file()}
    assert names == {
        f"{name}.md.jinja"
        for name in (
            "cells",
            "distributions",
            "gate",
            "hop",
            "items",
            "lineage",
            "machines",
            "release",
            "stored",
            "text",
            "why",
        )
    }
    assert Path(markdown.__file__).parent == TEMPLATES.parent


def test_a_report_without_any_evidence() -> None:
    empty = report_input(SMALL, {}, artifacts=())
    empty = replace(empty, cells=(), scores=())
    assert "0 cells" in render(empty)
