"""Which parts of checkpoint and adapters differ, down to tensors and fields; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from driftline.compare.sides import Key, Sides, differing, short, short_digest, there, value_at
from driftline.evidence.lineage import Evidence
from driftline.schema.artifacts import BASE, ArtifactRecord, TensorDigest
from driftline.schema.comparison import Detail
from driftline.store.digest import differences
from driftline.store.facts import part_of

SOURCE = f"checkpoints/{BASE}"
ADAPTERS = "adapters/"
PARTS = ("weights", "tokenizer", "template", "config", "files")
"""Parts of a checkpoint or adapter; `files`: other bytes, though every part is the same."""
NAMED = 3
"""Tensors that are named; the others are counted."""
ORIGIN = "origin"
"""The argument by which a converter is told where the source comes from."""


def _parts(name: str, before: Evidence, after: Evidence) -> dict[str, tuple[Detail, ...]]:
    """What differs in an artifact that both sides have, part by part; nothing if no byte does."""
    old, new = before.artifacts[name], after.artifacts[name]
    if old.identity == new.identity:
        return {}
    parts: dict[str, list[Detail]] = {}
    if old.facts and new.facts:
        if old.facts.tensors_sha256 != new.facts.tensors_sha256:
            parts["weights"] = list(_tensors(before.tensors(name), after.tensors(name)))
        told = {
            "tokenizer": old.facts.tokenizer_sha256 != new.facts.tokenizer_sha256,
            "template": old.facts.template_sha256 != new.facts.template_sha256,
        }
        for field, was, now in differing(old.facts.metadata, new.facts.metadata):
            part = part_of(field)
            detail = Detail(what=field, before=short(was or ""), after=short(now or ""))
            parts.setdefault(part if told.get(part) else "config", []).append(detail)
    if not parts:
        parts["files"] = [
            Detail(what=f"changed file {each.path}")
            if each.what == "changed"
            else there(each.path, before=each.what == "missing", after=each.what == "extra")
            for each in differences(old.files, new.files)
        ]
    return {part: tuple(parts[part]) for part in PARTS if part in parts}


def _tensors(old: Iterable[TensorDigest], new: Iterable[TensorDigest]) -> Iterator[Detail]:
    was = {each.name: (each.dtype, each.shape, each.sha256) for each in old}
    now = {each.name: (each.dtype, each.shape, each.sha256) for each in new}
    names = [name for name, _, _ in differing(was, now)]
    if not names:
        yield Detail(what="the same tensors, in other files or another order")
        return
    more = f", … ({len(names) - NAMED} more)" if len(names) > NAMED else ""
    listed = ", ".join(names[:NAMED])
    yield Detail(what=f"{len(names)} of {len(was.keys() | now.keys())} tensors: {listed}{more}")
    kinds = [", ".join(sorted({each[0] for each in side.values()})) for side in (was, now)]
    if kinds[0] != kinds[1]:
        yield Detail(what="stored as", before=kinds[0], after=kinds[1])


def _place(location: Mapping[str, Any]) -> str:
    """Where a checkpoint comes from: a path, or `repo@revision`."""
    if location.get("path"):
        return str(location["path"])
    repo, revision = location.get("repo"), str(location.get("revision"))
    return f"{repo}@{revision[:12]}" if repo else ""


def source(before: Evidence, after: Evidence) -> Iterator[tuple[Key, Sides]]:
    """The source, part by part, and where it comes from."""
    places = (
        _place(value_at(before.params, "source")),
        _place(value_at(after.params, "source")),
    )
    moved = places[0] != places[1]
    old, new = before.artifacts.get(SOURCE), after.artifacts.get(SOURCE)
    if old is None or new is None:
        if old or new:
            yield ("source", ""), Sides(_identity(old), _identity(new))
        return
    parts = _parts(SOURCE, before, after)
    if moved and not parts:
        yield ("source", "location"), Sides(*places)
    for number, (part, details) in enumerate(parts.items()):
        where = (Detail(what="location", before=places[0], after=places[1]),)
        yield (
            ("source", part),
            Sides(
                _part_digest(old, part),
                _part_digest(new, part),
                (*(where if moved and not number else ()), *details),
            ),
        )


def _part_digest(record: ArtifactRecord, part: str) -> str:
    if record.facts is None or part == "files":
        return short_digest(record.identity)
    return short_digest(
        {
            "weights": record.facts.tensors_sha256,
            "tokenizer": record.facts.tokenizer_sha256,
            "template": record.facts.template_sha256,
        }.get(part, record.facts.metadata_sha256)
    )


def adapters(before: Evidence, after: Evidence) -> Iterator[tuple[Key, Sides]]:
    """Adapters that differ, and those that one side alone has."""
    names = {
        name.removeprefix(ADAPTERS)
        for side in (before, after)
        for name in side.artifacts
        if name.startswith(ADAPTERS)
    }
    for name in sorted(names):
        record = f"{ADAPTERS}{name}"
        old, new = before.artifacts.get(record), after.artifacts.get(record)
        places = [_place(value_at(side.params, "adapters", name)) for side in (before, after)]
        moved = places[0] != places[1]
        where = (Detail(what="location", before=places[0], after=places[1]),) if moved else ()
        if old is None or new is None:
            yield ("adapter", name), Sides(_identity(old), _identity(new), where)
        elif parts := _parts(record, before, after):
            details = tuple(each for part in parts.values() for each in part)
            yield (
                ("adapter", name),
                Sides(_identity(old), _identity(new), (*where, *details)),
            )
        elif moved:
            yield ("adapter location", name), Sides(places[0], places[1])


def _identity(record: ArtifactRecord | None) -> str:
    return short_digest(record.identity) if record else ""
