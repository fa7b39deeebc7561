"""Chat messages: what a golden prompt asks, and what a runtime renders by its own template."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Value


class Message(Value):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str
