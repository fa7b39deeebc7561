"""Answers of the working tree for the items a gate report names, each checked by the evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from driftline.evidence import scored
from driftline.evidence.lineage import Evidence
from driftline.publish.junit import Answers
from driftline.schema.answers import Completion
from driftline.schema.gate import GateReport
from driftline.schema.items import GoldenPrompt
from driftline.schema.values import Value, canonical
from driftline.store import records
from driftline.store.digest import sha256_text

V = TypeVar("V", bound=Value)


def answers(report: GateReport, evidence: Evidence) -> Answers:
    """Text of the cells and items that checks which stop are about, as far as it is here.

    Laws: an answer is from the very file whose sha256 the cell's record has, what was expected from
    an item whose sha256 the evidence has. A file that is missing, is another one or cannot be read
    gives no text and no error.
    """
    named = {row.cell for row in report.stops if row.keys}
    return Answers(
        given={name: _given(evidence, name) for name in sorted(named & evidence.cells.keys())},
        expected=_expected(evidence) if named else {},
    )


def _given(evidence: Evidence, cell: str) -> dict[str, str]:
    data = _read(scored.CELLS / cell / records.COMPLETIONS)
    if hashlib.sha256(data).hexdigest() != evidence.cells[cell].completions_sha256:
        return {}
    return {answer.key: answer.text for answer in _lines(Completion, data)}


def _expected(evidence: Evidence) -> dict[str, str]:
    known = {
        f"{each.name}/{item.id}": item.sha256
        for each in evidence.index.evalsets
        for item in evidence.evalset(each.name).values()
    }
    return {
        item.key: item.reference
        for item in _lines(GoldenPrompt, _read(scored.ITEMS))
        if item.reference is not None and known.get(item.key) == sha256_text(canonical(item))
    }


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.is_file() else b""
    except OSError:
        return b""


def _lines(kind: type[V], data: bytes) -> Iterator[V]:
    """Values up to the first line that is none."""
    try:
        for line in data.splitlines():
            yield kind.model_validate_json(line)
    except ValueError:
        return
