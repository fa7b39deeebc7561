"""`driftline explain`: one item through the graph."""

from __future__ import annotations

import pytest

from driftline.errors import InputError
from driftline.project.routes import ROOT_CELL
from driftline.report.explain import explain_item
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause
from driftline.schema.text import PromptDifference, TextDrift
from driftline.store.digest import sha256_text
from tests.factories import (
    completion,
    prompts,
    record,
    report_input,
)
from tests.unit.report_evidence import (
    F32,
    ITEMS,
    NEAR,
    PROJECT,
    Q2,
    Q8,
    SMALL,
    VLLM,
    failing,
    one_bad_cell,
    with_cause,
    with_hop,
)


class TestExplain:
    def test_the_path_of_an_item(self) -> None:
        evidence = report_input(
            SMALL,
            prompts("clauses"),
            records=failing(VLLM, reason="head_dim=8"),
            references={"clauses/c-001": "good"},
            **one_bad_cell(Q2),
        )
        evidence = with_cause(evidence, Q2, NEAR)
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
