"""Runtimes that break one promise of the contract, and say nothing of it unless told to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from driftline.runtimes.base import Description, Job
from driftline.runtimes.llamacpp import LlamaCppRuntime
from driftline.runtimes.mlx import MlxRuntime
from driftline.runtimes.stepwise import Encoded, Step
from driftline.schema.answers import PinnedPrompt


class DefaultSampler(LlamaCppRuntime):
    """llama-cpp-python's default sampler chain, in force when nobody sets min_p; it says so."""

    def describe(self) -> Description:
        described = super().describe()
        chain = "sampled: top_k 40, top_p 0.95, min_p 0.05, temperature 0.8"
        return replace(described, settings={**described.settings, "decoding": chain})

    def steps(self, prompt_ids: Sequence[int]) -> Iterator[Step]:
        self._llama.reset()
        self._llama.set_seed(7)
        given = list(prompt_ids)
        while True:
            self._llama.eval(given)
            token = self._llama.sample(top_k=40, top_p=0.95, min_p=0.05, temp=0.8)
            given = [token]
            yield Step(int(token), -1.0)


class RepetitionPenalty(MlxRuntime):
    """A repetition penalty of 5 in force, as a generation config can have it."""

    def steps(self, prompt_ids: Sequence[int]) -> Iterator[Step]:
        import mlx.core as mx
        from mlx_lm.generate import generate_step
        from mlx_lm.sample_utils import make_logits_processors

        processors = make_logits_processors(repetition_penalty=5.0)
        for token, logprobs in generate_step(
            mx.array(list(prompt_ids)),
            self._model,
            max_tokens=-1,
            sampler=lambda row: mx.argmax(row, axis=-1),
            logits_processors=processors,
        ):
            yield Step(int(token), float(logprobs[int(token)]))


class SameContext(LlamaCppRuntime):
    """Keeps what the prompt before left in the context: a prefix cache gone wrong."""

    def encode(self, prompt: PinnedPrompt) -> Encoded:
        encoded = super().encode(prompt)
        self._before: list[int] = [*getattr(self, "_before", [])[-8:], *encoded.ids]
        return Encoded(self._before, encoded.text)


class CoarseCache(LlamaCppRuntime):
    """Keys quantized to 4 bits in the context."""

    key_type = 2  # GGML_TYPE_Q4_0


class HalfPrecision(MlxRuntime):
    """Float32 weights and arithmetic in float16."""

    def __init__(self, job: Job) -> None:
        import mlx.core as mx

        super().__init__(job)
        self._model.set_dtype(mx.float16)
