"""The little project of a bench pipeline: what it starts from, and the params that follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from driftline.project.params import Params, parse
from driftline.project.sections.mlx import MlxRecipe
from driftline.schema.artifacts import BASE
from driftline.schema.items import GoldenPrompt

TUNED = "tuned"
"""Name of the adapter of a pipeline that has one."""
FOUR_BITS = MlxRecipe(bits=4, group_size=64)
WHOLE_VOCABULARY = 100_000
"""Distributions are kept whole for any vocabulary of a bench's size."""


@dataclass(frozen=True)
class Recipe:
    """One pipeline: what it starts from and what it makes.

    `adapter` None converts the source itself. `stop` are stop strings of every cell.
    """

    source: Path
    items: tuple[GoldenPrompt, ...]
    adapter: Path | None = None
    merge_dtype: str = "float32"
    outtype: str = "f32"
    quantization: str = "q8_0"
    mlx: MlxRecipe = FOUR_BITS
    mlx_name: str = "4bit"
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 48

    @property
    def params(self) -> Params:
        """The `params.yaml` of a project that does just this."""
        variant = TUNED if self.adapter else BASE
        data = {
            "source": {"path": str(self.source)},
            "adapters": {TUNED: {"path": str(self.adapter)}} if self.adapter else {},
            "variants": [variant],
            "evalsets": {variant: list(dict.fromkeys(item.evalset for item in self.items))},
            "merge": {"dtype": self.merge_dtype},
            "gguf": {"outtype": self.outtype, "quantizations": [self.quantization]},
            "mlx": {
                "artifacts": [self.mlx_name],
                "recipes": {self.mlx_name: self.mlx.model_dump(mode="json")},
            },
            "runtimes": {
                "transformers": {"variants": [TUNED] if self.adapter else []},
                "llamacpp": {"variants": [variant]},
                "mlx": {"variants": [variant]},
                "vllm": {"variants": []},
            },
            "decode": {
                "max_new_tokens": self.max_new_tokens,
                "context_length": 256,
                "stop": list(self.stop),
            },
            "distributions": {"top_k": WHOLE_VOCABULARY, "corpora": {}},
            "limits": {"threads": 1},
        }
        return parse(data, where="fault bench")
