"""What makes two cells run the same model, and in which of it two differ; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

from driftline.compare.checkpoints import ORIGIN
from driftline.errors import InputError, RefusedError, did_you_mean
from driftline.evidence.lineage import REMEDY, Evidence
from driftline.schema.artifacts import ArtifactRecord, Census
from driftline.schema.comparison import ConversionFacts, Detail, ModelFacts, StoredFacts
from driftline.schema.values import canonical, canonical_json
from driftline.store.digest import sha256_text

NOT_DECODING = ("threads",)
"""What a cell's record has among its decode settings that does not say how it decodes."""


def facts(evidence: Evidence, cell: str) -> ModelFacts:
    """The facts of the model that a cell runs.

    Where its source lies, which converters are told too, is none of them: its identity says more.

    Raises:
        InputError: there is no such cell.
        RefusedError: a record it descends from is not among the evidence.
    """
    if cell not in evidence.cells:
        close = did_you_mean(cell, evidence.cells)
        raise InputError(
            f'{evidence.where}: no cell "{cell}"{close}',
            remedy="name it runtime/variant/form: `driftline plan` lists the cells of this project",
        )
    record = evidence.cells[cell]
    artifact = _record(evidence, record.cell.artifact_name)
    chain = list(_chain(evidence, artifact))
    attached = record.adapter_identity if record.cell.adapter_name else None
    merged = (each.identity for each in chain if each.kind == "adapter")
    return ModelFacts(
        source=next(each.identity for each in chain if each.kind == "source"),
        tokenizer=artifact.facts.tokenizer_sha256 if artifact.facts else None,
        template=artifact.facts.template_sha256 if artifact.facts else None,
        adapter=attached or next(merged, None),
        conversions=tuple(
            ConversionFacts(
                conversion=each.conversion,
                tool=each.tool,
                tool_version=each.tool_version,
                arguments={k: v for k, v in each.arguments.items() if k != ORIGIN},
            )
            for each in chain
            if each.conversion != "pin"
        ),
        stored=_stored(artifact.census),
        decode={name: value for name, value in record.decode.items() if name not in NOT_DECODING},
    )


def identity(model: ModelFacts) -> str:
    """sha256 of the canonical JSON of a model's facts: the same model has the same."""
    return sha256_text(canonical(model))


def differences(a: ModelFacts, b: ModelFacts) -> tuple[Detail, ...]:
    """Every field that differs, with both values; law: empty exactly when the identities agree."""
    return tuple(_differences("", a.model_dump(mode="json"), b.model_dump(mode="json")))


def _differences(name: str, a: Any, b: Any) -> Iterator[Detail]:
    if a == b:
        return
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a.keys() | b.keys()):
            sides = a.get(key, _ABSENT), b.get(key, _ABSENT)
            yield from _differences(f"{name}.{key}" if name else key, *sides)
    elif isinstance(a, list) and isinstance(b, list) and name == "conversions":
        for number, sides in enumerate(zip_longest(a, b, fillvalue=_ABSENT), 1):
            yield from _differences(f"{name}.{number}", *sides)
    else:
        yield Detail(what=name, before=_said(a), after=_said(b))


_ABSENT = object()


def _said(value: Any) -> str:
    if value is _ABSENT:
        return "not there"
    if value is None:
        return "none"
    if isinstance(value, Mapping) and "tool" in value:
        return f"{value['conversion']} by {value['tool']}"
    return value if isinstance(value, str) else canonical_json(value)


def _record(evidence: Evidence, name: str) -> ArtifactRecord:
    if name not in evidence.artifacts:
        raise RefusedError(
            f"{evidence.where}: no record of {name} among the evidence", remedy=REMEDY
        )
    return evidence.artifacts[name]


def _chain(evidence: Evidence, artifact: ArtifactRecord) -> Iterator[ArtifactRecord]:
    """An artifact and all it descends from, the source first."""
    for parent in artifact.parents:
        yield from _chain(evidence, _record(evidence, parent.name))
    yield artifact


def _stored(census: Census | None) -> StoredFacts | None:
    if census is None:
        return None
    return StoredFacts(
        types=census.types, elements=census.elements, bits_per_weight=census.bits_per_weight
    )
