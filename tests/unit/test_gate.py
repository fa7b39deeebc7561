"""The gate: a table of evidence and verdicts, its bounds, blessings, and what the command prints.

`pytest tests/unit/test_gate.py -s` prints the table.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import gate_power
from driftline.cli import main
from driftline.drift.statistics import holm, mcnemar
from driftline.errors import InputError, RefusedError
from driftline.evidence import lineage
from driftline.gate import blessings, evaluation, judgement, margins, policy
from driftline.gate.margins import ALPHA, Pairs
from driftline.gate.policy import ALL, Scope
from driftline.project import params
from driftline.project.routes import ROOT_CELL
from driftline.project.sections.runtimes import RuntimeSettings
from driftline.schema.cells import Outcome
from driftline.schema.forced import ForcedFloor
from driftline.schema.gate import Blessing, GatePolicy, GateReport, GateVerdict, Rule
from driftline.schema.hops import Finding
from driftline.schema.values import canonical
from tests.factories import project
from tests.paths import ROOT
from tests.unit.gate_evidence import (
    ATTACHED,
    F32,
    MERGED,
    MLX,
    PROJECT,
    Q4,
    Q8,
    VLLM,
    Made,
    estimate,
    lost,
)
from tests.unit.lineage_trees import World

TODAY = date(2026, 6, 1)
DEFAULT = GatePolicy()
CHECKS_ALONE = GatePolicy(rules=(Rule(min_items=1),))
"""Cells, findings, and that something was compared."""
FAILED = Outcome(state="error", kind="crashed", reason="killed", remedy="more memory")
SKIPPED = Outcome(state="skipped", kind="missing", reason="no mlx", remedy="pip install mlx-lm")
ODD = Finding(
    code="tensor-unexplained",
    where=f"{MERGED} → {MLX}",
    component="weights",
    message="1 tensor is not what storing the parent's as 4 bits gives",
)
PIPELINE = (ATTACHED, MERGED, F32, Q8, Q4, MLX, VLLM)


def everywhere(scores: dict[str, float | None], but: str = "") -> dict[str, Any]:
    """The same scores in the source and every cell, but for one."""
    return {cell: scores for cell in (ROOT_CELL, *PIPELINE) if cell != but}


def with_rules(*rules: Rule, **other: Any) -> GatePolicy:
    return GatePolicy(rules=(*DEFAULT.rules, *rules), **other)


def blessing(id_: str, **changes: Any) -> Blessing:
    fields: dict[str, Any] = {
        "id": id_,
        "fact": "",
        "reason": "known",
        "by": "Ada",
        "accepted": TODAY - timedelta(30),
        "expires": TODAY + timedelta(30),
    }
    return Blessing(**{**fields, **changes})


def judge(made: Made, policy_: GatePolicy = DEFAULT, *given: Blessing) -> GateReport:
    return evaluation.evaluate(policy_, made.evidence(), given, today=TODAY)


# ------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Case:
    """Evidence, and what the gate has to say; `reason` is the id of the first line."""

    name: str
    made: Made
    verdict: str
    exit_code: int
    reason: str = ""
    policy: GatePolicy = DEFAULT
    blessings: tuple[Blessing, ...] = ()


FLIP = blessing(f"flips:{VLLM}", items=("pods/0007",), up_to=1.0)
IMPROVED = Made(scores=everywhere(lost("pods", range(15)), but=Q4))
FINDING = Made(findings=(ODD,))
ONE_FLIP = Made(items=100, scores={VLLM: lost("pods", [7])})
CASES = (
    Case("clean", Made(), "pass", 0),
    Case("clean, 30 items an evalset", Made(items=30), "pass", 0),
    Case(
        "clean, graded answers that stay partly right",
        Made(scores=everywhere(lost("sql", range(40), 0.5))),
        "pass",
        0,
    ),
    Case("degraded", Made(scores={Q4: lost("pods", range(20))}), "fail", 1, f"loss:{Q4}"),
    Case(
        "degraded in partial credit alone",
        Made(
            scores={
                **everywhere(lost("sql", range(40), 0.9)),
                MLX: lost("sql", range(40), 0.3),
            }
        ),
        "fail",
        1,
        f"loss:{MLX}",
    ),
    Case(
        "degraded, right answers become partly right",
        Made(scores={Q4: lost("pods", range(20), 0.8)}),
        "fail",
        1,
        f"loss:{Q4}",
    ),
    Case(
        "degraded in one small evalset among many items",
        Made(items=200, scores={MLX: lost("sql", range(60))}),
        "fail",
        1,
        f"loss:{MLX}",
    ),
    Case(
        "degraded by 9 points of 80 items: not proven",
        Made(scores={Q4: lost("pods", range(7))}),
        "undecided",
        1,
        f"loss:{Q4}",
    ),
    Case(
        "degraded by the same with 800 items",
        Made(items=400, scores={Q4: lost("pods", range(70))}),
        "fail",
        1,
        f"loss:{Q4}",
    ),
    Case(
        "an experimental cell degraded",
        Made(scores={Q4: lost("pods", range(20))}),
        "pass",
        0,
        policy=GatePolicy(experimental=("*/q4_k_m",)),
    ),
    Case(
        "near-ties only",
        replace(ONE_FLIP, near_ties={VLLM: ("pods/0007",)}),
        "pass",
        0,
    ),
    Case("one flip that is not a near-tie, lossless hop", ONE_FLIP, "fail", 1, f"flips:{VLLM}"),
    Case(
        "one flip that is not a near-tie, lossy hop",
        Made(items=100, scores={Q4: lost("pods", [7])}),
        "pass",
        0,
    ),
    Case("one flip in a merge", Made(items=100, scores={MERGED: lost("pods", [7])}), "fail", 1, ""),
    Case("flip blessed", ONE_FLIP, "pass", 0, blessings=(FLIP,)),
    Case(
        "flip blessed, another one flips",
        Made(items=100, scores={VLLM: lost("pods", [8])}),
        "fail",
        1,
        f"flips:{VLLM}",
        blessings=(FLIP,),
    ),
    Case(
        "flip blessed, bless expired",
        ONE_FLIP,
        "fail",
        1,
        f"flips:{VLLM}",
        blessings=(FLIP.model_copy(update={"expires": TODAY - timedelta(1)}),),
    ),
    Case(
        "flip blessed, on the last day",
        ONE_FLIP,
        "pass",
        0,
        blessings=(FLIP.model_copy(update={"expires": TODAY}),),
    ),
    Case("too few items: 5 an evalset", Made(items=5), "undecided", 1, ""),
    Case(
        "too few items: 25 an evalset exclude no loss of 5 points",
        Made(items=25),
        "undecided",
        1,
        f"loss:{MERGED}",
    ),
    Case("improved suddenly", IMPROVED, "fail", 1, f"gain:{Q4}"),
    Case(
        "improved by one answer",
        Made(scores=everywhere(lost("pods", [3]), but=Q4)),
        "pass",
        0,
    ),
    Case(
        "improved, blessed",
        IMPROVED,
        "pass",
        0,
        blessings=(
            blessing(f"gain:{Q4}", up_to=0.3),
            blessing(f"gain:{Q4}:pods", up_to=0.6),
        ),
    ),
    Case(
        "improved more than blessed",
        IMPROVED,
        "fail",
        1,
        f"gain:{Q4}",
        blessings=(blessing(f"gain:{Q4}", up_to=0.2), blessing(f"gain:{Q4}:pods", up_to=0.6)),
    ),
    Case("missing cell", Made(missing=(MLX,)), "fail", 1, f"cell:{MLX}"),
    Case(
        "required cell that no plan has",
        Made(),
        "fail",
        1,
        "cell:ollama/*",
        GatePolicy(required=("*", "ollama/*")),
    ),
    Case("skipped cell", Made(outcomes={MLX: SKIPPED}), "fail", 1, f"cell:{MLX}"),
    Case(
        "skipped cell that may be",
        Made(outcomes={MLX: SKIPPED}),
        "pass",
        0,
        policy=GatePolicy(may_skip=("mlx/*",)),
    ),
    Case("error", Made(outcomes={Q8: FAILED}), "error", 4, f"cell:{Q8}"),
    Case("error of a cell others start from", Made(outcomes={F32: FAILED}), "error", 4, ""),
    Case(
        "error of a cell that is not required",
        Made(outcomes={Q8: FAILED}),
        "pass",
        0,
        policy=GatePolicy(required=("transformers/*", "*/q4_k_m")),
    ),
    Case("a prompt without an answer", Made(scores={Q8: lost("pods", [2], None)}), "error", 4, ""),
    Case("unstable", Made(unstable={VLLM: ("pods/0003",)}), "unstable", 5, f"cell:{VLLM}"),
    Case(
        "unstable, and degraded elsewhere",
        Made(unstable={VLLM: ("pods/0003",)}, scores={Q4: lost("pods", range(20))}),
        "unstable",
        5,
        "",
    ),
    Case(
        "unstable, and an error elsewhere",
        Made(unstable={VLLM: ("pods/0003",)}, outcomes={Q8: FAILED}),
        "error",
        4,
        "",
    ),
    Case("finding", FINDING, "fail", 1, f"tensor-unexplained:{MLX}"),
    Case(
        "finding that a rule allows",
        FINDING,
        "pass",
        0,
        policy=with_rules(Rule(cells=("mlx/*",), allow=("tensor-unexplained",))),
    ),
    Case(
        "finding blessed",
        FINDING,
        "pass",
        0,
        blessings=(
            blessing(f"tensor-unexplained:{MLX}", fact=f"tensor-unexplained: {ODD.message}"),
        ),
    ),
    Case(
        "finding blessed that says something else now",
        FINDING,
        "fail",
        1,
        f"tensor-unexplained:{MLX}",
        blessings=(blessing(f"tensor-unexplained:{MLX}", fact="tensor-unexplained: 2 tensors"),),
    ),
    Case("KL too high", Made(hops={Q4: {"kl": estimate(0.2)}}), "fail", 1, f"kl:{Q4}"),
    Case(
        "KL above its limit, not for certain",
        Made(hops={Q4: {"kl": estimate(0.105)}}),
        "undecided",
        1,
        f"kl:{Q4}",
    ),
    Case(
        "KL at its limit",
        Made(hops={Q4: {"kl": estimate(0.097)}}),
        "undecided",
        1,
        f"kl:{Q4}",
    ),
    Case(
        "KL too high, but not above its noise floor",
        Made(
            hops={Q4: {"kl": estimate(0.15)}},
            floors={Q4: ForcedFloor(rows=800, mean_kl=0.1, max_kl=3.0)},
        ),
        "pass",
        0,
    ),
    Case("KL's tail too high", Made(hops={Q4: {"kl_p99": 1.2}}), "fail", 1, f"kl_p99:{Q4}"),
    Case(
        "KL not measured",
        Made(hops={VLLM: {"kl": None, "kl_p99": None, "withheld": "no log-probs"}}),
        "undecided",
        1,
        f"kl:{VLLM}",
    ),
    Case(
        "KL not measured, and no limit on it",
        Made(hops={VLLM: {"kl": None, "kl_p99": None, "withheld": "no log-probs"}}),
        "pass",
        0,
        policy=with_rules(Rule(cells=("vllm/*",), max_kl="none", max_kl_p99="none")),
    ),
    Case(
        "accuracy floor of an adapter kept",
        Made(),
        "pass",
        0,
        policy=with_rules(Rule(kinds=("adapter",), evalset="pods", min_accuracy=0.9)),
    ),
    Case(
        "accuracy floor of an adapter broken",
        Made(scores=everywhere(lost("pods", range(20)))),
        "fail",
        1,
        f"accuracy:{ATTACHED}:pods",
        with_rules(Rule(kinds=("adapter",), evalset="pods", min_accuracy=0.9)),
    ),
    Case(
        "accuracy floor that 40 items cannot show",
        Made(),
        "undecided",
        1,
        f"accuracy:{ATTACHED}:pods",
        with_rules(Rule(kinds=("adapter",), evalset="pods", min_accuracy=0.95)),
    ),
    Case(
        "items of one tag lost",
        Made(items=100, scores={Q4: lost("pods", range(0, 40, 4))}),
        "fail",
        1,
        f"loss:{Q4}:#oom",
        GatePolicy(rules=(Rule(kinds=("quantize",), tag="oom", max_loss=0.08),)),
    ),
    Case("an evalset nobody can score", Made(items=100, unchecked=("sql",)), "pass", 0),
    Case("no limits at all", Made(), "undecided", 1, "evidence", GatePolicy(rules=())),
)


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    rows: list[str] = []
    yield rows
    print(f"\n{'evidence':60}{'verdict':11}exit  first reason\n" + "\n".join(rows))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_table(case: Case, table: list[str]) -> None:
    report = judge(case.made, case.policy, *case.blessings)
    stops = [row.id for row in report.checks if row.stops]
    table.append(
        f"{case.name:60}{report.verdict:11}{report.exit_code:<6}{stops[0] if stops else ''}"
    )
    assert (report.verdict, report.exit_code) == (case.verdict, case.exit_code), stops
    assert bool(stops) == (case.verdict != "pass")
    if case.reason:
        assert stops[0] == case.reason


def test_the_table_is_long_enough_and_has_every_verdict() -> None:
    assert len(CASES) >= 30
    assert {case.verdict for case in CASES} == {"pass", "fail", "error", "unstable", "undecided"}


class TestRefused:
    """The seventh verdict is on evidence that is not what it says it is."""

    def test_edited_evidence_is_exit_code_3(self) -> None:
        tree = World().tree()
        path = f"cells/{Q8}/items.jsonl"
        tree.files[path] = tree.files[path].replace(b"correct", b"wrong!!")
        with pytest.raises(RefusedError) as caught:
            lineage.read(tree)
        report = evaluation.refused(caught.value, today=TODAY)
        assert (report.verdict, report.exit_code) == ("refused", 3)
        assert path in report.checks[0].message and report.checks[0].stops

    def test_evidence_of_another_project_is_refused(self) -> None:
        found = Made().evidence()
        evaluation.check_made_with(PROJECT, found)
        limits = PROJECT.limits.model_copy(update={"deadline_s": 7})
        evaluation.check_made_with(PROJECT.model_copy(update={"limits": limits}), found)
        for change in (
            {"runtimes": {**PROJECT.runtimes, "vllm": RuntimeSettings(variants=())}},
            {"limits": PROJECT.limits.model_copy(update={"threads": 2})},
        ):
            with pytest.raises(RefusedError, match=next(iter(change))):
                evaluation.check_made_with(PROJECT.model_copy(update=change), found)


# ---------------------------------------------------------------------------- what is judged how


def row(report: GateReport, id_: str) -> GateVerdict:
    (found,) = (each for each in report.checks if each.id == id_)
    return found


class TestRows:
    def test_a_row_names_hop_cause_items_and_where_to_look(self) -> None:
        found = row(judge(ONE_FLIP), f"flips:{VLLM}")
        assert (found.parent, found.cell, found.kind) == (MERGED, VLLM, "runtime")
        assert (found.keys, found.cause, found.items) == (("pods/0007",), "weights", 200)
        assert found.message == "1 of 200 flipped (weights, not a near-tie), 0 allowed"
        assert found.look == "driftline explain pods/0007"
        assert found.rule == 3 and found.limit == 0

    def test_causes_are_counted_and_what_is_not_known_is_said(self) -> None:
        keys = [f"pods/{n:04}" for n in range(4)]
        causes = {keys[0]: "numerics", keys[1]: "weights", keys[2]: "weights"}
        made = Made(
            items=100, scores={VLLM: lost("pods", range(4))}, hops={VLLM: {"causes": causes}}
        )
        found = row(judge(made), f"flips:{VLLM}")
        assert found.cause == "2 weights, 1 numerics, 1 not told apart"

    def test_near_ties_are_counted_beside(self) -> None:
        made = replace(ONE_FLIP, near_ties={VLLM: ("pods/0007",)})
        said = row(judge(made), f"flips:{VLLM}").message
        assert said == "0 of 200 flipped, 1 near-tie beside, 0 allowed"

    def test_too_few_items_say_how_many_would_decide(self) -> None:
        report = judge(Made(items=25))
        found = row(report, f"loss:{Q8}")
        assert (found.verdict, found.items, found.need) == ("undecided", 50, 59)
        assert found.message.endswith("5 allowed; 59 items would decide at this rate")
        assert found.cause == "too few items"
        assert found.look == "add to evalsets/pods.jsonl, evalsets/sql.jsonl"
        enough = Made(items=30)
        assert row(judge(enough), f"loss:{Q8}").verdict == "pass"

    def test_what_is_needed_is_enough_and_no_more(self) -> None:
        """With as many items as were asked for, the same rate decides; with one less it does not.
        A hop of two evalsets has an even number."""
        for losses in (0, 1, 3):
            made = Made(items=25, scores={Q4: lost("pods", range(losses))})
            found = row(judge(made), f"loss:{Q4}")
            assert found.need is not None
            pairs = Pairs.flips(50, losses, 0)
            for items, decided in ((found.need, True), (found.need - 1, False)):
                seen = pairs.times(items)
                excluded = margins.high(seen) <= 0.05
                assert (excluded or margins.low(seen) > 0.05) == decided

    def test_few_positions_show_no_percentile(self) -> None:
        report = judge(Made(items=14))
        found = row(report, f"kl_p99:{Q4}")
        assert (found.verdict, found.need) == ("undecided", 299)
        assert "299 positions would decide, 280 were measured" in found.message
        assert 0.99**299 < 0.05 < 0.99**298

    def test_divergence_within_an_evalset_is_of_its_own_sequences(self) -> None:
        policy_ = with_rules(Rule(evalset="pods", max_kl=0.0005))
        found = row(judge(Made(), policy_), f"kl:{Q4}:pods")
        assert (found.verdict, found.items, found.high) == ("fail", 40, 0.001)
        assert found.look == f"driftline budget {Q4}"

    def test_divergence_at_its_limit_says_how_many_sequences_would_decide(self) -> None:
        found = row(judge(Made(hops={Q4: {"kl": estimate(0.097)}})), f"kl:{Q4}")
        reach, gap = 0.0097, 0.003
        assert found.need == math.ceil(80 * (reach / gap) ** 2)

    def test_divergence_of_arithmetic_is_looked_at_by_item(self) -> None:
        hop = {"kl": estimate(0.2), "numerics_kl": estimate(0.3)}
        found = row(judge(Made(hops={Q4: hop})), f"kl:{Q4}")
        assert (found.cause, found.look) == ("numerics", "driftline explain sql/0039")
        split: dict[str, Any] = {"kl": estimate(0.2), "weights_kl": None}
        assert row(judge(Made(hops={Q4: split})), f"kl:{Q4}").cause == "not split"

    def test_corpora_count_as_sequences_and_as_no_items(self) -> None:
        corpora = {"notes": {"path": "n", "window": 64}}
        base = PROJECT.model_dump(mode="json")
        made = Made(
            params.parse(
                {**base, "distributions": {**base["distributions"], "corpora": corpora}}, where="t"
            )
        )
        report = judge(made)
        assert row(report, f"kl:{Q4}").items == 120
        assert row(report, f"loss:{Q4}").items == 80

    def test_the_floor_of_an_adapter_is_that_on_its_parents_text(self) -> None:
        floor = ForcedFloor(rows=80, mean_kl=0.5, max_kl=1.0)
        made = Made(hops={ATTACHED: {"kl": estimate(1.2)}}, floors={ATTACHED: floor})
        found = row(judge(made, with_rules(Rule(kinds=("adapter",), max_kl=1.0))), f"kl:{ATTACHED}")
        assert found.verdict == "fail"  # what it kept is of its own text

    def test_a_tail_is_judged_above_a_bound_of_the_floors(self) -> None:
        made = Made(
            hops={Q4: {"kl_p99": 1.2}},
            floors={Q4: ForcedFloor(rows=800, mean_kl=0.003, max_kl=9.0)},
        )
        assert row(judge(made), f"kl_p99:{Q4}").measured == pytest.approx(0.9)

    def test_unstable_answers_are_nobodys_loss(self) -> None:
        keys = tuple(f"pods/{n:04}" for n in range(20))
        made = Made(scores={VLLM: lost("pods", range(20))}, unstable={VLLM: keys})
        report = judge(made)
        assert row(report, f"cell:{VLLM}").keys == keys
        assert row(report, f"loss:{VLLM}").items == 60
        assert row(report, f"flips:{VLLM}").message == "0 of 60 flipped, 0 allowed"

    def test_a_failed_parent_is_said_once(self) -> None:
        report = judge(Made(outcomes={F32: FAILED}))
        assert [each.id for each in report.checks if each.stops] == [f"cell:{F32}"]

    def test_a_hop_from_a_cell_that_may_be_missing_is_not_passed_over(self) -> None:
        report = judge(Made(outcomes={F32: SKIPPED}), GatePolicy(may_skip=("*/f32",)))
        assert report.verdict == "undecided"
        assert row(report, f"items:{Q8}").message.startswith("nothing was compared: ")

    def test_experimental_cells_are_listed_with_how_they_ended(self) -> None:
        made = Made(outcomes={MLX: FAILED}, scores={Q4: lost("pods", range(40))})
        report = judge(made, GatePolicy(experimental=("mlx/*", "*/q4_k_m")))
        assert report.verdict == "pass"
        skipped = {each.cell: each.message for each in report.checks if each.verdict == "skipped"}
        assert skipped[MLX] == "experimental, not judged: crashed: killed"
        assert set(skipped) == {MLX, Q4}

    def test_a_finding_in_an_experimental_cell_is_not_judged(self) -> None:
        report = judge(FINDING, GatePolicy(experimental=("mlx/*",)))
        assert (report.verdict, row(report, f"{ODD.code}:{MLX}").verdict) == ("pass", "skipped")

    def test_a_finding_in_the_reference_counts(self) -> None:
        finding = Finding(
            code="reference-truncated",
            where=ATTACHED,
            component=None,
            message="cut",
            items=("pods/0001",),
        )
        report = judge(Made(findings=(finding,)))
        assert row(report, f"reference-truncated:{ATTACHED}").look == "driftline explain pods/0001"

    def test_remedies_of_cells_are_commands(self) -> None:
        report = judge(Made(outcomes={MLX: SKIPPED, Q8: FAILED}))
        assert row(report, f"cell:{MLX}").look == "pip install mlx-lm"
        again = "dvc repro --single-item --force score_quantized@audit-q8_0"
        assert row(report, f"cell:{Q8}").look == again


class TestPolicy:
    def test_a_project_without_the_key_has_the_default(self) -> None:
        assert policy.policy(PROJECT) == GatePolicy()
        assert "gate" not in PROJECT.model_dump(mode="json")

    def test_the_embedded_project_spells_the_default_out(self) -> None:
        """params.yaml has the default's rules but for what its own comments say."""
        found = policy.policy(params.read(ROOT / "params.yaml"))
        assert found.experimental == ("*/q2_k", "*/2bit")
        lossy, *others = found.rules
        assert lossy.model_copy(update={"max_loss": 0.05}) == DEFAULT.rules[0]
        assert tuple(others) == DEFAULT.rules[1:]

    @pytest.mark.parametrize(
        ("gate", "expected"),
        [
            ({"rule": []}, 'gate.rule: unknown key (did you mean "rules"?)'),
            ({"rules": [{"max_lost": 1}]}, '(did you mean "max_loss"?)'),
            ({"rules": [{"max_loss": 5}]}, "a share from 0 to 1 (5 points are 0.05)"),
            ({"rules": [{"max_loss": "off"}]}, "or \"none\"; found 'off'"),
            ({"rules": [{"max_flips": 1.5}]}, "a whole number, 0 or more"),
            ({"rules": [{"max_flips": True}]}, "a whole number, 0 or more"),
            ({"rules": [{"max_kl": -1}]}, "a number of nats, 0 or more"),
            ({"rules": [{"kinds": ["quantise"]}]}, "gate.rules.0.kinds.0"),
            ({"rules": [{"evalset": "pods", "max_kl_p99": 1}]}, "leave evalset and tag out"),
            ({"rules": [{"tag": "oom", "allow": []}]}, "leave evalset and tag out"),
        ],
    )
    def test_a_mistake_is_named(self, gate: dict[str, Any], expected: str) -> None:
        with pytest.raises(InputError) as caught:
            policy.policy(project(gate=gate))
        assert expected in str(caught.value)

    def test_all_mistakes_at_once(self) -> None:
        with pytest.raises(InputError) as caught:
            policy.policy(project(gate={"rules": [{"max_los": 1}, {"max_kl": -1}], "x": 1}))
        assert all(key in str(caught.value) for key in ("rules.0", "rules.1", "gate.x"))

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [
            (Rule(evalset="pod", max_loss=0.1), 'evalset "pod", which no item is of (did you mean'),
            (Rule(tag="om", max_loss=0.1), 'tag "om", which no item is of (did you mean "oom"?)'),
        ],
    )
    def test_a_rule_on_nothing_is_bad_input(self, rule: Rule, expected: str) -> None:
        with pytest.raises(InputError) as caught:
            judge(Made(), with_rules(rule))
        assert expected in str(caught.value) and "rule 6" in str(caught.value)

    def test_patterns_that_select_nothing_are_noted(self) -> None:
        policy_ = with_rules(
            Rule(cells=("ollama/*",), max_loss=0.1), experimental=("*/q3",), may_skip=("x",)
        )
        notes = judge(Made(), policy_).notes
        assert len(notes) == 3 and "rule 6 selects no hop" in notes[-1]

    def test_later_rules_win_limit_by_limit_and_none_lifts_one(self) -> None:
        policy_ = GatePolicy(
            rules=(
                Rule(max_loss=0.1, max_flips=3, max_kl=1.0),
                Rule(kinds=("quantize",), max_loss=0.2),
                Rule(cells=("*/q4_k_m",), max_flips="none"),
                Rule(evalset="*", max_loss=0.3),
                Rule(evalset="p*", tag="oom", max_loss=0.4),
            )
        )

        def found(kind: Any, cell: str, scope: Scope = ALL) -> dict[str, tuple[float, int]]:
            limits = policy.limits(policy_, kind, cell, scope)
            return {name: (limit.value, limit.rule) for name, limit in limits.items()}

        assert found("merge", MERGED) == {
            "max_loss": (0.1, 1),
            "max_flips": (3, 1),
            "max_kl": (1.0, 1),
        }
        assert found("quantize", Q4) == {"max_loss": (0.2, 2), "max_kl": (1.0, 1)}
        assert found("quantize", Q4, Scope("sql")) == {"max_loss": (0.3, 4)}
        assert found("quantize", Q4, Scope("pods", "oom")) == {"max_loss": (0.4, 5)}
        assert found("quantize", Q4, Scope("sql", "oom")) == {}
        assert found("quantize", Q4, Scope(None, "oom")) == {}

    def test_the_last_rule_on_findings_wins(self) -> None:
        policy_ = with_rules(Rule(allow=(ODD.code,)), Rule(cells=("mlx/*",), allow=()))
        assert judge(FINDING, policy_).verdict == "fail"
        assert row(judge(FINDING, policy_), f"{ODD.code}:{MLX}").rule == 7

    def test_a_policy_survives_being_written(self) -> None:
        policy_ = with_rules(Rule(max_kl="none", allow=("a",)), may_skip=("x",))
        again = GatePolicy.model_validate_json(canonical(policy_))
        assert again == policy_
        assert project(gate=json.loads(canonical(policy_))).gate


# ------------------------------------------------------------------------------------- statistics


class TestMargins:
    def test_nothing_lost_is_the_rule_of_three(self) -> None:
        for items in (5, 26, 90):
            nothing = Pairs.of([0.0] * items)
            assert margins.high(nothing) == pytest.approx(1 - 0.05 ** (1 / items))
            assert margins.low(nothing) == -margins.high(nothing)
        assert margins.high(Pairs.flips(5, 0, 0)) == pytest.approx(0.4507, abs=1e-4)

    def test_one_way_losses_have_clopper_pearsons_bounds(self) -> None:
        from scipy.stats import binomtest

        exact = binomtest(7, 40).proportion_ci(0.9, method="exact")
        found = Pairs.flips(40, 7, 0)
        assert margins.high(found) == pytest.approx(exact.high)
        assert margins.upper(7, 40) == pytest.approx(exact.high)
        assert margins.lower(7, 40) == pytest.approx(exact.low)

    def test_square_and_add_by_hand(self) -> None:
        from scipy.stats import beta

        p, q, n = 0.2, 0.1, 50
        up, down = beta.ppf(0.95, 11, 40) - p, q - beta.ppf(0.05, 5, 46)
        r = -math.sqrt(p * q / ((1 - p) * (1 - q)))
        by_hand = p - q + math.sqrt(up**2 + down**2 - 2 * r * up * down)
        assert margins.high(Pairs.flips(n, 10, 5)) == pytest.approx(by_hand)

    @pytest.mark.parametrize("items", [5, 12, 30])
    def test_the_true_loss_is_missed_in_at_most_5_percent(self, items: int) -> None:
        assert gate_power.worst_coverage(items) <= ALPHA

    def test_parts_of_a_flip_never_narrow_it(self) -> None:
        """Graded scores: the share of samples that miss their mean, simulated, is small too."""
        import numpy as np

        rng = np.random.default_rng(7)
        missed = 0
        for _ in range(400):
            drawn = np.where(rng.random(40) < 0.3, -rng.random(40), 0.0)
            missed += margins.high(Pairs.of(drawn.tolist())) < 0.15
        assert missed / 400 <= ALPHA

    @given(
        items=st.integers(1, 400),
        lost_=st.floats(0, 1),
        gained=st.floats(0, 1),
        alpha=st.floats(0.001, 0.4),
    )
    @settings(deadline=None)
    def test_laws(self, items: int, lost_: float, gained: float, alpha: float) -> None:
        pairs = Pairs.flips(items, lost_ * items, (1 - lost_) * gained * items)
        low, high = margins.low(pairs, alpha), margins.high(pairs, alpha)
        assert -1 <= low <= pairs.loss + 1e-9 and pairs.loss - 1e-9 <= high <= 1
        assert margins.high(pairs.swapped, alpha) == -low
        more = pairs.times(2 * items)
        assert margins.high(more, alpha) <= high + 1e-9
        assert margins.low(more, alpha) >= low - 1e-9
        assert margins.high(pairs, alpha / 2) >= high - 1e-12

    @given(b=st.integers(0, 40), c=st.integers(0, 40))
    @settings(deadline=None)
    def test_the_sign_test_is_mcnemars(self, b: int, c: int) -> None:
        assert margins.sign_p(Pairs.flips(100, b, c)) == pytest.approx(mcnemar(b, c))

    def test_the_sign_test_counts_items_whatever_they_lost(self) -> None:
        assert margins.sign_p(Pairs.of([-0.1] * 8 + [0.0] * 9)) == pytest.approx(mcnemar(8, 0))

    def test_items_that_decide(self) -> None:
        assert margins.items_that_decide(Pairs.flips(5, 0, 0), 0.05) == 59
        assert margins.items_that_decide(Pairs.flips(90, 1, 0), 0.05) == 95
        assert margins.items_that_decide(Pairs.flips(40, 2, 0), 0.05) is None
        proof = margins.items_that_decide(Pairs.flips(40, 4, 0), 0.05, alpha=ALPHA / 50)
        assert proof is not None and proof > 40
        lucky = Pairs.flips(30, 6, 0)
        assert margins.low(lucky) > 0.05
        more = margins.items_that_decide(lucky, 0.05, alpha=ALPHA / 18)
        assert more is not None and more > 30
        assert margins.sign_p(lucky.times(more)) < ALPHA / 18

    def test_items_that_decide_are_those_of_the_usual_formula(self) -> None:
        """Lu and Bean 1995, "On the sample size for one-sided equivalence of sensitivities based
        upon McNemar's test", Statistics in Medicine 14: z² (b + c - (b - c)²) / (m - (b - c))²,
        here for one half power; the exact bounds need a little more."""
        for p, q, margin in ((0.03, 0.02, 0.05), (0.10, 0.02, 0.05), (0.02, 0.03, 0.02)):
            theta = p - q
            formula = 1.645**2 * (p + q - theta**2) / (margin - theta) ** 2
            found = margins.items_that_decide(Pairs.flips(1000, 1000 * p, 1000 * q), margin)
            assert found is not None and formula <= found <= 1.7 * formula

    def test_luck_among_many_tests_is_no_proof(self) -> None:
        """6 of 30 lost is more than 5 points by itself, and luck among the tests of a report."""
        made = Made(items=15, scores={Q4: lost("pods", range(6))})
        found = row(judge(made), f"loss:{Q4}")
        assert margins.low(Pairs.flips(30, 6, 0)) > 0.05
        assert found.verdict == "undecided" and "not proven among 18 tests" in found.message
        alone = GatePolicy(rules=(Rule(cells=(Q4,), max_loss=0.05),))
        assert row(judge(made, alone), f"loss:{Q4}").verdict == "fail"
        assert holm([mcnemar(6, 0)] + [1.0] * 17)[0] > ALPHA

    def test_a_loss_of_small_parts_is_weighed_and_not_only_counted(self) -> None:
        """Every item loses 3 points: certain, and within a limit of 5."""
        scores = {**everywhere(lost("sql", range(40), 0.5)), Q4: lost("sql", range(40), 0.44)}
        found = row(judge(Made(scores=scores)), f"loss:{Q4}")
        assert (found.verdict, len(found.keys)) == ("undecided", 40)
        assert found.message.startswith("loses 3 points of 80 items")


class TestRates:
    """What `benchmarks/gate_power.py` prints, smaller."""

    def test_false_alarms_on_clean_pipelines(self) -> None:
        """200 items a hop, 1 % of answers flip both ways: at most 5 % are stopped."""
        found = gate_power.verdicts(40, 100)
        assert found["fail"] == 0
        assert 40 - found["pass"] <= 2

    def test_too_few_items_are_undecided_not_failed(self) -> None:
        found = gate_power.verdicts(15, 20)
        assert set(found) == {"undecided"}

    def test_power_for_a_loss_of_5_points_with_200_items(self) -> None:
        """With 1 % of the items flipping each way beside the loss, and 36 tests in the report."""
        tests = gate_power.family()
        assert tests == 36
        strict = gate_power.power(200, 0.05, 0.02, tests)
        assert strict["pass"] < 0.001
        assert strict["fail"] == pytest.approx(0.224, abs=0.005)
        at_limit = gate_power.power(200, 0.05, 0.05, tests)
        assert at_limit["pass"] <= ALPHA and at_limit["fail"] <= ALPHA
        clean = gate_power.power(200, 0.0, 0.05, tests)
        assert clean["pass"] > 0.98 and clean["fail"] == pytest.approx(0, abs=1e-9)

    def test_whole_pipelines_with_a_loss_of_5_points_are_stopped(self) -> None:
        assert gate_power.verdicts(10, 100, loss=0.05)["pass"] == 0


# ------------------------------------------------------------------------------------------- laws


def spoils() -> dict[str, Callable[[Made], Made]]:
    """One more reason each."""
    return {
        "error": lambda made: replace(made, outcomes={**made.outcomes, Q8: FAILED}),
        "skipped": lambda made: replace(made, outcomes={**made.outcomes, MLX: SKIPPED}),
        "missing": lambda made: replace(made, missing=(*made.missing, MLX)),
        "unstable": lambda made: replace(made, unstable={**made.unstable, VLLM: ("pods/0003",)}),
        "finding": lambda made: replace(made, findings=(*made.findings, ODD)),
        "loss": lambda made: replace(made, scores={**made.scores, Q4: {**lost("pods", range(30))}}),
        "few lost": lambda made: replace(
            made, scores={**made.scores, MLX: {**lost("sql", range(5))}}
        ),
        "flip": lambda made: replace(made, scores={**made.scores, VLLM: {**lost("sql", range(2))}}),
        "errored": lambda made: replace(
            made, scores={**made.scores, F32: {**lost("sql", [1], None)}}
        ),
        "kl": lambda made: replace(made, hops={**made.hops, Q4: {"kl": estimate(0.3)}}),
        "kl near": lambda made: replace(made, hops={**made.hops, MLX: {"kl": estimate(0.099)}}),
    }


SPOILS = spoils()
SMALL = Made(items=30)


class TestLaws:
    @given(
        names=st.lists(st.sampled_from(sorted(SPOILS)), max_size=4, unique=True),
        extra=st.sampled_from(sorted(SPOILS)),
    )
    @settings(deadline=None, max_examples=25)
    def test_one_more_reason_never_makes_a_pass(self, names: list[str], extra: str) -> None:
        made = SMALL
        for name in names:
            made = SPOILS[name](made)
        before, after = judge(made), judge(SPOILS[extra](made))
        assert after.verdict != "pass"
        assert (before.verdict == "pass") == (not names)
        order = list(evaluation.EXIT_CODES)
        if names:
            assert order.index(after.verdict) <= max(
                order.index(before.verdict), order.index("undecided")
            )

    @given(seed=st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=15)
    def test_no_order_matters(self, seed: Any) -> None:
        made = SMALL
        for name in ("loss", "finding", "flip", "kl", "unstable"):
            made = SPOILS[name](made)
        made = replace(made, findings=(*made.findings, ODD.model_copy(update={"code": "x"})))
        given_ = [FLIP, blessing("gone:x"), blessing(f"kl:{Q4}", up_to=1.0)]
        found = made.evidence()
        expected = evaluation.evaluate(DEFAULT, found, given_, today=TODAY)

        def mixed(values: Any) -> Any:
            return tuple(seed.sample(list(values), len(values)))

        index = found.index.model_copy(
            update={
                key: mixed(getattr(found.index, key)) for key in ("hops", "findings", "evalsets")
            }
        )
        shuffled = replace(
            found,
            index=index,
            cells=dict(mixed(found.cells.items())),
            of_cells={c: dict(mixed(items.items())) for c, items in found.of_cells.items()},
        )
        again = evaluation.evaluate(DEFAULT, shuffled, mixed(given_), today=TODAY)
        assert canonical(_unordered(again)) == canonical(_unordered(expected))

    @given(items=st.integers(30, 60), variants=st.sampled_from([["audit"], ["base", "audit"]]))
    @settings(deadline=None, max_examples=10)
    def test_a_clean_pipeline_passes(self, items: int, variants: list[str]) -> None:
        made = Made(
            project(
                adapters={"audit": {"path": "a"}},
                variants=variants,
                evalsets={"base": ["clauses", "sql"], "audit": ["pods", "sql"]},
                vllm=variants,
            ),
            items=items,
        )
        report = judge(made)
        assert (report.verdict, report.exit_code) == ("pass", 0), report.checks[0]

    def test_the_same_again_is_the_same_bytes(self) -> None:
        made = SPOILS["loss"](SMALL)
        assert canonical(judge(made)) == canonical(judge(made))

    def test_precedence(self) -> None:
        assert list(evaluation.EXIT_CODES.values()) == [3, 4, 5, 1, 1, 0]
        assert evaluation.worst([]) == "pass"
        assert evaluation.worst(["pass", "undecided", "fail"]) == "fail"
        assert evaluation.worst(["fail", "unstable", "error", "refused"]) == "refused"


def _unordered(report: GateReport) -> GateReport:
    """Keys of equal rank may come in any order of the items."""
    rows = tuple(
        each.model_copy(update={"keys": tuple(sorted(each.keys)), "look": ""})
        for each in report.checks
    )
    return report.model_copy(update={"checks": rows})


# -------------------------------------------------------------------------------------- blessings


class TestBlessings:
    def made(self, made: Made, id_: str, **how: Any) -> Blessing:
        fields: dict[str, Any] = {
            "reason": " known ",
            "by": "Ada",
            "accepted": TODAY,
            "expires": TODAY + timedelta(90),
        }
        (found,) = blessings.bless(judge(made), id_, **{**fields, **how})
        return found

    @pytest.mark.parametrize(
        ("made", "id_", "worse"),
        [
            (
                ONE_FLIP,
                f"flips:{VLLM}",
                Made(items=100, scores={VLLM: lost("pods", [7, 9])}),
            ),
            (
                Made(items=25, scores={Q4: lost("pods", [1])}),
                f"loss:{Q4}",
                Made(items=25, scores={Q4: lost("pods", [1, 2])}),
            ),
            (
                Made(hops={Q4: {"kl": estimate(0.2)}}),
                f"kl:{Q4}",
                Made(hops={Q4: {"kl": estimate(0.21)}}),
            ),
            (
                Made(hops={Q4: {"kl_p99": 1.5}}),
                f"kl_p99:{Q4}",
                Made(hops={Q4: {"kl_p99": 1.6}}),
            ),
            (Made(items=14), f"items:{Q4}", Made(items=13)),
            (
                FINDING,
                f"{ODD.code}:{MLX}",
                Made(findings=(ODD.model_copy(update={"message": "2"}),)),
            ),
            (
                Made(outcomes={MLX: SKIPPED}),
                f"cell:{MLX}",
                Made(outcomes={MLX: SKIPPED.model_copy(update={"reason": "broken"})}),
            ),
        ],
        ids=lambda each: each if isinstance(each, str) else "",
    )
    def test_it_covers_what_it_says_and_nothing_worse(
        self, made: Made, id_: str, worse: Made
    ) -> None:
        entry = self.made(made, id_)
        assert entry.reason == "known"
        found = row(judge(made, DEFAULT, entry), id_)
        assert found.blessed == entry and not found.stops
        again = row(judge(worse, DEFAULT, entry), id_)
        assert again.stops and "this is not covered" in again.remark
        assert judge(worse, DEFAULT, entry).blessings[0].state == "exceeded"

    def test_a_smaller_figure_is_covered(self) -> None:
        entry = self.made(Made(hops={Q4: {"kl": estimate(0.2)}}), f"kl:{Q4}")
        assert entry.up_to == 0.22
        better = judge(Made(hops={Q4: {"kl": estimate(0.15)}}), DEFAULT, entry)
        assert better.verdict == "pass" and better.blessings[0].state == "covers"

    def test_expired_counts_again_and_says_so(self) -> None:
        entry = self.made(ONE_FLIP, f"flips:{VLLM}", expires=TODAY - timedelta(1))
        report = judge(ONE_FLIP, DEFAULT, entry)
        assert row(report, entry.id).remark == f"blessed by Ada until {entry.expires}: expired"
        assert report.blessings[0].state == "expired" and report.verdict == "fail"

    def test_a_newer_entry_stands_beside_an_expired_one(self) -> None:
        old = self.made(ONE_FLIP, f"flips:{VLLM}", expires=TODAY - timedelta(1))
        new = self.made(ONE_FLIP, f"flips:{VLLM}")
        assert judge(ONE_FLIP, DEFAULT, old, new).verdict == "pass"

    def test_about_nothing_is_listed_as_unused(self) -> None:
        report = judge(Made(), DEFAULT, blessing("loss:gone"))
        assert (report.verdict, report.blessings[0].state) == ("pass", "unused")

    def test_an_error_cannot_be_blessed(self) -> None:
        with pytest.raises(InputError, match="is repaired, not"):
            self.made(Made(outcomes={Q8: FAILED}), f"cell:{Q8}")
        with pytest.raises(InputError, match="unstable"):
            self.made(Made(unstable={VLLM: ("pods/0003",)}), f"cell:{VLLM}")
        report = judge(Made(outcomes={Q8: FAILED}), DEFAULT, blessing(f"cell:{Q8}", up_to=9.0))
        assert report.verdict == "error"

    def test_an_unknown_id_is_named_with_the_closest_one(self) -> None:
        with pytest.raises(InputError, match="did you mean") as caught:
            self.made(ONE_FLIP, "flip:vllm/audit/checkpoint")
        assert f"flips:{VLLM}" in str(caught.value)
        with pytest.raises(InputError, match="nothing stops the gate"):
            self.made(Made(), "flips:x")

    def test_a_reason_is_needed(self) -> None:
        with pytest.raises(InputError, match="needs a reason"):
            self.made(ONE_FLIP, f"flips:{VLLM}", reason="  ")

    @pytest.mark.parametrize(
        ("value", "expected"),
        [(0.0517001, 0.0518), (1.0, 1.0), (0.0, 0.0), (-0.3, 0.0), (12.341, 12.4)],
    )
    def test_figures_are_rounded_up(self, value: float, expected: float) -> None:
        assert blessings._rounded_up(value) == expected

    def test_a_bad_file_is_bad_input(self) -> None:
        assert blessings.parse(None, where="blessings.yaml") == ()
        with pytest.raises(InputError) as caught:
            blessings.parse([{"id": "x", "why": 1}], where="blessings.yaml")
        assert "0.why: unknown key" in str(caught.value) and "0.expires" in str(caught.value)


# ------------------------------------------------------------------------------------ the command


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=Ada", "-c", "user.email=a@b", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def sixty(**changes: Any) -> World:
    """A project with 60 golden prompts an evalset."""
    items = {
        name: {f"{name[0]}-{n:02}": f"question {n}" for n in range(60)}
        for name in ("clauses", "audit")
    }
    return World(items=items, **changes)


RULES: dict[str, Any] = {"rules": [{"kinds": ["quantize"], "max_loss": 0.05, "max_flips": 0}]}


class Project:
    """A git repository with evidence, where `driftline` is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        git(folder, "init", "-q")
        git(folder, "config", "user.name", "Ada")
        self.gate: dict[str, Any] = RULES
        self.write(sixty())
        self.commit()

    def write(self, world: World) -> None:
        tree = world.tree()
        for path in tree.paths():
            target = self.folder / "reports" / "lineage" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tree.files[path])
        data = {**world.project.model_dump(mode="json"), "gate": self.gate}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(data))

    def commit(self, message: str = "evidence") -> None:
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-q", "-m", message)

    def run_git(self, *arguments: str) -> str:
        return git(self.folder, *arguments)

    def baseline(self, name: str) -> None:
        """Name a baseline in params.yaml, in place of the one there."""
        path = self.folder / "params.yaml"
        data = {**yaml.safe_load(path.read_text()), "baseline": name}
        path.write_text(yaml.safe_dump(data))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments))


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


def degraded(cell: str, key: str) -> Any:
    return "wrong" if cell == Q8 and key.startswith("audit/a-1") else "correct"


class TestCommand:
    def test_a_clean_project_passes(self, repo: Project) -> None:
        done = repo.run("gate")
        assert done.exit_code == 0, done.output
        assert done.output.splitlines()[-1].startswith("gate: pass (")

    def test_a_degraded_one_fails_with_one_line_per_reason(self, repo: Project) -> None:
        repo.write(sixty(state=degraded))
        done = repo.run("gate")
        assert done.exit_code == 1
        first = done.output.splitlines()[0]
        assert first.startswith(f"fail       quantize {F32} → {Q8}: loses 16.67 points of 60 items")
        assert "audit/a-10, audit/a-11" in first
        assert first.endswith(f"· driftline explain audit/a-10 · [loss:{Q8}]")

    def test_an_earlier_commit_is_judged_with_its_own_policy(self, repo: Project) -> None:
        repo.write(sixty(state=degraded))
        repo.gate = {"rules": [{"min_items": 1}]}
        repo.write(sixty(state=degraded))
        repo.commit("lenient")
        assert repo.run("gate").exit_code == 0
        assert repo.run("gate", "HEAD").exit_code == 0
        assert repo.run("gate", "HEAD~1").exit_code == 0
        repo.gate = RULES
        repo.write(sixty(state=degraded))
        assert repo.run("gate").exit_code == 1
        assert repo.run("gate", "HEAD").exit_code == 0

    def test_json_is_the_report(self, repo: Project) -> None:
        done = repo.run("gate", "--json")
        report = GateReport.model_validate_json(done.stdout)
        assert (report.verdict, report.exit_code, done.exit_code) == ("pass", 0, 0)
        assert report.policy == policy.policy(project(gate=RULES))

    def test_edited_evidence_is_refused(self, repo: Project) -> None:
        path = repo.folder / "reports/lineage/cells" / Q8 / "items.jsonl"
        path.write_text(path.read_text().replace("correct", "wrong", 1))
        done = repo.run("gate")
        assert done.exit_code == 3 and "refused: " in done.output
        told = repo.run("gate", "--json")
        report = GateReport.model_validate_json(told.stdout)
        assert (told.exit_code, report.verdict, report.exit_code) == (3, "refused", 3)

    def test_evidence_of_other_params_is_refused(self, repo: Project) -> None:
        data = yaml.safe_load((repo.folder / "params.yaml").read_text())
        data["gguf"]["quantizations"].append("q4_k_m")
        (repo.folder / "params.yaml").write_text(yaml.safe_dump(data))
        done = repo.run("gate")
        assert done.exit_code == 3 and "another params.yaml: gguf" in done.output

    def test_bad_input(self, repo: Project) -> None:
        assert repo.run("gate", "nowhere").exit_code == 2
        repo.gate = {"rules": [{"max_los": 1}]}
        repo.write(sixty())
        done = repo.run("gate")
        assert done.exit_code == 2 and 'did you mean "max_loss"' in done.output
        repo.gate = RULES
        repo.write(sixty())
        (repo.folder / "blessings.yaml").write_text("[")
        assert repo.run("gate").exit_code == 2
        (repo.folder / "blessings.yaml").write_text("- {id: x}")
        done = repo.run("gate")
        assert done.exit_code == 2 and "0.reason" in done.output

    def test_errors_and_unstable_cells(self, repo: Project) -> None:
        repo.write(sixty(outcomes={Q8: FAILED}))
        assert repo.run("gate").exit_code == 4
        shaky = {VLLM: ("audit/a-00",)}
        repo.write(sixty(unstable=shaky))
        done = repo.run("gate")
        assert done.exit_code == 5 and "audit/a-00" in done.output

    def test_bless(self, repo: Project) -> None:
        repo.write(sixty(state=degraded))
        done = repo.run("bless", f"loss:{Q8}", "--reason", "retraining is under way")
        assert done.exit_code == 0, done.output
        (entry,) = blessings.parse(
            yaml.safe_load((repo.folder / "blessings.yaml").read_text()), where=""
        )
        head = date.fromisoformat(git(repo.folder, "show", "-s", "--format=%cs", "HEAD"))
        assert (entry.by, entry.accepted) == ("Ada", head)
        assert entry.expires == head + timedelta(days=90)
        shown = repo.run("gate")
        assert shown.exit_code == 0, shown.output
        line = next(each for each in shown.output.splitlines() if each.startswith("accepted"))
        assert line.endswith(f"Ada until {entry.expires}: retraining is under way")
        assert "1 accepted" in shown.output

    def test_bless_again_replaces_and_keeps_the_others(self, repo: Project) -> None:
        repo.write(sixty(state=degraded))
        other = blessing("loss:gone", expires=date.today() + timedelta(5))
        row_ = other.model_dump(mode="json", exclude_defaults=True)
        (repo.folder / "blessings.yaml").write_text(yaml.safe_dump([row_]))
        for reason in ("first", "second"):
            assert repo.run("bless", f"loss:{Q8}", "--reason", reason).exit_code == 0
        entries = yaml.safe_load((repo.folder / "blessings.yaml").read_text())
        assert [(each["id"], each["reason"]) for each in entries] == [
            ("loss:gone", "known"),
            (f"loss:{Q8}", "second"),
        ]
        assert "nothing is there any more" in repo.run("gate").output

    def test_bless_expired_or_unknown_or_nobody(
        self, repo: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repo.write(sixty(state=degraded))
        bless = ("bless", f"loss:{Q8}", "--reason", "x")
        done = repo.run(*bless, "--expires", "2001-01-01")
        assert done.exit_code == 2 and "before today" in done.output
        done = repo.run("bless", f"los:{Q8}", "--reason", "x")
        assert done.exit_code == 2 and "did you mean" in done.output
        git(repo.folder, "config", "--unset", "user.name")
        monkeypatch.setenv("HOME", str(repo.folder))
        monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        done = repo.run(*bless)
        assert done.exit_code == 2 and "user.name" in done.output
        assert not (repo.folder / "blessings.yaml").exists()

    def test_an_expired_blessing_says_so(self, repo: Project) -> None:
        repo.write(sixty(state=degraded))
        entry = blessing(f"loss:{Q8}", up_to=1.0, expires=date.today() - timedelta(1))
        (repo.folder / "blessings.yaml").write_text(
            yaml.safe_dump([entry.model_dump(mode="json", exclude_defaults=True)])
        )
        done = repo.run("gate")
        assert done.exit_code == 1
        assert f"blessed by Ada until {entry.expires}: expired" in done.output

    def test_hostile_text_is_escaped(self, repo: Project) -> None:
        hostile = "\x1b[31m::error::\nboo"
        repo.write(sixty(outcomes={Q8: FAILED.model_copy(update={"reason": hostile})}))
        done = repo.run("gate")
        assert done.exit_code == 4
        assert "\x1b" not in done.output and "\\x1b[31m" in done.output

    def test_many_items_are_counted(self, repo: Project) -> None:
        repo.write(sixty(state=lambda cell, key: "wrong" if cell == Q8 else "correct"))
        assert "and 50 more" in repo.run("gate").output


# --------------------------------------------------------------------------- on a page, any day


class TestOutlook:
    """What a page says of time: the verdict with every blessing in force, and what follows."""

    def later(self, made: Made, *given: Blessing) -> list[tuple[date, str]]:
        report = evaluation.evaluate(DEFAULT, made.evidence(), given, today=evaluation.ALWAYS)
        return [(each.after, each.verdict) for each in evaluation.outlook(report)]

    def test_without_blessings_nothing_changes(self) -> None:
        assert self.later(Made()) == []
        assert self.later(ONE_FLIP) == []

    def test_it_is_what_the_gate_will_say_on_each_day(self) -> None:
        made = Made(items=25, scores={Q4: lost("pods", [1]), VLLM: lost("pods", [7])})
        stops = judge(made).stops
        ends = [TODAY + timedelta(10 * (n + 1)) for n in range(len(stops))]
        accepted = [
            each
            for end, row in zip(ends, stops, strict=True)
            for each in blessings.bless(
                judge(made), row.id, reason="known", by="Ada", accepted=TODAY, expires=end
            )
        ]
        told = [(date.min, "pass"), *self.later(made, *accepted)]
        assert len(told) > 1
        for day in (TODAY, *ends, *(end + timedelta(1) for end in ends)):
            verdict = [verdict for after, verdict in told if after < day][-1]
            report = evaluation.evaluate(DEFAULT, made.evidence(), accepted, today=day)
            assert report.verdict == verdict, day

    def test_of_two_blessings_the_one_that_lasts_longer_counts(self) -> None:
        id_, until = f"flips:{VLLM}", TODAY + timedelta(50)
        (long,) = blessings.bless(
            judge(ONE_FLIP), id_, reason="a", by="Ada", accepted=TODAY, expires=until
        )
        short = long.model_copy(update={"expires": TODAY + timedelta(5), "reason": "b"})
        for both in ((long, short), (short, long)):
            rows = {row.id: row for row in judge(ONE_FLIP, DEFAULT, *both).checks}
            assert rows[id_].blessed == long


class TestStanding:
    def test_the_working_tree_against_policy_blessings_and_baseline(self, repo: Project) -> None:
        repo.run_git("tag", "before")
        repo.write(sixty(state=degraded))
        repo.baseline("before")
        assert repo.run("bless", f"loss:{Q8}", "--reason", "known").exit_code == 0
        report, baseline = judgement.judge_working_tree(params.read())
        assert (report.verdict, len(report.accepted)) == ("pass", 1)
        assert [each.verdict for each in evaluation.outlook(report)] == ["fail"]
        assert baseline is not None and baseline.comparison is not None
        worse = {cell.cell: len(cell.worse) for cell in baseline.comparison.cells}
        assert worse[Q8] == 10

    def test_what_cannot_be_judged_is_said_and_not_raised(self, repo: Project) -> None:
        repo.gate = {"rules": [{"evalset": "podz", "max_loss": 0.1}]}
        repo.write(sixty())
        report, _ = judgement.judge_working_tree(params.read())
        assert report.verdict == "refused" and "podz" in report.checks[0].message
        repo.gate = RULES
        repo.write(sixty())
        git(repo.folder, "rm", "-rq", "--cached", "reports")
        repo.run_git("commit", "-qm", "no evidence")
        repo.baseline("HEAD")
        _, baseline = judgement.judge_working_tree(params.read())
        assert baseline is not None and baseline.comparison is None
        assert "HEAD" in baseline.problem

    def test_what_a_report_reads_beside_evidence(self, repo: Project) -> None:
        before = judgement.inputs(params.read())
        assert before == {"gate": RULES, "blessings": [], "baseline": None, "budgets": {}}
        repo.baseline("HEAD")
        commit = git(repo.folder, "rev-parse", "HEAD")
        budget = repo.folder / "reports" / "budget" / "x.json"
        budget.parent.mkdir()
        budget.write_text("{}")
        after = judgement.inputs(params.read())
        assert after["baseline"] == {"name": "HEAD", "commit": commit}
        assert list(after["budgets"]) == ["x.json"]
        assert judgement.budgets() == ((), ("reports/budget/x.json",))
        repo.baseline("v9")
        with pytest.raises(InputError, match='"v9" is neither a release nor a git revision'):
            judgement.inputs(params.read())
