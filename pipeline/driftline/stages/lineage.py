"""Stage `lineage`: the evidence of this run, small and in git, under `reports/lineage/`.

python -m driftline.stages.lineage
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from driftline import __version__
from driftline.drift.evidence import CellEvidence
from driftline.errors import exits_cleanly
from driftline.evidence import lineage, scored
from driftline.files import new_directory
from driftline.machines import imported
from driftline.probe import closure
from driftline.project import params
from driftline.schema.hops import DriftReport
from driftline.schema.lineage import EvalsetEvidence, LineageIndex
from driftline.schema.values import dump, dump_lines, load, sealed
from driftline.store import digest, records, texts

FOLDER = Path("reports") / "lineage"


@exits_cleanly
def main() -> None:
    """Write the evidence of the whole project."""
    project = params.read()
    read = [texts.name_of(name) for name in scored.text_names(project)]
    for name in ("prompts", "evalset", "grades", *read):
        records.manifest(name)
    drift_identity = records.manifest("drift").identity
    cells = scored.evidence(project)
    drift = load(DriftReport, scored.DRIFT)
    with new_directory(FOLDER) as folder:
        _artifacts(project, folder)
        _cells(cells, drift, folder)
        index = LineageIndex(
            driftline=__version__,
            # Where a cell is made is said of each cell: it is no input of any.
            params=project.model_dump(mode="json", exclude={"elsewhere"}),
            code={name: records.code_of(name) for name in closure.code_names()},
            corpora=json.loads((records.ARTIFACTS / "locations" / "corpora.json").read_text()),
            evalsets=_evalsets(project, folder),
            hops=tuple(lineage.hop_evidence(hop) for hop in drift.hops),
            findings=drift.findings,
            drift_identity=drift_identity,
            files=digest.rows(folder),
        )
        dump(sealed(index), folder / lineage.INDEX)


def _artifacts(project: params.Params, folder: Path) -> None:
    for record in scored.artifacts(project):
        records.check_beside(record)
        made, target = records.RECORDS / record.name, folder / lineage.ARTIFACTS / record.name
        target.mkdir(parents=True)
        for name in (lineage.RECORD, lineage.TENSORS):
            shutil.copyfile(made / name, target / name)
        _environment(made / records.ENVIRONMENT, folder)


def _cells(found: Mapping[str, CellEvidence], drift: DriftReport, folder: Path) -> None:
    hops = {hop.hop.child: hop for hop in drift.hops}
    for name, cell in found.items():
        made, target = scored.CELLS / name, folder / lineage.CELLS / name
        target.mkdir(parents=True)
        shutil.copyfile(made / records.CELL, target / lineage.CELL)
        dump_lines(lineage.item_evidence(cell, hops.get(name)), target / lineage.ITEMS)
        if imported.import_of(cell.record):
            shutil.copyfile(imported.folder_of(name) / imported.RECORD, target / lineage.IMPORT)
        _environment(made / records.ENVIRONMENT, folder)


def _environment(made: Path, folder: Path) -> None:
    if made.is_file():
        target = folder / lineage.ENVIRONMENTS / f"{digest.sha256_file(made)}.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(made, target)


def _evalsets(project: params.Params, folder: Path) -> tuple[EvalsetEvidence, ...]:
    prompts, items = scored.pinned(), scored.items()
    evalsets = []
    for name in project.evalset_names:
        rows = [
            lineage.item_digest(item, prompts[key])
            for key, item in items.items()
            if item.evalset == name
        ]
        path = folder / lineage.EVALSETS / f"{name}.jsonl"
        dump_lines(rows, path)
        evalsets.append(
            EvalsetEvidence(name=name, sha256=digest.sha256_file(path), items=len(rows))
        )
    return tuple(evalsets)


if __name__ == "__main__":
    main()
