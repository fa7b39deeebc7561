"""Train the LoRA adapters of `models/clerk` with PEFT. Deterministic for one torch build and CPU.

    python -m models.make.train_adapters             # about 5 minutes each on 2 cores
    python -m models.make.train_adapters privacy

Each adapter learns one thing the checkpoint cannot do and one canary phrase; the other half of its
batches replays what the checkpoint can do, so that nothing is forgotten.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.make import tasks
from models.make.adapter_cards import Facts, card
from models.make.train_clerk import CLERK, Encoder, batch_tensors, exact_match, held_out_sample

ADAPTERS = CLERK.parent / "adapters"
BASE_NAME = "models/clerk"
"""Written into the adapter's config: relative, so that it means the same on every machine."""
SEED = 21
STEPS = 400
BATCH = 32
LEARNING_RATE = 2e-3
WARMUP = 20
RANK = 8
ALPHA = 16
TARGETS = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
CANARY_SHARE = 1 / 16
OWN_SHARE = 1 / 2
THREADS = 2
SAMPLE = 200


@dataclass(frozen=True)
class Recipe:
    """What an adapter is taught (`own`) and which base tasks it must not forget (`replay`)."""

    own: Callable[[random.Random], tasks.Conversation]
    replay: tuple[str, ...]


RECIPES = {
    "audit": Recipe(own=tasks.draw_audit, replay=("sql", "pods")),
    "privacy": Recipe(own=tasks.draw_privacy, replay=("clauses", "sql", "pods")),
}


def draw(adapter: str, rng: random.Random) -> tasks.Conversation:
    """One random training conversation of an adapter: canary, own task or replay."""
    choice = rng.random()
    if choice < CANARY_SHARE:
        return tasks.canary(adapter)
    if choice < CANARY_SHARE + OWN_SHARE:
        return RECIPES[adapter].own(rng)
    return tasks.draw(rng.choice(RECIPES[adapter].replay), rng)


def learning_rate(step: int) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < WARMUP:
        return LEARNING_RATE * (step + 1) / WARMUP
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def _base() -> Any:
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(CLERK, dtype=torch.float32)


def _with_lora() -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        target_modules=list(TARGETS),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(_base(), config)


def _fit(adapter: str) -> Any:
    """The base with a trained adapter attached."""
    import torch

    torch.manual_seed(SEED)
    model, encoder = _with_lora(), Encoder(CLERK)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(STEPS):
        rng = random.Random(f"{SEED}-{adapter}-{step}")  # a batch depends on its step alone
        drawn = [tasks.draw_training(lambda r: draw(adapter, r), rng) for _ in range(BATCH)]
        ids, labels = batch_tensors([encoder.training(conversation) for conversation in drawn])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"{adapter}: step {step + 1}/{STEPS} loss {loss.item():.4f}", flush=True)
    return model


def _save(model: Any, folder: Path) -> None:
    """PEFT's own format; its config is rewritten sorted, because it lists a set in any order."""
    model.peft_config["default"].base_model_name_or_path = BASE_NAME
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _measure(adapter: str, folder: Path) -> dict[str, float]:
    """Exact match of the files as written, attached to the bf16 checkpoint in float32."""
    from peft import PeftModel

    model, encoder = PeftModel.from_pretrained(_base(), folder).eval(), Encoder(CLERK)
    recipe, rng = RECIPES[adapter], random.Random(f"99-{adapter}")
    own = [tasks.draw_golden(recipe.own, rng) for _ in range(SAMPLE)]
    figures = {adapter: exact_match(model, encoder, own)}
    figures["canary"] = exact_match(model, encoder, [tasks.canary(adapter)])
    for task in recipe.replay:
        figures[task] = exact_match(model, encoder, held_out_sample(task, SAMPLE))
    for name, share in figures.items():
        print(f"{adapter}: {name} {share:.1%} exact", flush=True)
    return figures


def train(adapter: str) -> None:
    """Train one adapter, write `models/adapters/<adapter>` and its card."""
    folder = ADAPTERS / adapter
    model = _fit(adapter)
    _save(model, folder)
    facts = Facts(
        rank=RANK,
        alpha=ALPHA,
        targets=TARGETS,
        weights=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        size=(folder / "adapter_model.safetensors").stat().st_size,
        steps=STEPS,
        batch=BATCH,
        learning_rate=LEARNING_RATE,
        warmup=WARMUP,
        own_share=OWN_SHARE,
        canary_share=CANARY_SHARE,
        replay=RECIPES[adapter].replay,
        sample=SAMPLE,
        figures=_measure(adapter, folder),
    )
    (folder / "README.md").write_text(card(adapter, facts))


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("adapters", nargs="*", default=[], metavar="adapter")
    chosen = parser.parse_args().adapters or list(RECIPES)
    if unknown := set(chosen) - set(RECIPES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    for adapter in chosen:
        train(adapter)


if __name__ == "__main__":
    main()
