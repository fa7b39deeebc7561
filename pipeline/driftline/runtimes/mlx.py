"""MLX, through mlx-lm: the artifact's own tokenizer and template, mlx-lm's own decoding loop."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, cast

from driftline.runtimes.base import Description, Job, Software
from driftline.runtimes.stepwise import Encoded, Step, StepwiseRuntime
from driftline.runtimes.tokenizer import continued_text, encode_chat
from driftline.schema.answers import PinnedPrompt
from driftline.schema.cells import Capabilities
from driftline.store.distributions import CHUNK

PREFILL_STEP = 512
"""Prompt tokens evaluated at once: fixed, because MLX chooses kernels by shape."""


class MlxRuntime(StepwiseRuntime):
    """A folder mlx-lm wrote, on the default device (CPU on Linux, Metal on Apple Silicon)."""

    software: ClassVar[Software] = Software(
        distributions=(("mlx",), ("mlx_lm",), ("transformers",), ("tokenizers",)),
        install="make setup  (or: pip install 'driftline[mlx]'; Linux or Apple Silicon)",
    )
    capabilities: ClassVar[Capabilities] = Capabilities(exact_products=True)

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

    def encode(self, prompt: PinnedPrompt) -> Encoded:
        if prompt.messages is not None:
            return encode_chat(self._tokenizer, prompt.messages)
        # As mlx_lm.stream_generate does: BOS is added unless the text already begins with it.
        text, bos = prompt.prompt or "", self._tokenizer.bos_token
        added = bos is None or not text.startswith(bos)
        return Encoded(list(self._tokenizer.encode(text, add_special_tokens=added)), text)

    def text(self, output: Sequence[int], prompt_ids: Sequence[int]) -> str:
        return continued_text(self._tokenizer, output, prompt_ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

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

    def force(self, ids: Sequence[int], first_row: int = 0) -> Iterator[Any]:
        import mlx.core as mx
        import numpy as np
        from mlx_lm.models.cache import make_prompt_cache

        cache = make_prompt_cache(self._model)
        for start in range(0, len(ids), CHUNK):
            part = ids[start : start + CHUNK]
            logits = self._model(mx.array([list(part)]), cache=cache)[0]
            wanted = logits[max(0, first_row - start) :].astype(mx.float32)
            mx.eval(wanted, [layer.state for layer in cache])
            if len(wanted):
                yield np.array(wanted)
