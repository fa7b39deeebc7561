"""What a report is made of: evidence and figures that others measured.

A report formats and looks up; counting the entries of a list is as far as it computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.budget import Budget
from driftline.schema.cells import CellRecord
from driftline.schema.comparison import Baseline
from driftline.schema.gate import GateReport, Later
from driftline.schema.hops import Blame, CellDrift, DriftReport, HopDrift, ItemDrift
from driftline.schema.imports import ImportRecord, Machine
from driftline.schema.scores import EvalsetScore, ItemScore
from driftline.schema.weights import CounterfactualRecord


@dataclass(frozen=True)
class ReportInput:
    """Everything a report shows.

    Args:
        artifacts: conversion records, parents before children.
        cells: cell records in plan order, the root first.
        drift: what `drift` found; hops in plan order.
        scores: per cell and evalset, in the order to show them.
        item_scores: verdicts by cell id, then by key (`evalset/id`).
        completions: answers by cell id, then by key; a failed cell may be left out.
        prompts: pinned prompts by key, in the order to show them.
        references: expected answers by key, where the evalset has one.
        median_divergence: median index of the first divergent token, by hop name.
        asked: the evalsets each cell was to be scored on, by cell id; without it a failed cell,
            which has no scores, counts as asked everything.
        counterfactuals: what is stored in each artifact, in the order of `artifacts`.
        machines: where each cell ran, by cell id.
        imports: those that were imported from another machine, by cell id.
        gate: the policy's verdict, every blessing in force; None where nobody asked.
        later: what it becomes as blessings expire.
        baseline: what changed since the baseline release; None where there is none.
        budgets: what groups of stored tensors cost, on hops for which that was measured.
        old_budgets: hops with an error budget of other artifacts than are here, and files that
            are no error budget of this version.
    """

    artifacts: tuple[ArtifactRecord, ...]
    cells: tuple[CellRecord, ...]
    drift: DriftReport
    scores: tuple[EvalsetScore, ...]
    item_scores: Mapping[str, Mapping[str, ItemScore]]
    completions: Mapping[str, Mapping[str, Completion]]
    prompts: Mapping[str, PinnedPrompt]
    references: Mapping[str, str]
    median_divergence: Mapping[str, float]
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counterfactuals: tuple[CounterfactualRecord, ...] = ()
    machines: Mapping[str, Machine] = field(default_factory=dict)
    imports: Mapping[str, ImportRecord] = field(default_factory=dict)
    gate: GateReport | None = None
    later: tuple[Later, ...] = ()
    baseline: Baseline | None = None
    budgets: tuple[Budget, ...] = ()
    old_budgets: tuple[str, ...] = ()

    @cached_property
    def hops_by_child(self) -> dict[str, HopDrift]:
        """The one hop into each cell but the root."""
        return {hop.hop.child: hop for hop in self.drift.hops}

    @cached_property
    def hops_by_name(self) -> dict[str, HopDrift]:
        """By `parent → child`."""
        return {hop.hop.name: hop for hop in self.drift.hops}

    @cached_property
    def drift_by_cell(self) -> dict[str, CellDrift]:
        """Every cell but the root against the reference of its lineage, by id."""
        return {each.cell: each for each in self.drift.cells}

    @cached_property
    def items_by_child(self) -> dict[str, dict[str, ItemDrift]]:
        """Per child cell and key, what happened on the hop into it."""
        return {hop.hop.child: {item.key: item for item in hop.items} for hop in self.drift.hops}

    @cached_property
    def scores_by_cell(self) -> dict[str, dict[str, EvalsetScore]]:
        """Per cell and evalset name."""
        scores: dict[str, dict[str, EvalsetScore]] = {}
        for score in self.scores:
            scores.setdefault(score.cell, {})[score.evalset] = score
        return scores

    @cached_property
    def blame_by_item(self) -> dict[tuple[str, str], Blame]:
        """By cell id and key."""
        return {(each.cell, f"{each.evalset}/{each.item}"): each for each in self.drift.blame}

    def was_asked(self, cell: str, evalset: str) -> bool:
        """Whether a cell was to be scored on an evalset."""
        if cell in self.asked:
            return evalset in self.asked[cell]
        return cell not in self.scores_by_cell or evalset in self.scores_by_cell[cell]

    def answer(self, cell: str, key: str) -> Completion | None:
        """A cell's answer to one prompt, if it has one."""
        return self.completions.get(cell, {}).get(key)

    def question(self, key: str) -> str:
        """What a prompt asks last: its last message, or the raw prompt."""
        prompt = self.prompts.get(key)
        if prompt is None:
            return ""
        return prompt.messages[-1].content if prompt.messages else prompt.prompt or ""
