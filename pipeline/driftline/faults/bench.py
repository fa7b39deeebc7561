"""Plant one fault at a time, and see whether drift blames exactly that hop and component."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from driftline.counterfactual.control import small_checkpoint
from driftline.faults.catalogue import Fault
from driftline.faults.recipe import Recipe
from driftline.faults.runs import Chain, Run
from driftline.golden import evalset
from driftline.project.sections.mlx import MlxRecipe
from driftline.schema.hops import Blame, Component
from driftline.schema.items import GoldenPrompt
from driftline.schema.messages import Message

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """What became of one fault: the hop and components that were blamed, and those that should.

    `blamed` are (hop, component) pairs, `codes` those of the findings, `items` how many answers
    were blamed on that hop for the first time, `elsewhere` on another hop or component.
    """

    name: str
    expected: tuple[str, Component | None]
    blamed: tuple[tuple[str, Component], ...]
    codes: tuple[str, ...]
    items: int
    elsewhere: int

    @property
    def right(self) -> bool:
        """Whether exactly the planted hop and component are blamed."""
        if self.expected[1] is None:
            return not self.blamed and "split-withheld" in self.codes
        return self.blamed == (self.expected,) and not self.elsewhere


@dataclass(frozen=True)
class Clean:
    """A pipeline with no fault, and what was blamed in it all the same."""

    name: str
    codes: tuple[str, ...]


def items(names: Sequence[str], each: int) -> tuple[GoldenPrompt, ...]:
    """The first golden prompts of some evalsets, and one chat of two turns."""
    loaded = evalset.load([evalset.path_of(name) for name in names])
    chosen = [item for name in names for item in [i for i in loaded if i.evalset == name][:each]]
    turns = ("How many invoices from Oslo since 2021?", "SELECT 1;", "And from Paris since 2019?")
    roles = ("user", "assistant", "user")
    chat = GoldenPrompt(
        evalset=names[0],
        id="two-turns",
        messages=tuple(
            Message.model_validate({"role": role, "content": turn})
            for role, turn in zip(roles, turns, strict=True)
        ),
    )
    return (*chosen, chat)


def recipes(models: Path) -> dict[str, Recipe]:
    """The pipelines faults are planted in."""
    base = Recipe(models / "clerk", items(("sql", "clauses", "pods"), 2))
    return {
        "base": base,
        "tuned": Recipe(
            models / "clerk",
            items(("audit",), 4),
            adapter=models / "adapters" / "audit",
            max_new_tokens=96,
        ),
        "stopped": Recipe(models / "clerk", items(("sql",), 3), stop=(" FROM",)),
    }


class Bench:
    """Healthy pipelines, made when the first fault is planted in them."""

    def __init__(self, models: Path, work: Path, say: Say) -> None:
        """Nothing is run yet.

        Args:
            models: folder of the embedded checkpoint and adapters.
            work: folder for everything made.
            say: told what is going on.
        """
        self._recipes, self._work, self._say = recipes(models), work, say
        self._chains: dict[str, Chain] = {}

    def chain(self, name: str) -> Chain:
        """The healthy pipeline of that name."""
        if name not in self._chains:
            self._say(f"healthy pipeline: {name}")
            home = self._work / name
            home.mkdir(parents=True)
            self._chains[name] = Chain(self._recipes[name], home)
        return self._chains[name]

    def plant(self, fault: Fault) -> Verdict:
        """Run the pipeline with the fault in it."""
        chain = self.chain(fault.chain)
        self._say(f"planted: {fault.name}")
        return _verdict(fault, chain.run(fault.tampering, f"fault {fault.name}"), chain)


def _verdict(fault: Fault, run: Run, chain: Chain) -> Verdict:
    hop, report = chain.hops[fault.tampering.at].name, run.report
    blamed = dict.fromkeys(
        (finding.where, finding.component)
        for finding in report.findings
        if finding.component is not None
    )
    before = {(each.cell, each.item): each.sequence_hop for each in chain.healthy.report.blame}
    fresh = [
        each
        for each in report.blame
        if each.sequence_hop is not None and before.get((each.cell, each.item)) != each.sequence_hop
    ]
    here = [
        each
        for each in fresh
        if each.sequence_hop == hop and _component(each) in (fault.component, None)
    ]
    return Verdict(
        name=fault.name,
        expected=(hop, fault.component),
        blamed=tuple((where, kind) for where, kind in blamed if kind is not None),
        codes=tuple(dict.fromkeys(finding.code for finding in report.findings)),
        items=len(here),
        elsewhere=len(fresh) - len(here),
    )


def _component(entry: Blame) -> Component | None:
    return entry.sequence_cause.component if entry.sequence_cause else None


def clean(name: str, models: Path, work: Path) -> Clean:
    """Run one pipeline without a fault (a name of `CLEAN`) in the existing, empty folder `work`."""
    (work / "chain").mkdir()
    chain = Chain(_clean_recipe(name, models, work), work / "chain")
    blamed = [
        finding.code
        for finding in chain.healthy.report.findings
        if finding.component is not None or finding.code == "split-withheld"
    ]
    return Clean(name, tuple(blamed))


SHAPES: dict[str, dict[str, Any]] = {
    "one head for keys": {"num_key_value_heads": 1},
    "as many heads for keys": {"num_key_value_heads": 4},
    "head not tied": {"tie_word_embeddings": False},
    "32-wide heads": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 32},
    "other epsilon": {"rms_norm_eps": 1e-6},
    "other rope base": {"rope_parameters": None, "rope_theta": 500000.0},
}
"""Random two-layer checkpoints, by what they have otherwise than clerk."""
TRAINED = (
    "clerk, f32, q4_k_m, MLX 8 bits",
    "clerk, f16, q2_k, MLX 2 bits",
    "clerk, bf16, q6_k, MLX mixed bits",
    "audit merged in bfloat16, q5_k_m",
    "privacy merged in float32, q4_0",
)
CLEAN = (*TRAINED, *(f"random, {name}" for name in SHAPES))
"""Pipelines without a fault: other weights, adapters, output types, recipes and shapes."""


def _clean_recipe(name: str, models: Path, work: Path) -> Recipe:
    clerk, asked = models / "clerk", items(("sql", "pods"), 2)
    audit, privacy = (models / "adapters" / adapter for adapter in ("audit", "privacy"))
    trained = {
        TRAINED[0]: Recipe(clerk, asked, quantization="q4_k_m", mlx=_bits(8), mlx_name="8bit"),
        TRAINED[1]: Recipe(
            clerk, asked, outtype="f16", quantization="q2_k", mlx=_bits(2), mlx_name="2bit"
        ),
        TRAINED[2]: Recipe(
            clerk,
            asked,
            outtype="bf16",
            quantization="q6_k",
            mlx=MlxRecipe(mixed="mixed_3_6"),
            mlx_name="mixed",
        ),
        TRAINED[3]: Recipe(
            clerk,
            items(("audit",), 3),
            adapter=audit,
            merge_dtype="bfloat16",
            quantization="q5_k_m",
        ),
        TRAINED[4]: Recipe(clerk, items(("privacy",), 3), adapter=privacy, quantization="q4_0"),
    }
    if name in trained:
        return trained[name]
    shape = name.removeprefix("random, ")
    seed = list(SHAPES).index(shape)
    folder = work / "checkpoint"
    folder.mkdir()
    small_checkpoint(clerk, folder, seed=seed, num_hidden_layers=2, **SHAPES[shape])
    return Recipe(
        folder,
        asked,
        outtype=("f32", "f16", "bf16")[seed % 3],
        quantization=("q8_0", "q4_k_m", "q3_k_m")[seed % 3],
        max_new_tokens=12,
    )


def _bits(bits: Literal[2, 8]) -> MlxRecipe:
    return MlxRecipe(bits=bits, group_size=64)


def table(verdicts: Sequence[Verdict]) -> dict[tuple[str, str], int]:
    """The confusion table: (expected component, blamed component) → how many faults.

    A fault blamed on another hop, or on several, counts as `elsewhere`.
    """
    counts: dict[tuple[str, str], int] = {}
    for verdict in verdicts:
        expected = verdict.expected[1] or "withheld"
        hops = {hop for hop, _ in verdict.blamed}
        kinds = sorted({kind for _, kind in verdict.blamed})
        if not verdict.blamed:
            got = "withheld" if "split-withheld" in verdict.codes else "nothing"
        elif hops == {verdict.expected[0]} and len(kinds) == 1:
            got = kinds[0]
        else:
            got = "elsewhere"
        counts[expected, got] = counts.get((expected, got), 0) + 1
    return counts
