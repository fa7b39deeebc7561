"""Stage `counterfactual`: an artifact's stored weights in the float32 reference runtime.

    python -m driftline.stages.counterfactual merged | gguf | mlx VARIANT [FORM]

Writes `artifacts/counterfactuals/<artifact>/record.json` and, for GGUF and MLX, distributions.
"""

from __future__ import annotations

import sys

from driftline.counterfactual import base, reference
from driftline.counterfactual import record as made
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.progress import progress
from driftline.project import params, plan
from driftline.runtimes.base import TextJob
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.values import dump, sealed
from driftline.schema.weights import ControlRecord, CounterfactualRecord
from driftline.store import records, texts

RUNTIME = {"gguf": "llamacpp", "mlx": "mlx"}


@exits_cleanly
def main() -> None:
    """Weigh the artifact the command line names."""
    kind, variant = sys.argv[1:3]
    project = params.read()
    if kind == "merged":
        _merged(variant)
        return
    form = sys.argv[3]
    artifact = records.verified(f"{kind}/{variant}/{form}")
    checkpoint = records.verified(f"checkpoints/{variant}")
    quantized = kind == "gguf" and form != project.gguf.outtype
    parent = records.verified(f"gguf/{variant}/{project.gguf.outtype}") if quantized else checkpoint
    control = records.load_sealed(ControlRecord, records.ARTIFACTS / "controls" / f"{kind}.json")
    records.manifest(texts.name_of(variant))
    spec = plan.cell(project, RUNTIME[kind], variant, form)
    text = TextJob(
        name=variant,
        folder=texts.FOLDER / variant,
        sources=plan.sources(project, spec),
        top_k=project.distributions.top_k,
    )
    reference.prepare(project.limits.threads)
    which = made.Artifacts(artifact, checkpoint, parent, records.ARTIFACTS)
    with (
        new_directory(texts.counterfactual(artifact.name)) as folder,
        progress(f"counterfactual {artifact.name}") as report,
    ):
        found = made.counterfactual(
            which,
            base.resolve(base.FORMATS[artifact.kind]),
            control,
            texts=(text,),
            out=folder / texts.DISTRIBUTIONS,
            say=lambda what, total: report(what, 0, total),
        )
        dump(sealed(found), folder / texts.RECORD)
    _say(artifact, found)


def _merged(adapter: str) -> None:
    artifact = records.verified(f"checkpoints/{adapter}")
    source = records.verified(f"checkpoints/{params.BASE}")
    found = made.merged(made.Artifacts(artifact, artifact, source, records.ARTIFACTS))
    with new_directory(texts.counterfactual(artifact.name)) as folder:
        dump(sealed(found), folder / texts.RECORD)
    _say(artifact, found)


def _say(artifact: ArtifactRecord, found: CounterfactualRecord) -> None:
    outcome = "weighed" if found.trusted else f"split withheld: {found.reason}"
    sys.stderr.write(f"{artifact.name}: {outcome}\n")


if __name__ == "__main__":
    main()
