"""Train the tokenizer of the embedded checkpoint: SentencePiece BPE with byte fallback.

SentencePiece rather than byte-level BPE because llama.cpp's converter recognizes BPE tokenizers by
a hash of how they split a test string and refuses one it has never met.
"""

from __future__ import annotations

import io
import json
import random
import string
from pathlib import Path

from models.make import tasks

VOCAB_SIZE = 768
CONTEXT_LENGTH = 512
EOS = "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}"
)


def _corpus(seed: int, size: int) -> list[str]:
    rng = random.Random(seed)
    lines = []
    for _ in range(size):
        drawn = tasks.draw_training(
            lambda r: tasks.draw(r.choice(("clauses", "sql", "pods")), r), rng
        )
        lines += [text for turn in drawn.turns for text in (turn.user, turn.answer)]
        lines += [drawn.system] if drawn.system else []
    # Every printable ASCII character gets a piece of its own, so that byte fallback is left for
    # what really is outside the vocabulary.
    return lines + [" ".join(string.printable[:94])] * 50


def write(folder: Path) -> None:
    """Write `tokenizer.model`, `tokenizer_config.json` and `chat_template.jinja` into `folder`."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_corpus(seed=1, size=20_000)),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        # Text stays as it is: no space before the first letter, no folding of spaces or Unicode.
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        eos_piece=EOS,
        control_symbols=list(ROLES),
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    specials = {0: "<unk>", 1: "<s>", 2: EOS} | {3 + i: role for i, role in enumerate(ROLES)}
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": False,
        "add_prefix_space": False,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT_LENGTH,
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": EOS,
        "added_tokens_decoder": {
            str(index): {
                "content": content,
                "special": True,
                "normalized": False,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
            }
            for index, content in specials.items()
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
