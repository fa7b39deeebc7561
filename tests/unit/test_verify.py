"""The parts of `driftline verify` that need no pipeline: lock files, digests, parts, remedies."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from driftline.commands.verify import verify as command
from driftline.errors import InputError, RefusedError
from driftline.schema.artifacts import FileDigest, Manifest, Reference
from driftline.schema.values import dump, sealed
from driftline.store import digest, facts
from driftline.store.digest import Difference
from driftline.verify import lock as locks
from driftline.verify import locked, objects, parts, workspace
from driftline.verify.audit import verify
from driftline.verify.expected import Expected, readers
from driftline.verify.hashes import Hashes, folder_md5, md5_of, plain_files
from driftline.verify.lock import Lock, LockedPath
from driftline.verify.problems import Deviation, Problem, as_problems, shown
from driftline.verify.remedies import Remedies
from driftline.verify.survey import Actual, WorkingTree
from tests import factories
from tests.checkpoints import CONFIG, write_json

A, B, C = (letter * 32 for letter in "abc")


def entry(path: str, md5: str = A, size: int = 3, stage: str = "make") -> LockedPath:
    return LockedPath(stage, path, md5, size, 1 if md5.endswith(".dir") else None)


def written(stages: dict[str, Any], path: str = "dvc.lock") -> Path:
    file = Path(path)
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))
    return file


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ------------------------------------------------------------------------------------- lock files


STAGES: dict[str, Any] = {
    "make": {
        "cmd": "make",
        "outs": [{"path": "artifacts/a", "hash": "md5", "md5": f"{A}.dir", "size": 3, "nfiles": 2}],
    },
    "use": {
        "cmd": "use",
        "deps": [
            {"path": "artifacts/a", "hash": "md5", "md5": f"{A}.dir", "size": 3, "nfiles": 2},
            {"path": "table", "hash": "etag", "etag": "x"},
        ],
        "outs": [{"path": "artifacts/a/b.json", "hash": "md5", "md5": B, "size": 1}],
    },
}


def test_a_lock_file_says_who_made_and_who_read_what() -> None:
    written(STAGES)
    written({"probe": {"outs": [{"path": "artifacts/env", "md5": C, "size": 1}]}}, "probe/dvc.lock")
    lock = locks.read()
    assert lock.outs["artifacts/a"] == LockedPath("make", "artifacts/a", f"{A}.dir", 3, 2)
    assert lock.outs["artifacts/a"].is_folder and not lock.outs["artifacts/a/b.json"].is_folder
    assert [dep.path for dep in lock.deps] == ["artifacts/a"]
    assert [dep.path for dep in lock.reads("use")] == ["artifacts/a"] and not lock.reads("make")
    assert lock.maker("artifacts/env") == "probe/dvc.yaml:probe"
    assert lock.outs["artifacts/env"].probed and not lock.outs["artifacts/a"].probed


@pytest.mark.parametrize(
    ("path", "out", "stage"),
    [
        ("artifacts/a", "artifacts/a", "make"),
        ("artifacts/a/sub/file", "artifacts/a", "make"),
        ("artifacts/a/b.json", "artifacts/a/b.json", "use"),
        ("artifacts/ab", "", ""),
        ("artifacts", "", ""),
        ("", "", ""),
    ],
)
def test_the_maker_of_a_path_is_that_of_the_nearest_out(path: str, out: str, stage: str) -> None:
    lock = locks.read((written(STAGES),))
    assert (lock.out_of(path), lock.maker(path)) == (out, stage)


def test_no_lock_file_is_an_empty_one() -> None:
    assert locks.read() == Lock()
    assert locks.at_head() is None


def test_files_that_dvc_tracks_are_their_own_stage() -> None:
    home = Path("imports/mlx/audit/4bit")
    home.mkdir(parents=True)
    out = {"path": "cell", "hash": "md5", "md5": f"{A}.dir", "size": 9, "nfiles": 4}
    (home / "cell.dvc").write_text(yaml.safe_dump({"outs": [out]}))
    found = locks.read().outs["imports/mlx/audit/4bit/cell"]
    assert found == LockedPath("imports/mlx/audit/4bit/cell.dvc", found.path, f"{A}.dir", 9, 4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "stages: 3",
        "stages: {a: 3}",
        "schema: '2.0'",
        "stages: {a: {outs: [x]}}",
        "stages: {a: {outs: [{md5: x}]}}",
        "stages: {a: {outs: [{path: x, hash: md5}]}}",
        f"stages: {{a: {{outs: [{{path: x, md5: {A[:-1]}}}]}}}}",
        f"stages: {{a: {{outs: [{{path: x, md5: {A}.di}}]}}}}",
        f"stages: {{a: {{outs: [{{path: x, md5: {A}, size: many}}]}}}}",
        f"stages: {{a: {{outs: [{{path: x, md5: {A}, size:}}]}}}}",
        "<<<<<<< HEAD\nstages: {}",
        "a: b: c",
        "\x00",
        "- !!python/object/apply:os.system [exit]",
    ],
)
def test_what_is_no_whole_lock_file_is_refused_and_named(text: str) -> None:
    Path("dvc.lock").write_text(text)
    with pytest.raises(RefusedError, match=r"^refused: dvc\.lock: not a DVC lock file: ") as caught:
        locks.read()
    assert caught.value.remedy == "git checkout HEAD -- dvc.lock"


@pytest.mark.parametrize("md5", ["1" * 32, "0" * 31 + "1", "1234e" + "5" * 27])
def test_an_md5_that_looks_like_a_number_is_an_md5(md5: str) -> None:
    Path("dvc.lock").write_text(f"stages: {{a: {{outs: [{{path: x, md5: {md5}, size: 010}}]}}}}")
    assert locks.read().outs["x"] == LockedPath("a", "x", md5, 10, None)


def test_a_lock_file_that_is_no_text_is_refused() -> None:
    Path("dvc.lock").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RefusedError, match="not a DVC lock file"):
        locks.read()


def test_a_lock_file_cut_anywhere_is_refused_or_says_less() -> None:
    whole = written(STAGES).read_text()
    known = locks.read().outs
    for length in range(len(whole)):
        Path("dvc.lock").write_text(whole[:length])
        try:
            found = locks.read().outs
        except RefusedError:
            continue
        # What lost its end is found without reading a byte: its size or number of files is other.
        for path, each in found.items():
            right = known[path]
            assert each == right or (each.size, each.nfiles) != (right.size, right.nfiles)
        assert set(found) <= set(known)


# ---------------------------------------------------------------- the lock file against itself


def problems(lock: Lock, *, deep: bool = False, but: tuple[str, ...] = ()) -> list[Problem]:
    return list(locked.contradictions(lock, WorkingTree(Hashes(), deep), but))


def test_a_lock_file_that_agrees_has_no_contradiction() -> None:
    lock = Lock({"a": entry("a")}, (entry("a", stage="use"), entry("elsewhere", stage="use")))
    assert problems(lock) == []


def test_readers_of_another_object_than_its_maker_names_are_one_problem() -> None:
    readers = (entry("a", B, stage="use"), entry("a", B, stage="see"))
    lock = Lock({"a": entry("a"), "b": entry("b")}, readers)
    (found,) = problems(lock)
    assert (found.place, found.object, found.what) == ("dvc.lock", "a", "changed")
    assert f"stage use, see read md5 {B} (3 bytes), the entry of its maker make says {A}" in (
        found.detail
    )
    assert problems(lock, but=("a",)) == []


def test_a_size_alone_is_a_contradiction() -> None:
    (found,) = problems(Lock({"a": entry("a")}, (entry("a", size=4, stage="use"),)))
    assert "(4 bytes)" in found.detail and "(3 bytes)" in found.detail


@pytest.mark.parametrize(("content", "wrong"), [(b"one", "use"), (b"two", "make")])
def test_the_working_tree_tells_whose_entry_is_wrong(content: bytes, wrong: str) -> None:
    Path("a").write_bytes(content)
    one, two = (hashlib.md5(each).hexdigest() for each in (b"one", b"two"))
    (found,) = problems(Lock({"a": entry("a", one)}, (entry("a", two, stage="use"),)), deep=True)
    assert found.stage == wrong


def test_what_the_probe_writes_contradicts_nothing() -> None:
    made = entry("artifacts/env/x.json", stage="probe/dvc.yaml:probe")
    lock = Lock({made.path: made}, (entry(made.path, B, stage="use"),))
    assert problems(lock) == []


def test_a_file_in_an_out_that_a_stage_read_is_what_lies_there() -> None:
    folder = Path("artifacts/prompts")
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("one")
    one = hashlib.md5(b"one").hexdigest()
    out = LockedPath("prompts", "artifacts/prompts", folder_md5({"a.jsonl": one}), 3, 1)
    here = WorkingTree(Hashes(), deep=True)
    right = Lock({out.path: out}, (entry("artifacts/prompts/a.jsonl", one, stage="score"),))
    assert list(locked.others_read(right, here, ())) == []
    wrong = Lock({out.path: out}, (entry("artifacts/prompts/a.jsonl", B, stage="score"),))
    (found,) = locked.others_read(wrong, here, ())
    assert found.object == "artifacts/prompts/a.jsonl"
    assert found.detail.startswith(f"read by stage score: md5 {B} in dvc.lock, {one}")
    assert list(locked.others_read(wrong, here, ("artifacts/prompts",))) == []


def test_a_folder_of_outs_is_compared_only_when_all_of_it_is_here() -> None:
    for name in ("a", "b"):
        Path("artifacts/cells", name).mkdir(parents=True)
        Path("artifacts/cells", name, "cell.json").write_text(name)
    outs = {
        path: LockedPath("score", path, Hashes().oid(Path(path)), 1, 1)
        for path in ("artifacts/cells/a", "artifacts/cells/b")
    }
    lock = Lock(outs, (LockedPath("grade", "artifacts/cells", f"{C}.dir", 2, 2),))
    here = WorkingTree(Hashes(), deep=True)
    assert [each.stage for each in locked.others_read(lock, here, ())] == ["grade"]
    (Path("artifacts/cells/b") / "cell.json").unlink()
    Path("artifacts/cells/b").rmdir()
    assert list(locked.others_read(lock, here, ())) == []


def test_a_lock_file_is_sound_when_all_that_is_here_is_as_it_says() -> None:
    Path("a").write_text("one")
    right = Lock({"a": entry("a", hashlib.md5(b"one").hexdigest()), "gone": entry("gone")})
    here = WorkingTree(Hashes(), deep=True)
    assert locked.sound(right, here, ())
    assert not locked.sound(Lock({"a": entry("a")}), here, ())
    assert locked.sound(Lock({"a": entry("a")}), here, ("a",))
    assert locked.sound(Lock({"a": entry("a")}), WorkingTree(Hashes(), deep=False), ())


# ---------------------------------------------------------------------------------------- digests


NAMES = ("a/b", "a-b", "a.b", "A", "ab", "sub folder/naïve 🦊.txt", 'quo"te', "z/y/x", "0", "_")


def test_a_folders_md5_is_dvcs_own(here: Path) -> None:
    for name in NAMES:
        path = here / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name * 3)
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(here / "site")}
    for arguments in (("init", "--no-scm", "-q"), ("add", "-q", "folder")):
        dvc = [sys.executable, "-m", "dvc", *arguments]
        subprocess.run(dvc, check=True, env=environment, cwd=here)
    said = yaml.safe_load((here / "folder.dvc").read_text())["outs"][0]
    assert Hashes().oid(here / "folder") == said["md5"]
    assert len(plain_files(here / "folder")) == said["nfiles"] == len(NAMES)
    found = WorkingTree(Hashes(), deep=True)
    assert found.differs(LockedPath("", "folder", said["md5"], said["size"], said["nfiles"])) == ""


@given(st.dictionaries(st.text(min_size=1), st.sampled_from((A, B, C))))
def test_a_folders_md5_does_not_depend_on_the_order_of_its_files(files: dict[str, str]) -> None:
    backwards = dict(reversed(list(files.items())))
    assert folder_md5(files) == folder_md5(backwards)
    assert locks.MD5.fullmatch(folder_md5(files))


@given(st.binary(max_size=200))
def test_both_digests_of_a_file_come_of_one_read(data: bytes) -> None:
    path = Path("file")
    path.write_bytes(data)
    hashes = Hashes()
    assert hashes.sha256(path) == hashlib.sha256(data).hexdigest()
    path.write_bytes(data + b"x")  # a second read would see this
    assert hashes.md5(path) == hashlib.md5(data).hexdigest() == hashes.oid(path)
    with path.open("rb") as file:
        assert md5_of(file) == hashlib.md5(data + b"x").hexdigest()


def test_links_are_no_plain_files(here: Path) -> None:
    (here / "a").mkdir()
    (here / "a" / "file").write_text("x")
    (here / "a" / "link").symlink_to("file")
    assert plain_files(here / "a") == [here / "a" / "file"]
    assert plain_files(here / "a" / "file") == [here / "a" / "file"]
    assert plain_files(here / "a" / "link") == []


# ------------------------------------------------------------------------------- what is another


def rows(**files: str) -> list[FileDigest]:
    """Files by name; `size:sha256`, without a sha256 where that was not read."""
    made = []
    for path, said in files.items():
        size, _, sha256 = said.partition(":")
        made.append(FileDigest(path=path, size=int(size), sha256=sha256))
    return made


def test_files_are_compared_by_name_size_and_what_was_read() -> None:
    expected = rows(a="1:aa", b="2:bb", c="3:cc", d="4:dd", e="5:ee")
    found = rows(b="2:bb", c="4:cc", d="4", e="5:ff", f="6")
    row = Expected("artifacts/x", "artifact", tuple(expected), None)
    differences = workspace.compare(row, Actual(tuple(found)))
    assert [(each.what, each.path, each.detail) for each in differences] == [
        ("extra", "artifacts/x/f", ""),
        ("missing", "artifacts/x/a", ""),
        ("changed", "artifacts/x/c", "3 bytes recorded, 4 here"),
        ("changed", "artifacts/x/e", "sha256 ee… recorded, ff… here"),
    ]


def test_a_record_that_contradicts_another_is_told_where_its_files_are_as_it_says() -> None:
    row = Expected(
        "artifacts/drift", "manifest", tuple(rows(a="1:aa")), None, contradiction="other"
    )
    (told,) = workspace.compare(row, Actual(tuple(rows(a="1:aa"))))
    assert (told.what, told.path, told.detail) == ("changed", "artifacts/drift", "other")
    (told,) = workspace.compare(row, Actual(tuple(rows(a="2:bb"))))
    assert (told.path, told.detail) == ("artifacts/drift/a", "1 bytes recorded, 2 here")


def test_a_link_is_all_that_is_said_of_a_folder() -> None:
    link = Difference("refused", "artifacts/x/link", "is a symlink")
    row = Expected("artifacts/x", "artifact", tuple(rows(a="1:aa")), None)
    assert workspace.compare(row, Actual(refused=link)) == (link,)


def test_a_folder_is_read_when_asked_for_and_not_at_all_when_a_link_is_in_it(here: Path) -> None:
    folder = here / "x"
    folder.mkdir()
    for name in ("big", "small"):
        (folder / name).write_text(name)
    sha256 = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("big", "small")}
    shallow, deep = (WorkingTree(Hashes(), deep=deep) for deep in (False, True))
    read = {each.path: each.sha256 for each in shallow.look("x", ("small",)).files}
    assert read == {"big": "", "small": sha256["small"]}
    assert {each.path: each.sha256 for each in deep.look("x").files} == sha256
    (folder / "link").symlink_to("big")
    assert deep.look("x") == Actual(refused=deep.refused("x"))
    refused = deep.refused("x")
    assert refused is not None and refused.path == "x/link"


def test_who_was_made_from_what_is_listed_by_input() -> None:
    one, other = (Reference(name=name, identity=name) for name in ("a", "b"))
    texts = Manifest(name="texts/x", inputs=(one,), files=())
    cell = factories.record("llamacpp/audit/q8_0").model_copy(update={"inputs": (one, other)})
    assert readers([texts], {"r": cell}) == {one: ["texts/x", "cells/r"], other: ["cells/r"]}


def deviation(*differences: Difference, **changes: Any) -> Deviation:
    return Deviation("artifacts/a", differences, **changes)


def test_one_difference_is_a_problem_of_its_own_name() -> None:
    lock = Lock({"artifacts/a": entry("artifacts/a")})
    changed = Difference("changed", "artifacts/a/b", "other")
    (told,) = as_problems([deviation(changed, why=("because",), stale=True)], lock)
    assert told == Problem(
        *("workspace", "artifacts/a/b", "changed", "other\nbecause", "make"),
        out="artifacts/a",
        stale=True,
    )


def test_several_differences_of_an_out_are_one_problem_that_lists_them() -> None:
    extra = [Difference("extra", f"artifacts/a/{n}") for n in range(9)]
    (told,) = as_problems([deviation(*extra[:4]), deviation(*extra[4:])], Lock())
    assert (told.object, told.what, told.stage) == ("artifacts/a", "extra", "")
    assert told.detail.splitlines() == [*(f"extra    {n}" for n in range(8)), "and 1 more"]
    changed = Difference("changed", "artifacts/a/b", "other")
    (told,) = as_problems([deviation(extra[0], changed)], Lock())
    assert (told.what, told.detail) == ("changed", "extra    0\nchanged  b: other")


def test_the_lock_file_and_the_working_tree_are_two_places() -> None:
    changed = Difference("changed", "artifacts/a")
    told = as_problems([deviation(changed), deviation(changed, place="dvc.lock")], Lock())
    assert [each.place for each in told] == ["workspace", "dvc.lock"]


@pytest.fixture
def checkpoint(here: Path) -> Path:
    folder = here / "checkpoint"
    folder.mkdir()
    weights = {f"layer.{n}": np.full(3, n, np.float32) for n in range(9)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    write_json(folder / "config.json", CONFIG)
    write_json(folder / "tokenizer_config.json", {"add_bos_token": True})
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("a checkpoint")
    return folder


def other_weights(folder: Path) -> None:
    weights = {f"layer.{n}": np.full(3, n + (n > 1), np.float32) for n in range(9)}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"format":"pt"', b'"format":"tf"'))


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            other_weights,
            [
                "weights: 7 of 9 tensors are others: layer.2, layer.3, layer.4, layer.5, layer.6 "
                "and 2 more",
                "template, tokenizer, config: as recorded",
            ],
        ),
        (
            other_header,
            [
                "weights: all 9 tensors are as recorded",
                'config: model.safetensors:format "pt" → "tf"',
            ],
        ),
        (
            lambda folder: write_json(folder / "config.json", {**CONFIG, "model_type": "x"}),
            [
                "weights: all 9 tensors are as recorded",
                'config: config.json:model_type "llama" → "x"',
            ],
        ),
        (
            lambda folder: write_json(folder / "tokenizer_config.json", {}),
            [
                "weights: all 9 tensors are as recorded",
                "tokenizer: tokenizer_config.json:add_bos_token true → none",
            ],
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0] }}"),
            [
                "weights: all 9 tensors are as recorded",
                "template: chat_template.jinja sha256 0… → sha256 0…",
            ],
        ),
        (
            lambda folder: (folder / "extra.txt").write_text("x"),
            [
                "weights: all 9 tensors are as recorded",
                "template, tokenizer, config: as recorded",
            ],
        ),
        (
            lambda folder: (folder / "config.json").unlink(),
            [
                "weights: all 9 tensors are as recorded",
                "template, tokenizer, config: as recorded",
            ],
        ),
        (no_weights, ["model.safetensors: "]),
    ],
)
def test_the_part_that_is_another_is_named(
    checkpoint: Path, change: Callable[[Path], object], said: list[str]
) -> None:
    before = digest.rows(checkpoint)
    known, tensors = facts.of_artifact(checkpoint, before)
    record = factories.artifact("checkpoints/base", "source", "pin").model_copy(
        update={"files": before, "facts": known}
    )
    change(checkpoint)
    found = list(parts.of_artifact(checkpoint, record, tensors, digest.rows(checkpoint)))
    if said[0].startswith("model.safetensors"):
        assert len(found) == 1 and "model.safetensors: " in found[0]
    elif "template:" in said[1]:
        assert found[0] == said[0] and found[1].startswith("template: chat_template.jinja sha256 ")
        assert len(found[1]) < 80, "digests are cut short"
    else:
        assert found == said


def test_an_edited_record_says_which_fields_and_whether_it_was_sealed(here: Path) -> None:
    made = sealed(Manifest(name="prompts", inputs=(), files=()))
    path = here / "manifest.json"
    dump(sealed(made.model_copy(update={"name": "grades"})), path)
    assert parts.of_record(path, made) == "other name; sealed again"
    dump(made.model_copy(update={"name": "grades"}), path)
    assert parts.of_record(path, made) == "other name; its seal does not fit"
    path.write_text(json.dumps(made.model_dump(mode="json")))
    assert parts.of_record(path, made) == "other layout; sealed again"
    for text in ("{", "{}", "[]", "\xff"):
        path.write_text(text)
        assert parts.of_record(path, made) == "not a record of this version"
    assert parts.of_record(path, None) == "not a record of this version"


# ------------------------------------------------------------------------------------ in all


def test_places_are_restored_in_the_order_they_need_each_other() -> None:
    places = ("remote store", "evidence", "workspace", "dvc.lock", "cache")
    found = sorted((Problem(each, "x", "changed") for each in places), key=lambda each: each.order)
    assert [each.place for each in found] == list(reversed(places))


def test_a_remedy_that_restores_several_objects_is_printed_once() -> None:
    one = Problem("cache", "x", "changed", "md5 a\nmd5 b", "make", "rm x")
    other = Problem("workspace", "y", "extra", "", "make", "rm x")
    last = Problem("workspace", "z", "extra")
    assert shown([one, other, last]) == [
        "changed  cache: x",
        "         md5 a",
        "         md5 b",
        "extra    workspace: y",
        "         made by stage make",
        "         remedy: rm x",
        "extra    workspace: z",
    ]


class Files:
    """A store of objects in a folder, as DVC's own are to us."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fs = folder, self

    def oid_to_path(self, oid: str) -> str:
        return str(self.folder / oid)

    def open(self, path: str, mode: str) -> Any:
        return Path(path).open(mode)

    def put(self, data: bytes, *, name: str = "") -> str:
        oid = name or hashlib.md5(data).hexdigest()
        self.folder.mkdir(exist_ok=True)
        (self.folder / oid).write_bytes(data)
        return oid

    def put_folder(self, files: dict[str, str]) -> str:
        listed = [{"md5": md5, "relpath": path} for path, md5 in sorted(files.items())]
        return self.put(json.dumps(listed, sort_keys=True).encode(), name=folder_md5(files))


class TestRemedies:
    """One out, `artifacts/a` with one file, in a cache and in a remote."""

    @pytest.fixture(autouse=True)
    def _made(self, here: Path) -> None:
        self.data = Files(here / "cache")
        self.there = Files(here / "there")
        (here / "artifacts" / "a").mkdir(parents=True)
        self.file = Path("artifacts/a/file")
        self.file.write_text("one")
        for store in (self.data, self.there):
            self.oid = store.put(b"one")
            self.folder = store.put_folder({"file": self.oid})
        self.entry = LockedPath("make@x", "artifacts/a", self.folder, 3, 1)
        self.expected = tuple(rows(file=f"3:{hashlib.sha256(b'one').hexdigest()}"))

    def remedy(self, problem: Problem, *, remote: bool = False, head: bool = False) -> str:
        stores = objects.Stores(objects.Store(self.data, "cache", local=True))
        if remote:
            stores.remotes["far"] = objects.Store(self.there, "remote far", local=True)
        lock = Lock({self.entry.path: self.entry})
        made = Remedies(
            lock=lock,
            head=lock if head else None,
            stores=stores,
            hashes=Hashes(),
            expected={self.entry.path: self.expected},
            problems=[problem],
        )
        return made.all()[0].remedy

    def workspace(self, **changes: Any) -> Problem:
        return Problem("workspace", "artifacts/a/file", "changed", out="artifacts/a", **changes)

    def test_a_whole_cache_restores_the_workspace(self) -> None:
        assert self.remedy(self.workspace()) == "rm -rf artifacts/a && dvc checkout artifacts/a"

    def test_a_lock_file_that_was_edited_is_restored_first(self) -> None:
        assert self.remedy(self.workspace(), head=True).startswith(
            "git checkout HEAD -- dvc.lock && rm -rf artifacts/a && dvc checkout"
        )

    def test_a_cache_that_has_other_content_than_the_record_restores_nothing(self) -> None:
        self.expected = tuple(rows(file=f"3:{'aa' * 32}"))
        again = "rm -rf artifacts/a && dvc repro --force --single-item make@x"
        assert self.remedy(self.workspace()) == again

    def test_nor_does_one_that_has_it_as_it_lies_here(self) -> None:
        assert "dvc repro --force" in self.remedy(self.workspace(stale=True))

    def test_a_broken_object_is_removed_before_its_stage_runs_again(self) -> None:
        self.data.put(b"two", name=self.oid)
        assert self.remedy(self.workspace()) == (
            f"rm -rf artifacts/a cache/{self.oid} && dvc repro --force --single-item make@x"
        )

    def test_a_remote_that_is_whole_saves_the_run(self) -> None:
        self.data.put(b"two", name=self.oid)
        assert self.remedy(self.workspace(), remote=True) == (
            f"rm -rf artifacts/a cache/{self.oid} && dvc pull -r far artifacts/a"
        )
        self.there.put(b"three", name=self.oid)
        assert "dvc repro --force" in self.remedy(self.workspace(), remote=True)

    def cached(self, oid: str, out: str = "artifacts/a") -> Problem:
        return Problem("cache", oid, "changed", out=out, oid=oid)

    def test_an_object_of_nobody_is_removed(self) -> None:
        self.data.put(b"two", name=B)
        assert self.remedy(self.cached(B, out="")) == f"rm -f cache/{B}"

    def test_a_file_that_is_whole_here_takes_the_place_of_its_object(self) -> None:
        self.data.put(b"two", name=self.oid)
        remedy = self.remedy(self.cached(self.oid))
        assert remedy == f"install -m 444 artifacts/a/file cache/{self.oid}"

    def test_a_listing_is_made_again_from_what_is_here(self) -> None:
        self.data.put(b"[]", name=self.folder)
        remedy = self.remedy(self.cached(self.folder))
        assert remedy.startswith(f"rm -f cache/{self.folder} && (dvc commit make@x || ")

    def test_an_object_whose_file_is_not_here_comes_from_a_remote_or_its_stage(self) -> None:
        self.data.put(b"two", name=self.oid)
        self.file.unlink()
        problem = self.cached(self.oid)
        assert self.remedy(problem, remote=True) == (
            f"rm -f cache/{self.oid} && dvc fetch -r far artifacts/a"
        )
        assert self.remedy(problem) == (
            f"rm -rf artifacts/a cache/{self.oid} && dvc repro --force --single-item make@x"
        )

    def test_an_object_leaves_a_remote_with_the_listing_that_names_it(self) -> None:
        self.there.put(b"two", name=self.oid)
        problem = Problem("remote far", "x", "changed", out="artifacts/a", oid=self.oid)
        assert self.remedy(problem, remote=True) == (
            f"rm -f there/{self.oid} there/{self.folder} && dvc push -r far"
        )
        (self.data.folder / self.oid).unlink()
        assert self.remedy(problem, remote=True).startswith("dvc commit make@x && rm -f there/")

    def test_an_object_of_a_remote_that_is_no_folder_is_removed_through_dvc(self) -> None:
        store = objects.Store(self.there, "remote far", local=False)
        stores = objects.Stores(objects.Store(self.data, "cache", local=True), {"far": store})
        problem = Problem("remote far", "x", "changed", out="artifacts/a", oid=self.folder)
        lock = Lock({self.entry.path: self.entry})
        (found,) = Remedies(lock, None, stores, Hashes(), {}, [problem]).all()
        command, python, code, *rest = shlex.split(found.remedy)
        assert (command, python, rest) == ("python", "-c", ["&&", "dvc", "push", "-r", "far"])
        compile(code, "remedy", "exec")
        assert f"get_remote_odb('far').fs.remove(['{store.path(self.folder)}'])" in code

    def test_an_entry_of_the_lock_file_comes_from_git_or_its_stage(self) -> None:
        problem = Problem("dvc.lock", "artifacts/a", "changed", stage="make@x", out="artifacts/a")
        assert self.remedy(problem, head=True) == "git checkout HEAD -- dvc.lock"
        assert self.remedy(problem) == "dvc repro --force --single-item make@x"


# -------------------------------------------------------------------------------------- commands


def test_before_any_run_there_is_nothing_to_verify() -> None:
    with pytest.raises(InputError, match="nothing was run here yet") as caught:
        verify()
    assert caught.value.remedy == "driftline run"
    done = CliRunner().invoke(command, ["--deep"])
    assert done.exit_code == 2 and "Traceback" not in done.output


def test_a_lock_file_without_evidence_is_refused() -> None:
    written(STAGES)
    with pytest.raises(RefusedError, match="no evidence"):
        verify()


@pytest.mark.parametrize("arguments", [["--signature", "v1"], ["--key", "k.pem"]])
def test_a_signature_and_its_key_go_together(arguments: list[str]) -> None:
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 2 and "go together" in done.output
