"""`driftline show`."""

from __future__ import annotations

import shutil
import sys

import click

from driftline.commands.common import clean

WIDE = 160
"""Columns where nobody says how wide the terminal is."""
ITEMS = 10


@click.command()
@click.option("--items", default=ITEMS, show_default=True, help="Most changed answers to list.")
@clean
def show(items: int) -> None:
    """Cells, hops and the worst answers on this terminal; what does not fit is named.

    The same figures as in reports/lineage.html and lineage.md.
    """
    from rich.console import Console

    from driftline.project import params
    from driftline.report import gather, terminal

    evidence = gather.read_with_gate(params.read())
    width = shutil.get_terminal_size((WIDE, 40)).columns if sys.stdout.isatty() else WIDE
    console = Console(width=width, highlight=False)
    for part in terminal.tables(evidence, width, items):
        console.print(part)
