"""`reports/metrics.json`: the report's figures as a tree of numbers for `dvc metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from driftline.report.escape import identifiers
from driftline.report.model import ReportInput
from driftline.report.views import states
from driftline.schema.cells import CellSpec
from driftline.schema.gate import GateReport
from driftline.schema.hops import Finding, HopDrift
from driftline.schema.statistics import DistributionDrift

Tree: TypeAlias = "dict[str, int | float | Tree]"

FROM_REFERENCE = "kl_from_reference"
TAKEN = ("error", FROM_REFERENCE)
"""Keys no name gets: DVC 3.67 takes any `error` in the tree for a revision it failed to load, and
a cell's drift stands beside its evalsets."""


def metrics(evidence: ReportInput) -> Tree:
    """Scores and drift per cell, drift per hop, cells per state, findings per code, the gate.

    `cells` and `hops` are nested by runtime, variant and form, a hop by those of its child: every
    cell but the root has one hop into it. What has no figure is left out, never zero; so are the
    figures of a cell that is not `ok`, for a number alone cannot say so. DVC joins keys by dots, so
    that names keep only letters, digits and underscores.
    """
    specs = {record.cell.id: record.cell for record in evidence.cells}
    names = _keys(
        name for cell in specs.values() for name in (cell.runtime, cell.variant, cell.form)
    )
    evalsets = _keys(score.evalset for score in evidence.scores)
    firm = {record.cell.id for record in evidence.cells if record.outcome.state == "ok"}
    tree: Tree = {
        "states": {f"{each.state}_cells": each.n for each in states(evidence)},
        "cells": {},
        "hops": {},
        "findings": _findings(evidence.drift.findings),
    }
    if evidence.gate is not None:
        tree["gate"] = _gate(evidence.gate)
    for score in evidence.scores:
        if score.cell in firm and score.accuracy is not None:
            place = _place(tree, "cells", specs[score.cell], names)
            place[evalsets[score.evalset]] = {"accuracy": score.accuracy, "items": score.n_scored}
    for each in evidence.drift.cells:
        if each.cell in firm and each.drift is not None:
            _place(tree, "cells", specs[each.cell], names)[FROM_REFERENCE] = (
                each.drift.kl_mean.value
            )
    for hop in evidence.drift.hops:
        if hop.compared and hop.hop.child in specs:
            _place(tree, "hops", specs[hop.hop.child], names).update(_figures(hop))
    return tree


def _keys(names: Iterable[str]) -> dict[str, str]:
    """One key per name, different ones for different names, none of `TAKEN`."""
    keys: dict[str, str] = {}
    taken = set(TAKEN)
    for name, plain in identifiers(names).items():
        key = plain
        while key in taken:
            key = f"{key}_"
        taken.add(key)
        keys[name] = key
    return keys


def _place(tree: Tree, top: str, cell: CellSpec, names: dict[str, str]) -> Tree:
    """The branch of one cell, made where it is missing."""
    for key in (top, names[cell.runtime], names[cell.variant], names[cell.form]):
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            raise TypeError(f"{key} is a figure and a branch")
        tree = branch
    return tree


def _findings(findings: Iterable[Finding]) -> Tree:
    counts = Counter(each.code for each in findings)
    keys = _keys(counts)
    return {keys[code]: n for code, n in counts.items()}


def _gate(report: GateReport) -> Tree:
    """Checks by what became of them, every blessing in force."""
    return {
        "passing": report.passed,
        "stopping": len(report.stops),
        "accepted": len(report.accepted),
        "not_judged": len(report.skipped),
    }


def _figures(hop: HopDrift) -> Tree:
    return {
        "items": hop.n_items,
        "worse": len(hop.worse),
        "better": len(hop.better),
        "same_sequence": hop.n_same_sequence / hop.n_items,
        "prompt_mismatches": hop.n_prompt_mismatches,
        **_tests(hop),
        **_distributions(hop),
    }


def _tests(hop: HopDrift) -> Tree:
    """P values; an adapter's hop is not among those that Holm's method corrects for."""
    if hop.scores is None:
        return {}
    figures: Tree = {"mcnemar_p": hop.scores.mcnemar_p}
    if hop.scores.holm_p is not None:
        figures["holm_p"] = hop.scores.holm_p
    return figures


def _distributions(hop: HopDrift) -> Tree:
    """KL in nats, over prompts and answers unless the key says otherwise.

    A flip whose margin nobody measured is not a near-tie.
    """
    split = hop.split
    if split is None:
        return {}
    whole = split.end_to_end
    flips = [item.cause for item in hop.items if item.flip != "none"]
    figures: Tree = {
        "kl_mean": whole.kl_mean.value,
        "kl_p99": whole.kl_p99,
        "kl_max": whole.kl_max,
        "top1_agreement": whole.top1_agreement.value,
        "flips_not_near_ties": sum(cause is None or not cause.near_tie for cause in flips),
    }
    if whole.ln_perplexity_ratio is not None:
        figures["ln_perplexity_ratio"] = whole.ln_perplexity_ratio.value
    for name, part in (("weights", split.weights), ("numerics", split.numerics)):
        if part is not None:
            figures[f"{name}_kl_mean"] = part.kl_mean.value
    return figures | _answers(split.answers)


def _answers(drift: DistributionDrift | None) -> Tree:
    if drift is None:
        return {}
    figures: Tree = {
        "answers_kl_mean": drift.kl_mean.value,
        "answers_top1_agreement": drift.top1_agreement.value,
    }
    if drift.ln_perplexity_ratio is not None:
        figures["answers_ln_perplexity_ratio"] = drift.ln_perplexity_ratio.value
    return figures
