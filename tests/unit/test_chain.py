"""The chain of records: whole on sound evidence, and every way of breaking it is named once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from driftline.evidence import chain
from driftline.evidence.lineage import Evidence
from driftline.schema.artifacts import Parent, Reference
from driftline.schema.values import canonical_json
from driftline.store.digest import sha256_text
from tests.unit.lineage_trees import World

BASE, ADAPTER, MERGED = "checkpoints/base", "adapters/audit", "checkpoints/audit"
F32, Q8 = "gguf/audit/f32", "gguf/audit/q8_0"
CELL, ATTACHED = "llamacpp/audit/q8_0", "transformers/audit/attached"
OTHER = "ab" * 32


@pytest.fixture(scope="module")
def sound() -> Evidence:
    return World().evidence()


def with_artifact(evidence: Evidence, name: str, **changes: Any) -> Evidence:
    changed = evidence.artifacts[name].model_copy(update=changes)
    return replace(evidence, artifacts={**evidence.artifacts, name: changed})


def with_cell(evidence: Evidence, name: str, **changes: Any) -> Evidence:
    changed = evidence.cells[name].model_copy(update=changes)
    return replace(evidence, cells={**evidence.cells, name: changed})


def without(evidence: Evidence, name: str) -> Evidence:
    kept = {key: record for key, record in evidence.artifacts.items() if key != name}
    return replace(evidence, artifacts=kept)


def with_facts(evidence: Evidence, name: str, **changes: Any) -> Evidence:
    known = evidence.artifacts[name].facts
    assert known is not None
    return with_artifact(evidence, name, facts=known.model_copy(update=changes))


def with_metadata(evidence: Evidence, name: str, **changes: str) -> Evidence:
    """Other fields, and the digest that follows from them."""
    known = evidence.artifacts[name].facts
    assert known is not None
    metadata = {**known.metadata, **changes}
    sha256 = sha256_text(canonical_json(metadata))
    return with_facts(evidence, name, metadata=metadata, metadata_sha256=sha256)


def said(evidence: Evidence, *doubted: str) -> list[str]:
    return [fault.line for fault in chain.faults(evidence, doubted)]


def test_sound_evidence_has_no_fault(sound: Evidence) -> None:
    assert said(sound) == []


def identity_of(evidence: Evidence, name: str) -> str:
    return evidence.artifacts[name].identity[:12]


BROKEN: list[tuple[Callable[[Evidence], Evidence], str, str]] = [
    (
        lambda e: with_artifact(e, Q8, identity=OTHER),
        f"artifacts/{Q8}/record.json",
        "identity abababababab… does not follow from its files",
    ),
    (lambda e: with_artifact(e, MERGED, facts=None), f"artifacts/{MERGED}/record.json", "no facts"),
    (
        lambda e: with_facts(e, Q8, metadata_sha256=OTHER),
        f"artifacts/{Q8}/record.json",
        "metadata_sha256 abababababab… does not follow from its metadata",
    ),
    (
        lambda e: with_facts(e, Q8, tensors_sha256=OTHER),
        f"artifacts/{Q8}/record.json",
        "tensors_sha256 abababababab…, its tensors.jsonl has ",
    ),
    (
        lambda e: with_artifact(e, Q8, environment_sha256=OTHER),
        f"artifacts/{Q8}/record.json",
        "its environment abababababab… is not among the evidence",
    ),
    (
        lambda e: with_artifact(e, Q8, parents=(Parent(name=F32, identity=OTHER),)),
        f"artifacts/{Q8}/record.json",
        f"made from {F32} abababababab…, whose record says ",
    ),
    (
        lambda e: with_artifact(e, Q8, parents=(Parent(name="gguf/x", identity=OTHER),)),
        f"artifacts/{Q8}/record.json",
        "made from gguf/x, which has no record",
    ),
    (
        lambda e: with_artifact(e, MERGED, parents=()),
        f"artifacts/{MERGED}/record.json",
        "a merge without a parent",
    ),
    (
        lambda e: with_metadata(e, F32, **{"general.base_model.0.version": '"sha256:0"'}),
        f"artifacts/{F32}/record.json",
        'general.base_model.0.version is "sha256:0", the source is "sha256:',
    ),
    (
        lambda e: with_cell(e, CELL, artifact_identity=OTHER),
        f"cells/{CELL}/cell.json",
        f"it ran {Q8} abababababab…, whose record says ",
    ),
    (
        lambda e: with_cell(e, ATTACHED, adapter_identity=OTHER),
        f"cells/{ATTACHED}/cell.json",
        f"it ran {ADAPTER} abababababab…, whose record says ",
    ),
    (
        lambda e: with_cell(e, ATTACHED, adapter_identity=None),
        f"cells/{ATTACHED}/cell.json",
        f"it ran {ADAPTER} …, whose record says ",
    ),
    (
        lambda e: with_cell(e, CELL, inputs=(Reference(name=Q8, identity=OTHER),)),
        f"cells/{CELL}/cell.json",
        f"it read {Q8} abababababab…, whose record says ",
    ),
    (
        lambda e: with_cell(e, CELL, environment_sha256=OTHER),
        f"cells/{CELL}/cell.json",
        "its environment abababababab… is not among the evidence",
    ),
]


@pytest.mark.parametrize(("broken", "path", "why"), BROKEN, ids=[each[2] for each in BROKEN])
def test_every_break_is_named_where_it_is(
    sound: Evidence, broken: Callable[[Evidence], Evidence], path: str, why: str
) -> None:
    found = [line for line in said(broken(sound)) if line.startswith(f"broken   {path}: ")]
    assert len(found) == 1 and why in found[0], said(broken(sound))


def test_an_artifact_of_another_identity_is_another_one_to_all_that_read_it(
    sound: Evidence,
) -> None:
    found = said(with_artifact(sound, F32, identity=OTHER))
    assert f"broken   artifacts/{Q8}/record.json: made from {F32} " in "\n".join(found)
    assert "broken   cells/llamacpp/audit/f32/cell.json: it ran " in "\n".join(found)
    assert len(found) == 3


def test_what_is_doubted_blames_nothing_and_nobody(sound: Evidence) -> None:
    changed = with_artifact(sound, F32, identity=OTHER)
    assert said(changed, f"artifacts/{F32}/record.json") == []
    assert said(without(sound, F32), f"artifacts/{F32}/record.json") == []
    cell = with_cell(sound, CELL, artifact_identity=OTHER)
    assert said(cell, f"cells/{CELL}/cell.json") == []


def test_a_source_that_is_doubted_is_nobodys_origin(sound: Evidence) -> None:
    changed = with_artifact(sound, BASE, identity=OTHER, arguments={"revision": "0" * 40})
    assert any("general.base_model.0.version" in line for line in said(changed))
    assert said(changed, f"artifacts/{BASE}/record.json") == []


def test_a_record_that_is_missing_is_missed_by_all_that_read_it(sound: Evidence) -> None:
    found = said(without(sound, F32))
    assert f"made from {F32}, which has no record" in found[0]
    assert f"it ran {F32}, which has no record" in found[1]
    assert len(found) == 2


def test_a_circle_is_found_and_ends(sound: Evidence) -> None:
    last = sound.artifacts[Q8]
    parents = (Parent(name=Q8, identity=last.identity),)
    circle = with_artifact(sound, MERGED, parents=parents)
    found = said(circle)
    assert [line.split(":")[0] for line in found] == [
        f"broken   artifacts/{name}/record.json" for name in (MERGED, F32, Q8)
    ]
    assert all(line.endswith("it descends from itself") for line in found)
    assert set(chain.ancestors(circle, Q8)) == {MERGED, F32, Q8}
    assert Q8 in chain.descendants(circle, Q8)


def test_ancestors_come_root_first(sound: Evidence) -> None:
    assert chain.ancestors(sound, Q8) == (BASE, ADAPTER, MERGED, F32)
    assert chain.ancestors(sound, MERGED) == (BASE, ADAPTER)
    assert chain.ancestors(sound, BASE) == ()
    assert chain.ancestors(sound, "gguf/nothing") == ()


def test_an_ancestor_without_a_record_is_still_one(sound: Evidence) -> None:
    assert chain.ancestors(without(sound, MERGED), Q8) == (MERGED, F32)


def test_descendants_are_artifacts_and_the_cells_that_ran_them(sound: Evidence) -> None:
    assert chain.descendants(sound, F32) == (
        "cells/llamacpp/audit/f32",
        f"cells/{CELL}",
        Q8,
    )
    assert chain.descendants(sound, Q8) == (f"cells/{CELL}",)
    assert chain.descendants(sound, "gguf/nothing") == ()


def test_everything_descends_from_the_source(sound: Evidence) -> None:
    found = set(chain.descendants(sound, BASE))
    made = {name for name, record in sound.artifacts.items() if record.parents}
    assert made <= found and ADAPTER not in found
    assert "cells/transformers/base/checkpoint" in found


def test_relatives_are_each_others(sound: Evidence) -> None:
    for name in sound.artifacts:
        for other in chain.ancestors(sound, name):
            assert name in chain.descendants(sound, other)
