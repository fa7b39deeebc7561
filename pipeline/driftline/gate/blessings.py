"""Reasons that somebody accepted: what they cover, and until when; pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from driftline.errors import InputError, did_you_mean
from driftline.project.sections import reading
from driftline.schema.gate import Blessing, BlessingUse, GateReport, GateVerdict, Verdict

FILE = Path("blessings.yaml")
"""In git, at the project's top."""
BLESSABLE: tuple[Verdict, ...] = ("fail", "undecided")
_ENTRIES = TypeAdapter(tuple[Blessing, ...])


def parse(data: Any, *, where: str) -> tuple[Blessing, ...]:
    """The entries of a blessings file as YAML has them.

    Raises:
        InputError: all problems at once, one line each.
    """
    try:
        return _ENTRIES.validate_python(data or ())
    except ValidationError as error:
        lines = (reading.explain(problem, Blessing) for problem in error.errors())
        raise InputError(
            f"{where}:\n  " + "\n  ".join(lines),
            remedy=f"correct the entries of {where} named above (counted from 0), or accept the "
            "reason anew: driftline bless ID --reason TEXT",
        ) from None


def bless(
    report: GateReport, id_: str, *, reason: str, by: str, accepted: date, expires: date
) -> tuple[Blessing, ...]:
    """What accepts the reasons of that id, just as bad as they are.

    Args:
        report: in which it is a reason.
        id_: as the gate prints it.
        reason: why that is acceptable.
        by: who says so.
        accepted: date of the commit it is accepted on.
        expires: last day it counts.

    Raises:
        InputError: there is no such reason, or it is of a kind that is repaired, not accepted.
    """
    if not reason.strip():
        raise InputError("a blessing needs a reason", remedy='--reason "why this is acceptable"')
    stops = [row for row in report.checks if row.verdict not in ("pass", "skipped")]
    named = [row for row in stops if row.id == id_]
    if not named:
        known = sorted({row.id for row in stops})
        shown = "\n  ".join(known) or "(none: nothing stops the gate)"
        raise InputError(
            f'the gate gives no reason "{id_}"{did_you_mean(id_, known)}; it gives:\n  {shown}',
            remedy="driftline gate   (ids are in brackets at the ends of its lines)",
        )
    for row in named:
        if row.verdict not in BLESSABLE:
            raise InputError(
                f"{id_} is {row.verdict}: {row.message}; what failed to run is repaired, not "
                "accepted",
                remedy=f"{row.look}   (or name the cell under gate.experimental in "
                f"{reading.PARAMS_FILE})",
            )
    return tuple(
        Blessing(
            id=row.id,
            fact=row.message,
            up_to=None if row.measured is None else _rounded_up(row.measured),
            items=row.keys if row.check == "flips" else (),
            reason=reason.strip(),
            by=by,
            accepted=accepted,
            expires=expires,
        )
        for row in named
    )


def _rounded_up(value: float) -> float:
    """To three digits, so that rounding elsewhere is no worse result."""
    if value <= 0:
        return 0.0
    exact = Decimal(repr(value))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), ROUND_CEILING))


def applied(row: GateVerdict, given: Iterable[Blessing], today: date) -> GateVerdict:
    """The row with the blessing that covers it longest, or with why those of its id do not."""
    if row.verdict not in BLESSABLE:
        return row
    mine = [each for each in given if each.id == row.id]
    if not mine:
        return row
    covering = [each for each in mine if covers(each, row)]
    if not covering:
        first = mine[0]
        remark = f"blessed by {first.by} as: {first.fact}; this is not covered"
        return row.model_copy(update={"remark": remark})
    last = max(covering, key=lambda each: each.expires)
    if last.expires < today:
        remark = f"blessed by {last.by} until {last.expires}: expired"
        return row.model_copy(update={"remark": remark})
    return row.model_copy(update={"blessed": last})


def covers(blessing: Blessing, row: GateVerdict) -> bool:
    """Whether what was accepted is at least as bad as this."""
    if blessing.id != row.id or row.verdict not in BLESSABLE:
        return False
    if row.check == "flips" and not set(row.keys) <= set(blessing.items):
        return False
    if row.measured is None or blessing.up_to is None:
        return row.message == blessing.fact
    return row.measured <= blessing.up_to


def use(blessing: Blessing, rows: Iterable[GateVerdict], today: date) -> BlessingUse:
    """What a blessing does for a report with these rows."""
    mine = [row for row in rows if row.id == blessing.id and row.verdict in BLESSABLE]
    if not mine:
        return BlessingUse(blessing=blessing, state="unused")
    if not any(covers(blessing, row) for row in mine):
        return BlessingUse(blessing=blessing, state="exceeded")
    expired = blessing.expires < today
    return BlessingUse(blessing=blessing, state="expired" if expired else "covers")
