"""Which variants run in which runtime: `runtimes`."""

from __future__ import annotations

from driftline.schema.values import Value


class RuntimeSettings(Value):
    """What one runtime runs.

    `variants` are adapters by name (the merged checkpoint, and what is converted of it) and `base`
    for the source. The reference runtime's are adapters alone: it always has the source.
    """

    variants: tuple[str, ...]
