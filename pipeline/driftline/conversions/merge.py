"""Merge a LoRA adapter into its checkpoint with PEFT: float32 arithmetic, explicit output dtype.

Only the weights are new. Every other file (config, tokenizer, template, generation config) is the
source's own, byte for byte: writing a config back through a library is a silent conversion.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from driftline.errors import RefusedError

if TYPE_CHECKING:
    from driftline.project.sections.location import Location

WEIGHTS = "model.safetensors"
_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")
_LORA_PARTS = (".lora_A.", ".lora_B.", ".lora_embedding_A", ".lora_embedding_B", ".lora_magnitude")


def check_belongs(adapter: Path, source: Location) -> None:
    """Refuse an adapter whose config names another base than the pinned source.

    PEFT loads such an adapter without a word.

    Args:
        adapter: folder with adapter_config.json.
        source: the source as params.yaml has it.

    Raises:
        RefusedError: base model or revision differ, or it is not a LoRA adapter.
    """
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    base, wanted = config.get("base_model_name_or_path"), config.get("revision")
    pinned = source.repo or source.path
    if config.get("peft_type") != "LORA":
        raise RefusedError(
            f"{adapter}: peft_type is {config.get('peft_type')!r}, expected 'LORA'",
            remedy="only LoRA adapters can be merged",
        )
    if base != pinned:
        raise RefusedError(
            f"{adapter}: trained on base model {base!r}, the pinned source is {pinned!r}",
            remedy=f"pin the adapter's own base in params.yaml, or, if {base!r} is the same "
            "checkpoint under another name, write the source's name into its adapter_config.json",
        )
    if wanted and source.revision and wanted != source.revision:
        raise RefusedError(
            f"{adapter}: trained on revision {wanted}, the source is pinned at {source.revision}",
            remedy=f"pin source.revision {wanted}, or train the adapter again",
        )


def merge(source: Path, adapter: Path, destination: Path, *, dtype: str) -> dict[str, JsonValue]:
    """Write the merged checkpoint into the existing, empty folder `destination`.

    Returns:
        The arguments as recorded.

    Raises:
        RefusedError: an adapter key found no layer, a targeted tensor did not change or another
            one did, or a merged value is not finite.
    """
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, local_files_only=True)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    try:
        model = PeftModel.from_pretrained(base, adapter)
    except RuntimeError as error:  # PyTorch's size mismatch, one line per tensor
        lines = str(error).strip().splitlines()
        raise RefusedError(
            f"{adapter} does not fit {source}: {len(lines) - 1} tensors differ in shape, first: "
            f"{lines[1].strip() if len(lines) > 1 else lines[0]}",
            remedy="this adapter was trained on another base: pin that one as the source",
        ) from None
    _check_keys(load_file(adapter / "adapter_model.safetensors"), model, adapter)
    targeted = {
        f"{name.removeprefix('base_model.model.')}.weight"
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    merged = model.merge_and_unload(safe_merge=True).state_dict()
    _check_changes(before, merged, targeted, adapter)
    _write(source, destination, merged, dtype)
    return {"dtype": dtype, "arithmetic": "float32", "method": "merge_and_unload(safe_merge=True)"}


def merge_version() -> str:
    """Versions of the tools."""
    return (
        f"peft {version('peft')}, transformers {version('transformers')}, torch {version('torch')}"
    )


def _check_keys(saved: Mapping[str, Any], model: Any, adapter: Path) -> None:
    """Every tensor of the adapter file must be in the model, with the same values."""
    from peft import get_peft_model_state_dict

    loaded = get_peft_model_state_dict(model)
    lost = sorted(saved.keys() - loaded.keys())
    if lost:
        shown = "\n  ".join(lost[:10])
        raise RefusedError(
            f"{adapter}: {len(lost)} of {len(saved)} adapter tensors match no layer of the source "
            f"(PEFT would drop them with a warning):\n  {shown}",
            remedy="this adapter was trained on another architecture: pin that base as the source",
        )


def _check_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], targeted: set[str], adapter: Path
) -> None:
    import torch

    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    broken = sorted(name for name in changed if not torch.isfinite(after[name]).all())
    if broken:
        raise RefusedError(
            f"{adapter}: merging makes {broken[0]} not finite", remedy="train the adapter again"
        )
    if not changed:
        raise RefusedError(
            f"{adapter}: merging changes no tensor (its B matrices are all zero)",
            remedy="this adapter was never trained: use another checkpoint of it",
        )
    stray = sorted(changed - targeted)
    if stray:
        raise RefusedError(
            f"{adapter}: merging changed tensors it does not target: {', '.join(stray[:5])}",
            remedy="check modules_to_save in its adapter_config.json: only LoRA deltas are merged",
        )


def _write(source: Path, destination: Path, merged: Mapping[str, Any], dtype: str) -> None:
    """Weights under the source's own tensor names; every other file copied byte for byte."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    names: list[str] = []
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names += list(file.keys())
    unknown = sorted(set(names) - merged.keys())
    if unknown:
        raise RefusedError(
            f"{source}: its tensor {unknown[0]} has another name once loaded: the merged weights "
            "cannot be written under the source's own names",
            remedy="save the source with its current Transformers names and pin that",
        )
    kind = getattr(torch, dtype)
    tensors = {name: merged[name].to(kind).contiguous() for name in names}
    save_file(tensors, destination / WEIGHTS, metadata={"format": "pt"})
    skipped = {path.name for pattern in _WEIGHT_FILES for path in source.glob(pattern)}
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_file() and path.name not in skipped:
            (destination / inside).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination / inside)
