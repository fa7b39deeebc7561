"""The map: tours name the modules, README's tree names the rooms, and no name misleads."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "pipeline" / "driftline"
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
TOURED = re.compile(r"^- `([a-z_0-9]+)`: (.+)", re.M)
SAYS_WHICH = {"schema", "commands", "stages", "report", "report/html", "project/sections"}
"""Rooms that say of a subject's name what of it they have: its file format, its command, …"""
TOOLS = {"conversions", "runtimes", "counterfactual"}
"""Rooms with a module for each tool or format, which goes by its name in all of them."""


def inside(room: Path) -> str:
    return room.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("room", ROOMS, ids=inside)
def test_the_tour_of_a_room_names_every_module_in_it_and_no_other(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    tour = ast.get_docstring(tree) or ""
    assert len(tree.body) == 1, "a tour has no code"
    head = tour.partition("\n")[0]
    assert head.endswith((".", "?")), head
    modules = {path.stem for path in room.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in room.glob("*/__init__.py")}
    named = [name for name, _ in TOURED.findall(tour)]
    assert set(named) == modules | folders, set(named) ^ (modules | folders)
    assert len(named) == len(set(named))


def test_readmes_tree_names_every_room_and_top_module() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.partition("## The tree")[2].partition("```")[2].partition("```")[0]
    named = set(re.findall(r"(?<![\w/.])([a-z_]+/|[a-z_]+\.py)", tree))
    rooms = {f"{room.name}/" for room in ROOMS if room.parent == PACKAGE}
    tops = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py"}
    assert rooms | tops <= named, (rooms | tops) - named
    listed = tree.partition("pipeline/driftline/")[2].partition("evalsets/")[0]
    assert set(re.findall(r"(?:^  | {3,})([a-z_]+/)", listed, re.M)) == rooms


def test_paths_that_documents_name_are_there() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        text = document.read_text(encoding="utf-8")
        for path in re.findall(r"`((?:pipeline|tests|benchmarks)/[\w/.]+?)`", text):
            assert (ROOT / path).exists(), (document.name, path)
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = "|".join(room.name for room in ROOMS)
    for path in re.findall(rf"`((?:{rooms})/\w+\.py)`", recipes):
        assert (PACKAGE / path).exists(), path


def test_two_modules_share_a_name_only_where_the_room_says_which_is_which() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        if path.name != "__init__.py":
            places[path.stem].append(inside(path.parent))
    unclear = {}
    for name, rooms in places.items():
        if name in {room.name for room in ROOMS}:  # a room's own word, as in `schema/release`
            continue
        own = [room for room in rooms if room not in SAYS_WHICH]
        if len(own) > 1 and not {Path(room).name for room in own} <= TOOLS:
            unclear[name] = own
    assert unclear == {}
