"""`params.yaml` as a typed value: every error names the key, expected and found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, field_validator, model_validator

from driftline.errors import InputError, did_you_mean
from driftline.project import routes
from driftline.project.sections import reading
from driftline.project.sections.decode import Decode
from driftline.project.sections.distributions import Distributions
from driftline.project.sections.gguf import Gguf
from driftline.project.sections.limits import Limits
from driftline.project.sections.location import Location
from driftline.project.sections.merge import Merge
from driftline.project.sections.mlx import Mlx
from driftline.project.sections.runtimes import RuntimeSettings
from driftline.schema.artifacts import BASE
from driftline.schema.values import Value

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
RESERVED = (BASE, "source", "corpora", "imports", "report")
"""Names no adapter can have: the probe has files of these names beside the adapters'."""


class Params(Value):
    """The whole of `params.yaml`; every section is written out, because DVC tracks them by name.

    `variants` are the checkpoints that are converted and shipped: `base` (the source itself) or an
    adapter's name. `evalsets` maps a variant to the evalsets it is scored on; the source in
    Transformers, root of every comparison, is scored on all of them. `runtimes` says which variants
    run where; each runtime of our own table of routes has to be there, because `dvc.yaml` asks for
    it. `elsewhere` are the runtimes whose cells another machine makes. `gate` is read by the gate
    alone, and `baseline` names the release that reports compare with: they judge evidence and make
    none, so they are in no dump of this, and an edit of theirs scores nothing anew.
    """

    source: Location
    adapters: dict[str, Location]
    variants: tuple[str, ...]
    evalsets: dict[str, tuple[str, ...]]
    merge: Merge
    gguf: Gguf
    mlx: Mlx
    runtimes: dict[str, RuntimeSettings]
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
            if name == routes.REFERENCE:
                raise ValueError(
                    f'"{name}" cannot be elsewhere: its cells are the reference that all '
                    "others are compared with, so they are made here"
                )
            _check_runtime(name, routes.movable())
        if len(set(names)) != len(names):
            raise ValueError("a runtime is listed twice")
        return names

    @field_validator("runtimes")
    @classmethod
    def _every_runtime(cls, named: dict[str, RuntimeSettings]) -> dict[str, RuntimeSettings]:
        for name in named:
            _check_runtime(name, routes.targets())
        for row in routes.ROUTES:
            if row.runtime not in named:
                raise ValueError(
                    f'"{row.runtime}" is missing; to run nothing there, write '
                    f"`{row.runtime}: {{variants: []}}`"
                )
        if BASE in named[routes.REFERENCE].variants:
            raise ValueError(
                f'{routes.REFERENCE}.variants: "{BASE}" is always scored there: leave it out'
            )
        return named

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
            *((f"runtimes.{name}.variants", each.variants) for name, each in self.runtimes.items()),
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

    @model_validator(mode="after")
    def _can_run(self) -> Params:
        """Every cell has a parent to be compared with, and an artifact that is made."""
        for row in routes.routes():
            for variant in self.variants_of(row):
                if routes.FORMATS[row.format].forms and variant not in self.variants:
                    raise ValueError(
                        f'runtimes.{row.runtime}.variants: "{variant}" is not converted: '
                        'add it to "variants"'
                    )
                self._check_parent(row, variant)
        return self

    def _check_parent(self, row: routes.Route, variant: str) -> None:
        parent = row.parent
        if (
            parent is None
            or parent.variant
            or (variant == BASE and parent.runtime == routes.REFERENCE)
        ):
            return
        if variant not in self.runtimes[parent.runtime].variants:
            raise ValueError(
                f'runtimes.{row.runtime}.variants: "{variant}" is compared with its cell in '
                f"{parent.runtime}: add it to runtimes.{parent.runtime}.variants"
            )

    def variants_of(self, row: routes.Route) -> tuple[str, ...]:
        """The variants whose artifacts a route runs, in the order of params.yaml."""
        if row.scope == "source":
            return (BASE,)
        settings = self.runtimes.get(row.runtime)
        return settings.variants if settings else ()

    @property
    def evalset_names(self) -> tuple[str, ...]:
        """Every evalset of the project once, in the order of `params.yaml`."""
        return tuple(dict.fromkeys(name for names in self.evalsets.values() for name in names))


def _check_runtime(name: str, known: Iterable[str]) -> None:
    if name not in known:
        close = did_you_mean(name, known)
        raise ValueError(f'no runtime "{name}"{close}; known: {", ".join(known)}')


def read(path: Path = reading.PARAMS_FILE) -> Params:
    """Read and check `params.yaml`.

    Raises:
        InputError: missing, not YAML, an unknown key, a wrong type or names that don't agree.
    """
    return parse(reading.mapping(path), where=str(path))


def parse(data: Any, *, where: str) -> Params:
    """Check plain data against `Params`.

    Raises:
        InputError: all problems at once, one line each.
    """
    given = reading.as_mapping(data, where=where)
    if old := _before_runtimes(given):
        raise InputError(
            f"{where}: {', '.join(old)}: which variants run where is said under `runtimes` now",
            remedy=f"in {where}, instead of {', '.join(old)}, write:\n{_runtimes_lines(given)}",
        )
    return reading.validated(Params, given, where=where)


# ------------------------------------------------------------------ what earlier versions wrote


def upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as an earlier version recorded them in evidence, in today's shape.

    Up to 0.1.0 a runtime that runs checkpoints was a list of variants of its own (`vllm: [audit]`),
    and every other ran all of `variants`.
    """
    old = _before_runtimes(data)
    if not old:
        return dict(data)
    kept = {key: value for key, value in data.items() if key not in old}
    return {**kept, "runtimes": _runtimes_of(data)}


def _before_runtimes(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys that named a runtime at the top; none where `runtimes` is there."""
    if "runtimes" in data:
        return ()
    shipped = dict.fromkeys(row.runtime for row in routes.ROUTES)
    return tuple(name for name in shipped if isinstance(data.get(name), list | tuple))


def _runtimes_of(data: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    converted = list(data.get("variants") or ())
    named = {
        row.runtime: list(data.get("adapters") or ()) if row.scope == "adapters" else converted
        for row in routes.ROUTES
    }
    own = {name: list(data[name]) for name in _before_runtimes(data)}
    return {name: {"variants": variants} for name, variants in {**named, **own}.items()}


def _runtimes_lines(data: Mapping[str, Any]) -> str:
    rows = _runtimes_of(data).items()
    lines = (f"  {name}: {{variants: [{', '.join(map(str, v['variants']))}]}}" for name, v in rows)
    return "\n".join(("runtimes:", *lines))
