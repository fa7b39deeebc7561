"""Stage `drift`: every hop of the lineage, and for each item the first hop that changed it.

python -m driftline.stages.drift
"""

from __future__ import annotations

from driftline.drift.analysis import analyse
from driftline.errors import exits_cleanly
from driftline.evidence import scored
from driftline.files import new_directory
from driftline.project import graph, params
from driftline.schema.values import dump
from driftline.store import records, texts


@exits_cleanly
def main() -> None:
    """Compare the cells of the whole project."""
    project = params.read()
    read = [
        records.manifest("prompts"),
        records.manifest("grades"),
        *(records.manifest(texts.name_of(name)) for name in scored.text_names(project)),
    ]
    evidence = scored.evidence(project, whole=True)
    inputs = [
        *read,
        *(scored.reference(cell.record) for cell in evidence.values()),
        *scored.weighed(evidence.values()),
    ]
    report = analyse(graph.hops(project), evidence, scored.pinned(), scored.vocabulary())
    with new_directory(scored.DRIFT.parent) as folder:
        dump(report, folder / scored.DRIFT.name)
        records.write_manifest(folder, "drift", inputs)


if __name__ == "__main__":
    main()
