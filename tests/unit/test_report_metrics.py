"""`reports/metrics.json`: numbers alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from driftline.report.metrics import metrics
from driftline.schema.hops import Cause, Finding, Split
from tests.factories import (
    project,
    prompts,
    record,
    report_input,
)
from tests.unit.report_evidence import (
    ITEMS,
    PROJECT,
    Q2,
    Q8,
    distributions,
    one_bad_cell,
    with_drift,
    with_hop,
)

MEASURED = {
    "items",
    "worse",
    "better",
    "same_sequence",
    "prompt_mismatches",
    "mcnemar_p",
    "holm_p",
}
"""What every hop that was compared has, with or without distributions."""


class TestMetrics:
    def test_scores_and_hops(self) -> None:
        tree = metrics(report_input(PROJECT, ITEMS, **one_bad_cell(Q2)))
        data = json.loads(json.dumps(tree, allow_nan=False))
        assert data["cells"]["llamacpp"]["base"]["q2_k"]["clauses"] == {
            "accuracy": 0.75,
            "items": 4,
        }
        assert data["hops"]["llamacpp"]["base"]["q2_k"] == {
            "items": 8,
            "worse": 2,
            "better": 0,
            "same_sequence": 0.75,
            "prompt_mismatches": 0,
            "mcnemar_p": 0.5,
            "holm_p": 1.0,
        }
        assert data["findings"] == {}
        assert data["states"] == {
            "ok_cells": 26,
            "error_cells": 0,
            "skipped_cells": 0,
            "unstable_cells": 0,
        }

    def test_distributions(self) -> None:
        evidence = report_input(PROJECT, ITEMS, **one_bad_cell(Q2))
        near = Cause(component="numerics", reason="x", margin=0.01, near_tie=True)
        first, *others = (item for item in evidence.hops_by_child[Q2].items if item.flip != "none")
        items = (first, *(item.model_copy(update={"cause": near}) for item in others))
        whole, answers, part = distributions(0.01), distributions(0.02), distributions(0.004)
        split = Split(
            end_to_end=whole, answers=answers, weights=part, numerics=distributions(0.002)
        )
        data: Any = metrics(with_hop(evidence, Q2, items=items, split=split))
        found = data["hops"]["llamacpp"]["base"]["q2_k"]
        assert len(others) == 1 and found["worse"] == 2
        assert {name: found[name] for name in found if name not in MEASURED} == {
            "kl_mean": whole.kl_mean.value,
            "kl_p99": whole.kl_p99,
            "kl_max": 0.02,
            "top1_agreement": 0.975,
            "ln_perplexity_ratio": pytest.approx(0.01),
            "weights_kl_mean": part.kl_mean.value,
            "numerics_kl_mean": pytest.approx(0.003),
            "answers_kl_mean": answers.kl_mean.value,
            "answers_top1_agreement": 0.975,
            "answers_ln_perplexity_ratio": pytest.approx(0.02),
            "flips_not_near_ties": 1,
        }
        bare = whole.model_copy(update={"ln_perplexity_ratio": None})
        data = metrics(with_hop(evidence, Q2, split=Split(end_to_end=bare, withheld="x")))
        found = data["hops"]["llamacpp"]["base"]["q2_k"]
        assert set(found) - MEASURED == {
            "kl_mean",
            "kl_p99",
            "kl_max",
            "top1_agreement",
            "flips_not_near_ties",
        }
        data = metrics(with_hop(evidence, Q2, split=Split(end_to_end=bare, answers=bare)))
        found = data["hops"]["llamacpp"]["base"]["q2_k"]
        assert found["answers_kl_mean"] == whole.kl_mean.value
        assert "answers_ln_perplexity_ratio" not in found

    def test_an_adapter_is_not_among_the_corrected(self) -> None:
        data: Any = metrics(report_input(PROJECT, ITEMS))
        adapter = data["hops"]["transformers"]["audit"]["attached"]
        assert adapter["mcnemar_p"] == 1.0 and "holm_p" not in adapter
        assert data["hops"]["transformers"]["audit"]["checkpoint"]["holm_p"] == 1.0

    @pytest.mark.parametrize("state", ["ok", "unstable"])
    def test_drift_from_the_reference(self, state: Any) -> None:
        evidence = report_input(PROJECT, ITEMS, records={Q8: record(Q8, state=state)})
        cells = tuple(
            each.model_copy(update={"drift": distributions(0.02)}) if each.cell == Q8 else each
            for each in evidence.drift.cells
        )
        data: Any = metrics(with_drift(evidence, cells=cells))
        found = data["cells"]["llamacpp"]["base"]
        assert ("q8_0" in found) == (state == "ok")
        if state == "ok":
            assert found["q8_0"]["kl_from_reference"] == pytest.approx(0.03)
        assert "kl_from_reference" not in found["q2_k"]

    def test_an_evalset_called_like_a_figure_keeps_its_own_key(self) -> None:
        name = "kl-from-reference"
        evidence = report_input(
            project(adapters={}, variants=["base"], evalsets={"base": [name]}, vllm=["base"]),
            prompts(name),
        )
        data: Any = metrics(evidence)
        assert data["cells"]["llamacpp"]["base"]["q8_0"]["kl_from_reference_"]["items"] == 3

    def test_findings_per_code(self) -> None:
        codes = ("bos-differs", "no-op-merge", "bos-differs", "error")
        found = tuple(Finding(code=code, where=Q8, component=None, message="x") for code in codes)
        data: Any = metrics(with_drift(report_input(PROJECT, ITEMS), findings=found))
        assert data["findings"] == {"bos_differs": 2, "no_op_merge": 1, "error_": 1}

    @pytest.mark.parametrize("state", ["error", "skipped", "unstable"])
    def test_only_ok_cells_have_scores(self, state: Any) -> None:
        records = {Q8: record(Q8, state=state, reason="x")}
        data: Any = metrics(report_input(PROJECT, ITEMS, records=records))
        assert "q8_0" not in data["cells"]["llamacpp"]["base"]
        assert ("q8_0" in data["hops"]["llamacpp"]["base"]) == (state == "unstable")

    def test_keys_are_plain_and_do_not_collide(self) -> None:
        names = ["q8.0", "q8-0", "error", "error_"]
        evidence = report_input(
            project(gguf={"outtype": "f32", "quantizations": names}), ITEMS, records={}
        )
        data: Any = metrics(evidence)
        forms = data["cells"]["llamacpp"]["base"]
        assert len(forms) == 5
        assert "error" not in forms  # DVC would report that it failed to load some metrics
        assert all(re.fullmatch(r"[A-Za-z0-9_]+", key) for key in forms)
