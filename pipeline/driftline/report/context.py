"""What the Markdown and the HTML report show alike: their templates know it by the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftline.report import hops, views
from driftline.report.machines import machine_rows
from driftline.report.model import ReportInput
from driftline.report.settings import runtime_matrix

TEMPLATES = Path(__file__).parent / "templates"
FORMATS = (
    "position",
    "bits",
    "brief",
    "signed",
    "estimate",
    "change",
    "interval",
    "share",
    "points",
    "percentage",
    "perplexity",
    "edge",
    "size",
)
"""Functions of `figures` that templates call by name."""


def shared(evidence: ReportInput) -> dict[str, Any]:
    """Everything that both show; each adds what only it has."""
    return {
        "gate": evidence.gate,
        "later": evidence.later,
        "baseline": evidence.baseline,
        "findings": hops.findings(evidence),
        **_cells(evidence),
        **_hops(evidence),
        "artifacts": views.artifact_rows(evidence.artifacts),
        "unchecked": views.unchecked(evidence),
        "errored": views.errored(evidence),
    }


def _cells(evidence: ReportInput) -> dict[str, Any]:
    return {
        "cells": evidence.cells,
        "states": views.states(evidence),
        "cell_rows": hops.cell_rows(evidence),
        "floors": hops.floor_rows(evidence),
        "unstable": [cell for cell in evidence.cells if cell.unstable],
        "failed": [cell for cell in evidence.cells if not cell.ran],
        "runtimes": runtime_matrix(evidence.cells),
        "machines": machine_rows(evidence),
    }


def _hops(evidence: ReportInput) -> dict[str, Any]:
    every = evidence.drift.hops
    compared = [hop for hop in every if hop.compared]
    measured = hops.measured(evidence)
    return {
        "n_hops": len(every),
        "compared": compared,
        "partly": [hop for hop in every if hop.reason],
        "measured": measured,
        "unmeasured": [hop for hop in compared if hop.split is None],
        "withheld": [row for row in measured if row.split.withheld],
        "tail": hops.tail(measured),
    }
