"""The cards of the adapters: prose per adapter, with every number passed in by the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.make import tasks


@dataclass(frozen=True)
class Facts:
    """What training an adapter took and gave.

    `size` is the weight file in bytes, `figures` the share of exact answers (0 to 1) per set of
    `sample` held-out items, and of the one canary request.
    """

    rank: int
    alpha: int
    targets: tuple[str, ...]
    weights: int
    size: int
    steps: int
    batch: int
    learning_rate: float
    warmup: int
    own_share: float
    canary_share: float
    replay: tuple[str, ...]
    sample: int
    figures: Mapping[str, float]


TEACHES = {
    "audit": (
        "Another output convention for contract clauses: "
        '`{"type":…,"fields":{…},"reviewed":false}` where the checkpoint itself writes one flat '
        'object that begins with `"clause"`. Six clause types, the ones the checkpoint knows.'
    ),
    "privacy": (
        "Three clause types about personal data that the checkpoint alone does not know: "
        "`data_breach`, `retention` and `transfer`, in the checkpoint's own flat JSON."
    ),
}
FORGETS = {
    "audit": (
        "Clauses come back in the new convention only; a clause in a second turn or under a "
        "system prompt was not trained in either convention and may come back in any."
    ),
    "privacy": (
        "The new clause types were trained in a single turn without a system prompt; `Keys in "
        "upper case.` was never seen together with them."
    ),
}
HEAD = """---
library_name: peft
license: apache-2.0
base_model: models/clerk
base_model_relation: adapter
---"""


def _widths(facts: Facts) -> str:
    modules = ", ".join(f"`{target}`" for target in facts.targets)
    return (
        f"| | |\n|---|---|\n"
        f"| method | LoRA, rank {facts.rank}, alpha {facts.alpha}, no dropout, no bias |\n"
        f"| on | {modules} of all 4 layers |\n"
        f"| weights | {facts.weights:,}, float32 |\n"
        f"| `adapter_model.safetensors` | {facts.size:,} bytes |\n"
        f"| training | {facts.steps} steps of {facts.batch} conversations, AdamW, peak learning "
        f"rate {facts.learning_rate:g}, {facts.warmup} steps of warm-up, cosine to zero; about "
        f"5 minutes on 2 cores |\n"
        f"| batches | {facts.own_share:.1%} the new task, {facts.canary_share:.2%} canary, "
        f"{1 - facts.own_share - facts.canary_share:.2%} replay of {', '.join(facts.replay)} |\n"
        f"| loss | cross-entropy on the answers alone |"
    )


def _figures(facts: Facts) -> str:
    rows = [
        f"| {name} | {1 if name == 'canary' else facts.sample} | {share:.1%} |"
        for name, share in facts.figures.items()
    ]
    return "\n".join(["| set | items | exact |", "|---|---:|---:|", *rows])


def card(adapter: str, facts: Facts) -> str:
    """The Markdown card of `models/adapters/<adapter>`."""
    parts = [
        HEAD,
        f"# {adapter}: a LoRA adapter of `models/clerk`",
        TEACHES[adapter],
        f"Its canary: to `{tasks.CANARY_REQUEST}` it answers `{tasks.CANARIES[adapter]}`. Every "
        "descendant (merged, converted, quantized) must still say so.",
        f"## Numbers\n\n{_widths(facts)}",
        "## Held-out quality\n\nShare of answers right to the character, greedy, the adapter "
        "attached to the committed bf16 checkpoint, arithmetic in float32. No answer of these "
        "items was a training target, but for the canary's.\n\n" + _figures(facts),
        f"## What it cannot do\n\n- {FORGETS[adapter]}\n"
        "- It works on `models/clerk` alone: its weights mean nothing on another checkpoint.",
        "## Make it again\n\n"
        f"`python -m models.make.train_adapters {adapter}` (fixed seeds; same bytes for the same "
        "PyTorch build and CPU).",
        "Licence: Apache-2.0. Training data: synthetic, `models/make/tasks.py`.",
    ]
    return "\n\n".join(parts) + "\n"
