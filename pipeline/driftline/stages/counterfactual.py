"""Stage `counterfactual`: an artifact's stored weights in the float32 reference runtime.

    python -m driftline.stages.counterfactual merged ADAPTER
    python -m driftline.stages.counterfactual RUNTIME VARIANT FORM

Writes `artifacts/counterfactuals/<artifact>/record.json` and, but for a merge, whose own
cell in the reference runtime is its counterfactual, distributions.
"""

from __future__ import annotations

import sys

from driftline.counterfactual import base, reference
from driftline.counterfactual import record as made
from driftline.errors import InputError, exits_cleanly
from driftline.files import new_directory
from driftline.progress import progress
from driftline.project.sections import reading
from driftline.project.sections.limits import Limits
from driftline.runtimes.base import TextJob
from driftline.schema.artifacts import BASE, ArtifactRecord
from driftline.schema.cells import cell_id
from driftline.schema.tasks import CellTask
from driftline.schema.values import dump, sealed
from driftline.schema.weights import ControlRecord, CounterfactualRecord
from driftline.store import needs, records, texts

MERGED = "merged"


@exits_cleanly
def main() -> None:
    """Weigh the artifact the command line names."""
    if sys.argv[1] == MERGED:
        _merged(sys.argv[2])
        return
    task = needs.task(cell_id(*sys.argv[1:4]))
    artifact = records.verified(task.cell.artifact_name)
    checkpoint = records.verified(task.checkpoint)
    parent = records.verified(artifact.parents[0].name)
    control = records.load_sealed(
        ControlRecord, records.ARTIFACTS / "controls" / f"{artifact.kind}.json"
    )
    (name,) = task.texts
    records.manifest(texts.name_of(name))
    text = TextJob(name=name, folder=texts.FOLDER / name, sources=task.sources, top_k=task.top_k)
    reference.prepare(reading.section(Limits, "limits").threads)
    which = made.Artifacts(artifact, checkpoint, parent, records.ARTIFACTS)
    with (
        new_directory(texts.counterfactual(artifact.name)) as folder,
        progress(f"counterfactual {artifact.name}") as report,
    ):
        record = made.counterfactual(
            which,
            base.resolve(_target(task)),
            control,
            texts=(text,),
            out=folder / texts.DISTRIBUTIONS,
            say=lambda what, total: report(what, 0, total),
        )
        dump(sealed(record), folder / texts.RECORD)
    _say(artifact, record)


def _target(task: CellTask) -> str:
    if task.counterfactual is None:
        raise InputError(
            f"{task.cell.id}: stored weights of its format have no counterfactual",
            remedy="take the stage out of dvc.yaml, or name a class in project/routes.py",
        )
    return task.counterfactual


def _merged(adapter: str) -> None:
    artifact = records.verified(f"checkpoints/{adapter}")
    source = records.verified(f"checkpoints/{BASE}")
    record = made.merged(made.Artifacts(artifact, artifact, source, records.ARTIFACTS))
    with new_directory(texts.counterfactual(artifact.name)) as folder:
        dump(sealed(record), folder / texts.RECORD)
    _say(artifact, record)


def _say(artifact: ArtifactRecord, found: CounterfactualRecord) -> None:
    outcome = "weighed" if found.trusted else f"split withheld: {found.reason}"
    sys.stderr.write(f"{artifact.name}: {outcome}\n")


if __name__ == "__main__":
    main()
