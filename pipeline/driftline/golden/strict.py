"""Parsers that judge an expectation in an evalset and a model's answer alike: strict, and bounded.

Text is hostile here: it is read within limits, and what is quoted of it is escaped and clipped.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from pydantic import JsonValue

STEPS_PER_TOKEN = 200
"""How often the SQL parser may step over each token; ordinary queries need fewer than 10."""


def strict_json(text: str) -> JsonValue:
    """Parse JSON as RFC 8259 has it: no duplicate key, no NaN, no infinity, nothing after it.

    Raises:
        ValueError: what is wrong, in words for a user.
    """
    value, faults = parse_json(text)
    if faults:
        raise ValueError("; ".join(faults))
    return value


def parse_json(text: str) -> tuple[JsonValue, list[str]]:
    """Parse JSON and go on where it is merely not strict; None when it is not JSON at all."""
    faults: list[str] = []

    def unique(pairs: list[tuple[str, JsonValue]]) -> JsonValue:
        repeated = dict.fromkeys(key for key, _ in pairs)
        for key, _ in pairs:
            if key not in repeated:
                faults.append(f"duplicate key {quoted(key)}")
            repeated.pop(key, None)
        return dict(pairs)

    def constant(word: str) -> JsonValue:
        faults.append(f"{word} is not JSON")
        return 0.0

    def number(digits: str) -> JsonValue:
        if math.isinf(float(digits)):
            faults.append(f"the number {quoted(digits)} is too large")
            return 0.0
        return float(digits)

    try:
        value: JsonValue = json.loads(
            text, object_pairs_hook=unique, parse_constant=constant, parse_float=number
        )
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if "\n" in text else ""
        return None, [*faults, f"not JSON: {error.msg} at {line}column {error.colno}"]
    except RecursionError:
        return None, [*faults, "not JSON that can be read: nested too deeply"]
    except ValueError:  # int() takes no more than 4300 digits
        return None, [*faults, "not JSON that can be read: a number has too many digits"]
    return value, faults


def sql_statements(sql: str, dialect: str) -> list[Any]:
    """Parse SQL into sqlglot trees, one per statement.

    sqlglot takes any words for a column and its alias ("I cannot"), and keeps what it does not know
    ("SHOW …") as raw text; neither can be compared, so only queries and statements that change
    data or tables pass.

    Raises:
        ValueError: it does not parse in that dialect, in words for a user.
    """
    from sqlglot import Dialect, exp
    from sqlglot.errors import ParseError, SqlglotError

    known = (exp.Query, exp.DML, exp.DDL, exp.Values, exp.Drop, exp.Alter, exp.TruncateTable)
    try:
        with _silent("sqlglot"):
            tokens = Dialect.get_or_raise(dialect).tokenize(sql)
            parser = _sql_parser(dialect)(dialect=dialect)
            trees = [tree for tree in parser.parse(tokens, sql) if tree is not None]
    except ParseError as error:
        first = error.errors[0]
        what = str(first["description"]).partition(" but got <Token")[0]
        at = f"line {first['line']} column {first['col']}"
        raise ValueError(f"not SQL: {what} at {at}") from None
    except SqlglotError:
        raise ValueError("not SQL: a quote or comment is not closed") from None
    except (RecursionError, TimeoutError):
        raise ValueError("not SQL that can be read: nested too deeply") from None
    if not trees:
        raise ValueError("not SQL: no statement")
    for tree in trees:
        if not isinstance(tree, known):
            raise ValueError(f"not a query or a statement that can be compared: {tree.key}")
    return trees


@cache
def _sql_parser(dialect: str) -> Any:
    """The dialect's parser, stopped by a TimeoutError when it tries too many readings.

    sqlglot backtracks: a model that repeats "JOIN t" forty times would keep it busy for years. What
    is counted is tokens stepped over, not seconds, so that the same text always ends the same way.
    """
    from sqlglot import Dialect

    base: Any = Dialect.get_or_raise(dialect).parser_class

    def advance(self: Any, times: int = 1) -> None:
        base._advance(self, times)
        self._steps = getattr(self, "_steps", 0) + 1
        if self._steps > STEPS_PER_TOKEN * (len(self._tokens) + 10):
            raise TimeoutError

    return type(base)("BoundedParser", (base,), {"_advance": advance})


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library from logging the text it reads, which may be a model's."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


# ----------------------------------------------------------------------------------- safe text


def quoted(text: str, limit: int = 40) -> str:
    """Text in quotes, clipped to `limit` characters, with everything unprintable escaped."""
    return repr(text) if len(text) <= limit else repr(text[:limit]) + "…"


def one_line(text: str, limit: int) -> str:
    """Text of at most `limit` characters in which everything unprintable is escaped."""
    safe = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"
