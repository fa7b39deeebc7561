"""Score one cell in a child process, and turn whatever happens to it into a `CellRecord`.

A crash, a deadline or a runtime's own refusal is the outcome of this cell, never an exception: the
other cells go on. Finished answers stay in the cell's journal until the cell is complete, keyed by
everything that shaped them, so that an interrupted cell goes on where it stopped.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipeline import digest
from pipeline.runtimes import registry, sandbox
from pipeline.runtimes.base import Decode, Job, PromptError
from pipeline.runtimes.worker import Entry, Event, read_journal
from pipeline.schema.answers import Completion, PinnedPrompt
from pipeline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from pipeline.schema.values import canonical, canonical_json, dump, load_lines

WORK = Path(".driftline")
"""Local, disposable: journals of unfinished cells, logs, kernel caches. No stage reads it."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, answers done, answers in all)."""


@dataclass(frozen=True)
class CellLimits:
    """What a worker may use."""

    deadline_s: float
    memory_gib: float


@dataclass(frozen=True)
class CellResult:
    """A scored cell: its record, the first pass's answers and the prompts it could not answer."""

    record: CellRecord
    completions: tuple[Completion, ...]
    errors: tuple[PromptError, ...]


@dataclass
class _Run:
    """What is known of a worker while and after it runs."""

    last_item: str = ""
    raised: str = ""
    done: Event | None = None
    returncode: int | None = None
    deadline_passed: bool = False


def score(
    spec: CellSpec,
    *,
    artifact_identity: str,
    adapter_identity: str | None,
    environment: dict[str, Any],
    prompts: Path,
    decode: Decode,
    limits: CellLimits,
    progress: Progress,
) -> CellResult:
    """Run `spec` and say how it went.

    Args:
        spec: the cell; its paths are relative to the working directory.
        artifact_identity: dirHash of the artifact, verified by the caller just now.
        adapter_identity: the same of the adapter, if one is attached.
        environment: the runtime's probed environment (`artifacts/env/<runtime>.json`).
        prompts: JSON lines of `PinnedPrompt`.
        decode: greedy decode settings.
        limits: deadline in seconds and memory in GiB.
        progress: told of every answer.
    """
    prompts_sha256 = digest.sha256_file(prompts)
    facts = {
        "cell": canonical(spec),
        "artifact": artifact_identity,
        "adapter": adapter_identity,
        "environment": environment,
        "prompts": prompts_sha256,
        "decode": decode.model_dump(mode="json"),
    }
    journal = WORK / "journals" / f"{digest.sha256_text(canonical_json(facts))}.jsonl"
    python = registry.interpreter(spec.runtime)
    if python is None or environment.get("missing"):
        run, outcome = _Run(), _skipped(spec, environment)
    else:
        run = _run_worker(spec, python, prompts, journal, decode, limits, progress)
        outcome = _outcome(spec, run, limits)
    entries = read_journal(journal) if outcome.state == "ok" else []
    record = CellRecord(
        cell=spec,
        outcome=outcome,
        artifact_identity=artifact_identity,
        adapter_identity=adapter_identity,
        prompts_sha256=prompts_sha256,
        completions_sha256=None,
        floor=None,
        build=(run.done.build if run.done else None) or {},
        settings=(run.done.settings if run.done else None) or {},
    )
    if outcome.state != "ok":
        return CellResult(record, (), ())
    order = {prompt.key: place for place, prompt in enumerate(load_lines(PinnedPrompt, prompts))}
    result = _collect(record, entries, order, fresh=run.done.fresh if run.done else "")
    journal.unlink()
    return result


def _collect(
    record: CellRecord, entries: Iterable[Entry], order: dict[str, int], *, fresh: str
) -> CellResult:
    by_turn: dict[int, dict[str, Entry]] = {1: {}, 2: {}}
    for entry in entries:
        turn, key = entry.key
        by_turn[turn][key] = entry
    first = [by_turn[1][key] for key in sorted(by_turn[1], key=order.__getitem__)]
    completions = tuple(entry.completion for entry in first if entry.completion)
    second = {key: entry.completion for key, entry in by_turn[2].items()}
    floor = noise_floor(completions, second, note=fresh)
    lines = "".join(canonical(completion) + "\n" for completion in completions)
    outcome = record.outcome
    if floor.different:
        shown = ", ".join(floor.different[:5])
        outcome = Outcome(
            state="unstable",
            reason=f"{len(floor.different)} of {floor.items} answers differ on repeat: {shown}",
            remedy="see the noise floor in the report; nothing of these answers counts as drift",
        )
    changed = {
        "floor": floor,
        "outcome": outcome,
        "completions_sha256": digest.sha256_text(lines),
    }
    return CellResult(
        record=record.model_copy(update=changed),
        completions=completions,
        errors=tuple(entry.error for entry in first if entry.error),
    )


def noise_floor(
    first: Iterable[Completion], second: dict[str, Completion | None], *, note: str
) -> NoiseFloor:
    """The cell against itself: answers whose tokens differ, largest log-probability difference."""
    different, items, largest = [], 0, 0.0
    for completion in first:
        again = second[completion.key]
        items += 1
        if again is None or again.output_ids != completion.output_ids:
            different.append(completion.key)
            continue
        gaps = [abs(a - b) for a, b in zip(completion.logprobs, again.logprobs, strict=True)]
        largest = max([largest, *gaps])
    return NoiseFloor(
        items=items, different=tuple(different), max_logprob_difference=largest, note=note
    )


def _skipped(spec: CellSpec, environment: dict[str, Any]) -> Outcome:
    return Outcome(
        state="skipped",
        kind="missing",
        reason=f"{spec.runtime} is not installed: {environment.get('missing', 'no interpreter')}",
        remedy=registry.RUNTIMES[spec.runtime].install,
    )


def _run_worker(
    spec: CellSpec,
    python: Path,
    prompts: Path,
    journal: Path,
    decode: Decode,
    limits: CellLimits,
    progress: Progress,
) -> _Run:
    name = spec.id.replace("/", "-")
    job = Job(
        runtime=spec.runtime,
        artifact=Path(spec.artifact).absolute(),
        adapter=Path(spec.adapter).absolute() if spec.adapter else None,
        prompts=prompts.absolute(),
        journal=journal.absolute(),
        decode=decode,
    )
    for folder in ("journals", "jobs", "logs", "cache"):
        (WORK / folder).mkdir(parents=True, exist_ok=True)
    dump(job, WORK / "jobs" / f"{name}.json")
    log_file = WORK / "logs" / f"{name}.log"
    with log_file.open("wb") as log, tempfile.TemporaryDirectory() as temporary:
        process = subprocess.Popen(
            [str(python), "-m", "pipeline.runtimes.worker", str(WORK / "jobs" / f"{name}.json")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=sandbox.environment(
                threads=decode.threads,
                cache=(WORK / "cache").absolute(),
                temporary=Path(temporary),
                extra=registry.RUNTIMES[spec.runtime].environment,
            ),
            preexec_fn=sandbox.confine(limits.memory_gib),  # noqa: PLW1509 - no thread runs yet
            start_new_session=True,
        )
        return _watch(process, limits, progress, done=len(read_journal(journal)))


def _watch(
    process: subprocess.Popen[bytes], limits: CellLimits, progress: Progress, *, done: int
) -> _Run:
    run = _Run()

    def expire() -> None:
        run.deadline_passed = True
        process.kill()

    timer = threading.Timer(limits.deadline_s, expire)
    timer.start()
    try:
        if process.stdout is None:
            raise ValueError("the worker was started without a pipe")
        _follow(process.stdout, run, progress, done)
        run.returncode = process.wait()
    finally:
        timer.cancel()
        process.kill()
    return run


def _follow(pipe: IO[bytes], run: _Run, progress: Progress, done: int) -> None:
    for line in pipe:
        try:
            event = Event.model_validate(json.loads(line))
        except ValueError:
            continue  # a line cut short by a crash
        if event.event == "item":
            run.last_item = event.item
            progress(event.item, done, event.total)
            done += 1
        elif event.event == "raised":
            run.raised = event.item
        elif event.event == "done":
            run.done = event
        else:
            progress(event.event, done, 0)


def _outcome(spec: CellSpec, run: _Run, limits: CellLimits) -> Outcome:
    log = WORK / "logs" / f"{spec.id.replace('/', '-')}.log"
    again = f"dvc repro   (finished answers are kept; the runtime's own output: {log})"
    if run.done is not None and run.returncode == 0:
        return Outcome(state="ok")
    if run.raised:
        return Outcome(
            state="error",
            kind="raised",
            reason=_one_line(run.raised),
            remedy=f"read {log}",
            last_item=run.last_item,
        )
    if run.deadline_passed:
        reason = f"still running after {limits.deadline_s:g} s, stopped"
        return Outcome(
            state="error",
            kind="deadline",
            reason=reason,
            remedy=f"raise limits.deadline_s in params.yaml, then {again}",
            last_item=run.last_item,
        )
    return Outcome(
        state="error",
        kind="crashed",
        reason=f"the worker process {_death(run.returncode)}",
        remedy=again,
        last_item=run.last_item,
    )


def _death(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        try:
            return f"was killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"was killed by signal {-returncode}"
    return f"ended with exit code {returncode}"


def _one_line(text: str) -> str:
    """First 500 characters with every run of white space, newlines included, as one space."""
    return " ".join(text.split())[:500]
