"""The gate as annotations of GitHub Actions: workflow commands, one a line; pure.

Formats: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from driftline.gate import words
from driftline.report.escape import visible
from driftline.schema.gate import GateReport, GateVerdict

LIMIT = 10
"""Annotations that GitHub shows of one kind and step; more are dropped without a word."""
MESSAGE = 600


class _Note(NamedTuple):
    """One annotation: its title and lines are not escaped yet."""

    kind: Literal["error", "notice"]
    title: str
    lines: tuple[str, ...]


def commands(report: GateReport, limit: int = LIMIT) -> tuple[str, ...]:
    """At most `limit` commands in the report's order, the last of which says how many are left out.

    What stops the gate is an error, what was accepted and every note a notice.
    """
    notes = list(_notes(report))
    if len(notes) > limit:
        rest = notes[limit - 1 :]
        said = f"{len(rest)} more: `driftline gate` prints all of them"
        notes = [*notes[: limit - 1], _Note(rest[0].kind, "gate", (said,))]
    return tuple(_command(note) for note in notes)


def _notes(report: GateReport) -> Iterator[_Note]:
    for row in report.stops:
        yield _Note("error", f"gate {row.verdict}: {row.id}", tuple(_lines(row)))
    for row in report.accepted:
        if row.blessed:
            said = (_found(row), words.accepted(row.blessed))
            yield _Note("notice", f"gate accepted: {row.id}", said)
    for text in words.notes(report):
        yield _Note("notice", "gate note", (text,))


def _lines(row: GateVerdict) -> Iterator[str]:
    yield _found(row)
    for name, text in (("items", words.items(row)), ("look closer", row.look)):
        if text:
            yield f"{name}: {text}"
    if row.remark:
        yield row.remark


def _found(row: GateVerdict) -> str:
    return f"{words.subject(row)}: {words.said(row)}"


def _command(note: _Note) -> str:
    message = "\n".join(visible(line, MESSAGE) for line in note.lines)
    return f"::{note.kind} title={_property(visible(note.title))}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
