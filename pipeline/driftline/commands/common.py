"""What every command of `driftline` shares."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
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


def dvc(*arguments: str, **environment: str) -> int:
    """Run DVC on the project; its exit code."""
    # Stages are run as `python -m …`: it has to be this Python, activated or not.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, env={**os.environ, "PATH": path, **environment}, check=False)
    return done.returncode
