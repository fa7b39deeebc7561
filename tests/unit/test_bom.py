"""CycloneDX BOMs of releases: strictly valid, whole, and the same for the same release."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from driftline.release.bom import bom
from driftline.schema.cells import Outcome
from driftline.schema.release import ReleaseRecord
from tests.unit.release_evidence import HUB, MLX, Q8, REVISION, ROOT, VLLM, made, released

SKIPPED = Outcome(state="skipped", kind="missing", reason="no package", remedy="pip install x")
STATES: Any = {Q8: {"pods/p-0": "wrong"}}
RECORDS = {
    "clean": released(),
    "hub": released(made(HUB)),
    "rough": released(made(outcomes={VLLM: SKIPPED, MLX: SKIPPED}, states=STATES)),
}


def errors(data: dict[str, Any]) -> list[str]:
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(data), all_errors=True)
    return [] if found is None else [str(each) for each in found]


def component(data: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in data["components"] if each["name"] == name]
    return dict(found)


def properties(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in component["properties"]}


def metrics(component: dict[str, Any]) -> dict[str, Any]:
    analysis = component["modelCard"].get("quantitativeAnalysis", {"performanceMetrics": []})
    return {each["slice"]: each for each in analysis["performanceMetrics"]}


def values(data: Any, key: str) -> Iterator[Any]:
    if isinstance(data, dict):
        yield from ([data[key]] if key in data else [])
        for value in data.values():
            yield from values(value, key)
    elif isinstance(data, list):
        for value in data:
            yield from values(value, key)


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
class TestFormat:
    def test_it_is_strictly_valid(self, record: ReleaseRecord) -> None:
        assert errors(bom(record)) == []

    def test_a_field_too_many_is_an_error(self, record: ReleaseRecord) -> None:
        """The validator is as strict as it is here for."""
        data = bom(record)
        data["components"][0]["modelCard"]["foo"] = 1
        assert errors(data)

    def test_references_are_unique_and_lead_somewhere(self, record: ReleaseRecord) -> None:
        """What the JSON schema cannot say."""
        data = bom(record)
        known = list(values(data, "bom-ref"))
        assert len(known) == len(set(known))
        named = {edge["ref"] for edge in data["dependencies"]}
        named |= {ref for edge in data["dependencies"] for ref in edge["dependsOn"]}
        named |= {each["ref"] for each in values(data, "datasets") for each in each}
        assert named <= set(known)

    def test_it_has_no_time(self, record: ReleaseRecord) -> None:
        assert not list(values(bom(record), "timestamp"))


def test_the_same_release_is_the_same_bom_and_another_one_is_not() -> None:
    record = RECORDS["clean"]
    assert json.dumps(bom(record)) == json.dumps(bom(released()))
    serials = {bom(each)["serialNumber"] for each in (*RECORDS.values(), released(name="v2"))}
    assert len(serials) == 4
    for serial in serials:
        assert uuid.UUID(serial.removeprefix("urn:uuid:")).version == 5


def test_every_artifact_is_a_model_with_its_files() -> None:
    record = RECORDS["clean"]
    data = bom(record)
    for artifact in record.artifacts:
        found = component(data, artifact.name)
        assert found["type"] == "machine-learning-model"
        assert found["version"] == properties(found)["driftline:dirHash"] == artifact.identity
        inside = {each["name"]: each["hashes"][0]["content"] for each in found["components"]}
        assert inside == {file.path: file.sha256 for file in artifact.files}
        if len(artifact.files) == 1:
            assert found["hashes"] == [{"alg": "SHA-256", "content": artifact.files[0].sha256}]
        else:
            assert "hashes" not in found, "a folder has no hash of its own"


def test_ancestors_go_all_the_way_and_dependencies_one_step() -> None:
    data = bom(RECORDS["clean"])
    found = component(data, "gguf/audit/q8_0")
    assert [each["name"] for each in found["pedigree"]["ancestors"]] == [
        "gguf/audit/f32",
        "checkpoints/audit",
        "checkpoints/base",
        "adapters/audit",
    ]
    edges = {edge["ref"]: edge["dependsOn"] for edge in data["dependencies"]}
    assert edges["artifact:gguf/audit/q8_0"] == ["artifact:gguf/audit/f32"]
    assert edges["artifact:checkpoints/audit"] == [
        "artifact:checkpoints/base",
        "artifact:adapters/audit",
    ]
    assert "pedigree" not in component(data, "checkpoints/base")
    top = edges[data["metadata"]["component"]["bom-ref"]]
    assert set(top) == {each["bom-ref"] for each in data["components"]}


def test_scores_have_their_interval() -> None:
    record = RECORDS["rough"]
    found = metrics(component(bom(record), "gguf/base/q8_0"))
    accuracy = found[f"pods in {Q8}"]
    score = next(cell for cell in record.cells if cell.id == Q8).scores[0]
    assert float(accuracy["value"]) == score.accuracy == 0.75
    bounds = accuracy["confidenceInterval"]
    assert float(bounds["lowerBound"]) == score.low
    assert float(bounds["upperBound"]) == score.high
    kl = found[f"all positions in {Q8}"]
    assert (kl["value"], kl["confidenceInterval"]["upperBound"]) == ("0.01", "0.014")


def test_what_did_not_run_has_no_metric() -> None:
    data = bom(RECORDS["rough"])
    assert metrics(component(data, "mlx/base/4bit")) == {}
    assert not [name for name in metrics(component(data, "checkpoints/base")) if VLLM in name]


def test_an_attached_adapter_has_the_metrics_and_its_source_has_not() -> None:
    data = bom(RECORDS["clean"])
    attached = "transformers/audit/attached"
    assert f"clauses in {attached}" in metrics(component(data, "adapters/audit"))
    source = metrics(component(data, "checkpoints/base"))
    assert f"pods in {ROOT}" in source and not [name for name in source if attached in name]


def test_evalsets_and_corpora_are_data() -> None:
    record = RECORDS["clean"]
    data = bom(record)
    for evalset in record.evalsets:
        found = component(data, evalset.name)
        assert (found["type"], found["version"]) == ("data", evalset.sha256)
    assert component(data, "notes")["bom-ref"] == "corpus:notes"


def test_a_repository_of_the_hub_is_named_by_its_package_url() -> None:
    found = component(bom(RECORDS["hub"]), "checkpoints/base")
    assert found["purl"] == f"pkg:huggingface/acme/clerk@{REVISION}"
    assert "purl" not in component(bom(RECORDS["clean"]), "checkpoints/base")
