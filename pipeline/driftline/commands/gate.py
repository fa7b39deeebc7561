"""`driftline gate` and `driftline bless`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from driftline.commands.common import clean

if TYPE_CHECKING:
    from driftline.errors import RefusedError
    from driftline.evidence.lineage import Evidence
    from driftline.schema.gate import Blessing, GateReport, GateVerdict

LASTS = timedelta(days=90)
OUTPUT = click.Path(dir_okay=False, path_type=Path)
LINE = 600
"""Characters shown of what was found, at most."""
HEADER = """\
# Reasons of the gate that somebody accepted; `driftline bless` writes them. Each covers what it
# says and nothing worse, until it expires: docs/gates.md.
"""


@click.command()
@click.argument("revision", metavar="[REV]", required=False)
@click.option("--json", "as_json", is_flag=True, help="The whole report as canonical JSON.")
@click.option("--junit", type=OUTPUT, help="Write JUnit XML: checks, and the items of each cell.")
@click.option("--summary", type=OUTPUT, help="Append Markdown: to $GITHUB_STEP_SUMMARY.")
@click.option("--comment", type=OUTPUT, help="Write Markdown for a comment on a pull request.")
@click.option("--annotate", is_flag=True, help="Print annotations for GitHub Actions first.")
@clean
def gate(
    revision: str | None,
    as_json: bool,
    junit: Path | None,
    summary: Path | None,
    comment: Path | None,
    annotate: bool,
) -> None:
    """Hold the evidence against the policy in params.yaml: one line per reason not to pass.

    REV is a release or a git revision, with the policy and blessings it has; without one, the
    working tree. Exit code 0: pass; 1: failed or undecided; 2: bad input; 3: refused, the evidence
    was edited or is another project's; 4: a required cell failed; 5: one is unstable. The first of
    3, 4, 5, 1 that holds.
    """
    if as_json and annotate:
        raise click.UsageError("--json and --annotate both print: choose one")
    report, evidence, refusal = _judge(revision)
    if junit:
        _put(junit, _junit(report, evidence, is_here=revision is None))
    if summary or comment:
        from driftline.publish import brief

        since = _since(evidence) if evidence and revision is None else ""
        if summary:
            _put(summary, brief.summary(report, evidence, baseline=since), append=True)
        if comment:
            _put(comment, brief.comment(report, evidence, baseline=since))
    if annotate:
        from driftline.publish.github import commands

        for command in commands(report):
            click.echo(command)
    if as_json:
        from driftline.schema.values import canonical

        click.echo(canonical(report))
    elif refusal:
        raise refusal
    else:
        click.echo("\n".join(lines(report)))
    sys.exit(report.exit_code)


def _judge(revision: str | None) -> tuple[GateReport, Evidence | None, RefusedError | None]:
    """The report with its evidence, or with why that was refused."""
    from driftline.errors import RefusedError
    from driftline.gate import evaluation, judgement

    try:
        return *judgement.judge(revision, today=date.today()), None
    except RefusedError as error:
        return evaluation.refused(error, today=date.today()), None, error


def _junit(report: GateReport, evidence: Evidence | None, *, is_here: bool) -> str:
    """JUnit XML, with the answers of the working tree where it is about that."""
    from driftline.publish import answers, junit

    given = answers.answers(report, evidence) if evidence and is_here else None
    return junit.junit(report, evidence, given)


def _since(evidence: Evidence) -> str:
    """What differs from the baseline that params.yaml names, as Markdown; empty without one."""
    from driftline.gate import judgement
    from driftline.project import params
    from driftline.publish import brief

    baseline = judgement.baseline(params.read(), evidence)
    return brief.since(baseline) if baseline else ""


def _put(path: Path, text: str, *, append: bool = False) -> None:
    """Write a file, or put the text behind what it has.

    Raises:
        InputError: it cannot be written there.
    """
    from driftline.errors import InputError
    from driftline.files import write_text

    write: Callable[[Path, str], None] = _append if append else write_text
    try:
        write(path, text)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror}", remedy="name a file that can be"
        ) from None


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(f"\n{text}" if file.tell() else text)


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
    from driftline.gate import blessings, judgement
    from driftline.report.escape import visible

    head = date.fromisoformat(_git_fact("show", "-s", "--format=%cs", "HEAD"))
    until = expires.date() if expires else head + LASTS
    _check_is_ahead(until)
    report, _ = judgement.judge(None, today=date.today())
    made = blessings.bless(
        report, reason_id, reason=reason, by=_name(), accepted=head, expires=until
    )
    others = [each for each in judgement.accepted_at(None) if each.id != reason_id]
    _write([*others, *made])
    for each in made:
        click.echo(f"accepted until {each.expires} by {visible(each.by)}: {visible(each.fact)}")
    click.echo(f"next: git add {blessings.FILE} && git commit")


def _check_is_ahead(until: date) -> None:
    from driftline.errors import InputError

    if until < date.today():
        raise InputError(
            f"it would expire on {until}, before today", remedy="--expires YYYY-MM-DD, ahead"
        )


def _name() -> str:
    from driftline.errors import InputError, ToolError

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
    from driftline.evidence import history

    return history.git(*arguments)


def _write(entries: list[Blessing]) -> None:
    import yaml

    from driftline.files import write_text
    from driftline.gate.blessings import FILE

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
    from driftline.gate import words
    from driftline.report.escape import visible

    for row in report.stops:
        yield f"{row.verdict:9}  {_line(row)} · [{visible(row.id)}]"
        if row.remark:
            yield f"{'':9}  {visible(row.remark)}"
    for row in report.accepted:
        if row.blessed:
            yield f"{'accepted':9}  {_line(row)} · {visible(words.accepted(row.blessed), LINE)}"
    for row in report.skipped:
        yield f"{'skipped':9}  {_line(row)}"
    for note in words.notes(report):
        yield f"{'note':9}  {visible(note)}"
    yield f"gate: {report.verdict} ({words.counts(report)})"


def _line(row: GateVerdict) -> str:
    """`quantize A → B · pods: 1 of 40 flipped (weights, not a near-tie): pods-040 · …`."""
    from driftline.gate import words
    from driftline.report.escape import visible

    told = filter(None, (words.said(row), words.items(row)))
    parts = [visible(words.subject(row)), *(visible(each, LINE) for each in told)]
    return " · ".join(filter(None, (": ".join(parts), visible(row.look))))
