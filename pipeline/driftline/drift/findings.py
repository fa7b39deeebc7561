"""Silent failures as findings: what is not as it should be, whether or not it cost an answer; pure.

A clean pipeline has none. Ordinary drift (a 2-bit file is not the original) is no finding: the
quantizer, run again on the parent's tensors, explains it to the bit. Limits are those of this
module's constants, each above what clean pipelines were measured at and far below a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from driftline.drift.cause import CUT_OFF, NOT_GREEDY, STOPPED, WENT_ON
from driftline.drift.evidence import CellEvidence
from driftline.schema.answers import PinnedPrompt
from driftline.schema.hops import Component, Finding, HopDrift
from driftline.schema.text import PromptClass
from driftline.schema.weights import TensorChange

EXAMPLES = 10
PLAIN = ("F32", "F16", "BF16", "float32", "float16", "bfloat16")
MERGE_LIMIT = {"float32": 1e-6, "float16": 1e-4, "bfloat16": 1e-3}
"""Mean KL in nats from adapter attached to merged, by the type merged weights are stored in."""
NUMERICS_LIMIT_PLAIN = 1e-5
"""Mean KL in nats of a runtime's arithmetic on float32 weights."""
NUMERICS_LIMIT_LOW = 5e-3
"""The same on weights stored in fewer bits: llama.cpp then rounds activations to 8 bits."""
NUMERICS_LIMIT_EXACT = 1e-6
"""The same at any number of bits on CPU for a runtime that multiplies what it stores in float32."""
CHANCE = 0.9
"""A perplexity above this share of the vocabulary's size says that nothing is predicted."""
SIGNIFICANT = 0.05
HEADS = ("head", "rope.dimension", "key_length", "value_length")

_PROMPT_CODES: Mapping[PromptClass, tuple[str, str]] = {
    "template": ("template-differs", "the runtime renders another text"),
    "bos": ("bos-differs", "BOS is doubled or missing"),
    "eos": ("eos-in-prompt", "EOS is added to the prompt or missing"),
    "special": ("special-token-split", "special tokens are read as plain text"),
    "tokenizer": ("tokenizer-differs", "the same text becomes other tokens"),
}


def findings(
    hop: HopDrift,
    parent: CellEvidence,
    child: CellEvidence,
    pinned: Mapping[str, PinnedPrompt],
    vocabulary_size: int,
) -> Iterator[Finding]:
    """Everything that is not as it should be on one hop or in the cell it leads to."""
    yield from _prompts(hop)
    yield from _fields(hop, parent, child)
    yield from _endings(hop, parent, child)
    yield from _refused(hop, parent, child, pinned)
    yield from _weights(hop, parent, child)
    yield from _labels(hop, child)
    yield from _numerics(hop, child)
    yield from _results(hop, child, vocabulary_size)


def reference_findings(cell: CellEvidence) -> Iterator[Finding]:
    """What is wrong with a reference itself: everything is held against it, so no hop shows it."""
    cut = [key for key, score in cell.scores.items() if score.state == "truncated"]
    if cut:
        yield Finding(
            code="reference-truncated",
            where=cell.id,
            component=None,
            message=f"{len(cut)} of the reference's own answers are cut off at their limit: "
            "raise decode.max_new_tokens",
            items=tuple(cut[:EXAMPLES]),
        )


def _finding(
    hop: HopDrift, code: str, component: Component | None, message: str, items: Sequence[str] = ()
) -> Finding:
    return Finding(
        code=code,
        where=hop.hop.name,
        component=component,
        message=message,
        items=tuple(items[:EXAMPLES]),
    )


def _prompts(hop: HopDrift) -> Iterator[Finding]:
    for cause, (code, what) in _PROMPT_CODES.items():
        prompts = [each for each in hop.text.prompts if each.cause == cause]
        if prompts:
            message = f"{what} for {len(prompts)} of {hop.n_items} prompts: {prompts[0].detail}"
            yield _finding(hop, code, "text", message, [each.key for each in prompts])


def _fields(hop: HopDrift, parent: CellEvidence, child: CellEvidence) -> Iterator[Finding]:
    """Fields beside the weights; what was wrong before the hop is not blamed on it again."""
    before = parent.weights.record if parent.weights else None
    if hop.hop.kind == "convert" and before and (before.config or before.text_fields):
        return
    defaults = [text for text in hop.text.fields if text.startswith("generation_config")]
    others = [text for text in hop.text.fields if text not in defaults]
    if others:
        yield _finding(hop, "text-metadata", "text", "; ".join(others[:3]))
    if defaults:
        message = f"{'; '.join(defaults[:3])}: scoring ignores it, runtimes that read it will not"
        yield _finding(hop, "generation-defaults", "text", message)
    record = child.weights.record if child.weights else None
    if record is not None and record.config and hop.hop.kind != "runtime":
        shown = "; ".join(
            f"{each.field}: expected {each.expected}, found {each.found}"
            for each in record.config[:3]
        )
        yield _finding(hop, "model-metadata", "weights", shown)


_ENDINGS = (
    ("stop-ignored", WENT_ON),
    ("stopped-early", STOPPED),
    ("truncated", CUT_OFF),
    ("not-greedy", NOT_GREEDY),
)


def _endings(hop: HopDrift, parent: CellEvidence, child: CellEvidence) -> Iterator[Finding]:
    """How answers end and are decoded; a sampler that was there before the hop is not its doing."""
    before, after = (end.record.settings.get("decoding") for end in (parent, child))
    sampled = isinstance(after, str) and not after.startswith("greedy")
    for code, reason in _ENDINGS:
        items = [
            item
            for item in hop.items
            if item.cause is not None and item.cause.reason.startswith(reason)
        ]
        message = ""
        if items and items[0].cause is not None:
            message = f"{len(items)} of {hop.n_items} answers: {items[0].cause.reason}"
        if code == "not-greedy" and sampled:
            message = "" if after == before else f"{child.id} decodes otherwise: {after}"
        if message:
            yield _finding(hop, code, "text", message, [item.key for item in items])


def _refused(
    hop: HopDrift,
    parent: CellEvidence,
    child: CellEvidence,
    pinned: Mapping[str, PinnedPrompt],
) -> Iterator[Finding]:
    if child.failure or parent.failure:
        return
    shared = {child.completions[key].evalset for key in child.answered} | {
        score.evalset for score in child.scores.values()
    }
    lost = [
        key
        for key, prompt in pinned.items()
        if prompt.evalset in shared and key in parent.completions and key not in child.completions
    ]
    if lost:
        limit = child.record.settings.get("context_length", child.record.settings.get("n_ctx"))
        context = "" if limit is None else f" (context: {limit} tokens)"
        message = f"{len(lost)} prompts that the parent answers got none{context}"
        yield _finding(hop, "prompt-refused", "text", message, lost)


def _weights(hop: HopDrift, parent: CellEvidence, child: CellEvidence) -> Iterator[Finding]:
    if hop.hop.kind == "adapter":
        yield from _idle_adapter(hop)
        return
    record = child.weights.record if child.weights else None
    if hop.hop.kind == "merge":
        yield from _merge(hop, child)
        return
    if record is None or hop.hop.kind == "runtime":
        return
    if not record.trusted:
        yield _finding(hop, "split-withheld", None, record.reason)
        return
    headed = any(any(word in each.field for word in HEADS) for each in record.config)
    odd = [each for each in record.tensors if each.explained != "exact"]
    if headed:  # their rows are then told apart by the file's own, wrong head counts
        odd = [each for each in odd if "q_proj" not in each.name and "k_proj" not in each.name]
    if odd:
        worst = max(odd, key=lambda each: each.relative_error)
        message = (
            f"{_tensors(odd)} not what storing the parent's as {worst.stored} gives; furthest: "
            f"{worst.name}, relative error {worst.relative_error:.3g}"
        )
        yield _finding(hop, "tensor-unexplained", "weights", message)


def _tensors(odd: Sequence[TensorChange]) -> str:
    return "1 tensor is" if len(odd) == 1 else f"{len(odd)} tensors are"


def _idle_adapter(hop: HopDrift) -> Iterator[Finding]:
    if hop.split is not None and hop.split.end_to_end.kl_max == 0:
        message = "the adapter changes no distribution at all"
        yield _finding(hop, "no-op-adapter", "weights", message)


def _merge(hop: HopDrift, child: CellEvidence) -> Iterator[Finding]:
    record = child.weights.record if child.weights else None
    tensors = record.tensors if record else ()
    if tensors and all(each.relative_error == 0 for each in tensors):
        yield _finding(hop, "no-op-merge", "weights", "the merged checkpoint is the source's own")
        return
    stored = tensors[0].stored if tensors else "float32"
    limit = MERGE_LIMIT.get(stored, MERGE_LIMIT["bfloat16"])
    if hop.split is not None and hop.split.end_to_end.kl_mean.value > limit:
        message = (
            f"merged is {hop.split.end_to_end.kl_mean.value:.2g} nats from attached, more than "
            f"storing it as {stored} explains ({limit:g})"
        )
        yield _finding(hop, "merge-differs", "weights", message)


def _labels(hop: HopDrift, child: CellEvidence) -> Iterator[Finding]:
    """Whether the storage types of a quantized artifact are what its name promises."""
    census, label = child.census, child.record.cell.form
    wanted = _promised(label)
    if census is None or wanted is None or hop.hop.kind not in ("quantize", "convert"):
        return
    counted = {kind: n for kind, n in census.elements.items() if kind not in PLAIN}
    total = sum(counted.values())
    share = (
        sum(n for kind, n in counted.items() if bits_of(kind) == wanted) / total if total else 0.0
    )
    lower = sorted(kind for kind in counted if bits_of(kind) < wanted)
    if lower or share < 0.5:
        types = ", ".join(f"{kind} {n}" for kind, n in sorted(census.types.items()))
        message = (
            f"{label} is {census.bits_per_weight:.2f} bits per weight with tensors in {types}"
            + (f": {', '.join(lower)} is below the label" if lower else "")
        )
        yield _finding(hop, "not-as-labelled", "weights", message)


def _promised(label: str) -> int | None:
    """Bits a quantization's name promises; None for one that names no bits."""
    digits = "".join(letter for letter in label.lower().partition("q")[2][:1] if letter.isdigit())
    if digits:
        return int(digits)
    head = label.lower().partition("bit")
    return int(head[0]) if head[1] and head[0].isdigit() else None


def bits_of(kind: str) -> int:
    """Bits of a storage type, the first number in its name: Q4_K, BF16, F8_E4M3, affine-4bit-g64.

    A name without a number counts as 32, so that it neither keeps a label's promise nor breaks it.
    """
    number = re.search(r"\d+", kind)
    return int(number[0]) if number else 32


def _numerics(hop: HopDrift, child: CellEvidence) -> Iterator[Finding]:
    split = hop.split
    if split is None or split.numerics is None:
        return
    plain = child.census is None or set(child.census.types) <= {"F32", "float32"}
    limit = NUMERICS_LIMIT_PLAIN if plain else NUMERICS_LIMIT_LOW
    settings = child.record.settings
    exact = child.record.capabilities.exact_products
    if exact and "cpu" in str(settings.get("device", "cpu")):
        limit = NUMERICS_LIMIT_EXACT
    nats = split.numerics.kl_mean.value
    if nats > limit:
        message = f"arithmetic alone costs {nats:.2g} nats a token, {limit:g} is usual at most"
        yield _finding(hop, "numerics-high", "numerics", message)


def _results(hop: HopDrift, child: CellEvidence, vocabulary_size: int) -> Iterator[Finding]:
    owed = child.failure is None and child.record.capabilities.distributions
    if owed and child.record.not_forced:
        message = f"{child.id} gave no log-probabilities: {child.record.not_forced}"
        yield _finding(hop, "missing-log-probs", None, message)
    if hop.split is not None and vocabulary_size:
        after, before = (
            hop.split.end_to_end.perplexity_child,
            hop.split.end_to_end.perplexity_parent,
        )
        if after and before and after.value > CHANCE * vocabulary_size > before.value:
            message = f"perplexity {after.value:.4g} with a vocabulary of {vocabulary_size}"
            yield _finding(hop, "chance-level", None, message)
    scores = hop.scores
    corrected = scores.holm_p if scores is not None else None
    better = corrected is not None and corrected < SIGNIFICANT
    if scores is not None and better and scores.better > scores.worse:
        message = (
            f"{scores.better} answers became right and {scores.worse} wrong "
            f"(McNemar p {corrected:.2g}): a conversion has no business improving a model"
        )
        yield _finding(hop, "suspiciously-better", None, message, hop.better)
