"""What was installed where something ran, as it lies beside what it made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from driftline.errors import RefusedError
from driftline.schema.imports import Machine
from driftline.store import records


def environment(folder: Path) -> dict[str, Any]:
    """What was installed where the cell in `folder` ran; empty when it does not say.

    Raises:
        RefusedError: the file is there, and no environment.
    """
    path = folder / records.ENVIRONMENT
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RefusedError(f"{records.ENVIRONMENT}: not an environment", remedy="dvc repro")
    return value


def machine_of(environment: Mapping[str, Any]) -> Machine:
    """Where an environment is."""
    return Machine(**{name: str(environment.get(name, "")) for name in Machine.model_fields})


def software_of(environment: Mapping[str, Any]) -> dict[str, str]:
    """Versions by name of what an environment's runtime is made of, and of Python."""
    installed = environment.get("distributions") or {}
    versions = {name: str(each.get("version", "")) for name, each in installed.items()}
    return {"python": str(environment.get("python", "")), **versions}
