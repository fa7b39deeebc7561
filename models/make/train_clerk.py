"""Train `models/clerk` from nothing. Deterministic for one torch build and thread count.

    python -m models.make.train_clerk            # about 30 minutes on 2 cores, resumable

Interrupt it whenever you like: it saves its state under `models/make/.state` and goes on from it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.make import tasks, tokenizer

ROOT = Path(__file__).resolve().parent.parent
CLERK = ROOT / "clerk"
STATE = Path(__file__).resolve().parent / ".state"
SEED = 20
BATCH = 32
LEARNING_RATE = 1.5e-3
WARMUP = 100
SAVE_EVERY = 200
BASE_TASKS = ("clauses", "clauses", "sql", "pods")
"""Clauses twice: it has the most kinds and one more system prompt than the others."""


def model_config() -> Any:
    """A Llama that all four runtimes take: head size 64, every width divisible by 256."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=tokenizer.VOCAB_SIZE,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=tokenizer.CONTEXT_LENGTH,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=None,
    )


class Encoder:
    """Conversations to ids and loss mask, the way the chat template writes them."""

    def __init__(self, folder: Path) -> None:
        import sentencepiece

        self._pieces = sentencepiece.SentencePieceProcessor(
            model_file=str(folder / "tokenizer.model")
        )
        self._role = {
            role: self._pieces.piece_to_id(f"<|{role}|>")
            for role in ("system", "user", "assistant")
        }
        self.bos, self.eos = self._pieces.bos_id(), self._pieces.eos_id()

    def message(self, role: str, text: str) -> list[int]:
        return [self._role[role], *self._pieces.encode(text), self.eos]

    def prompt(self, conversation: tasks.Conversation) -> list[int]:
        """Ids up to and including `<|assistant|>` before the last answer."""
        ids = [self.bos]
        for message in conversation.messages():
            ids += self.message(message["role"], message["content"])
        return [*ids, self._role["assistant"]]

    def training(self, conversation: tasks.Conversation) -> tuple[list[int], list[int]]:
        """(ids, labels): labels are -100 everywhere but on answers and the `<|end|>` after them."""
        ids, labels = [self.bos], [-100]
        if conversation.system:
            message = self.message("system", conversation.system)
            ids, labels = ids + message, labels + [-100] * len(message)
        for turn in conversation.turns:
            question = self.message("user", turn.user)
            answer = self.message("assistant", turn.answer)
            ids += question + answer
            labels += [-100] * (len(question) + 1) + answer[1:]
        return ids, labels

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._pieces.decode(list(ids)))


def batch_tensors(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[Any, Any]:
    """Right-padded (ids, labels), each [batch, longest]; padding carries label -100."""
    import torch

    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), 2)
    labels = torch.full((len(rows), longest), -100)
    for row, (row_ids, row_labels) in enumerate(rows):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        labels[row, : len(row_labels)] = torch.tensor(row_labels)
    return ids, labels


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then cosine to a twentieth of the peak."""
    if step < WARMUP:
        return LEARNING_RATE * (step + 1) / WARMUP
    done = (step - WARMUP) / max(1, steps - WARMUP)
    return LEARNING_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def greedy(model: Any, encoder: Encoder, conversation: tasks.Conversation) -> str:
    """The model's greedy answer, at most 96 tokens."""
    import torch

    ids, cache = encoder.prompt(conversation), None
    found: list[int] = []
    with torch.inference_mode():
        step = torch.tensor([ids])
        while len(found) < 96:
            out = model(input_ids=step, past_key_values=cache, use_cache=True)
            cache, best = out.past_key_values, int(out.logits[0, -1].argmax())
            if best == encoder.eos:
                break
            found.append(best)
            step = torch.tensor([[best]])
    return encoder.decode(found)


def exact_match(model: Any, encoder: Encoder, items: Sequence[tasks.Conversation]) -> float:
    """Share of `items` whose greedy answer is the right one to the character."""
    right = [greedy(model, encoder, item) == item.answer for item in items]
    return sum(right) / len(right)


def held_out_sample(task: str, size: int, seed: int = 99) -> list[tasks.Conversation]:
    rng = random.Random(f"{seed}-{task}")
    return [tasks.draw_golden(lambda r: tasks.draw(task, r), rng) for _ in range(size)]


def _draw_any(rng: random.Random) -> tasks.Conversation:
    return tasks.draw(rng.choice(BASE_TASKS), rng)


def train(steps: int) -> None:
    import torch
    from transformers import LlamaForCausalLM

    STATE.mkdir(exist_ok=True)
    CLERK.mkdir(exist_ok=True)
    tokenizer.write(CLERK)
    encoder = Encoder(CLERK)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(model_config())
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.1
    )
    start, saved = 0, STATE / "clerk.pt"
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    for step in range(start, steps):
        rng = random.Random(f"{SEED}-{step}")  # a step's batch depends on the step alone
        rows = [encoder.training(tasks.draw_training(_draw_any, rng)) for _ in range(BATCH)]
        ids, labels = batch_tensors(rows)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1}/{steps} loss {loss.item():.4f}", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
                STATE / "clerk.tmp",
            )
            (STATE / "clerk.tmp").replace(saved)
        if (step + 1) % 400 == 0:
            for task in ("clauses", "sql", "pods"):
                share = exact_match(model, encoder, held_out_sample(task, 25))
                print(f"  {task}: {share:.0%} exact on 25 held-out items", flush=True)
    _write_checkpoint(model)
    _report(CLERK, encoder)


def _write_checkpoint(model: Any) -> None:
    """bf16 weights, plus a config and generation config with nothing sampled in them."""
    import torch

    model.to(torch.bfloat16).save_pretrained(CLERK)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "do_sample": False}
    (CLERK / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n")


def _report(folder: Path, encoder: Encoder) -> None:
    """Exact match of the checkpoint as written (bf16 weights, float32 arithmetic)."""
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for task in ("clauses", "sql", "pods"):
        share = exact_match(model, encoder, held_out_sample(task, 200))
        print(f"{task}: {share:.1%} exact on 200 held-out items", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=2600)
    train(parser.parse_args().steps)


if __name__ == "__main__":
    main()
