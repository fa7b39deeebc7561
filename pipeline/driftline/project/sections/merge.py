"""How adapters are merged: `merge`."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Value


class Merge(Value):
    """How adapters are merged: arithmetic is float32 always, `dtype` is what is stored."""

    dtype: Literal["float32", "bfloat16", "float16"]
