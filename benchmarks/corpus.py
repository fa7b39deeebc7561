"""A plain text of a wanted length in the embedded model's own domain, the same on every machine.

Golden prompts with their references, in the order of the evalsets, then again and again with other
digits and in another order: text that the model knows, so that its distributions are neither flat
nor certain everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from pipeline import evalset
from pipeline.schema.items import GoldenPrompt

TOKENIZER = Path("models/clerk/tokenizer.model")
MARKERS = ("<|", "|>", "<s>", "</s>", "<unk>")
"""What special tokens look like: an item with one of them in its text is left out."""


def corpus(path: Path, tokens: int) -> int:
    """Write UTF-8 text of at least `tokens` tokens of the embedded model, ending in a newline.

    Laws: equal `tokens` write equal bytes; a longer text begins with a shorter one; the text
    overshoots by less than one item.

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
    goldens = evalset.load(sorted(evalset.FOLDER.glob("*.jsonl")))
    items = [text for item in goldens if (text := _text(item)) is not None]
    for turn in count():
        order = list(items)
        if turn:
            random.Random(turn).shuffle(order)
        yield from (_turned(text, turn) for text in order)


def _text(item: GoldenPrompt) -> str | None:
    """Messages and reference, one per line, and an empty line; None without a reference."""
    said = [message.content for message in item.messages or ()]
    said += [text for text in (item.prompt, item.reference) if text is not None]
    text = "\n".join(said) + "\n\n"
    usable = item.reference is not None and not any(marker in text for marker in MARKERS)
    return text if usable else None


def _turned(text: str, turn: int) -> str:
    """Every digit moved on by `turn`, in prompt and answer alike: they still agree."""
    digits = "0123456789"
    by = turn % 10
    return text.translate(str.maketrans(digits, digits[by:] + digits[:by]))


@cache
def _tokenizer() -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
