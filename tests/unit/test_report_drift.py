"""Drift in the report: findings, causes, distributions, stored weights."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from driftline.drift.summary import summary
from driftline.project.routes import ROOT_CELL
from driftline.report import figures
from driftline.report.markdown import render
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause, Finding, Split
from driftline.schema.scores import ItemState
from driftline.schema.text import PromptDifference, StopDifference, TextDrift
from driftline.schema.weights import CounterfactualRecord, FieldChange
from tests import factories
from tests.factories import (
    completion,
    record,
    report_input,
)
from tests.unit.report_evidence import (
    ATTACHED,
    F32,
    ITEMS,
    NEAR,
    PROJECT,
    Q2,
    Q8,
    VLLM,
    distributions,
    failing,
    forced,
    markdown_cells,
    one_bad_cell,
    row,
    section,
    stored,
    tensor,
    with_cause,
    with_drift,
    with_hop,
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
        assert "\nNone: " not in report

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
        assert "\n## Findings\n\nNone: " in report
        assert report.count("\nNone: as far as the hops were compared, ") == 1
        every = {cell.id: record(cell, state="error", reason="x") for cell in markdown_cells()}
        report = render(report_input(PROJECT, ITEMS, records=every))
        assert "\nNone: no hop was compared.\n" in report
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
        assert lines[0][-1] == hop.summary == summary(hop, factories.spec(hop.hop.child))

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
    FAR = Cause(component="weights", reason="the stored weights prefer it", margin=2.0)

    def test_of_a_changed_answer(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        report = render(with_cause(evidence, Q2, NEAR))
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
