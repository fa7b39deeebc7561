"""MLX, through mlx-lm: the artifact's own tokenizer and template, mlx-lm's own decoding loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, cast

from pipeline.runtimes.base import Description, Job, PromptRefusedError
from pipeline.runtimes.stepwise import Step, StepwiseRuntime, continuation
from pipeline.schema.answers import PinnedPrompt

PREFILL_STEP = 512
"""Prompt tokens evaluated at once: fixed, because MLX chooses kernels by shape."""


class MlxRuntime(StepwiseRuntime):
    """A folder mlx-lm wrote, on the default device (CPU on Linux, Metal on Apple Silicon)."""

    def __init__(self, job: Job) -> None:
        # mlx-lm needs no PyTorch, but Transformers imports it wherever it can: seconds a process.
        cast(Any, sys.modules).setdefault("torch", None)
        import mlx.core as mx
        from mlx_lm.utils import load

        if job.adapter is not None:
            raise ValueError("MLX cells take merged artifacts, not an attached adapter")
        self.job = job
        mx.random.seed(0)
        self._model: Any
        self._tokenizer: Any
        self._model, self._tokenizer, self._config = load(
            str(job.artifact),
            lazy=False,
            return_config=True,
            tokenizer_config={"trust_remote_code": False},
        )
        self.end_ids = frozenset(self._tokenizer.eos_token_ids)

    def describe(self) -> Description:
        from importlib.metadata import version

        import mlx.core as mx

        settings = {
            "device": str(mx.default_device()),
            "quantization": self._config.get("quantization"),
            "prefill_step_size": PREFILL_STEP,
            "kv_cache": "unquantized, new for each prompt",
            "decoding": "greedy (argmax of log-probabilities)",
            "context_length": self.job.decode.context_length,
            "end_ids": sorted(self.end_ids),
            "stop": list(self.job.decode.stop),
            "chat_template": "the tokenizer's own" if self._tokenizer.chat_template else "none",
        }
        build = {"mlx": version("mlx"), "mlx_lm": version("mlx-lm")}
        return Description(build=dict(build), settings=settings)

    def prompt_ids(self, prompt: PinnedPrompt) -> list[int]:
        if prompt.messages is None:
            # As mlx_lm.stream_generate does: BOS is added unless the text already begins with it.
            text, bos = prompt.prompt or "", self._tokenizer.bos_token
            return list(
                self._tokenizer.encode(
                    text, add_special_tokens=bos is None or not text.startswith(bos)
                )
            )
        if not self._tokenizer.chat_template:
            raise PromptRefusedError("the item is a chat and the tokenizer has no chat template")
        messages = [message.model_dump() for message in prompt.messages]
        return list(
            self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
        )

    def text(self, output: Sequence[int], prompt_ids: Sequence[int]) -> str:
        return continuation(self._decode, output, prompt_ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def steps(self, prompt_ids: Sequence[int]) -> Iterator[Step]:
        import mlx.core as mx
        from mlx_lm.generate import generate_step

        for token, logprobs in generate_step(
            mx.array(list(prompt_ids)),
            self._model,
            max_tokens=-1,
            sampler=lambda row: mx.argmax(row, axis=-1),
            logits_processors=None,
            max_kv_size=None,
            prompt_cache=None,
            prefill_step_size=PREFILL_STEP,
            kv_bits=None,
        ):
            yield Step(int(token), float(logprobs[int(token)]))
