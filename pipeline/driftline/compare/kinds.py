"""What a run can be given: the kinds of inputs, in the order in which changes are listed; pure."""

from __future__ import annotations

from driftline.project import routes

RUNS_IN = "runs in"
"""Which variants run in a runtime."""
KINDS: tuple[str, ...] = (
    "source",
    "adapter",
    "adapter location",
    *(row.given for row in routes.CONVERSIONS if row.given),
    "variants",
    RUNS_IN,
    "decode",
    "distributions",
    "threads",
    "evalset",
    "corpus",
    "package",
    "runtime",
    "hardware",
    "driftline code",
    "params",
)
