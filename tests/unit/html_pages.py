"""Reading a rendered page in tests: as a browser would, and strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import html5lib

OWN = re.compile(r"<(style|script)>.*?</\1>", re.S)


def tree(page: str) -> Any:
    """The page as a browser reads it; anything a browser would have to repair fails."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    root = parser.parse(page)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2] if isinstance(node.tag, str) else "comment"
    return root


def xml(page: str) -> Any:
    """The page as XML: every element closed, every attribute quoted."""
    return ElementTree.fromstring(OWN.sub("", page).removeprefix("<!DOCTYPE html>"))


def words(node: Any) -> str:
    """Text of an element, its spaces as one."""
    return " ".join("".join(node.itertext()).split())


def named(root: Any, anchor: str) -> Any:
    """The element with an id."""
    return next(node for node in root.iter() if node.get("id") == anchor)


def rows(table: Any) -> list[list[str]]:
    """Texts of the cells of every row."""
    return [[words(cell) for cell in row if cell.tag in ("th", "td")] for row in table.iter("tr")]


def tables(root: Any, kind: str) -> Iterator[Any]:
    """Tables of a class."""
    return (node for node in root.iter("table") if kind in node.get("class", "").split())
