"""Delta debugging over made-up predicates, and what is a group, a mix, a target."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from driftline.bisect import question as questions
from driftline.bisect import search, worktree
from driftline.bisect.mixing import Group, groups, mixed, value_at
from driftline.bisect.moved import MovedHop
from driftline.bisect.question import Question, Side
from driftline.bisect.search import Bad, Found, Mix, interacts
from driftline.evidence import history
from driftline.probe import environment
from driftline.project.params import parse
from driftline.schema.comparison import InputChange
from tests.paths import ROOT

MOST = 8
"""Groups of a made-up case: 2^8 mixes can still be listed."""

# ------------------------------------------------------------------------------------------ search


def names(n: int) -> tuple[str, ...]:
    return tuple(f"g{number}" for number in range(n))


def counted(bad: Bad) -> tuple[Bad, list[Mix]]:
    """The same predicate, and the mixes it is asked."""
    asked: list[Mix] = []

    def ask(mix: Mix) -> bool | None:
        asked.append(mix)
        return bad(mix)

    return ask, asked


def any_of(*causes: set[str]) -> Bad:
    """Bad where all of some cause is swapped."""
    return lambda mix: any(cause <= mix for cause in causes)


def with_ends(known: tuple[str, ...], bad: Bad) -> Bad:
    """Good with nothing swapped, bad with everything."""

    def ends(mix: Mix) -> bool | None:
        return bool(mix) if len(mix) in (0, len(known)) else bad(mix)

    return ends


def most_runs(n: int) -> int:
    """For one set of groups."""
    return n * n + 3 * n + n * (math.ceil(math.log2(n)) + 1) if n > 1 else 2


def check_laws(known: tuple[str, ...], bad: Bad, found: Found, asked: list[Mix]) -> None:
    """Whatever the predicate: 1-minimal, disjoint, nothing run twice, bounded, honest."""
    if found.failed:
        assert (found.failed, found.guilty) == ("unresolved", ())
        assert all(bad(mix) is None for mix in asked)
        return
    assert found.guilty
    taken: set[str] = set()
    for number, each in enumerate(found.guilty):
        swapped = frozenset(each.names)
        assert bad(swapped) is True
        assert not any(bad(swapped - {name}) for name in swapped)
        assert not swapped & taken
        taken |= swapped
        after = bad(frozenset(known) - taken)
        assert each.mended == (None if after is None else not after)
        assert (each.mended is False) == (number < len(found.guilty) - 1)
    assert len(asked) == len(set(asked)) == len(found.trials)
    assert len(asked) <= most_runs(len(known)) * len(found.guilty)
    assert [trial.number for trial in found.trials] == list(range(1, len(asked) + 1))
    assert [frozenset(trial.mix) for trial in found.trials] == asked
    assert [trial.bad for trial in found.trials] == [bad(mix) for mix in asked]
    assert found.unresolved == tuple(trial for trial in found.trials if trial.bad is None)


@given(n=st.integers(1, 40), data=st.data())
def test_one_guilty_group_takes_about_log2_n_runs(n: int, data: st.DataObject) -> None:
    known = names(n)
    guilty = data.draw(st.sampled_from(known))
    bad, asked = counted(any_of({guilty}))
    found = search.search(known, bad)
    check_laws(known, any_of({guilty}), found, asked)
    assert [each.names for each in found.guilty] == [(guilty,)]
    assert len(asked) <= math.ceil(math.log2(n)) + 2


@given(n=st.integers(2, 20), data=st.data())
def test_a_pair_that_only_does_it_together_is_found(n: int, data: st.DataObject) -> None:
    known = names(n)
    pair = data.draw(st.sets(st.sampled_from(known), min_size=2, max_size=2))
    bad, asked = counted(any_of(pair))
    found = search.search(known, bad)
    check_laws(known, any_of(pair), found, asked)
    assert [set(each.names) for each in found.guilty] == [pair]
    assert found.guilty[0].mended is True
    assert len(asked) <= 2 * (math.ceil(math.log2(n)) + 1) + 3


@given(n=st.integers(2, 20), data=st.data())
def test_two_independent_causes_are_both_found(n: int, data: st.DataObject) -> None:
    known = names(n)
    first, second = data.draw(st.permutations(known))[:2]
    bad, asked = counted(any_of({first}, {second}))
    found = search.search(known, bad)
    check_laws(known, any_of({first}, {second}), found, asked)
    assert {each.names for each in found.guilty} == {(first,), (second,)}
    assert [each.mended for each in found.guilty] == [False, True]


CAUSES = st.lists(
    st.sets(st.sampled_from(names(MOST)), min_size=1, max_size=4), min_size=1, max_size=3
)


@given(causes=CAUSES)
def test_any_monotone_predicate_is_taken_apart(causes: list[set[str]]) -> None:
    known = names(MOST)
    bad, asked = counted(any_of(*causes))
    check_laws(known, any_of(*causes), search.search(known, bad), asked)


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[str, ...], Bad]:
    """Any predicate at all over a few groups: unresolved, non-monotone, whatever."""
    known = names(draw(st.integers(1, 5)))
    outcomes: list[bool | None] = draw(
        st.lists(st.sampled_from([True, False, None]), min_size=2**5, max_size=2**5)
    )

    def bad(mix: Mix) -> bool | None:
        return outcomes[sum(1 << int(name[1:]) for name in mix)]

    return known, with_ends(known, bad)


@settings(max_examples=500)
@given(case=tables())
def test_any_predicate_gives_1_minimal_sets(case: tuple[tuple[str, ...], Bad]) -> None:
    known, truth = case
    bad, asked = counted(truth)
    check_laws(known, truth, search.search(known, bad), asked)


@given(causes=CAUSES, pair=st.sets(st.sampled_from(names(MOST)), min_size=2, max_size=2))
@example(causes=[{"g0"}], pair={"g0", "g1"})
def test_two_groups_that_only_run_together_leave_mixes_unresolved(
    causes: list[set[str]], pair: set[str]
) -> None:
    """As an adapter and the list that names it: one without the other is no valid params.yaml."""
    known = names(MOST)

    def truth(mix: Mix) -> bool | None:
        return None if len(pair & mix) == 1 else any_of(*causes)(mix)

    bad, asked = counted(truth)
    found = search.search(known, bad)
    check_laws(known, truth, found, asked)
    if causes == [{"g0"}] and pair == {"g0", "g1"}:
        assert set(found.guilty[0].names) == pair  # 1-minimal as far as anything can be run


def test_both_ends_are_run_when_asked_for() -> None:
    bad, asked = counted(any_of({"g1"}))
    found = search.search(names(4), bad, ends="run")
    assert asked[:2] == [frozenset(), frozenset(names(4))]
    assert found.guilty[0].names == ("g1",)


@pytest.mark.parametrize("ends", ["run", "as needed"])
@given(n=st.integers(1, 8))
def test_nobody_is_guilty_when_the_bad_end_is_good_here(ends: search.Ends, n: int) -> None:
    """As when what is installed did it: no mix is bad, and that is soon known."""
    bad, asked = counted(lambda _: False)
    found = search.search(names(n), bad, ends=ends)
    assert (found.guilty, found.failed) == ((), "bad")
    assert len(asked) <= math.ceil(math.log2(n)) + 2


@pytest.mark.parametrize("ends", ["run", "as needed"])
@given(n=st.integers(1, 8))
def test_nobody_is_guilty_when_the_good_end_is_bad_here(ends: search.Ends, n: int) -> None:
    bad, _ = counted(lambda _: True)
    found = search.search(names(n), bad, ends=ends)
    assert (found.guilty, found.failed) == ((), "good")


@given(n=st.integers(2, 8))
def test_nobody_is_guilty_when_no_mix_can_be_run(n: int) -> None:
    found = search.search(names(n), lambda _: None)
    assert (found.guilty, found.failed) == ((), "unresolved")


def test_without_groups_there_is_nothing_to_search() -> None:
    with pytest.raises(ValueError, match="no group"):
        search.search((), lambda _: True)


@pytest.mark.parametrize(
    ("without", "expected"),
    [
        ([{1}, {2}], False),  # each moves one of its own
        ([set(), set()], True),  # neither moves anything alone
        ([{1}, set()], True),  # 2 needs both
        ([{1, 2}, None], None),
        ([{1, 2}, {1, 2}], False),  # either is enough
    ],
)
def test_an_interaction_is_a_verdict_that_needs_two(
    without: list[set[int] | None], expected: bool | None
) -> None:
    assert interacts({1, 2}, without) is expected


# ------------------------------------------------------------------------------------------ groups

PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(**sections: Any) -> dict[str, Any]:
    return {**PARAMS, **sections}


def found(
    bad: dict[str, Any], *paths: str, code: bool = False, json_keys: set[str] | None = None
) -> list[str]:
    keys = {"models/clerk/tokenizer_config.json": json_keys or set()}
    return [each.name for each in groups(PARAMS, bad, paths, json_keys=keys, code=code)]


RECIPE = {"dtype": "float32", "bits": 3, "group_size": 64}
EDITS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"source": {"path": "models/other"}}, ["source"]),
    ({"adapters": {**PARAMS["adapters"], "audit": {"path": "elsewhere"}}}, ["adapter audit"]),
    ({"adapters": {"audit": PARAMS["adapters"]["audit"]}}, ["adapter privacy"]),
    ({"merge": {"dtype": "float16"}}, ["merge"]),
    ({"gguf": {"outtype": "f16", "quantizations": []}}, ["gguf quantizations", "gguf outtype"]),
    ({"mlx": {**PARAMS["mlx"], "artifacts": ["4bit"]}}, ["mlx artifacts"]),
    (
        {"mlx": {**PARAMS["mlx"], "recipes": {**PARAMS["mlx"]["recipes"], "4bit": RECIPE}}},
        ["mlx recipe 4bit"],
    ),
    # a recipe that no artifact is made by
    ({"mlx": {**PARAMS["mlx"], "recipes": {**PARAMS["mlx"]["recipes"], "8bit": RECIPE}}}, []),
    (
        {"variants": ["audit"], "runtimes": {**PARAMS["runtimes"], "vllm": {"variants": []}}},
        ["runs in vllm", "variants"],
    ),
    ({"decode": {**PARAMS["decode"], "max_new_tokens": 9}}, ["decode"]),
    ({"distributions": {"top_k": 9, "corpora": {"n": {}}}}, ["corpora", "distributions"]),
    ({"evalsets": {**PARAMS["evalsets"], "base": ["sql"]}}, ["evalsets of base"]),
    ({"limits": {**PARAMS["limits"], "threads": 2}}, ["limits.threads"]),
    # what only says how long and how much
    ({"limits": {**PARAMS["limits"], "deadline_s": 1, "memory_gib": 1, "workers": 1}}, []),
    ({"elsewhere": ["mlx"]}, []),
    ({"new": 1}, ["params new"]),
]


@pytest.mark.parametrize(("edit", "expected"), EDITS, ids=lambda each: str(each)[:40])
def test_every_key_of_params_is_in_one_group(edit: dict[str, Any], expected: list[str]) -> None:
    assert found(changed(**edit)) == expected


FILES = [
    ("models/clerk/model.safetensors", "source"),
    ("models/clerk/config.json", "source"),
    ("models/clerk/tokenizer.model", "tokenizer"),
    ("models/clerk/tokenizer_config.json", "tokenizer"),
    ("models/clerk/special_tokens_map.json", "tokenizer"),
    ("models/clerk/chat_template.jinja", "template"),
    ("models/clerk/additional_chat_templates/tool_use.jinja", "template"),
    ("models/clerk/README.md", ""),
    ("models/adapters/audit/adapter_model.safetensors", "adapter audit"),
    ("models/adapters/audit/README.md", ""),
    ("evalsets/pods.jsonl", "evalset pods"),
    ("evalsets/unused.jsonl", ""),
    ("evalsets/pods.md", ""),
    ("pipeline/driftline/golden/grade.py", "driftline code"),
    ("dvc.yaml", "driftline code"),
    ("probe/dvc.yaml", "driftline code"),
    ("reports/lineage/index.json", ""),
    ("dvc.lock", ""),
    ("README.md", ""),
]


@pytest.mark.parametrize(("path", "group"), FILES)
def test_every_file_is_in_one_group(path: str, group: str) -> None:
    assert found(PARAMS, path, code=True) == ([group] if group else [])


def test_code_that_makes_no_answer_is_no_input() -> None:
    assert found(PARAMS, "pipeline/driftline/report/markdown.py", code=False) == []


def test_a_corpus_is_one_group_with_its_settings() -> None:
    bad = changed(distributions={"top_k": 1024, "corpora": {"news": {"path": "./corpora/n.txt"}}})
    made = groups(PARAMS, bad, ["corpora/n.txt"], json_keys={}, code=False)
    assert made == (Group("corpora", ("corpora/n.txt",), (("distributions", "corpora"),)),)


def test_files_of_a_source_that_moved_go_with_it() -> None:
    bad = changed(source={"path": "models/new"})
    paths = ["models/clerk/chat_template.jinja", "models/new/tokenizer.model"]
    (made,) = groups(PARAMS, bad, paths, json_keys={}, code=False)
    assert (made.name, made.paths, made.keys) == ("source", tuple(paths), (("source",),))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"chat_template"}, ["template"]),
        ({"eos_token"}, ["tokenizer"]),
        ({"chat_template", "eos_token"}, ["template", "tokenizer"]),
    ],
)
def test_a_template_in_the_tokenizers_config_is_told_apart(
    keys: set[str], expected: list[str]
) -> None:
    path = "models/clerk/tokenizer_config.json"
    assert found(PARAMS, path, json_keys=keys) == expected
    made = groups(PARAMS, PARAMS, [path], json_keys={path: keys}, code=False)
    assert sum(path in each.paths for each in made) == 1
    if len(expected) == 2:
        assert made[0] == Group("template", parts=((path, ("chat_template",)),))


# ------------------------------------------------------------------------------------------- mixes

BAD_PARAMS = changed(
    gguf={"outtype": "f16", "quantizations": ["q8_0"]},
    adapters={"audit": {"path": "elsewhere"}},
    mlx={**PARAMS["mlx"], "recipes": {"4bit": RECIPE, "2bit": PARAMS["mlx"]["recipes"]["2bit"]}},
    limits={**PARAMS["limits"], "deadline_s": 1},
    new={"key": [1]},
)
KNOWN = groups(PARAMS, BAD_PARAMS, (), json_keys={}, code=False)


@given(mix=st.sets(st.sampled_from([each.name for each in KNOWN])))
def test_a_mix_has_bads_values_of_its_groups_and_goods_of_the_others(mix: set[str]) -> None:
    made = mixed(PARAMS, BAD_PARAMS, KNOWN, frozenset(mix))
    for group in KNOWN:
        side = BAD_PARAMS if group.name in mix else PARAMS
        for key in group.keys:
            assert value_at(made, key) == value_at(side, key)
    assert made["limits"] == BAD_PARAMS["limits"]
    assert made["source"] == PARAMS["source"]


def test_the_ends_are_the_two_sides_but_for_what_is_no_input() -> None:
    everything = frozenset(each.name for each in KNOWN)
    assert mixed(PARAMS, BAD_PARAMS, KNOWN, everything) == BAD_PARAMS
    nothing = mixed(PARAMS, BAD_PARAMS, KNOWN, frozenset())
    assert parse(nothing, where="mix").adapters == parse(PARAMS, where="good").adapters
    assert nothing["limits"]["deadline_s"] == 1


def test_a_mix_is_written_so_that_every_yaml_reader_reads_the_same() -> None:
    data = {"1e3": "1e3", "yes": "no", "n": 1, "f": 1e-05, "l": ["0o7", "é"], "none": None}
    text = worktree._yaml(data)
    assert yaml.safe_load(text) == data
    assert '"1e3": "1e3"' in text


# ---------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize(
    ("kl", "bad"), [(0.001, False), (0.009, False), (0.0101, True), (0.1, True), (1.0, True)]
)
def test_a_mean_kl_is_near_the_end_it_is_near_on_a_log_scale(kl: float, bad: bool) -> None:
    assert MovedHop("a", "b", good=0.001, bad=0.1).nearer_bad(kl) is bad


def test_below_the_floor_nothing_moved() -> None:
    assert MovedHop("a", "b", good=1e-12, bad=9e-7).factor == 1.0
    assert MovedHop("a", "b", good=0.0, bad=1e-4).factor == pytest.approx(100)


# -------------------------------------------------------------------------------- files of a mix

CLERK = "models/clerk"
CONFIG = f"{CLERK}/tokenizer_config.json"
TREES: dict[str, dict[str, str]] = {
    "good": {
        f"{CLERK}/model.safetensors": "weights 1",
        f"{CLERK}/old.safetensors": "a shard",
        CONFIG: json.dumps({"eos_token": "a", "chat_template": "1", "kept": {"b": 1}}),
        "evalsets/pods.jsonl": "1\n",
        "params.yaml": yaml.safe_dump(PARAMS) + "# good's own words\n",
        "README.md": "good",
    },
    "bad": {
        f"{CLERK}/model.safetensors": "weights 2",
        f"{CLERK}/new.safetensors": "a shard",
        CONFIG: json.dumps({"eos_token": "b", "chat_template": "2", "kept": {"b": 1}}),
        "evalsets/pods.jsonl": "2\n",
        "params.yaml": yaml.safe_dump(changed(merge={"dtype": "float16"})) + "# bad's own words\n",
        "README.md": "bad",
    },
}
SWAPPED = ("evalset pods", "merge", "template", "tokenizer", "source")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both trees as commits `good` and `bad` of a repository that has `bad` checked out."""
    folder = tmp_path_factory.mktemp("mixes")

    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    git("init", "--quiet")
    for name, files in TREES.items():
        git("rm", "--quiet", "-r", "--ignore-unmatch", ".")
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        git("add", "--all")
        git("commit", "--quiet", "--message", name)
        git("tag", name)
    return folder


def side(name: str) -> Side:
    """One end, without evidence: nothing here reads it."""
    data = yaml.safe_load(TREES[name]["params.yaml"])
    commit = history.commit_of(name)
    project = parse(data, where=name)
    return Side(name, commit, cast(Any, None), data, project, frozenset(TREES[name]))


@given(mixes=st.lists(st.sets(st.sampled_from(SWAPPED)), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
@example(mixes=[{"tokenizer"}, set(SWAPPED), {"template"}, set(), {"tokenizer", "template"}])
def test_every_file_of_a_mix_is_the_one_its_group_takes(
    repository: Path, mixes: list[set[str]]
) -> None:
    """One mix after another in the same tree, as in a search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        good, bad = side("good"), side("bad")
        paths = questions._changed(good, bad)
        known = groups(
            good.data,
            bad.data,
            paths,
            json_keys=questions._json_keys(good, bad, paths),
            code=False,
        )
        assert tuple(group.name for group in known) == SWAPPED
        question = Question(good, bad, known, (), None, (), (), same_here=True)
        tree = worktree.Tree(repository, question, {})
        for mix in (*mixes, set(SWAPPED)):
            params = tree.mix(frozenset(mix))
            assert params.merge.dtype == ("float16" if "merge" in mix else "float32")
            check_files(repository, mix)


def check_files(folder: Path, mix: set[str]) -> None:
    def of(group: str) -> dict[str, str]:
        return TREES["bad" if group in mix else "good"]

    shards = {path.name for path in (folder / CLERK).glob("*.safetensors")}
    wanted = {Path(path).name for path in of("source") if path.endswith(".safetensors")}
    assert shards == wanted
    assert (folder / CLERK / "model.safetensors").read_text() == of("source")[
        f"{CLERK}/model.safetensors"
    ]
    assert (folder / "evalsets/pods.jsonl").read_text() == of("evalset pods")["evalsets/pods.jsonl"]
    # the ends' own bytes where all of a file is one side's, and what is no input as it is in BAD
    assert (folder / "params.yaml").read_text() == of("merge")["params.yaml"]
    assert (folder / "README.md").read_text() == "bad"
    config = (folder / CONFIG).read_text()
    if of("tokenizer") is of("template"):
        assert config == of("tokenizer")[CONFIG]
    read = json.loads(config)
    assert read["eos_token"] == json.loads(of("tokenizer")[CONFIG])["eos_token"]
    assert read["chat_template"] == json.loads(of("template")[CONFIG])["chat_template"]
    assert read["kept"] == {"b": 1}


# ------------------------------------------------------------------- what cannot be swapped is said


def test_what_no_group_holds_is_not_testable(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(kind: str, name: str) -> InputChange:
        return InputChange(kind=kind, name=name, before="1", after="2")

    listed = (
        change("package", "mlx"),
        change("hardware", ""),
        change("source", "weights"),
        change("adapter", "audit"),
        change("adapter", "privacy"),
        change("evalset", "pods"),
    )
    monkeypatch.setattr("driftline.compare.inputs.changes", lambda _good, _bad: listed)
    nowhere = cast(Any, None)
    said = list(
        questions._untestable(nowhere, nowhere, (Group("template"), Group("adapter audit")))
    )
    assert [line.partition(":")[0] for line in said] == [
        "package mlx",
        "hardware",
        "adapter privacy",
    ]
    assert "1 → 2" in said[0] and "what is installed" in said[0]
    assert "not in git" in said[2]


def test_software_that_is_not_what_an_end_was_made_with_is_noted() -> None:
    """Then the ends are not taken as recorded."""
    here = environment.probe("transformers", threads=1)
    older = {**here, "python": "3.1.4"}
    record = SimpleNamespace(environment_sha256="sha", cell=SimpleNamespace(runtime="transformers"))

    def end(name: str, made: dict[str, Any]) -> Side:
        evidence = SimpleNamespace(
            cells={"transformers/base/checkpoint": record},
            environment=lambda _: json.dumps(made).encode(),
        )
        project = parse(PARAMS, where=name)
        return Side(name, name, cast(Any, evidence), PARAMS, project, frozenset())

    assert list(questions._installed(end("good", here), end("bad", here), (), None)) == []
    (note,) = questions._installed(end("good", older), end("bad", here), (), None)
    assert note.startswith("transformers here is not good's: package python 3.1.4 → 3")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["noise", "refused: no", "ERROR: failed to reproduce 'merge'", ""], "refused: no"),
        (["Traceback", "ERROR: failed to reproduce 'x': exited with 1"], "ERROR: failed to"),
        (["said this", ""], "said this"),
        ([], "dvc repro failed"),
    ],
)
def test_a_failed_run_says_what_the_stage_said(lines: list[str], reason: str) -> None:
    assert worktree._reason(lines).startswith(reason)
