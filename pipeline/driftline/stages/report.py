"""Stage `report`: `lineage.html`, `lineage.md`, `metrics.json`, `plots/` from what others measured.

python -m driftline.stages.report
"""

from __future__ import annotations

import json
from pathlib import Path

from driftline.errors import exits_cleanly
from driftline.files import write_text
from driftline.project import params
from driftline.report import candidates, markdown
from driftline.report.gather import read_with_gate
from driftline.report.html import page
from driftline.report.metrics import metrics
from driftline.report.plots import plots

REPORTS = Path("reports")


@exits_cleanly
def main() -> None:
    """Write the reports of the whole project."""
    project = params.read()
    evidence = read_with_gate(project)
    write_text(REPORTS / "lineage.md", markdown.render(evidence))
    partings, vocabulary = candidates.read(project, evidence)
    html = page.render(evidence, vocabulary=vocabulary, partings=partings)
    write_text(REPORTS / "lineage.html", html)
    for name, table in plots(evidence).items():
        write_text(REPORTS / "plots" / name, table)
    figures = json.dumps(metrics(evidence), sort_keys=True, indent=1, allow_nan=False)
    write_text(REPORTS / "metrics.json", figures + "\n")


if __name__ == "__main__":
    main()
