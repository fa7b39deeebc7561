"""`driftline compare` and `driftline same`."""

from __future__ import annotations

import sys

import click

from driftline.commands.common import clean


@click.command()
@click.argument("before", metavar="REV")
@click.argument("after", metavar="[REV]", required=False)
@click.option("--common", is_flag=True, help="On the items that are the same on both sides.")
@click.option("--json", "form", flag_value="json", help="The whole comparison as canonical JSON.")
@click.option("--markdown", "form", flag_value="markdown", help="Markdown for a pull request.")
@clean
def compare(before: str, after: str | None, common: bool, form: str | None) -> None:
    """What differs between two releases or commits: inputs first, then what they changed.

    REV is a release or a git revision; without the second, the working tree. Every changed input
    is named, every changed artifact is traced back to one, and cells and hops are compared where
    that means something. Exit code 2: no such revision; 3: the evidence there was edited.
    """
    from driftline.compare import comparison
    from driftline.evidence import history

    report = comparison.compare(history.at(before), history.at(after), common=common)
    if form == "json":
        from driftline.schema.values import canonical

        click.echo(canonical(report))
        return
    from driftline.report import comparison as shown

    if form == "markdown":
        click.echo(shown.markdown(report), nl=False)
        return
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    for part in shown.terminal(report):
        console.print(part)


@click.command()
@click.argument("a", metavar="[REV:]CELL")
@click.argument("b", metavar="[REV:]CELL")
@clean
def same(a: str, b: str) -> None:
    """Whether two cells run the same model, and if not, every field that differs.

    The same model is the same source, tokenizer, template, adapter, conversions with their exact
    arguments, quantization as found in the file, and decode settings; in whatever runtime. Exit
    code 0: the same; 1: not the same; 2: no such cell.
    """
    from driftline.compare import sameness
    from driftline.evidence import history
    from driftline.report.comparison import differing

    (rev_a, cell_a), (rev_b, cell_b) = _split(a), _split(b)
    first = history.at(rev_a)
    second = first if rev_a == rev_b else history.at(rev_b)
    one, other = sameness.facts(first, cell_a), sameness.facts(second, cell_b)
    details = sameness.differences(one, other)
    if not details:
        click.echo(f"the same model {sameness.identity(one)}")
        return
    click.echo("\n".join(differing(details)))
    sys.exit(1)


def _split(name: str) -> tuple[str | None, str]:
    """`REV:CELL` as its parts; a revision has no colon, and without one it is the working tree."""
    revision, _, cell = name.rpartition(":")
    return revision or None, cell
