"""The chain of records: does every one follow from its own content and from its parents'? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline import digest
from pipeline.lineage.evidence import (
    ARTIFACTS,
    CELL,
    CELLS,
    ENVIRONMENTS,
    RECORD,
    TENSORS,
    Evidence,
    Fault,
)
from pipeline.schema.artifacts import ArtifactRecord
from pipeline.schema.cells import CellRecord
from pipeline.schema.values import canonical_json


def faults(evidence: Evidence) -> Iterator[Fault]:
    """Everything in which the records contradict themselves or each other.

    Takes time linear in the records; no artifact is read.
    """
    digests = {row.path: row.sha256 for row in evidence.index.files}
    for name, record in evidence.artifacts.items():
        path = f"{ARTIFACTS}/{name}/{RECORD}"
        for problem in (
            *_content(record, digests),
            *_parents(record, evidence.artifacts),
            *_provenance(record, evidence.artifacts),
        ):
            yield Fault("broken", path, f": {problem}")
    for name, cell in evidence.cells.items():
        path = f"{CELLS}/{name}/{CELL}"
        for problem in _cell(cell, evidence.artifacts, digests):
            yield Fault("broken", path, f": {problem}")


def descendants(evidence: Evidence, name: str) -> tuple[str, ...]:
    """Artifacts made from `name`, directly or not, and cells that ran any of them, sorted."""
    children: dict[str, list[str]] = {}
    for record in evidence.artifacts.values():
        for parent in record.parents:
            children.setdefault(parent.name, []).append(record.name)
    found, waiting = set(), [name]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    touched = found | {name}
    cells = {
        f"{CELLS}/{cell.cell.id}"
        for cell in evidence.cells.values()
        if touched & {reference.name for reference in cell.inputs}
    }
    return tuple(sorted(found | cells))


def ancestors(evidence: Evidence, name: str) -> tuple[str, ...]:
    """Artifacts that `name` descends from, the root first."""
    found: dict[str, None] = {}

    def add(one: str) -> None:
        record = evidence.artifacts.get(one)
        for parent in record.parents if record else ():
            if parent.name not in found:
                add(parent.name)
                found[parent.name] = None

    add(name)
    return tuple(found)


def _content(record: ArtifactRecord, digests: Mapping[str, str]) -> Iterator[str]:
    """What a record says of its own parts must follow from them."""
    identity = digest.identity(record.files)
    if identity != record.identity:
        yield f"identity {record.identity[:12]}… does not follow from its files ({identity[:12]}…)"
    found = record.facts
    if found is None:
        yield "it has no facts"
        return
    if found.metadata_sha256 != digest.sha256_text(canonical_json(found.metadata)):
        yield f"metadata_sha256 {found.metadata_sha256[:12]}… does not follow from its metadata"
    listed = digests.get(f"{ARTIFACTS}/{record.name}/{TENSORS}")
    if found.tensors_sha256 != listed:
        yield f"tensors_sha256 {found.tensors_sha256[:12]}…, its {TENSORS} has {_short(listed)}"
    yield from _environment(record.environment_sha256, digests)


def _parents(record: ArtifactRecord, known: Mapping[str, ArtifactRecord]) -> Iterator[str]:
    for parent in record.parents:
        here = known.get(parent.name)
        if here is None:
            yield f"parent {parent.name} has no record"
        elif here.identity != parent.identity:
            yield (
                f"made from {parent.name} {parent.identity[:12]}…, "
                f"whose record says {here.identity[:12]}…"
            )
    if not record.parents and record.conversion != "pin":
        yield f"a {record.conversion} without a parent"


def _provenance(record: ArtifactRecord, known: Mapping[str, ArtifactRecord]) -> Iterator[str]:
    """What a GGUF says of where it came from must be where it came from."""
    if record.kind != "gguf" or record.facts is None:
        return
    source = known.get("checkpoints/base")
    if source is None:
        return
    pinned = source.arguments.get("revision") or f"sha256:{source.identity}"
    said = record.facts.metadata.get("general.base_model.0.version")
    if said != canonical_json(pinned):
        yield f"general.base_model.0.version is {said}, the source is {canonical_json(pinned)}"


def _cell(
    cell: CellRecord, known: Mapping[str, ArtifactRecord], digests: Mapping[str, str]
) -> Iterator[str]:
    """A cell must have run the bytes that the records of its artifacts describe."""
    ran = {cell.cell.artifact: cell.artifact_identity}
    if cell.cell.adapter:
        ran[cell.cell.adapter] = cell.adapter_identity or ""
    for path, identity in ran.items():
        here = known.get(path.removeprefix("artifacts/"))
        if here is None:
            yield f"it ran {path}, which has no record"
        elif here.identity != identity:
            yield f"it ran {path} {identity[:12]}…, whose record says {here.identity[:12]}…"
    for reference in cell.inputs:
        here = known.get(reference.name)
        if here is not None and here.identity != reference.identity:
            yield (
                f"it read {reference.name} {reference.identity[:12]}…, "
                f"whose record says {here.identity[:12]}…"
            )
    yield from _environment(cell.environment_sha256, digests)


def _environment(sha256: str | None, digests: Mapping[str, str]) -> Iterator[str]:
    if sha256 and digests.get(f"{ENVIRONMENTS}/{sha256}.json") != sha256:
        yield f"its environment {sha256[:12]}… is not among the evidence"


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}…" if sha256 else "no file"
