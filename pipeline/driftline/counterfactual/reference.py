"""The reference runtime's model as counterfactuals use it: float32, eager attention, one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.runtimes.transformers import load_model


def prepare(threads: int) -> None:
    """Deterministic arithmetic in this process, as in the reference runtime's cells."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)


def checkpoint(folder: Path) -> Any:
    """A Safetensors checkpoint in float32."""
    return load_model(folder)


def arrays(model: Any) -> dict[str, NDArray[np.float32]]:
    """Every distinct tensor of a model by name; a tied head is named once, by the embedding."""
    tensors, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach().float().numpy()
    return tensors


def logits(model: Any, ids: list[int]) -> Any:
    """Logits of one short sequence, float32 [ids, vocabulary]."""
    import torch

    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].float().numpy()
