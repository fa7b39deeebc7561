"""Stage `drift`: every hop of the lineage, and for each item the first hop that changed it.

python -m pipeline.stages.drift
"""

from __future__ import annotations

from pipeline import cells, params, plan, records, texts
from pipeline.drift.analysis import analyse
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory
from pipeline.lineage import graph
from pipeline.schema.values import dump


@exits_cleanly
def main() -> None:
    """Compare the cells of the whole project."""
    project = params.read()
    evidence = cells.evidence(project, whole=True)
    inputs = [
        records.manifest("prompts"),
        records.manifest("grades"),
        *(records.manifest(texts.name_of(name)) for name in _texts(project)),
        *(cells.reference(cell.record) for cell in evidence.values()),
    ]
    found = analyse(graph.hops(project), evidence, cells.pinned(), cells.vocabulary())
    with new_directory(cells.DRIFT.parent) as folder:
        dump(found, folder / cells.DRIFT.name)
        records.write_manifest(folder, "drift", inputs)


def _texts(project: params.Params) -> tuple[str, ...]:
    """The texts that any cell of the plan is put through, each once."""
    named = [name for spec in plan.plan(project) for name in plan.texts(project, spec)]
    return tuple(dict.fromkeys(named))


if __name__ == "__main__":
    main()
