"""What `driftline gate` writes for CI: JUnit XML, Markdown and annotations."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from hypothesis import given, settings

from driftline.errors import RefusedError
from driftline.evidence import scored
from driftline.gate import evaluation
from driftline.publish import brief, github
from driftline.publish.answers import answers
from driftline.publish.junit import Answers, junit
from driftline.report.escape import visible
from driftline.schema.comparison import Baseline, Detail, InputChange
from driftline.schema.gate import Blessing, BlessingUse, GatePolicy, GateReport, GateVerdict
from driftline.schema.items import GoldenPrompt
from driftline.schema.lineage import ItemDigest, ItemEvidence
from driftline.schema.values import canonical
from driftline.store import records
from driftline.store.digest import sha256_text
from tests.factories import completion, pinned
from tests.unit.gate_evidence import F32, MERGED, MLX, Q4, Q8, VLLM, Made, Synthetic, lost
from tests.unit.report_evidence import BAD, baseline, nasty, tokens, unescaped
from tests.unit.test_gate import (
    CASES,
    FAILED,
    FLIP,
    ONE_FLIP,
    SKIPPED,
    TODAY,
    Case,
    Project,
    blessing,
    degraded,
    git,
    judge,
    repo,
    sixty,
)
from tests.unit.test_html_hostile import CORPUS

__all__ = ["repo"]

KEY = "pods/0007"
LEGAL = re.compile("[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")
"""XML 1.0, section 2.2."""
MANY = tuple(
    GateVerdict(
        id=f"flips:{n}",
        check="flips",
        verdict="fail",
        cell=VLLM,
        parent=MERGED,
        kind="runtime",
        cause="weights",
        keys=tuple(f"pods/{n}-{k}" for k in range(20)),
        message=f"{n} of 9 flipped " + "and so on " * 40,
        look=f"driftline explain pods/{n}",
    )
    for n in range(20_000)
)


def xml(text: str) -> ET.Element:
    """The root, once the counts on it and on every suite are right and its text is legal."""
    assert LEGAL.fullmatch(text) and not BAD.search(text)
    root = ET.fromstring(text.encode())
    suites = root.findall("testsuite")
    for node in (root, *suites):
        counts = {
            "tests": len(node.findall(".//testcase")),
            "failures": len(node.findall(".//failure")),
            "errors": len(node.findall(".//error")),
            "skipped": len(node.findall(".//skipped")),
        }
        assert {name: int(node.get(name, "-1")) for name in counts} == counts
    for case in root.iter("testcase"):
        results = [each for each in case if each.tag in ("failure", "error", "skipped")]
        assert len(results) <= 1
        assert all(each.keys() == ["type", "message"] for each in results)
    return root


def suite(root: ET.Element, name: str) -> dict[str, ET.Element]:
    """Cases of a suite by name."""
    (found,) = (each for each in root.findall("testsuite") if each.get("name") == name)
    cases = found.findall("testcase")
    by_name = {case.get("name", ""): case for case in cases}
    assert len({(case.get("classname"), case.get("name")) for case in cases}) == len(cases)
    return by_name


def result(case: ET.Element) -> str:
    tags = [each.tag for each in case if each.tag in ("failure", "error", "skipped")]
    return tags[0] if tags else "pass"


def properties(node: ET.Element) -> dict[str | None, str | None]:
    return {each.get("name"): each.get("value") for each in node.findall("properties/property")}


class TestJunit:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_it_fails_if_and_only_if_the_gate_does_not_pass(self, case: Case) -> None:
        found = case.made.evidence()
        report = judge(case.made, case.policy, *case.blessings)
        text = junit(report, found)
        root = xml(text)
        stops = int(root.get("failures", "")) + int(root.get("errors", ""))
        assert bool(stops) == (case.verdict != "pass")
        checks = suite(root, "gate")
        assert len(checks) == len(report.checks)
        assert sum(result(each) in ("failure", "error") for each in checks.values()) == len(
            report.stops
        )
        named = {(row.cell, key) for row in report.stops for key in row.keys}
        for cell, record in found.cells.items():
            items = suite(root, cell)
            assert list(items) == case.made.keys(cell)
            if record.ran:
                broken = {key for key, it in items.items() if result(it) in ("failure", "error")}
                assert broken == {key for name, key in named if name == cell}
        assert text == junit(judge(case.made, case.policy, *case.blessings), case.made.evidence())

    def test_a_failing_item_names_check_hop_and_cause(self) -> None:
        root = xml(junit(judge(ONE_FLIP), ONE_FLIP.evidence()))
        items = suite(root, VLLM)
        assert [key for key, case in items.items() if result(case) == "failure"] == [KEY]
        (failure,) = items[KEY].findall("failure")
        assert failure.get("type") == "flips"
        assert failure.get("message") == f"flips, runtime {MERGED} → {VLLM}: weights"
        assert f"fail [flips:{VLLM}]: 1 of 200 flipped" in str(failure.text)
        assert "expected" not in str(failure.text)
        check = suite(root, "gate")[f"flips:{VLLM}"]
        assert check.get("classname") == f"runtime {MERGED} → {VLLM}"
        assert "look closer: driftline explain pods/0007" in str(check[0].text)

    def test_what_was_expected_and_given_is_said_of_failing_items_alone(self) -> None:
        told = Answers(
            given={VLLM: {KEY: "kubectl\nget", "pods/0001": "SECRET"}},
            expected={KEY: "kubectl", "pods/0001": "SECRET"},
        )
        text = junit(judge(ONE_FLIP), ONE_FLIP.evidence(), told)
        (failure,) = suite(xml(text), VLLM)[KEY].findall("failure")
        assert str(failure.text).endswith("expected: kubectl\ngot: kubectl\\nget")
        assert "SECRET" not in text

    def test_an_accepted_flip_passes_and_says_who_until_when_and_why(self) -> None:
        root = xml(junit(judge(ONE_FLIP, GatePolicy(), FLIP), ONE_FLIP.evidence()))
        said = f"Ada until {FLIP.expires}: known"
        for case in (suite(root, VLLM)[KEY], suite(root, "gate")[f"flips:{VLLM}"]):
            assert result(case) == "pass" and said in str(case.findtext("system-out"))

    @pytest.mark.parametrize(
        ("made", "cell", "why"),
        [
            (replace(ONE_FLIP, near_ties={VLLM: (KEY,)}), VLLM, "a near-tie"),
            (Made(items=100, scores={Q4: lost("pods", [7])}), Q4, "within limits"),
        ],
    )
    def test_a_worse_item_that_stops_nothing_passes_and_says_so(
        self, made: Made, cell: str, why: str
    ) -> None:
        items = suite(xml(junit(judge(made), made.evidence())), cell)
        assert result(items[KEY]) == "pass"
        assert f"→ {cell}: {why}" in str(items[KEY].findtext("system-out"))
        assert sum(case.find("system-out") is not None for case in items.values()) == 1

    @pytest.mark.parametrize(
        ("made", "policy", "expected"),
        [
            (Made(outcomes={Q8: FAILED}), GatePolicy(), "error"),
            (Made(outcomes={Q8: FAILED}), GatePolicy(experimental=("*/q8_0",)), "skipped"),
            (Made(outcomes={Q8: FAILED}), GatePolicy(required=("*/q4_k_m",)), "skipped"),
            (Made(outcomes={Q8: SKIPPED}), GatePolicy(), "skipped"),
            (Made(scores={Q8: lost("pods", range(40))}), GatePolicy(experimental=("*/q8_0",)), ""),
        ],
    )
    def test_items_of_cells_that_have_none_to_judge(
        self, made: Made, policy: GatePolicy, expected: str
    ) -> None:
        items = suite(xml(junit(judge(made, policy), made.evidence())), Q8)
        assert len(items) == 80
        assert {result(case) for case in items.values()} == {expected or "skipped"}

    def test_unchecked_items_are_skipped(self) -> None:
        made = Made(items=100, unchecked=("sql",))
        items = suite(xml(junit(judge(made), made.evidence())), Q4)
        assert {key.partition("/")[0] for key, it in items.items() if result(it) != "pass"} == {
            "sql"
        }

    def test_digests_are_properties(self) -> None:
        found = sixty(state=degraded).evidence()
        report = evaluation.evaluate(GatePolicy(), found, today=TODAY)
        root = xml(junit(report, found))
        record, item = found.cells[Q8], found.items(Q8)["audit/a-10"]
        (node,) = (each for each in root if each.get("name") == Q8)
        assert properties(node) == {
            "outcome": "ok",
            "runtime": "llamacpp",
            "artifact": record.cell.artifact,
            "artifact_identity": record.artifact_identity,
            "prompts_sha256": record.prompts_sha256,
            "completions_sha256": record.completions_sha256,
            "code_sha256": record.code_sha256,
            "environment_sha256": record.environment_sha256,
            "seal": record.seal,
        }
        digest = found.evalset("audit")["a-10"]
        assert properties(suite(root, Q8)["audit/a-10"]) == {
            "state": "wrong",
            "score": "0",
            "output_sha256": item.output_sha256,
            "text_sha256": item.text_sha256,
            "item_sha256": digest.sha256,
            "prompt_sha256": digest.prompt_sha256,
        }

    def test_cases_of_one_name_are_told_apart(self) -> None:
        rows = [MANY[0], MANY[0].model_copy(update={"verdict": "pass"})]
        report = judge(Made()).model_copy(update={"checks": tuple(rows)})
        checks = suite(xml(junit(report, None)), "gate")
        assert list(checks) == ["flips:0", "flips:0 (2)"]

    def test_refused_evidence_is_one_error(self) -> None:
        error = RefusedError("the evidence was edited:\n  changed x", remedy="git checkout")
        root = xml(junit(evaluation.refused(error, today=TODAY), None))
        assert [each.get("name") for each in root] == ["gate"]
        (case,) = root.iter("testcase")
        assert (case.get("classname"), result(case)) == ("reports/lineage", "error")
        assert "changed x" in str(case[0].get("message"))

    def test_an_answer_of_five_megabytes(self) -> None:
        text = "\x1b<" * 2_500_000
        told = Answers(given={VLLM: {KEY: text}}, expected={KEY: text})
        page = junit(judge(ONE_FLIP), ONE_FLIP.evidence(), told)
        plain = junit(judge(ONE_FLIP), ONE_FLIP.evidence())
        (failure,) = suite(xml(page), VLLM)[KEY].findall("failure")
        assert str(failure.text).count(sha256_text(text)) == 2
        assert len(page) < len(plain) + 10_000


def test_whatever_is_shown_is_legal_xml() -> None:
    for start in range(0, 0x110000, 0x1000):
        assert LEGAL.fullmatch(visible("".join(map(chr, range(start, start + 0x1000))), 50_000))


# ------------------------------------------------------------------------------------ hostile text


def hostile(text: str) -> tuple[GateReport, Synthetic]:
    """A report and evidence in which everything that anybody could have written is `text`."""
    key = f"pods/{text}"
    accepted = Blessing.model_construct(
        id=text, fact=text, reason=text, by=text, accepted=TODAY, expires=TODAY
    )

    def check(cell: str, verdict: Any, **fields: Any) -> GateVerdict:
        told = {"check": "flips", "cause": text, "keys": (key,), "look": text, "remark": text}
        hop = {"kind": "runtime", "parent": text, "evalset": text, "tag": text}
        return GateVerdict(
            id=text, cell=cell, verdict=verdict, message=text, **{**told, **hop, **fields}
        )

    made = Made(outcomes={F32: FAILED.model_copy(update={"reason": text})})
    found = made.evidence()
    wrong = ItemEvidence.model_construct(
        key=key, state="wrong", score=0.0, output_sha256=text, text_sha256=text
    )
    digest = ItemDigest.model_construct(id=text, sha256=text, prompt_sha256=text, tags=(text,))
    hops = tuple(
        each.model_copy(
            update={
                "worse": (*each.worse, key),
                "hop": each.hop.model_copy(update={"parent": text}),
            }
        )
        for each in found.index.hops
    )
    records_ = {
        name: record.model_copy(
            update={
                "artifact_identity": text,
                "seal": text,
                "cell": record.cell.model_copy(update={"runtime": text, "artifact": text}),
            }
        )
        for name, record in found.cells.items()
    }
    evidence = replace(
        found,
        index=found.index.model_copy(update={"hops": hops, "driftline": text}),
        cells=records_,
        of_cells={name: {**items, key: wrong} for name, items in found.of_cells.items()},
        digests={name: {**items, text: digest} for name, items in found.digests.items()},
    )
    report = judge(Made()).model_copy(
        update={
            "verdict": "fail",
            "exit_code": 1,
            "index_seal": text,
            "notes": (text,),
            "blessings": (BlessingUse(blessing=accepted, state="unused"),),
            "checks": (
                check(VLLM, "error"),
                check(text, "fail"),
                check(VLLM, "fail", kind=None),
                check(Q4, "undecided", blessed=accepted),
                check(MLX, "skipped"),
                check(MLX, "pass"),
            ),
        }
    )
    return report, evidence


def check_junit(text: str) -> None:
    report, evidence = hostile(text)
    key = f"pods/{text}"
    told = Answers(given={VLLM: {key: text}}, expected={key: text})
    root = xml(junit(report, evidence, told))
    names = [case.get("name", "") for case in root.iter("testcase")]
    assert visible(key) in names
    if len(visible(key, 10**6)) < 300 and ":" not in text and "#" not in text:
        assert unescaped(visible(key)) == key
    (failing,) = suite(root, VLLM)[visible(key)].findall("error")
    assert str(failing.text).endswith(f"got: {visible(text, 2000)}")
    assert len(str(failing.text).splitlines()) == 4
    for node in root.iter():
        assert node.tag in {
            *("testsuites", "testsuite", "properties", "property", "testcase"),
            *("failure", "error", "skipped", "system-out"),
        }


def check_markdown(page: str, *, blocks: list[str]) -> None:
    assert not BAD.search(page)
    assert not re.search(r"^\s*::|##\w*\[", page, re.M)
    found = list(tokens(page))
    assert not {each.type for each in found} & {
        *("html_inline", "image", "link_open", "code_block", "fence", "list_item_open", "hr")
    }
    assert [each.content.strip() for each in found if each.type == "html_block"] == blocks
    assert sum(each.type == "heading_open" for each in found) == 7
    assert sum(each.type == "table_open" for each in found) == 6
    prose = " ".join(each.content for each in found if each.type == "text")
    assert "evil" not in prose and "@someone" not in prose


def check_annotations(text: str) -> None:
    lines = github.commands(hostile(text)[0])
    assert [line.split(" ")[0] for line in lines] == ["::error"] * 3 + ["::notice"] * 3
    for line in lines:
        assert line.isprintable()
        assert re.fullmatch(r"::(error|notice) title=[^:,\n]*::(%25|%0A|[^%\n])*", line)


@pytest.mark.parametrize("text", CORPUS, ids=range(len(CORPUS)))
def test_nothing_of_it_is_markup(text: str) -> None:
    check_everything(text)


@settings(max_examples=20, deadline=None)
@given(nasty)
def test_nothing_of_anything_is_markup(text: str) -> None:
    check_everything(text)


def check_everything(text: str) -> None:
    check_junit(text)
    check_markdown(brief.summary(*hostile(text)), blocks=[])
    page = brief.comment(*hostile(text))
    assert page.startswith(f"{brief.MARKER}\n")
    check_markdown(page, blocks=[brief.MARKER])
    check_annotations(text)


# -------------------------------------------------------------------------------------- Markdown


class TestBrief:
    def test_what_stops_is_said_with_all_that_is_known(self) -> None:
        page = brief.summary(judge(ONE_FLIP), ONE_FLIP.evidence())
        assert page.splitlines()[0] == "## gate: fail"
        assert re.search(r"^\d+ checks pass, \d stop$", page, re.M)
        assert (
            f"| fail | `runtime {MERGED} → {VLLM}` | 1 of 200 flipped (weights, not a near-tie), "
            f"0 allowed | `weights` | `pods/0007` | `driftline explain pods/0007` | "
            f"`flips:{VLLM}` |"
        ) in page
        assert f"| `{VLLM}` | – | 99/100 99 % | 100/100 100 % |" in page
        assert "### Accepted" not in page and "### Not judged" not in page

    def test_the_worst_hop_is_first_and_adapters_are_last(self) -> None:
        page = brief.summary(judge(Made()), Made().evidence())
        hops = re.findall(r"^\| `(\w+) .* → ", page, re.M)
        assert (hops[0], hops[-1]) == ("quantize", "adapter")

    def test_what_was_accepted_and_what_is_not_judged(self) -> None:
        policy = GatePolicy(experimental=("mlx/*",))
        page = brief.summary(judge(ONE_FLIP, policy, FLIP), ONE_FLIP.evidence())
        assert f"| `Ada` | {FLIP.expires} | `known` |" in page
        assert f"| `{MLX}` | experimental, not judged: ran, and repeats every answer |" in page

    def test_a_cell_without_scores_says_why(self) -> None:
        made = Made(outcomes={Q8: FAILED}, unstable={VLLM: (KEY,)})
        page = brief.summary(judge(made), made.evidence())
        assert f"| `{Q8}` | error | error | error |" in page
        assert "40/40 100 %, unstable" in page

    def test_refused_evidence(self) -> None:
        report = evaluation.refused(RefusedError("it was edited", remedy="x"), today=TODAY)
        for page in (brief.summary(report, None), brief.comment(report, None)):
            assert "## gate: refused" in page and "it was edited" in page

    @pytest.mark.parametrize("text", ["", "\u202e|`" * 300])
    def test_20_000_reasons_fit(self, text: str) -> None:
        rows = tuple(row.model_copy(update={"message": row.message + text}) for row in MANY)
        report = judge(ONE_FLIP).model_copy(update={"checks": rows})
        summary = brief.summary(report, ONE_FLIP.evidence())
        comment = brief.comment(report, ONE_FLIP.evidence())
        assert 90_000 < len(summary.encode()) <= 900_000
        assert 6_500 < len(comment) <= 65_000
        for page in (summary, comment):
            shown = len(re.findall(r"^\| fail \|", page, re.M))
            assert f"\n{20_000 - shown} more\n" in page
            assert "### Scores" in page

    @pytest.mark.parametrize("limit", [3000, 600, 60])
    def test_a_page_gets_shorter_and_keeps_the_verdict(self, limit: int) -> None:
        report = judge(ONE_FLIP).model_copy(update={"checks": MANY[:50]})
        page = brief.comment(report, ONE_FLIP.evidence(), limit=limit)
        assert len(page) <= limit
        assert page.startswith(f"{brief.MARKER}\n## gate: fail\n")

    def test_a_baseline_is_put_behind_it_if_it_fits(self) -> None:
        report, found = judge(Made()), Made().evidence()
        plain = brief.comment(report, found)
        assert brief.comment(report, found, baseline="## Since v1") == f"{plain}\n## Since v1\n"
        assert brief.comment(report, found, baseline="x" * 65_000) == plain


# ----------------------------------------------------------------------------------- annotations


class TestAnnotations:
    def test_what_stops_is_an_error_and_the_rest_a_notice(self) -> None:
        report = judge(ONE_FLIP, GatePolicy(), FLIP, blessing("loss:gone"))
        (accepted, unused) = github.commands(report)
        assert accepted.startswith(f"::notice title=gate accepted%3A flips%3A{VLLM}::runtime ")
        assert accepted.endswith(f"%0AAda until {FLIP.expires}: known")
        assert unused.startswith("::notice title=gate note::blessing of loss:gone: ")
        (stop,) = github.commands(judge(ONE_FLIP))
        assert stop.startswith(f"::error title=gate fail%3A flips%3A{VLLM}::runtime {MERGED} → ")
        assert stop.endswith("%0Aitems: pods/0007%0Alook closer: driftline explain pods/0007")
        undecided = github.commands(judge(Made(items=5)))
        assert undecided[0].startswith("::error title=gate undecided%3A ")

    def test_the_tenth_counts_the_rest(self) -> None:
        report = judge(Made()).model_copy(update={"checks": MANY[:30]})
        lines = github.commands(report)
        assert len(lines) == 10
        assert lines[-1].startswith("::error title=gate::21 more: ")
        assert len(github.commands(report.model_copy(update={"checks": MANY[:10]}))) == 10
        assert "more:" not in github.commands(report.model_copy(update={"checks": MANY[:10]}))[-1]

    def test_percent_signs_stay_what_they_are(self) -> None:
        row = MANY[0].model_copy(update={"message": "95 %0A", "id": "a,b:c%"})
        (line,) = github.commands(judge(Made()).model_copy(update={"checks": (row,)}))
        assert "95 %250A" in line and "title=gate fail%3A a%2Cb%3Ac%25::" in line


# --------------------------------------------------------------------------------------- answers


class TestAnswers:
    """Text is shown only if the evidence has its digest."""

    @pytest.fixture
    def found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
        monkeypatch.chdir(tmp_path)
        item = GoldenPrompt(evalset="pods", id="0007", prompt="q", reference="right")
        answer = completion(pinned("pods", "0007"), (1, 2), text="wrong")
        text = canonical(answer) + "\n"
        for path, content in (
            (scored.ITEMS, canonical(item) + "\n"),
            (scored.CELLS / VLLM / records.COMPLETIONS, text),
        ):
            path.parent.mkdir(parents=True)
            path.write_text(content)
        found = ONE_FLIP.evidence()
        record = found.cells[VLLM].model_copy(update={"completions_sha256": sha256_text(text)})
        digest = ItemDigest(id="0007", sha256=sha256_text(canonical(item)), prompt_sha256="")
        pods = {**found.digests["pods"], "0007": digest}
        return replace(
            found,
            cells={**found.cells, VLLM: record},
            digests={**found.digests, "pods": pods},
        )

    def test_those_of_what_stops(self, found: Synthetic) -> None:
        assert answers(judge(ONE_FLIP), found) == Answers({VLLM: {KEY: "wrong"}}, {KEY: "right"})
        assert answers(judge(ONE_FLIP, GatePolicy(), FLIP), found) == Answers()

    def test_another_file_is_not_shown(self, found: Synthetic) -> None:
        path = scored.CELLS / VLLM / records.COMPLETIONS
        path.write_text(path.read_text().replace("wrong", "WRONG"))
        assert answers(judge(ONE_FLIP), found).given == {VLLM: {}}
        scored.ITEMS.write_text(scored.ITEMS.read_text().replace("right", "RIGHT"))
        assert answers(judge(ONE_FLIP), found).expected == {}

    @pytest.mark.parametrize("content", [b"", b"\xff\n", b"{}\n", None])
    def test_what_cannot_be_read_is_left_out(self, found: Synthetic, content: bytes | None) -> None:
        for path in (scored.CELLS / VLLM / records.COMPLETIONS, scored.ITEMS):
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)
        assert answers(judge(ONE_FLIP), found) == Answers({VLLM: {}}, {})


# ------------------------------------------------------------------------------------ the command

OUTPUTS = ("--junit", "ci/j.xml", "--summary", "ci/s.md", "--comment", "ci/c.md", "--annotate")


def outputs(repo: Project) -> tuple[ET.Element, str, str]:
    folder = repo.folder / "ci"
    texts = [(folder / name).read_text() for name in ("j.xml", "s.md", "c.md")]
    return xml(texts[0]), texts[1], texts[2]


class TestCommand:
    def test_files_are_written_and_the_summary_is_appended_to(self, repo: Project) -> None:
        repo.write(sixty(state=degraded))
        plain = repo.run("gate")
        (repo.folder / "ci").mkdir()
        (repo.folder / "ci/s.md").write_text("before")
        done = repo.run("gate", *OUTPUTS)
        assert (done.exit_code, plain.exit_code) == (1, 1)
        assert done.output.endswith(plain.output)
        commands = done.output.removesuffix(plain.output).splitlines()
        assert commands and all(line.startswith("::error title=gate fail") for line in commands)
        root, summary, comment = outputs(repo)
        assert result(suite(root, Q8)["audit/a-10"]) == "failure"
        assert summary.startswith("before\n## gate: fail\n")
        assert comment.startswith("<!-- driftline -->\n## gate: fail\n")
        first = (repo.folder / "ci/j.xml").read_bytes()
        repo.run("gate", *OUTPUTS)
        assert (repo.folder / "ci/j.xml").read_bytes() == first
        _, again, comment_again = outputs(repo)
        assert again.count("## gate: fail") == 2 and again.startswith(summary)
        assert comment_again == comment

    @pytest.mark.parametrize(
        ("world", "code"),
        [
            (sixty(), 0),
            (sixty(outcomes={Q8: FAILED}), 4),
            (sixty(unstable={VLLM: ("audit/a-00",)}), 5),
        ],
        ids=["pass", "error", "unstable"],
    )
    def test_exit_codes_stay(self, repo: Project, world: Any, code: int) -> None:
        repo.write(world)
        assert repo.run("gate", *OUTPUTS).exit_code == code
        root, *_ = outputs(repo)
        assert (root.get("errors") != "0") == (code != 0)

    def test_refused_evidence(self, repo: Project) -> None:
        path = repo.folder / "reports/lineage/cells" / Q8 / "items.jsonl"
        path.write_text(path.read_text().replace("correct", "wrong", 1))
        done = repo.run("gate", *OUTPUTS)
        assert done.exit_code == 3 and "refused: " in done.output
        assert "::error title=gate refused%3A evidence::" in done.output
        root, summary, comment = outputs(repo)
        assert (root.get("tests"), root.get("errors")) == ("1", "1")
        assert "## gate: refused" in summary and "## gate: refused" in comment
        repo.run("gate", "--json", "--junit", "again.xml")
        assert (repo.folder / "again.xml").read_text() == (repo.folder / "ci/j.xml").read_text()

    def test_an_earlier_commit_has_no_answers(
        self, repo: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repo.write(sixty(state=degraded))
        repo.commit("degraded")
        told = Answers({Q8: {"audit/a-10": "SAID"}}, {})
        monkeypatch.setattr("driftline.publish.answers.answers", lambda *_: told)
        assert repo.run("gate", *OUTPUTS).exit_code == 1
        assert "got: SAID" in (repo.folder / "ci/j.xml").read_text()
        assert repo.run("gate", "HEAD", *OUTPUTS).exit_code == 1
        assert "SAID" not in (repo.folder / "ci/j.xml").read_text()
        assert repo.run("gate", "HEAD~1", *OUTPUTS).exit_code == 0
        assert git(repo.folder, "status", "--porcelain") == "?? ci/"

    def test_bad_input(self, repo: Project) -> None:
        (repo.folder / "file").write_text("")
        done = repo.run("gate", "--junit", "file/j.xml")
        assert done.exit_code == 2 and "cannot be written" in done.output
        assert repo.run("gate", "--json", "--annotate").exit_code == 2
        data = yaml.safe_load((repo.folder / "params.yaml").read_text())
        (repo.folder / "params.yaml").write_text(yaml.safe_dump({**data, "gate": {"rule": 1}}))
        assert repo.run("gate", *OUTPUTS).exit_code == 2
        assert not (repo.folder / "ci").exists()


@pytest.mark.parametrize("text", CORPUS)
def test_what_differs_from_the_baseline_is_inert(text: str) -> None:
    detail = Detail(what=text, before=text, after=text)
    change = InputChange(kind="adapter", name=text, before=text, after=text, details=(detail,))
    for found in (baseline(change, name=text), Baseline(name=text, commit="", problem=text)):
        said = brief.since(found)
        assert not BAD.search(said)
        kinds = {token.type for token in tokens(said)}
        assert not kinds & {"html_inline", "html_block", "image", "link_open"}


def test_the_command_says_what_differs_from_the_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repo = Project(tmp_path)
    git(repo.folder, "tag", "v1")
    repo.write(sixty(state=degraded))
    repo.baseline("v1")
    comment = repo.folder / "comment.md"
    assert repo.run("gate", "--comment", str(comment)).exit_code == 1
    said = comment.read_text()
    assert "### Since `v1`" in said and "#### " in said.partition("### Since")[2]
    repo.baseline("gone")
    assert repo.run("gate", "--comment", str(comment)).exit_code == 1
    assert "Not compared: " in comment.read_text()
