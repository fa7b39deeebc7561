"""Stage `lineage`: the evidence of this run, small and in git, under `reports/lineage/`.

python -m pipeline.stages.lineage
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline import __version__, cells, closure, digest, imports, params, records, texts
from pipeline.drift.evidence import CellEvidence
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory
from pipeline.lineage import evidence
from pipeline.schema.hops import DriftReport
from pipeline.schema.lineage import EvalsetEvidence, LineageIndex
from pipeline.schema.values import dump, dump_lines, load, sealed

FOLDER = Path("reports") / "lineage"


@exits_cleanly
def main() -> None:
    """Write the evidence of the whole project."""
    project = params.read()
    read = [texts.name_of(name) for name in cells.text_names(project)]
    for name in ("prompts", "evalset", "grades", *read):
        records.manifest(name)
    drift_identity = records.manifest("drift").identity
    found = cells.evidence(project)
    drift = load(DriftReport, cells.DRIFT)
    with new_directory(FOLDER) as folder:
        _artifacts(project, folder)
        _cells(found, drift, folder)
        index = LineageIndex(
            driftline=__version__,
            # Where a cell is made is said of each cell: it is no input of any.
            params=project.model_dump(mode="json", exclude={"elsewhere"}),
            code={name: records.code_of(name) for name in closure.code_names()},
            corpora=json.loads((records.ARTIFACTS / "locations" / "corpora.json").read_text()),
            evalsets=_evalsets(project, folder),
            hops=tuple(evidence.hop_evidence(hop) for hop in drift.hops),
            findings=drift.findings,
            drift_identity=drift_identity,
            files=digest.rows(folder),
        )
        dump(sealed(index), folder / evidence.INDEX)


def _artifacts(project: params.Params, folder: Path) -> None:
    for record in cells.artifacts(project):
        records.check_beside(record)
        made, target = records.RECORDS / record.name, folder / evidence.ARTIFACTS / record.name
        target.mkdir(parents=True)
        for name in (evidence.RECORD, evidence.TENSORS):
            shutil.copyfile(made / name, target / name)
        _environment(made / records.ENVIRONMENT, folder)


def _cells(found: Mapping[str, CellEvidence], drift: DriftReport, folder: Path) -> None:
    hops = {hop.hop.child: hop for hop in drift.hops}
    for name, cell in found.items():
        made, target = cells.CELLS / name, folder / evidence.CELLS / name
        target.mkdir(parents=True)
        shutil.copyfile(made / records.CELL, target / evidence.CELL)
        dump_lines(evidence.item_evidence(cell, hops.get(name)), target / evidence.ITEMS)
        if imports.used(cell.record):
            shutil.copyfile(imports.folder_of(name) / imports.RECORD, target / evidence.IMPORT)
        _environment(made / records.ENVIRONMENT, folder)


def _environment(made: Path, folder: Path) -> None:
    if made.is_file():
        target = folder / evidence.ENVIRONMENTS / f"{digest.sha256_file(made)}.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(made, target)


def _evalsets(project: params.Params, folder: Path) -> tuple[EvalsetEvidence, ...]:
    prompts, items = cells.pinned(), cells.items()
    found = []
    for name in project.evalset_names:
        rows = [
            evidence.item_digest(item, prompts[key])
            for key, item in items.items()
            if item.evalset == name
        ]
        path = folder / evidence.EVALSETS / f"{name}.jsonl"
        dump_lines(rows, path)
        found.append(EvalsetEvidence(name=name, sha256=digest.sha256_file(path), items=len(rows)))
    return tuple(found)


if __name__ == "__main__":
    main()
