"""Golden prompts → pinned prompts: rendered and tokenized once, by the source's own tokenizer."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driftline.errors import InputError, RefusedError
from driftline.schema.answers import PinnedPrompt
from driftline.schema.forced import ForcedSequence
from driftline.schema.items import GoldenPrompt
from driftline.schema.text import SourceVocabulary

RENDER_DEADLINE_S = 20
"""For one template call: Jinja's sandbox stops escapes, not loops that never end."""
RENDERED_LIMIT = 2_000_000
"""Characters one rendered prompt may have."""


def tokenizer_of(checkpoint: Path) -> Any:
    """The tokenizer in a checkpoint's folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)


def vocabulary(tokenizer: Any) -> SourceVocabulary:
    """What the source calls each id, and which ids are special."""
    end = tokenizer.eos_token_id
    return SourceVocabulary(
        pieces=tuple(tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))),
        special=tuple(sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder})),
        bos=tokenizer.bos_token_id,
        eos=() if end is None else (end,),
    )


def windows(tokenizer: Any, name: str, text: str, *, size: int) -> list[ForcedSequence]:
    """A plain text in windows of `size` tokens, cut and scored as `llama-perplexity` does.

    The text is tokenized whole, with BOS where the tokenizer adds one; each window's first token is
    then replaced by BOS, and only predictions from position `size // 2` on are kept. What does not
    fill a window is left out. Special tokens that the text spells out are plain text.

    Source: llama.cpp, tools/perplexity/perplexity.cpp, `kl_divergence`.
    """
    # a corpus is longer than any context: that is what windows are for, and no warning's matter
    whole = tokenizer(text.removesuffix("\n"), split_special_tokens=True, verbose=False)
    ids = list(whole["input_ids"])
    adds_bos = bool(ids) and ids[0] == tokenizer.bos_token_id
    sequences = []
    for number, start in enumerate(range(0, len(ids) - size + 1, size)):
        window = ids[start : start + size]
        if adds_bos:
            window[0] = tokenizer.bos_token_id
        sequences.append(
            ForcedSequence(
                kind="corpus",
                source=name,
                id=f"window-{number:05}",
                ids=tuple(window[:-1]),
                target=window[-1],
                n_prompt=size - 1,
                first_row=size // 2,
            )
        )
    return sequences


def pin(items: Sequence[GoldenPrompt], tokenizer: Any, *, limit: int) -> list[PinnedPrompt]:
    """Render and tokenize every item.

    Args:
        items: golden prompts.
        tokenizer: the source's own, with its chat template.
        limit: most new tokens of an item that does not say its own.

    Raises:
        InputError: a chat item and no chat template, or a template that raises on an item.
        RefusedError: the template runs too long or writes too much.
    """
    pinned = []
    for item in items:
        text, ids = _render(tokenizer, item)
        pinned.append(
            PinnedPrompt(
                evalset=item.evalset,
                id=item.id,
                messages=item.messages,
                prompt=item.prompt,
                text=text,
                ids=tuple(ids),
                max_new_tokens=item.max_new_tokens or limit,
            )
        )
    return pinned


def _render(tokenizer: Any, item: GoldenPrompt) -> tuple[str, list[int]]:
    if item.messages is None:
        text = item.prompt or ""
        return text, list(tokenizer(text)["input_ids"])
    if not tokenizer.chat_template:
        raise InputError(
            f"{item.key}: is a chat, and the source's tokenizer has no chat template",
            remedy='write the item with "prompt" instead of "messages", or pin a chat checkpoint',
        )
    messages = [message.model_dump() for message in item.messages]
    try:
        with _deadline(item.key):
            text = str(
                tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            )
    except RefusedError:
        raise
    except Exception as error:  # a template raises whatever it likes (jinja2, TypeError, …)
        raise InputError(
            f"{item.key}: the chat template fails on this item: {type(error).__name__}: {error}",
            remedy="change the item's messages to what the template takes (roles, their order)",
        ) from None
    if len(text) > RENDERED_LIMIT:
        raise RefusedError(
            f"{item.key}: the chat template rendered {len(text)} characters, "
            f"more than {RENDERED_LIMIT}",
            remedy="look at the checkpoint's chat template before you trust it",
        )
    return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])


@contextmanager
def _deadline(key: str) -> Iterator[None]:
    def expire(*_: object) -> None:
        raise RefusedError(
            f"{key}: the chat template still runs after {RENDER_DEADLINE_S} s",
            remedy="look at the checkpoint's chat template before you trust it",
        )

    if not hasattr(signal, "SIGALRM"):  # Windows: no way to stop a loop from inside
        yield
        return
    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(RENDER_DEADLINE_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
