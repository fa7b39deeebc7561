"""Stage `score`: one cell, run through its own runtime in a child process.

    python -m driftline.stages.score RUNTIME VARIANT FORM

The stage itself succeeds whatever happens in the runtime: an error is the cell's outcome. A cell
that was imported from another machine is taken over as it is; one that is to be made elsewhere is
skipped.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from driftline.errors import exits_cleanly
from driftline.files import new_directory, write_text
from driftline.machines import imported
from driftline.machines.imported import Wanted
from driftline.progress import progress
from driftline.project import params, plan
from driftline.runtimes import cell
from driftline.runtimes.base import Decode, TextJob
from driftline.schema.artifacts import Reference
from driftline.schema.cells import CellRecord, CellSpec, Outcome
from driftline.schema.values import dump, dump_lines, sealed
from driftline.store import digest, records, texts


@exits_cleanly
def main() -> None:
    """Score the cell the command line names."""
    runtime, variant, form = sys.argv[1:4]
    project = params.read()
    spec = plan.cell(project, runtime, variant, form)
    inputs = [_verified(name) for name in imported.input_names(project, spec)]
    wanted = imported.wanted(project, spec, inputs)
    started = time.monotonic()
    found = imported.not_here(project, wanted)
    if found is None:
        result = _run(project, wanted)
        outcome = result.record.outcome
        _write(project, wanted, result)
        result.clear()
        seconds = round(time.monotonic() - started, 2)
        write_text(
            cell.WORK / "timings" / f"{spec.id.replace('/', '-')}.json",
            json.dumps({"cell": spec.id, "seconds": seconds}) + "\n",
        )
    elif found.folder is not None:
        outcome = found.outcome
        _take_over(found.folder, spec)
    else:
        outcome = found.outcome
        _write(project, wanted, _not_run(wanted, outcome))
    where = "imported" if found and found.folder else f"{time.monotonic() - started:.2f} s"
    sys.stderr.write(f"{spec.id}: {outcome.state} {outcome.reason} ({where})\n")


def _verified(name: str) -> Reference:
    """Something the cell reads, whose bytes were just found to be what its record says."""
    kind, _, rest = name.partition("/")
    if kind == "prompts":
        return records.file(kind, rest)
    if kind == texts.FOLDER.name:
        return records.manifest(name)
    return records.reference(records.verified(name))


def _run(project: params.Params, wanted: Wanted) -> cell.CellResult:
    spec, limits = wanted.spec, project.limits
    environment = records.environment_of(spec.runtime)
    with progress(spec.id) as report:
        return cell.score(
            spec,
            artifact_identity=wanted.artifact_identity,
            adapter_identity=wanted.adapter_identity,
            environment=json.loads(environment.read_text()),
            prompts=records.ARTIFACTS / "prompts" / imported.prompts_of(spec),
            decode=Decode(
                context_length=project.decode.context_length,
                stop=project.decode.stop,
                threads=limits.threads,
            ),
            limits=cell.CellLimits(limits.deadline_s, limits.memory_gib, limits.workers),
            progress=report,
            texts=_texts(project, spec),
        )


def _not_run(wanted: Wanted, outcome: Outcome) -> cell.CellResult:
    record = CellRecord(
        cell=wanted.spec,
        outcome=outcome,
        artifact_identity=wanted.artifact_identity,
        adapter_identity=wanted.adapter_identity,
        prompts_sha256=wanted.prompts_sha256,
        completions_sha256=None,
        floor=None,
        build={},
        settings={},
    )
    return cell.CellResult(record, (), (), Path())


def _write(project: params.Params, wanted: Wanted, result: cell.CellResult) -> None:
    """The cell's folder; and the text of its variant, if it is the cell that makes it."""
    spec = wanted.spec
    environment = records.environment_of(spec.runtime)
    if spec.id == plan.reference(project, spec.variant):
        texts.write(result.distributions / spec.variant, result.record, wanted.inputs)
    with new_directory(records.ARTIFACTS / "cells" / spec.id) as folder:
        dump_lines(result.completions, folder / records.COMPLETIONS)
        dump_lines(result.errors, folder / records.ERRORS)
        shutil.copyfile(environment, folder / records.ENVIRONMENT)
        texts.keep(result.distributions, result.record, folder)
        record = result.record.model_copy(
            update={
                "inputs": wanted.inputs,
                "outputs": digest.rows(folder),
                "decode": wanted.decode,
                "code_sha256": records.code_of(f"score_{spec.runtime}"),
                "environment_sha256": digest.sha256_file(environment),
            }
        )
        dump(sealed(record), folder / records.CELL)


def _take_over(made: Path, spec: CellSpec) -> None:
    """The folder another machine wrote, byte for byte: its record's seal still holds."""
    with new_directory(records.ARTIFACTS / "cells" / spec.id) as folder:
        shutil.copytree(made, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)


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
