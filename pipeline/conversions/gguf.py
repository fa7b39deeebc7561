"""Checkpoint → GGUF with llama.cpp's own converter, GGUF → quantized GGUF with its quantizer.

What is really in a file (a census of tensor types, bits per weight, metadata) is read back from it
after each step: a label such as "Q4_K_M" says little where row lengths force other types.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from pipeline.conversions import llama_cpp_source
from pipeline.errors import InputError, RefusedError, ToolError, did_you_mean
from pipeline.schema.artifacts import ArtifactRecord, Census

FILE_NAME = "model.gguf"
_CENSUS_SKIPS = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.merges")
_FTYPE_PREFIX = "LLAMA_FTYPE_MOSTLY_"


def convert(
    checkpoint: Path, destination: Path, *, outtype: str, name: str
) -> dict[str, JsonValue]:
    """Convert a Safetensors checkpoint to one GGUF file in the folder `destination`.

    Args:
        checkpoint: folder of the checkpoint.
        destination: existing, empty folder.
        outtype: f32, f16 or bf16; always passed, because the converter's default may down-cast.
        name: the model's name in the file; without it the converter would write a folder's.

    Returns:
        The arguments as recorded.

    Raises:
        ToolError: the converter failed; its last lines are shown.
    """
    source = llama_cpp_source.require()
    arguments = ["--outtype", outtype, "--model-name", name]
    command = [sys.executable, str(source / "convert_hf_to_gguf.py"), str(checkpoint)]
    command += [*arguments, "--outfile", str(destination / FILE_NAME)]
    environment = {
        **os.environ,
        # its own gguf-py first: the one on PyPI may know other keys and types
        "PYTHONPATH": str(source / "gguf-py"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n  ".join(done.stderr.strip().splitlines()[-8:])
        raise ToolError(
            f"llama.cpp's converter failed on {checkpoint} (exit {done.returncode}):\n  {tail}",
            remedy="if it does not know this architecture or tokenizer, this variant has no GGUF: "
            "take it out of `variants` in params.yaml",
        )
    return {"outtype": outtype, "model_name": name}


def tool_version() -> str:
    """Version of converter and quantizer: llama-cpp-python's, whose source both come from."""
    return f"llama-cpp-python {version(llama_cpp_source.DISTRIBUTION)} (vendored llama.cpp)"


def file_types() -> dict[str, int]:
    """Quantization names llama.cpp knows, lower case, with their `llama_ftype` values."""
    import llama_cpp

    return {
        name.removeprefix(_FTYPE_PREFIX).lower(): getattr(llama_cpp, name)
        for name in dir(llama_cpp)
        if name.startswith(_FTYPE_PREFIX)
    }


def quantize(
    source: Path, destination: Path, *, quantization: str, threads: int
) -> dict[str, JsonValue]:
    """Quantize the GGUF in folder `source` into the existing, empty folder `destination`.

    Returns:
        The arguments as recorded (threads are not among them: they don't change a byte).

    Raises:
        InputError: llama.cpp knows no such quantization.
        ToolError: llama.cpp refused, for instance because the type needs an importance matrix.
    """
    import llama_cpp

    known = file_types()
    if quantization not in known:
        raise InputError(
            f'params.yaml: gguf.quantizations: "{quantization}" is not a llama.cpp quantization'
            f"{did_you_mean(quantization, known)}",
            remedy=f"one of: {', '.join(sorted(known))}",
        )
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = known[quantization]
    parameters.nthread = threads
    with _log() as said:
        code = llama_cpp.llama_model_quantize(
            str(source / FILE_NAME).encode(), str(destination / FILE_NAME).encode(), parameters
        )
    if code:
        tail = "\n  ".join("".join(said).strip().splitlines()[-4:])
        raise ToolError(
            f"llama.cpp could not quantize {source} to {quantization} (code {code}):\n  {tail}",
            remedy="take the word out of gguf.quantizations if this model cannot have it",
        )
    return {"ftype": quantization, "ftype_value": known[quantization]}


@contextlib.contextmanager
def _log() -> Iterator[list[str]]:
    """What llama.cpp says meanwhile; afterwards it talks to llama-cpp-python's own logger again.

    llama.cpp keeps the callback it is given: one that Python has freed crashes the next message.
    """
    import llama_cpp
    from llama_cpp._logger import llama_log_callback

    said: list[str] = []
    keep = llama_cpp.llama_log_callback(lambda _level, text, _data: said.append(text.decode()))
    llama_cpp.llama_log_set(keep, None)
    try:
        yield said
    finally:
        llama_cpp.llama_log_set(llama_log_callback, None)


def check_same_tensors(parent: ArtifactRecord, child: Census, name: str) -> None:
    """Refuse a quantized file with other tensors or weights than its parent.

    Raises:
        RefusedError: tensor or weight counts differ.
    """
    before = parent.census
    if before and (before.tensors, before.weights) != (child.tensors, child.weights):
        raise RefusedError(
            f"{name}: {child.tensors} tensors with {child.weights} weights, its parent "
            f"{parent.name} has {before.tensors} with {before.weights}",
            remedy="this is a fault of the quantizer: try another quantization or version",
        )


def census(folder: Path) -> Census:
    """Read back what is in the GGUF of `folder`, and check it.

    Raises:
        RefusedError: no tensor, a tensor with a value that is not finite, or a vocabulary whose
            size is not the embedding's.
    """
    import numpy as np
    from gguf import GGUFReader
    from gguf.quants import dequantize

    path = folder / FILE_NAME
    _check_header(path)
    reader = GGUFReader(str(path))
    types: dict[str, int] = {}
    elements: dict[str, int] = {}
    stored = 0
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        types[kind] = types.get(kind, 0) + 1
        elements[kind] = elements.get(kind, 0) + int(tensor.n_elements)
        stored += int(tensor.n_bytes)
        if not np.isfinite(dequantize(tensor.data, tensor.tensor_type)).all():
            raise RefusedError(
                f"{path}: tensor {tensor.name} holds a value that is not finite",
                remedy="look at the same tensor in the checkpoint this file was made from",
            )
    weights = sum(elements.values())
    if not weights:
        raise RefusedError(f"{path}: no tensor in it", remedy="convert it again")
    _check_vocabulary(reader, path)
    return Census(
        types=types,
        elements=elements,
        tensors=sum(types.values()),
        weights=weights,
        bits_per_weight=round(stored * 8 / weights, 4),
        metadata=_metadata(reader),
    )


def _check_header(path: Path) -> None:
    """Bounded look at magic and counts: GGUFReader trusts array lengths it reads."""
    with path.open("rb") as file:
        header = file.read(24)
    tensors, pairs = int.from_bytes(header[8:16], "little"), int.from_bytes(header[16:24], "little")
    if header[:4] != b"GGUF" or tensors > 1_000_000 or pairs > 100_000:
        raise RefusedError(f"{path}: not a GGUF file", remedy="convert it again")


def _check_vocabulary(reader: Any, path: Path) -> None:
    field = reader.get_field("tokenizer.ggml.tokens")
    embedding = next((t for t in reader.tensors if t.name == "token_embd.weight"), None)
    if field is None or embedding is None:
        return
    rows = int(embedding.shape[1])
    if len(field.data) != rows:
        raise RefusedError(
            f"{path}: {len(field.data)} vocabulary entries for {rows} embedding rows",
            remedy="check the tokenizer against the checkpoint's vocab_size",
        )


def _metadata(reader: Any) -> dict[str, JsonValue]:
    """Every metadata field but the vocabulary's long arrays, which are given as their length."""
    found: dict[str, JsonValue] = {}
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        value = field.contents()
        if isinstance(value, list) and (name in _CENSUS_SKIPS or len(value) > 16):
            value = f"{len(value)} entries"
        found[name] = value
    return found
