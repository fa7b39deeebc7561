"""params.yaml as plain data, and one section of it as a typed value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from driftline.errors import InputError, did_you_mean
from driftline.schema.values import Value

PARAMS_FILE = Path("params.yaml")
V = TypeVar("V", bound=Value)


def mapping(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Everything params.yaml says.

    Raises:
        InputError: missing, not YAML, or no mapping.
    """
    if not path.exists():
        raise InputError(f"{path}: not found", remedy="run from the project's top folder")
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {error}", remedy=f"correct {path}") from None
    return as_mapping(data, where=str(path))


def as_mapping(data: Any, *, where: str) -> dict[str, Any]:
    """The data, if it is a mapping.

    Raises:
        InputError: it is not.
    """
    if not isinstance(data, dict):
        raise InputError(f"{where}: expected a mapping", remedy="see docs/params.md")
    return data


def section(kind: type[V], *keys: str) -> V:
    """One section of params.yaml: the value at `keys`, whatever the others say.

    For stages, which read no more than they use: the probe has checked the whole before them.

    Raises:
        InputError: there is none, or it is not of that kind.
    """
    data: Any = mapping()
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return validated(kind, data, where=f"{PARAMS_FILE}: {'.'.join(keys)}")


def validated(kind: type[V], data: Any, *, where: str) -> V:
    """Plain data as a typed value.

    Raises:
        InputError: all problems at once, one line each.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError(
            f"{where}:\n  " + "\n  ".join(explain(problem, kind) for problem in error.errors()),
            remedy=f"correct the keys named above in {where} (docs/params.md lists them all)",
        ) from None


def explain(problem: Any, root: type[Value]) -> str:
    """One pydantic problem as one line that names the key, expected and found."""
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        close = did_you_mean(str(problem["loc"][-1]), _fields_at(root, problem["loc"][:-1]))
        return f"{location}: unknown key{close}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("missing", "value_error"):
        return f"{location}: {message}" if location else message
    return f"{location}: {message}; found {problem['input']!r}"


def _fields_at(root: type[Value], location: tuple[str | int, ...]) -> list[str]:
    """Field names valid at a place in the tree (best effort: through models and dicts of them)."""
    kind: Any = root
    for part in location:
        fields = getattr(kind, "model_fields", {})
        if part in fields:
            kind = fields[part].annotation
            for inner in getattr(kind, "__args__", ()):
                if hasattr(inner, "model_fields"):
                    kind = inner
    return list(getattr(kind, "model_fields", {}))
