"""What a project scores: every cell that follows from params.yaml, pure."""

from __future__ import annotations

from driftline.errors import InputError, did_you_mean
from driftline.project.params import BASE, ROOT_CELL, Params
from driftline.schema.cells import CellSpec


def artifact_path(kind: str, *names: str) -> str:
    """Where an artifact lives, relative to the project."""
    return "/".join(("artifacts", kind, *names))


def artifact_of(spec: CellSpec) -> str:
    """Name of a cell's artifact."""
    return spec.artifact.removeprefix("artifacts/")


def adapter_of(spec: CellSpec) -> str:
    """Name of a cell's attached adapter; empty when it has none."""
    return (spec.adapter or "").removeprefix("artifacts/")


def cell(params: Params, runtime: str, variant: str, form: str) -> CellSpec:
    """The cell `runtime/variant/form`.

    Raises:
        InputError: there is no such cell in the plan.
    """
    wanted = f"{runtime}/{variant}/{form}"
    for spec in plan(params):
        if spec.id == wanted:
            return spec
    close = did_you_mean(wanted, (spec.id for spec in plan(params)))
    raise InputError(
        f'no cell "{wanted}"{close}', remedy="`driftline plan` lists the cells of this project"
    )


def plan(params: Params) -> tuple[CellSpec, ...]:
    """Every cell of the project, root first, parents before children."""
    base = artifact_path("checkpoints", BASE)
    cells = [_spec("transformers", BASE, "checkpoint", base)]
    for name in params.adapters:
        adapter = artifact_path("adapters", name)
        cells.append(_spec("transformers", name, "attached", base, adapter))
        merged = artifact_path("checkpoints", name)
        cells.append(_spec("transformers", name, "checkpoint", merged))
    for variant in params.variants:
        for form in (params.gguf.outtype, *params.gguf.quantizations):
            path = artifact_path("gguf", variant, form)
            cells.append(_spec("llamacpp", variant, form, path))
        for form in params.mlx.artifacts:
            cells.append(_spec("mlx", variant, form, artifact_path("mlx", variant, form)))
    for variant in params.vllm:
        path = artifact_path("checkpoints", variant)
        cells.append(_spec("vllm", variant, "checkpoint", path))
    return tuple(cells)


def reference(params: Params, variant: str) -> str:
    """Id of the cell whose greedy answers are a variant's teacher-forced text."""
    form = "attached" if variant in params.adapters else "checkpoint"
    return f"transformers/{variant}/{form}"


def texts(params: Params, spec: CellSpec) -> tuple[str, ...]:
    """Names of the texts a cell is teacher-forced through.

    Its variant's; a cell with an adapter attached takes the source's as well, because that is where
    its hop starts.
    """
    return (BASE, spec.variant) if spec.form == "attached" else (spec.variant,)


def sources(params: Params, spec: CellSpec) -> tuple[str, ...]:
    """Evalsets and corpora a cell takes of its texts: what it is asked, and every corpus."""
    asked = params.evalset_names if spec.id == ROOT_CELL else params.evalsets[spec.variant]
    return (*asked, *params.distributions.corpora)


def _spec(
    runtime: str, variant: str, form: str, artifact: str, adapter: str | None = None
) -> CellSpec:
    return CellSpec(
        id=f"{runtime}/{variant}/{form}",
        runtime=runtime,
        variant=variant,
        form=form,
        artifact=artifact,
        adapter=adapter,
    )


def stage(params: Params, spec: CellSpec) -> str:
    """Name of the DVC stage that scores a cell."""
    if spec.id == ROOT_CELL:
        return "score_source"
    if spec.runtime == "llamacpp" and spec.form == params.gguf.outtype:
        return f"score_gguf@{spec.variant}"
    named = {
        "transformers": "score_attached" if spec.form == "attached" else "score_merged",
        "llamacpp": "score_quantized",
        "mlx": "score_mlx",
        "vllm": "score_vllm",
    }[spec.runtime]
    form = f"-{spec.form}" if spec.runtime in ("llamacpp", "mlx") else ""
    return f"{named}@{spec.variant}{form}"
