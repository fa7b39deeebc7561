"""Everything a report shows, read from the project's artifacts."""

from __future__ import annotations

from dataclasses import replace

from driftline.drift.hops import median_divergence
from driftline.evidence import scored
from driftline.gate import judgement
from driftline.gate.evaluation import outlook
from driftline.golden.grade import EvalsetScore
from driftline.machines import imported
from driftline.project import params
from driftline.report.model import ReportInput
from driftline.schema.hops import DriftReport
from driftline.schema.values import load, load_lines
from driftline.store import records


def judged(project: params.Params) -> ReportInput:
    """`read`, with what it is held against: policy and blessings, baseline, error budgets.

    Raises:
        InputError: the baseline is nowhere.
        RefusedError: something is not what its record says.
    """
    found = read(project)
    gate, baseline = judgement.standing(project)
    identities = {cell.cell.id: cell.artifact_identity for cell in found.cells}
    ends = {
        hop.hop.name: (identities.get(hop.hop.parent), identities.get(hop.hop.child))
        for hop in found.drift.hops
    }
    budgets, unread = judgement.budgets()
    current = tuple(
        each
        for each in budgets
        if ends.get(each.hop) == (each.parent_identity, each.child_identity)
    )
    return replace(
        found,
        gate=gate,
        later=outlook(gate),
        baseline=baseline,
        budgets=current,
        old_budgets=(*(each.hop for each in budgets if each not in current), *unread),
    )


def read(project: params.Params) -> ReportInput:
    """Gather records, cells, verdicts and drift of `project`, each checked against its manifest.

    Raises:
        RefusedError: something is not what its record says.
    """
    for name in ("prompts", "evalset", "grades", "drift"):
        records.manifest(name)
    found = scored.evidence(project)
    drift = load(DriftReport, scored.DRIFT)
    weighed = [cell.weights.record for cell in found.values() if cell.weights is not None]
    return ReportInput(
        artifacts=scored.artifacts(project),
        cells=tuple(cell.record for cell in found.values()),
        drift=drift,
        scores=tuple(load_lines(EvalsetScore, scored.SUMMARY)),
        imports={
            name: used for name, cell in found.items() if (used := imported.import_of(cell.record))
        },
        machines={
            name: imported.machine_of(imported.environment(scored.CELLS / name)) for name in found
        },
        asked={name: scored.asked(project, cell.record) for name, cell in found.items()},
        item_scores={name: cell.scores for name, cell in found.items()},
        completions={name: cell.completions for name, cell in found.items()},
        prompts=scored.pinned(),
        references={
            key: item.reference
            for key, item in scored.items().items()
            if item.reference is not None
        },
        counterfactuals=tuple(record for record in weighed if record is not None),
        median_divergence={
            hop.hop.name: median
            for hop in drift.hops
            if (median := median_divergence(hop)) is not None
        },
    )
