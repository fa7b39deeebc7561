"""Refuse a checkpoint or an adapter that could run code, or that is not whole, before any load.

`trust_remote_code=False` is not enough: a kernel named in `attn_implementation` is fetched and run
by Transformers, a `model_file` is run by mlx-lm, some converters trust remote code themselves, and
unpickling is running code. So nothing is loaded whose files could ask for that. Every check here
reads names, JSON and Safetensors headers alone, with bounded reads, and all problems are reported
together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from driftline.errors import RefusedError
from driftline.store.safetensors_header import TensorInfo, parse_json, safetensors_header

Kind: TypeAlias = Literal["source", "adapter"]
Files: TypeAlias = Mapping[str, Path]
"""Plain files by their name in the checkpoint: relative to it, with forward slashes."""

INDEX = "model.safetensors.index.json"
JSON_LIMIT = 256 * 2**20
"""Largest JSON file read, in bytes; the largest tokenizers have some 40 MB."""
PROBLEMS_SHOWN = 20

_BELONGS = frozenset(
    (
        INDEX,
        "adapter_config.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    )
)
_SHARD = re.compile(r"[A-Za-z0-9][\w.-]*\.safetensors", re.ASCII)
_TEMPLATE = re.compile(r"additional_chat_templates/[A-Za-z0-9][\w.-]*\.jinja", re.ASCII)
_PICKLE = re.compile(
    r"\.(bin|pt|pth|pt2|ckpt|pkl|pickle|dill|joblib|npy|npz|h5|hdf5|keras|msgpack|mar|nemo|t7)$",
    re.IGNORECASE,
)
_CODE = re.compile(r"\.(py[cdow]?|so(\.[\d.]+)?|dylib|dll)$", re.IGNORECASE)
_MAGIC = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04|\x89HDF\r\n\x1a\n")
"""How a pickle (protocol 2 to 5), a zip (torch.save, npz) and an HDF5 file begin."""
_ATTENTION = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_IMPORTED = {"parent_library": r"transformers(\.\w+)*", "megatron_core": r"megatron\.core"}
"""Keys whose value PEFT imports, and the values that do no harm."""


def lint(folder: Path, kind: Kind) -> None:
    """Check a folder; hidden folders in it (.git, .cache) are not looked at.

    Args:
        folder: what would be loaded, or copied from.
        kind: a whole model ("source") or a PEFT adapter.

    Raises:
        RefusedError: all problems at once.
    """
    files, problems = walk(folder)
    refuse(str(folder), problems + check(files, kind))


def refuse(where: str, problems: Iterable[str]) -> None:
    """Raise all `problems` at once, or nothing when there are none.

    Raises:
        RefusedError: there are problems.
    """
    lines = sorted(set(problems))
    if not lines:
        return
    shown = "".join(f"\n  - {line}" for line in lines[:PROBLEMS_SHOWN])
    more = len(lines) - PROBLEMS_SHOWN
    raise RefusedError(
        f"{where} must not be loaded:{shown}" + (f"\n  - and {more} more" if more > 0 else ""),
        remedy="use a complete checkpoint saved as Safetensors that needs no code of its own, "
        "or correct or remove what is named above",
    )


def walk(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Plain files outside hidden folders, and a problem for all that is neither file nor folder.

    `digest.regular_files` refuses the same things, but at the first one, and in .git too.
    """
    files: dict[str, Path] = {}
    problems: list[str] = []
    pending = [folder]
    while pending:
        at = pending.pop()
        try:
            entries = list(os.scandir(at))
        except OSError as problem:
            problems.append(f"{str(at)!r}: cannot be read: {problem.strerror}")
            continue
        for entry in entries:
            name = Path(entry.path).relative_to(folder).as_posix()
            if entry.is_symlink():
                problems.append(f"{name!r}: a symlink; replace it by the file itself (cp -L)")
            elif entry.is_file():
                files[name] = Path(entry.path)
            elif not entry.is_dir():
                problems.append(f"{name!r}: not a plain file")
            elif not entry.name.startswith("."):
                pending.append(Path(entry.path))
    return dict(sorted(files.items())), problems


def belongs(name: str) -> bool:
    """Whether a file of this name is part of a checkpoint; everything else is left out of a pin."""
    return name in _BELONGS or any(form.fullmatch(name) for form in (_SHARD, _TEMPLATE))


def check(files: Files, kind: Kind) -> list[str]:
    """Every problem of a whole checkpoint: names, configuration, weights."""
    return [
        *code_problems(files),
        *pickle_problems(files),
        *_disguised(files),
        *missing_problems(files, kind),
        *config_problems(files),
        *weight_problems(files, kind),
    ]


def code_problems(names: Iterable[str]) -> list[str]:
    """A problem per file that is code by its name."""
    return [f"{name!r}: code; nothing in a checkpoint is run" for name in names if _is_code(name)]


def pickle_problems(names: Iterable[str]) -> list[str]:
    """A problem per file that is unpickled when loaded, by its name."""
    return [
        f"{name!r}: pickled or opaque weights can run code when loaded; save them as Safetensors"
        for name in names
        if is_pickle(name)
    ]


def is_pickle(name: str) -> bool:
    """Whether a file's name is one of those that are unpickled, or may be, when loaded."""
    return _PICKLE.search(name) is not None


def missing_problems(names: Iterable[str], kind: Kind) -> list[str]:
    """What the names say is missing, or makes a checkpoint of another kind of it."""
    have = set(names)
    pickled = sorted(name for name in have if is_pickle(name))
    only = f" (only pickled weights: {', '.join(map(repr, pickled[:3]))})" if pickled else ""
    problems = []
    if kind == "adapter":
        if "adapter_config.json" not in have:
            problems.append("no adapter_config.json: not a PEFT adapter")
        if "adapter_model.safetensors" not in have:
            problems.append(f"no adapter_model.safetensors{only}")
        return problems
    if "config.json" not in have:
        problems.append("no config.json: not a checkpoint")
    if not have & {"model.safetensors", INDEX}:
        problems.append(f"no Safetensors weights: neither model.safetensors nor {INDEX}{only}")
    if not have & {"tokenizer.model", "tokenizer.json"}:
        problems.append("no tokenizer: neither tokenizer.model nor tokenizer.json")
    if "adapter_config.json" in have:
        problems.append(
            "'adapter_config.json': Transformers would load the model it names instead; "
            "pin an adapter under `adapters`"
        )
    return problems


def config_problems(files: Files) -> list[str]:
    """What the JSON files ask for: code, kernels, or simply not JSON."""
    problems = []
    for name, path in files.items():
        configures = name.endswith("config.json")
        if not configures and not (belongs(name) and name.endswith(".json")):
            continue
        try:
            data = read_json(path)
        except ValueError as problem:
            problems.append(f"{name!r}: {problem}")
            continue
        if configures:
            problems += [f"{name!r}: {danger}" for danger in _dangers(data)]
    return problems


def read_json(path: Path) -> Any:
    """A JSON file of bounded size without duplicate keys.

    Raises:
        ValueError: it is not; the message names no file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(JSON_LIMIT + 1)
    except OSError as problem:
        raise ValueError(f"cannot be read: {problem.strerror}") from None
    if len(data) > JSON_LIMIT:
        raise ValueError(f"more than {JSON_LIMIT} bytes of JSON")
    try:
        return parse_json(data)
    except ValueError as problem:
        raise ValueError(f"not valid JSON: {problem}") from None


def weight_problems(files: Files, kind: Kind) -> list[str]:
    """What is wrong with the Safetensors files, each alone and against the index."""
    try:
        mapped = _weight_map(files, kind)
    except ValueError as problem:
        return [f"{INDEX!r}: {problem}"]
    present = {name for name in files if name.endswith(".safetensors") and "/" not in name}
    expected = set(mapped.values()) if mapped else _lone(kind)
    # Without an index a missing file is `missing_problems`' to report.
    problems = [f"{name!r}: missing, named by {INDEX}" for name in expected - present if mapped]
    problems += [f"{name!r}: extra, it is not of these weights" for name in present - expected]
    headers: dict[str, dict[str, TensorInfo]] = {}
    for name in sorted(present):
        try:
            headers[name] = safetensors_header(files[name])
        except RefusedError as problem:
            problems.append(f"{name!r}: {problem.message.removeprefix(f'{files[name]}: ')}")
    if not problems and not any(headers.values()):
        return ["no tensor in any Safetensors file"] if headers else []
    return problems + (_misplaced(mapped, headers) if mapped else [])


def shard_names(files: Files, kind: Kind) -> set[str]:
    """The Safetensors files that are the weights: those an index names, or the only one.

    Raises:
        RefusedError: the index is malformed.
    """
    try:
        return set(_weight_map(files, kind).values()) or _lone(kind)
    except ValueError as problem:
        raise RefusedError(f"{INDEX!r}: {problem}", remedy="export the checkpoint again") from None


def _lone(kind: Kind) -> set[str]:
    return {"model.safetensors" if kind == "source" else "adapter_model.safetensors"}


def _weight_map(files: Files, kind: Kind) -> dict[str, str]:
    """Tensor to shard, from the index; empty when there is none, or for an adapter.

    Raises:
        ValueError: the index is malformed.
    """
    if kind == "adapter" or INDEX not in files:
        return {}
    data = read_json(files[INDEX])
    mapped = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(mapped, dict) or not mapped:
        raise ValueError("no weight_map from tensor to shard")
    for tensor, shard in mapped.items():
        # Also keeps a shard from being a path out of the folder.
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise ValueError(f"tensor {tensor!r:.100} is mapped to {shard!r:.100}, not to a shard")
    return mapped


def _misplaced(mapped: Mapping[str, str], headers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where the index and the shards' own headers disagree, up to three tensors per shard."""
    problems = []
    for shard, tensors in headers.items():
        wanted = {tensor for tensor, place in mapped.items() if place == shard}
        for what, names in (
            ("lacks tensor", wanted - tensors.keys()),
            ("holds a tensor the index does not map to it,", tensors.keys() - wanted),
        ):
            problems += [f"{shard!r}: {what} {name!r:.100}" for name in sorted(names)[:3]]
            if len(names) > 3:
                problems.append(f"{shard!r}: {what} and {len(names) - 3} more")
    return problems


def _is_code(name: str) -> bool:
    return _CODE.search(name) is not None


def _disguised(files: Files) -> list[str]:
    """Pickles, zips and HDF5 files under another name; a Safetensors header may begin like one."""
    problems = []
    for name, path in files.items():
        if name.endswith(".safetensors") or is_pickle(name):
            continue
        try:
            with path.open("rb") as file:
                start = file.read(8)
        except OSError as problem:
            problems.append(f"{name!r}: cannot be read: {problem.strerror}")
            continue
        if _MAGIC.match(start):
            problems.append(f"{name!r}: begins like a pickle or an archive of pickles")
    return problems


def _dangers(config: Any) -> list[str]:
    """What a configuration asks for that would run code, at any depth."""
    if not isinstance(config, dict):
        return ["not a JSON object"]
    dangers = []
    for key, value in _pairs(config):
        if key == "auto_map":
            dangers.append("auto_map names code to run; use a model the libraries know themselves")
        elif key == "model_file":
            dangers.append(f"model_file {value!r:.100}: mlx-lm would run it")
        elif key == "trust_remote_code" and value not in (None, False):
            dangers.append("trust_remote_code is set")
        elif key.lstrip("_").startswith("attn_implementation"):
            unknown = [name for name in _leaves(value) if name not in _ATTENTION]
            dangers += [f"{key} {name!r:.100}: would fetch and run a kernel" for name in unknown]
        elif key in _IMPORTED and not re.fullmatch(_IMPORTED[key], str(value)):
            dangers.append(f"{key} {value!r:.100}: PEFT would import it")
    return dangers


def _pairs(data: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value in nested JSON, without recursion: the depth is the file's choice."""
    pending = [data]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield from node.items()
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def _leaves(value: Any) -> Iterator[Any]:
    """The values of a per-part mapping such as {"text_config": "sdpa"}, or `value` itself."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending += node.values()
        elif isinstance(node, list):
            pending += node
        else:
            yield node
