"""`params.yaml` as a typed value: every error names the key, expected and found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from driftline.errors import InputError, did_you_mean
from driftline.schema.values import Value

PARAMS_FILE = Path("params.yaml")
BASE = "base"
"""The variant that is the source itself, with no adapter."""
ROOT_CELL = f"transformers/{BASE}/checkpoint"
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
RESERVED = (BASE, "source", "corpora", "imports", "report")
"""Names no adapter can have: the probe has files of these names beside the adapters'."""
MOVABLE = ("llamacpp", "mlx", "vllm")
"""Runtimes whose cells another machine may make: Transformers makes the references, here."""
COMMIT = re.compile(r"[0-9a-f]{40}")


class Location(Value):
    """Where a checkpoint or adapter comes from: a local `path`, or a Hub `repo` at a `revision`."""

    path: str | None = None
    repo: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Location:
        if (self.path is None) == (self.repo is None):
            raise ValueError('needs either "path" (a local folder) or "repo" (a Hub repository)')
        if self.repo is None and self.revision is not None:
            raise ValueError('"revision" goes with "repo", not with "path"')
        if self.repo is not None and self.revision is None:
            raise ValueError('"repo" needs "revision": a 40-hex commit')
        return self


class Merge(Value):
    """How adapters are merged: arithmetic is float32 always, `dtype` is what is stored."""

    dtype: Literal["float32", "bfloat16", "float16"]


class Gguf(Value):
    """GGUF artifacts of every variant: one at `outtype`, then its quantizations."""

    outtype: Literal["f32", "f16", "bf16"]
    quantizations: tuple[str, ...]


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


class Corpus(Value):
    """A plain text file to teacher-force beside the golden prompts, in windows of `window` tokens.

    Cut as `llama-perplexity` cuts it: BOS first in each window, the first half only context.
    """

    path: str
    window: int = Field(gt=2)


class Distributions(Value):
    """Next-token distributions kept per position: the reference's `top_k` most likely ids.

    A vocabulary of at most `top_k` is kept whole. `corpora` are texts by name.
    """

    top_k: int = Field(gt=1)
    corpora: dict[str, Corpus]


class Decode(Value):
    """Greedy decoding: there is no temperature. `stop` strings end an answer beside EOS."""

    max_new_tokens: int = Field(gt=0)
    context_length: int = Field(gt=0)
    stop: tuple[str, ...] = ()


class Limits(Value):
    """What a cell's processes may use: threads of arithmetic, seconds and GiB of memory each.

    A cell is two processes, one per turn; `workers` says how many of them run at once.
    """

    threads: int = Field(gt=0)
    deadline_s: int = Field(default=3600, gt=0)
    memory_gib: float = Field(default=16, gt=0)
    workers: Literal[1, 2] = 2


class Params(Value):
    """The whole of `params.yaml`; every section is written out, because DVC tracks them by name.

    `variants` are the checkpoints that are converted and shipped: `base` (the source itself) or an
    adapter's name. `evalsets` maps a variant to the evalsets it is scored on; the source in
    Transformers, root of every comparison, is scored on all of them. `elsewhere` are the runtimes
    whose cells another machine makes. `gate` is read by the gate alone, and `baseline` names
    the release that reports compare with: they judge evidence and make none, so they are in no dump
    of this, and an edit of theirs scores nothing anew.
    """

    source: Location
    adapters: dict[str, Location]
    variants: tuple[str, ...]
    evalsets: dict[str, tuple[str, ...]]
    merge: Merge
    gguf: Gguf
    mlx: Mlx
    vllm: tuple[str, ...]
    decode: Decode
    distributions: Distributions
    limits: Limits
    elsewhere: tuple[str, ...] = ()
    gate: dict[str, JsonValue] = Field(default_factory=dict, exclude=True)
    baseline: str | None = Field(default=None, min_length=1, exclude=True)

    @field_validator("elsewhere")
    @classmethod
    def _movable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name == "transformers":
                raise ValueError(
                    '"transformers" cannot be elsewhere: its cells are the reference that all '
                    "others are compared with, so they are made here"
                )
            if name not in MOVABLE:
                close = did_you_mean(name, MOVABLE)
                raise ValueError(f'no runtime "{name}"{close}; known: {", ".join(MOVABLE)}')
        if len(set(names)) != len(names):
            raise ValueError("a runtime is listed twice")
        return names

    @field_validator("adapters")
    @classmethod
    def _adapter_names(cls, adapters: dict[str, Location]) -> dict[str, Location]:
        for name in adapters:
            if not re.match(NAME, name) or name in RESERVED:
                raise ValueError(f'"{name}" cannot name an adapter: letters, digits, . _ -')
        return adapters

    @model_validator(mode="after")
    def _names_agree(self) -> Params:
        known = (BASE, *self.adapters)
        for key, names in (
            ("variants", self.variants),
            ("vllm", self.vllm),
            ("evalsets", tuple(self.evalsets)),
        ):
            for name in names:
                if name not in known:
                    close = did_you_mean(name, known)
                    raise ValueError(
                        f'{key}: "{name}" is neither "{BASE}" nor an adapter{close}; '
                        f"known: {', '.join(known)}"
                    )
            if len(set(names)) != len(names):
                raise ValueError(f"{key}: a name is listed twice")
        for name in known:
            if name in (*self.variants, *self.adapters) and not self.evalsets.get(name):
                raise ValueError(f'evalsets: variant "{name}" has none')
        return self

    @model_validator(mode="after")
    def _corpora_fit(self) -> Params:
        for name, corpus in self.distributions.corpora.items():
            if not re.match(NAME, name) or name in self.evalset_names:
                raise ValueError(
                    f'distributions.corpora: "{name}" cannot name a corpus: letters, digits, '
                    ". _ -, and no evalset's name"
                )
            if corpus.window >= self.decode.context_length:
                raise ValueError(
                    f"distributions.corpora.{name}.window: {corpus.window} does not fit below "
                    f"decode.context_length {self.decode.context_length}"
                )
        return self

    @property
    def evalset_names(self) -> tuple[str, ...]:
        """Every evalset of the project once, in the order of `params.yaml`."""
        return tuple(dict.fromkeys(name for names in self.evalsets.values() for name in names))


def read(path: Path = PARAMS_FILE) -> Params:
    """Read and check `params.yaml`.

    Raises:
        InputError: missing, not YAML, an unknown key, a wrong type or names that don't agree.
    """
    if not path.exists():
        raise InputError(f"{path}: not found", remedy="run from the project's top folder")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}", remedy=f"correct {path}") from None
    return parse(data, where=str(path))


def parse(data: Any, *, where: str) -> Params:
    """Check plain data against `Params`.

    Raises:
        InputError: all problems at once, one line each.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping", remedy="see docs/params.md")
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        raise InputError(
            f"{where}:\n  " + "\n  ".join(explain(problem, Params) for problem in error.errors()),
            remedy=f"correct the keys named above in {where} (docs/params.md lists them all)",
        ) from None


def explain(problem: Any, root: type[Value]) -> str:
    """One pydantic problem as one line that names the key, expected and found."""
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = did_you_mean(str(problem["loc"][-1]), _fields_at(root, problem["loc"][:-1]))
        return f"{location}: unknown key{close}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("missing", "value_error"):
        return f"{location}: {message}" if location else message
    return f"{location}: {message}; found {problem['input']!r}"


def _fields_at(root: type[Value], location: tuple[str | int, ...]) -> list[str]:
    """Field names valid at a place in the tree (best effort: through models and dicts of them)."""
    kind: Any = root
    for part in location:
        fields = getattr(kind, "model_fields", {})
        if part in fields:
            kind = fields[part].annotation
            for inner in getattr(kind, "__args__", ()):
                if hasattr(inner, "model_fields"):
                    kind = inner
    return list(getattr(kind, "model_fields", {}))
