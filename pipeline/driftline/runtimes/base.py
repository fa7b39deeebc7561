"""The runtime contract: what a new back end has to be, on one page.

A runtime is a class with a constructor that loads, `generate`, which answers a prompt, `force`,
which gives the logits of a fixed text, and `describe`, which says what ran. It runs alone in a
child process (`driftline.runtimes.worker`), so it may import whatever it likes, inside its methods.
To add one: copy a module of this folder, give it a row in `driftline.project.routes` (or, from a
package of your own, an entry point) and a score stage in `dvc.yaml`; the contract suite
(`tests/contract`) tells you when you are done. The module is imported to look at the class's data:
heavy libraries are imported inside its methods.

What every runtime owes:

- greedy decoding: the token with the highest logit, lowest id first on a tie; no sampling, no
  penalty, no bias, whatever the artifact's `generation_config.json` says;
- its own text path: its own chat template, tokenizer, BOS rule and stop tokens, as its users get
  them; the pinned ids are never handed to it;
- a prompt is independent of every other: no prefix cache, no state left from the one before;
- nothing is dropped: one result per prompt, in the order given, under the prompt's own key;
- next-token logits over its whole vocabulary for ids it is given (`force`), as it computes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import JsonValue

from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import Capabilities
from driftline.schema.values import Value

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DecodeSettings(Value):
    """Greedy decoding of one cell: there is no temperature."""

    context_length: int
    stop: tuple[str, ...]
    threads: int


class TextJob(Value):
    """One text to teacher-force: `folder` holds it, None for the cell that is its reference.

    `sources` are the evalsets and corpora to take of it. The reference makes the text out of its
    own greedy answers and the windows in `corpora`, with a partition of at most `top_k` ids a row.
    """

    name: str
    folder: Path | None
    sources: tuple[str, ...]
    top_k: int
    corpora: Path | None = None


class Job(Value):
    """One turn of one cell: what a worker needs to answer every prompt once.

    `target` is the runtime's class, `module:Class`; `runtime` is what it is called.

    Turn 1 takes the prompts in order, turn 2, the noise floor, in reverse order in a process of its
    own. Paths are absolute, and stay in the process.
    """

    runtime: str
    target: str
    artifact: Path
    adapter: Path | None
    prompts: Path
    turn: Literal[1, 2]
    journal: Path
    decode: DecodeSettings
    texts: tuple[TextJob, ...] = ()

    @property
    def distributions(self) -> Path:
        """Folder beside the journal: one folder per text."""
        return self.journal.with_suffix("")


class PromptError(Value):
    """One prompt the runtime could not answer (a template that raises, a prompt too long)."""

    evalset: str
    id: str
    reason: str


@dataclass(frozen=True)
class Software:
    """What a runtime needs installed, looked up in package metadata: nothing is imported for it.

    Attributes:
        distributions: packages by normalized name; of a tuple's alternatives the first one wins.
        install: what to type when one is missing.
        venv: folder beside the project of an environment of its own, None for driftline's.
        environment: variables that the worker's process must start with.
        files: digests that belong to the environment: by key, a file below the interpreter's prefix
            that holds one, with `{version}` for that of the first package.
    """

    distributions: tuple[tuple[str, ...], ...]
    install: str
    venv: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Description:
    """What ran: `build` identifies the software, `settings` are those in force, as plain data."""

    build: dict[str, JsonValue]
    settings: dict[str, JsonValue]


class PromptRefusedError(Exception):
    """Raised by a runtime for one prompt; the others go on."""


class Runtime(ABC):
    """One loaded artifact in one runtime."""

    software: ClassVar[Software]
    capabilities: ClassVar[Capabilities] = Capabilities()

    @abstractmethod
    def __init__(self, job: Job) -> None:
        """Load the job's artifact. Raises whatever the runtime itself raises."""

    @abstractmethod
    def describe(self) -> Description:
        """What will run, read back from the runtime where it allows."""

    @abstractmethod
    def generate(self, prompt: PinnedPrompt) -> Completion:
        """Answer one golden prompt on the native text path.

        Raises:
            PromptRefusedError: this prompt cannot be answered; the reason is the message.
        """

    @abstractmethod
    def force(self, ids: Sequence[int], first_row: int = 0) -> Iterator[NDArray[np.float32]]:
        """Next-token logits after each id of `ids`, from an empty context, in chunks.

        Args:
            ids: pinned ids, fed as they are.
            first_row: rows before it are evaluated but not given.

        Yields:
            float32 [rows, vocabulary]: raw logits (or log-probabilities where the runtime has
            nothing else), `len(ids) - first_row` rows in all, at most
            `driftline.store.distributions.CHUNK` at a time where the runtime can be driven so.
        """
