"""`driftline`: what surrounds `dvc repro`."""

from __future__ import annotations

import sys

import click

from driftline import __version__
from driftline.commands.bisect import bisect
from driftline.commands.common import clean, dvc
from driftline.commands.compare import compare, same
from driftline.commands.gate import bless, gate
from driftline.commands.import_cells import import_cells
from driftline.commands.init import init
from driftline.commands.release import release
from driftline.commands.show import show
from driftline.commands.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="driftline")
def main() -> None:
    """Trace the quality drift of a converted model to the conversion that caused it.

    Exit codes: 0 pass, 1 gate failed, 2 bad input or configuration, 3 integrity or policy refusal,
    4 a runtime or tool failed, 5 unstable.
    """


@main.command()
@click.option("--force", is_flag=True, help="Run every stage again, whatever changed.")
@click.option(
    "--only", multiple=True, metavar="RUNTIME", help="Just the cells of this runtime; repeatable."
)
@clean
def run(force: bool, only: tuple[str, ...]) -> None:
    """Check the project, then `dvc repro`: only what changed runs.

    With --only this machine makes cells for another one: nothing but their score stages runs, and
    what they read is pulled (docs/machines.md).
    """
    from driftline.commands import check
    from driftline.commands import only as elsewhere

    check.project()
    if only:
        if elsewhere.run(only, force=force):
            sys.exit(check.exit_code_of_failed_run())
        click.echo("next: git add dvc.lock; git commit; git push; dvc push")
        return
    if dvc("repro", *(["--force"] if force else [])):
        sys.exit(check.exit_code_of_failed_run())
    click.echo("report: reports/lineage.html   one item: driftline explain EVALSET/ITEM")


@main.command()
@clean
def check() -> None:
    """Check params.yaml, evalsets, source and adapters; nothing is loaded or written."""
    from driftline.commands import check as checks

    click.echo(checks.project())


@main.command()
@clean
def doctor() -> None:
    """Which runtimes are here, in which versions, and the install line of those that are not."""
    from driftline.commands import check as checks

    lines, complete = checks.runtimes()
    click.echo("\n".join(lines))
    sys.exit(0 if complete else 4)


@main.command()
@clean
def plan() -> None:
    """List the cells of this project and the stage that scores each."""
    from driftline.project import params
    from driftline.project import plan as planning

    project = params.read()
    for cell in planning.planned(project):
        click.echo(f"{cell.spec.id:40} dvc repro {planning.stage(project, cell)}")


@main.command()
@click.argument("item", metavar="EVALSET/ITEM")
@clean
def explain(item: str) -> None:
    """One item's way through the graph: prompt, answer per cell, where it first changed."""
    from driftline.project import params
    from driftline.project import plan as planning
    from driftline.report.explain import explain_item
    from driftline.report.gather import read

    project = params.read()
    commands = {
        cell.spec.id: f"dvc repro --single-item --force {planning.stage(project, cell)}"
        for cell in planning.planned(project)
    }
    click.echo(explain_item(read(project), item, commands))


@main.command()
@click.argument("hop", metavar="CELL")
@click.option("--sequences", default=60, show_default=True, help="Most sequences to force.")
@clean
def budget(hop: str, sequences: int) -> None:
    """Which stored tensors cost how much, on the conversion that leads to CELL.

    One layer x module group of its weights at a time is swapped into the parent's, in the reference
    runtime, and the text is teacher-forced again.
    """
    from rich.console import Console

    from driftline.budget import measure
    from driftline.progress import progress
    from driftline.project import params
    from driftline.report import heatmap

    project = params.read()
    with progress("budget") as report:
        measured = measure.measure(project, hop, most=sequences, say=report)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(heatmap.table(measured))
    ratio = "–" if measured.additivity is None else f"{measured.additivity:.3f}"
    click.echo("costliest groups:")
    click.echo("\n".join(f"  {line}" for line in heatmap.worst(measured, 5)))
    click.echo(f"{measured.hop}, {measured.positions} positions, mean KL in nats")
    click.echo(f"zero control (nothing swapped): {measured.control:g}")
    click.echo(f"everything swapped: {measured.whole:.3g}; sum of groups over it: {ratio}")
    data, picture = measure.write(project, measured)
    click.echo(f"written: {data}, {picture}")


@main.command()
@click.option("--only", multiple=True, metavar="NAME", help="Plant just this fault; repeatable.")
@click.option("--clean/--no-clean", default=True, help="Run pipelines without a fault as well.")
@clean
def faultbench(only: tuple[str, ...], clean: bool) -> None:
    """Plant faults in healthy pipelines, and see whether each is blamed on its hop and component.

    Exit code 1 when one is not, or when a clean pipeline is blamed for anything.
    """
    from driftline.faults import show

    sys.exit(0 if show.run(only, with_clean=clean) else 1)


@main.command("fetch-converter")
@clean
def fetch_converter() -> None:
    """Take the GGUF converter out of the source of the installed llama-cpp-python."""
    from driftline.conversions import llama_cpp_source

    click.echo(f"converter: {llama_cpp_source.fetch()}")


main.add_command(bisect)
main.add_command(bless)
main.add_command(compare)
main.add_command(gate)
main.add_command(import_cells)
main.add_command(init)
main.add_command(release)
main.add_command(same)
main.add_command(show)
main.add_command(verify)

if __name__ == "__main__":
    main()
