"""Checkpoint → GGUF with llama.cpp's own converter, GGUF → quantized GGUF with its quantizer.

What is really in a file (a census of tensor types, bits per weight, metadata) is read back from it
after each step: a label such as "Q4_K_M" says little where row lengths force other types.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

from pydantic import JsonValue

from driftline.conversions import llama_cpp_source
from driftline.errors import InputError, RefusedError, ToolError, did_you_mean
from driftline.project.sections.location import Location
from driftline.schema.artifacts import ArtifactRecord, Census
from driftline.schema.values import Value, canonical_json

FILE_NAME = "model.gguf"
HUB = "https://huggingface.co"
_CENSUS_SKIPS = ("tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.merges")
_FTYPE_PREFIX = "LLAMA_FTYPE_MOSTLY_"
_GUESSED: dict[str, JsonValue] = dict.fromkeys(
    (
        "general.basename",
        "general.organization",
        "general.size_label",
        "general.source.doi",
        "general.source.url",
        "general.source.uuid",
        "general.version",
    )
)
"""Null keeps the converter from guessing them; it then counts the weights for its size label."""
_OWNED = (
    "general.base_model.",
    "general.basename",
    "general.finetune",
    "general.organization",
    "general.source.",
    "general.version",
)
"""Start of every key that says where a file comes from."""


class Origin(Value):
    """What a GGUF is a conversion of: the source, and the adapter merged into it, if any.

    `version` is the commit of a Hub source, of a local one `sha256:` and its identity.
    """

    name: str
    organization: str | None
    repo_url: str | None
    version: str
    finetune: str | None


def origin(source: Location, identity: str, adapter: str | None) -> Origin:
    """Where the files of a variant come from, out of `params.yaml` and the pinned source alone.

    Args:
        source: the project's source.
        identity: of the pinned source, as `digest.identity`.
        adapter: name of the adapter in the checkpoint; None for the source itself.
    """
    if source.repo is not None:
        organization, _, name = source.repo.rpartition("/")
        return Origin(
            name=name,
            organization=organization or None,
            repo_url=f"{HUB}/{source.repo}",
            version=str(source.revision),
            finetune=adapter,
        )
    name = PurePath(str(source.path)).name
    return Origin(
        # "." and ".." name no folder, and the one they mean is called otherwise elsewhere
        name=name if name.strip(".") else "source",
        organization=None,
        repo_url=None,
        version=f"sha256:{identity}",
        finetune=adapter,
    )


def provenance(origin: Origin) -> dict[str, JsonValue]:
    """The metadata of a file converted with `origin` that says where it comes from."""
    fields: dict[str, JsonValue] = {
        "general.base_model.count": 1,
        **{f"general.base_model.0.{key}": value for key, value in _base_model(origin).items()},
        "general.source.repo_url": origin.repo_url,
        "general.finetune": origin.finetune,
    }
    return {key: value for key, value in fields.items() if value is not None}


def check_provenance(census: Census, origin: Origin, name: str) -> None:
    """Refuse a file that does not say where it comes from, or says more or anything else.

    Args:
        census: of the file, converted or quantized.
        origin: what it was converted with.
        name: the artifact's name.

    Raises:
        RefusedError: a key is missing, has another value, or must not be there.
    """
    expected = provenance(origin)
    found = {key: value for key, value in census.metadata.items() if key.startswith(_OWNED)}
    wrong = [
        f"{key}: expected {_shown(expected, key)}, found {_shown(found, key)}"
        for key in sorted(expected.keys() | found.keys())
        if expected.get(key) != found.get(key)
    ]
    if wrong:
        raise RefusedError(
            f"{name}: its metadata does not say where it comes from:\n  " + "\n  ".join(wrong),
            remedy="dvc repro -f; if it stays, the converter or the quantizer of this version of "
            f"{llama_cpp_source.DISTRIBUTION} is at fault: install another",
        )


def _shown(metadata: dict[str, JsonValue], key: str) -> str:
    return canonical_json(metadata[key]) if key in metadata else "nothing"


def _base_model(origin: Origin) -> dict[str, str]:
    fields = {
        "name": origin.name,
        "version": origin.version,
        "organization": origin.organization,
        "repo_url": origin.repo_url,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _override(origin: Origin) -> dict[str, JsonValue]:
    """For the converter's `--metadata`: what is there replaces what it makes of card and config."""
    return {
        **_GUESSED,
        "general.base_models": [dict(_base_model(origin))],
        "general.source.repo_url": origin.repo_url,
        "general.finetune": origin.finetune,
    }


def convert(
    checkpoint: Path, destination: Path, *, outtype: str, name: str, origin: Origin | None = None
) -> dict[str, JsonValue]:
    """Convert a Safetensors checkpoint to one GGUF file in the folder `destination`.

    Args:
        checkpoint: folder of the checkpoint.
        destination: existing, empty folder.
        outtype: f32, f16 or bf16; always passed, because the converter's default may down-cast.
        name: the model's name in the file; without it the converter would write a folder's.
        origin: where the checkpoint comes from, for the file to say; without it the converter
            writes what it makes of the checkpoint's card and config.

    Returns:
        The arguments as recorded.

    Raises:
        ToolError: the converter failed; its last lines are shown.
    """
    source = llama_cpp_source.require()
    environment = {
        **os.environ,
        # its own gguf-py first: the one on PyPI may know other keys and types
        "PYTHONPATH": str(source / "gguf-py"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONHASHSEED": "0",
    }
    with tempfile.TemporaryDirectory() as scratch:
        # The converter guesses from a folder's name (version, size, even whether a model is a
        # reranker), so it is shown every checkpoint under the same one.
        shown = Path(scratch, "checkpoint")
        shown.symlink_to(checkpoint.resolve(), target_is_directory=True)
        command = [sys.executable, str(source / "convert_hf_to_gguf.py"), str(shown)]
        command += ["--outtype", outtype, "--model-name", name]
        command += ["--outfile", str(destination / FILE_NAME)]
        if origin is not None:
            override = Path(scratch, "metadata.json")
            override.write_text(canonical_json(_override(origin)), encoding="utf-8")
            command += ["--metadata", str(override)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.replace(str(shown), str(checkpoint))
        tail = "\n  ".join(said.strip().splitlines()[-8:])
        raise ToolError(
            f"llama.cpp's converter failed on {checkpoint} (exit {done.returncode}):\n  {tail}",
            remedy="if it does not know this architecture or tokenizer, this variant has no GGUF: "
            "take it out of `variants` in params.yaml",
        )
    recorded: dict[str, JsonValue] = {"outtype": outtype, "model_name": name}
    return recorded if origin is None else {**recorded, "origin": origin.model_dump(mode="json")}


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
    metadata: dict[str, JsonValue] = {}
    for name, field in reader.fields.items():
        if name.startswith("GGUF."):
            continue
        value = field.contents()
        if isinstance(value, list) and (name in _CENSUS_SKIPS or len(value) > 16):
            value = f"{len(value)} entries"
        metadata[name] = value
    return metadata
