"""What every command of `driftline` shares."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from driftline.errors import DriftlineError


def clean(command: Callable[..., None]) -> Callable[..., None]:
    """Print a `DriftlineError` and leave with its exit code, without a traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except DriftlineError as error:
            click.echo(str(error), err=True)
            sys.exit(error.exit_code)

    return guarded
