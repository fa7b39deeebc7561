"""Stage `score`: one cell, run through its own runtime in a child process.

    python -m pipeline.stages.score RUNTIME VARIANT FORM

The stage itself succeeds whatever happens in the runtime: an error is the cell's outcome.
"""

from __future__ import annotations

import json
import shutil
import sys
import time

from pydantic import JsonValue

from pipeline import digest, params, plan, records, texts
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory, write_text
from pipeline.progress import progress
from pipeline.runtimes import cell
from pipeline.runtimes.base import Decode, TextJob
from pipeline.schema.artifacts import ArtifactRecord, Reference
from pipeline.schema.cells import CellSpec
from pipeline.schema.values import dump, dump_lines, sealed


@exits_cleanly
def main() -> None:
    """Score the cell the command line names."""
    runtime, variant, form = sys.argv[1:4]
    project = params.read()
    spec = plan.cell(project, runtime, variant, form)
    artifact = records.verified(plan.artifact_of(spec))
    adapter = records.verified(plan.adapter_of(spec)) if spec.adapter else None
    asked = "root" if spec.id == params.ROOT_CELL else variant
    inputs = _inputs(project, spec, asked, artifact, adapter)
    environment = records.environment_of(runtime)
    started = time.monotonic()
    with progress(spec.id) as report:
        result = cell.score(
            spec,
            artifact_identity=artifact.identity,
            adapter_identity=adapter.identity if adapter else None,
            environment=json.loads(environment.read_text()),
            prompts=records.ARTIFACTS / "prompts" / f"{asked}.jsonl",
            decode=Decode(
                context_length=project.decode.context_length,
                stop=project.decode.stop,
                threads=project.limits.threads,
            ),
            limits=cell.CellLimits(
                project.limits.deadline_s, project.limits.memory_gib, project.limits.workers
            ),
            progress=report,
            texts=_texts(project, spec),
        )
    if spec.id == plan.reference(project, variant):
        texts.write(result.distributions / variant, result.record, inputs)
    with new_directory(records.ARTIFACTS / "cells" / spec.id) as folder:
        dump_lines(result.completions, folder / records.COMPLETIONS)
        dump_lines(result.errors, folder / records.ERRORS)
        shutil.copyfile(environment, folder / records.ENVIRONMENT)
        texts.keep(result.distributions, result.record, folder)
        record = result.record.model_copy(
            update={
                "inputs": inputs,
                "outputs": digest.rows(folder),
                "decode": _decode(project),
                "code_sha256": records.code_of(f"score_{runtime}"),
                "environment_sha256": digest.sha256_file(environment),
            }
        )
        dump(sealed(record), folder / records.CELL)
    result.clear()
    seconds = round(time.monotonic() - started, 2)
    write_text(
        cell.WORK / "timings" / f"{spec.id.replace('/', '-')}.json",
        json.dumps({"cell": spec.id, "seconds": seconds}) + "\n",
    )
    outcome = result.record.outcome
    sys.stderr.write(f"{spec.id}: {outcome.state} {outcome.reason} ({seconds} s)\n")


def _inputs(
    project: params.Params,
    spec: CellSpec,
    asked: str,
    artifact: ArtifactRecord,
    adapter: ArtifactRecord | None,
) -> tuple[Reference, ...]:
    """Everything the cell reads, as just verified."""
    own = spec.id == plan.reference(project, spec.variant)
    files = [f"{asked}.jsonl", *([texts.CORPORA.name] if own else [])]
    read = [name for name in plan.texts(project, spec) if not own or name != spec.variant]
    return (
        records.reference(artifact),
        *([records.reference(adapter)] if adapter else []),
        *(records.file("prompts", name) for name in files),
        *(records.manifest(texts.name_of(name)) for name in read),
    )


def _decode(project: params.Params) -> dict[str, JsonValue]:
    """What is asked of every cell: its record says so, and another machine's must agree."""
    asked = project.decode.model_dump(mode="json")
    return {**asked, "threads": project.limits.threads}


def _texts(project: params.Params, spec: CellSpec) -> tuple[TextJob, ...]:
    own = spec.id == plan.reference(project, spec.variant)
    return tuple(
        TextJob(
            name=name,
            folder=None if own and name == spec.variant else texts.FOLDER.absolute() / name,
            sources=plan.sources(project, spec),
            top_k=project.distributions.top_k,
            corpora=texts.CORPORA.absolute(),
        )
        for name in plan.texts(project, spec)
    )


if __name__ == "__main__":
    main()
