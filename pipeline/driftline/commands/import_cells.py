"""`driftline import-cells`."""

from __future__ import annotations

import sys

import click

from driftline.commands.common import clean

WORDS = {
    "imported": "imported",
    "known": "already here",
    "refused": "refused",
    "absent": "not to be had",
    "left": "not there",
}
CODES = {"refused": 3, "absent": 4}


@click.command("import-cells")
@click.argument("revision", metavar="REV")
@click.option("--cell", "cells", multiple=True, metavar="CELL", help="This cell; repeatable.")
@click.option("--made-at", default="", metavar="LABEL", help="What to call the machine.")
@clean
def import_cells(revision: str, cells: tuple[str, ...], made_at: str) -> None:
    """Take over cells that another machine made, from its commit REV and the DVC remote.

    Without --cell: every cell that has no answers here. A cell comes in only if its artifact,
    prompts, texts and decode settings are this project's, and every file is what its record says.
    Exit code 3: one was refused, 4: its bytes cannot be had; the others come in all the same.
    """
    from driftline.machines import take

    verdicts = take.take(revision, cells=cells, made_at=made_at)
    for verdict in verdicts:
        click.echo(f"{WORDS[verdict.what]:13} {verdict.cell}")
        for line in verdict.lines:
            click.echo(f"{'':13} {line}")
        if verdict.remedy:
            click.echo(f"{'':13} remedy: {verdict.remedy}")
    if not verdicts:
        click.echo("nothing to import: every cell that may come from elsewhere has answers here")
    if any(verdict.what in ("imported", "known") for verdict in verdicts):
        click.echo("next: driftline run; git add imports dvc.lock reports; git commit; dvc push")
    sys.exit(min((CODES[v.what] for v in verdicts if v.what in CODES), default=0))
