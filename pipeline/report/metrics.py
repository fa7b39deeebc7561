"""`reports/metrics.json`: the report's figures as a tree of numbers for `dvc metrics`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from pipeline.report.escape import identifiers
from pipeline.report.model import ReportInput
from pipeline.report.views import states
from pipeline.schema.cells import CellSpec
from pipeline.schema.hops import HopDrift

Tree: TypeAlias = "dict[str, int | float | Tree]"


def metrics(evidence: ReportInput) -> Tree:
    """Scores per cell, drift per hop, cells per state.

    `cells` and `hops` are nested by runtime, variant and form, a hop by those of its child: every
    cell but the root has one hop into it. What has no figure is left out, never zero; so are the
    scores of a cell that is not `ok`, for a number alone cannot say so. DVC joins keys by dots, so
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
    }
    for score in evidence.scores:
        if score.cell in firm and score.accuracy is not None:
            place = _place(tree, "cells", specs[score.cell], names)
            place[evalsets[score.evalset]] = {"accuracy": score.accuracy, "items": score.n_scored}
    for hop in evidence.drift.hops:
        if hop.compared and hop.hop.child in specs:
            _place(tree, "hops", specs[hop.hop.child], names).update(_figures(hop))
    return tree


def _keys(names: Iterable[str]) -> dict[str, str]:
    """DVC 3.67 takes any key `error` in the tree for a revision that it failed to load."""
    found = identifiers(names)
    return {name: "error_" if key == "error" else key for name, key in found.items()}


def _place(tree: Tree, top: str, cell: CellSpec, names: dict[str, str]) -> Tree:
    """The branch of one cell, made where it is missing."""
    for key in (top, names[cell.runtime], names[cell.variant], names[cell.form]):
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            raise TypeError(f"{key} is a figure and a branch")
        tree = branch
    return tree


def _figures(hop: HopDrift) -> Tree:
    return {
        "items": hop.n_items,
        "worse": len(hop.worse),
        "better": len(hop.better),
        "same_sequence": hop.n_same_sequence / hop.n_items,
        "prompt_mismatches": hop.n_prompt_mismatches,
    }
