"""`driftline init`."""

from __future__ import annotations

from pathlib import Path

import click

from driftline.commands.common import clean


@click.command()
@click.option("--source", metavar="PLACE", help="Your checkpoint; the embedded example if not.")
@click.option("--adapter", "adapters", multiple=True, metavar="NAME=PLACE", help="Repeatable.")
@click.option(
    "--ci", type=click.Choice(["github", "gitlab", "none"]), default="github", show_default=True
)
@clean
def init(source: str | None, adapters: tuple[str, ...], ci: str) -> None:
    """Write a new project into this git repository: pipeline, parameters, evalsets, Makefile, CI.

    PLACE is a folder of this repository, or REPO@REVISION: a Hub repository at a 40-hex commit.
    Nothing is written over: if a file is in the way, all such are named and nothing is written
    (exit code 2).
    """
    from driftline.errors import InputError
    from driftline.starter import layout, places, requirement, writer

    top = Path.cwd()
    writer.check_place(top)
    chosen = None if ci == "none" else ci
    if source is None and adapters:
        raise InputError(
            "--adapter needs --source, the checkpoint it was trained on",
            remedy="--source PATH, or --source REPO@REVISION, beside it",
        )
    choice = (
        layout.Choice(ci=chosen)
        if source is None
        else layout.own(
            places.location(source, "--source", top), places.adapters(adapters, top), chosen
        )
    )
    wanted = requirement.installed()
    files = layout.files(choice, wanted)
    fresh = writer.write(files, top)
    click.echo(_summary(files, fresh))
    if wanted.local:
        click.echo(
            f"note: this driftline was installed from a local path, which requirements.txt cannot "
            f"name; it says {wanted.line}\n"
            "      until an index has that: make run PIP_ARGS='--find-links FOLDER_OF_THE_WHEEL'"
        )
    if not choice.example:
        click.echo("first: replace the items of evalsets/golden.jsonl by your own; driftline check")
    click.echo("next:  git add -A; git commit")
    click.echo("       make run    sets up .venv, runs every conversion and cell, writes reports/")
    click.echo("       make test   checks the project, verifies the evidence, asks the gate")


def _summary(files: dict[str, bytes], fresh: list[str]) -> str:
    """`written: 24 files: Makefile, dvc.yaml, models/ (10), …`."""
    if not fresh:
        return f"nothing to write: all {len(files)} files are here as they would be written"
    groups: dict[str, int] = {}
    for name in fresh:
        top, slash, _ = name.partition("/")
        groups[top + slash] = groups.get(top + slash, 0) + 1
    shown = [f"{name} ({count})" if name.endswith("/") else name for name, count in groups.items()]
    return f"written: {len(fresh)} files: {', '.join(shown)}"
