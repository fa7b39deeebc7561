"""Errors a user can act on: what, where, expected against found, and the exact remedy.

Every message fits one screen and never carries a traceback. The exit codes are part of the command
line's contract: 0 pass, 1 gate failed, 2 bad input or configuration, 3 integrity or policy refusal,
4 runtime or infrastructure error, 5 unstable.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import ClassVar, ParamSpec

P = ParamSpec("P")


class DriftlineError(Exception):
    """Base of every error shown to a user.

    Args:
        message: what is wrong and where, expected against found; several lines are fine.
        remedy: the exact thing to type or change next.
    """

    exit_code: ClassVar[int] = 4
    label: ClassVar[str] = "error"

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.label}: {self.message}\n  remedy: {self.remedy}"


class InputError(DriftlineError):
    """Bad input or configuration: something the user wrote."""

    exit_code = 2


class RefusedError(DriftlineError):
    """Integrity or policy: files that must not be loaded, or that are not what a record says."""

    exit_code = 3
    label = "refused"


class ToolError(DriftlineError):
    """A conversion tool, a runtime or the machine failed."""

    exit_code = 4


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` when some known word is close, else the empty string."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


LAST_ERROR = Path(".driftline/last-error")
"""Exit code of the stage that failed last: `dvc repro` itself always ends with 255."""


def _remember(code: int) -> None:
    LAST_ERROR.parent.mkdir(exist_ok=True)
    LAST_ERROR.write_text(f"{code}\n")


def exits_cleanly(main: Callable[P, None]) -> Callable[P, None]:
    """Decorate an entry point: a `DriftlineError` is printed and becomes the exit code."""

    @wraps(main)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except DriftlineError as error:
            sys.stderr.write(f"{error}\n")
            _remember(error.exit_code)
            sys.exit(error.exit_code)

    return guarded
