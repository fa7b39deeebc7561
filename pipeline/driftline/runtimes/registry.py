"""From the name of a runtime's class to the class, and to the Python that runs it."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from driftline.runtimes.base import Runtime, Software


def resolve(target: str) -> type[Runtime]:
    """Import a runtime's class, `module:Class`; what it runs with is imported by its methods."""
    module, _, attribute = target.partition(":")
    runtime: type[Runtime] = getattr(importlib.import_module(module), attribute)
    return runtime


def interpreter(name: str, software: Software) -> Path | None:
    """The Python that runs a runtime: `DRIFTLINE_<NAME>_PYTHON`, its own environment's, or ours.

    None when the runtime has an environment of its own and it does not exist.
    """
    override = os.environ.get(f"DRIFTLINE_{name.upper().replace('-', '_')}_PYTHON")
    if override:
        return Path(override)
    if software.venv is None:
        return Path(sys.executable)
    python = Path(software.venv, "bin", "python").absolute()
    return python if python.exists() else None
