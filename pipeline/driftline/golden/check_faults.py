"""What would keep a well-formed check from ever saying something about an answer; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from driftline.errors import did_you_mean
from driftline.golden.strict import parse_json, quoted, sql_statements
from driftline.schema.items import (
    Canary,
    Check,
    Contains,
    Exact,
    JsonEqual,
    JsonSchema,
    NotContains,
    Regex,
    SqlEqual,
)

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def check_faults(check: Check, reference: Any) -> list[str]:
    """What would keep a well-formed check from ever saying something about an answer.

    Args:
        check: the check.
        reference: the item's reference answer, as found in the file.

    Returns:
        Each fault as the rest of a sentence that begins with the check's place.
    """
    faults: list[str] = []
    match check:
        case Contains(value="") | NotContains(value=""):
            faults = [".value: empty: every answer contains it"]
        case Canary(phrase=""):
            faults = [".phrase: empty: every answer contains it"]
        case Regex():
            faults = _pattern_faults(".pattern", check.pattern)
        case JsonSchema():
            # Items of one task share a schema, and judging one takes longer than all the rest.
            faults = list(_schema_faults(json.dumps(check.json_schema)))
        case SqlEqual():
            faults = _sql_faults(check, reference)
        case Exact(value=None) | JsonEqual(value=None) if reference is None:
            faults = [f': {check.kind} needs "value", or the item needs "reference"']
        case JsonEqual(value=None) if isinstance(reference, str):
            faults = [f": the item's reference: {fault}" for fault in parse_json(reference)[1]]
    return faults


def _pattern_faults(where: str, pattern: str) -> list[str]:
    import regex

    try:
        regex.compile(pattern)
    except regex.error as error:
        return [f"{where}: not a regular expression: {error} of {quoted(pattern)}"]
    return []


@cache
def _schema_faults(text: str) -> tuple[str, ...]:
    from jsonschema import Draft202012Validator, SchemaError
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT202012

    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return (f".json_schema: {error.json_path}: {error.message}",)
    except RecursionError:
        return (".json_schema: nested too deeply to check",)
    root: Resource[Any] = DRAFT202012.create_resource(schema)
    resolver = Registry[Any]().resolver_with_root(root)
    faults: list[str] = []
    for scope, contents in _subschemas(root, resolver):
        faults += _reference_faults(scope, contents)
        for pattern in (*contents.get("patternProperties", ()), contents.get("pattern", "")):
            faults += _pattern_faults(".json_schema", pattern)
    return tuple(faults)


def _reference_faults(resolver: Any, schema: dict[str, Any]) -> Iterator[str]:
    """References of one schema that lead out of the document, and a `$schema` of another draft."""
    from referencing.exceptions import Unresolvable

    for key in ("$ref", "$dynamicRef"):
        try:
            if key in schema:
                resolver.lookup(schema[key])
        except (Unresolvable, ValueError):  # ValueError: not a URI at all
            what = f"{quoted(schema[key])} is not in this schema, and none is ever fetched"
            yield f".json_schema: {key}: {what}"
    if schema.get("$schema", DRAFT).rstrip("#") != DRAFT:
        yield f".json_schema: $schema: only {DRAFT} is known; found {quoted(schema['$schema'])}"


def _subschemas(resource: Any, resolver: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every object of a schema that is itself a schema, with what resolves its references."""
    if isinstance(resource.contents, dict):
        yield resolver, resource.contents
    for inner in resource.subresources():
        yield from _subschemas(inner, resolver.in_subresource(inner))


def _sql_faults(check: SqlEqual, reference: Any) -> list[str]:
    from sqlglot import Dialects

    dialects = [dialect.value for dialect in Dialects]
    if check.dialect not in dialects:
        close = did_you_mean(check.dialect, dialects)
        return [f".dialect: unknown dialect {quoted(check.dialect)}{close}"]
    expected = check.value if check.value is not None else reference
    if expected is None:
        return [': sql_equal needs "value", or the item needs "reference"']
    try:
        sql_statements(expected if isinstance(expected, str) else "SELECT 1", check.dialect)
    except ValueError as error:
        place = ".value" if check.value is not None else ": the item's reference"
        return [f"{place}: {error}"]
    return []
