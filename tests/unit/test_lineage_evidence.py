"""Evidence of a commit: the same wherever it is read from, and refused when it was touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from driftline.errors import InputError, RefusedError, ToolError
from driftline.evidence import history, lineage
from driftline.evidence.history import FOLDER, RELEASES, FolderTree, GitTree
from driftline.evidence.lineage import INDEX, Evidence
from driftline.release.contents import release
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.lineage import LineageIndex
from driftline.schema.values import canonical, dump, seal_of, sealed
from tests.paths import ROOT
from tests.unit.lineage_trees import World

ODD = "naïve clauses 🦊"
BREAKS = "a\u2028b\u0085c"
"""Cut by `str.splitlines`, and no line's end in JSON lines."""
WORLD = World(
    items={
        ODD: {"c-1": "question", BREAKS: "another"},
        "audit": {f"a-{n}": f"question {n}" for n in range(3)},
    }
).params(evalsets={"base": [ODD], "audit": ["audit"]})
RECORD = "artifacts/gguf/audit/q8_0/record.json"
CELL = "cells/llamacpp/audit/q8_0/cell.json"
ITEMS = "cells/llamacpp/audit/q8_0/items.jsonl"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with its evidence, in a folder whose name is odd too."""
    folder = tmp_path / "my project é"
    for path, data in WORLD.tree().files.items():
        (folder / FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / FOLDER / path).write_bytes(data)
    monkeypatch.chdir(folder)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "nobody@localhost")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return folder


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit() -> str:
    """Everything here as a commit."""
    if not Path(".git").exists() and not Path("../.git").exists():
        git("init", "-q", "-b", "main", ".")
    git("add", "-A", "-f", ".")
    git("commit", "-q", "--allow-empty", "-m", "evidence")
    return git("rev-parse", "HEAD")


@pytest.fixture
def committed(project: Path) -> str:
    """The project as a commit of its own repository."""
    return commit()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RefusedError) as caught:
        call()
    assert caught.value.remedy and caught.value.exit_code == 3
    return caught.value.message


def read() -> Evidence:
    return lineage.read(FolderTree())


def whole(found: Evidence) -> dict[str, Any]:
    """Everything an evidence says, but for where it lies."""
    environments = {record.environment_sha256 for record in found.artifacts.values()}
    return {
        "index": found.index,
        "artifacts": found.artifacts,
        "cells": found.cells,
        "hops": found.hops,
        "tensors": {name: found.tensors(name) for name in found.artifacts},
        "items": {name: found.items(name) for name in found.cells},
        "evalsets": {each.name: found.evalset(each.name) for each in found.index.evalsets},
        "environments": {each: found.environment(each) for each in environments if each},
    }


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


# ------------------------------------------------------------------------------------------ read


@pytest.mark.usefixtures("project")
class TestRead:
    def test_what_was_written_is_read(self) -> None:
        found = read()
        assert whole(found) == whole(WORLD.evidence())
        assert found.where == "the working tree"
        assert set(found.artifacts) >= {"checkpoints/base", "gguf/audit/q8_0", "mlx/base/4bit"}
        assert found.hops["llamacpp/audit/q8_0"].hop.kind == "quantize"

    def test_only_a_newline_ends_a_line(self) -> None:
        found = read()
        assert f"{ODD}/{BREAKS}" in found.items("llamacpp/base/f32")
        assert list(found.evalset(ODD)) == ["c-1", BREAKS]

    def test_without_an_index_there_is_no_evidence(self) -> None:
        (FOLDER / INDEX).unlink()
        assert "no evidence (reports/lineage/index.json)" in refused(read)

    def test_without_a_folder_there_is_no_evidence(self) -> None:
        shutil.rmtree(FOLDER)
        assert "no evidence" in refused(read)

    def test_files_more_less_and_changed_are_named(self) -> None:
        (FOLDER / "cells" / "new file").write_text("x")
        (FOLDER / "evalsets" / f"{ODD}.jsonl").unlink()
        path = FOLDER / ITEMS
        path.write_bytes(path.read_bytes()[:-2] + b" }"[::-1])
        said = refused(read)
        assert "extra    cells/new file" in said
        assert f"missing  evalsets/{ODD}.jsonl" in said
        assert f"changed  {ITEMS}" in said

    @pytest.mark.parametrize("path", [INDEX, RECORD, CELL])
    def test_an_edited_record_is_named(self, path: str) -> None:
        def edit(data: dict[str, Any]) -> None:
            data["driftline" if path == INDEX else "code_sha256"] = "ef" * 32

        edit_json(FOLDER / path, edit)
        assert f"edited   {path}: its seal is " in refused(read)

    @pytest.mark.parametrize("path", [RECORD, CELL])
    def test_an_edited_record_with_a_seal_of_its_own_is_named(self, path: str) -> None:
        record = read().artifacts["gguf/audit/q8_0"] if path == RECORD else None
        made = record or read().cells["llamacpp/audit/q8_0"]
        dump(sealed(made.model_copy(update={"code_sha256": "ef" * 32})), FOLDER / path)
        said = refused(read)
        assert f"changed  {path}" in said and "edited" not in said

    def test_so_is_one_that_the_index_was_adapted_to(self) -> None:
        """Whoever seals index and records anew can only be told by git: or by a record's place."""
        swapped = FOLDER / RECORD
        shutil.copyfile(FOLDER / "artifacts/gguf/base/q8_0/record.json", swapped)
        rows = WORLD.evidence().index.files
        other = next(row for row in rows if row.path.endswith("gguf/base/q8_0/record.json"))
        files = tuple(
            other.model_copy(update={"path": row.path}) if row.path == RECORD else row
            for row in rows
        )
        index = WORLD.evidence().index.model_copy(update={"files": files})
        dump(sealed(index), FOLDER / INDEX)
        said = refused(read)
        assert f"edited   {RECORD}: it belongs at artifacts/gguf/base/q8_0/record.json" in said
        found, faults = lineage.survey(FolderTree())
        assert [fault.path for fault in faults] == [RECORD]
        assert "gguf/audit/q8_0" not in found.artifacts
        assert found.artifacts["gguf/base/q8_0"] == WORLD.evidence().artifacts["gguf/base/q8_0"]

    @pytest.mark.parametrize("path", [INDEX, RECORD, CELL])
    @pytest.mark.parametrize("content", ["", "{}", "[", '{"seal": "ab", "unknown": 1}'])
    def test_what_is_no_record_is_named(self, path: str, content: str) -> None:
        (FOLDER / path).write_text(content)
        said = refused(read)
        assert path in said and "not a record of this version" in said

    def test_a_survey_says_everything_that_is_wrong_at_once(self) -> None:
        (FOLDER / RECORD).write_text("{}")
        edit_json(FOLDER / CELL, lambda data: data.update(code_sha256="ef" * 32))
        (FOLDER / "extra").write_text("x")
        found, faults = lineage.survey(FolderTree())
        said = {(fault.what, fault.path) for fault in faults}
        assert said == {
            ("edited", RECORD),
            ("changed", RECORD),
            ("edited", CELL),
            ("changed", CELL),
            ("extra", "extra"),
        }
        assert "gguf/audit/q8_0" not in found.artifacts
        assert found.cells["llamacpp/audit/q8_0"].code_sha256 == "ef" * 32

    @pytest.mark.parametrize("target", ["index.json", "nowhere", "/etc/hostname"])
    def test_a_symlink_is_refused(self, target: str) -> None:
        (FOLDER / "link").symlink_to(target)
        assert "link: is a symlink" in refused(read)

    def test_a_symlink_in_place_of_a_file_is_refused(self, tmp_path: Path) -> None:
        shutil.move(FOLDER / RECORD, tmp_path / "record.json")
        (FOLDER / RECORD).symlink_to(tmp_path / "record.json")
        assert f"{RECORD}: is a symlink" in refused(read)

    def test_a_symlink_in_place_of_a_folder_hides_what_is_in_it(self, tmp_path: Path) -> None:
        shutil.move(FOLDER / "cells", tmp_path / "cells")
        (FOLDER / "cells").symlink_to(tmp_path / "cells", target_is_directory=True)
        assert f"missing  {CELL}" in refused(read)


# ----------------------------------------------------------------------------------------- trees


class TestTrees:
    def test_a_commit_and_the_folder_it_was_made_of_say_the_same(self, committed: str) -> None:
        here, there = FolderTree(), GitTree(committed, "main")
        assert here.paths() == there.paths()
        assert f"evalsets/{ODD}.jsonl" in here.paths()
        assert {path: here.read(path) for path in here.paths()} == {
            path: there.read(path) for path in there.paths()
        }
        found = history.at("main")
        assert whole(found) == whole(history.at(None))
        assert found.where == "main"

    def test_a_commit_stays_what_it_was(self, committed: str) -> None:
        shutil.rmtree(FOLDER)
        assert whole(history.at(committed)) == whole(WORLD.evidence())
        gone = commit()
        assert f"{gone}: no evidence" in refused(lambda: history.at(gone))
        assert whole(history.at("HEAD~1")) == whole(WORLD.evidence())

    def test_edited_evidence_is_refused_in_a_commit_too(self, committed: str) -> None:
        edit_json(FOLDER / RECORD, lambda data: data.update(tool="other"))
        (FOLDER / "evalsets" / f"{ODD}.jsonl").unlink()
        (FOLDER / "extra é").write_text("x")
        here = refused(lambda: history.at(None))
        commit()
        there = refused(lambda: history.at("HEAD"))
        assert f"edited   {RECORD}" in there and "extra    extra é" in there
        assert there == here.replace("the working tree", "HEAD")

    def test_a_project_may_be_a_folder_of_a_larger_repository(self, project: Path) -> None:
        git("init", "-q", "-b", "main", "..")
        (project.parent / "reports" / "lineage").mkdir(parents=True)
        (project.parent / "reports" / "lineage" / "index.json").write_text("another project's")
        commit()
        git("-C", "..", "add", "-A")
        git("commit", "-q", "-m", "both")
        assert whole(history.at("HEAD")) == whole(WORLD.evidence())

    def test_the_machines_encoding_changes_nothing(self, committed: str) -> None:
        code = (
            "from driftline.evidence import history; print(ascii(history.at('main').index.evalsets[0].name))"
        )
        ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **ascii_only, "PYTHONPATH": str(ROOT / "pipeline")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == ascii(ODD), done.stderr

    def test_a_link_in_a_commit_is_not_what_it_points_to(self, committed: str) -> None:
        data = (FOLDER / RECORD).read_bytes()
        Path("elsewhere.json").write_bytes(data)
        (FOLDER / RECORD).unlink()
        (FOLDER / RECORD).symlink_to(Path("elsewhere.json").absolute())
        commit()
        assert f"changed  {RECORD}" in refused(lambda: history.at("HEAD"))

    def test_an_object_git_has_lost_is_said_to_be(self, committed: str) -> None:
        blob = git("rev-parse", f"HEAD:{FOLDER.as_posix()}/{RECORD}")
        (Path(".git") / "objects" / blob[:2] / blob[2:]).unlink()
        with pytest.raises(ToolError, match="git has no object for reports/lineage/artifacts"):
            history.at("HEAD")

    def test_outside_a_repository_there_is_no_revision(self, project: Path) -> None:
        with pytest.raises(InputError, match="neither a release nor a git revision"):
            history.at("HEAD")


# ------------------------------------------------------------------------------------- commit_of


def released(name: str, commit: str) -> Path:
    path = RELEASES / f"{name}.json"
    dump(release(name, commit, WORLD.evidence(), "ab" * 32), path)
    return path


class TestCommitOf:
    def test_a_release_is_its_commit(self, committed: str) -> None:
        released("v1", committed)
        later = commit()
        assert later != committed
        assert history.commit_of("v1") == committed
        assert history.at("v1").where == "v1"

    def test_a_release_comes_before_a_tag_of_that_name(self, committed: str) -> None:
        released("v1", committed)
        commit()
        git("tag", "v1")
        assert history.commit_of("v1") == committed

    def test_any_revision_is_its_commit(self, committed: str) -> None:
        git("tag", "light")
        git("tag", "-a", "annotated", "-m", "message")
        commit()
        for name in ("light", "annotated", "main~1", "HEAD^", committed, committed[:9]):
            assert history.commit_of(name) == committed, name
        assert history.commit_of("HEAD") == git("rev-parse", "HEAD")

    @pytest.mark.parametrize(
        "name", ["v9", "", "--all", "-h", "HEAD:reports", "no such", "../lineage/index", "a\nb"]
    )
    def test_an_unknown_name_lists_the_releases(self, committed: str, name: str) -> None:
        for known in ("v2", "v1"):
            released(known, committed)
        if name == "../lineage/index":  # a file, but no release
            assert "not a record" in refused(lambda: history.commit_of(name))
            return
        with pytest.raises(InputError) as caught:
            history.commit_of(name)
        assert f'"{name}" is neither' in caught.value.message
        assert "(releases: v1, v2)" in caught.value.message
        assert caught.value.exit_code == 2

    def test_where_there_is_no_release_it_says_so(self, committed: str) -> None:
        with pytest.raises(InputError, match=r"\(releases: none yet\)"):
            history.commit_of("v1")

    def test_a_release_of_a_commit_that_is_not_here(self, committed: str) -> None:
        released("v1", "ab" * 20)
        with pytest.raises(InputError) as caught:
            history.commit_of("v1")
        assert "unshallow" in caught.value.remedy

    def test_an_edited_release_is_refused(self, committed: str) -> None:
        path = released("v1", committed)
        other = commit()
        path.write_text(path.read_text().replace(committed, other))
        assert "the record was edited" in refused(lambda: history.commit_of("v1"))

    def test_the_record_of_another_release_is_refused(self, committed: str) -> None:
        shutil.copyfile(released("v1", committed), RELEASES / "v2.json")
        assert "is the record of release v1" in refused(lambda: history.commit_of("v2"))


# ------------------------------------------------------------------------------------------ laws


def test_the_index_seals_every_other_file() -> None:
    index = WORLD.evidence().index
    for row in index.files:
        files = tuple(
            each.model_copy(update={"sha256": "ef" * 32}) if each is row else each
            for each in index.files
        )
        assert seal_of(index.model_copy(update={"files": files})) != index.seal
    assert {row.path for row in index.files} == set(WORLD.tree().paths()) - {INDEX}


def test_canonical_lines_are_one_line_each() -> None:
    """`items.jsonl` is read line by line: nothing a value holds may end one."""
    record = ArtifactRecord.model_validate(
        {**WORLD.evidence().artifacts["checkpoints/base"].model_dump(), "notes": [f"x\r\n{BREAKS}"]}
    )
    assert canonical(record).encode().splitlines() == [canonical(record).encode()]
    assert LineageIndex.model_fields.keys() >= {"files", "params", "drift_identity"}
