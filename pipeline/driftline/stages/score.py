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
from driftline.progress import progress
from driftline.project.sections import reading
from driftline.project.sections.limits import Limits
from driftline.runtimes import cell, registry
from driftline.runtimes.base import DecodeSettings, TextJob
from driftline.schema.artifacts import Reference
from driftline.schema.cells import CellSpec, Outcome, cell_id
from driftline.schema.tasks import CellTask
from driftline.schema.values import dump, dump_lines, sealed
from driftline.store import digest, needs, records, texts
from driftline.store.needs import Wanted


@exits_cleanly
def main() -> None:
    """Score the cell the command line names."""
    name = cell_id(*sys.argv[1:4])
    task = needs.task(name)
    wanted = needs.wanted(task, [_verified(each) for each in task.inputs])
    started = time.monotonic()
    not_here = imported.not_here(wanted, _elsewhere(task.cell))
    if not_here is None:
        result = _run(wanted)
        outcome = result.record.outcome
        _write(wanted, result)
        result.clear()
        _note_seconds(task.cell, time.monotonic() - started)
    elif not_here.folder is not None:
        outcome = not_here.outcome
        _take_over(not_here.folder, task.cell)
    else:
        outcome = not_here.outcome
        _write(wanted, _not_run(wanted, outcome))
    imported_it = not_here is not None and not_here.folder is not None
    where = "imported" if imported_it else f"{time.monotonic() - started:.2f} s"
    sys.stderr.write(f"{name}: {outcome.state} {outcome.reason} ({where})\n")


def _elsewhere(spec: CellSpec) -> tuple[str, ...]:
    """The cell's runtime, if the probe found that another machine makes its cells."""
    attempt = records.ARTIFACTS / "attempts" / spec.id
    said = attempt.read_text().split() if attempt.is_file() else ()
    return (spec.runtime,) if imported.ELSEWHERE in said else ()


def _note_seconds(spec: CellSpec, seconds: float) -> None:
    """How long it took, for people: in no file that a stage depends on."""
    write_text(
        cell.WORK / "timings" / f"{spec.file_name}.json",
        json.dumps({"cell": spec.id, "seconds": round(seconds, 2)}) + "\n",
    )


def _verified(name: str) -> Reference:
    """Something the cell reads, whose bytes were just found to be what its record says."""
    kind, _, rest = name.partition("/")
    if kind == "prompts":
        return records.file(kind, rest)
    if kind == texts.FOLDER.name:
        return records.manifest(name)
    return records.reference(records.verified(name))


def _run(wanted: Wanted) -> cell.CellResult:
    task, spec = wanted.task, wanted.spec
    # Not in the task: how long and how much a process may take is no part of what a cell is.
    limits = reading.section(Limits, "limits")
    environment = records.environment_of(spec.runtime)
    with progress(spec.id) as report:
        return cell.score(
            spec,
            target=task.target,
            artifact_identity=wanted.artifact_identity,
            adapter_identity=wanted.adapter_identity,
            environment=json.loads(environment.read_text()),
            prompts=records.ARTIFACTS / "prompts" / task.prompts,
            decode=DecodeSettings.model_validate(
                {name: task.decode[name] for name in DecodeSettings.model_fields}
            ),
            limits=cell.CellLimits(limits.deadline_s, limits.memory_gib, limits.workers),
            progress=report,
            texts=tuple(_text(task, name) for name in task.texts),
        )


def _text(task: CellTask, name: str) -> TextJob:
    own = task.writes_text and name == task.cell.variant
    return TextJob(
        name=name,
        folder=None if own else texts.FOLDER.absolute() / name,
        sources=task.sources,
        top_k=task.top_k,
        corpora=texts.CORPORA.absolute(),
    )


def _not_run(wanted: Wanted, outcome: Outcome) -> cell.CellResult:
    record = cell.without_answers(
        wanted.spec,
        outcome,
        artifact_identity=wanted.artifact_identity,
        adapter_identity=wanted.adapter_identity,
        prompts_sha256=wanted.prompts_sha256,
        capabilities=registry.resolve(wanted.task.target).capabilities,
    )
    return cell.CellResult(record, (), (), Path())


def _write(wanted: Wanted, result: cell.CellResult) -> None:
    """The cell's folder; and the text of its variant, if it is the cell that makes it."""
    spec = wanted.spec
    environment = records.environment_of(spec.runtime)
    if wanted.task.writes_text:
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
                "decode": wanted.task.decode,
                "code_sha256": records.code_of(f"score_{spec.runtime}"),
                "environment_sha256": digest.sha256_file(environment),
            }
        )
        dump(sealed(record), folder / records.CELL)


def _take_over(made: Path, spec: CellSpec) -> None:
    """The folder another machine wrote, byte for byte: its record's seal still holds."""
    with new_directory(records.ARTIFACTS / "cells" / spec.id) as folder:
        shutil.copytree(made, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
