"""SQL in a form where spellings of one thing are equal, and where two forms differ; pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from driftline.golden.strict import sql_statements

CONNECTORS = ("and", "or")


@dataclass(frozen=True)
class Form:
    """A node of SQL in the form that is compared; `node` is what it was made of.

    `parts` are its arguments by name, as forms, tuples of forms or plain values.
    """

    kind: str
    parts: dict[str, Any]
    node: Any = field(compare=False, repr=False)


@lru_cache(maxsize=4096)
def forms(sql: str, dialect: str) -> tuple[Any, ...]:
    """Each statement's form; kept, because many cells are asked the same and answer alike."""
    return tuple(_form(tree) for tree in sql_statements(sql, dialect))


def _form(node: Any) -> Any:
    """The form of a sqlglot node, in which spellings of the same thing are equal.

    Identifiers lose their case and quotes, parentheses (the tree has what they say) and the words
    INNER and OUTER of a join (which has its side) go, and AND and OR have their operands in one
    order. Literals stay as they are.
    """
    if isinstance(node, list):
        return tuple(_form(inner) for inner in node)
    if not hasattr(node, "args"):
        return node
    kind = node.key
    if kind == "paren":
        return _form(node.this)
    if kind == "identifier" or kind in ("anonymous", "var"):
        return Form(kind, {**_parts(node), "this": node.name.lower(), "quoted": None}, node)
    if kind in CONNECTORS:
        operands = sorted((_form(inner) for inner in _operands(node, kind)), key=repr)
        return Form(kind, {"operands": tuple(operands)}, node)
    parts = _parts(node)
    if kind == "join" and (parts.get("kind") == "INNER" or parts.get("side")):
        parts.pop("kind", None)
    return Form(kind, parts, node)


def _parts(node: Any) -> dict[str, Any]:
    """A node's arguments as forms, without those that say nothing, in the order of their names."""
    args = sorted(node.args.items())
    return {
        name: _form(arg) for name, arg in args if arg is not None and arg is not False and arg != []
    }


def _operands(node: Any, kind: str) -> Iterator[Any]:
    """The operands of a chain of ANDs (or of ORs), through parentheses."""
    pending = [node]  # a loop: a chain of a thousand ANDs is a thousand levels deep
    while pending:
        node = pending.pop()
        if node.key == "paren":
            pending.append(node.this)
        elif node.key == kind:
            pending += (node.expression, node.this)
        else:
            yield node


def difference(expected: Any, given: Any, place: str) -> tuple[str, Any, Any]:
    """The smallest parts of two unequal forms that differ, and the clause they are in."""
    if isinstance(expected, tuple) and isinstance(given, tuple):
        if len(expected) == len(given):
            one, other = next((a, b) for a, b in zip(expected, given, strict=True) if a != b)
            return difference(one, other, place)
        return place, expected, given
    if not isinstance(expected, Form) or not isinstance(given, Form) or expected.kind != given.kind:
        return place, expected, given
    if expected.kind in CONNECTORS:
        left, right = expected.parts["operands"], given.parts["operands"]
        only = tuple(x for x in left if x not in right), tuple(x for x in right if x not in left)
        return (place, *only) if any(only) else (place, left, right)
    for name in sorted(expected.parts.keys() | given.parts.keys()):
        one, other = expected.parts.get(name), given.parts.get(name)
        if one != other and (isinstance(one, Form | tuple) or isinstance(other, Form | tuple)):
            return difference(one, other, place or name)
    return place, expected, given


def sql_text(form: Any, dialect: str) -> str:
    """A form as SQL, clipped; tuples by their parts."""
    if form is None or form == ():
        return "nothing"
    if isinstance(form, tuple):
        return ", ".join(sql_text(inner, dialect) for inner in form)
    if not isinstance(form, Form):
        return str(form)
    from sqlglot import ErrorLevel

    text = str(form.node.sql(dialect, comments=False, unsupported_level=ErrorLevel.IGNORE))
    return text if len(text) <= 60 else f"{text[:60]}…"
