"""`driftline gate` and `driftline bless`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.common import clean

if TYPE_CHECKING:
    from pipeline.schema.gate import Blessing, GateReport, GateVerdict

LASTS = timedelta(days=90)
SHOWN = 10
"""Items named in a line, at most."""
HEADER = """\
# Reasons of the gate that somebody accepted; `driftline bless` writes them. Each covers what it
# says and nothing worse, until it expires: docs/gates.md.
"""


@click.command()
@click.argument("revision", metavar="[REV]", required=False)
@click.option("--json", "as_json", is_flag=True, help="The whole report as canonical JSON.")
@clean
def gate(revision: str | None, as_json: bool) -> None:
    """Hold the evidence against the policy in params.yaml: one line per reason not to pass.

    REV is a release or a git revision, with the policy and blessings it has; without one, the
    working tree. Exit code 0: pass; 1: failed or undecided; 2: bad input; 3: refused, the evidence
    was edited or is another project's; 4: a required cell failed; 5: one is unstable. The first of
    3, 4, 5, 1 that holds.
    """
    from pipeline import judgement
    from pipeline.errors import RefusedError
    from pipeline.gate import evaluation

    try:
        report, _ = judgement.judged(revision, today=date.today())
    except RefusedError as error:
        if not as_json:
            raise
        report = evaluation.refused(error, today=date.today())
    if as_json:
        from pipeline.schema.values import canonical

        click.echo(canonical(report))
    else:
        click.echo("\n".join(lines(report)))
    sys.exit(report.exit_code)


@click.command()
@click.argument("reason_id", metavar="ID")
@click.option("--reason", required=True, help="Why this is acceptable.")
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Last day it counts; 90 days after the date of HEAD if left out.",
)
@clean
def bless(reason_id: str, reason: str, expires: Any) -> None:
    """Accept one reason of the gate, as bad as it is now, in blessings.yaml.

    ID is in brackets at the end of a line of `driftline gate`. The entry has the name from git's
    configuration and covers nothing worse: more flips, other items, a larger figure count again.
    """
    from pipeline import judgement
    from pipeline.gate import blessings
    from pipeline.report.escape import visible

    head = date.fromisoformat(_git_fact("show", "-s", "--format=%cs", "HEAD"))
    until = expires.date() if expires else head + LASTS
    _check_is_ahead(until)
    report, _ = judgement.judged(None, today=date.today())
    made = blessings.bless(
        report, reason_id, reason=reason, by=_name(), accepted=head, expires=until
    )
    others = [each for each in judgement.accepted_at(None) if each.id != reason_id]
    _write([*others, *made])
    for each in made:
        click.echo(f"accepted until {each.expires} by {visible(each.by)}: {visible(each.fact)}")
    click.echo(f"next: git add {blessings.FILE} && git commit")


def _check_is_ahead(until: date) -> None:
    from pipeline.errors import InputError

    if until < date.today():
        raise InputError(
            f"it would expire on {until}, before today", remedy="--expires YYYY-MM-DD, ahead"
        )


def _name() -> str:
    from pipeline.errors import InputError, ToolError

    try:
        name = _git_fact("config", "user.name").strip()
    except ToolError:
        name = ""
    if not name:
        raise InputError(
            "git has no user.name, and a blessing is somebody's",
            remedy='git config user.name "Your Name"',
        )
    return name


def _git_fact(*arguments: str) -> str:
    from pipeline import history

    return history.git(*arguments)


def _write(entries: list[Blessing]) -> None:
    import yaml

    from pipeline.files import write_text
    from pipeline.gate.blessings import FILE

    rows = [each.model_dump(exclude_defaults=True) for each in entries]
    for row in rows:
        if "items" in row:
            row["items"] = list(row["items"])
    text = yaml.safe_dump(rows, sort_keys=False, allow_unicode=True, width=100)
    write_text(FILE, HEADER + text)


# ----------------------------------------------------------------------------------------- lines


def lines(report: GateReport) -> Iterator[str]:
    """The report for a terminal: verdict, a line per reason, what was accepted, what is not judged.

    Whatever an artifact, a model or a user wrote is escaped.
    """
    from pipeline.report.escape import visible

    stops = [row for row in report.checks if row.stops]
    accepted = [row for row in report.checks if row.blessed]
    skipped = [row for row in report.checks if row.verdict == "skipped"]
    passed = sum(row.verdict == "pass" for row in report.checks)
    for row in stops:
        yield f"{row.verdict:9}  {_line(row)} · [{visible(row.id)}]"
        if row.remark:
            yield f"{'':9}  {visible(row.remark)}"
    for row in accepted:
        if row.blessed:
            why = f"{visible(row.blessed.by)} until {row.blessed.expires}"
            yield f"{'accepted':9}  {_line(row)} · {why}: {visible(row.blessed.reason)}"
    for row in skipped:
        yield f"{'skipped':9}  {_line(row)}"
    for use in report.blessings:
        if use.state == "unused":
            yield f"{'note':9}  blessing of {visible(use.blessing.id)}: nothing is there any more"
    for note in report.notes:
        yield f"{'note':9}  {visible(note)}"
    counts = [f"{passed} checks pass", f"{len(stops)} stop"]
    counts += [f"{len(accepted)} accepted"] if accepted else []
    counts += [f"{len(skipped)} not judged"] if skipped else []
    yield f"gate: {report.verdict} ({', '.join(counts)})"


def _line(row: GateVerdict) -> str:
    """`quantize A → B · pods: 1 of 40 flipped (weights, not a near-tie): pods-040 · …`."""
    from pipeline.report.escape import visible

    subject = visible(row.cell)
    if row.kind is not None:
        subject = f"{row.kind} {visible(row.parent)} → {subject}"
    elif not subject:
        subject = "reports/lineage"
    if row.evalset or row.tag:
        subject += f" · {visible(row.evalset or '')}{visible(f'#{row.tag}') if row.tag else ''}"
    said = visible(row.message, 600)
    if row.cause and f"({row.cause}," not in row.message:
        said += f" ({visible(row.cause)})"
    named = _keys(row)
    return " · ".join(filter(None, (f"{subject}: {said}{named}", visible(row.look))))


def _keys(row: GateVerdict) -> str:
    """`: pods-040, pods-041`; of an evalset its items' ids alone."""
    from pipeline.report.escape import visible

    start = f"{row.evalset}/" if row.evalset else ""
    names = [visible(key.removeprefix(start)) for key in row.keys[:SHOWN]]
    more = len(row.keys) - len(names)
    names += [f"and {more} more"] if more else []
    return f": {', '.join(names)}" if names else ""
