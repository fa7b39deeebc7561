"""A comparison on a terminal, as Markdown and as JSON: the same facts, and nothing unescaped."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from rich.console import Console

from driftline.commands.compare import _split, compare, same
from driftline.compare import comparison
from driftline.errors import InputError, RefusedError
from driftline.evidence import history
from driftline.evidence.lineage import Evidence
from driftline.report.comparison import LIMIT, ROWS, markdown, sections, terminal
from driftline.report.escape import Safe
from driftline.schema.cells import Outcome
from driftline.schema.comparison import (
    CellComparison,
    ComparisonReport,
    Consequence,
    Detail,
    Flip,
    HopComparison,
    InputChange,
)
from driftline.schema.statistics import Estimate
from driftline.schema.values import canonical
from tests.unit.lineage_trees import ADAPTER, PROJECT, World, little, templated
from tests.unit.report_evidence import BAD, PARSER, nasty

WORLD = World(where="v1")
BASE = WORLD.evidence()
Q8, F32 = "llamacpp/base/q8_0", "llamacpp/base/f32"
DECODE = PROJECT.decode.model_dump(mode="json")


def report(world: World, *, common: bool = False) -> ComparisonReport:
    return comparison.compare(BASE, world.but(where="v2").evidence(), common=common)


def shown(found: ComparisonReport, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    for part in terminal(found):
        console.print(part)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


EVENTFUL = report(
    WORLD.but(
        adapters={"audit": replace(ADAPTER, tensors=dict.fromkeys(ADAPTER.tensors, "b"))},
        packages={"llama_cpp_python": "2.0"},
        machine={**WORLD.machine, "cpu_features": ["avx2", "sve"]},
        bytes_of={"gguf/base/f32": "x", "mlx/base/4bit": "odd"},
        state=lambda cell, key: "wrong" if (cell, key[-1]) == (Q8, "1") else "correct",
        kl=lambda cell, key: little(cell, key) + (1e-3 if cell == Q8 else 0),
        outcomes={"vllm/audit/checkpoint": Outcome(state="skipped", reason="no .venv-vllm")},
    )
)
ODD = report(WORLD.but(bytes_of={"gguf/base/f32": "x"}))
NOTHING = comparison.compare(BASE, BASE)


@pytest.mark.parametrize("write", [shown, markdown])
def test_everything_is_said_in_both_shapes(write: object) -> None:
    assert callable(write)
    text = write(EVENTFUL)
    for said in (
        "3 inputs differ",
        "adapter audit",
        "8 of these answered as before",
        "package llama_cpp_python",
        "−fma +sve",
        "What follows from it",
        "Cells on both sides: 10",
        "clauses/c-01",
        "Not comparable: 1 cell",
        "skipped: no .venv-vllm",
        "more",
    ):
        assert said in text, text


@pytest.mark.parametrize("write", [shown, markdown])
def test_what_is_unexplained_cannot_be_missed(write: object) -> None:
    assert callable(write)
    text = write(ODD)
    assert "UNEXPLAINED: the same inputs gave other bytes" in text
    assert "gguf/base/f32" in text and "No input differs" in text
    assert "UNEXPLAINED" not in write(NOTHING)


@pytest.mark.parametrize("write", [shown, markdown])
def test_no_figure_is_printed_of_what_cannot_be_compared(write: object) -> None:
    assert callable(write)
    found = report(WORLD.params(decode={**DECODE, "max_new_tokens": 8}))
    text = write(found)
    assert "Nothing is comparable: none of 10 cells" in text
    assert "decode max_new_tokens 16 → 8" in text
    assert "score change" not in text and "p (Holm)" not in text


def test_nothing_on_both_sides_is_one_line() -> None:
    empty = NOTHING.model_copy(update={"same_cells": 0, "same_hops": 0})
    assert "Nothing to compare: no cell is on both sides" in shown(empty)


def test_prompts_that_are_rendered_anew_are_said_once() -> None:
    text = shown(report(WORLD.but(source=templated("other"))))
    assert "10 of these answered as before (12 items rendered or tokenized to other" in text
    assert "24 items rendered" in text and "score change" not in text


def test_common_is_offered_and_said() -> None:
    items = {**WORLD.items, "clauses": {**WORLD.items["clauses"], "c-03": "other"}}
    plain, common = (report(WORLD.but(items=items), common=flag) for flag in (False, True))
    assert "--common compares the items that are the same on both sides" in shown(plain)
    assert "on the 11 items both have unchanged" in shown(common)
    assert "--common compares" not in shown(common)
    nothing = report(WORLD.but(items={**WORLD.items, "clauses": {"x-1": "other"}}), common=True)
    assert "no item in common" in shown(nothing) and "--common compares" not in shown(nothing)


def test_cells_on_one_side_are_listed() -> None:
    found = report(WORLD.params(gguf={"outtype": "f32", "quantizations": ["q4_k_m"]}))
    text = shown(found)
    assert "Cells added: 2" in text and "Cells removed: 2" in text
    assert "llamacpp/base/q4_k_m" in text


def test_what_is_too_long_for_a_line_is_folded_and_not_cut() -> None:
    name = f"runtime/{'abcdefghij' * 12}/form"
    text = shown(NOTHING.model_copy(update={"added_cells": (name,)}), 40)
    assert name in "".join(line.strip() for line in text.splitlines())


def test_the_worst_cell_and_the_furthest_hop_come_first() -> None:
    moved = {name: 0.001 * n for n, name in enumerate(sorted(BASE.cells))}
    found = report(
        WORLD.but(
            adapters={"audit": ADAPTER},
            code={"grade": "edited"},
            kl=lambda cell, key: little(cell, key) + moved[cell],
            state=lambda cell, key: (
                "wrong" if cell == Q8 or (cell == F32 and key[-1] == "1") else "correct"
            ),
        )
    )
    cells, hops = (
        next(s for s in sections(found) if s.title.startswith(title))
        for title in ("Cells on both", "Hops on both")
    )
    assert [row[0] for row in cells.rows] == [Q8, F32]
    assert hops.rows[0][0] == "transformers/audit/checkpoint → vllm/audit/checkpoint"


def test_json_is_the_report() -> None:
    again = ComparisonReport.model_validate_json(canonical(EVENTFUL))
    assert again == EVENTFUL
    assert markdown(again) == markdown(EVENTFUL) and shown(again) == shown(EVENTFUL)


def many(count: int) -> ComparisonReport:
    names = [f"runtime/variant-{'x' * 250}/{n}" for n in range(count)]
    zero = Estimate(value=1e-3, se=0, low=1e-3, high=1e-3)
    return EVENTFUL.model_copy(
        update={
            "cells": tuple(CellComparison(cell=name, items=1, changed=1) for name in names),
            "hops": tuple(
                HopComparison(parent=name, child=name, kind="convert", difference=zero)
                for name in names
            ),
            "consequences": tuple(
                Consequence(kind="artifact", name=name, before="0" * 64, after="1" * 64)
                for name in names
            ),
        }
    )


def test_what_does_not_fit_is_counted() -> None:
    page = markdown(many(5000))
    assert len(page) <= LIMIT and "more (`--json` has all)" in page
    table = shown(many(5000), 400)
    assert f"… {5000 - ROWS} more (--json has all)" in table
    assert len(table.splitlines()) < 1000
    details = tuple(Detail(what=f"tensor {n}", before="a", after="b") for n in range(99))
    change = InputChange(kind="source", name="config", before="a", after="b", details=details)
    assert "… 87 more" in shown(NOTHING.model_copy(update={"inputs": (change,)}))


@given(nasty)
@settings(deadline=None)
def test_hostile_text_is_shown_as_what_it_is(text: str) -> None:
    flip = Flip(key=text, before="correct", after="wrong")
    found = NOTHING.model_copy(
        update={
            "before": text,
            "inputs": (
                InputChange(
                    kind="adapter",
                    name=text,
                    before=text,
                    after=text,
                    details=(Detail(what=text, before=text, after=text), Detail(what=text)),
                ),
            ),
            "consequences": (
                Consequence(kind="artifact", name=text, before=text, after=text, because=(text,)),
            ),
            "unexplained": (Consequence(kind="answers", name=text, before=text, after=text),),
            "cells": (
                CellComparison(cell=text, items=1, changed=1, worse=(flip,), remarks=(text,)),
                CellComparison(cell=text, reason=text or "-"),
            ),
            "hops": (HopComparison(parent=text, child=text, kind="convert", reason=text or "-"),),
            "added_cells": (text,),
        }
    )
    printed, page = shown(found), markdown(found)
    assert not BAD.search(printed) and not BAD.search(page)
    kinds = {token.type for token in PARSER.parse(page)} | set(_inline(page))
    assert not kinds & {"link_open", "image", "html_inline_x", "fence", "html_block"}, page


def _inline(page: str) -> Iterator[str]:
    for token in PARSER.parse(page):
        for child in token.children or ():
            yield (
                "html_inline_x"
                if child.type == "html_inline" and child.content != "<br>"
                else (child.type)
            )


def test_every_table_has_as_many_cells_in_each_row() -> None:
    for section in sections(EVENTFUL):
        assert all(len(row) == len(section.columns) for row in section.rows)


def test_our_own_words_are_marked_so() -> None:
    for section in sections(EVENTFUL):
        assert isinstance(section.title, Safe)


# -- the commands ---------------------------------------------------------------------------------


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two commits and a working tree, whoever reads them."""
    odd = WORLD.but(where="v2", code={"grade": "edited"})
    sides = {"v1": BASE, "v2": odd.evidence(), None: odd.but(where="here").evidence()}

    def at(name: str | None) -> Evidence:
        if name == "edited":
            raise RefusedError("edited: evidence is not what was written", remedy="restore it")
        if name not in sides:
            raise InputError(f'"{name}" is neither', remedy="git fetch")
        return sides[name]

    monkeypatch.setattr(history, "at", at)


def run(command: click.Command, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, arguments)
    return done.exit_code, done.output


@pytest.mark.usefixtures("commits")
def test_compare_prints_its_three_shapes() -> None:
    code, text = run(compare, "v1", "v2")
    assert code == 0 and text.startswith("v1 → v2\n") and "driftline code grade" in text
    code, text = run(compare, "v1", "v2", "--markdown")
    assert code == 0 and text.startswith("# `v1` → `v2`\n")
    code, text = run(compare, "v1", "v2", "--json")
    assert code == 0 and json.loads(text)["inputs"][0]["name"] == "grade"
    assert text.count("\n") == 1
    assert run(compare, "v1")[1].startswith("v1 → here\n")


@pytest.mark.usefixtures("commits")
@pytest.mark.parametrize(("name", "code"), [("unknown", 2), ("edited", 3)])
def test_compare_of_what_cannot_be_read(name: str, code: int) -> None:
    found, text = run(compare, "v1", name)
    assert found == code and "remedy:" in text and "Traceback" not in text


@pytest.mark.usefixtures("commits")
def test_same_says_so_by_its_exit_code() -> None:
    code, text = run(same, "transformers/audit/checkpoint", "v1:vllm/audit/checkpoint")
    assert code == 0 and text.startswith("the same model ") and len(text.split()[-1]) == 64
    code, text = run(same, f"v1:{Q8}", "llamacpp/base/f32")
    assert code == 1 and text.startswith("not the same model: 1 field differs\n")
    code, text = run(same, "llamacpp/base/q8", Q8)
    assert code == 2 and 'did you mean "llamacpp/base/q8_0"' in text


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a/b/c", (None, "a/b/c")), ("v1:a/b/c", ("v1", "a/b/c")), (":a/b/c", (None, "a/b/c"))],
)
def test_a_cell_may_be_of_a_revision(name: str, parts: tuple[str | None, str]) -> None:
    assert _split(name) == parts
