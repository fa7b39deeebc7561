"""Cells of another machine: what is accepted, and what each refusal says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from driftline.errors import InputError, RefusedError, ToolError
from driftline.machines import imported
from driftline.machines import take as audit
from driftline.probe import environment
from driftline.project import params, plan, routes, tasks
from driftline.report import machines
from driftline.report.markdown import render
from driftline.schema.artifacts import Reference
from driftline.schema.cells import CellRecord, NoiseFloor, Outcome
from driftline.schema.forced import ForcedRecord
from driftline.schema.imports import ImportRecord, Machine
from driftline.schema.tasks import CellTask
from driftline.schema.values import dump, dump_lines, sealed
from driftline.store import digest, environments, needs, records
from driftline.verify.lock import LockedPath
from tests import factories
from tests.factories import completion, project, prompts, report_input

PROJECT = project(elsewhere=["mlx"])
SPEC = plan.cell(PROJECT, "mlx", "base", "4bit")


def task(asking: params.Params, name: str) -> CellTask:
    return tasks.of(asking, plan.find(asking, name))


TASK = task(PROJECT, SPEC.id)
INPUTS = tuple(Reference(name=name, identity=digest.sha256_text(name)) for name in TASK.inputs)
WANTED = needs.wanted(TASK, INPUTS)
OTHER = digest.sha256_text("other")
REMEDY = "make it again"
ENVIRONMENT: dict[str, Any] = {
    "runtime": "mlx",
    "system": "Darwin",
    "machine": "arm64",
    "cpu": "Apple M2",
    "python": "3.11.9",
    "distributions": {"mlx": {"version": "0.32.4", "files_sha256": OTHER}},
}

Change = Callable[[CellRecord, Path], CellRecord]


def write(folder: Path, change: Change = lambda record, _: record) -> CellRecord:
    """A cell's folder as the score stage leaves it; `change` is made before it is sealed."""
    answers = [completion(prompt) for prompt in prompts("clauses").values()]
    folder.mkdir(parents=True, exist_ok=True)
    dump_lines(answers, folder / records.COMPLETIONS)
    dump_lines((), folder / records.ERRORS)
    (folder / records.ENVIRONMENT).write_text(json.dumps(ENVIRONMENT))
    home = folder / "distributions" / "base"
    home.mkdir(parents=True)
    for name in ("logits.npy", "rows.npy"):
        (home / name).write_bytes(name.encode())
    forced = ForcedRecord(
        text="base",
        sequences=3,
        rows=9,
        width=4,
        logits_sha256=digest.sha256_file(home / "logits.npy"),
        rows_sha256=digest.sha256_file(home / "rows.npy"),
        floor=None,
    )
    record = factories.record(SPEC).model_copy(
        update={
            "artifact_identity": WANTED.artifact_identity,
            "prompts_sha256": WANTED.prompts_sha256,
            "inputs": WANTED.inputs,
            "decode": WANTED.task.decode,
            "completions_sha256": digest.sha256_file(folder / records.COMPLETIONS),
            "environment_sha256": digest.sha256_file(folder / records.ENVIRONMENT),
            "floor": NoiseFloor(items=len(answers), different=(), max_logprob_difference=0.0),
            "forced": (forced,),
        }
    )
    record = change(record, folder)
    if not record.outputs:
        record = record.model_copy(update={"outputs": digest.rows(folder)})
    record = sealed(record)
    dump(record, folder / records.CELL)
    return record


def bring(record: CellRecord, **changes: Any) -> ImportRecord:
    """What `import-cells` writes beside a cell's folder."""
    made = ImportRecord(
        cell=SPEC.id,
        revision="ab" * 20,
        made_at="mac mini",
        machine=environments.machine_of(ENVIRONMENT),
        software=environments.software_of(ENVIRONMENT),
        artifact_identity=record.artifact_identity,
        adapter_identity=None,
        environment_sha256=record.environment_sha256,
        cell_seal=record.seal,
    )
    made = sealed(made.model_copy(update=changes))
    dump(made, imported.folder_of(SPEC.id) / imported.RECORD)
    return made


def refusal(folder: Path) -> str:
    with pytest.raises(RefusedError) as caught:
        imported.read_cell(folder, where="there:cell", remedy=REMEDY)
    assert caught.value.remedy == REMEDY
    assert str(folder) not in caught.value.message
    return caught.value.message


# ----------------------------------------------------------------------------- the same cell or not


def updated(**changes: Any) -> CellRecord:
    made = factories.record(SPEC).model_copy(
        update={
            "artifact_identity": WANTED.artifact_identity,
            "prompts_sha256": WANTED.prompts_sha256,
            "inputs": WANTED.inputs,
            "decode": WANTED.task.decode,
        }
    )
    return made.model_copy(update=changes)


def test_what_was_asked_the_same_of_the_same_is_the_same_cell() -> None:
    assert needs.mismatches(updated(), WANTED) == ()
    # where, with which build and which code it ran makes it no other cell
    elsewhere = updated(code_sha256=OTHER, environment_sha256=OTHER, build={"version": "9"})
    assert needs.mismatches(elsewhere, WANTED) == ()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"artifact_identity": OTHER}, f"artifact_identity: expected {{}}…, found {OTHER[:12]}…"),
        ({"adapter_identity": OTHER}, f"adapter_identity: expected none, found {OTHER[:12]}…"),
        ({"prompts_sha256": OTHER}, f"prompts_sha256: expected {{}}…, found {OTHER[:12]}…"),
        ({"decode": {**WANTED.task.decode, "threads": 4}}, "decode.threads: expected 1, found 4"),
        (
            {"decode": {**WANTED.task.decode, "max_new_tokens": 32}},
            "decode.max_new_tokens: expected 16, found 32",
        ),
        (
            {"decode": {**WANTED.task.decode, "stop": ["a"]}},
            'decode.stop: expected [], found ["a"]',
        ),
        (
            {"decode": {**WANTED.task.decode, "temperature": 0.7}},
            "decode.temperature: expected none, found 0.7",
        ),
        (
            {"cell": SPEC.model_copy(update={"artifact": "artifacts/mlx/base/8bit"})},
            'cell.artifact: expected "artifacts/mlx/base/4bit", found "artifacts/mlx/base/8bit"',
        ),
        (
            {"inputs": WANTED.inputs[:-1]},
            "inputs.texts/base: expected {}…, found none",
        ),
        (
            {"inputs": (*WANTED.inputs, Reference(name="texts/audit", identity=OTHER))},
            f"inputs.texts/audit: expected none, found {OTHER[:12]}…",
        ),
        *(
            (
                {
                    "inputs": tuple(
                        each.model_copy(update={"identity": OTHER}) if each == one else each
                        for each in WANTED.inputs
                    )
                },
                f"inputs.{one.name}: expected {one.identity[:12]}…, found {OTHER[:12]}…",
            )
            for one in WANTED.inputs
        ),
    ],
)
def test_each_field_that_makes_it_another_cell_is_named(changes: dict[str, Any], line: str) -> None:
    found = needs.mismatches(updated(**changes), WANTED)
    assert len(found) == 1
    expected = {
        "artifact_identity": WANTED.artifact_identity,
        "prompts_sha256": WANTED.prompts_sha256,
        "inputs.texts/base": WANTED.inputs[-1].identity,
    }.get(found[0].field, "")
    assert found[0].line == line.replace("{}", expected[:12])


def test_an_attached_adapter_is_part_of_what_is_wanted() -> None:
    spec = plan.cell(PROJECT, "transformers", "audit", "attached")
    names = task(PROJECT, spec.id).inputs
    assert names == (
        "checkpoints/base",
        "adapters/audit",
        "prompts/audit.jsonl",
        "prompts/corpora.json",
        "texts/base",
    )
    inputs = [Reference(name=name, identity=name) for name in names]
    assert needs.wanted(task(PROJECT, spec.id), inputs).adapter_identity == "adapters/audit"


# ---------------------------------------------------------------------------------- a cell's folder


def test_a_folder_as_it_was_written_is_read(tmp_path: Path) -> None:
    made = write(tmp_path / "cell")
    assert imported.read_cell(tmp_path / "cell", where="there", remedy=REMEDY) == made


def test_an_unstable_cell_is_a_cell_too(tmp_path: Path) -> None:
    unstable = Outcome(state="unstable", reason="1 of 3 answers differ")
    write(tmp_path / "cell", lambda record, _: record.model_copy(update={"outcome": unstable}))
    imported.read_cell(tmp_path / "cell", where="there", remedy=REMEDY)


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "cell")
    path = tmp_path / "cell" / records.CELL
    path.write_text(path.read_text().replace('"threads": 1', '"threads": 2'))
    assert "there:cell/cell.json: its seal is " in refusal(tmp_path / "cell")


def test_no_record_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "cell")
    (tmp_path / "cell" / records.CELL).unlink()
    assert "there:cell/cell.json: no record" in refusal(tmp_path / "cell")


@pytest.mark.parametrize(
    "path", ["completions.jsonl", "environment.json", "distributions/base/logits.npy"]
)
def test_files_changed_missing_or_extra_are_refused_by_name(tmp_path: Path, path: str) -> None:
    write(tmp_path / "cell")
    file = tmp_path / "cell" / path
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    assert f"changed  {path}: sha256 " in refusal(tmp_path / "cell")
    file.unlink()
    assert f"missing  {path}" in refusal(tmp_path / "cell")
    file.write_bytes(before)
    (tmp_path / "cell" / "evil.py").write_text("")
    assert "extra    evil.py" in refusal(tmp_path / "cell")


def test_a_symlink_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "cell")
    file = tmp_path / "cell" / records.COMPLETIONS
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    assert "is a symlink" in refusal(tmp_path / "cell")


def fields(**changes: Any) -> Change:
    return lambda record, _: record.model_copy(update=changes)


def rewritten(name: str, text: str, field: str) -> Change:
    """A file written anew and recorded as such."""

    def change(record: CellRecord, folder: Path) -> CellRecord:
        (folder / name).write_text(text)
        return record.model_copy(update={field: digest.sha256_file(folder / name)})

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            fields(outcome=Outcome(state="error", kind="crashed", reason="killed")),
            "outcome: expected ok or unstable, found error: killed",
        ),
        (
            fields(completions_sha256=OTHER),
            f"completions.jsonl: expected {OTHER[:12]}…, found ",
        ),
        (fields(environment_sha256=OTHER), f"environment.json: expected {OTHER[:12]}…, found "),
        (fields(floor=None), "completions.jsonl: expected none answers, found 3"),
        (
            fields(floor=NoiseFloor(items=8, different=(), max_logprob_difference=0.0)),
            "completions.jsonl: expected 8 answers, found 3",
        ),
        (
            lambda record, _: record.model_copy(
                update={"forced": (record.forced[0].model_copy(update={"rows_sha256": OTHER}),)}
            ),
            f"distributions/base/rows.npy: expected {OTHER[:12]}…, found ",
        ),
        (
            rewritten("completions.jsonl", '{"answer": 42}\n', "completions_sha256"),
            "completions.jsonl: not answers of this version: ",
        ),
        (
            rewritten("environment.json", "[]", "environment_sha256"),
            "environment.json: not an environment",
        ),
        (
            rewritten("environment.json", '{"runtime": "vllm"}', "environment_sha256"),
            "environment.json: expected that of mlx, found vllm, installed",
        ),
        (
            rewritten(
                "environment.json", '{"runtime": "mlx", "missing": "no mlx"}', "environment_sha256"
            ),
            "environment.json: expected that of mlx, found mlx, no mlx",
        ),
    ],
)
def test_a_record_that_contradicts_its_files_is_refused(
    tmp_path: Path, change: Change, said: str
) -> None:
    write(tmp_path / "cell", change)
    assert said in refusal(tmp_path / "cell")


# ----------------------------------------------------------------------------- where a cell is made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(imported.ONLY, raising=False)
    return imported.folder_of(SPEC.id)


def test_a_runtime_that_is_here_runs_here(home: Path) -> None:
    wanted = needs.wanted(task(project(), SPEC.id), INPUTS)
    assert imported.not_here(wanted, ()) is None
    assert imported.made_where(SPEC, ()) == ""


def test_a_runtime_that_is_elsewhere_is_skipped_with_both_commands(home: Path) -> None:
    found = imported.not_here(WANTED, PROJECT.elsewhere)
    assert found is not None and found.folder is None
    assert (found.outcome.state, found.outcome.kind) == ("skipped", "elsewhere")
    assert found.outcome.reason == "made on another machine, not imported yet"
    assert "driftline run --only mlx" in found.outcome.remedy
    assert "driftline import-cells REV" in found.outcome.remedy
    assert imported.made_where(SPEC, PROJECT.elsewhere) == "elsewhere\n"
    here = plan.cell(PROJECT, "llamacpp", "base", "f32")
    assert imported.made_where(here, PROJECT.elsewhere) == ""


def test_the_other_machine_runs_what_it_was_asked_to(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(write(home / imported.CELL))
    monkeypatch.setenv(imported.ONLY, "vllm,mlx")
    assert imported.not_here(WANTED, PROJECT.elsewhere) is None
    assert imported.made_where(SPEC, PROJECT.elsewhere) == ""
    monkeypatch.setenv(imported.ONLY, "vllm")
    assert imported.not_here(WANTED, PROJECT.elsewhere) is not None


@pytest.mark.parametrize("elsewhere", [["mlx"], []])
def test_an_imported_cell_is_taken_wherever_its_runtime_is(
    home: Path, elsewhere: list[str]
) -> None:
    record = write(home / imported.CELL)
    made = bring(record)
    asking = project(elsewhere=elsewhere)
    found = imported.not_here(WANTED, asking.elsewhere)
    assert found is not None
    assert (found.folder, found.outcome) == (home / imported.CELL, record.outcome)
    assert imported.made_where(SPEC, asking.elsewhere) == f"import {made.seal}\n"
    assert imported.import_of(record) == made


def test_an_import_that_matches_no_more_is_skipped_and_names_the_field(home: Path) -> None:
    bring(write(home / imported.CELL))
    decode = {"max_new_tokens": 99, "context_length": 512}
    changed = project(elsewhere=["mlx"], decode=decode)
    found = imported.not_here(needs.wanted(task(changed, SPEC.id), INPUTS), changed.elsewhere)
    assert found is not None and found.folder is None
    assert (found.outcome.state, found.outcome.kind) == ("skipped", "elsewhere")
    assert "imported from abababababab does not match any more" in found.outcome.reason
    assert "decode.max_new_tokens: expected 99, found 16" in found.outcome.reason
    assert f"git rm -r {home}" in found.outcome.remedy


def test_many_differences_are_counted(home: Path) -> None:
    bring(write(home / imported.CELL))
    inputs = [each.model_copy(update={"identity": OTHER}) for each in INPUTS]
    found = imported.not_here(needs.wanted(TASK, inputs), PROJECT.elsewhere)
    assert found is not None
    assert found.outcome.reason.endswith("; 2 more")


def test_an_import_without_its_bytes_says_how_to_get_them(home: Path) -> None:
    record = write(home / imported.CELL)
    bring(record)
    (home / imported.CELL).rename(home / "gone")
    with pytest.raises(InputError, match="only its record") as caught:
        imported.not_here(WANTED, PROJECT.elsewhere)
    assert f"dvc pull {home}/cell.dvc" in caught.value.remedy


def test_a_folder_that_is_not_the_recorded_one_is_refused(home: Path) -> None:
    bring(write(home / imported.CELL), cell_seal=OTHER)
    with pytest.raises(RefusedError, match=f"{OTHER[:12]}…"):
        imported.not_here(WANTED, PROJECT.elsewhere)
    assert imported.import_of(factories.record(SPEC)) is None


def test_an_edited_import_is_refused_wherever_it_is_read(home: Path) -> None:
    bring(write(home / imported.CELL))
    path = home / imported.RECORD
    path.write_text(path.read_text().replace("mac mini", "mac pro"))
    for read in (
        lambda: imported.made_where(SPEC, PROJECT.elsewhere),
        lambda: imported.not_here(WANTED, PROJECT.elsewhere),
    ):
        with pytest.raises(RefusedError, match="the record was edited") as caught:
            read()
        assert f"git checkout {path}" in caught.value.remedy


def test_the_import_of_another_cell_is_refused(home: Path) -> None:
    bring(write(home / imported.CELL), cell="mlx/base/8bit")
    with pytest.raises(RefusedError, match=r"is the import of mlx/base/8bit, expected that of"):
        imported.read(SPEC.id)


@pytest.mark.parametrize("form", ["base/checkpoint", "audit/attached"])
def test_a_reference_cannot_come_from_elsewhere(home: Path, form: str) -> None:
    spec = plan.cell(PROJECT, "transformers", *form.split("/"))
    assert "it writes the text" in imported.unimportable(task(PROJECT, spec.id))
    other = imported.folder_of(spec.id)
    made = bring(write(home / imported.CELL))
    dump(sealed(made.model_copy(update={"cell": spec.id})), other / imported.RECORD)
    inputs = [Reference(name=name, identity=name) for name in task(PROJECT, spec.id).inputs]
    with pytest.raises(RefusedError, match="has to run here"):
        imported.not_here(needs.wanted(task(PROJECT, spec.id), inputs), PROJECT.elsewhere)


def test_a_merged_checkpoint_in_transformers_could() -> None:
    spec = plan.cell(PROJECT, "transformers", "audit", "checkpoint")
    assert imported.unimportable(task(PROJECT, spec.id)) == ""


# ------------------------------------------------------------------------------------ params.yaml


@pytest.mark.parametrize(
    ("elsewhere", "said"),
    [
        (["mxl"], 'elsewhere: no runtime "mxl" (did you mean "mlx"?); known: llamacpp, mlx, vllm'),
        (["transformers"], '"transformers" cannot be elsewhere'),
        (["mlx", "mlx"], "elsewhere: a runtime is listed twice"),
        ("mlx", "elsewhere: "),
    ],
)
def test_what_params_say_of_it_is_checked(elsewhere: object, said: str) -> None:
    with pytest.raises(InputError) as caught:
        project(elsewhere=elsewhere)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["source", "imports", "corpora"])
def test_no_adapter_takes_a_name_the_probe_has_a_file_of(name: str) -> None:
    with pytest.raises(InputError, match=f'"{name}" cannot name an adapter'):
        project(adapters={name: {"path": "a"}}, variants=[], evalsets={"base": ["a"]}, vllm=[])


def test_every_runtime_but_the_reference_can_be_elsewhere() -> None:
    assert set(routes.movable()) == set(routes.targets()) - {"transformers"}
    assert project().elsewhere == ()


# --------------------------------------------------------------------------------- bytes from afar


class Files:
    """A file system of objects; an exception in place of bytes is raised."""

    def __init__(self, objects: dict[str, bytes | Exception]) -> None:
        self.objects = objects

    def open(self, path: str, mode: str) -> BytesIO:
        assert mode == "rb"
        if path not in self.objects:
            raise FileNotFoundError(path)
        found = self.objects[path]
        if isinstance(found, Exception):
            raise found
        return BytesIO(found)


class Store:
    def __init__(self, **objects: bytes | Exception) -> None:
        self.fs = Files({oid.replace("_", "."): data for oid, data in objects.items()})

    def oid_to_path(self, oid: str) -> str:
        return oid


class Cloud:
    def __init__(self, remotes: dict[str, Store | Exception]) -> None:
        self._remotes = remotes

    def get_remote_odb(self, name: str) -> Store:
        found = self._remotes[name]
        if isinstance(found, Exception):
            raise found
        return found


class Repo:
    """As much of a DVC repository as is read."""

    def __init__(self, cache: Store, **remotes: Store | Exception) -> None:
        self.cache = type("Cache", (), {"local": cache})()
        self.cloud = Cloud(remotes)
        self.config = {"remote": remotes, "core": {"remote": "b"}}


HELLO = "5d41402abc4b2a76b9719d911017c592"


def stores(cache: Store, **remotes: Store | Exception) -> audit.Sources:
    return audit.Sources(Repo(cache, **remotes))


def test_an_object_comes_from_the_first_store_that_has_it(tmp_path: Path) -> None:
    full, broken = Store(**{HELLO: b"hello"}), Store(**{HELLO: OSError("timed out")})
    for found in (
        stores(full, a=broken),
        stores(Store(), a=full, b=Store()),
        stores(Store(), a=full, b=broken),
        stores(Store(), a=full, b=RuntimeError("dvc-s3 is not installed")),
    ):
        found.copy(HELLO, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"hello"


def test_an_object_that_is_something_else_is_refused_and_its_place_named(tmp_path: Path) -> None:
    wrong = Store(**{HELLO: b"hellO"})
    for found, place, remedy in (
        (stores(wrong), "DVC's cache", "driftline verify --deep"),
        (stores(Store(), b=wrong), "remote b", "dvc push -r b"),
    ):
        with pytest.raises(RefusedError, match=f"in {place}: expected md5 {HELLO}, found ") as e:
            found.copy(HELLO, tmp_path / "file")
        assert remedy in e.value.remedy


def test_an_object_nobody_has_says_where_it_was_looked_for(tmp_path: Path) -> None:
    found = stores(Store(), a=RuntimeError("no\ncredentials"), b=Store())
    with pytest.raises(ToolError) as caught:
        found.copy(HELLO, tmp_path / "file")
    assert caught.value.message == (
        f"object {HELLO}: not in DVC's cache; not in remote b; "
        "remote a cannot be read: no credentials"
    )
    assert "there: dvc push" in caught.value.remedy


def test_a_folder_is_written_as_listed(tmp_path: Path) -> None:
    listing = json.dumps([{"relpath": "a/b.txt", "md5": HELLO}]).encode()
    oid = hashlib.md5(listing, usedforsecurity=False).hexdigest()
    found = stores(Store(**{f"{oid}_dir": listing, HELLO: b"hello"}))
    audit.fetch(found, LockedPath("score", "cell", f"{oid}.dir", 5, 1), tmp_path / "cell")
    assert (tmp_path / "cell" / "a" / "b.txt").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"relpath": "../x", "md5": HELLO}], "'../x' is no file in the folder"),
        ([{"relpath": "a/../../x", "md5": HELLO}], "is no file in the folder"),
        ([{"relpath": "/etc/passwd", "md5": HELLO}], "is no file in the folder"),
        ([{"relpath": "", "md5": HELLO}], "is no file in the folder"),
        ([{"relpath": "a\\..\\x", "md5": HELLO}], "is no file in the folder"),
        ([{"relpath": "a\nb", "md5": HELLO}], "is no file in the folder"),
        ([{"relpath": "a", "md5": "../../x"}], "a has the object '../../x'"),
        ([{"relpath": "a", "md5": HELLO}] * 2, "listed twice"),
        ([{"relpath": "a", "md5": HELLO}, {"relpath": "a/b", "md5": HELLO}], "listed twice"),
        ([{"path": "a"}], "not a listing of a folder"),
        ({"a": HELLO}, "not a listing of a folder"),
    ],
)
def test_a_listing_that_leads_anywhere_else_is_refused(rows: object, said: str) -> None:
    with pytest.raises(RefusedError) as caught:
        list(audit.listed(json.dumps(rows).encode(), "oid"))
    assert said in caught.value.message


def test_bytes_that_are_no_listing_are_refused() -> None:
    with pytest.raises(RefusedError, match="not a listing"):
        list(audit.listed(b"\xff{", "oid"))


# -------------------------------------------------------------------------------------- the report


def page(**changes: Any) -> str:
    cells = report_input(PROJECT, prompts("clauses"))
    here = Machine(system="Linux", machine="x86_64", cpu="Intel(R) Core(TM) i7 @ 3.40GHz")
    known = {cell.cell.id: here for cell in cells.cells if cell.cell.id != "mlx/audit/8bit"}
    record = bring(factories.record(SPEC), **changes)
    found = replace(cells, machines=known, imports={SPEC.id: record})
    rows = machines.machine_rows(found)
    assert sorted(cell for row in rows for cell in row.cells) == sorted(
        cell.cell.id for cell in cells.cells
    )
    return render(found).partition("Where each cell ran:")[2].partition("Every setting")[0]


def test_the_report_says_of_every_cell_where_it_ran(home: Path) -> None:
    said = page()
    assert "| `Linux x86_64, Intel Core i7` | here | `transformers/base/checkpoint`, " in said
    assert (
        "| `Darwin arm64, Apple M2` | `mac mini`, imported from `abababababab` | `mlx/base/4bit` |"
    ) in said
    assert "| `not recorded` | here | `mlx/audit/8bit` |" in said


def test_a_machine_without_a_name_of_its_own_is_said_once(home: Path) -> None:
    said = page(made_at="Darwin arm64, Apple M2")
    assert "| `Darwin arm64, Apple M2` | imported from `abababababab` | `mlx/base/4bit` |" in said


def test_a_hostile_label_is_only_text(home: Path) -> None:
    hostile = "<b>`|\n## x\u202e @someone #1"
    machine = Machine(system="![x](y)", machine="|", cpu="<script>")
    said = page(made_at=hostile, machine=machine)
    assert "\u202e" not in said
    assert "\n##" not in said
    row = next(line for line in said.splitlines() if "imported from" in line)
    assert r"``<b>`\|\n## x\u202e @someone #1``, imported from" in row
    assert row.startswith("| `![x](y) \\|, <script>` |")


# ------------------------------------------------------------------------------------ environments


def test_the_probe_names_the_cpu_the_same_each_time() -> None:
    first, second = (environment.probe("transformers", threads=1) for _ in range(2))
    assert first == second
    if "missing" not in first:
        assert first["cpu"] == first["cpu"].strip()
        assert environments.machine_of(first).label.startswith(first["system"])


@pytest.mark.parametrize(
    ("found", "label"),
    [
        ({"system": "Darwin", "machine": "arm64", "cpu": "Apple M2"}, "Darwin arm64, Apple M2"),
        ({"system": "Linux", "machine": "aarch64", "cpu": ""}, "Linux aarch64"),
        ({}, ""),
    ],
)
def test_a_machine_is_called_what_its_environment_says(found: dict[str, str], label: str) -> None:
    assert environments.machine_of(found).label == label


def test_software_is_named_with_its_version() -> None:
    assert environments.software_of(ENVIRONMENT) == {"python": "3.11.9", "mlx": "0.32.4"}
