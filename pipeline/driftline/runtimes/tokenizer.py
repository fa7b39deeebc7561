"""The text path of runtimes whose tokenizer is a Transformers one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from driftline.runtimes.base import PromptRefusedError
from driftline.runtimes.stepwise import Encoded, continuation
from driftline.schema.messages import Message


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> Encoded:
    """A chat through the tokenizer's own template.

    Raises:
        PromptRefusedError: the tokenizer has none.
    """
    if not tokenizer.chat_template:
        raise PromptRefusedError("the item is a chat and the tokenizer has no chat template")
    chat = [message.model_dump() for message in messages]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    text = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return Encoded(list(ids), str(text))


def continued_text(tokenizer: Any, output: Sequence[int], prompt_ids: Sequence[int]) -> str:
    """Output ids as text that continues the prompt, special tokens left out."""

    def decode(ids: Sequence[int]) -> str:
        return str(
            tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    return continuation(decode, output, prompt_ids)
