"""How cells answer: `decode`."""

from __future__ import annotations

from pydantic import Field

from driftline.schema.values import Value


class Decode(Value):
    """Greedy decoding: there is no temperature. `stop` strings end an answer beside EOS."""

    max_new_tokens: int = Field(gt=0)
    context_length: int = Field(gt=0)
    stop: tuple[str, ...] = ()
