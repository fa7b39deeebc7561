"""The code of every stage: DVC does not follow imports, so the probe does it for DVC.

A stage's code is the import closure of its module inside this package, plus the closure of what it
imports by a name in a table: a score stage its runtime's module, a stage that loads stored weights
every format's. A package's `__init__.py` counts where something is imported from it by name.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from driftline.counterfactual.base import FORMATS
from driftline.runtimes.registry import RUNTIMES

PACKAGE = Path(__file__).resolve().parents[1]
STAGES = (
    "pin",
    "merge",
    "convert_gguf",
    "quantize",
    "convert_mlx",
    "prompts",
    "control",
    "counterfactual",
    "grade",
    "drift",
    "lineage",
    "report",
)

LOADING = ("control", "counterfactual")
"""Stages that load stored weights."""


@cache
def imported(path: Path) -> tuple[Path, ...]:
    """Files of the package that the module at `path` imports, at any depth of its code."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                below = list(_module(f"{node.module}.{alias.name}"))
                yield from below or _module(node.module)


def _module(dotted: str) -> Iterator[Path]:
    if dotted.partition(".")[0] != PACKAGE.name:
        return
    base = PACKAGE.joinpath(*dotted.split(".")[1:])
    if base.with_suffix(".py").exists():
        yield base.with_suffix(".py")
    elif (base / "__init__.py").exists():
        yield base / "__init__.py"


def closure(*modules: str) -> list[Path]:
    """Import closure of dotted modules inside the package, with the templates a report reads."""
    waiting = [path for module in modules for path in _module(module)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path)
    if PACKAGE / "report" / "markdown.py" in found:
        templates = (PACKAGE / "report" / "templates").rglob("*")
        found.update(path for path in templates if path.is_file())
    return sorted(found)


def code_names() -> tuple[str, ...]:
    """The names code goes by: a stage's, or `score_<runtime>`."""
    return (*STAGES, *(f"score_{runtime}" for runtime in RUNTIMES))


def code_of_stages() -> dict[str, list[Path]]:
    """Code by the name its digest goes by: a stage's, or `score_<runtime>`."""
    code = {name: closure(f"driftline.stages.{name}") for name in STAGES}
    formats = [target.partition(":")[0] for target in FORMATS.values()]
    for name in LOADING:
        code[name] = closure(f"driftline.stages.{name}", *formats)
    for runtime, entry in RUNTIMES.items():
        code[f"score_{runtime}"] = closure("driftline.stages.score", entry.module)
    return code


def listing(files: list[Path]) -> str:
    """One line per file, as `sha256sum` prints them, with paths from the package's top."""
    return "".join(f"{_sha256(path)}  {path.relative_to(PACKAGE).as_posix()}\n" for path in files)


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
