"""Score one cell in child processes, and turn whatever happens to them into a `CellRecord`.

Every cell is run twice, each time in a process of its own: in order, and, for the noise floor, in
reverse order. The two run side by side where memory allows (`CellLimits.workers`).

A crash, a deadline or a runtime's own refusal is the outcome of this cell, never an exception: the
other cells go on. Finished answers stay in the cell's journals until the cell is complete, keyed by
everything that shaped them, so that an interrupted cell goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from driftline.runtimes import registry, sandbox
from driftline.runtimes.base import DecodeSettings, Job, PromptError, Software, TextJob
from driftline.runtimes.collect import collected
from driftline.runtimes.worker import Event, JournalEntry, read_journal
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import Capabilities, CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.values import canonical, canonical_json, dump, load_lines
from driftline.store import digest

WORK = Path(".driftline")
"""Local, disposable: journals of unfinished cells, logs, kernel caches. No stage reads it."""

Turn = Literal[1, 2]
TURNS: tuple[Turn, ...] = (1, 2)

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, answers done, answers in all)."""


@dataclass(frozen=True)
class CellLimits:
    """What the workers of a cell may use: each `deadline_s` and `memory_gib`, `workers` at once."""

    deadline_s: float
    memory_gib: float
    workers: int = 2


@dataclass(frozen=True)
class CellResult:
    """A scored cell: its record, the first pass's answers and the prompts it could not answer.

    `distributions` holds one folder per text of `record.forced`; the caller takes what it wants of
    it and calls `clear`.
    """

    record: CellRecord
    completions: tuple[Completion, ...]
    errors: tuple[PromptError, ...]
    distributions: Path
    journals: tuple[Path, ...] = ()

    def clear(self) -> None:
        """Remove the journals: everything of the cell is safe elsewhere."""
        for journal in self.journals:
            journal.unlink(missing_ok=True)
            shutil.rmtree(journal.with_suffix(""), ignore_errors=True)


@dataclass
class _Run:
    """What is known of one turn's worker while and after it runs."""

    turn: Turn
    journal: Path
    last_item: str = ""
    raised: str = ""
    done: Event | None = None
    returncode: int | None = None
    deadline_passed: bool = False


def score(
    spec: CellSpec,
    *,
    target: str,
    artifact_identity: str,
    adapter_identity: str | None,
    environment: dict[str, Any],
    prompts: Path,
    decode: DecodeSettings,
    limits: CellLimits,
    progress: Progress,
    texts: tuple[TextJob, ...] = (),
) -> CellResult:
    """Run `spec` and say how it went.

    Args:
        spec: the cell; its paths are relative to the working directory.
        target: class of its runtime, `module:Class`.
        artifact_identity: dirHash of the artifact, verified by the caller just now.
        adapter_identity: the same of the adapter, if one is attached.
        environment: the runtime's probed environment (`artifacts/env/<runtime>.json`).
        prompts: JSON lines of `PinnedPrompt`.
        decode: greedy decode settings.
        limits: deadline in seconds and memory in GiB.
        progress: told of every answer.
        texts: what to teacher-force after answering.
    """
    prompts_sha256 = digest.sha256_file(prompts)
    key = _journal_key(
        cell=canonical(spec),
        artifact=artifact_identity,
        adapter=adapter_identity,
        environment=environment,
        prompts=prompts_sha256,
        decode=decode.model_dump(mode="json"),
        texts=[_text_facts(text) for text in texts],
    )
    runs = [_Run(turn, WORK / "journals" / f"{key}-{turn}.jsonl") for turn in TURNS]
    kind = registry.resolve(target)
    python = registry.interpreter(spec.runtime, kind.software)
    if python is None or environment.get("missing"):
        outcome = _skipped(spec, kind.software, environment)
    else:
        jobs = {run.turn: _job(spec, target, run, prompts, decode, texts) for run in runs}
        _run_workers(spec, python, runs, jobs, kind.software, limits, progress)
        outcome = _outcome(spec, runs, limits)
    record = without_answers(
        spec,
        outcome,
        artifact_identity=artifact_identity,
        adapter_identity=adapter_identity,
        prompts_sha256=prompts_sha256,
        capabilities=kind.capabilities,
    ).model_copy(update=_described(runs[0].done))
    if outcome.state != "ok":
        return CellResult(record, (), (), runs[0].journal.with_suffix(""))
    order = [prompt.key for prompt in load_lines(PinnedPrompt, prompts)]
    answered = _collect(record, [read_journal(run.journal) for run in runs], order)
    return _with_texts(answered, texts, runs)


def _described(done: Event | None) -> dict[str, dict[str, Any]]:
    """What a runtime says of itself when it is done; nothing of one that never was."""
    return {
        "build": (done.build if done else None) or {},
        "settings": (done.settings if done else None) or {},
    }


def _with_texts(result: CellResult, texts: tuple[TextJob, ...], runs: Sequence[_Run]) -> CellResult:
    """`result` with what its workers kept of the teacher-forced `texts`, or why they kept none."""
    folders = [run.journal.with_suffix("") for run in runs]
    forced, problem = collected(
        texts, folders, [run.done.not_forced if run.done else "" for run in runs]
    )
    return replace(
        result,
        record=result.record.model_copy(update={"forced": forced, "not_forced": problem}),
        distributions=folders[0],
        journals=tuple(run.journal for run in runs),
    )


def without_answers(
    spec: CellSpec,
    outcome: Outcome,
    *,
    artifact_identity: str,
    adapter_identity: str | None,
    prompts_sha256: str,
    capabilities: Capabilities,
) -> CellRecord:
    """The record of a cell that gave no answer, and of one before its answers are added."""
    return CellRecord(
        cell=spec,
        outcome=outcome,
        artifact_identity=artifact_identity,
        adapter_identity=adapter_identity,
        prompts_sha256=prompts_sha256,
        completions_sha256=None,
        floor=None,
        build={},
        settings={},
        capabilities=capabilities,
    )


def _journal_key(**facts: Any) -> str:
    """What a journal goes by: only a run of the very same things goes on with it."""
    return digest.sha256_text(canonical_json(facts))


def _text_facts(text: TextJob) -> dict[str, Any]:
    files = [] if text.folder is None else sorted(text.folder.iterdir())
    corpora = [] if text.corpora is None else [text.corpora]
    return {
        "name": text.name,
        "sources": list(text.sources),
        "top_k": text.top_k,
        "files": [digest.sha256_file(path) for path in (*files, *corpora)],
    }


def _collect(record: CellRecord, turns: list[list[JournalEntry]], order: list[str]) -> CellResult:
    first, second = ({entry.key: entry for entry in turn} for turn in turns)
    answered = [first[key] for key in order]
    completions = tuple(entry.completion for entry in answered if entry.completion)
    floor = noise_floor(completions, {key: entry.completion for key, entry in second.items()})
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
        errors=tuple(entry.error for entry in answered if entry.error),
        distributions=Path(),
    )


def noise_floor(first: Iterable[Completion], second: dict[str, Completion | None]) -> NoiseFloor:
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
    return NoiseFloor(items=items, different=tuple(different), max_logprob_difference=largest)


def _skipped(spec: CellSpec, software: Software, environment: dict[str, Any]) -> Outcome:
    return Outcome(
        state="skipped",
        kind="missing",
        reason=f"{spec.runtime} is not installed: {environment.get('missing', 'no interpreter')}",
        remedy=software.install,
    )


def _job(
    spec: CellSpec,
    target: str,
    run: _Run,
    prompts: Path,
    decode: DecodeSettings,
    texts: tuple[TextJob, ...],
) -> Job:
    return Job(
        runtime=spec.runtime,
        target=target,
        artifact=Path(spec.artifact).absolute(),
        adapter=Path(spec.adapter).absolute() if spec.adapter else None,
        prompts=prompts.absolute(),
        turn=run.turn,
        journal=run.journal.absolute(),
        decode=decode,
        texts=texts,
    )


def _run_workers(
    spec: CellSpec,
    python: Path,
    runs: list[_Run],
    jobs: Mapping[Turn, Job],
    software: Software,
    limits: CellLimits,
    progress: Progress,
) -> None:
    """Run every turn, `limits.workers` at once; what happens to each is noted in its `_Run`."""
    for folder in ("journals", "jobs", "logs", "cache"):
        (WORK / folder).mkdir(parents=True, exist_ok=True)
    together = [runs] if limits.workers > 1 else [[run] for run in runs]
    for group in together:
        with tempfile.TemporaryDirectory() as temporary, ExitStack() as files:
            # All are started before any thread is: nothing but exec may follow a fork.
            started = [
                _start(spec, python, run, jobs[run.turn], software, limits, Path(temporary), files)
                for run in group
            ]
            with ThreadPoolExecutor(len(group)) as pool:
                list(pool.map(lambda pair: _watch(pair[0], pair[1], limits, progress), started))


def _start(
    spec: CellSpec,
    python: Path,
    run: _Run,
    job: Job,
    software: Software,
    limits: CellLimits,
    temporary: Path,
    files: ExitStack,
) -> tuple[subprocess.Popen[bytes], _Run]:
    job_file = WORK / "jobs" / f"{spec.file_name}-{run.turn}.json"
    dump(job, job_file)
    own = temporary / str(run.turn)
    own.mkdir()
    process = subprocess.Popen(
        [str(python), "-m", "driftline.runtimes.worker", str(job_file)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=files.enter_context(_log(spec, run.turn).open("wb")),
        env=sandbox.environment(
            threads=job.decode.threads,
            cache=(WORK / "cache").absolute(),
            temporary=own,
            code=sandbox.own_code(own, job.target.partition(":")[0]),
            extra=software.environment,
        ),
        preexec_fn=sandbox.confine(limits.memory_gib),  # noqa: PLW1509 - no thread runs yet
        start_new_session=True,
    )
    return process, run


def _log(spec: CellSpec, turn: Turn) -> Path:
    return WORK / "logs" / f"{spec.file_name}-{turn}.log"


def _watch(
    process: subprocess.Popen[bytes], run: _Run, limits: CellLimits, progress: Progress
) -> None:
    def expire() -> None:
        run.deadline_passed = True
        process.kill()

    timer = threading.Timer(limits.deadline_s, expire)
    timer.start()
    try:
        if process.stdout is None:
            raise ValueError("the worker was started without a pipe")
        _follow(process.stdout, run, progress)
        run.returncode = process.wait()
    finally:
        timer.cancel()
        process.kill()


def _follow(pipe: IO[bytes], run: _Run, progress: Progress) -> None:
    done = len(read_journal(run.journal))
    title = "in order" if run.turn == 1 else "in reverse"
    for line in pipe:
        try:
            event = Event.model_validate(json.loads(line))
        except ValueError:
            continue  # a line cut short by a crash
        if event.event == "item":
            run.last_item = event.item
            progress(f"{title}: {event.item}", done, event.total)
            done += 1
        elif event.event == "raised":
            run.raised = event.item
        elif event.event == "done":
            run.done = event
        else:
            progress(f"{title}: {event.event}", done, 0)


def _outcome(spec: CellSpec, runs: list[_Run], limits: CellLimits) -> Outcome:
    """`ok` when every turn is; else what became of the first that is not."""
    for run in runs:
        if run.done is None or run.returncode != 0:
            return _failure(spec, run, limits)
    return Outcome(state="ok")


def _failure(spec: CellSpec, run: _Run, limits: CellLimits) -> Outcome:
    log = _log(spec, run.turn)
    again = f"dvc repro   (finished answers are kept; the runtime's own output: {log})"
    kind: Literal["raised", "deadline", "crashed"] = "crashed"
    reason, remedy = f"the worker process {_death(run.returncode)}", again
    if run.raised:
        kind, reason, remedy = "raised", _one_line(run.raised), f"read {log}"
    elif run.deadline_passed:
        kind, reason = "deadline", f"still running after {limits.deadline_s:g} s, stopped"
        remedy = f"raise limits.deadline_s in params.yaml, then {again}"
    return Outcome(state="error", kind=kind, reason=reason, remedy=remedy, last_item=run.last_item)


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
