"""The child process of one turn of a cell: load, answer every prompt, force every text.

    python -m driftline.runtimes.worker JOB.json

Control messages go to standard output as JSON lines (`Event`); whatever the runtime itself prints
goes to standard error. Answers go to the journal, one line each as they are given, distributions
into the folder beside it, sequence by sequence, so that a crash loses nothing that was done. This
module runs in the runtime's own interpreter: it imports nothing but the contract, numpy, pydantic
and the runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from driftline.runtimes import forced, registry
from driftline.runtimes.base import Job, PromptError, PromptRefusedError, Runtime
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.values import Value, canonical, load, load_lines


class JournalEntry(Value):
    """One line of the journal: what one prompt gave."""

    completion: Completion | None = None
    error: PromptError | None = None

    @property
    def key(self) -> str:
        """`evalset/id`."""
        answered = self.completion or self.error
        if answered is None:
            raise ValueError("a journal entry holds a completion or an error")
        return f"{answered.evalset}/{answered.id}"


class Event(Value):
    """A control message: what is being done, for progress and for naming the last item."""

    event: Literal["loading", "loaded", "item", "done", "raised"]
    item: str = ""
    total: int = 0
    build: dict[str, JsonValue] | None = None
    settings: dict[str, JsonValue] | None = None
    not_forced: str = ""


def read_journal(path: Path) -> list[JournalEntry]:
    """Entries of a journal; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    complete = path.read_bytes().split(b"\n")[:-1]
    return [JournalEntry.model_validate_json(line) for line in complete]


def run(job: Job, runtime: Runtime, say: int) -> None:
    """Answer every prompt the journal does not hold yet, then force the texts."""
    prompts = list(load_lines(PinnedPrompt, job.prompts))
    finished = read_journal(job.journal)
    done = {entry.key for entry in finished}
    with job.journal.open("w", encoding="utf-8") as journal:
        # Written again whole, so that a line a crash cut short is gone before the next one follows.
        journal.writelines(canonical(entry) + "\n" for entry in finished)
        for prompt in prompts if job.turn == 1 else prompts[::-1]:
            if prompt.key not in done:
                _tell(say, Event(event="item", item=prompt.key, total=len(prompts)))
                journal.write(canonical(_answer(runtime, prompt)) + "\n")
                journal.flush()
    description = runtime.describe()
    done_event = Event(
        event="done",
        build=description.build,
        settings=description.settings,
        not_forced=_force(job, runtime, prompts, say),
    )
    _tell(say, done_event)


def _force(job: Job, runtime: Runtime, prompts: Sequence[PinnedPrompt], say: int) -> str:
    """Force the job's texts; why that failed, if it did: the answers are kept all the same."""
    if not runtime.capabilities.distributions:
        return ""
    try:
        for text in job.texts:
            out = job.distributions / text.name
            out.mkdir(parents=True, exist_ok=True)
            if text.folder is None:
                entries = read_journal(job.journal)
                answers = {entry.key: entry.completion for entry in entries if entry.completion}
                forced.write_text(text, out, prompts, answers)
            forced.force(
                partial(_fitting, job.decode.context_length, runtime),
                text,
                out,
                reverse=job.turn == 2,
                say=lambda what, total: _tell(say, Event(event="item", item=what, total=total)),
            )
    except Exception as error:  # whatever a runtime raises is what is known of its distributions
        return f"{type(error).__name__}: {error}"
    return ""


def _fitting(
    context_length: int, runtime: Runtime, ids: Sequence[int], first_row: int
) -> Iterator[Any]:
    """`Runtime.force` of a text that fits: a runtime given more may end the process."""
    if len(ids) > context_length:
        raise ValueError(f"a text of {len(ids)} tokens, the context is {context_length}")
    return runtime.force(ids, first_row)


def _answer(runtime: Runtime, prompt: PinnedPrompt) -> JournalEntry:
    try:
        return JournalEntry(completion=runtime.generate(prompt))
    except PromptRefusedError as error:
        reason = PromptError(evalset=prompt.evalset, id=prompt.id, reason=str(error))
        return JournalEntry(error=reason)


def _tell(say: int, event: Event) -> None:
    os.write(say, (canonical(event) + "\n").encode())


def main(arguments: Sequence[str]) -> None:
    """Run one job; a runtime's exception ends the process with its text as the last line."""
    say = os.dup(1)
    os.dup2(2, 1)  # a runtime that prints must not garble the control messages
    job = load(Job, Path(arguments[0]))
    _tell(say, Event(event="loading"))
    try:
        kind = registry.resolve(job.target)
        if job.adapter is not None and not kind.capabilities.adapters:
            raise ValueError(f"{job.runtime} cannot attach an adapter")
        runtime = kind(job)
    except Exception as error:  # whatever a runtime raises is the cell's outcome
        _fail(say, error)
    _tell(say, Event(event="loaded"))
    try:
        run(job, runtime, say)
    except Exception as error:  # as above
        _fail(say, error)
    sys.stdout.flush()
    os._exit(0)  # the answers are on disk: no runtime's teardown may turn them into a crash


def _fail(say: int, error: Exception) -> None:
    import traceback

    traceback.print_exc()
    text = f"{type(error).__name__}: {error}"
    _tell(say, Event(event="raised", item=text))
    os._exit(70)


if __name__ == "__main__":
    main(sys.argv[1:])
