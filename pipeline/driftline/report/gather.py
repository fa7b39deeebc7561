"""Everything a report shows, read from the project's artifacts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from driftline.drift.evidence import CellEvidence
from driftline.drift.hops import median_divergence
from driftline.errors import InputError
from driftline.evidence import scored
from driftline.gate import judgement
from driftline.gate.evaluation import outlook
from driftline.machines import imported
from driftline.project import params
from driftline.report.model import ReportInput
from driftline.schema.budget import Budget
from driftline.schema.hops import DriftReport
from driftline.schema.imports import ImportRecord
from driftline.schema.scores import EvalsetScore
from driftline.schema.values import load, load_lines
from driftline.store import environments, records


def read_with_gate(project: params.Params) -> ReportInput:
    """`read`, with what it is held against: policy and blessings, baseline, error budgets.

    Raises:
        InputError: nothing has been scored yet, or the baseline is nowhere.
        RefusedError: something is not what its record says.
    """
    evidence = read(project)
    gate, baseline = judgement.judge_working_tree(project)
    budgets, unread = judgement.budgets()
    current = _of_these_artifacts(budgets, evidence)
    return replace(
        evidence,
        gate=gate,
        later=outlook(gate),
        baseline=baseline,
        budgets=current,
        old_budgets=(*(each.hop for each in budgets if each not in current), *unread),
    )


def _of_these_artifacts(budgets: Iterable[Budget], evidence: ReportInput) -> tuple[Budget, ...]:
    """Those that were measured on the very bytes that the cells of their hop ran."""
    identities = {cell.cell.id: cell.artifact_identity for cell in evidence.cells}
    ends = {
        hop.hop.name: (identities.get(hop.hop.parent), identities.get(hop.hop.child))
        for hop in evidence.drift.hops
    }
    return tuple(
        each
        for each in budgets
        if ends.get(each.hop) == (each.parent_identity, each.child_identity)
    )


def read(project: params.Params) -> ReportInput:
    """Gather records, cells, verdicts and drift of `project`, each checked against its manifest.

    Raises:
        InputError: nothing has been scored yet.
        RefusedError: something is not what its record says.
    """
    if not scored.DRIFT.exists():
        raise InputError("nothing has been scored yet", remedy="driftline run")
    for name in ("prompts", "evalset", "grades", "drift"):
        records.manifest(name)
    cells = scored.evidence(project)
    drift = load(DriftReport, scored.DRIFT)
    weights = [cell.weights.record for cell in cells.values() if cell.weights is not None]
    references = {key: item.reference for key, item in scored.items().items()}
    medians = {hop.hop.name: median_divergence(hop) for hop in drift.hops}
    return ReportInput(
        artifacts=scored.artifacts(project),
        cells=tuple(cell.record for cell in cells.values()),
        drift=drift,
        scores=tuple(load_lines(EvalsetScore, scored.SUMMARY)),
        imports=_imports(cells.values()),
        machines={
            name: environments.machine_of(environments.environment(scored.CELLS / name))
            for name in cells
        },
        asked={name: scored.asked(project, cell.record) for name, cell in cells.items()},
        item_scores={name: cell.scores for name, cell in cells.items()},
        completions={name: cell.completions for name, cell in cells.items()},
        prompts=scored.pinned(),
        references={key: text for key, text in references.items() if text is not None},
        counterfactuals=tuple(record for record in weights if record is not None),
        median_divergence={name: at for name, at in medians.items() if at is not None},
    )


def _imports(cells: Iterable[CellEvidence]) -> dict[str, ImportRecord]:
    """By cell: those that another machine made."""
    known = {cell.id: imported.import_of(cell.record) for cell in cells}
    return {name: record for name, record in known.items() if record is not None}
