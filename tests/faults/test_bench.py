"""Every planted fault is blamed on its hop and component, and a clean pipeline on nothing.

The pipelines are real: conversions, runtimes, counterfactuals and drift, in this process.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from driftline.faults import bench
from driftline.faults.catalogue import FAULTS, Fault
from tests.conftest import need
from tests.paths import ROOT

pytestmark = pytest.mark.faults

MODELS = ROOT / "models"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> bench.Bench:
    for runtime in ("transformers", "llamacpp", "mlx"):
        need(runtime)
    return bench.Bench(MODELS, tmp_path_factory.mktemp("faults"), lambda _: None)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_blamed_on_its_hop_and_component(planted: bench.Bench, fault: Fault) -> None:
    verdict = planted.plant(fault)
    assert verdict.right, verdict


@pytest.mark.parametrize("name", bench.CLEAN)
def test_a_clean_pipeline_is_blamed_for_nothing(name: str, tmp_path: Path) -> None:
    for runtime in ("transformers", "llamacpp", "mlx"):
        need(runtime)
    assert bench.clean(name, MODELS, tmp_path).codes == ()


def test_there_are_faults_of_every_kind() -> None:
    kinds = Counter(fault.component for fault in FAULTS)
    assert sum(kinds.values()) >= 24
    assert {"text", "weights", "numerics", None} == set(kinds)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len(bench.CLEAN) >= 10


def test_blame_elsewhere_or_on_two_components_is_not_right() -> None:
    hop = "a → b"
    fault = bench.Verdict("x", (hop, "text"), ((hop, "text"),), (), items=1, elsewhere=0)
    assert fault.right
    both = bench.Verdict("x", (hop, "text"), ((hop, "text"), (hop, "weights")), (), 1, 0)
    other = bench.Verdict("x", (hop, "text"), (("b → c", "text"),), (), 0, 1)
    nothing = bench.Verdict("x", (hop, "text"), (), (), 0, 0)
    assert not both.right and not other.right and not nothing.right
    assert bench.table([fault, both, other, nothing]) == {
        ("text", "text"): 1,
        ("text", "elsewhere"): 2,
        ("text", "nothing"): 1,
    }
