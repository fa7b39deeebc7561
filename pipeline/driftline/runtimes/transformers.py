"""Transformers: float32 on CPU, batch 1, eager attention. The reference every hop starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from driftline.runtimes.base import Description, Job, Software
from driftline.runtimes.stepwise import Encoded, Step, StepwiseRuntime
from driftline.runtimes.tokenizer import continued_text, encode_chat
from driftline.schema.answers import PinnedPrompt
from driftline.schema.cells import Capabilities
from driftline.store.distributions import CHUNK


class TransformersRuntime(StepwiseRuntime):
    """A Safetensors checkpoint, with a PEFT adapter attached unmerged or none.

    Decoding is the loop that `generate(do_sample=False, num_beams=1)` runs, written out: no logits
    processor exists, so nothing in `generation_config.json` but its end tokens can have a say.
    """

    software: ClassVar[Software] = Software(
        distributions=(("torch",), ("transformers",), ("peft",), ("tokenizers",)),
        install="make setup",
    )
    capabilities: ClassVar[Capabilities] = Capabilities(adapters=True)

    def __init__(self, job: Job) -> None:
        import torch
        from transformers import AutoTokenizer

        torch.set_num_threads(job.decode.threads)
        torch.use_deterministic_algorithms(True)
        self.job = job
        self._tokenizer = AutoTokenizer.from_pretrained(job.artifact, local_files_only=True)
        model = load_model(job.artifact, use_safetensors=True)
        self.end_ids = frozenset(_end_ids(model))
        if job.adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, job.adapter, autocast_adapter_dtype=True)
        self._model: Any = model.eval()

    def describe(self) -> Description:
        import torch
        import transformers

        config = self._model.config
        build = {"torch": torch.__version__, "transformers": transformers.__version__}
        if self.job.adapter is not None:
            import peft

            build["peft"] = peft.__version__
        settings = {
            "dtype": str(next(self._model.parameters()).dtype).removeprefix("torch."),
            "device": str(next(self._model.parameters()).device),
            "attention": config._attn_implementation,
            "batch_size": 1,
            "threads": torch.get_num_threads(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "decoding": "greedy (argmax of float32 logits)",
            "generation_config": "ignored but for its end tokens",
            "kv_cache": "dynamic, new for each prompt",
            "context_length": self.job.decode.context_length,
            "end_ids": sorted(self.end_ids),
            "stop": list(self.job.decode.stop),
            "chat_template": "the tokenizer's own" if self._tokenizer.chat_template else "none",
            "adapter": "attached, unmerged" if self.job.adapter else "none",
        }
        return Description(build=dict(build), settings=settings)

    def encode(self, prompt: PinnedPrompt) -> Encoded:
        if prompt.messages is None:
            text = prompt.prompt or ""
            return Encoded(list(self._tokenizer(text)["input_ids"]), text)
        return encode_chat(self._tokenizer, prompt.messages)

    def text(self, output: Sequence[int], prompt_ids: Sequence[int]) -> str:
        return continued_text(self._tokenizer, output, prompt_ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        return list(self._tokenizer.convert_ids_to_tokens(list(ids)))

    def steps(self, prompt_ids: Sequence[int]) -> Iterator[Step]:
        import torch

        cache, given = None, torch.tensor([list(prompt_ids)])
        while True:
            with torch.inference_mode():
                out = self._model(
                    input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1
                )
                row = out.logits[0, -1]
                given = row.argmax().reshape(1, 1)
                logprob = row[given[0, 0]] - row.logsumexp(0)
            cache = out.past_key_values
            yield Step(int(given), float(logprob))

    def force(self, ids: Sequence[int], first_row: int = 0) -> Iterator[Any]:
        return force_model(self._model, ids, first_row)


def load_model(folder: Path, **options: Any) -> Any:
    """The reference arithmetic: a checkpoint in float32 with eager attention."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        **options,
    )
    return model.eval()


def force_model(model: Any, ids: Sequence[int], first_row: int = 0) -> Iterator[Any]:
    """`Runtime.force` of any Transformers model."""
    import torch

    cache = None
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        wanted = min(len(part), start + len(part) - first_row)
        with torch.inference_mode():
            out = model(
                input_ids=torch.tensor([list(part)]),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=max(wanted, 1),
            )
        cache = out.past_key_values
        if wanted > 0:
            yield out.logits[0].float().numpy()


def _end_ids(model: Any) -> list[int]:
    """End-of-sequence ids as `generate` finds them: generation config first, then config."""
    end = model.generation_config.eos_token_id
    if end is None:
        end = model.config.eos_token_id
    if end is None:
        return []
    return list(end) if isinstance(end, (list, tuple)) else [end]
