"""The HTML report: its order, its figures against the other reports, and what it is made of."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from rich.console import Console

from driftline.gate.evaluation import outlook
from driftline.project.routes import ROOT_CELL
from driftline.report import markdown
from driftline.report.candidates import Candidate, Parting, texts_of
from driftline.report.changes import PER_HOP, changed_items, changes, selected
from driftline.report.figures import brief
from driftline.report.html import page
from driftline.report.html.names import anchors
from driftline.report.html.page import render
from driftline.report.metrics import metrics
from driftline.report.model import ReportInput
from driftline.report.plots import plots
from driftline.report.terminal import tables as shown
from driftline.report.verdict import verdict
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.budget import Budget, GroupCost
from driftline.schema.cells import CellSpec
from driftline.schema.comparison import Baseline
from driftline.schema.gate import GateVerdict
from driftline.schema.hops import Cause, Finding, Split
from driftline.schema.scores import ItemState
from driftline.schema.statistics import SequenceDrift
from driftline.schema.text import PromptDifference, SourceVocabulary, TextDrift
from driftline.schema.weights import CounterfactualRecord
from driftline.store.digest import sha256_text
from tests.factories import completion, project, prompts, record, report_input
from tests.unit.html_pages import named, rows, tables, tree, words, xml
from tests.unit.report_evidence import (
    BAD,
    F32,
    ITEMS,
    PROJECT,
    Q2,
    Q8,
    SMALL,
    VLLM,
    baseline,
    blessing,
    check,
    distributions,
    failing,
    forced,
    gate_report,
    nasty,
    one_bad_cell,
    section,
    stored,
    tensor,
    with_cause,
    with_gate,
    with_hop,
)

WORDS = SourceVocabulary(
    pieces=("<s>", "▁the", "▁a", "|", "`", "\n", '"', "<b>", *(f"▁w{n}" for n in range(20))),
    special=(0,),
    bos=0,
    eos=(2,),
)
WEIGHTS = Cause(component="weights", reason="the stored weights prefer it", margin=2.5)


def evidence(**given: Any) -> ReportInput:
    """One cell answers items 001 wrongly, because of its weights; every hop is measured."""
    found = report_input(PROJECT, ITEMS, **(given or one_bad_cell(Q2, "bad")))
    found = with_cause(found, Q2, WEIGHTS)
    for place, child in enumerate(found.hops_by_child):
        whole = distributions(0.001 * place)
        split = Split(end_to_end=whole, answers=whole, weights=whole, numerics=whole, rest=0.0)
        found = with_hop(found, child, split=split, summary=f"hop {place}")
    return found


class TestOrder:
    def test_sections(self) -> None:
        found = re.findall(r'<(?:section|header) id="(\w+)"', render(evidence()))
        assert found == [
            "top",
            "lineage",
            "gate",
            "since",
            "matrix",
            "answers",
            "hops",
            "runtimes",
            "unchecked",
        ]

    def test_every_link_leads_somewhere(self) -> None:
        root = tree(render(evidence(), vocabulary=WORDS))
        ids = [node.get("id") for node in root.iter() if node.get("id")]
        assert len(ids) == len(set(ids))
        links = {node.get("href") for node in root.iter() if node.get("href")}
        links.discard("data:,")
        assert links <= {f"#{each}" for each in ids}
        assert len(links) > 30

    def test_same_input_same_bytes(self) -> None:
        given = one_bad_cell(Q2)
        assert render(evidence(**given)) == render(evidence(**given))

    def test_it_is_well_formed(self) -> None:
        found = render(with_gate(evidence()), vocabulary=WORDS)
        tree(found)
        xml(found)

    def test_a_report_without_any_evidence(self) -> None:
        empty = replace(report_input(SMALL, {}, artifacts=()), cells=(), scores=())
        found = render(empty)
        tree(found)
        xml(found)
        assert "0 cells" in found


class TestPolicy:
    def test_nothing_but_our_own_style_and_script(self) -> None:
        found = render(evidence())
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', found)
        (style,) = re.findall(r"<style>(.*?)</style>", found, re.S)
        (script,) = re.findall(r"<script>(.*?)</script>", found, re.S)
        for kind, source in (("style", style), ("script", script)):
            digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
            assert f"{kind}-src &#39;sha256-{digest}&#39;;" in policy
        assert policy.startswith("default-src &#39;none&#39;; ")
        assert "unsafe" not in policy
        assert not re.search(r'\sstyle="|url\(|@import|https?:', found)

    def test_templates_print_no_bare_figure(self) -> None:
        with pytest.raises(TypeError, match="no filter made text"):
            page.environment().from_string("{{ figure }}").render(figure=0.1)


class TestSameFigures:
    """The four shapes of a report agree: none computes a number of its own."""

    def markdown(self, found: ReportInput, title: str) -> list[list[str]]:
        lines = section(markdown.render(found), title).splitlines()
        table = [line for line in lines if line.startswith("| `")]
        cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
        return [[cell.strip().strip("`") for cell in row] for row in cells]

    def test_drift_per_hop(self) -> None:
        found = evidence()
        (table,) = tables(tree(render(found)), "hops")
        html = {row[0]: row for row in rows(table)[1:]}
        for row in self.markdown(found, "Drift per hop"):
            name, kind, items, same, worse, better, difference, _, holm = row[:9]
            expected = [items, same, worse, better, difference, holm]
            assert html[name][1] == kind
            assert html[name][3:9] == expected
        assert len(html) == 25

    def test_distributions(self) -> None:
        found = evidence()
        root = tree(render(found))
        for row in self.markdown(found, "Distributions"):
            name, positions, whole, answers, median, p99, p999, most, top1, ratio = row[:10]
            block = next(
                node for node in root.iter("details") if words(node[0]).startswith(f"{name} ")
            )
            (table,) = tables(block, "figures")
            by_name = {each[0]: each for each in rows(table)}
            assert by_name["end to end"][1] == whole
            assert by_name["on answers"][1] == answers
            shown = by_name["end to end"][3:]
            assert [shown[0], shown[1], *shown[3:7]] == [positions, median, p99, p999, most, top1]
            assert by_name["end to end"][10].startswith(ratio)

    def test_scores(self) -> None:
        found = evidence()
        root = tree(render(found))
        (table,) = tables(root, "matrix")
        head = [cell.get("title") for cell in list(table.iter("tr"))[1]][1:]
        evalsets = ("clauses", "sql", "audit", "privacy")
        totals = [row for row in table.iter("tr") if row.get("class") == "total"]
        shown = {
            (cell, evalset): total.get("title")
            for evalset, row in zip(evalsets, totals, strict=True)
            for cell, total in zip(head, list(row)[1:], strict=True)
        }
        for row in self.markdown(found, "Scores"):
            for evalset, figure in zip(evalsets, row[2:], strict=True):
                assert (shown[row[0], evalset] or "–") == figure

    def test_metrics(self) -> None:
        found = evidence()
        tree_of: Any = metrics(found)
        (table,) = tables(tree(render(found)), "hops")
        html = {row[0].partition(" → ")[2]: row for row in rows(table)[1:]}
        hops = [
            (f"{runtime}/{variant}/{form}", figures)
            for runtime, variants in tree_of["hops"].items()
            for variant, forms in variants.items()
            for form, figures in forms.items()
        ]
        for child, figures in hops:
            row = html[child]
            assert row[5:7] == [str(figures["worse"]), str(figures["better"])]
            assert row[9].startswith(brief(figures["kl_mean"]))
        assert len(hops) == 25


class TestMatrix:
    def row(self, found: ReportInput, key: str, **how: Any) -> Any:
        (table,) = tables(tree(render(found, **how)), "matrix")
        return next(row for row in table.iter("tr") if words(row[0]).startswith(f"{key} ")), [
            cell.get("title") for cell in list(table.iter("tr"))[1]
        ]

    def test_a_state_is_a_shape_and_a_word(self) -> None:
        row, head = self.row(evidence(), "clauses/c-001")
        cell = row[head.index(Q2)]
        assert cell.get("class").split() == ["s", "w", "k"]
        assert cell.get("aria-label") == "wrong, was correct"
        assert row[head.index(F32)].get("class") == "s c"
        assert row[head.index("llamacpp/audit/f32")].get("class") == "o"

    def test_filters_have_what_they_need(self) -> None:
        found = evidence()
        row, _ = self.row(found, "clauses/c-001")
        at = [hop.hop.child for hop in found.drift.hops].index(Q2)
        assert row.get("data-h") == str(at)
        assert row.get("data-c") == "weights"
        assert row.get("data-e") == "0"
        assert "same" not in row.get("class")
        same, _ = self.row(found, "clauses/c-000")
        assert "same" in same.get("class").split()

    def test_other_tokens_and_unstable_answers(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, (3,) if each.id == Q8 else (1, 2))

        records = {Q2: record(Q2, state="unstable", different=["sql/s-001"])}
        found = report_input(PROJECT, ITEMS, answer=answer, records=records)
        row, head = self.row(found, "clauses/c-001")
        assert row[head.index(Q8)].get("class") == "s c d"
        row, head = self.row(found, "sql/s-001")
        assert "z" in row[head.index(Q2)].get("class").split()

    @pytest.mark.parametrize("state", ["error", "skipped"])
    def test_a_failed_cell_has_no_verdicts(self, state: Any) -> None:
        records = {VLLM: record(VLLM, state=state, reason="head_dim=8", remedy="pip install x")}
        found = report_input(PROJECT, ITEMS, records=records)
        row, head = self.row(found, "clauses/c-001")
        assert row[head.index(VLLM)].get("class") == "s x"
        assert row[head.index(VLLM)].get("aria-label") == state
        root = tree(render(found))
        missing = words(named(root, "unchecked"))
        assert "head_dim=8" in missing
        assert "pip install x" in missing
        assert "1 of 26 cells did not run" in words(named(root, "top"))


class TestItems:
    def body(self, found: ReportInput, key: str, **how: Any) -> Any:
        return named(tree(render(found, **how)), f"item={key}")

    def test_both_answers_with_the_divergent_token_marked(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            other = each.id == Q2 and prompt.id == "c-001"
            made = completion(prompt, (1, 2, 2) if other else (1, 1, 2), text="x")
            pieces = ("go", "▁left" if other else "▁right", "<end>")
            return made.model_copy(
                update={"pieces": pieces, "text": "go left" if other else "go right"}
            )

        given = {"answer": answer, "verdict": one_bad_cell(Q2)["verdict"]}
        body = self.body(evidence(**given), "clauses/c-001")
        marks = ["".join(node.itertext()) for node in body.iter("mark")]
        assert marks == [" right", " left"]
        text = words(body)
        assert f"correct → wrong at {F32} → {Q2} (quantize)" in text
        assert (
            "weights the stored weights prefer it; the token said before it led by 2.5 nats" in text
        )

    def test_candidates_of_both_with_what_was_said(self) -> None:
        hop = f"{F32} → {Q2}"
        five = (Candidate(2, "▁a", -0.1), Candidate(4, "`", -2.0))
        other = (Candidate(4, "`", -0.2), Candidate(2, "▁a", -9.0))
        partings = {(hop, "clauses/c-001"): Parting(five, other, other)}
        body = self.body(evidence(), "clauses/c-001", partings=partings)
        shown = [rows(table) for table in tables(body, "likely")]
        assert (
            shown
            == [
                [["▁a", "", "90.5 %", ""], ["`", "", "13.5 %", ""]],
                [["`", "", "81.9 %", "said"], ["▁a", "", "0.01 %", ""]],
            ]
            or shown[0][0][2] == "90.5 %"
        )
        assert "The stored weights of llamacpp/base/q2_k alone" in words(body)

    def test_without_distributions_the_token_alone_is_shown(self) -> None:
        text = words(self.body(evidence(), "clauses/c-001"))
        assert "60.7 %; no distribution of this very context was kept" in text

    def test_what_every_cell_answered(self) -> None:
        body = self.body(evidence(), "clauses/c-001")
        (said,) = (node for node in body.iter("ul") if node.get("class") == "said")
        shown = [words(line) for line in said]
        assert len(shown) == 2
        assert shown[0].startswith("correct transformers/base/checkpoint, ")
        assert shown[1] == f"wrong {Q2} bad"

    def test_the_prompt_as_each_runtime_saw_it(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            made = completion(prompt, prompt_ids=(0, *prompt.ids) if each.id == Q8 else None)
            text = f"<s>{prompt.text}" if each.id == Q8 else prompt.text
            return made.model_copy(update={"prompt_text": text})

        found = report_input(PROJECT, ITEMS, answer=answer)
        difference = PromptDifference(
            evalset="clauses",
            item="c-001",
            cause="bos",
            position=0,
            pinned_piece="|",
            own_piece="<s>",
            detail="BOS doubled",
        )
        found = with_hop(found, Q8, text=TextDrift(prompts=(difference,)))
        body = self.body(found, "clauses/c-001", vocabulary=WORDS)
        seen = [words(node) for node in body.iter("div") if node.get("class") == "seen"]
        assert seen[0].startswith("as pinned, in 7 cells")
        assert seen[1].startswith(f"bos: BOS doubled, in {Q8} <s>")
        assert "as this runtime rendered it" in seen[1]
        assert [words(node) for node in body.iter("b")][1] == "<s>"

    def test_an_earlier_parting_is_named(self) -> None:
        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            gguf = each.runtime == "llamacpp" and each.variant == "base"
            if gguf and prompt.key == "clauses/c-001":
                return completion(prompt, (3,) if each.id != Q8 else (3, 4))
            return completion(prompt)

        body = self.body(report_input(PROJECT, ITEMS, answer=answer), "clauses/c-001")
        assert "Tokens first parted at transformers/base/checkpoint → llamacpp/base/f32" in words(
            body
        )


class TestHops:
    def block(self, found: ReportInput, child: str, **how: Any) -> Any:
        return named(tree(render(found, **how)), f"hop={child}")

    def test_charts_say_their_figures(self) -> None:
        block = self.block(evidence(), Q2)
        labels = [node.get("aria-label") for node in block.iter("svg")]
        assert any(label.startswith("mean KL by position: 0–16: ") for label in labels)
        assert any(label.startswith("mean KL by the parent's confidence: ") for label in labels)

    def test_a_budget_is_a_heat_map(self) -> None:
        groups = (
            GroupCost(layer=0, module="mlp.up_proj", tensors=("a",), kl=0.02),
            GroupCost(layer=1, module="mlp.up_proj", tensors=("b",), kl=0.01),
            GroupCost(layer=None, module="lm_head", tensors=("c",), kl=0.0),
        )
        found = Budget(
            hop=f"{F32} → {Q2}",
            parent_identity="",
            child_identity="",
            positions=9,
            control=0.0,
            whole=0.03,
            additivity=1.0,
            groups=groups,
        )
        block = self.block(replace(evidence(), budgets=(found,)), Q2)
        (heat,) = tables(block, "heat")
        assert rows(heat)[1:] == [["layer 0", "0.02"], ["layer 1", "0.01"], ["lm_head", "0"]]
        shades = [cell.get("class") for cell in heat.iter("td")]
        assert shades == ["n h8", "n h4", "n h0"]

    def test_stored_tensors(self) -> None:
        odd = stored("gguf/base/q2_k", tensor("mlp.up_proj", 1.0, "beyond"))
        found = replace(evidence(), counterfactuals=(odd,))
        assert "1 beyond; furthest layer 1 mlp.up_proj (Q8_0) 1" in words(self.block(found, Q2))

    def test_what_was_withheld_is_said(self) -> None:
        split = Split(end_to_end=distributions(0.1), withheld="no loader")
        found = with_hop(evidence(), Q2, split=split)
        assert "Not split into weights and numerics: no loader" in words(self.block(found, Q2))
        root = tree(render(found))
        assert "is not split into weights and numerics: no loader" in words(
            named(root, "unchecked")
        )


class TestOptional:
    def test_without_gate_and_baseline_that_is_said(self) -> None:
        root = tree(render(evidence()))
        assert "whether it passes: driftline gate" in words(named(root, "top"))
        assert "params.yaml names no baseline." in words(named(root, "since"))
        assert "is not judged here: driftline gate" in words(named(root, "unchecked"))

    def test_a_gate_that_stops_says_so_at_the_top_and_in_full_below(self) -> None:
        found = with_gate(evidence(), "loses 5 points")
        root = tree(render(found))
        top, key = words(named(root, "top")), next(iter(ITEMS))
        assert top.startswith("Gate: fail. ")
        assert f"fail {F32} → {Q2} · loses 5 points weights loses 5 points" in top
        assert f"loses 5 points, for example {key}" in top
        assert "2 of 5 checks stop the gate, 1 accepted" in top
        assert "whether it passes" not in top
        section = words(named(root, "gate"))
        assert "1 checks of the policy in params.yaml pass, 2 stop it, 1 accepted, 1 not" in section
        assert "that it expires changes nothing" in section
        assert f"{VLLM}: loses 5 points" in section
        assert "is about nothing that is there any more" in section
        assert "accepted by loses 5 points until 2026-12-31: loses 5 points" in section
        assert f"flips:{Q2}" in section

    def test_a_pass_that_a_blessing_ends_says_when(self) -> None:
        found = with_gate(evidence(), "late")
        gate = found.gate
        assert gate is not None
        kept = tuple(row for row in gate.checks if not row.stops)
        gate = gate.model_copy(update={"verdict": "pass", "checks": kept})
        found = replace(found, gate=gate, later=outlook(gate))
        root = tree(render(found))
        assert words(named(root, "top")).startswith("Gate: pass. ")
        assert "after 2026-12-31: fail" in words(named(root, "top"))
        assert "after 2026-12-31 the verdict is fail." in words(named(root, "gate"))
        days = [node.get("datetime") for node in root.iter("time")]
        assert set(days) == {"2026-12-31"}

    def test_the_hop_that_stops_the_gate_comes_first_and_what_it_does_not_judge_last(self) -> None:
        def order(*checks: GateVerdict) -> list[str]:
            found = replace(self.two_bad(), gate=gate_report(*checks))
            return [reason.hop.hop.child for reason in verdict(found).reasons]

        assert order() == [Q2, Q8]
        assert order(check("loss", Q8, "fail")) == [Q8, Q2]
        assert order(check("cell", Q2, "skipped")) == [Q8, Q2]
        free = replace(self.two_bad(), gate=gate_report(check("cell", Q2, "skipped")))
        assert "6 answers became worse, over 2 of " in verdict(free).headline
        assert verdict(free).headline.endswith(", 4 of them in cells that are not judged.")

    def test_a_baseline(self) -> None:
        found = with_gate(evidence(), "other bytes")
        section = words(named(tree(render(found)), "since"))
        assert section.startswith("Since v1 ")
        assert "adapter auditaaabbbtensors other bytes → 2" in section
        lost = Baseline(name="v1", commit="a" * 40, problem="its evidence was edited")
        section = words(named(tree(render(replace(found, baseline=lost))), "since"))
        assert "Not compared: its evidence was edited" in section
        same = replace(found, baseline=baseline())
        root = tree(render(same))
        assert "No input differs" in words(named(root, "since"))

    def two_bad(self) -> ReportInput:
        """Two items are worse in q8_0, and four in q2_k."""

        def state(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            bad = {Q2: 4, Q8: 2}.get(each.id, 0)
            return "wrong" if int(prompt.id[2:]) < bad and prompt.evalset == "sql" else "correct"

        return report_input(PROJECT, ITEMS, verdict=state)


class TestGateAndBaseline:
    """The other reports say of the gate and the baseline what the page says."""

    def test_markdown(self) -> None:
        report = markdown.render(with_gate(evidence(), "loses 5 points"))
        assert "\n## Gate: fail\n" in report
        assert "1 checks of the policy in `params.yaml` pass, 2 stop it, 1 accepted" in report
        assert f"- `kl:{Q2}`: `loses 5 points`, by `loses 5 points` until 2026-12-31" in report
        assert "\n## Since `v1`\n" in report
        assert "| `adapter audit` | `aaa` | `bbb` | `tensors loses 5 points → 2` |" in report
        assert "## Gate" not in markdown.render(evidence())

    def test_thousands_of_reasons_do_not_make_it_too_long(self) -> None:
        long = "why " * 200
        keys = tuple(f"sql/{n}" for n in range(500))
        stops = [check("loss", f"mlx/a/{n}", "fail", long, keys=keys) for n in range(2000)]
        accepted = [
            check("kl", f"mlx/b/{n}", "fail", long, blessed=blessing(f"kl:{n}", long))
            for n in range(2000)
        ]
        found = replace(evidence(), gate=gate_report(*stops, *accepted))
        report = markdown.render(found)
        assert len(report.encode()) < 65_536
        assert re.search(r"\n\d+ more: `driftline gate`\.\n", report)
        assert len(render(found).encode()) < 2_000_000

    def test_numbers(self) -> None:
        counts = {"passing": 1, "stopping": 2, "accepted": 1, "not_judged": 1}
        assert metrics(with_gate(evidence()))["gate"] == counts
        assert "gate" not in metrics(evidence())

    def test_terminal(self) -> None:
        console = Console(width=160, record=True, file=io.StringIO())
        for part in shown(with_gate(evidence(), "loses 5 points"), 160, 10):
            console.print(part)
        said = console.export_text()
        assert "gate: fail (1 checks pass, 2 stop, 1 accepted, 1 not judged)" in said
        assert f"accepted: kl:{Q2}: loses 5 points until 2026-12-31: loses 5 points" in said
        assert "since v1: 2 inputs differ; " in said


class TestPlots:
    def test_rows_are_the_figures_of_the_metrics(self) -> None:
        found = evidence()
        made = plots(found)
        scores = list(csv.DictReader(io.StringIO(made["scores.csv"])))
        assert {(row["cell"], float(row["accuracy"])) for row in scores} == {
            (f"{score.cell} · {score.evalset}", score.accuracy)
            for score in found.scores
            if score.accuracy is not None
        }
        hops = {row["cell"]: row for row in csv.DictReader(io.StringIO(made["hops.csv"]))}
        assert hops.keys() == {hop.hop.child for hop in found.drift.hops}
        assert int(hops[Q2]["worse"]) == len(found.hops_by_child[Q2].worse) > 0
        split = found.hops_by_child[Q2].split
        assert split is not None
        assert float(hops[Q2]["kl_mean"]) == split.end_to_end.kl_mean.value

    def test_a_cell_that_did_not_run_has_no_row(self) -> None:
        found = plots(report_input(PROJECT, ITEMS, records=failing(Q2)))
        assert f"{Q2} · " not in found["scores.csv"]

    @given(name=nasty)
    @settings(deadline=None, max_examples=30)
    def test_a_hostile_name_is_one_field_and_no_formula(self, name: str) -> None:
        found = evidence()
        scores = tuple(each.model_copy(update={"evalset": name}) for each in found.scores)
        made = plots(replace(found, scores=scores))["scores.csv"]
        read = list(csv.reader(io.StringIO(made)))
        assert len(read) == len(made.splitlines())
        assert all(len(row) == 3 and row[0][:1] not in "=+-@" for row in read)
        assert not BAD.search(made)


class TestSelection:
    def made(self, count: int) -> ReportInput:
        """Every answer of every hop is another one, and wrong."""
        items = prompts("clauses", "sql", count=count)
        names = [cell.cell.id for cell in report_input(SMALL, prompts("clauses")).cells]

        def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
            return completion(prompt, (1, 2, names.index(each.id) if each.id in names else 0))

        def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
            return "wrong" if int(prompt.id[2:]) % 3 == 0 and each.runtime == "mlx" else "correct"

        small = project(
            adapters={}, variants=["base"], evalsets={"base": ["clauses", "sql"]}, vllm=["base"]
        )
        return report_input(small, items, answer=answer, verdict=verdict)

    def test_of_each_hop_the_same_number_and_the_worst(self) -> None:
        every = changes(self.made(200))
        chosen = selected(every, 100)
        assert len(chosen) <= 100
        counts = {at: sum(each.at == at for each in chosen) for at in {c.at for c in every}}
        assert set(counts.values()) <= set(PER_HOP)
        for at in counts:
            own = [each for each in chosen if each.at == at]
            if any(each.at == at and each.item.flip == "worse" for each in every):
                assert own[0].item.flip == "worse"

    def test_what_is_not_shown_is_counted(self) -> None:
        found = self.made(300)
        everything = changed_items(found, changes(found))
        root = tree(render(found))
        shown = sum(node.get("class") == "item" for node in root.iter("details"))
        assert shown < len(everything)
        assert f"{len(everything) - shown} more items changed" in words(named(root, "answers"))
        matrix = words(named(root, "matrix"))
        assert "more that changed: driftline explain EVALSET/ITEM" in matrix

    def test_everything_is_shown_where_it_fits(self) -> None:
        every = changes(evidence())
        assert {each.place for each in selected(every)} == {each.place for each in every} != set()


class TestCandidates:
    def stored(self, *counterfactuals: CounterfactualRecord) -> set[str]:
        """Cells whose stored weights have distributions of their own."""
        text = Path("artifacts") / "texts" / "base"
        text.mkdir(parents=True)
        (text / "sequences.jsonl").write_text("")
        found = replace(report_input(SMALL, ITEMS), counterfactuals=counterfactuals)
        cells = tuple(
            cell.model_copy(update={"forced": (forced("base", None),)}) for cell in found.cells
        )
        return set(texts_of(SMALL, replace(found, cells=cells)).stored)

    @pytest.fixture(autouse=True)
    def _somewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_a_counterfactual_has_them_where_its_record_says_so(self) -> None:
        kept = (forced("base", None),)
        withheld = stored("gguf/base/q2_k", trusted=False, reason="no loader")
        known = (stored("gguf/base/q8_0", forced=kept), stored("checkpoints/base"), withheld)
        assert self.stored(*known) == {Q8}

    def test_that_is_asked_of_a_checkpoint_too(self) -> None:
        assert self.stored(stored("checkpoints/base", forced=(forced("base", None),))) == {
            ROOT_CELL,
            VLLM,
        }


class TestVerdict:
    def test_nothing_changed(self) -> None:
        top = words(named(tree(render(report_input(PROJECT, ITEMS))), "top"))
        assert top.startswith("No answer changed over 25 hops.")

    def test_no_hop_compared(self) -> None:
        cells = [cell.cell.id for cell in report_input(PROJECT, ITEMS).cells]
        every = {cell: record(cell, state="error", reason="x") for cell in cells}
        top = words(named(tree(render(report_input(PROJECT, ITEMS, records=every))), "top"))
        assert top.startswith("No hop could be compared. 26 of 26 cells did not run.")

    def test_hop_cause_and_example_in_the_second_sentence(self) -> None:
        root = tree(render(evidence()))
        (why,) = (node for node in root.iter("p") if node.get("class") == "why")
        assert words(why).startswith(f"{F32} → {Q2} (quantize), weights: hop ")
        assert words(why).endswith("; for example clauses/c-001, correct → wrong.")

    def test_a_fault_comes_before_ordinary_drift(self) -> None:
        hop = f"{F32} → {Q8}"
        fault = Finding(
            code="bos-differs", where=hop, component="text", message="BOS is missing",
            items=("sql/s-002",),
        )  # fmt: skip
        found = evidence()
        found = replace(found, drift=found.drift.model_copy(update={"findings": (fault,)}))
        root = tree(render(found))
        top = words(named(root, "top"))
        assert top.startswith("1 of 25 hops is not as it should be; 2 answers became worse")
        (why,) = (node for node in root.iter("p") if node.get("class") == "why")
        assert words(why) == f"{hop} (quantize), text: BOS is missing; for example sql/s-002."
        assert named(root, "item=sql/s-002") is not None, "the example is shown in full"

    def test_where_no_answer_changed_the_text_that_moved_most(self) -> None:
        hop = f"{F32} → {Q8}"
        moved = (
            SequenceDrift(key="sql/s-000", rows=3, kl_mean=0.1),
            SequenceDrift(key="sql/s-003", rows=3, kl_mean=0.2),
        )
        found = report_input(PROJECT, ITEMS)
        found = with_hop(found, Q8, split=Split(end_to_end=distributions(0.1), sequences=moved))
        for component, expected in (("weights", "for example sql/s-003"), ("text", "no golden")):
            fault = Finding(code="x", where=hop, component=component, message="odd")  # type: ignore[arg-type]
            one = replace(found, drift=found.drift.model_copy(update={"findings": (fault,)}))
            assert expected in words(named(tree(render(one)), "top"))


class TestGraph:
    def test_every_hop_is_a_link_to_its_figures(self) -> None:
        root = tree(render(evidence()))
        graph = next(node for node in root.iter("svg") if node.get("class") == "graph")
        links = [node for node in graph if node.tag == "a"]
        assert len(links) == 25
        assert {node.get("data-hop") for node in links} == {str(n) for n in range(25)}
        bad = next(node for node in links if node.get("href") == f"#hop={Q2}")
        assert "worse" in bad.get("class").split()
        assert "weights 2 worse" in bad.get("aria-label")

    def test_the_same_as_a_tree_for_narrow_screens(self) -> None:
        root = tree(render(evidence()))
        lines = next(node for node in root.iter("ul") if "tree" in node.get("class", ""))
        assert len(list(lines)) == 26

    def test_a_failed_cell_is_drawn(self) -> None:
        root = tree(render(report_input(PROJECT, ITEMS, records=failing(VLLM))))
        graph = next(node for node in root.iter("svg") if node.get("class") == "graph")
        link = next(node for node in graph if node.get("href") == f"#hop={VLLM}")
        assert link.get("class").split()[:2] == ["hop", "missing"]


def test_different_names_have_different_anchors() -> None:
    names = {str(n): name for n, name in enumerate(["a b", "a_b", "a\tb", "x" * 999, "x" * 1000])}
    found = anchors("item", names)
    assert len(set(found.values())) == len(names)
    assert all(re.fullmatch(r"item=[A-Za-z0-9._/+-]+", anchor) for anchor in found.values())
    assert sha256_text("1")[:12] in found["1"]


# --------------------------------------------------------------------------------------- contrast


def colours(block: str) -> dict[str, tuple[float, ...]]:
    found = re.findall(r"--([\w-]+): #([0-9a-f]{6})", block)
    return {
        name: tuple(int(hexed[n : n + 2], 16) / 255 for n in (0, 2, 4)) for name, hexed in found
    }


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_has_enough_contrast(mode: str) -> None:
    css = (page.HTML / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    found = colours(light) | (colours(dark) if mode == "dark" else {})
    for ink in ("ink", "muted", "accent", "good", "bad", "odd", "violet", "teal", "dark"):
        for paper in ("paper", "raised", "accent-soft", "odd-soft"):
            assert contrast(found[ink], found[paper]) >= 4.5, (ink, paper)
