"""Stage `report`: `reports/lineage.md` and `reports/metrics.json`, from what the others measured.

python -m pipeline.stages.report
"""

from __future__ import annotations

import json
from pathlib import Path

from pipeline import params
from pipeline.errors import exits_cleanly
from pipeline.evidence import read
from pipeline.files import write_text
from pipeline.report.markdown import render
from pipeline.report.metrics import metrics

REPORTS = Path("reports")


@exits_cleanly
def main() -> None:
    """Write the reports of the whole project."""
    found = read(params.read())
    write_text(REPORTS / "lineage.md", render(found))
    figures = json.dumps(metrics(found), sort_keys=True, indent=1, allow_nan=False)
    write_text(REPORTS / "metrics.json", figures + "\n")


if __name__ == "__main__":
    main()
