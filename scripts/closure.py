"""Code dependencies of every stage: DVC does not follow imports, so dvc.yaml has to name them.

    python -m scripts.closure           # exit code 1 and a diff when dvc.yaml is not exact
    python -m scripts.closure --write   # bring dvc.yaml up to date

A stage's code is the import closure of its module inside `pipeline/`, plus, for a score stage, the
closure of its runtime's module, which the registry names and the worker imports. A package's
`__init__.py` counts where something is imported from it by name.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.runtimes.registry import RUNTIMES

ROOT = Path(__file__).resolve().parent.parent
DVC_FILE = ROOT / "dvc.yaml"


def imported(path: Path) -> Iterator[Path]:
    """Files of `pipeline/` that the module at `path` imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                below = list(_module(f"{node.module}.{alias.name}"))
                yield from below or _module(node.module)


def _module(dotted: str) -> Iterator[Path]:
    if dotted.partition(".")[0] != "pipeline":
        return
    base = ROOT.joinpath(*dotted.split("."))
    if base.with_suffix(".py").exists():
        yield base.with_suffix(".py")
    elif (base / "__init__.py").exists():
        yield base / "__init__.py"


def closure(*modules: str) -> set[str]:
    """Import closure of dotted modules, as paths relative to the project."""
    waiting = [path for module in modules for path in _module(module)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path)
    code = {path.relative_to(ROOT).as_posix() for path in found}
    if "pipeline/report/markdown.py" in code:
        code.add("pipeline/report/templates")
    return code


def wanted(command: str) -> set[str]:
    """Code a stage's command line runs."""
    words = command.split()
    module = words[words.index("-m") + 1]
    runtime = words[words.index("-m") + 2] if module.endswith(".score") else None
    return closure(module, *([RUNTIMES[runtime].module] if runtime else []))


def stages(pipeline: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, definition) of every stage, templates looked into."""
    for name, stage in pipeline["stages"].items():
        yield name, stage.get("do", stage)


def is_code(dependency: object) -> bool:
    """Whether an entry under `deps` is code of the pipeline."""
    return str(dependency).startswith("pipeline/")


def main() -> int:
    """Check or write; returns the exit code."""
    yaml = YAML()
    yaml.width = 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    pipeline = yaml.load(DVC_FILE)
    stale = 0
    for name, stage in stages(pipeline):
        known = [str(entry) for entry in stage.get("deps", []) if is_code(entry)]
        exact = wanted(stage["cmd"])
        for path in sorted(exact - set(known)):
            print(f"{name}: missing  {path}")
        for path in sorted(set(known) - exact):
            print(f"{name}: extra    {path}")
        stale += known != sorted(exact)
        if "--write" in sys.argv:
            data = [entry for entry in stage.get("deps", []) if not is_code(entry)]
            stage["deps"] = [*sorted(exact), *data]
    if "--write" in sys.argv:
        with DVC_FILE.open("w", encoding="utf-8") as file:
            yaml.dump(pipeline, file)
        return 0
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
