"""The GGUF artifacts of every variant: `gguf`."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Value


class Gguf(Value):
    """GGUF artifacts of every variant: one at `outtype`, then its quantizations."""

    outtype: Literal["f32", "f16", "bf16"]
    quantizations: tuple[str, ...]
