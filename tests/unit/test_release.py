"""Releases: what the record says, the page for reviewers, and what HEAD must be to be released."""

from __future__ import annotations

import json
import subprocess
from datetime import date, timedelta
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import yaml

from driftline.errors import InputError, RefusedError
from driftline.evidence import lineage
from driftline.evidence.lineage import Evidence
from driftline.gate.evaluation import evaluate
from driftline.release import make
from driftline.release.contents import checked_name, parents_first, release, wilson
from driftline.report.escape import Safe
from driftline.report.release import render
from driftline.schema.artifacts import Census
from driftline.schema.cells import Outcome
from driftline.schema.gate import Blessing, GatePolicy, GateReport, Rule
from driftline.schema.hops import Finding
from driftline.schema.release import ReleaseRecord
from driftline.schema.values import load, seal_of
from driftline.store.digest import sha256_text
from tests.factories import artifact
from tests.unit.release_evidence import (
    COMMIT,
    HUB,
    LOCK,
    MLX,
    Q8,
    REVISION,
    ROOT,
    VLLM,
    MemoryTree,
    made,
    released,
    write,
)
from tests.unit.report_evidence import BAD, HOSTILE, section, tokens

SKIPPED = Outcome(state="skipped", kind="missing", reason="no package vllm", remedy="pip install x")
FAILED = Outcome(state="error", kind="raised", reason="head_dim=8", remedy="another model")


class TestRecord:
    def test_it_is_sealed_and_pins_commit_evidence_and_lock(self) -> None:
        found = made()
        record = released(found)
        assert record.seal == seal_of(record)
        assert (record.commit, record.dvc_lock_sha256) == (COMMIT, LOCK)
        assert record.index_seal == found.index.seal
        assert (record.gate, record.skipped) == (None, ())

    def test_the_order_of_a_trees_files_changes_nothing(self) -> None:
        found = made()
        files = {path: found.tree.read(path) for path in reversed(found.tree.paths())}
        assert released(lineage.read(MemoryTree(files))) == released(found)
        backwards = Evidence(
            where="memory",
            index=found.index,
            artifacts=dict(reversed(list(found.artifacts.items()))),
            cells=dict(reversed(list(found.cells.items()))),
            tree=found.tree,
        )
        assert released(backwards) == released(found)

    def test_artifacts_come_after_their_parents_and_cells_as_planned(self) -> None:
        record = released()
        seen: set[str] = set()
        for each in record.artifacts:
            assert {parent.name for parent in each.parents} <= seen
            assert each.bytes == sum(file.size for file in each.files) > 0
            seen.add(each.name)
        assert record.artifacts[0].kind == "source"
        assert record.cells[0].id == ROOT
        assert [cell.id for cell in record.cells[1:]] == [hop.hop.child for hop in record.hops]

    def test_parents_come_first_whatever_they_are_called(self) -> None:
        source = artifact("checkpoints/base", "source", "pin")
        merged = artifact("z", "merged", "merge", parents=[source])
        full = artifact("y", "gguf", "convert", parents=[merged])
        small = artifact("a", "gguf", "quantize", parents=[full])
        found = parents_first({each.name: each for each in (small, full, merged, source)})
        assert found == (source, merged, full, small)

    def test_every_environment_that_is_named_is_there_as_data(self) -> None:
        record = released()
        named = {str(each.environment_sha256) for each in record.artifacts}
        named |= {cell.environment_sha256 for cell in record.cells}
        assert record.environments.keys() == named - {"None"}
        assert {facts["runtime"] for facts in record.environments.values()} == {
            "transformers",
            "llamacpp",
            "mlx",
            "vllm",
        }

    def test_what_has_no_verdict_is_not_scored(self) -> None:
        states: Any = {
            Q8: {"pods/p-0": "wrong", "pods/p-1": "errored", "pods/p-2": "unchecked"},
        }
        record = released(made(states=states))
        (score,) = next(cell for cell in record.cells if cell.id == Q8).scores
        assert (score.items, score.scored, score.correct) == (4, 2, 1)
        assert (score.accuracy, score.mean_score) == (0.5, 0.5)
        root = next(cell for cell in record.cells if cell.id == ROOT)
        assert [each.evalset for each in root.scores] == ["pods", "clauses"]

    def test_nothing_with_a_verdict_has_no_figure(self) -> None:
        states: Any = {Q8: {f"pods/p-{n}": "errored" for n in range(4)}}
        (score,) = next(c for c in released(made(states=states)).cells if c.id == Q8).scores
        assert (score.scored, score.accuracy, score.low, score.high) == (0, None, None, None)
        assert score.mean_score is None

    def test_what_did_not_run_is_skipped_with_its_reason_and_has_no_score(self) -> None:
        found = made(
            outcomes={VLLM: SKIPPED, MLX: FAILED},
            hops={
                Q8: {"withheld": "a loader renames tensors"},
                "llamacpp/base/f32": {"reason": "1 prompt does not repeat"},
            },
        )
        record = released(found)
        told = [(each.what, each.where.split(" → ")[-1], each.state) for each in record.skipped]
        assert told == [
            ("cell", MLX, "error"),
            ("cell", VLLM, "skipped"),
            ("hop", "llamacpp/base/f32", "compared in part"),
            ("split", Q8, "withheld"),
            ("hop", MLX, "not compared"),
            ("hop", VLLM, "not compared"),
        ]
        assert record.skipped[1].reason == "no package vllm"
        assert record.skipped[1].remedy == "pip install x"
        assert all(not cell.scores for cell in record.cells if cell.id in (VLLM, MLX))


@pytest.mark.parametrize(("correct", "scored"), [(0, 8), (8, 8), (39, 40), (1, 1), (13, 26)])
def test_the_interval_is_wilsons(correct: int, scored: int) -> None:
    z, share = 1.959963984540054, correct / scored
    middle = (share + z * z / (2 * scored)) / (1 + z * z / scored)
    half = sqrt(share * (1 - share) / scored + z * z / (4 * scored**2)) / (1 + z * z / scored) * z
    low, high = wilson(correct, scored)
    assert low == pytest.approx(middle - half, abs=1e-9)
    assert high == pytest.approx(middle + half, abs=1e-9)


def test_no_interval_of_nothing() -> None:
    assert wilson(0, 0) == (None, None)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "HEAD", "v1.json", "v1.md", "v 1"])
def test_what_cannot_name_a_release(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a release"):
        checked_name(name)


def test_what_can() -> None:
    assert [checked_name(name) for name in ("v1.0", "2026-11_a", "json")]


# -------------------------------------------------------------------------------------- the page


class TestPage:
    def test_it_says_what_a_reviewer_asks(self) -> None:
        record = released(made(HUB), "v1.0")
        page = render(record)
        assert page.startswith("# Release `v1.0`\n")
        for digest in (record.commit, record.seal, record.index_seal, record.dvc_lock_sha256):
            assert digest in page
        source = section(page, "Source and adapters")
        assert f"from `acme/clerk` at `{REVISION}`" in source
        assert "adapter `adapters/audit` from `acme/audit`" in source
        conversions = section(page, "Conversions")
        for each in record.artifacts[2:]:
            part = conversions.split(f"### `{each.name}`")[1].split("###")[0]
            assert each.identity in part and each.command in part
            assert each.tool in part and each.seal in part
            for parent in each.parents:
                assert parent.identity in part
        assert "8.50 bits per weight, 37 tensors: `F32 9, Q8_0 28`" in conversions
        assert "No gate was asked." in section(page, "Gate")
        assert "Nothing: every cell ran" in section(page, "What was not checked")
        assert "xargs -d '\\n' sha256sum -- | sha256sum" in page
        assert "driftline verify --signature v1.0 --key PUBLIC.pem" in page

    def test_scores_have_their_interval_and_hops_their_cause(self) -> None:
        states: Any = {Q8: {"pods/p-0": "wrong"}}
        record = released(made(states=states, hops={Q8: {"worse": ("pods/p-0",)}}))
        page = render(record)
        assert f"| `{Q8}` | `pods` | 3 | 4 | 4 | 75 % | [30.1, 95.4] | all |" in page
        first = section(page, "Drift per hop").split("\n1. ")[1].splitlines()[0]
        assert first.startswith(f"`llamacpp/base/f32 → {Q8}`: ") and "changes no answer" in first
        assert first.endswith("Worse: `pods/p-0`")

    def test_a_template_that_is_not_the_sources_is_said_to_be(self) -> None:
        facts: Any = {
            "gguf/base/q8_0": {"template_sha256": sha256_text("another")},
            "mlx/base/4bit": {"template_sha256": None},
        }
        table = section(render(released(made(facts=facts))), "Tokenizer and template")
        told = {line.split("`")[1]: line for line in table.splitlines() if line.startswith("| `")}
        assert told["gguf/base/q8_0"].endswith("| **not the source's** |")
        assert told["mlx/base/4bit"].endswith("| none | **not the source's** |")
        assert told["gguf/base/f32"].endswith("| the source's |")
        assert told["adapters/audit"].endswith("| none |  |")

    def test_what_was_not_checked_is_said_with_its_remedy(self) -> None:
        found = made(
            outcomes={VLLM: SKIPPED, MLX: FAILED}, hops={Q8: {"withheld": "a loader renames"}}
        )
        page = render(released(found))
        told = section(page, "What was not checked")
        assert f"| `{VLLM}` | skipped | `no package vllm` | `pip install x` |" in told
        assert f"| `{MLX}` | error | `head_dim=8` | `another model` |" in told
        assert f"- split of `llamacpp/base/f32 → {Q8}` withheld: `a loader renames`" in told
        assert f"| `{VLLM}` | – | – | – | – | skipped | – | – |" in section(page, "Scores")
        assert "8 ok, 1 skipped, 1 error" in page

    def test_settings_are_said_once_where_cells_agree(self) -> None:
        changes: Any = {Q8: {"settings": {"dtype": "float16", "threads": 1}}}
        table = section(render(released(made(changes=changes))), "Runtimes")
        assert "| `llamacpp` | `threads` | `1` | all |" in table
        assert f"| `llamacpp` | `dtype` | `float16` | `{Q8}` |" in table

    def test_a_cell_of_another_machine_says_where_it_was_made(self) -> None:
        found = made(imported={MLX: "a laptop"})
        record = released(found)
        assert {cell.id: cell.made_at for cell in record.cells if cell.made_at} == {MLX: "a laptop"}
        assert f"| `{MLX}`, made at `a laptop` | ok |" in section(render(record), "Runtimes")

    def test_verdicts_of_a_gate_are_shown(self) -> None:
        report = self.gate(made(), "known", "Ada")
        record = released().model_copy(update={"gate": report})
        page = section(render(record), "Gate")
        kl = "KL 0.01 nats a token (95 %: 0.006 to 0.014), 0.001 allowed"
        assert page.startswith("\n**fail**: ")
        assert f"| fail | `kl:{MLX}` | 0 | `{kl}` | `weights` | – |" in page
        accepted = "by `Ada` until `2026-03-01`: `known`"
        assert f"| fail | `kl:{Q8}` | 0 | `{kl}` | `weights` | {accepted} |" in page
        assert "as of `2026-01-01`, the date of the commit" in page
        assert "- `gone`, by `Ada` until `2026-03-01`: `known`" in page
        assert "Gate: **fail**." in render(record)

    def gate(self, found: Evidence, reason: str, by: str) -> GateReport:
        day = date(2026, 1, 1)
        given = [
            Blessing(
                id=id_,
                fact="",
                up_to=1.0,
                reason=reason,
                by=by,
                accepted=day,
                expires=date(2026, 3, 1),
            )
            for id_ in (f"kl:{Q8}", "gone")
        ]
        rules = (Rule(cells=(Q8, MLX), max_kl=0.001),)
        return evaluate(GatePolicy(rules=rules), found, given, today=day)

    @pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:12]))
    def test_hostile_text_is_inert(self, text: str) -> None:
        plain, page = render(self.hostile("plain")), render(self.hostile(text))
        assert not BAD.search(page)
        kinds = [token.type for token in tokens(page)]
        assert not {"html_inline", "html_block", "link_open", "image"} & set(kinds)
        for kind in ("heading_open", "tr_open", "td_open", "fence", "bullet_list_open"):
            assert kinds.count(kind) == [t.type for t in tokens(plain)].count(kind)
        assert not [line for line in page.splitlines() if line.startswith(("::", "##[", "##vso"))]

    def hostile(self, text: str) -> ReleaseRecord:
        told = text.encode("utf-8", "backslashreplace").decode()
        census = Census(
            types={told: 1}, elements={told: 1}, tensors=1, weights=1, bits_per_weight=1.0
        )
        quantized: dict[str, Any] = {
            "tool": told,
            "tool_version": told,
            "command": told or "x",
            "arguments": {told: told},
            "notes": (told,),
            "census": census,
        }
        changes: Any = {
            "checkpoints/base": {"arguments": {"path": told or "x"}, "notes": (told,)},
            "gguf/base/q8_0": quantized,
            Q8: {"settings": {told or "key": told}, "build": {"v": told}},
        }
        finding = Finding(code=told, where=told, component=None, message=told, items=(told,))
        failed = Outcome(state="error", kind="raised", reason=told, remedy=told)
        hops: Any = {
            Q8: {"summary": told or "x", "worse": (told,), "withheld": told or "x"},
            MLX: {"compared": False, "reason": told or "x"},
        }
        evidence = made(changes=changes, outcomes={VLLM: failed}, hops=hops, findings=(finding,))
        gate = self.gate(evidence, told or "x", told or "x")
        return released(evidence).model_copy(update={"gate": gate})

    def test_only_what_was_made_safe_is_printed(self) -> None:
        assert isinstance(Safe(render(released())), str)
        with pytest.raises(TypeError, match="no filter made safe"):
            from driftline.report.markdown import environment
            from driftline.report.release import DETAIL

            environment(DETAIL).from_string("{{ x }}").render(x="<b>")


# ---------------------------------------------------------------------------------------- HEAD


class TestMaking:
    """On a real git repository that holds evidence of no real run."""

    @pytest.fixture(autouse=True)
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        write(made(), tmp_path)
        git("init", "-q", ".")
        commit()
        return tmp_path

    def test_a_release_is_of_head_and_making_it_again_changes_nothing(self, project: Path) -> None:
        first = make.make("v1")
        assert first.written and first.record.commit == git("rev-parse", "HEAD")
        before = files(project)
        again = make.make("v1")
        assert not again.written and files(project) == before
        assert load(ReleaseRecord, Path("reports/releases/v1.json")) == first.record
        assert {path for path in before if path.startswith("reports/releases")} == set(first.paths)
        assert not [path for path in before if path.endswith(".tmp")]

    def test_the_record_is_that_of_the_evidence(self) -> None:
        lock = sha256_text("schema: '2.0'\n")
        record = make.make("v1").record
        assert record.gate is not None and record.gate.verdict == "fail"
        assert record.gate.judged_on.isoformat() == git("show", "-s", "--format=%cs", "HEAD")
        assert record == release("v1", git("rev-parse", "HEAD"), made(), lock, record.gate)

    def test_blessings_count_as_of_the_commit(self, project: Path) -> None:
        day = date.fromisoformat(git("show", "-s", "--format=%cs", "HEAD"))
        entry = {"id": "gone", "fact": "", "reason": "known", "by": "Ada", "accepted": day}
        rows = [{**entry, "expires": day + timedelta(days)} for days in (-1, 0)]
        (project / "blessings.yaml").write_text(yaml.safe_dump(rows))
        with pytest.raises(RefusedError, match=r"extra    blessings\.yaml") as caught:
            make.make("v1")
        assert "blessings.yaml && git commit" in caught.value.remedy
        commit()
        gate = make.make("v1").record.gate
        assert gate is not None and gate.judged_on == day
        assert [use.blessing.expires - day for use in gate.blessings] == [
            timedelta(-1),
            timedelta(0),
        ]

    def test_every_file_is_canonical(self) -> None:
        for path in map(Path, make.make("v1").paths):
            text = path.read_bytes().decode()
            assert text.endswith("\n") and "\r" not in text
            if path.suffix == ".json":
                data = json.loads(text)
                again = json.dumps(data, sort_keys=True, ensure_ascii=False, indent=1)
                assert text == again + "\n"

    @pytest.mark.parametrize(
        ("edit", "named"),
        [
            (lambda: Path("reports/lineage/index.json").write_text("{}"), "changed  reports/lin"),
            (lambda: Path("reports/lineage/new.json").write_text("{}"), "extra    reports/lineag"),
            (lambda: Path("dvc.lock").unlink(), "missing  dvc.lock"),
            (lambda: Path("params.yaml").write_text("x: 1\n"), "changed  params.yaml"),
            (lambda: Path("evalsets/new.jsonl").write_text("x\n"), "extra    evalsets/new.jsonl"),
            (lambda: Path("evalsets/pods.jsonl").unlink(), "missing  evalsets/pods.jsonl"),
            (lambda: git("rm", "-q", "--cached", "dvc.lock"), "missing  dvc.lock"),
        ],
    )
    def test_a_working_tree_that_is_not_head_is_refused(self, edit: Any, named: str) -> None:
        edit()
        with pytest.raises(RefusedError) as refused:
            make.make("v1")
        assert named in refused.value.message
        assert refused.value.remedy.startswith("git add reports/lineage dvc.lock params.yaml")
        assert not Path("reports/releases").exists()

    def test_what_is_beside_the_evidence_may_be_dirty(self) -> None:
        Path("notes.txt").write_text("mine")
        assert make.make("v1").written

    def test_evidence_of_other_params_is_refused(self) -> None:
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(text.replace("max_new_tokens: 16", "max_new_tokens: 17"))
        commit()
        with pytest.raises(RefusedError) as refused:
            make.make("v1")
        assert "decode.max_new_tokens: 16 then, 17 now" in refused.value.message
        assert refused.value.remedy.startswith("driftline run")

    def test_params_that_no_stage_reads_are_not_other_params(self) -> None:
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(text.replace("deadline_s: 3600", "deadline_s: 60"))
        commit()
        assert make.make("v1").written

    @pytest.mark.parametrize(
        ("before", "after", "named"),
        [("p-1?", "p-1!", "changed  pods/p-1"), ('"p-2"', '"p-9"', "missing  pods/p-2")],
    )
    def test_evidence_of_other_golden_prompts_is_refused(
        self, before: str, after: str, named: str
    ) -> None:
        path = Path("evalsets/pods.jsonl")
        path.write_text(path.read_text().replace(before, after))
        commit()
        with pytest.raises(RefusedError) as refused:
            make.make("v1")
        assert named in refused.value.message and "clauses" not in refused.value.message

    def test_an_evalset_that_is_none_is_named_by_head(self) -> None:
        Path("evalsets/pods.jsonl").write_text("{\n")
        commit()
        with pytest.raises(InputError, match=r"HEAD:evalsets/pods\.jsonl:1"):
            make.make("v1")

    def test_edited_evidence_is_refused_though_committed(self) -> None:
        path = Path("reports/lineage/evalsets/pods.jsonl")
        path.write_text(path.read_text().replace("p-1", "p-7"))
        commit()
        with pytest.raises(RefusedError, match=r"evalsets/pods\.jsonl"):
            make.make("v1")

    def test_without_evidence_or_lock_there_is_no_release(self) -> None:
        git("rm", "-q", "dvc.lock")
        commit()
        with pytest.raises(RefusedError, match=r"HEAD has no dvc\.lock"):
            make.make("v1")

    def test_without_a_commit_there_is_no_release(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "new").mkdir()
        monkeypatch.chdir(tmp_path / "new")
        git("init", "-q", ".")
        with pytest.raises(InputError, match="no commit to release"):
            make.make("v1")

    def test_a_name_is_given_once(self) -> None:
        first = make.make("v1").record.commit
        Path("README.md").write_text("later")
        commit()
        with pytest.raises(RefusedError) as refused:
            make.make("v1")
        assert first in refused.value.message
        assert git("rev-parse", "HEAD") in refused.value.message
        assert "changed  v1.json" in refused.value.message
        assert make.make("v1", force=True).record.commit != first
        assert make.make("v2").written

    def test_a_file_too_many_or_edited_is_another_content(self) -> None:
        make.make("v1")
        Path("reports/releases/v1/more.txt").write_text("x")
        Path("reports/releases/v1.md").write_text("x")
        with pytest.raises(RefusedError) as refused:
            make.make("v1")
        assert "extra    v1/more.txt" in refused.value.message
        assert "changed  v1.md" in refused.value.message
        assert make.make("v1", force=True).written
        assert not Path("reports/releases/v1/more.txt").exists()

    def test_an_unfinished_release_is_no_release(self) -> None:
        make.make("v1")
        Path("reports/releases/v1.json").unlink()
        Path("reports/releases/v1/bom.cdx.json").write_text("half")
        assert make.make("v1").written
        assert not make.make("v1").written

    def test_a_project_may_be_a_folder_of_a_repository(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        top = tmp_path / "top"
        (top / "sub" / "project").mkdir(parents=True)
        write(made(), top / "sub" / "project")
        monkeypatch.chdir(top)
        git("init", "-q", ".")
        commit()
        monkeypatch.chdir(top / "sub" / "project")
        assert make.make("v1").written
        Path("evalsets/new.jsonl").write_text("x")
        with pytest.raises(RefusedError, match=r"extra    evalsets/new\.jsonl"):
            make.make("v1")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit() -> None:
    git("add", "-A")
    git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "x")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.parts
    }
