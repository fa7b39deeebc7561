"""params.yaml of tests as plain data: which variants run where follows from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def with_runtimes(data: dict[str, Any]) -> dict[str, Any]:
    """The data with `runtimes`, where it has none: every adapter in Transformers, all of `variants`
    in llama.cpp and MLX, and in vLLM those of the short form `vllm`."""
    rest = {key: value for key, value in data.items() if key != "vllm"}
    if "runtimes" in data:
        return rest
    converted, vllm = data["variants"], data.get("vllm", ())
    runs: dict[str, Sequence[str]] = {
        "transformers": list(data["adapters"]),
        "llamacpp": converted,
        "mlx": converted,
        "vllm": vllm,
    }
    return {**rest, "runtimes": {name: {"variants": v} for name, v in runs.items()}}
