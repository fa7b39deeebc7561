"""Transformers: float32 on CPU, batch 1, eager attention. The reference every hop starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from pipeline.runtimes.base import Description, Job, PromptRefusedError
from pipeline.runtimes.stepwise import Step, StepwiseRuntime, continuation
from pipeline.schema.answers import PinnedPrompt


class TransformersRuntime(StepwiseRuntime):
    """A Safetensors checkpoint, with a PEFT adapter attached unmerged or none.

    Decoding is the loop that `generate(do_sample=False, num_beams=1)` runs, written out: no logits
    processor exists, so nothing in `generation_config.json` but its end tokens can have a say.
    """

    adapters: ClassVar[bool] = True

    def __init__(self, job: Job) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(job.decode.threads)
        torch.use_deterministic_algorithms(True)
        self.job = job
        self._tokenizer = AutoTokenizer.from_pretrained(job.artifact, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            job.artifact,
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            use_safetensors=True,
        )
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

    def prompt_ids(self, prompt: PinnedPrompt) -> list[int]:
        if prompt.messages is None:
            return list(self._tokenizer(prompt.prompt)["input_ids"])
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
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

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


def _end_ids(model: Any) -> list[int]:
    """End-of-sequence ids as `generate` finds them: generation config first, then config."""
    found = model.generation_config.eos_token_id
    if found is None:
        found = model.config.eos_token_id
    if found is None:
        return []
    return list(found) if isinstance(found, (list, tuple)) else [found]
