"""What a project scores: every cell that follows from params.yaml and the table of routes, pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from driftline.errors import InputError, did_you_mean
from driftline.project import routes
from driftline.project.params import Params
from driftline.project.routes import FORMATS, ROOT_CELL, Route
from driftline.schema.artifacts import ADAPTERS, ARTIFACTS, BASE
from driftline.schema.cells import CellSpec, cell_id


@dataclass(frozen=True)
class PlannedCell:
    """A cell, and the row of the table it follows from."""

    spec: CellSpec
    route: Route


def planned(params: Params) -> tuple[PlannedCell, ...]:
    """Every cell of the project, root first, parents before children.

    Rows of one scope go together variant by variant, so that what was made of one variant stands
    together; runtimes that run an artifact another one runs come last.
    """
    grouped = groupby(routes.routes(), key=_together)
    return tuple(cell for _, rows in grouped for cell in _of_rows(params, tuple(rows)))


def _together(row: Route) -> tuple[str, str]:
    return row.scope, row.runtime if row.hop == "runtime" else ""


def _of_rows(params: Params, rows: tuple[Route, ...]) -> Iterator[PlannedCell]:
    for variant in dict.fromkeys(name for row in rows for name in params.variants_of(row)):
        for row in rows:
            if variant in params.variants_of(row):
                for form in routes.named(params, row.forms):
                    yield PlannedCell(_spec(row, variant, form), row)


def _spec(row: Route, variant: str, form: str) -> CellSpec:
    artifact = FORMATS[row.format].artifact(BASE if row.adapter else variant, form)
    return CellSpec(
        id=cell_id(row.runtime, variant, form),
        runtime=row.runtime,
        variant=variant,
        form=form,
        artifact=f"{ARTIFACTS}/{artifact}",
        adapter=f"{ARTIFACTS}/{ADAPTERS}/{variant}" if row.adapter else None,
    )


def plan(params: Params) -> tuple[CellSpec, ...]:
    """Every cell of the project, in the order of `planned`."""
    return tuple(cell.spec for cell in planned(params))


def cell(params: Params, runtime: str, variant: str, form: str) -> CellSpec:
    """The cell `runtime/variant/form`.

    Raises:
        InputError: there is no such cell in the plan.
    """
    return find(params, cell_id(runtime, variant, form)).spec


def find(params: Params, name: str) -> PlannedCell:
    """The planned cell of that id.

    Raises:
        InputError: there is no such cell in the plan.
    """
    known = {each.spec.id: each for each in planned(params)}
    if name not in known:
        raise InputError(
            f'no cell "{name}"{did_you_mean(name, known)}',
            remedy="`driftline plan` lists the cells of this project",
        )
    return known[name]


def reference(params: Params, variant: str) -> str:
    """Id of the cell whose greedy answers are a variant's teacher-forced text."""
    of_source = variant not in params.adapters
    row = next(
        row for row in routes.ROUTES if row.writes_text and (row.scope == "source") == of_source
    )
    return cell_id(row.runtime, variant, row.forms)


def texts(cell: PlannedCell) -> tuple[str, ...]:
    """Names of the texts a cell is teacher-forced through.

    Its variant's; a cell whose hop starts at another variant (an adapter attached to the source)
    takes that one's as well, to be compared there.
    """
    parent, own = cell.route.parent, cell.spec.variant
    return tuple(dict.fromkeys(((parent and parent.variant) or own, own)))


def sources(params: Params, spec: CellSpec) -> tuple[str, ...]:
    """Evalsets and corpora a cell takes of its texts: what it is asked, and every corpus."""
    asked = params.evalset_names if spec.id == ROOT_CELL else params.evalsets[spec.variant]
    return (*asked, *params.distributions.corpora)


def prompts_of(spec: CellSpec) -> str:
    """File under `artifacts/prompts` that a cell answers."""
    return f"{'root' if spec.id == ROOT_CELL else spec.variant}.jsonl"


def stage(params: Params, cell: PlannedCell) -> str:
    """Name of the DVC stage that scores a cell, as DVC calls the members of a matrix."""
    spec, row = cell.spec, cell.route
    if row.scope == "source":
        return row.stage
    form = f"-{spec.form}" if routes.listed(params, row.forms) else ""
    return f"{row.stage}@{spec.variant}{form}"
