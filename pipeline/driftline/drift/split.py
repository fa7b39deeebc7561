"""Drift of distributions over a hop, end to end and in its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from driftline.drift.evidence import CellEvidence
from driftline.drift.statistics import per_sequence, shared_rows, summarize
from driftline.schema.hops import Hop, Split
from driftline.schema.statistics import DistributionDrift, SequenceDrift
from driftline.store.distributions import Distributions


@dataclass(frozen=True)
class _Compared:
    whole: DistributionDrift | None
    answers: DistributionDrift | None
    sequences: tuple[SequenceDrift, ...]


@dataclass
class Comparisons:
    """Comparisons already made: a parent's numerics serve all its children."""

    _made: dict[tuple[Path, Path], _Compared] = field(default_factory=dict)

    def drift(self, parent: Distributions, child: Distributions) -> DistributionDrift | None:
        """Drift from `parent` to `child`, None when they have no sequence in common."""
        return self._compared(parent, child).whole

    def answers(self, parent: Distributions, child: Distributions) -> DistributionDrift | None:
        """The same over the rows about answers alone."""
        return self._compared(parent, child).answers

    def sequences(self, parent: Distributions, child: Distributions) -> tuple[SequenceDrift, ...]:
        """The same sequence by sequence."""
        return self._compared(parent, child).sequences

    def _compared(self, parent: Distributions, child: Distributions) -> _Compared:
        key = (parent.folder, child.folder)
        if key not in self._made:
            rows = shared_rows(parent, child)
            answers = rows.answers() if rows else None
            self._made[key] = _Compared(
                summarize(rows) if rows else None,
                summarize(answers) if answers else None,
                per_sequence(rows) if rows else (),
            )
        return self._made[key]


def text_of(hop: Hop, parent: CellEvidence, child: CellEvidence) -> str:
    """Name of the text both ends of a hop were put through: an adapter's hop takes the source's."""
    return (parent if hop.kind == "adapter" else child).record.cell.variant


def split(
    text: str, parent: CellEvidence, child: CellEvidence, made: Comparisons
) -> tuple[Split | None, str]:
    """The split of one hop, or None and why there is nothing to compare.

    Args:
        text: name of the teacher-forced text.
        parent: the cell before the hop.
        child: the cell after it.
        made: comparisons to reuse and add to.
    """
    before, after = parent.distributions.get(text), child.distributions.get(text)
    if before is None or after is None:
        return None, "; ".join(_missing(cell) for cell in (parent, child) if _lacks(cell, text))
    whole = made.drift(before, after)
    if whole is None:
        return None, "no teacher-forced sequence in common"
    withheld = "; ".join(reason for cell in (parent, child) if (reason := _withheld(cell, text)))
    if withheld or parent.weights is None or child.weights is None:
        answers = made.answers(before, after)
        withheld = withheld or "no counterfactual"
        return (
            Split(
                end_to_end=whole,
                answers=answers,
                withheld=withheld,
                sequences=made.sequences(before, after),
            ),
            "",
        )
    stored, kept = child.weights.distributions[text], parent.weights.distributions[text]
    weights, numerics = made.drift(kept, stored), made.drift(stored, after)
    rest = None
    if weights is not None and numerics is not None:
        rest = whole.kl_mean.value - weights.kl_mean.value - numerics.kl_mean.value
    return (
        Split(
            end_to_end=whole,
            answers=made.answers(before, after),
            weights=weights,
            numerics=numerics,
            parent_numerics=made.drift(kept, before),
            rest=rest,
            sequences=made.sequences(before, after),
        ),
        "",
    )


def _lacks(cell: CellEvidence, text: str) -> bool:
    return text not in cell.distributions


def _missing(cell: CellEvidence) -> str:
    why = cell.failure or cell.record.not_forced or "it kept none for this text"
    return f"{cell.id} has no distributions: {why}"


def _withheld(cell: CellEvidence, text: str) -> str:
    """Why a cell's stored weights are not known on their own; empty when they are."""
    if cell.weights is None:
        return f"{cell.id}: no counterfactual"
    if cell.weights.withheld:
        return cell.weights.withheld
    if text not in cell.weights.distributions:
        return f"{cell.id}: its counterfactual was not put through this text"
    return ""
