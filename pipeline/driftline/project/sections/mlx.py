"""The MLX artifacts of every variant, and the recipes they are made by: `mlx`."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from driftline.errors import did_you_mean
from driftline.schema.values import Value


class MlxRecipe(Value):
    """One way to convert to MLX: `bits` and `group_size` together, or neither for no quantization.

    `mode` is mlx-lm's quantization mode; `mixed` names one of its mixed-bit predicates instead.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    bits: Literal[2, 3, 4, 5, 6, 8] | None = None
    group_size: Literal[32, 64, 128] | None = None
    mode: Literal["affine"] = "affine"
    mixed: Literal["mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6"] | None = None

    @model_validator(mode="after")
    def _bits_and_group(self) -> MlxRecipe:
        if (self.bits is None) != (self.group_size is None) and self.mixed is None:
            raise ValueError('"bits" and "group_size" go together')
        if self.mixed is not None and self.bits is not None:
            raise ValueError('"mixed" chooses the bits itself: leave "bits" out')
        return self


class Mlx(Value):
    """MLX artifacts of every variant: `artifacts` names recipes, `recipes` defines them."""

    artifacts: tuple[str, ...]
    recipes: dict[str, MlxRecipe]

    @model_validator(mode="after")
    def _defined(self) -> Mlx:
        for name in self.artifacts:
            if name not in self.recipes:
                close = did_you_mean(name, self.recipes)
                raise ValueError(f'artifact "{name}" has no recipe{close}')
        return self
