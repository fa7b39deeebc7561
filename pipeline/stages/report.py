"""Stage `report`: `reports/lineage.html`, `lineage.md`, `metrics.json`, from what others measured.

python -m pipeline.stages.report
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import params
from pipeline.errors import exits_cleanly
from pipeline.evidence import read
from pipeline.files import write_text
from pipeline.report import markdown
from pipeline.report.html import candidates, page
from pipeline.report.metrics import metrics
from pipeline.schema.budget import Budget
from pipeline.schema.values import load

REPORTS = Path("reports")


def budgets() -> tuple[Budget, ...]:
    """Error budgets that `driftline budget` left; they are of no stage, and may be of none."""
    return tuple(load(Budget, path) for path in sorted((REPORTS / "budget").glob("*.json")))


@exits_cleanly
def main() -> None:
    """Write the reports of the whole project."""
    project = params.read()
    found = read(project)
    write_text(REPORTS / "lineage.md", markdown.render(found))
    partings, vocabulary = candidates.read(project, found)
    html = page.render(found, vocabulary=vocabulary, partings=partings, budgets=budgets())
    write_text(REPORTS / "lineage.html", html)
    figures = json.dumps(metrics(found), sort_keys=True, indent=1, allow_nan=False)
    write_text(REPORTS / "metrics.json", figures + "\n")


if __name__ == "__main__":
    main()
