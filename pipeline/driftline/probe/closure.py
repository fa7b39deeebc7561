"""The code of every stage: DVC does not follow imports, so the probe does it for DVC.

A stage's code is the import closure of its module inside this package, plus the closure of the
classes it loads by name: of a score stage the runtime's, of a counterfactual the format's, as the
table of routes has them. The table itself is no part of it: what a row says reaches a cell through
its task. A package's `__init__.py` counts where something is imported from it by name.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from driftline.project import routes

PACKAGE = Path(__file__).resolve().parents[1]
SCORE, COUNTERFACTUAL = "score_", "counterfactual_"
NOT_LISTED = ("__init__", "probe", "score", "counterfactual")
"""Stages without a listing of that name: one always runs, two have one for each class they load."""
STAGES = tuple(
    sorted(path.stem for path in (PACKAGE / "stages").glob("*.py") if path.stem not in NOT_LISTED)
)


@cache
def imported(path: Path) -> tuple[Path, ...]:
    """Files of the package that the module at `path` imports, at any depth of its code."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[Path]:
    for node in _run(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(alias.name)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                below = list(_module(f"{node.module}.{alias.name}"))
                yield from below or _module(node.module)


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below one, but for what only a type checker reads: it is never imported."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from _run(child)


def _module(dotted: str) -> Iterator[Path]:
    parts = dotted.split(".")
    root = _roots().get(parts[0])
    if root is None:
        return
    base = root.joinpath(*parts)
    if base.with_suffix(".py").exists():
        yield base.with_suffix(".py")
    elif (base / "__init__.py").exists():
        yield base / "__init__.py"


@cache
def _roots() -> dict[str, Path]:
    """Where packages lie whose code is listed, by name: ours, and those that bring a runtime."""
    roots = {PACKAGE.name: PACKAGE.parent}
    for target in routes.targets().values():
        top = target.partition(":")[0].partition(".")[0]
        spec = None if top in roots else find_spec(top)
        if spec is not None and spec.origin is not None:
            is_package = spec.submodule_search_locations is not None
            roots[top] = Path(spec.origin).resolve().parents[1 if is_package else 0]
    return roots


def closure(*modules: str) -> list[Path]:
    """Import closure of dotted modules, with the templates a report reads."""
    waiting = [path for module in modules for path in _module(module)]
    files: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in files:
            files.add(path)
            waiting += imported(path)
    if PACKAGE / "report" / "markdown.py" in files:
        templates = (PACKAGE / "report" / "templates").rglob("*")
        files.update(path for path in templates if path.is_file())
    return sorted(files)


def code_names() -> tuple[str, ...]:
    """The names code goes by: a stage's, `score_<runtime>`, `counterfactual_<format>`."""
    return tuple(_modules())


def code_of_stages() -> dict[str, list[Path]]:
    """Code by the name its digest goes by."""
    return {name: closure(*modules) for name, modules in _modules().items()}


def _modules() -> dict[str, tuple[str, ...]]:
    """The modules that each name stands for, with all they import."""
    stages = {name: (f"driftline.stages.{name}",) for name in STAGES}
    loaders = routes.counterfactuals()
    every = tuple(_module_of(target) for target in loaders.values())
    return {
        **stages,
        "control": (*stages["control"], *every),
        f"{COUNTERFACTUAL}merged": ("driftline.stages.counterfactual",),
        **{
            f"{COUNTERFACTUAL}{name}": ("driftline.stages.counterfactual", _module_of(target))
            for name, target in loaders.items()
        },
        **{
            f"{SCORE}{name}": ("driftline.stages.score", _module_of(target))
            for name, target in routes.targets().items()
        },
    }


def _module_of(target: str) -> str:
    return target.partition(":")[0]


def listing(files: list[Path]) -> str:
    """One line per file, as `sha256sum` prints them, with paths from the package's top."""
    return "".join(f"{_sha256(path)}  {_name(path)}\n" for path in files)


def _name(path: Path) -> str:
    """A file from its package's top, with the package's name where that is not ours."""
    if path.is_relative_to(PACKAGE):
        return path.relative_to(PACKAGE).as_posix()
    root = next(root for root in _roots().values() if path.is_relative_to(root))
    return path.relative_to(root).as_posix()


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
