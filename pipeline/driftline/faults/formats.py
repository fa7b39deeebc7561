"""Stored formats whose loader breaks one promise of the contract, and says nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftline.counterfactual.gguf import Gguf
from driftline.counterfactual.mlx import Mlx
from driftline.faults.edits import wrong_heads


class PermutingGguf(Gguf):
    """Half knows the architecture: query rows come back in another order."""

    def load(self, folder: Path) -> Any:
        return _permuted(super().load(folder))


class PermutingMlx(Mlx):
    """The same of MLX."""

    def load(self, folder: Path) -> Any:
        return _permuted(super().load(folder))


class ForgetfulGguf(Gguf):
    """Leaves a setting at its default: the norm's epsilon."""

    def load(self, folder: Path) -> Any:
        model = super().load(folder)
        for module in model.modules():
            if hasattr(module, "variance_epsilon"):
                module.variance_epsilon = 1e-3
        return model


def _permuted(model: Any) -> Any:
    import torch

    with torch.no_grad():
        for layer in model.model.layers:
            weight = layer.self_attn.q_proj.weight
            weight.copy_(torch.from_numpy(wrong_heads(weight.numpy().copy())))
    return model
