"""Evidence of a made-up project for the gate: everything well, but for what a test says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from driftline.evidence.lineage import Evidence
from driftline.project import graph, plan
from driftline.project.params import Params
from driftline.project.routes import ROOT_CELL
from driftline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.forced import ForcedFloor, ForcedRecord
from driftline.schema.hops import Finding, Hop
from driftline.schema.lineage import (
    EvalsetEvidence,
    HopEvidence,
    ItemDigest,
    ItemEvidence,
    LineageIndex,
)
from driftline.schema.statistics import Estimate
from driftline.schema.values import sealed
from driftline.store.digest import sha256_text
from tests.factories import asked, project
from tests.unit.lineage_trees import MemoryTree

PROJECT = project(
    adapters={"audit": {"path": "models/audit"}},
    variants=["audit"],
    evalsets={"base": ["clauses"], "audit": ["pods", "sql"]},
    gguf={"outtype": "f32", "quantizations": ["q8_0", "q4_k_m"]},
    mlx={"artifacts": ["4bit"], "recipes": {"4bit": {"bits": 4, "group_size": 64}}},
    vllm=["audit"],
)
"""One adapter in five artifacts: 8 cells, 7 hops."""
ATTACHED, MERGED = "transformers/audit/attached", "transformers/audit/checkpoint"
F32, Q8, Q4 = "llamacpp/audit/f32", "llamacpp/audit/q8_0", "llamacpp/audit/q4_k_m"
MLX, VLLM = "mlx/audit/4bit", "vllm/audit/checkpoint"
KL = {"adapter": 1.0, "merge": 1e-12, "convert": 1e-7, "quantize": 0.01, "runtime": 1e-12}
ROWS = 10
TAGS = ("oom", "pending", "crash", "multi-turn")


@dataclass(frozen=True)
class Synthetic(Evidence):
    """Evidence whose items and digests are at hand, so that nothing is parsed."""

    of_cells: Mapping[str, dict[str, ItemEvidence]] = field(default_factory=dict)
    digests: Mapping[str, dict[str, ItemDigest]] = field(default_factory=dict)

    def items(self, cell: str) -> dict[str, ItemEvidence]:
        return dict(self.of_cells[cell])

    def evalset(self, name: str) -> dict[str, ItemDigest]:
        return dict(self.digests[name])


@dataclass(frozen=True)
class Made:
    """What came of a project.

    `items` of each evalset. By cell: `scores` of items, where not 1 (None: errored); `outcomes`
    where not ok; `unstable` keys; `floors` of the forced text. By child: `near_ties`, and `hops`,
    fields of its evidence.
    """

    project: Params = PROJECT
    items: int = 40
    scores: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    unstable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floors: Mapping[str, ForcedFloor] = field(default_factory=dict)
    near_ties: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hops: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    def evidence(self) -> Synthetic:
        """As the pipeline would leave it."""
        specs = [spec for spec in plan.plan(self.project) if spec.id not in self.missing]
        of_cells = {spec.id: self._items(spec) for spec in specs}
        hops = [self._hop(hop, of_cells) for hop in graph.hops(self.project)]
        names = self.project.evalset_names
        index = LineageIndex(
            driftline="0.1.0",
            params=self.project.model_dump(mode="json"),
            code={},
            corpora={},
            evalsets=tuple(
                EvalsetEvidence(name=name, sha256=sha256_text(name), items=self.items)
                for name in names
            ),
            hops=tuple(hop for hop in hops if hop.hop.child in of_cells),
            findings=self.findings,
            drift_identity="",
            files=(),
        )
        return Synthetic(
            where="memory",
            index=sealed(index),
            artifacts={},
            cells={spec.id: self._record(spec) for spec in specs},
            tree=MemoryTree({}),
            of_cells=of_cells,
            digests={name: self._digests(name) for name in names},
        )

    def keys(self, cell: str) -> list[str]:
        spec = next(spec for spec in plan.plan(self.project) if spec.id == cell)
        return [f"{name}/{n:04}" for name in asked(self.project, spec) for n in range(self.items)]

    def _outcome(self, cell: str) -> Outcome:
        state: Any = "unstable" if self.unstable.get(cell) else "ok"
        return self.outcomes.get(cell, Outcome(state=state, reason=f"{state}"))

    def _ran(self, cell: str) -> bool:
        return self._outcome(cell).ran

    def _record(self, spec: CellSpec) -> CellRecord:
        ran = self._ran(spec.id)
        floor = NoiseFloor(
            items=self.items, different=self.unstable.get(spec.id, ()), max_logprob_difference=0.0
        )
        forced = ForcedRecord(
            text=spec.variant,
            sequences=self.items,
            rows=ROWS * self.items,
            width=64,
            logits_sha256="",
            rows_sha256="",
            floor=self.floors.get(spec.id),
        )
        return CellRecord(
            cell=spec,
            outcome=self._outcome(spec.id),
            artifact_identity="",
            adapter_identity=None,
            prompts_sha256="",
            completions_sha256=None,
            floor=floor if ran else None,
            forced=(forced,) if ran else (),
            build={},
            settings={},
        )

    def _items(self, spec: CellSpec) -> dict[str, ItemEvidence]:
        if not self._ran(spec.id):
            return {}
        told = self.scores.get(spec.id, {})
        names = [*asked(self.project, spec), *self.project.distributions.corpora]
        keys = [f"{name}/{n:04}" for name in names for n in range(self.items)]
        return {key: self._item(spec.id, key, told.get(key, 1.0)) for key in keys}

    def _item(self, cell: str, key: str, score: float | None) -> ItemEvidence:
        name = key.partition("/")[0]
        if name in self.project.distributions.corpora:
            return ItemEvidence(key=key, rows=ROWS, kl=1e-3)
        state = "errored" if score is None else {1.0: "correct", 0.0: "wrong"}.get(score, "partial")
        if name in self.unchecked:
            state, score = "unchecked", None
        return ItemEvidence.model_construct(
            key=key,
            state=state,
            score=score,
            output_sha256=None,
            text_sha256=None,
            rows=ROWS if cell != ROOT_CELL else 0,
            kl=1e-3 if cell != ROOT_CELL else None,
        )

    def _hop(self, hop: Hop, of_cells: Mapping[str, dict[str, ItemEvidence]]) -> HopEvidence:
        told = self.hops.get(hop.child, {})
        failed = [cell for cell in (hop.parent, hop.child) if not of_cells.get(cell)]
        shaky = {*self.unstable.get(hop.parent, ()), *self.unstable.get(hop.child, ())}
        before, after = (of_cells.get(cell, {}) for cell in (hop.parent, hop.child))
        both = [key for key in after if key in before and key not in shaky and not failed]
        states = {key: (before[key].state, after[key].state) for key in both}
        graded = {key: ends for key, ends in states.items() if "errored" not in ends}
        worse = _flipped(graded, from_right=True)
        better = _flipped(graded, from_right=False)
        kl = None if failed else estimate(KL[hop.kind])
        fields: dict[str, Any] = {
            "hop": hop,
            "compared": not failed,
            "reason": f"{failed[0]} has no answers" if failed else "",
            "items": len(both),
            "same_sequence": len(both) - len(worse) - len(better),
            "worse": worse,
            "better": better,
            "kl": kl,
            "kl_p99": None if failed else 5 * KL[hop.kind],
            "answers_kl": kl,
            "weights_kl": kl,
            "numerics_kl": None if failed else estimate(1e-12),
            "scores": None,
            "causes": dict.fromkeys((*worse, *better), "weights"),
            "near_ties": self.near_ties.get(hop.child, ()),
            "withheld": "",
            "summary": "",
        }
        return HopEvidence(**{**fields, **told})

    def _digests(self, name: str) -> dict[str, ItemDigest]:
        return {
            f"{n:04}": ItemDigest.model_construct(
                id=f"{n:04}", sha256="", prompt_sha256="", tags=(TAGS[n % len(TAGS)],)
            )
            for n in range(self.items)
        }


def _flipped(states: Mapping[str, tuple[Any, Any]], *, from_right: bool) -> tuple[str, ...]:
    return tuple(
        key
        for key, (old, new) in states.items()
        if (old == "correct") != (new == "correct") and (old == "correct") == from_right
    )


def estimate(value: float, reach: float = 0.1) -> Estimate:
    """With an interval of a tenth of it to both sides."""
    return Estimate(
        value=value, se=reach * value / 2, low=value * (1 - reach), high=value * (1 + reach)
    )


def lost(evalset: str, items: Iterable[int], score: float | None = 0.0) -> dict[str, float | None]:
    """Scores of some items of an evalset."""
    return {f"{evalset}/{n:04}": score for n in items}
