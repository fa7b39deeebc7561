"""Records and manifests: an edit of either, or of what they describe, is noticed and named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from driftline.errors import InputError, RefusedError
from driftline.schema.artifacts import (
    ArtifactRecord,
    FileDigest,
    Manifest,
    Reference,
    TensorDigest,
)
from driftline.schema.cells import Capabilities, CellRecord
from driftline.schema.lineage import EvalsetEvidence, LineageIndex
from driftline.schema.values import (
    Sealed,
    canonical,
    canonical_json,
    dump,
    load_lines,
    seal_of,
    sealed,
)
from driftline.schema.weights import ControlRecord, CounterfactualRecord
from driftline.store import digest, facts, records
from tests import factories
from tests.checkpoints import CONFIG, write_json
from tests.paths import ROOT
from tests.unit.gguf_bytes import STRING, field, gguf, text

BASE, MERGED, ADAPTER = "checkpoints/base", "checkpoints/audit", "adapters/audit"
GGUF, MLX = "gguf/audit/q8_0", "mlx/audit/4bit"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the probe has been in."""
    monkeypatch.chdir(tmp_path)
    for stage in ("pin", "merge", "quantize"):
        path = records.ARTIFACTS / "code" / stage
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"code of {stage}\n")
    (records.ARTIFACTS / "env").mkdir()
    (records.ARTIFACTS / "env" / "transformers.json").write_text('{"python": "3"}\n')
    return tmp_path


def made(
    name: str,
    kind: str = "source",
    conversion: Literal["pin", "merge"] = "pin",
    *parents: ArtifactRecord,
    weight: float = 1.0,
    tool_version: str = "1",
) -> ArtifactRecord:
    """An artifact with files in a folder of their own, and its record, as a stage leaves them."""
    folder = records.ARTIFACTS / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "sub folder").mkdir(parents=True)
    save_file({"w": np.full(3, weight, np.float32)}, folder / "model.safetensors")
    write_json(folder / "config.json", CONFIG)
    (folder / "sub folder" / "naïve 🦊.txt").write_text("é")
    return records.write(
        name,
        command=(conversion, name.rpartition("/")[2]),
        kind=kind,
        conversion=conversion,
        parents=parents,
        tool="tool",
        tool_version=tool_version,
        arguments={"dtype": "float32", "nested": {"scale": 0.5}},
        census=None,
        runtime="transformers" if conversion == "merge" else None,
        notes=("a remark",),
    )


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as caught:
        call()
    assert caught.value.remedy
    return caught.value.message


# ----------------------------------------------------------------------------------------- seals


def sealed_values() -> list[Sealed]:
    """One of every sealed type, with something in most fields."""
    parent = factories.artifact(BASE, "source", "pin", revision="0" * 40)
    made = factories.artifact(MERGED, "merged", "merge", parents=[parent], dtype="float32")
    made = made.model_copy(update={"notes": ("naïve 🦊",)})
    row = FileDigest(path="a/b", size=3, sha256="ab" * 32)
    inputs = (Reference(name="prompts/root.jsonl", identity="cd" * 32),)
    cell = factories.record("llamacpp/audit/q8_0").model_copy(
        update={"inputs": inputs, "outputs": (row,), "decode": {"stop": ["x"], "threads": 1}}
    )
    hop = {"parent": BASE, "parent_identity": "ab", "artifact": MERGED, "artifact_identity": "cd"}
    changed = {"field": "config.json:a", "expected": "1", "found": None}
    return [
        made,
        cell,
        Manifest(name="prompts", inputs=inputs, files=(row,)),
        LineageIndex(
            driftline="0.3",
            params={"a": {"b": [1, 2.5, None, True]}},
            code={"pin": "ab"},
            corpora={"notes": None},
            evalsets=(EvalsetEvidence(name="sql", sha256="ab", items=3),),
            hops=(),
            findings=(),
            drift_identity="ab",
            files=(row,),
        ),
        ControlRecord(kind="gguf", trusted=True, tensors=3, expected={"a": "1"}),
        CounterfactualRecord.model_validate({**hop, "trusted": True, "config": [changed]}),
    ]


SEALED = [sealed(value) for value in sealed_values()]


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in plain data that is no object or list, or an empty one."""
    if isinstance(data, dict) and data:
        return [place for key in data for place in places(data[key], (*at, key))]
    if isinstance(data, list) and data:
        return [place for n, each in enumerate(data) for place in places(each, (*at, n))]
    return [at]


def edited(data: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[at[0]] = edited(data[at[0]], at[1:], value)
    return copy


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)


@pytest.mark.parametrize("value", SEALED, ids=lambda value: type(value).__name__)
def test_an_intact_record_is_read_as_it_was_written(tmp_path: Path, value: Sealed) -> None:
    dump(value, tmp_path / "record.json")
    assert records.load_sealed(type(value), tmp_path / "record.json") == value


@settings(
    max_examples=1200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_an_edit_of_any_field_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(SEALED))
    plain = value.model_dump(mode="json")
    at = data.draw(st.sampled_from(places(plain)))
    other = edited(plain, at, data.draw(JSON))
    path = tmp_path / "record.json"
    path.write_text(json.dumps(other))
    try:
        found = records.load_sealed(type(value), path)
    except RefusedError as error:
        assert str(path) in error.message
        return
    assert found == value, f"{at} was edited, and nobody noticed"


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("value", SEALED, ids=lambda value: type(value).__name__)
def test_every_field_there_is_has_a_say_in_the_seal(value: Sealed) -> None:
    plain = value.model_dump(mode="json")
    for name in type(value).model_fields:
        if name != "seal":
            other = value.model_copy(update={name: "something else"})
            assert seal_of(other) != value.seal, name
    assert plain["seal"] == value.seal and len(value.seal) == 64


@pytest.mark.parametrize("value", SEALED, ids=lambda value: type(value).__name__)
def test_a_field_more_is_refused(tmp_path: Path, value: Sealed) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**value.model_dump(mode="json"), "seal_": "x"}))
    assert "seal_" in refused(lambda: records.load_sealed(type(value), path))


def earlier(record: CellRecord, path: Path, **edits: Any) -> None:
    """Write a cell's record as a version that knew no `capabilities` would have."""
    plain = record.model_dump(mode="json", exclude={"seal", "capabilities"})
    plain["seal"] = digest.sha256_text(canonical_json(plain))
    path.write_text(json.dumps({**plain, **edits}))


def test_a_record_of_before_a_field_was_added_is_read(tmp_path: Path) -> None:
    record, path = factories.record("mlx/audit/4bit"), tmp_path / "cell.json"
    earlier(record, path)
    found = records.load_sealed(CellRecord, path)
    assert found.capabilities == Capabilities() != record.capabilities
    assert found.cell == record.cell and found.seal != seal_of(found)
    for edits in ({"not_forced": "x"}, {"capabilities": {"exact_products": True}}):
        earlier(record, path, **edits)
        assert "the record was edited" in refused(lambda: records.load_sealed(CellRecord, path))


def test_of_a_key_given_twice_the_value_read_is_the_value_sealed(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = sealed(Manifest(name="a", inputs=(), files=()))
    text = canonical(record)
    path.write_text(text.replace('"name"', '"name":"b","name"'))
    assert records.load_sealed(Manifest, path) == record
    path.write_text(text.removesuffix("}") + ',"name":"b"}')
    assert "edited" in refused(lambda: records.load_sealed(Manifest, path))


def test_a_record_without_a_seal_is_refused(tmp_path: Path) -> None:
    dump(Manifest(name="a", inputs=(), files=()), tmp_path / "record.json")
    said = refused(lambda: records.load_sealed(Manifest, tmp_path / "record.json"))
    assert "its seal is missing" in said


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00", '{"seal": 1}'])
def test_what_is_no_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    said = refused(lambda: records.load_sealed(Manifest, tmp_path / "record.json"))
    assert "not a record of this version" in said


def test_no_record_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no record"):
        records.load_sealed(Manifest, tmp_path / "record.json")


def test_a_seal_is_recomputed_as_documented(tmp_path: Path) -> None:
    block = (ROOT / "docs" / "formats.md").read_text().partition("```python\n")[2]
    code, path = block.partition("```")[0], "artifacts/records/gguf/audit/q4_k_m/record.json"
    assert path in code
    for value in SEALED:
        dump(value, tmp_path / path)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == value.seal


# ------------------------------------------------------------------------------------- artifacts


@pytest.mark.usefixtures("project")
class TestArtifacts:
    def test_a_record_says_all_of_its_artifact(self) -> None:
        source = made(BASE)
        merged = made(MERGED, "merged", "merge", source)
        assert records.verified(MERGED) == merged
        assert [each.name for each in merged.parents] == [BASE]
        assert merged.parents[0].identity == source.identity
        assert merged.command == "python -m driftline.stages.merge audit"
        assert merged.code_sha256 == digest.sha256_text("code of merge\n")
        assert source.environment_sha256 is None
        home = records.RECORDS / MERGED
        assert merged.environment_sha256 == digest.sha256_file(home / records.ENVIRONMENT)
        listing = (home / records.TENSORS).read_text()
        assert merged.facts and merged.facts.tensors_sha256 == digest.sha256_text(listing)
        assert [each.name for each in load_lines(TensorDigest, home / records.TENSORS)] == ["w"]
        assert records.reference(merged) == Reference(name=MERGED, identity=merged.identity)

    def test_a_stage_that_was_not_probed_is_said_to_be(self) -> None:
        (records.ARTIFACTS / "code" / "pin").unlink()
        with pytest.raises(InputError, match="not probed"):
            made(BASE)

    def test_a_file_more_less_or_changed_is_named(self) -> None:
        made(BASE)
        folder = records.ARTIFACTS / BASE
        (folder / "extra file").write_text("x")
        (folder / "sub folder" / "naïve 🦊.txt").unlink()
        (folder / "config.json").write_text("{}")
        said = refused(lambda: records.verified(BASE))
        assert "extra    extra file" in said
        assert "missing  sub folder/naïve 🦊.txt" in said
        assert "changed  config.json" in said

    def test_one_flipped_bit_is_enough(self) -> None:
        made(BASE)
        path = records.ARTIFACTS / BASE / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
        assert "changed  model.safetensors" in refused(lambda: records.verified(BASE))

    def test_the_record_of_another_artifact_is_refused(self) -> None:
        made(BASE)
        made("checkpoints/other")
        shutil.copyfile(records.path_of("checkpoints/other"), records.path_of(BASE))
        said = refused(lambda: records.read(BASE))
        assert "is the record of checkpoints/other, expected that of checkpoints/base" in said
        refused(lambda: records.verified(BASE))

    def test_an_edited_record_is_refused(self) -> None:
        made(BASE)
        path = records.path_of(BASE)
        path.write_text(path.read_text().replace("a remark", "another"))
        assert "the record was edited" in refused(lambda: records.verified(BASE))

    def test_an_identity_that_does_not_follow_is_refused_though_it_is_sealed(self) -> None:
        wrong = made(BASE).model_copy(update={"identity": "ab" * 32})
        dump(sealed(wrong), records.path_of(BASE))
        assert "does not follow from its files" in refused(lambda: records.verified(BASE))

    def test_a_parent_of_other_bytes_is_refused(self) -> None:
        made(MERGED, "merged", "merge", made(BASE))
        made(BASE, weight=2.0)
        said = refused(lambda: records.verified(MERGED))
        assert f"{MERGED} was made from {BASE}" in said

    def test_a_parent_made_again_with_the_same_bytes_is_the_same(self) -> None:
        one = made(BASE, tool_version="1")
        made(MERGED, "merged", "merge", one)
        again = made(BASE, tool_version="2")
        assert again.seal != one.seal and again.identity == one.identity
        assert records.verified(MERGED).parents[0].identity == again.identity

    def test_a_parent_whose_record_was_edited_is_refused(self) -> None:
        made(MERGED, "merged", "merge", made(BASE))
        path = records.path_of(BASE)
        path.write_text(path.read_text().replace("a remark", "another"))
        assert "the record was edited" in refused(lambda: records.verified(MERGED))

    def test_a_parent_that_is_not_here_is_no_reason_to_refuse(self) -> None:
        made(MERGED, "merged", "merge", made(BASE))
        shutil.rmtree(records.RECORDS / BASE)
        assert records.verified(MERGED).name == MERGED

    @pytest.mark.parametrize("target", ["config.json", "/etc/hostname", "nowhere"])
    def test_a_symlink_is_refused(self, target: str) -> None:
        made(BASE)
        path = records.ARTIFACTS / BASE / "link"
        path.symlink_to(target)
        assert f"{path}: is a symlink" in refused(lambda: records.verified(BASE))

    def test_a_symlink_in_place_of_a_file_of_the_same_bytes_is_refused(
        self, tmp_path: Path
    ) -> None:
        made(BASE)
        path = records.ARTIFACTS / BASE / "config.json"
        shutil.move(path, tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
        assert f"{path}: is a symlink" in refused(lambda: records.verified(BASE))

    def test_a_folder_that_is_a_symlink_is_refused(self, tmp_path: Path) -> None:
        made(BASE)
        folder = records.ARTIFACTS / BASE
        shutil.move(folder, tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        assert f"{folder}: is a symlink" in refused(lambda: records.verified(BASE))

    def test_a_folder_inside_that_is_a_symlink_is_refused(self, tmp_path: Path) -> None:
        made(BASE)
        folder = records.ARTIFACTS / BASE / "sub folder"
        shutil.move(folder, tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        assert f"{folder}: is a symlink" in refused(lambda: records.verified(BASE))

    def test_an_artifact_without_its_record_is_refused(self) -> None:
        made(BASE)
        records.path_of(BASE).unlink()
        said = refused(lambda: records.verified(BASE))
        assert f"record.json: missing, though artifacts/{BASE} is here" in said
        shutil.rmtree(records.ARTIFACTS / BASE)
        with pytest.raises(InputError, match="no record"):
            records.verified(BASE)

    def test_a_record_that_is_a_symlink_is_refused(self, tmp_path: Path) -> None:
        made(BASE)
        path = records.path_of(BASE)
        shutil.move(path, tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
        assert f"{path}: is a symlink" in refused(lambda: records.read(BASE))

    @pytest.mark.parametrize("name", [records.TENSORS, records.ENVIRONMENT])
    def test_what_lies_beside_a_record_is_what_it_names(self, name: str) -> None:
        merged = made(MERGED, "merged", "merge", made(BASE))
        records.check_beside(merged)
        path = records.RECORDS / MERGED / name
        path.write_bytes(path.read_bytes() + b"\n")
        assert f"{path}: sha256 " in refused(lambda: records.check_beside(merged))
        path.unlink()
        assert "sha256 missing" in refused(lambda: records.check_beside(merged))

    def test_an_artifact_that_is_gone_is_refused(self) -> None:
        made(BASE)
        shutil.rmtree(records.ARTIFACTS / BASE)
        assert "no file in it" in refused(lambda: records.verified(BASE))


# ------------------------------------------------------------------------------------- manifests


@pytest.fixture
def prompts(project: Path) -> Path:
    """A folder with a manifest."""
    folder = records.ARTIFACTS / "prompts"
    (folder / "inside").mkdir(parents=True)
    (folder / "root.jsonl").write_text("one\n")
    (folder / "b é.jsonl").write_text("two\n")
    (folder / "inside" / "c").write_text("three\n")
    records.write_manifest(folder, "prompts", [Reference(name=BASE, identity="ab" * 32)])
    return folder


class TestManifests:
    def test_it_has_every_file_but_itself(self, prompts: Path) -> None:
        found = records.load_sealed(Manifest, prompts / records.MANIFEST)
        assert [row.path for row in found.files] == ["b é.jsonl", "inside/c", "root.jsonl"]
        expected = Reference(name="prompts", identity=digest.identity(found.files))
        assert records.manifest("prompts") == expected
        assert records.current("prompts") == expected.identity

    def test_a_file_more_less_or_changed_is_named(self, prompts: Path) -> None:
        (prompts / "new").write_text("new")
        (prompts / "b é.jsonl").unlink()
        (prompts / "root.jsonl").write_text("One\n")
        said = refused(lambda: records.manifest("prompts"))
        assert "extra    new" in said
        assert "missing  b é.jsonl" in said
        assert "changed  root.jsonl" in said

    def test_a_part_that_is_not_looked_at_may_be_anything(self, prompts: Path) -> None:
        whole = records.manifest("prompts")
        (prompts / "inside" / "c").write_text("other")
        (prompts / "inside" / "d").write_text("more")
        assert records.manifest("prompts", but="inside") == whole
        (prompts / "insider").write_text("more")
        assert "extra    insider" in refused(lambda: records.manifest("prompts", but="inside"))

    def test_a_manifest_that_lists_itself_is_refused(self, prompts: Path) -> None:
        path = prompts / records.MANIFEST
        found = records.load_sealed(Manifest, path)
        own = FileDigest(path=records.MANIFEST, size=1, sha256="ab" * 32)
        dump(sealed(found.model_copy(update={"files": (*found.files, own)})), path)
        assert f"missing  {records.MANIFEST}" in refused(lambda: records.manifest("prompts"))

    def test_one_of_another_folder_is_refused(self, prompts: Path) -> None:
        shutil.copytree(prompts, records.ARTIFACTS / "evalset")
        said = refused(lambda: records.manifest("evalset"))
        assert "is the manifest of prompts, expected that of evalset" in said

    def test_an_edited_one_is_refused(self, prompts: Path) -> None:
        path = prompts / records.MANIFEST
        path.write_text(path.read_text().replace("ab" * 32, "cd" * 32))
        assert "the record was edited" in refused(lambda: records.manifest("prompts"))
        assert "the record was edited" in refused(lambda: records.current("prompts"))

    def test_a_folder_without_one_is_refused(self, prompts: Path) -> None:
        (prompts / records.MANIFEST).unlink()
        for said in (
            refused(lambda: records.manifest("prompts")),
            refused(lambda: records.file("prompts", "root.jsonl")),
        ):
            assert "manifest.json: missing, though artifacts/prompts is here" in said
        assert "missing, though" in refused(lambda: records.current("prompts"))

    def test_where_there_is_no_folder_there_is_nothing_made_yet(self, prompts: Path) -> None:
        shutil.rmtree(prompts)
        with pytest.raises(InputError, match="no record"):
            records.manifest("prompts")
        with pytest.raises(InputError, match="no record"):
            records.current("prompts")

    def test_one_made_from_something_else_than_is_here_is_refused(self, prompts: Path) -> None:
        made(BASE)
        said = refused(lambda: records.manifest("prompts"))
        assert f"prompts was made from {BASE} abababababab…, here it is " in said
        path = prompts / records.MANIFEST
        found = records.load_sealed(Manifest, path)
        inputs = (records.reference(records.read(BASE)),)
        dump(sealed(found.model_copy(update={"inputs": inputs})), path)
        assert records.manifest("prompts").name == "prompts"

    def test_a_symlink_is_refused(self, prompts: Path) -> None:
        (prompts / "link").symlink_to("root.jsonl")
        assert "is a symlink" in refused(lambda: records.manifest("prompts"))

    def test_one_file_of_it_is_checked_alone(self, prompts: Path) -> None:
        found = records.file("prompts", "root.jsonl")
        assert found == Reference(
            name="prompts/root.jsonl", identity=digest.sha256_file(prompts / "root.jsonl")
        )
        (prompts / "b é.jsonl").write_text("changed\n")
        assert records.file("prompts", "root.jsonl") == found
        records.check_input("reader", found)

    def test_one_file_that_is_another_or_no_file_of_it_is_refused(self, prompts: Path) -> None:
        before = records.file("prompts", "root.jsonl")
        (prompts / "root.jsonl").write_text("One\n")
        assert "in its manifest" in refused(lambda: records.file("prompts", "root.jsonl"))
        (prompts / "new").write_text("new")
        assert "nothing… in its manifest" in refused(lambda: records.file("prompts", "new"))
        (prompts / "b é.jsonl").unlink()
        assert "sha256 missing" in refused(lambda: records.file("prompts", "b é.jsonl"))
        assert "was made from" in refused(lambda: records.check_input("reader", before))


# -------------------------------------------------------------------------------------- identity

DOCUMENTED = next(
    line.strip()
    for line in (ROOT / "docs" / "formats.md").read_text().splitlines()
    if line.startswith("find . -type f")
)
"""What docs/formats.md says prints an identity."""


@pytest.mark.usefixtures("project")
class TestIdentity:
    def test_coreutils_recompute_that_of_every_kind(self) -> None:
        source = made(BASE)
        made(ADAPTER, "adapter")
        made(MERGED, "merged", "merge", source)
        for name, files in {
            GGUF: {"model.gguf": gguf([field(b"x", STRING, text(b"y"))]), "a b/naïve 🦊": b""},
            MLX: {"config.json": b"{}", "Z": b"\xff", "a": b"", "é": b"", "-rf": b"x", "'\"": b""},
        }.items():
            folder = records.ARTIFACTS / name
            for path, data in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
            records.write(
                name,
                command=("quantize", "audit"),
                kind="gguf" if name == GGUF else "mlx",
                conversion="quantize",
                parents=(source,),
                tool="tool",
                tool_version="1",
                arguments={},
                census=None,
            )
        found = {}
        for name in (BASE, ADAPTER, MERGED, GGUF, MLX):
            done = subprocess.run(
                ["sh", "-c", DOCUMENTED],
                cwd=records.ARTIFACTS / name,
                capture_output=True,
                text=True,
                check=True,
            )
            found[name] = done.stdout.split()[0]
        assert found == {name: records.verified(name).identity for name in found}
        assert len({found[GGUF], found[MLX], found[BASE]}) == 3

    def test_facts_are_of_the_same_files(self) -> None:
        record = made(BASE)
        own, tensors = facts.of_artifact(records.ARTIFACTS / BASE, record.files)
        assert (record.facts, len(tensors)) == (own, 1)


@pytest.mark.usefixtures("project")
def test_cells_and_counterfactuals_are_named_by_their_seals() -> None:
    from driftline.evidence import scored

    record: CellRecord = sealed(factories.record("llamacpp/audit/q8_0"))
    named = scored.reference(record)
    assert named == Reference(name="cells/llamacpp/audit/q8_0", identity=record.seal)
    dump(record, records.ARTIFACTS / named.name / records.CELL)
    records.check_input("reader", named)
    weighed = next(value for value in SEALED if isinstance(value, CounterfactualRecord))
    dump(weighed, records.ARTIFACTS / "counterfactuals" / GGUF / records.RECORD)
    assert records.current(f"counterfactuals/{GGUF}") == weighed.seal
    other = sealed(record.model_copy(update={"code_sha256": "ef" * 32}))
    dump(other, records.ARTIFACTS / named.name / records.CELL)
    assert "was made from" in refused(lambda: records.check_input("reader", named))
