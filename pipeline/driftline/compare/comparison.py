"""Two commits of evidence against each other: inputs, what they explain, cells and hops; pure.

A figure is given only for what can be compared. Two cells can when both ran, were asked the same
golden prompts, decoded by the same settings and report the same settings in force; what a runtime
reads from the artifact itself (end tokens, a quantization's group size) may differ with the
artifact. Two hops can when both were measured on the same partition of the vocabulary, and there
only over teacher-forced sequences of the same token ids.

Laws: evidence compared with itself differs in nothing; only files whose digest differs are read;
time is linear in cells and artifacts, beside what was scored again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from driftline.compare.hop import corrected, hop_comparison, width
from driftline.compare.inputs import Inputs
from driftline.drift.hops import NO_VERDICT, flip
from driftline.drift.statistics import holm, paired_scores
from driftline.evidence.lineage import CELLS, ITEMS, Evidence
from driftline.project.routes import ROOT_CELL
from driftline.schema.cells import CellRecord
from driftline.schema.comparison import (
    CellComparison,
    ComparisonReport,
    Consequence,
    Flip,
    HopComparison,
)
from driftline.schema.lineage import HopEvidence, ItemDigest, ItemEvidence
from driftline.schema.statistics import PairedScores
from driftline.schema.values import canonical_json

OF_ARTIFACT = frozenset(
    (
        "add_bos",
        "chat_format",
        "chat_template",
        "end_ids",
        "n_ctx_train",
        "quantization",
        "tokenizer",
        "weights_dtype",
    )
)
"""Settings that a runtime reads from the artifact: with another artifact they are part of what is
compared, with the same one they must agree."""


def compare(before: Evidence, after: Evidence, *, common: bool = False) -> ComparisonReport:
    """Everything that differs.

    Args:
        before: evidence of one commit.
        after: of another.
        common: compare cells on the items that are the same on both sides where their evalsets are
            not; without it such cells are not compared.
    """
    inputs = Inputs(before, after)
    cells = _Cells(before, after, common)
    compared = tuple(cells.compared())
    hops = tuple(cells.hops())
    caused = inputs.consequences
    return ComparisonReport(
        before=before.where,
        after=after.where,
        common=common,
        inputs=inputs.changes,
        consequences=tuple(each for each in caused if _explained(each)),
        unexplained=(*(each for each in caused if not _explained(each)), *cells.unexplained),
        cells=_corrected_cells(compared),
        added_cells=tuple(sorted(after.cells.keys() - before.cells.keys())),
        removed_cells=tuple(sorted(before.cells.keys() - after.cells.keys())),
        same_cells=len(before.cells.keys() & after.cells.keys()) - len(compared),
        hops=corrected(hops),
        same_hops=len(before.hops.keys() & after.hops.keys()) - len(hops),
    )


def _explained(consequence: Consequence) -> bool:
    """What is on one side only follows from params.yaml: there is nothing to be explained."""
    return bool(consequence.because) or not (consequence.before and consequence.after)


@dataclass(frozen=True)
class _Evalset:
    """One evalset on both sides: items that are the same, that differ, and how many are one's."""

    same: frozenset[str]
    repinned: frozenset[str]
    changed: int
    extra: int
    missing: int

    @property
    def obstacle(self) -> str:
        """Why answers to it cannot be compared, whole; empty when they can."""
        counts = ((self.changed, "changed"), (self.extra, "added"), (self.missing, "removed"))
        said = ", ".join(f"{n} {what}" for n, what in counts if n)
        return f"{said}, {len(self.same)} the same" if said else ""


def _evalset(old: Mapping[str, ItemDigest], new: Mapping[str, ItemDigest]) -> _Evalset:
    both = old.keys() & new.keys()
    same = frozenset(key for key in both if old[key].sha256 == new[key].sha256)
    return _Evalset(
        same=same,
        repinned=frozenset(k for k in same if old[k].prompt_sha256 != new[k].prompt_sha256),
        changed=len(both) - len(same),
        extra=len(new) - len(both),
        missing=len(old) - len(both),
    )


@dataclass(frozen=True)
class _Asked:
    """What the cells of one variant are asked: why that is not comparable, and what is."""

    reason: str = ""
    keys: frozenset[str] | None = None
    repinned: frozenset[str] = frozenset()


class _Cells:
    """The cells and hops of two commits, pair by pair."""

    def __init__(self, before: Evidence, after: Evidence, common: bool) -> None:
        self.before, self.after, self.common = before, after, common
        self.unexplained: list[Consequence] = []
        self._asked: dict[str, _Asked] = {}
        self._digests = tuple(
            {row.path: row.sha256 for row in side.index.files} for side in (before, after)
        )

    # ---------------------------------------------------------------------------------- cells

    def compared(self) -> Iterator[CellComparison]:
        """Cells both sides have, but for those that are as they were."""
        for name in sorted(self.before.cells.keys() & self.after.cells.keys()):
            old, new = self.before.cells[name], self.after.cells[name]
            asked = self._of(name, new.cell.variant)
            reason = "; ".join(self._obstacles(old, new, asked))
            if reason:
                yield CellComparison(cell=name, reason=reason)
            elif old.seal != new.seal or not self._same_items(name):
                yield self._cell(old, new, asked)

    def _obstacles(self, old: CellRecord, new: CellRecord, asked: _Asked) -> Iterator[str]:
        failed = [
            f"{side.where}: {record.outcome.state}: {record.outcome.reason or 'no reason recorded'}"
            for side, record in ((self.before, old), (self.after, new))
            if not record.ran
        ]
        yield from failed
        if asked.reason:
            yield asked.reason
        yield from _differences("decode", old.decode, new.decode)
        if not failed and old.settings != new.settings:
            other = (old.artifact_identity, old.adapter_identity) != (
                new.artifact_identity,
                new.adapter_identity,
            )
            ignored = OF_ARTIFACT if other else frozenset()
            sides = (
                {key: value for key, value in record.settings.items() if key not in ignored}
                for record in (old, new)
            )
            yield from _differences("settings", *sides)

    def _of(self, cell: str, variant: str) -> _Asked:
        """What a cell is asked; the root has questions of its own."""
        key = "" if cell == ROOT_CELL else variant
        if key not in self._asked:
            names = [_asked_of(side.params, key) for side in (self.before, self.after)]
            self._asked[key] = self._between(*names)
        return self._asked[key]

    def _between(self, old: tuple[str, ...], new: tuple[str, ...]) -> _Asked:
        reasons = [f"not asked {name} any more" for name in old if name not in new]
        reasons += [f"not asked {name} before" for name in new if name not in old]
        keys: set[str] = set()
        repinned: set[str] = set()
        for name in (name for name in old if name in new):
            both = self._evalsets.get(name)
            if both is None:
                reasons.append(f"evalset {name} is on one side only")
                continue
            if both.obstacle:
                reasons.append(f"evalset {name}: {both.obstacle}")
            keys |= {f"{name}/{item}" for item in both.same}
            repinned |= {f"{name}/{item}" for item in both.repinned}
        if reasons and not (self.common and keys):
            none = "; no item in common" if self.common else ""
            return _Asked(reason="; ".join(reasons) + none)
        return _Asked(keys=frozenset(keys) if reasons else None, repinned=frozenset(repinned))

    @cached_property
    def _evalsets(self) -> dict[str, _Evalset]:
        """Evalsets of both sides; one that is the same is not asked item by item."""
        old = {each.name: each.sha256 for each in self.before.index.evalsets}
        new = {each.name: each.sha256 for each in self.after.index.evalsets}
        evalsets = {}
        for name in old.keys() & new.keys():
            items = self.before.evalset(name)
            other = items if old[name] == new[name] else self.after.evalset(name)
            evalsets[name] = _evalset(items, other)
        return evalsets

    def _same_items(self, cell: str) -> bool:
        path = f"{CELLS}/{cell}/{ITEMS}"
        return self._digests[0].get(path) == self._digests[1].get(path)

    def _cell(self, old: CellRecord, new: CellRecord, asked: _Asked) -> CellComparison:
        name = new.cell.id
        before = self.before.items(name)
        after = before if self._same_items(name) else self.after.items(name)
        answers = _Answers(before, after, asked.keys, old.unstable | new.unstable)
        if answers.changed and _same_inputs(old, new) and "unstable" not in _states(old, new):
            self.unexplained.append(
                Consequence(
                    kind="answers",
                    name=f"{name}: {len(answers.changed)} of {len(answers.keys)} answers",
                    before=old.completions_sha256 or "",
                    after=new.completions_sha256 or "",
                )
            )
        return CellComparison(
            cell=name,
            remarks=tuple(answers.remarks(asked)),
            items=len(answers.keys),
            changed=len(answers.changed),
            worse=answers.flips("worse"),
            better=answers.flips("better"),
            scores=answers.scores,
        )

    # ----------------------------------------------------------------------------------- hops

    def hops(self) -> Iterator[HopComparison]:
        """Hops both sides have, but for those that drift exactly as they did."""
        for child in sorted(self.before.hops.keys() & self.after.hops.keys()):
            old, new = self.before.hops[child], self.after.hops[child]
            hop = HopComparison(parent=new.hop.parent, child=child, kind=new.hop.kind)
            reason = "; ".join(self._hop_obstacles(old, new))
            if reason:
                yield hop.model_copy(update={"reason": reason})
            elif not self._same_items(child):
                yield hop_comparison(hop, self.before.items(child), self.after.items(child))

    def _hop_obstacles(self, old: HopEvidence, new: HopEvidence) -> Iterator[str]:
        for side, hop in ((self.before, old), (self.after, new)):
            if hop.kl is None:
                why = hop.reason or hop.withheld or "no distributions"
                yield f"{side.where}: not measured: {why}"
        if old.hop.parent != new.hop.parent:
            yield f"starts from another cell: {old.hop.parent} → {new.hop.parent}"
        widths = width(self.before, old.hop), width(self.after, new.hop)
        if None not in widths and widths[0] != widths[1]:
            yield f"another partition: {widths[0]} → {widths[1]} logits kept a position"


def _asked_of(params: Mapping[str, Any], variant: str) -> tuple[str, ...]:
    """Evalsets a variant is asked; all of the project for the root, whose variant is empty here."""
    asked: Mapping[str, list[str]] = params.get("evalsets") or {}
    if variant:
        return tuple(asked.get(variant, ()))
    return tuple(dict.fromkeys(name for names in asked.values() for name in names))


def _differences(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """`decode max_new_tokens 64 → 32`, for each key that differs."""
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield f"{what} {key} {canonical_json(old.get(key))} → {canonical_json(new.get(key))}"


def _states(*cells: CellRecord) -> tuple[str, ...]:
    return tuple(cell.outcome.state for cell in cells)


def _same_inputs(old: CellRecord, new: CellRecord) -> bool:
    """Whether two comparable records of a cell name the same bytes and software for its answers."""
    return all(
        getattr(old, field) == getattr(new, field)
        for field in (
            "artifact_identity",
            "adapter_identity",
            "prompts_sha256",
            "code_sha256",
            "environment_sha256",
        )
    )


class _Answers:
    """One cell's golden prompts on both sides, those that may be compared.

    `allowed` restricts them (None: all), `unstable` are left out: a cell that does not repeat an
    answer says nothing about a change of it.
    """

    def __init__(
        self,
        before: Mapping[str, ItemEvidence],
        after: Mapping[str, ItemEvidence],
        allowed: frozenset[str] | None,
        unstable: frozenset[str],
    ) -> None:
        self.before, self.after = before, after
        both = [key for key, item in before.items() if item.state and _stated(after.get(key))]
        asked = [key for key in both if allowed is None or key in allowed]
        self.unstable = sum(key in unstable for key in asked)
        self.keys = [key for key in asked if key not in unstable]
        self.changed = [k for k in self.keys if before[k].output_sha256 != after[k].output_sha256]
        self.unjudged = sum(
            before[key].state in NO_VERDICT or after[key].state in NO_VERDICT for key in self.keys
        )

    def flips(self, which: str) -> tuple[Flip, ...]:
        """Items whose verdict went that way, sorted by key."""
        flips = []
        for key in sorted(self.keys):
            old, new = self.before[key].state, self.after[key].state
            if old and new and flip(old, new) == which:
                flips.append(Flip(key=key, before=old, after=new))
        return tuple(flips)

    @property
    def scores(self) -> PairedScores | None:
        """Scores of the items that have one on both sides; None when none has."""
        pairs = [
            (old, new)
            for key in self.keys
            if (old := self.before[key].score) is not None
            and (new := self.after[key].score) is not None
        ]
        if not pairs:
            return None
        return paired_scores(
            [old for old, _ in pairs],
            [new for _, new in pairs],
            worse=len(self.flips("worse")),
            better=len(self.flips("better")),
        )

    def remarks(self, asked: _Asked) -> Iterator[str]:
        """What to know of the figures."""
        if asked.keys is not None:
            yield f"on the {_count(len(asked.keys))} both have unchanged"
        repinned = sum(key in asked.repinned for key in self.keys)
        if repinned:
            yield f"{_count(repinned)} rendered or tokenized to other prompts"
        if self.unstable:
            yield f"{_count(self.unstable)} left out as unstable"
        if self.unjudged:
            yield f"{_count(self.unjudged)} without a verdict"


def _stated(item: ItemEvidence | None) -> bool:
    return item is not None and item.state is not None


def _count(items: int) -> str:
    return f"{items} item" if items == 1 else f"{items} items"


def _corrected_cells(cells: tuple[CellComparison, ...]) -> tuple[CellComparison, ...]:
    """With p values corrected for every cell that has one."""
    tested = [cell for cell in cells if cell.scores is not None]
    corrected = iter(holm([cell.scores.mcnemar_p for cell in tested if cell.scores is not None]))
    return tuple(
        cell
        if cell.scores is None
        else cell.model_copy(
            update={"scores": cell.scores.model_copy(update={"holm_p": next(corrected)})}
        )
        for cell in cells
    )
