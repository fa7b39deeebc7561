"""Stage `drift`: every hop of the lineage, and for each item the first hop that changed it.

python -m pipeline.stages.drift
"""

from __future__ import annotations

from pipeline import cells, params, records, texts
from pipeline.drift.analysis import analyse
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory
from pipeline.lineage import graph
from pipeline.schema.values import dump


@exits_cleanly
def main() -> None:
    """Compare the cells of the whole project."""
    project = params.read()
    read = [
        records.manifest("prompts"),
        records.manifest("grades"),
        *(records.manifest(texts.name_of(name)) for name in cells.text_names(project)),
    ]
    evidence = cells.evidence(project, whole=True)
    inputs = [
        *read,
        *(cells.reference(cell.record) for cell in evidence.values()),
        *cells.weighed(evidence.values()),
    ]
    found = analyse(graph.hops(project), evidence, cells.pinned(), cells.vocabulary())
    with new_directory(cells.DRIFT.parent) as folder:
        dump(found, folder / cells.DRIFT.name)
        records.write_manifest(folder, "drift", inputs)


if __name__ == "__main__":
    main()
