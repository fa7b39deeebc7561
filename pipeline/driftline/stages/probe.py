"""Stage `probe`: runs every time, costs little, and tells DVC what it cannot see by itself.

    python -m driftline.stages.probe

Writes, only where the content changes anything:

- `artifacts/env/<runtime>.json`: installed versions, CPU features, threads;
- `artifacts/code/<stage>`: the stage's import closure, a sha256 per file;
- `artifacts/locations/<name>.json`: what a local source or adapter folder, or the corpora, hold;
  `imports.json` has the seal of each cell imported from another machine, `report.json` what
  reports read beside evidence: policy, blessings, the baseline's commit, error budgets;
- `artifacts/tasks/<cell>.json`: what the cell's processes are told: all that shapes it;
- `artifacts/attempts/<cell>`: a number that grows when the cell's last run was killed, so that the
  next run tries it again (DVC would otherwise serve the failure from its run-cache); and, of a cell
  that is not simply run here, why not: `imported.made_where`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driftline.errors import exits_cleanly
from driftline.files import write_text
from driftline.gate import judgement
from driftline.machines import imported
from driftline.probe import closure, environment, locations
from driftline.project import params, routes, tasks
from driftline.store import needs, records

RETRIED = ("crashed", "deadline")


@exits_cleanly
def main() -> None:
    """Probe everything."""
    project = params.read()
    for name in routes.targets():
        found = environment.probe(name, threads=project.limits.threads)
        _write(records.ARTIFACTS / "env" / f"{name}.json", _json(found))
    for name, files in closure.code_of_stages().items():
        _write(records.ARTIFACTS / "code" / name, closure.listing(files))
    places = {"source": project.source, **project.adapters}
    for name, location in places.items():
        found = locations.fingerprint(location)
        _write(records.ARTIFACTS / "locations" / f"{name}.json", _json(found))
    corpora = {
        name: locations.sha256(Path(corpus.path))
        for name, corpus in project.distributions.corpora.items()
    }
    _write(records.ARTIFACTS / "locations" / "corpora.json", _json(corpora))
    planned = tasks.all_of(project)
    cells = [task.cell for task in planned]
    taken = {spec.id: record.seal for spec in cells if (record := imported.read(spec.id))}
    _write(records.ARTIFACTS / "locations" / "imports.json", _json(taken))
    beside = judgement.inputs(project)
    _write(records.ARTIFACTS / "locations" / "report.json", _json(beside))
    for task in planned:
        _write(needs.task_path(task.cell.id), _json(task.model_dump(mode="json")))
        _attempt(task.cell.id, imported.made_where(task.cell, project.elsewhere))


def _attempt(cell: str, origin: str) -> None:
    counter = records.ARTIFACTS / "attempts" / cell
    outcome = records.ARTIFACTS / "cells" / cell / "cell.json"
    made = int(counter.read_text().split()[0]) if counter.exists() else 1
    if outcome.exists():
        record = json.loads(outcome.read_text(encoding="utf-8"))
        if record["outcome"]["kind"] in RETRIED:
            made += 1
    _write(counter, f"{made}\n{origin}")


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, indent=1) + "\n"


def _write(path: Path, text: str) -> None:
    """Leave an unchanged file alone: its time stamp is what saves DVC from hashing it again."""
    if not path.exists() or path.read_text() != text:
        write_text(path, text)


if __name__ == "__main__":
    main()
