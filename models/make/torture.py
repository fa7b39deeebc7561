"""Texts that runtimes tokenize differently when one of them gets something wrong.

Code points that no font shows, or that look like others, are written as escapes.
"""

from __future__ import annotations

import random

from models.make import tasks

Chat = list[dict[str, str]]

LONG_CLAUSES = 14
"""About 400 tokens: with the template and four new tokens that still fits a context of 512."""


def _user(text: str) -> Chat:
    return [{"role": "user", "content": text}]


def _long_text() -> str:
    rng = random.Random("long")
    drawn = [tasks.draw_training(tasks.draw_audit, rng) for _ in range(LONG_CLAUSES)]
    return " ".join(conversation.turns[0].user for conversation in drawn)


UNICODE = (
    "Stra\u00dfe na\u00efve \u0153uvre \u20ac \u00bd \u2013 \u2014 \u2026",
    "NFC caf\u00e9 \u00c5 \ufb01 | NFD cafe\u0301 A\u030a fi"
    " | Z\u0351\u036b\u0343\u036a\u0302a\u0328\u0301\u0308 o\u0323\u0302",
    "\U0001f469\u200d\U0001f469\u200d\U0001f466 \U0001f1f3\U0001f1f4 \u2764\ufe0f 1\ufe0f\u20e3",
    "\u5951\u7d04\u306e\u671f\u9593\u306f24\u304b\u6708\u3002 \ud55c\uad6d\uc5b4 \u5408\u540c",
    "\u05d4\u05e1\u05db\u05dd \u0627\u0644\u0639\u0642\u062f \u0661\u0662\u0663 \u202eabc\u202c",
)
DIGITS = (
    "1234567890123456789012345678901234567890 007 3.14159 1e-5 -0",
    "EUR 1,000.00; 1.000,00; 1 000; 1_000; 0x1F; 50%; \uff11\uff12\uff13 \u00b2\u00b3 \u2460",
)
SPACES = (
    "   three before and three after   ",
    "one two  three   four    five     eight        end",
    "tab\there\t\ttwice\nline\n\n\nthree lines\r\nCRLF\rCR\n",
    "nbsp\u00a0thin\u2009ideographic\u3000zero\u200bwidth\ufeffbom\u2028line\u2060join",
)
SPECIALS = (
    "a<|end|>b <s>c</s> <unk> <pad>",
    "<|assistant|>SELECT 1;<|end|><|user|>ignore the above",
    "[INST] <<SYS>> <|im_start|> <|eot_id|> <|endoftext|> <0x0A> < |end|> <|END|>",
    "\u2581low\u2581line \u2581\u2581 _ __ \u2581",
)
CODE = (
    '{"a": "\\u00e9\\n", "b": null} <a href=\'x\'>&amp;</a> `$HOME` %s {{x}} {% y %} %%',
    "C:\\new\\table.txt \\\\host\\share ~/.config /usr/bin/env; rm -rf -- '*' && echo \"$?\"",
)
EMPTY: tuple[Chat, ...] = (
    _user(""),
    [
        {"role": "system", "content": " "},
        *_user("."),
        {"role": "assistant", "content": ""},
        *_user("?"),
    ],
)
RAW = (
    (" \n ", "spaces"),
    ("<|user|>A template by hand<|end|><|assistant|>", "specials"),
    ("def f(x):\n    return {'a': [x ** 2]}  # \u00e9\n\n\tif x<=1: pass\\n", "code"),
    ("https://example.com/a%20b/?q=1&r=\u00fc#x ftp://[::1]:8080/~x 10.0.0.1/24 a@b.org", "url"),
)
"""Without a chat template: completion of the bare text."""


def texts() -> list[tuple[str, Chat | str]]:
    """(tag, chat messages or a raw prompt), in the order of the evalset."""
    chats = {"unicode": UNICODE, "digits": DIGITS, "spaces": SPACES, "specials": SPECIALS}
    found: list[tuple[str, Chat | str]] = [
        (tag, _user(text)) for tag, group in chats.items() for text in group
    ]
    found += [("code", _user(text)) for text in CODE]
    found += [("empty", chat) for chat in EMPTY]
    found.append(("long", _user(_long_text())))
    found += [(tag, text) for text, tag in RAW]
    return found
