"""`reports/plots/*.csv`: the report's figures as tables that `dvc plots` draws, with `dvc.yaml`.

Of every row a label, and numbers. A label begins with a runtime's name, so that no spreadsheet
takes it for a formula, and is one line of printable characters.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from driftline.report.escape import visible
from driftline.report.model import ReportInput

Row = Mapping[str, str | int | float]


def plots(evidence: ReportInput) -> dict[str, str]:
    """A CSV file's text by its name. What has no figure has no row, as in `metrics.json`."""
    return {
        "scores.csv": _csv(("cell", "accuracy", "items"), _scores(evidence)),
        "hops.csv": _csv(("cell", "kl_mean", "worse", "changed"), _hops(evidence)),
    }


def _scores(evidence: ReportInput) -> Iterable[Row]:
    """Share of right answers per cell and evalset, of cells that are `ok`."""
    firm = {record.cell.id for record in evidence.cells if record.outcome.state == "ok"}
    for score in evidence.scores:
        if score.cell in firm and score.accuracy is not None:
            label = visible(f"{score.cell} · {score.evalset}")
            yield {"cell": label, "accuracy": score.accuracy, "items": score.n_scored}


def _hops(evidence: ReportInput) -> Iterable[Row]:
    """Per hop, by the cell it leads to: mean KL in nats, answers that are worse, and other ones."""
    for hop in evidence.drift.hops:
        if hop.compared and hop.split is not None:
            yield {
                "cell": visible(hop.hop.child),
                "kl_mean": hop.split.end_to_end.kl_mean.value,
                "worse": len(hop.worse),
                "changed": hop.n_items - hop.n_same_sequence,
            }


def _csv(columns: tuple[str, ...], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
