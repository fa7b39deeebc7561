"""What a cell's processes are told: everything of the project that shapes the cell, and no more.

The probe writes each cell's task beside its attempt, and the stages that run a model read that
instead of the plan: so a new runtime, a new format or another key of params.yaml changes the task
of none that is there, and re-scores nothing.
"""

from __future__ import annotations

from driftline.project import plan, routes
from driftline.project.params import Params
from driftline.project.plan import PlannedCell
from driftline.schema.tasks import CellTask


def of(params: Params, cell: PlannedCell) -> CellTask:
    """The task of a planned cell."""
    spec, route = cell.spec, cell.route
    artifact = routes.FORMATS[route.format]
    return CellTask(
        cell=spec,
        target=route.target,
        counterfactual=artifact.counterfactual if route.weights == "counterfactual" else None,
        checkpoint=routes.FORMATS["checkpoint"].artifact(spec.variant, ""),
        writes_text=spec.id == plan.reference(params, spec.variant),
        prompts=plan.prompts_of(spec),
        texts=plan.texts(cell),
        sources=plan.sources(params, spec),
        top_k=params.distributions.top_k,
        decode={**params.decode.model_dump(mode="json"), "threads": params.limits.threads},
    )


def all_of(params: Params) -> tuple[CellTask, ...]:
    """The task of every planned cell, in plan order."""
    return tuple(of(params, cell) for cell in plan.planned(params))
