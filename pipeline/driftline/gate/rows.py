"""One row of a gate report, and the words it is made of; pure."""

from __future__ import annotations

from typing import Any

from driftline.gate.policy import ALL, Scope
from driftline.gate.readings import HopFacts
from driftline.schema.gate import CheckKind, GateVerdict, Verdict
from driftline.schema.lineage import HopEvidence

DIGITS = 9
"""Decimals of a figure: libraries of other machines may differ in the last bit."""
TOO_FEW = "too few items"


def row(
    check: CheckKind,
    cell: str,
    verdict: Verdict,
    message: str,
    *,
    id_: str = "",
    hop: HopEvidence | None = None,
    scope: Scope = ALL,
    measured: float | None = None,
    **fields: Any,
) -> GateVerdict:
    """A verdict with its id: `check:cell`, with the scope's evalset and tag behind it."""
    return GateVerdict(
        id=id_ or f"{check}:{cell}{scope.suffix}",
        check=check,
        verdict=verdict,
        cell=cell,
        parent=hop.hop.parent if hop else "",
        kind=hop.hop.kind if hop else None,
        evalset=scope.evalset,
        tag=scope.tag,
        measured=None if measured is None else round(measured, DIGITS),
        message=message,
        **fields,
    )


def points(share: float | None) -> str:
    """A share in hundredths, with two decimals where it has them."""
    return f"{100 * (share or 0.0):.2f}".rstrip("0").rstrip(".")


def count(number: int, what: str) -> str:
    """`1 item`, `2 items`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def would_decide(need: int | None, what: str = "item") -> str:
    """How many it takes."""
    if need is None:
        return f"no number of {what}s would decide at this rate"
    return f"{count(need, what)} would decide at this rate"


def more_items(hop: HopFacts, scope: Scope) -> str:
    """Where golden prompts are added."""
    evalsets = sorted({key.partition("/")[0] for key in hop.within(hop.asked, scope)})
    return f"add to {', '.join(f'evalsets/{name}.jsonl' for name in evalsets) or 'evalsets/'}"
