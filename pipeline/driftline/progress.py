"""Progress of long work: a rich bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all or 0 when unknown)."""

PLAIN_EVERY_S = 10.0


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Yield a `Report` that shows how far `title` is."""
    if sys.stderr.isatty():
        with _bar(title) as report:
            yield report
    else:
        yield _plain(title)


@contextmanager
def _bar(title: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(title), total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(
                task, description=escape(f"{title} · {what}"), completed=done, total=total or None
            )

        yield report


def _plain(title: str) -> Report:
    last = time.monotonic()

    def report(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_EVERY_S:
            last = time.monotonic()
            share = f" {done}/{total}" if total else ""
            sys.stderr.write(f"{title}:{share} {what}\n")
            sys.stderr.flush()

    return report
