"""A plain text of a wanted length in the embedded model's own domain, the same on every machine.

The references of golden prompts that the embedded model learnt, one per line, then again and again
with other digits and in another order. It was trained on answers alone, so these are the text it
knows: sure within a line, at a loss where the next one begins.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from driftline.golden import evalset

TOKENIZER = Path("models/clerk/tokenizer.model")
EVALSETS = ("clauses", "sql", "pods")
"""What the embedded model was trained on; the others are its adapters' or tests of tokenizers."""


def corpus(path: Path, tokens: int) -> int:
    """Write UTF-8 text of at least `tokens` tokens of the embedded model, ending in a newline.

    Laws: equal `tokens` write equal bytes; a longer text begins with a shorter one; the text
    overshoots by less than one item; no special token is spelt out in it.

    Returns:
        The tokens it has, counted item by item, without BOS.

    Raises:
        InputError: an evalset does not load.
    """
    model = _tokenizer()
    parts: list[str] = []
    counted = 0
    for part in _parts():
        if counted >= tokens:
            break
        parts.append(part)
        counted += len(model.encode(part))
    path.write_text("".join(parts), encoding="utf-8")
    return counted


def _parts() -> Iterator[str]:
    """One item each, without end: round 0 as the files have it, later ones varied."""
    goldens = evalset.load([evalset.path_of(name) for name in EVALSETS])
    items = [f"{item.reference}\n" for item in goldens if item.reference is not None]
    for turn in count():
        order = list(items)
        if turn:
            random.Random(turn).shuffle(order)
        yield from (_turned(text, turn) for text in order)


def _turned(text: str, turn: int) -> str:
    """Every digit moved on by `turn`."""
    digits = "0123456789"
    by = turn % 10
    return text.translate(str.maketrans(digits, digits[by:] + digits[:by]))


@cache
def _tokenizer() -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
