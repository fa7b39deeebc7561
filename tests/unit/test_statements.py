"""in-toto statements: strict by the published specifications, by two readers, and true."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.predicates.test_result.v0.test_result_pb2 import TestResult as ResultPb
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb
from jsonschema import Draft202012Validator

from driftline.evidence.lineage import Evidence
from driftline.release.statements import PROVENANCE, TEST_RESULT, statements
from driftline.schema.cells import Outcome
from driftline.store.digest import sha256_text
from tests.paths import ROOT as TOP
from tests.unit.release_evidence import ADAPTER_REVISION, HUB, MLX, Q8, REVISION, ROOT, VLLM, made

SCHEMAS = TOP / "docs" / "schema" / "in-toto"
OF_PREDICATE = {PROVENANCE: "slsa-provenance-v1", TEST_RESULT: "test-result-v0.1"}
MESSAGES: dict[str, type[Message]] = {PROVENANCE: Provenance, TEST_RESULT: ResultPb}
ATTACHED = "transformers/audit/attached"
SKIPPED = Outcome(state="skipped", kind="missing", reason="no package", remedy="pip install x")
FAILED = Outcome(state="error", kind="raised", reason="head_dim=8")
UNSTABLE = Outcome(state="unstable", reason="1 of 4 answers differ on repeat")
STATES: Any = {
    Q8: {"pods/p-0": "wrong", "pods/p-1": "errored", "pods/p-2": "unchecked"},
    ROOT: {"clauses/p-3": "truncated"},
}


@cache
def schema(name: str) -> Draft202012Validator:
    data = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(data)
    return Draft202012Validator(data)


def problems(statement: dict[str, Any]) -> list[str]:
    found = [error.message for error in schema("statement-v1").iter_errors(statement)]
    predicate = schema(OF_PREDICATE.get(statement["predicateType"], "test-result-v0.1"))
    return found + [error.message for error in predicate.iter_errors(statement["predicate"])]


def parsed(kind: type[Message], data: dict[str, Any]) -> Message:
    """By the official package: an unknown field is an error, and what was read is what was said."""
    message = json_format.ParseDict(data, kind(), ignore_unknown_fields=False)
    assert json_format.MessageToDict(message) == data
    return message


def evidences() -> dict[str, Evidence]:
    outcomes = {VLLM: SKIPPED, MLX: FAILED, Q8: UNSTABLE}
    return {
        "clean": made(),
        "hub": made(HUB),
        "rough": made(outcomes=outcomes, states=STATES, different={Q8: ("pods/p-3",)}),
    }


EVIDENCES = evidences()


class TestFormats:
    @pytest.mark.parametrize("which", EVIDENCES)
    def test_strict_by_the_published_specifications(self, which: str) -> None:
        for name, statement in statements(EVIDENCES[which]).items():
            assert problems(statement) == [], name

    @pytest.mark.parametrize("which", EVIDENCES)
    def test_the_official_package_reads_what_was_meant(self, which: str) -> None:
        for statement in statements(EVIDENCES[which]).values():
            whole = json_format.ParseDict(statement, StatementPb(), ignore_unknown_fields=False)
            Statement.copy_from_pb(whole).validate()
            assert json_format.MessageToDict(whole) == statement
            parsed(MESSAGES[statement["predicateType"]], statement["predicate"])

    @pytest.mark.parametrize(
        "path",
        [
            ("extra",),
            ("subject", 0, "size"),
            ("predicate", "extra"),
            ("predicate", "runDetails", "builder", "extra"),
            ("predicate", "buildDefinition", "resolvedDependencies", 0, "extra"),
        ],
    )
    def test_a_field_that_no_specification_has_is_an_error(self, path: tuple[Any, ...]) -> None:
        statement = json.loads(json.dumps(statements(EVIDENCES["hub"])[_of("gguf/base/q8_0")]))
        place = statement
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "x"
        assert problems(statement)
        with pytest.raises(json_format.ParseError):
            json_format.ParseDict(statement, StatementPb())
            parsed(Provenance, statement["predicate"])

    def test_one_statement_per_artifact_and_cell(self) -> None:
        found = EVIDENCES["clean"]
        names = [f"artifacts/{name}.intoto.json" for name in found.artifacts]
        names += [f"cells/{name}.intoto.json" for name in found.cells]
        assert statements(found).keys() == set(names)


def _of(artifact: str) -> str:
    return f"artifacts/{artifact}.intoto.json"


def digests(descriptors: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    found = {each.get("name") or each["uri"]: each["digest"] for each in descriptors}
    assert len(found) == len(descriptors), "names are unique"
    return found


class TestProvenance:
    def test_an_artifact_is_its_folder_and_each_of_its_files(self) -> None:
        found = EVIDENCES["clean"]
        for name, record in found.artifacts.items():
            subject = digests(statements(found)[_of(name)]["subject"])
            assert subject.pop(name) == {"dirHash": record.identity}
            assert subject == {f"{name}/{f.path}": {"sha256": f.sha256} for f in record.files}

    def test_a_merge_depends_on_both_parents_its_code_and_its_environment(self) -> None:
        found = EVIDENCES["clean"]
        record = found.artifacts["checkpoints/audit"]
        definition = statements(found)[_of(record.name)]["predicate"]["buildDefinition"]
        assert definition["buildType"] == "urn:driftline:conversion:merge:v2"
        assert definition["externalParameters"] == {
            "command": record.command,
            "arguments": {"dtype": "float32"},
        }
        depends = digests(definition["resolvedDependencies"])
        for parent in record.parents:
            assert depends[parent.name] == {"dirHash": parent.identity}
            for file in found.artifacts[parent.name].files:
                assert depends[f"{parent.name}/{file.path}"] == {"sha256": file.sha256}
        assert depends["artifacts/code/merge"] == {"sha256": record.code_sha256}
        environment = f"reports/lineage/environments/{record.environment_sha256}.json"
        assert depends[environment] == {"sha256": record.environment_sha256}
        assert len(depends) == 2 * 3 + 2

    @pytest.mark.parametrize(
        ("artifact", "uri", "revision"),
        [
            ("checkpoints/base", "pkg:huggingface/acme/clerk@", REVISION),
            ("adapters/audit", "pkg:huggingface/acme/audit@", ADAPTER_REVISION),
        ],
    )
    def test_a_pin_from_the_hub_depends_on_its_commit(
        self, artifact: str, uri: str, revision: str
    ) -> None:
        predicate = statements(EVIDENCES["hub"])[_of(artifact)]["predicate"]
        depends = digests(predicate["buildDefinition"]["resolvedDependencies"])
        assert depends[uri + revision] == {"gitCommit": revision}

    def test_the_records_are_byproducts_as_the_index_lists_them(self) -> None:
        found = EVIDENCES["clean"]
        listed = {f"reports/lineage/{file.path}": file.sha256 for file in found.index.files}
        run = statements(found)[_of("gguf/base/f32")]["predicate"]["runDetails"]
        assert run["builder"] == {
            "id": "urn:driftline:builder:v1",
            "version": {"driftline": "0.1.0"},
        }
        made = digests(run["byproducts"])
        assert len(made) == 2
        assert made == {name: {"sha256": listed[name]} for name in made}

    def test_no_statement_has_a_time(self) -> None:
        for statement in statements(EVIDENCES["rough"]).values():
            assert "metadata" not in statement["predicate"].get("runDetails", {})


class TestResults:
    def result(self, cell: str, which: str = "rough") -> dict[str, Any]:
        found: dict[str, Any] = statements(EVIDENCES[which])[f"cells/{cell}.intoto.json"]
        return found

    def test_everything_correct_is_passed(self) -> None:
        predicate = self.result(Q8, "clean")["predicate"]
        assert predicate["result"] == "PASSED"
        assert predicate["passedTests"] == [f"pods/p-{n}" for n in range(4)]
        assert "warnedTests" not in predicate and "failedTests" not in predicate

    def test_each_item_is_in_the_list_its_verdict_belongs_to(self) -> None:
        predicate = self.result(Q8)["predicate"]
        assert predicate["result"] == "WARNED"
        assert "passedTests" not in predicate
        assert predicate["warnedTests"] == ["pods/p-2", "pods/p-3"]
        assert predicate["failedTests"] == ["pods/p-0", "pods/p-1"]

    def test_one_wrong_answer_is_a_warning_of_the_whole(self) -> None:
        predicate = self.result(ROOT)["predicate"]
        assert (predicate["result"], predicate["failedTests"]) == ("WARNED", ["clauses/p-3"])

    @pytest.mark.parametrize(("cell", "result"), [(MLX, "FAILED"), (VLLM, "WARNED")])
    def test_a_cell_that_did_not_run_has_no_tests(self, cell: str, result: str) -> None:
        predicate = self.result(cell)["predicate"]
        assert predicate.keys() == {"result", "configuration"}
        assert predicate["result"] == result

    def test_an_unstable_cell_is_never_passed(self) -> None:
        found = made(outcomes={Q8: UNSTABLE})
        predicate = statements(found)[f"cells/{Q8}.intoto.json"]["predicate"]
        assert (predicate["result"], len(predicate["passedTests"])) == ("WARNED", 4)

    def test_the_configuration_is_what_the_cell_was_asked(self) -> None:
        found = EVIDENCES["clean"]
        record = found.cells[Q8]
        configuration = self.result(Q8, "clean")["predicate"]["configuration"]
        told = digests(configuration)
        evalset = next(each for each in found.index.evalsets if each.name == "pods")
        assert told["reports/lineage/evalsets/pods.jsonl"] == {"sha256": evalset.sha256}
        assert not [name for name in told if "clauses" in name]
        assert told["corpus:notes"] == {"sha256": sha256_text("notes")}
        assert told["artifacts/prompts/base.jsonl"] == {"sha256": record.prompts_sha256}
        assert told["artifacts/code/score_llamacpp"] == {"sha256": record.code_sha256}
        assert [name for name in told if record.environment_sha256 in name]
        (decode,) = [each for each in configuration if each["name"] == "decode"]
        assert json.loads(base64.b64decode(decode["content"])) == record.decode

    def test_a_cell_of_another_machine_names_its_import(self) -> None:
        found = made(imported={MLX: "a laptop"})
        told = statements(found)[f"cells/{MLX}.intoto.json"]["predicate"]["configuration"]
        assert f"reports/lineage/cells/{MLX}/import.json" in digests(told)
        assert f"reports/lineage/cells/{MLX}/cell.json" in digests(told)

    def test_the_root_was_asked_everything(self) -> None:
        told = digests(self.result(ROOT, "clean")["predicate"]["configuration"])
        for name in ("evalsets/pods.jsonl", "evalsets/clauses.jsonl"):
            assert f"reports/lineage/{name}" in told
        assert "artifacts/prompts/root.jsonl" in told

    def test_an_attached_adapter_is_tested_with_its_source(self) -> None:
        found = EVIDENCES["clean"]
        subject = digests(self.result(ATTACHED, "clean")["subject"])
        for name in ("checkpoints/base", "adapters/audit"):
            assert subject[name] == {"dirHash": found.artifacts[name].identity}
        assert len(subject) == 6

    def test_other_bytes_than_the_record_has_are_named_by_their_identity_alone(self) -> None:
        found = made(changes={Q8: {"artifact_identity": "d" * 64}})
        subject = statements(found)[f"cells/{Q8}.intoto.json"]["subject"]
        assert subject == [{"name": "gguf/base/q8_0", "digest": {"dirHash": "d" * 64}}]

    def test_what_is_told_of_decoding_may_be_long(self) -> None:
        found = made(changes={Q8: {"decode": {"stop": ["x" * 2000]}}})
        statement = statements(found)[f"cells/{Q8}.intoto.json"]
        (decode,) = [
            each for each in statement["predicate"]["configuration"] if each["name"] == "decode"
        ]
        assert "content" not in decode and problems(statement) == []
