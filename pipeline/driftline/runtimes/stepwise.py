"""The greedy loop shared by runtimes that can be driven one token at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from driftline.runtimes.base import Job, PromptRefusedError, Runtime
from driftline.schema.answers import Completion, PinnedPrompt

FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True)
class Step:
    """One greedy step: the token chosen and its natural-log probability."""

    token: int
    logprob: float


@dataclass(frozen=True)
class Encoded:
    """A prompt as a runtime rendered and tokenized it."""

    ids: list[int]
    text: str


class StepwiseRuntime(Runtime):
    """A runtime that says how it tokenizes, steps and detokenizes; the loop is here, once."""

    job: Job
    end_ids: frozenset[int]
    """Ids that end an answer, as the artifact itself declares them."""

    @abstractmethod
    def encode(self, prompt: PinnedPrompt) -> Encoded:
        """The runtime's own rendering and tokenization of a golden prompt."""

    @abstractmethod
    def steps(self, prompt_ids: Sequence[int]) -> Iterator[Step]:
        """Decode greedily after `prompt_ids`, one step per token, lazily and without end."""

    @abstractmethod
    def text(self, output: Sequence[int], prompt_ids: Sequence[int]) -> str:
        """Output ids as text that continues the prompt, special tokens left out."""

    @abstractmethod
    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id's vocabulary piece."""

    def generate(self, prompt: PinnedPrompt) -> Completion:
        encoded = self.encode(prompt)
        ids = encoded.ids
        room = self.job.decode.context_length - len(ids)
        if not ids:
            raise PromptRefusedError("the prompt has no token at all")
        if room <= 0:
            raise PromptRefusedError(
                f"the prompt is {len(ids)} tokens, the context {self.job.decode.context_length}"
            )
        stop, limit = self.job.decode.stop, min(prompt.max_new_tokens, room)
        found, ended = take(
            self.steps(ids),
            limit=limit,
            end_ids=self.end_ids,
            ended_by_text=lambda output: ends_at(self.text(output, ids), stop) is not None,
            watch_text=bool(stop),
        )
        output = [step.token for step in found]
        spoken = output[:-1] if output and output[-1] in self.end_ids else output
        return Completion(
            evalset=prompt.evalset,
            id=prompt.id,
            prompt_ids=tuple(ids),
            prompt_text=encoded.text,
            output_ids=tuple(output),
            pieces=tuple(self.pieces(output)),
            logprobs=tuple(step.logprob for step in found),
            text=cut(self.text(spoken, ids), stop),
            finish_reason=finish_reason(ended, limit=prompt.max_new_tokens, room=room),
        )


def take(
    steps: Iterator[Step],
    *,
    limit: int,
    end_ids: frozenset[int],
    ended_by_text: Callable[[Sequence[int]], bool],
    watch_text: bool,
) -> tuple[list[Step], bool]:
    """Steps up to an end token, a stop string or `limit`; True when the answer ended by itself.

    `ended_by_text` is asked after every token, but only when `watch_text`: detokenizing costs.
    """
    taken: list[Step] = []
    for step in steps:
        taken.append(step)
        if step.token in end_ids:
            return taken, True
        if watch_text and ended_by_text([s.token for s in taken]):
            return taken, True
        if len(taken) >= limit:
            break
    return taken, False


def finish_reason(ended: bool, *, limit: int, room: int) -> FinishReason:
    """Why an answer is over: it ended, `limit` tokens were enough, or the context was full."""
    if ended:
        return "stop"
    return "length" if limit <= room else "context"


def ends_at(text: str, stops: Iterable[str]) -> int | None:
    """Where the first stop string begins in `text`, None if there is none."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return min(places, default=None)


def cut(text: str, stops: Iterable[str]) -> str:
    """`text` up to its first stop string."""
    place = ends_at(text, stops)
    return text if place is None else text[:place]


def continuation(
    decode: Callable[[Sequence[int]], str], output: Sequence[int], prompt: Sequence[int]
) -> str:
    """Text of `output` as it continues `prompt`.

    A SentencePiece decoder drops the space before the first word of whatever it is given, so an
    answer decoded alone can lose its leading space: decode both and take the rest.
    """
    before, whole = decode(prompt), decode([*prompt, *output])
    return whole[len(before) :] if whole.startswith(before) else decode(output)
