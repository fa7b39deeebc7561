"""llama.cpp, through llama-cpp-python: the GGUF's own template, tokenizer and end tokens."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

from driftline.runtimes.base import Description, Job, PromptRefusedError, Software
from driftline.runtimes.stepwise import Encoded, Step, StepwiseRuntime
from driftline.schema.answers import PinnedPrompt
from driftline.store.distributions import CHUNK

BATCH = 512
"""n_batch and n_ubatch: fixed, because llama.cpp is not bit-identical across batch sizes."""


F16 = 1
"""ggml's type of the keys and values in the context: llama.cpp's default."""


class LlamaCppRuntime(StepwiseRuntime):
    """A folder with one GGUF file.

    Prompts take the path of `create_chat_completion` and `create_completion` (same formatter, same
    tokenizer calls); tokens are then chosen by argmax of the raw logits, so that no sampler of the
    default chain (top-k, top-p, min-p, penalties, temperature) exists at all.
    """

    software: ClassVar[Software] = Software(
        distributions=(("llama_cpp_python",),),
        install="make setup  (or: pip install 'driftline[llamacpp]'; needs a C++ compiler)",
        # The converter is taken out of the very source this build was compiled from.
        files={"converter_sha256": "share/driftline/llama.cpp-{version}/SHA256"},
    )
    key_type = F16
    batch = BATCH

    def __init__(self, job: Job) -> None:
        import llama_cpp

        if job.adapter is not None:
            raise ValueError("llama.cpp cells take merged artifacts, not an attached adapter")
        files = sorted(job.artifact.glob("*.gguf"))
        if len(files) != 1:
            raise ValueError(f"expected one .gguf file in the artifact, found {len(files)}")
        self.job = job
        self._file = str(files[0])
        self._llama: Any = self._open()
        self._vocab = llama_cpp.llama_model_get_vocab(self._llama.model)
        self._n_vocab = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.end_ids = frozenset(
            token
            for token in range(self._n_vocab)
            if llama_cpp.llama_vocab_is_eog(self._vocab, token)
        )

    def _open(self) -> Any:
        import llama_cpp

        decode = self.job.decode
        with _stored_layout():
            return llama_cpp.Llama(
                model_path=self._file,
                n_ctx=decode.context_length,
                n_batch=min(self.batch, decode.context_length),
                n_ubatch=min(self.batch, decode.context_length),
                n_threads=decode.threads,
                n_threads_batch=decode.threads,
                n_gpu_layers=0,
                flash_attn=False,
                offload_kqv=False,
                type_k=self.key_type,
                type_v=llama_cpp.GGML_TYPE_F16,
                use_mmap=True,
                logits_all=False,
                verbose=False,
            )

    def describe(self) -> Description:
        import llama_cpp

        context, metadata = self._llama.ctx, self._llama.metadata
        decode = self.job.decode
        settings = {
            "context_length": decode.context_length,
            "n_ctx": llama_cpp.llama_n_ctx(context),
            "n_ctx_train": self._llama.n_ctx_train()
            if hasattr(self._llama, "n_ctx_train")
            else llama_cpp.llama_model_n_ctx_train(self._llama.model),
            "n_batch": llama_cpp.llama_n_batch(context),
            "n_ubatch": llama_cpp.llama_n_ubatch(context),
            "n_threads": llama_cpp.llama_n_threads(context),
            "n_threads_batch": llama_cpp.llama_n_threads_batch(context),
            "n_gpu_layers": 0,
            "flash_attn": False,
            "weight_layout": "as stored, not repacked for this CPU",
            "kv_cache": "float16 (llama.cpp's default), cleared before each prompt",
            "decoding": "greedy (argmax of raw logits, no sampler chain)",
            "end_ids": sorted(self.end_ids),
            "stop": list(decode.stop),
            "chat_template": "the GGUF's own" if "tokenizer.chat_template" in metadata else "none",
            "chat_format": self._llama.chat_format,
            "tokenizer": metadata.get("tokenizer.ggml.model"),
            "add_bos": bool(llama_cpp.llama_vocab_get_add_bos(self._vocab)),
        }
        info = llama_cpp.llama_print_system_info().decode()
        build = {"llama_cpp_python": llama_cpp.__version__, "system_info": info.strip(" |\n")}
        return Description(build=dict(build), settings=settings)

    def encode(self, prompt: PinnedPrompt) -> Encoded:
        if prompt.messages is None:
            text = prompt.prompt or ""
            # create_completion: an empty prompt is the BOS token alone.
            add_bos = bool(self._llama._model.add_bos_token())
            ids = self._llama.tokenize(text.encode(), add_bos=add_bos, special=True)
            return Encoded(list(ids) if ids else [self._llama.token_bos()], text)
        handler = self._llama._chat_handlers.get(self._llama.chat_format)
        if "tokenizer.chat_template" not in self._llama.metadata or handler is None:
            raise PromptRefusedError("the item is a chat and the GGUF has no chat template")
        result = self._formatter(messages=[message.model_dump() for message in prompt.messages])
        ids = self._llama.tokenize(
            result.prompt.encode(), add_bos=not result.added_special, special=True
        )
        return Encoded(list(ids), result.prompt)

    @cached_property
    def _formatter(self) -> Any:
        """The formatter `create_chat_completion` uses for a template from the file's metadata."""
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        llama = self._llama
        return Jinja2ChatFormatter(
            template=llama.metadata["tokenizer.chat_template"],
            eos_token=self.pieces([llama.token_eos()])[0] if llama.token_eos() != -1 else "",
            bos_token=self.pieces([llama.token_bos()])[0] if llama.token_bos() != -1 else "",
            stop_token_ids=[llama.token_eos()],
        )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        import llama_cpp

        raw = [llama_cpp.llama_vocab_get_text(self._vocab, token) for token in ids]
        return [piece.decode("utf-8", "replace") for piece in raw]

    def text(self, output: Sequence[int], prompt_ids: Sequence[int]) -> str:
        raw: bytes = self._llama.detokenize(list(output), prev_tokens=list(prompt_ids))
        return raw.decode("utf-8", "replace")

    def steps(self, prompt_ids: Sequence[int]) -> Iterator[Step]:
        import numpy as np

        self._llama.reset()
        given = list(prompt_ids)
        while True:
            self._llama.eval(given)
            row = self._row(-1)
            best = int(row.argmax())
            top = float(row[best])
            # log-sum-exp around the maximum, which is the chosen token's own logit
            logprob = -float(np.log(np.exp(row - top, dtype=np.float64).sum()))
            given = [best]
            yield Step(best, logprob)

    def _row(self, place: int) -> Any:
        """Raw logits of one output of the last batch, float32 [vocabulary]; not a copy."""
        import llama_cpp
        import numpy as np

        pointer = llama_cpp.llama_get_logits_ith(self._llama.ctx, place)
        address = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(address, shape=(self._n_vocab,))

    def force(self, ids: Sequence[int], first_row: int = 0) -> Iterator[Any]:
        import llama_cpp
        import numpy as np

        context = self._llama.ctx
        self._llama.reset()
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        size = min(CHUNK, llama_cpp.llama_n_batch(context))
        batch = llama_cpp.llama_batch_init(size, 0, 1)
        try:
            for start in range(0, len(ids), size):
                part = ids[start : start + size]
                _fill(batch, part, start=start, first_row=first_row)
                code = llama_cpp.llama_decode(context, batch)
                if code:
                    raise RuntimeError(f"llama_decode returned {code} at token {start}")
                places = range(max(0, first_row - start), len(part))
                if places:
                    yield np.stack([self._row(place) for place in places])
        finally:
            llama_cpp.llama_batch_free(batch)
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)


@contextlib.contextmanager
def _stored_layout() -> Iterator[None]:
    """Weights are multiplied in the layout they are stored in.

    llama.cpp would repack quantized weights for the CPU at hand (AMX, AVX-512, NEON), so that the
    same file has other kernels on other machines; on AMX, llama-cpp-python 0.3.36 crashes. The
    switch is a model parameter that `Llama` has no argument for.
    """
    from llama_cpp import llama_cpp as low

    defaults = low.llama_model_default_params

    def unpacked() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    low.llama_model_default_params = unpacked
    try:
        yield
    finally:
        low.llama_model_default_params = defaults


def _fill(batch: Any, ids: Sequence[int], *, start: int, first_row: int) -> None:
    """One sequence's ids from position `start` on; logits wanted from `first_row` on."""
    batch.n_tokens = len(ids)
    for place, token in enumerate(ids):
        batch.token[place] = token
        batch.pos[place] = start + place
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = 0
        batch.logits[place] = start + place >= first_row
