"""Evidence that report tests start from, and how they read a rendered page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from driftline.drift.statistics import RowSample, summarize
from driftline.gate.evaluation import outlook
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.cells import CellRecord, CellSpec
from driftline.schema.comparison import Baseline, ComparisonReport, Detail, InputChange
from driftline.schema.forced import ForcedFloor, ForcedRecord
from driftline.schema.gate import Blessing, BlessingUse, CheckKind, GateReport, GateVerdict, Verdict
from driftline.schema.hops import Cause
from driftline.schema.scores import ItemState
from driftline.schema.statistics import DistributionDrift, Estimate
from driftline.schema.weights import CounterfactualRecord, TensorChange
from driftline.store.digest import sha256_text
from tests.factories import (
    completion,
    project,
    prompts,
    record,
    report_input,
)

PROJECT = project()
SMALL = project(adapters={}, variants=["base"], evalsets={"base": ["clauses"]}, vllm=["base"])
ITEMS = prompts("clauses", "sql", "audit", "privacy", count=4)
F32, Q2, Q8 = "llamacpp/base/f32", "llamacpp/base/q2_k", "llamacpp/base/q8_0"
VLLM, ATTACHED = "vllm/base/checkpoint", "transformers/audit/attached"

HOSTILE = (
    "a | b || c \\| d",
    "```\n# heading\n```",
    "`tick `` ``` run",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "![image](http://evil.example/x.png) [link](javascript:alert(1))",
    "http://evil.example www.evil.example me@evil.example @someone #1",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "nul\x00 bell\x07 back\b delete\x7f csi\x9b",
    "\u202eright to left\u202c \u2066isolate\u2069 zero\u200bwidth \ufeff",
    "::error file=a::boo\n::set-output name=x::y\n  ::stop-commands::z",
    "##[command]boo ##vso[task.setvariable variable=x]y ##teamcity[z]",
    "line\r\nline\u2028line\u2029line\x85line\x0bline\x0c",
    "\ud800 lone surrogate",
    '"]; click a_x href "javascript:alert(1)"; end %% "` <br/> `" #quot;',
    "{{ 7 * 7 }} {% raw %} {# comment #}",
    "---\n- a\n+ b\n1. c\n> d\n    code",
    " both ends ",
    " ",
    "",
    "x" * 100_000,
    "\x1b" * 100_000,
)
nasty = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("`|\\<>[]()!#:*_~&;{}%\"'@ \n\r\t\x00\x1b\u202ex"), max_size=40),
    st.text(max_size=40),
)
BAD = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])

NEAR = Cause(component="numerics", reason="it rounds", margin=0.0213, near_tie=True)


def unescaped(shown: str) -> str:
    """What `visible` was given, read back from what it shows."""
    plain = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    return re.sub(
        r"\\(?:([\\nrt])|x(..)|u(....)|U(........))",
        lambda m: plain[m[1]] if m[1] else chr(int(m[2] or m[3] or m[4], 16)),
        shown,
    )


def tokens(text: str) -> Iterator[Token]:
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def estimate(value: float, se: float = 0.0) -> Estimate:
    return Estimate(value=value, se=se, low=value - se, high=value + se)


def distributions(kl: float, *, tail: float = 0.0) -> DistributionDrift:
    """Drift of 40 rows in two sequences: every second row has `kl` nats, the others twice that."""
    rows = 40
    return summarize(
        RowSample(
            kl=np.where(np.arange(rows) % 2, kl, 2 * kl),
            agree=np.arange(rows) > 0 if kl else np.ones(rows, dtype=np.bool_),
            parent_log_p=np.full(rows, -0.5),
            child_log_p=np.full(rows, -0.5 - kl),
            confidence=np.full(rows, 0.65),
            tail=np.full(rows, tail),
            position=np.arange(rows) % 20,
            answer=np.ones(40, dtype=bool),
            lengths=np.array([20, 20]),
            keys=np.array(["clauses/c-000", "clauses/c-001"]),
        )
    )


def with_hop(evidence: ReportInput, child: str, **changes: Any) -> ReportInput:
    """The evidence with something else found on the hop into `child`."""
    hops = tuple(
        hop.model_copy(update=changes) if hop.hop.child == child else hop
        for hop in evidence.drift.hops
    )
    return with_drift(evidence, hops=hops)


def with_drift(evidence: ReportInput, **changes: Any) -> ReportInput:
    return replace(evidence, drift=evidence.drift.model_copy(update=changes))


def with_cause(evidence: ReportInput, child: str, cause: Cause) -> ReportInput:
    """Every answer that parted on the hop into `child` did so because of `cause`."""
    items = tuple(
        item if item.same_sequence else item.model_copy(update={"cause": cause})
        for item in evidence.hops_by_child[child].items
    )
    return with_hop(evidence, child, items=items)


def forced(text: str, mean: float | None, largest: float = 0.0) -> ForcedRecord:
    return ForcedRecord(
        text=text,
        sequences=2,
        rows=40,
        width=8,
        logits_sha256=sha256_text("logits"),
        rows_sha256=sha256_text("rows"),
        floor=None if mean is None else ForcedFloor(rows=40, mean_kl=mean, max_kl=largest),
    )


def one_bad_cell(cell: str, answer_text: str = "bad") -> dict[str, Any]:
    """Answers and verdicts in which one cell got item 001 of each evalset wrong."""

    def answer(each: CellSpec, prompt: PinnedPrompt) -> Completion:
        if each.id == cell and prompt.id.endswith("001"):
            return completion(prompt, (1, 4, 2), text=answer_text)
        return completion(prompt, (1, 2, 2), text="good")

    def verdict(each: CellSpec, prompt: PinnedPrompt) -> ItemState:
        return "wrong" if each.id == cell and prompt.id.endswith("001") else "correct"

    return {"answer": answer, "verdict": verdict}


def failing(cell: str, reason: str = "head_dim=8", remedy: str = "make x") -> dict[str, CellRecord]:
    return {cell: record(cell, state="error", reason=reason, remedy=remedy)}


def section(report: str, title: str) -> str:
    return report.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def row(report: str, name: str) -> str:
    return next(line for line in report.splitlines() if line.startswith(f"| `{name}` |"))


def tensor(module: str, error: float, explained: Any = "exact", layer: int | None = 1) -> Any:
    return TensorChange(
        name=f"model.layers.{layer}.{module}.weight",
        layer=layer,
        module=module,
        stored="Q8_0",
        relative_error=error,
        explained=explained,
    )


def stored(artifact: str, *tensors: TensorChange, **changes: Any) -> CounterfactualRecord:
    facts: dict[str, Any] = {
        "artifact": artifact,
        "artifact_identity": sha256_text(artifact),
        "parent": "gguf/base/f32",
        "parent_identity": sha256_text("gguf/base/f32"),
        "trusted": True,
        "tensors": tensors,
    }
    return CounterfactualRecord(**{**facts, **changes})


def markdown_cells() -> list[CellSpec]:
    return [each.cell for each in report_input(PROJECT, ITEMS).cells]


def check(what: CheckKind, cell: str, verdict: Verdict, text: str = "", **more: Any) -> GateVerdict:
    """One check of the gate on the hop into a cell, or on a cell, that says `text`."""
    return GateVerdict(
        id=f"{what}:{cell}", check=what, verdict=verdict, cell=cell, message=text, **more
    )


def blessing(id_: str, text: str) -> Blessing:
    # It comes from a YAML file, which has no half of a surrogate pair.
    text = text.encode("utf-8", "replace").decode().strip() or "why"
    return Blessing(
        id=id_,
        fact=text,
        reason=text,
        by=text,
        accepted=date(2026, 10, 1),
        expires=date(2026, 12, 31),
    )


def gate_report(*checks: GateVerdict, verdict: Verdict = "fail", text: str = "") -> GateReport:
    """A report with these checks, and one blessing that is about nothing."""
    unused = BlessingUse(blessing=blessing("flips:gone", text), state="unused")
    return GateReport(
        verdict=verdict,
        exit_code=0 if verdict == "pass" else 1,
        judged_on=date.min,
        index_seal="",
        policy=None,
        checks=checks,
        blessings=(unused,),
        notes=(text,),
    )


def baseline(*inputs: InputChange, name: str = "v1") -> Baseline:
    """A baseline from which just these inputs differ."""
    found = ComparisonReport(
        before=name,
        after="the working tree",
        common=False,
        inputs=inputs,
        consequences=(),
        unexplained=(),
        cells=(),
        added_cells=(),
        removed_cells=(),
        same_cells=2,
        hops=(),
        same_hops=1,
    )
    return Baseline(name=name, commit="a" * 40, comparison=found)


def with_gate(evidence: ReportInput, text: str = "said") -> ReportInput:
    """The evidence held against a policy that stops it twice, and a baseline; all say `text`."""
    key = next(iter(evidence.prompts), "")
    hop: dict[str, Any] = {
        "parent": F32,
        "kind": "quantize",
        "cause": "weights",
        "keys": (key,) if key else (),
    }
    accepted = blessing(f"kl:{Q2}", text)
    report = gate_report(
        check("flips", Q2, "fail", text, look=text, evalset=text, tag=text, **hop),
        check("loss", Q8, "undecided", text, parent=F32, kind="quantize", remark=text),
        check("kl", Q2, "fail", text, blessed=accepted, **hop),
        check("cell", VLLM, "skipped", text),
        check("cell", F32, "pass", text),
        text=text,
    )
    detail = Detail(what="tensors", before=text, after="2")
    change = InputChange(kind="adapter", name="audit", before="aaa", after="bbb", details=(detail,))
    hostile = InputChange(kind="adapter", name=text, before=text, after=text)
    return replace(
        evidence,
        gate=report,
        later=outlook(report),
        baseline=baseline(change, hostile),
        old_budgets=(text,),
    )
