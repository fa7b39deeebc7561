"""What exists, said once: formats, the conversions that make artifacts, the runtimes that run them.

The plan of cells, the graph of hops, the DVC stage of a cell, where its stored weights come from,
what `compare` and `bisect` call an input, what another machine can make: all of it derives from the
tables below. `dvc.yaml` is written by hand; a test holds it against them. Order counts: cells are
planned, and so listed in every report, in the order of `ROUTES`.

Names of artifacts come from params.yaml. Where a row says `${gguf.quantizations}` it means that
value of params.yaml, as in `dvc.yaml`; anything else is the name itself.

An installed package adds rows through the entry-point group `driftline.runtimes`: each entry point
is a `Route`, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal

from driftline.errors import InputError
from driftline.schema.artifacts import BASE, StepName

if TYPE_CHECKING:
    from driftline.project.params import Params
    from driftline.schema.hops import HopKind

ENTRY_POINTS = "driftline.runtimes"


@dataclass(frozen=True)
class Format:
    """What an artifact's files are.

    `folder` is the one under `artifacts/`; below it a variant has one artifact, or, with `forms`,
    one of each form. `library` is the Hub's name for what loads it. `counterfactual` says how its
    stored weights are run in the reference runtime (`module:Class`, the contract is
    `counterfactual.base`); without it the split of drift is withheld. `says_origin`: its files name
    the source they were made from.
    """

    folder: str
    library: str
    forms: bool = False
    counterfactual: str | None = None
    says_origin: bool = False

    def artifact(self, variant: str, form: str) -> str:
        """Name of an artifact: its place under `artifacts/`."""
        return "/".join((self.folder, variant, *((form,) if self.forms else ())))


FORMATS: Mapping[str, Format] = {
    "checkpoint": Format("checkpoints", library="transformers"),
    "gguf": Format(
        "gguf",
        library="gguf",
        forms=True,
        counterfactual="driftline.counterfactual.gguf:Gguf",
        says_origin=True,
    ),
    "mlx": Format(
        "mlx", library="mlx", forms=True, counterfactual="driftline.counterfactual.mlx:Mlx"
    ),
}


@dataclass(frozen=True)
class Conversion:
    """One DVC stage that makes artifacts.

    `step` and `kind` are what the artifact's record says. `given` is what `compare` calls the input
    that decides how it is made; with `recipes`, the place where params.yaml defines each form, it
    is one input per form. `shipped` are the artifacts that a release is made of.
    """

    stage: str
    step: StepName
    kind: str
    format: str
    forms: str = ""
    recipes: str = ""
    given: str = ""
    shipped: bool = True


CONVERSIONS: tuple[Conversion, ...] = (
    Conversion("pin", "pin", "source", "checkpoint", shipped=False),
    Conversion("pin", "pin", "adapter", "adapter", shipped=False),
    Conversion("merge", "merge", "merged", "checkpoint", given="merge settings"),
    Conversion(
        "convert_gguf", "convert", "gguf", "gguf", forms="${gguf.outtype}", given="gguf outtype"
    ),
    Conversion(
        "quantize", "quantize", "gguf", "gguf", forms="${gguf.quantizations}", given="quantization"
    ),
    Conversion(
        "convert_mlx",
        "convert",
        "mlx",
        "mlx",
        forms="${mlx.artifacts}",
        recipes="${mlx.recipes}",
        given="mlx recipe",
    ),
)

Scope = Literal["source", "adapters", "variants"]


@dataclass(frozen=True)
class Parent:
    """Which cell is one step before another, of the same variant unless `variant` names one.

    An empty `form` is the child's own: the same artifact in another runtime.
    """

    runtime: str
    form: str = ""
    variant: str = ""


@dataclass(frozen=True)
class Route:
    """One way to run artifacts of one format: cells of one runtime that one DVC stage scores.

    Attributes:
        runtime: its name: under `runtimes` in params.yaml, and first in a cell's id.
        target: `module:Class` that implements `runtimes.base.Runtime`.
        format: of the artifacts, a key of `FORMATS`.
        forms: what the cells run: names of artifacts of a variant, last in a cell's id.
        scope: the source alone, or every adapter, or every variant, that the runtime is to run.
        stage: of `dvc.yaml`.
        parent: where the hop into these cells comes from; None for the root of everything.
        hop: what that step is.
        weights: where stored weights are run in the reference runtime: by the cell `itself`, by the
            reference's cell of the same `checkpoint`, or as a `counterfactual` of its own.
        adapter: the artifact is the source, with the variant's adapter attached.
        writes_text: its answers are the text that every cell of the variant is forced through.
    """

    runtime: str
    target: str
    format: str
    forms: str
    scope: Scope
    stage: str
    parent: Parent | None
    hop: HopKind | None
    weights: Literal["itself", "checkpoint", "counterfactual"]
    adapter: bool = False
    writes_text: bool = False


REFERENCE = "transformers"
"""The runtime in which weights are compared, whatever runs them: its rows come first."""
_TRANSFORMERS = "driftline.runtimes.transformers:TransformersRuntime"
_LLAMACPP = "driftline.runtimes.llamacpp:LlamaCppRuntime"

ROUTES: tuple[Route, ...] = (
    Route(
        runtime=REFERENCE,
        target=_TRANSFORMERS,
        format="checkpoint",
        forms="checkpoint",
        scope="source",
        stage="score_source",
        parent=None,
        hop=None,
        weights="itself",
        writes_text=True,
    ),
    Route(
        runtime=REFERENCE,
        target=_TRANSFORMERS,
        format="checkpoint",
        forms="attached",
        scope="adapters",
        stage="score_attached",
        parent=Parent(REFERENCE, "checkpoint", BASE),
        hop="adapter",
        weights="itself",
        adapter=True,
        writes_text=True,
    ),
    Route(
        runtime=REFERENCE,
        target=_TRANSFORMERS,
        format="checkpoint",
        forms="checkpoint",
        scope="adapters",
        stage="score_merged",
        parent=Parent(REFERENCE, "attached"),
        hop="merge",
        weights="itself",
    ),
    Route(
        runtime="llamacpp",
        target=_LLAMACPP,
        format="gguf",
        forms="${gguf.outtype}",
        scope="variants",
        stage="score_gguf",
        parent=Parent(REFERENCE, "checkpoint"),
        hop="convert",
        weights="counterfactual",
    ),
    Route(
        runtime="llamacpp",
        target=_LLAMACPP,
        format="gguf",
        forms="${gguf.quantizations}",
        scope="variants",
        stage="score_quantized",
        parent=Parent("llamacpp", "${gguf.outtype}"),
        hop="quantize",
        weights="counterfactual",
    ),
    Route(
        runtime="mlx",
        target="driftline.runtimes.mlx:MlxRuntime",
        format="mlx",
        forms="${mlx.artifacts}",
        scope="variants",
        stage="score_mlx",
        parent=Parent(REFERENCE, "checkpoint"),
        hop="convert",
        weights="counterfactual",
    ),
    Route(
        runtime="vllm",
        target="driftline.runtimes.vllm:VllmRuntime",
        format="checkpoint",
        forms="checkpoint",
        scope="variants",
        stage="score_vllm",
        parent=Parent(REFERENCE, "checkpoint"),
        hop="runtime",
        weights="checkpoint",
    ),
)

ROOT_CELL = f"{REFERENCE}/{BASE}/{ROUTES[0].forms}"
"""The source in the reference runtime: every comparison starts there."""


# ----------------------------------------------------------------------------- what derives from it


@cache
def routes() -> tuple[Route, ...]:
    """The table, then the rows of installed packages, by the name of their entry point.

    Raises:
        InputError: an entry point cannot be loaded, is no route, or takes a name that is taken.
    """
    rows = list(ROUTES)
    taken = {(row.runtime, row.forms) for row in rows}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        for row in _brought(point):
            if (row.runtime, row.forms) in taken or row.format not in FORMATS:
                raise InputError(
                    f"entry point {point.name} of {ENTRY_POINTS}: a route of {row.runtime} over "
                    f"{row.forms} of format {row.format}, which is there already or has no format",
                    remedy=f"pip uninstall the package that brings {point.value}, or correct it",
                )
            taken.add((row.runtime, row.forms))
            rows.append(row)
    return tuple(rows)


def _brought(point: EntryPoint) -> Iterator[Route]:
    try:
        loaded = point.load()
    except Exception as error:  # whatever a package raises as it is imported
        raise InputError(
            f"entry point {point.name} of {ENTRY_POINTS}: {type(error).__name__}: {error}",
            remedy=f"pip uninstall the package that brings {point.value}, or correct it",
        ) from None
    for row in loaded if isinstance(loaded, tuple) else (loaded,):
        if not isinstance(row, Route):
            raise InputError(
                f"entry point {point.name} of {ENTRY_POINTS}: {point.value} is "
                f"{type(row).__name__}, expected a driftline.project.routes.Route",
                remedy="make it a Route, or a tuple of them",
            )
        yield row


def targets() -> Mapping[str, str]:
    """The class of each runtime, by its name, in table order."""
    return {row.runtime: row.target for row in routes()}


def counterfactuals() -> Mapping[str, str]:
    """The class that runs stored weights in the reference runtime, by format."""
    return {name: each.counterfactual for name, each in FORMATS.items() if each.counterfactual}


def format_of(kind: str) -> str:
    """The format of artifacts of a kind, as records name kinds; empty for an unknown one."""
    return next((row.format for row in CONVERSIONS if row.kind == kind), "")


def movable() -> tuple[str, ...]:
    """Runtimes whose cells another machine may make: the reference makes the texts, here."""
    return tuple(name for name in targets() if name != REFERENCE)


def artifact_kinds() -> tuple[str, ...]:
    """Kinds of artifacts, as records name them, parents before what is made of them."""
    return tuple(dict.fromkeys(row.kind for row in CONVERSIONS))


def is_place(name: str) -> bool:
    """Whether a row means a value of params.yaml, `${…}`, rather than the name itself."""
    return name.startswith("${")


def key_of(place: str) -> tuple[str, ...]:
    """Where in params.yaml `${gguf.outtype}` is: `("gguf", "outtype")`."""
    return tuple(place.removeprefix("${").removesuffix("}").split("."))


def named(project: Params, place: str) -> tuple[str, ...]:
    """The names that a row's `forms` stands for in a project."""
    if not is_place(place):
        return (place,)
    value = _value(project, place)
    return (value,) if isinstance(value, str) else tuple(value)


def listed(project: Params, place: str) -> bool:
    """Whether params.yaml has a list at a place: each name is then part of its stage's name."""
    return is_place(place) and not isinstance(_value(project, place), str)


def _value(project: Params, place: str) -> Any:
    value: Any = project
    for part in key_of(place):
        value = getattr(value, part)
    return value
