"""Hostile text and sheer size: the report stays inert, and under its limit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings

from driftline.report.explain import explain_item
from driftline.report.markdown import LIMIT, render
from driftline.report.markdown_items import verdict_changes
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause, CellDrift, Finding, Hop, Split
from driftline.schema.scores import ItemState
from driftline.schema.text import PromptDifference, StopDifference, TextDrift
from driftline.schema.weights import CounterfactualRecord, FieldChange
from tests.factories import (
    artifact,
    completion,
    lineage,
    pinned,
    prompts,
    record,
    report_input,
)
from tests.unit.report_evidence import (
    BAD,
    F32,
    HOSTILE,
    ITEMS,
    PROJECT,
    Q2,
    Q8,
    SMALL,
    VLLM,
    distributions,
    failing,
    markdown_cells,
    nasty,
    one_bad_cell,
    section,
    stored,
    tensor,
    tokens,
    with_cause,
    with_drift,
    with_hop,
)


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
        items = verdict_changes(evidence)
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
