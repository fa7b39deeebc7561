"""One input before and after, and what every kind of input is told apart and shown with; pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from driftline.schema.comparison import PRESENT, Detail
from driftline.schema.values import canonical_json

Key = tuple[str, str]
"""Kind and name of an input."""
K = TypeVar("K")

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


@dataclass(frozen=True)
class Sides:
    """Before and after of one input, on the way to an `InputChange`."""

    before: str
    after: str
    details: tuple[Detail, ...] = ()


def differing(old: Mapping[K, Any], new: Mapping[K, Any]) -> Iterator[tuple[K, Any, Any]]:
    """Keys whose values differ, sorted, with both; None where a side has no such key."""
    for key in sorted(old.keys() | new.keys(), key=str):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield key, before, after


def text_of(value: Any) -> str:
    """A plain value in few characters; nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_json(value)


def short(text: str) -> str:
    """Every sha256 in a text by its first 12 digits."""
    return _DIGEST.sub(r"\1…", text)


def short_digest(digest: str | None) -> str:
    """A sha256 by its first 12 digits."""
    return digest[:12] if digest else "none"


def there(name: str, *, before: bool, after: bool) -> Detail:
    """That something is on one side alone."""
    return Detail(what=name, before=PRESENT if before else "", after=PRESENT if after else "")


def value_at(params: Mapping[str, Any], *keys: str) -> Any:
    """A value of params.yaml; an empty mapping where there is none."""
    value: Any = params
    for key in keys:
        value = value.get(key, {}) if isinstance(value, Mapping) else {}
    return {} if value is None else value
