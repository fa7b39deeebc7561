"""The chain of records: does every one follow from its own content and from its parents'? Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from driftline.evidence.lineage import (
    ARTIFACTS,
    CELL,
    CELLS,
    ENVIRONMENTS,
    RECORD,
    TENSORS,
    Evidence,
)
from driftline.project import routes
from driftline.schema.artifacts import BASE, ArtifactRecord
from driftline.schema.cells import CellRecord
from driftline.schema.values import canonical_json
from driftline.store import digest
from driftline.store.digest import Difference

SOURCE = routes.FORMATS["checkpoint"].artifact(BASE, "")
SAYING_ORIGIN = frozenset(
    row.kind
    for row in routes.CONVERSIONS
    if row.format in routes.FORMATS and routes.FORMATS[row.format].says_origin
)
"""Kinds of artifacts whose files name their source."""


def faults(evidence: Evidence, doubted: Collection[str] = ()) -> Iterator[Difference]:
    """Everything in which the records contradict themselves or each other.

    Takes time linear in the records and their ancestors; no artifact is read.

    Args:
        evidence: all records.
        doubted: evidence files known not to be what was written: what they say, and what others
            say of them, is left out.
    """
    known = _Known(evidence, doubted)
    for name, record in evidence.artifacts.items():
        path = f"{ARTIFACTS}/{name}/{RECORD}"
        if path not in doubted:
            for problem in (
                *_content(record, known),
                *_parents(record, known),
                *_provenance(record, known),
            ):
                yield Difference("broken", path, problem)
    for name, cell in evidence.cells.items():
        path = f"{CELLS}/{name}/{CELL}"
        if path not in doubted:
            for problem in _cell(cell, known):
                yield Difference("broken", path, problem)


class _Known:
    """What records are held against: other records, and the digests of evidence files."""

    def __init__(self, evidence: Evidence, doubted: Collection[str]) -> None:
        self.digests = {row.path: row.sha256 for row in evidence.index.files}
        self._artifacts, self._doubted = evidence.artifacts, doubted

    def artifact(self, name: str) -> ArtifactRecord | None:
        return self._artifacts.get(name)

    def ancestors(self, name: str) -> tuple[str, ...]:
        return _ancestors(self._artifacts, name)

    def doubted(self, name: str) -> bool:
        return f"{ARTIFACTS}/{name}/{RECORD}" in self._doubted

    def differs(self, name: str, identity: str) -> str:
        """How an artifact is another one than `identity`; empty where it is not, or doubted."""
        here = self.artifact(name)
        if self.doubted(name) or (here is not None and here.identity == identity):
            return ""
        if here is None:
            return f"{name}, which has no record"
        return f"{name} {identity[:12]}…, whose record says {here.identity[:12]}…"


def descendants(evidence: Evidence, name: str) -> tuple[str, ...]:
    """Artifacts made from `name`, directly or not, and cells that ran any of them, sorted."""
    children: dict[str, list[str]] = {}
    for record in evidence.artifacts.values():
        for parent in record.parents:
            children.setdefault(parent.name, []).append(record.name)
    made, waiting = set(), [name]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in made:
                made.add(child)
                waiting.append(child)
    touched = made | {name}
    cells = {
        f"{CELLS}/{cell.cell.id}"
        for cell in evidence.cells.values()
        if touched & {reference.name for reference in cell.inputs}
    }
    return tuple(sorted(made | cells))


def ancestors(evidence: Evidence, name: str) -> tuple[str, ...]:
    """Artifacts that `name` descends from, the root first; itself among them in a circle."""
    return _ancestors(evidence.artifacts, name)


def _ancestors(artifacts: Mapping[str, ArtifactRecord], name: str) -> tuple[str, ...]:
    ordered: dict[str, None] = {}
    seen: set[str] = set()

    def add(one: str) -> None:
        record = artifacts.get(one)
        for parent in record.parents if record else ():
            if parent.name not in seen:
                seen.add(parent.name)
                add(parent.name)
                ordered[parent.name] = None

    add(name)
    return tuple(ordered)


def _content(record: ArtifactRecord, known: _Known) -> Iterator[str]:
    """What a record says of its own parts must follow from them."""
    identity = digest.identity(record.files)
    if identity != record.identity:
        yield f"identity {record.identity[:12]}… does not follow from its files ({identity[:12]}…)"
    facts = record.facts
    if facts is None:
        yield "it has no facts"
        return
    if facts.metadata_sha256 != digest.sha256_text(canonical_json(facts.metadata)):
        yield f"metadata_sha256 {facts.metadata_sha256[:12]}… does not follow from its metadata"
    listed = known.digests.get(f"{ARTIFACTS}/{record.name}/{TENSORS}")
    if facts.tensors_sha256 != listed:
        yield f"tensors_sha256 {facts.tensors_sha256[:12]}…, its {TENSORS} has {_short(listed)}"
    yield from _environment(record.environment_sha256, known)


def _parents(record: ArtifactRecord, known: _Known) -> Iterator[str]:
    for parent in record.parents:
        if problem := known.differs(parent.name, parent.identity):
            yield f"made from {problem}"
    if not record.parents and record.conversion != "pin":
        yield f"a {record.conversion} without a parent"
    if record.name in known.ancestors(record.name):
        yield "it descends from itself"


def _provenance(record: ArtifactRecord, known: _Known) -> Iterator[str]:
    """What files say of where they came from must be where they came from."""
    if record.kind not in SAYING_ORIGIN or record.facts is None:
        return
    source = known.artifact(SOURCE)
    if source is None or known.doubted(SOURCE):
        return
    pinned = source.arguments.get("revision") or f"sha256:{source.identity}"
    said = record.facts.metadata.get("general.base_model.0.version")
    if said != canonical_json(pinned):
        yield f"general.base_model.0.version is {said}, the source is {canonical_json(pinned)}"


def _cell(cell: CellRecord, known: _Known) -> Iterator[str]:
    """A cell must have run the bytes that the records of its artifacts describe."""
    names = {cell.cell.artifact_name: cell.artifact_identity}
    if cell.cell.adapter:
        names[cell.cell.adapter_name] = cell.adapter_identity or ""
    for name, identity in names.items():
        if problem := known.differs(name, identity):
            yield f"it ran {problem}"
    for each in cell.inputs:
        said = names.get(each.name) == each.identity or known.artifact(each.name) is None
        problem = "" if said else known.differs(each.name, each.identity)
        if problem:
            yield f"it read {problem}"
    yield from _environment(cell.environment_sha256, known)


def _environment(sha256: str | None, known: _Known) -> Iterator[str]:
    if sha256 and known.digests.get(f"{ENVIRONMENTS}/{sha256}.json") != sha256:
        yield f"its environment {sha256[:12]}… is not among the evidence"


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}…" if sha256 else "no file"
