"""A release reviewer: from opening the report to hop, cause and example, with planted faults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftline.faults.bench import Bench
from driftline.faults.catalogue import FAULTS, MLX
from driftline.report.html.page import render
from tests.browser.conftest import Open
from tests.browser.fault_reports import plant
from tests.conftest import need
from tests.paths import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.faults]
F32 = "transformers/base/checkpoint → llamacpp/base/f32"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    for runtime in ("llamacpp", "mlx"):
        need(runtime)
    os.chdir(ROOT)
    return Bench(ROOT / "models", tmp_path_factory.mktemp("bench"), lambda _: None)


@pytest.mark.parametrize(
    ("fault", "hop", "cause", "says", "evidence"),
    [
        ("one space more", F32, "text", "the runtime renders another text", "as this runtime"),
        ("tensor zeroed", F32, "weights", "layers.1.mlp.up_proj.weight", "What every cell"),
        (
            "repetition penalty in force",
            f"transformers/base/checkpoint → {MLX}",
            "text",
            "not greedy",
            "not greedy: its own most likely token is ahead",
        ),
    ],
)
def test_no_click_to_the_sentence_and_one_to_the_evidence(
    bench: Bench, opened: Open, fault: str, hop: str, cause: str, says: str, evidence: str
) -> None:
    planted = next(each for each in FAULTS if each.name == fault)
    found = plant(bench.chain(planted.chain), planted.tampering, f"page {fault}")
    page = render(found.evidence, vocabulary=found.vocabulary, partings=found.partings)
    tab = opened(page, height=800)
    why = tab.page.locator(".why")
    box = why.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 800, "it is there without scrolling"
    sentence = why.inner_text()
    assert sentence.startswith(f"{hop} (convert), {cause}: ")
    assert says in sentence
    example = why.locator("a").last
    key = example.inner_text()
    assert key in found.evidence.prompts
    example.click()
    item = tab.page.locator(f"[id='item={key}']")
    assert item.is_visible()
    assert evidence in item.inner_text()
    tab.quiet()


def test_the_benchs_folder_is_not_in_the_page(bench: Bench, tmp_path: Path) -> None:
    planted = next(each for each in FAULTS if each.name == "BOS twice")
    found = plant(bench.chain(planted.chain), planted.tampering, "page twice")
    page = render(found.evidence, vocabulary=found.vocabulary, partings=found.partings)
    assert str(tmp_path.parent) not in page
    assert str(ROOT) not in page
