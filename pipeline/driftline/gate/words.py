"""What every output of the gate says about a check, in the same words; pure.

Nothing here is escaped: whoever writes it knows what its reader takes for markup.
"""

from __future__ import annotations

from driftline.schema.gate import Blessing, GateReport, GateVerdict

ITEMS = 10
"""Items named of one check, at most."""


def subject(row: GateVerdict) -> str:
    """`quantize A → B · pods#oom`, or the cell; evidence as a whole is `reports/lineage`."""
    shown = row.cell or "reports/lineage"
    if row.kind is not None:
        shown = f"{row.kind} {row.parent} → {row.cell}"
    if row.evalset or row.tag:
        shown += f" · {row.evalset or ''}{f'#{row.tag}' if row.tag else ''}"
    return shown


def said(row: GateVerdict) -> str:
    """What was found, with its cause behind it where the message does not have it."""
    if row.cause and f"({row.cause}," not in row.message:
        return f"{row.message} ({row.cause})"
    return row.message


def items(row: GateVerdict, most: int = ITEMS) -> str:
    """`pods-040, pods-041, and 3 more`; of an evalset its items' ids alone."""
    start = f"{row.evalset}/" if row.evalset else ""
    names = [key.removeprefix(start) for key in row.keys[:most]]
    more = len(row.keys) - len(names)
    return ", ".join([*names, *([f"and {more} more"] if more else [])])


def accepted(blessing: Blessing) -> str:
    """`Ada until 2027-01-31: why`."""
    return f"{blessing.by} until {blessing.expires}: {blessing.reason}"


def notes(report: GateReport) -> tuple[str, ...]:
    """Blessings about nothing, then what the policy's patterns do not select."""
    idle = [use.blessing.id for use in report.blessings if use.state == "unused"]
    return (*(f"blessing of {each}: nothing is there any more" for each in idle), *report.notes)


def counts(report: GateReport) -> str:
    """`174 checks pass, 6 stop, 2 not judged`."""
    told = [f"{report.passed} checks pass", f"{len(report.stops)} stop"]
    told += [f"{len(report.accepted)} accepted"] if report.accepted else []
    told += [f"{len(report.skipped)} not judged"] if report.skipped else []
    return ", ".join(told)
