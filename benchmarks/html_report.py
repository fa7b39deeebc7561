"""The HTML report of 2,000 items in 20 cells: its size, how long it takes to make and to open.

    python -m benchmarks.html_report [--items 2000] [--keep report.html]

The evidence is made up, the drift in it is found by the real code: every lossy hop changes a tenth
of the answers. Opening is measured in Debian's Chromium, headless: until the page's own script has
run (`interactive`), how long one filter takes, and how long until everything is open.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from driftline.report.candidates import Candidate, Parting, Partings
from driftline.report.changes import changes, selected
from driftline.report.html.page import render
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.hops import Cause, Split
from driftline.schema.messages import Message
from driftline.schema.scores import ItemState
from driftline.schema.text import SourceVocabulary
from tests.browser.chromium import CHROMIUM, INSTALL
from tests.factories import project, report_input
from tests.unit.report_evidence import distributions, with_drift

WORDS = ("▁the", "▁contract", "▁ends", "▁after", "▁thirty", "▁days", "▁unless", "▁renewed", "▁by")
TOKENS, PROMPT = 60, 80
LOSSY = 0.1
"""Share of the answers that a quantized cell changes."""
EVALSETS = ("clauses", "sql", "pods", "audit")


def twenty_cells() -> Any:
    """A source, an adapter attached and merged, two times eight conversions, and vLLM."""
    recipes = {f"{bits}bit": {"bits": bits, "group_size": 64} for bits in (8, 4, 2)}
    return project(
        adapters={"audit": {"path": "a"}},
        variants=["base", "audit"],
        evalsets={"base": list(EVALSETS), "audit": list(EVALSETS)},
        gguf={"outtype": "f32", "quantizations": ["q8_0", "q6_k", "q4_k_m", "q2_k"]},
        mlx={"artifacts": list(recipes), "recipes": recipes},
        vllm=["audit"],
    )


def prompts(count: int) -> dict[str, PinnedPrompt]:
    """`count` prompts of 80 tokens, spread over the evalsets."""
    found = {}
    for number in range(count):
        evalset = EVALSETS[number % len(EVALSETS)]
        asked = f"Number {number}: " + "what ends a contract, and after how many days? " * 6
        prompt = PinnedPrompt(
            evalset=evalset,
            id=f"{evalset}-{number:04}",
            messages=(Message(role="user", content=asked),),
            prompt=None,
            text=f"<user>{asked}",
            ids=(1, *(3 + (number + place) % len(WORDS) for place in range(PROMPT))),
            max_new_tokens=TOKENS,
        )
        found[prompt.key] = prompt
    return found


def chance(*what: str) -> random.Random:
    """The same numbers for the same names, in any process."""
    return random.Random(hashlib.sha256("/".join(what).encode()).digest())


def answer(cell: CellSpec, prompt: PinnedPrompt) -> Completion:
    """Sixty tokens; a lossy cell parts from the others in a tenth of its answers."""
    dice = chance(cell.id, prompt.key)
    ids = [3 + (len(prompt.key) + place) % len(WORDS) for place in range(TOKENS)]
    if lossy(cell) and dice.random() < LOSSY:
        ids[dice.randrange(TOKENS) :] = [3 + dice.randrange(len(WORDS)) for _ in range(20)]
    pieces = tuple(WORDS[token - 3] for token in ids)
    return Completion(
        evalset=prompt.evalset,
        id=prompt.id,
        prompt_ids=prompt.ids,
        prompt_text=prompt.text,
        output_ids=tuple(ids),
        pieces=pieces,
        logprobs=tuple(-0.1 for _ in ids),
        text="".join(pieces).replace("▁", " ").strip(),
        finish_reason="stop",
    )


def lossy(cell: CellSpec) -> bool:
    """Whether a cell stores fewer bits."""
    return cell.form.startswith("q") or "bit" in cell.form


def verdict(cell: CellSpec, prompt: PinnedPrompt) -> ItemState:
    """A changed answer is wrong, partial or unparsed; some items are hard for every cell."""
    if chance(prompt.key).random() < 0.05:
        return "wrong"
    usual = answer(cell.model_copy(update={"form": "f32"}), prompt)
    if answer(cell, prompt).output_ids == usual.output_ids:
        return "correct"
    states: tuple[ItemState, ...] = ("correct", "wrong", "partial", "unparsed", "truncated")
    return chance(cell.id, prompt.key, "state").choice(states)


def evidence(count: int) -> ReportInput:
    """Everything a report of that many items in 20 cells gets."""
    given = prompts(count)
    made = report_input(
        twenty_cells(),
        given,
        answer=answer,
        verdict=verdict,
        references={key: answer(spec(), prompt).text for key, prompt in given.items()},
    )
    cause = Cause(component="weights", reason="the stored weights prefer this token", margin=2.5)
    hops = []
    for place, hop in enumerate(made.drift.hops):
        whole = distributions(0.001 * (place + 1), tail=1e-6)
        split = Split(end_to_end=whole, answers=whole, weights=whole, numerics=whole, rest=0.0)
        items = tuple(
            item if item.same_sequence else item.model_copy(update={"cause": cause})
            for item in hop.items
        )
        hops.append(hop.model_copy(update={"split": split, "items": items}))
    return replace(with_drift(made, hops=tuple(hops)))


def spec() -> CellSpec:
    """A cell that loses nothing."""
    return CellSpec(id="x/x/f32", runtime="x", variant="x", form="f32", artifact="x")


def partings(found: ReportInput) -> Partings:
    """Five candidates on either side of every change that is shown."""
    five = tuple(Candidate(3 + n, WORDS[n], -0.1 - n) for n in range(5))
    return {
        (change.hop.hop.name, change.item.key): Parting(five, five, five)
        for change in selected(changes(found))
    }


def opened(page: Path) -> dict[str, float]:
    """Milliseconds in Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(page.as_uri())
        times = tab.evaluate(
            """async () => {
                const painted = () => new Promise(
                    (done) => requestAnimationFrame(() => setTimeout(done, 0)));
                const timed = async (act) => {
                    const start = performance.now();
                    act();
                    await painted();
                    return performance.now() - start;
                };
                const load = performance.getEntriesByType("navigation")[0];
                const mark = (name) => performance.getEntriesByName(name)[0].startTime;
                const hop = document.querySelector("select[data-filter=h]");
                return {
                    interactive: mark("driftline-ready"),
                    "first paint": mark("first-contentful-paint"),
                    loaded: load.loadEventEnd,
                    "hop filter": await timed(() => {
                        hop.value = hop.options[1].value;
                        hop.dispatchEvent(new Event("change"));
                    }),
                    "filter off": await timed(
                        () => document.querySelector("[data-clear]").click()),
                    "everything open": await timed(
                        () => document.querySelector("[data-open=answers]").click()),
                    elements: document.querySelectorAll("*").length,
                };
            }"""
        )
        browser.close()
    return {name: float(value) for name, value in times.items()}


def main() -> None:
    """Make it, measure it, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--keep", type=Path, help="where to leave the page")
    asked = parser.parse_args()
    found = evidence(asked.items)
    shown = partings(found)
    words = SourceVocabulary(
        pieces=("<unk>", "<s>", "</s>", *WORDS), special=(0, 1, 2), bos=1, eos=(2,)
    )
    start = time.perf_counter()
    page = render(found, vocabulary=words, partings=shown)
    took = time.perf_counter() - start
    print(f"{asked.items} items x {len(found.cells)} cells, {len(changes(found))} changes")
    print(f"size       {len(page.encode()) / 1e6:.2f} MB")
    print(f"generation {took:.1f} s")
    with TemporaryDirectory() as folder:
        path = asked.keep or Path(folder) / "report.html"
        path.write_text(page, encoding="utf-8")
        if not Path(CHROMIUM).exists():
            sys.exit(f"no Chromium; install: {INSTALL}")
        for name, value in opened(path.resolve()).items():
            print(f"{name:16} {value:,.0f}{'' if name == 'elements' else ' ms'}")


if __name__ == "__main__":
    main()
