"""The package in figures: rooms, arrows between them, floors, top modules, lengths of functions.

    python -m benchmarks.structure [FOLDER_OF_A_PACKAGE ...]

A room is a folder of the package, or a module at its top. An arrow goes from a room to another one
that any of its modules imports, at any depth of its code. Floors are the longest way along arrows;
rooms that import each other in a circle stand on one floor and are counted. The length of a
function is that of its body without the docstring, in lines.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "pipeline" / "driftline"


@dataclass(frozen=True)
class Structure:
    """What was counted: `lengths` are sorted."""

    modules: int
    top_modules: int
    rooms: int
    arrows: int
    floors: int
    in_circles: int
    lengths: tuple[int, ...]

    def length_at(self, share: float) -> int:
        """Of functions, the length that a share of them does not exceed."""
        return self.lengths[min(len(self.lengths) - 1, int(share * len(self.lengths)))]


def measure(package: Path) -> Structure:
    """Count one package, from its files alone: nothing is imported."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    arrows: dict[str, set[str]] = {}
    for path, tree in trees.items():
        own = _room(package, path)
        targets = {_room(package, each) for each in _imported(package, tree)}
        arrows.setdefault(own, set()).update(targets - {own})
    circles = {room for room in arrows if room in _reached(arrows, room)}
    tops = [path for path in trees if path.parent == package and path.name != "__init__.py"]
    return Structure(
        modules=len(trees),
        top_modules=len(tops),
        rooms=len(arrows),
        arrows=sum(len(targets) for targets in arrows.values()),
        floors=_floors(arrows),
        in_circles=len(circles),
        lengths=tuple(sorted(length for tree in trees.values() for length in _lengths(tree))),
    )


def _room(package: Path, path: Path) -> str:
    inside = path.relative_to(package)
    return inside.stem if len(inside.parts) == 1 else inside.parent.as_posix()


def _imported(package: Path, tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                below = _file(package, f"{node.module}.{alias.name}")
                if found := below or _file(package, node.module):
                    yield found


def _file(package: Path, dotted: str) -> Path | None:
    top, *parts = dotted.split(".")
    if top != package.name:
        return None
    base = package.joinpath(*parts)
    candidates = (base.with_suffix(".py"), base / "__init__.py") if parts else ()
    return next((path for path in candidates if path.is_file()), None)


def _reached(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [*arrows[start]]
    while waiting:
        room = waiting.pop()
        if room not in seen:
            seen.add(room)
            waiting += arrows.get(room, ())
    return seen


def _floors(arrows: Mapping[str, set[str]]) -> int:
    @cache
    def floor(room: str) -> int:
        below = [each for each in arrows.get(room, ()) if room not in _reached(arrows, each)]
        return 1 + max((floor(each) for each in below), default=0)

    return max(floor(room) for room in arrows)


def _lengths(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def main() -> None:
    """Print one line a figure, a column a package."""
    packages = [Path(each) for each in sys.argv[1:]] or [PACKAGE]
    counted = [measure(package) for package in packages]
    for name in ("modules", "top_modules", "rooms", "arrows", "floors", "in_circles"):
        print(f"{name:16}" + "".join(f"{getattr(each, name):8}" for each in counted))
    for name, share in (("function median", 0.5), ("function p90", 0.9), ("function max", 1.0)):
        print(f"{name:16}" + "".join(f"{each.length_at(share):8}" for each in counted))


if __name__ == "__main__":
    main()
