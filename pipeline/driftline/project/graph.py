"""The graph of cells: which two are one step apart, and what that step is; pure."""

from __future__ import annotations

from driftline.project import routes
from driftline.project.params import Params
from driftline.project.plan import PlannedCell, planned
from driftline.schema.cells import cell_id
from driftline.schema.hops import Hop


def hops(params: Params) -> tuple[Hop, ...]:
    """The edges between cells, in the order of the plan: every cell but the root has one parent."""
    return tuple(hop for cell in planned(params) if (hop := _hop(params, cell)) is not None)


def _hop(params: Params, cell: PlannedCell) -> Hop | None:
    spec, parent, kind = cell.spec, cell.route.parent, cell.route.hop
    if parent is None or kind is None:
        return None
    (form,) = routes.named(params, parent.form) if parent.form else (spec.form,)
    above = cell_id(parent.runtime, parent.variant or spec.variant, form)
    return Hop(parent=above, child=spec.id, kind=kind)
