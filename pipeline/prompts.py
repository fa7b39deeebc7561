"""Golden prompts → pinned prompts: rendered and tokenized once, by the source's own tokenizer."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, RefusedError
from pipeline.schema.answers import PinnedPrompt
from pipeline.schema.items import GoldenPrompt

RENDER_DEADLINE_S = 20
"""For one template call: Jinja's sandbox stops escapes, not loops that never end."""
RENDERED_LIMIT = 2_000_000
"""Characters one rendered prompt may have."""


def pin(items: Sequence[GoldenPrompt], checkpoint: Path, *, limit: int) -> list[PinnedPrompt]:
    """Render and tokenize every item.

    Args:
        items: golden prompts.
        checkpoint: folder with the tokenizer and its chat template.
        limit: most new tokens of an item that does not say its own.

    Raises:
        InputError: a chat item and no chat template, or a template that raises on an item.
        RefusedError: the template runs too long or writes too much.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
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
