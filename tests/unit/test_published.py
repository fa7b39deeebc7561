"""Published JSON Schemas: what the types give, and what real values hold to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from driftline.compare.comparison import compare
from driftline.release.contents import release
from driftline.schema import published
from driftline.schema.artifacts import FileDigest, Manifest, Reference
from driftline.schema.budget import Budget, GroupCost
from driftline.schema.imports import ImportRecord, Machine
from driftline.schema.values import Value, dump, dump_lines, sealed
from driftline.schema.weights import ControlRecord, CounterfactualRecord, FieldChange, TensorChange
from tests import factories
from tests.paths import ROOT
from tests.unit.lineage_trees import World
from tests.unit.test_gate import ONE_FLIP, judge

FOLDER = ROOT / "docs" / "schema"
REFRESH = "python -m driftline.schema.published docs/schema"


def real_values() -> dict[str, Value]:
    """One value of every published format, with something in most fields."""
    evidence = World().evidence()
    cell, prompts = "llamacpp/audit/q8_0", factories.prompts("clauses", "sql")
    record = evidence.artifacts["gguf/audit/q8_0"]
    row = FileDigest(path="a", size=1, sha256="ab" * 32)
    evalsets = {"base": ["clauses", "sql"]}
    project = factories.project(adapters={}, variants=["base"], vllm=[], evalsets=evalsets)
    changed = {"layer": 1, "module": "mlp", "stored": "Q8_0", "relative_error": 0.1}
    return {
        "artifact-record": record,
        "cell-record": evidence.cells[cell],
        "manifest": sealed(
            Manifest(name="a", inputs=(Reference(name="b", identity="ab"),), files=(row,))
        ),
        "lineage-index": evidence.index,
        "item-evidence": next(iter(evidence.items(cell).values())),
        "item-digest": next(iter(evidence.evalset("audit").values())),
        "tensor-digest": evidence.tensors("gguf/audit/q8_0")[0],
        "counterfactual-record": sealed(
            CounterfactualRecord(
                artifact="a",
                artifact_identity="ab",
                parent="b",
                parent_identity="cd",
                trusted=True,
                config=(FieldChange(field="x", expected="1", found=None),),
                tensors=(TensorChange.model_validate({**changed, "name": "w", "explained": None}),),
            )
        ),
        "control-record": sealed(
            ControlRecord(kind="mlx", trusted=False, reason="no", tensors=0, expected={"a": "1"})
        ),
        "drift-report": factories.report_input(project, prompts).drift,
        "release-record": release("v1", "ab" * 20, evidence, "cd" * 32),
        "gate-report": judge(ONE_FLIP),
        "comparison-report": compare(evidence, World().but(prompt=str.upper).evidence()),
        "import-record": sealed(
            ImportRecord(
                cell=cell,
                revision="ab" * 20,
                made_at="mac",
                machine=Machine(system="Darwin"),
                software={"mlx": "1"},
                artifact_identity="ab",
                adapter_identity=None,
                environment_sha256="cd",
                cell_seal="ef",
                notes=("x",),
            )
        ),
        "budget": Budget(
            hop="a → b",
            parent_identity="ab",
            child_identity="cd",
            positions=1,
            control=0.0,
            whole=0.1,
            additivity=None,
            groups=(GroupCost(layer=None, module="m", tensors=("t",), kl=0.1),),
        ),
    }


VALUES = real_values()


def problems(name: str, data: Any) -> list[str]:
    found = Draft202012Validator(json.loads((FOLDER / published.file_name(name)).read_text()))
    return [error.message for error in found.iter_errors(data)]


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every part of a schema that lists properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


@pytest.mark.parametrize("name", published.PUBLISHED)
class TestSchemas:
    def test_the_file_is_what_the_type_gives(self, name: str) -> None:
        path = FOLDER / published.file_name(name)
        assert path.is_file(), f"{path} is not there; remedy: {REFRESH}"
        assert path.read_text(encoding="utf-8") == published.text(name), (
            f"{path} is not what the type gives. If a reader of the published file could not read "
            f"what is written now, raise schema_version. Then: {REFRESH}"
        )

    def test_it_is_a_schema(self, name: str) -> None:
        found = json.loads((FOLDER / published.file_name(name)).read_text())
        Draft202012Validator.check_schema(found)
        assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert found["$id"] == published.file_name(name)

    def test_no_object_may_hold_more(self, name: str) -> None:
        listed = list(objects(published.schema(name)))
        assert listed and all(each["additionalProperties"] is False for each in listed)
        data = {**VALUES[name].model_dump(mode="json"), "unknown": 1}
        assert any("'unknown'" in problem for problem in problems(name, data))

    def test_a_real_value_holds_to_it(self, name: str, tmp_path: Path) -> None:
        dump(VALUES[name], tmp_path / "value.json")
        assert problems(name, json.loads((tmp_path / "value.json").read_text())) == []
        dump_lines([VALUES[name]], tmp_path / "value.jsonl")
        assert problems(name, json.loads((tmp_path / "value.jsonl").read_text())) == []

    def test_every_field_is_written_and_so_required(self, name: str) -> None:
        data = VALUES[name].model_dump(mode="json")
        for key in data:
            less = {other: value for other, value in data.items() if other != key}
            assert any(f"'{key}'" in problem for problem in problems(name, less)), key

    def test_the_files_version_is_the_types(self, name: str) -> None:
        data = VALUES[name].model_dump(mode="json")
        version = data.get("schema_version", 1)
        assert published.file_name(name) == f"{name}.v{version}.json"
        if "schema_version" in data:
            assert problems(name, {**data, "schema_version": version + 1})


def test_every_file_is_of_a_published_format_and_no_later_version() -> None:
    for path in FOLDER.glob("*.json"):
        found = re.fullmatch(r"([a-z-]+)\.v([0-9]+)\.json", path.name)
        assert found is not None, path
        name, version = found.group(1), int(found.group(2))
        current = published.file_name(name)
        assert version <= int(current.removeprefix(f"{name}.v").removesuffix(".json")), path


def test_writing_leaves_files_of_earlier_versions(tmp_path: Path) -> None:
    (tmp_path / "artifact-record.v1.json").write_text("{}")
    command = [sys.executable, "-m", "driftline.schema.published", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {*map(published.file_name, published.PUBLISHED), "artifact-record.v1.json"}
    assert (tmp_path / "artifact-record.v1.json").read_text() == "{}"
