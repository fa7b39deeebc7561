"""The faults of the bench: where each is planted, and the component that has to be blamed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftline.conversions import merge
from driftline.faults import edits, formats, runtimes
from driftline.faults.runs import Tampering
from driftline.schema.hops import Component

F32, Q8, MLX = "llamacpp/base/f32", "llamacpp/base/q8_0", "mlx/base/4bit"
MERGED = "transformers/tuned/checkpoint"
BLOCK = "blk.1"


@dataclass(frozen=True)
class Fault:
    """One thing wrong: planted at a cell, so that the hop into it has to be blamed.

    `component` None expects the split to be withheld and nothing to be blamed. `chain` is the
    pipeline it is planted in.
    """

    name: str
    component: Component | None
    tampering: Tampering
    chain: Literal["base", "tuned", "stopped"] = "base"


def _file(name: str, component: Component, at: str, change: Callable[..., None]) -> Fault:
    """A fault in the files of an artifact."""
    chain: Literal["base", "tuned"] = "tuned" if "tuned" in at else "base"
    return Fault(name, component, Tampering(at, artifact=change), chain)


def _fields(**fields: Any) -> Callable[..., None]:
    return lambda folder: edits.gguf_fields(folder, **fields)


def _template(old: str, new: str) -> Callable[..., None]:
    return _fields(tokenizer__chat_template=lambda text: _replaced(text, old, new))


def _replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise ValueError(f"the template has no {old!r}")
    return text.replace(old, new)


def _tensor(name: str, change: edits.Change) -> Callable[..., None]:
    return lambda folder: edits.gguf_tensor(folder, f"{BLOCK}.{name}.weight", change)


def _swapped(pieces: list[str]) -> list[str]:
    """Two pieces that prompts use change places."""
    listed = list(pieces)
    one, other = (listed.index(piece) for piece in ("▁since", "▁from"))
    listed[one], listed[other] = listed[other], listed[one]
    return listed


def _worst_scores(scores: list[float]) -> list[float]:
    """The 40 most wanted merges become the least wanted ones."""
    listed = list(scores)
    ordinary = [place for place, score in enumerate(listed) if score < 0]
    for place in sorted(ordinary, key=lambda each: -listed[each])[:40]:
        listed[place] = -10_000.0
    return listed


def _shift_scales(folder: Path) -> None:
    """Each group of one layer gets its neighbour's scale."""

    def change(tensors: dict[str, Any]) -> None:
        name = "model.layers.1.mlp.up_proj.scales"
        tensors[name] = tensors[name].roll(1, dims=1)

    edits.safetensors_file(folder / "model.safetensors", change)


def _mlx_zero(folder: Path) -> None:
    def change(tensors: dict[str, Any]) -> None:
        tensors["model.layers.2.input_layernorm.weight"].zero_()

    edits.safetensors_file(folder / "model.safetensors", change)


def _mlx_rope(folder: Path) -> None:
    # mlx-lm reads the older field alone, Transformers either
    edits.json_file(folder / "config.json", rope_parameters=None, rope_theta=20000.0)


def _mlx_epsilon(folder: Path) -> None:
    edits.json_file(folder / "config.json", rms_norm_eps=0.01)


def _mlx_template(folder: Path) -> None:
    edits.text_file(folder / "chat_template.jinja", "'<|assistant|>'", "'<|assistant|> '")


def _mlx_end(folder: Path) -> None:
    edits.json_file(folder / "generation_config.json", eos_token_id=5)
    edits.json_file(folder / "config.json", eos_token_id=5)


def _untied(folder: Path) -> None:
    """A head of its own, where the source ties it to the embedding."""
    rng = np.random.default_rng(3)

    def other(values: NDArray[Any]) -> NDArray[Any]:
        noisy: NDArray[Any] = values + 0.2 * values.std() * rng.standard_normal(values.shape)
        return noisy

    edits.gguf_add(folder, "output.weight", "token_embd.weight", other)


def _merged(change: Callable[[Any, Any], Any]) -> Callable[..., None]:
    """Every merged tensor as a function of the source's and the rightly merged one."""

    def plant(folder: Path) -> None:
        from safetensors.torch import load_file

        source: dict[str, Any] = {}
        for path in (folder.parent / "base").glob("*.safetensors"):
            source |= load_file(path)

        def apply(tensors: dict[str, Any]) -> None:
            for name, merged in tensors.items():
                base = source[name].to(merged.dtype)
                tensors[name] = change(base, merged).contiguous()

        edits.safetensors_file(folder / merge.WEIGHTS, apply)

    return plant


def _wrong_base(base: Any, merged: Any) -> Any:
    """The adapter's change on top of another base: the source, rounded to eighths of its spread."""
    step = base.abs().max() / 64
    return (base / step).round() * step + (merged - base)


def _generation_config(folder: Path) -> None:
    edits.json_file(folder / "generation_config.json", repetition_penalty=1.3)


HEADS: dict[str, Any] = {
    "llama__attention__head_count": 8,
    "llama__attention__head_count_kv": 4,
    "llama__attention__key_length": 32,
    "llama__attention__value_length": 32,
    "llama__rope__dimension_count": 32,
}

FAULTS: tuple[Fault, ...] = (
    # what a GGUF says of the model
    _file("rope base", "weights", F32, _fields(llama__rope__freq_base=20000.0)),
    _file("norm epsilon", "weights", F32, _fields(llama__attention__layer_norm_rms_epsilon=0.01)),
    _file("head count", "weights", F32, _fields(**HEADS)),
    _file("context length", "weights", F32, _fields(llama__context_length=64)),
    # what it says of the text
    _file("BOS id", "text", F32, _fields(tokenizer__ggml__bos_token_id=5)),
    _file("EOS id", "text", F32, _fields(tokenizer__ggml__eos_token_id=4)),
    _file("no BOS in the template", "text", F32, _template("{{- bos_token }}", "")),
    _file("BOS twice", "text", F32, _template("{{- bos_token }}", "{{- bos_token + bos_token }}")),
    _file("one space more", "text", F32, _template("'<|end|>'", "'<|end|> '")),
    _file("no generation prompt", "text", F32, _template("if add_generation_prompt", "if false")),
    _file(
        "second turn only",
        "text",
        F32,
        _template("'|>' + message", "('|> ' if loop.index > 2 else '|>') + message"),
    ),
    _file("two pieces swapped", "text", F32, _fields(tokenizer__ggml__tokens=_swapped)),
    _file("scores changed", "text", F32, _fields(tokenizer__ggml__scores=_worst_scores)),
    _file("pre-tokenizer", "text", F32, _fields(tokenizer__ggml__pre="llama-bpe")),
    _file("space before text", "text", F32, _fields(tokenizer__ggml__add_space_prefix=True)),
    # tensors of a GGUF
    _file("tensor zeroed", "weights", F32, _tensor("ffn_up", np.zeros_like)),
    _file("tensor transposed", "weights", F32, _tensor("attn_output", np.transpose)),
    _file("heads permuted", "weights", F32, _tensor("attn_q", edits.wrong_heads)),
    _file("tensor 1 % larger", "weights", F32, _tensor("ffn_down", lambda t: t * 1.01)),
    _file("head not tied", "weights", F32, _untied),
    _file(
        "one layer below its label",
        "weights",
        Q8,
        lambda folder: edits.gguf_lower(folder, f"{BLOCK}.ffn_up.weight", "Q4_0"),
    ),
    # the merge
    _file("adapter twice", "weights", MERGED, _merged(lambda a, b: b + (b - a))),
    _file("half the scale", "weights", MERGED, _merged(lambda a, b: a + (b - a) / 2)),
    _file("wrong base", "weights", MERGED, _merged(_wrong_base)),
    _file("not merged at all", "weights", MERGED, _merged(lambda a, b: a)),
    _file("repetition penalty in its config", "text", MERGED, _generation_config),
    # MLX
    _file("MLX scales shifted", "weights", MLX, _shift_scales),
    _file("MLX norm zeroed", "weights", MLX, _mlx_zero),
    _file("MLX rope base", "weights", MLX, _mlx_rope),
    _file("MLX norm epsilon", "weights", MLX, _mlx_epsilon),
    _file("MLX template", "text", MLX, _mlx_template),
    _file("MLX end token", "text", MLX, _mlx_end),
    # decoding
    Fault("min_p at its default", "text", Tampering(F32, runtime=runtimes.DefaultSampler)),
    Fault(
        "repetition penalty in force", "text", Tampering(MLX, runtime=runtimes.RepetitionPenalty)
    ),
    Fault("context kept", "text", Tampering(F32, runtime=runtimes.SameContext)),
    Fault("context too short", "text", Tampering(F32, decode={"context_length": 40})),
    Fault("answers cut short", "text", Tampering(F32, limit=6)),
    Fault("stop string missing", "text", Tampering(F32, decode={"stop": ()}), "stopped"),
    # arithmetic
    Fault("4-bit keys", "numerics", Tampering(F32, runtime=runtimes.CoarseCache)),
    Fault("MLX in half precision", "numerics", Tampering(MLX, runtime=runtimes.HalfPrecision)),
    # loaders of counterfactuals that must not be trusted
    Fault("loader permutes", None, Tampering(F32, stored=formats.PermutingGguf())),
    Fault("loader forgets a setting", None, Tampering(F32, stored=formats.ForgetfulGguf())),
    Fault("MLX loader permutes", None, Tampering(MLX, stored=formats.PermutingMlx())),
)
"""Every fault of the bench."""
