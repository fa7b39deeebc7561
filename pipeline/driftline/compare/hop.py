"""One hop then and now: mean KL over the teacher-forced sequences of the same token ids; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from driftline.drift.statistics import holm, paired_means, wilcoxon
from driftline.evidence.lineage import Evidence
from driftline.schema.comparison import HopComparison, Verdict
from driftline.schema.hops import Hop
from driftline.schema.lineage import ItemEvidence
from driftline.schema.statistics import Estimate

FEWEST = 6
"""Sequences from which a verdict on a hop is given: the fewest of which the signed-rank test can
say anything at 5 %."""


def width(side: Evidence, hop: Hop) -> int | None:
    """Logits kept a position where a hop was measured; None where nothing was."""
    parent, child = side.cells.get(hop.parent), side.cells.get(hop.child)
    if parent is None or child is None:
        return None
    text = (parent if hop.kind == "adapter" else child).cell.variant
    return next((each.width for each in child.forced if each.text == text), None)


@dataclass(frozen=True)
class _Paired:
    """The sequences of a hop that have the same ids on both sides: mean KL and rows of each."""

    before: tuple[float, ...]
    after: tuple[float, ...]
    rows: tuple[int, ...]


def _paired(before: Mapping[str, ItemEvidence], after: Mapping[str, ItemEvidence]) -> _Paired:
    pairs = [
        (old.kl, new.kl, old.rows)
        for key, old in before.items()
        if (new := after.get(key)) is not None
        and old.kl is not None
        and new.kl is not None
        and old.text_sha256 is not None
        and (old.text_sha256, old.rows) == (new.text_sha256, new.rows)
        and old.rows
    ]
    return _Paired(*(tuple(column) for column in zip(*pairs, strict=True))) if pairs else _NONE


_NONE = _Paired((), (), ())


def hop_comparison(
    hop: HopComparison, before: Mapping[str, ItemEvidence], after: Mapping[str, ItemEvidence]
) -> HopComparison:
    """A hop with its drift then and now, over sequences of the same ids.

    Args:
        hop: that of both sides, without figures.
        before: what was measured of each sequence then.
        after: what is now.
    """
    paired = _paired(before, after)
    counts = {
        "sequences": len(paired.rows),
        "sequences_before": _measured(before.values()),
        "sequences_after": _measured(after.values()),
        "rows": sum(paired.rows),
    }
    if not paired.rows:
        return hop.model_copy(
            update={**counts, "reason": "no teacher-forced sequence has the same ids on both sides"}
        )
    difference = paired_means(paired.before, paired.after, paired.rows)
    return hop.model_copy(
        update={
            **counts,
            "before": _weighted(paired.before, paired.rows),
            "after": _weighted(paired.after, paired.rows),
            "difference": difference,
            "wilcoxon_p": wilcoxon(paired.before, paired.after),
            "verdict": _verdict(difference, len(paired.rows)),
        }
    )


def _measured(items: Iterable[ItemEvidence]) -> int:
    return sum(item.kl is not None for item in items)


def _weighted(means: tuple[float, ...], rows: tuple[int, ...]) -> float:
    return sum(mean * n for mean, n in zip(means, rows, strict=True)) / sum(rows)


def _verdict(difference: Estimate, sequences: int) -> Verdict:
    if difference.value == difference.low == difference.high == 0:
        return "same"
    if sequences < FEWEST:
        return "unknown"
    if difference.low <= 0 <= difference.high:
        return "same"
    return "more" if difference.value > 0 else "less"


def corrected(hops: tuple[HopComparison, ...]) -> tuple[HopComparison, ...]:
    """With p values corrected for every hop that has one."""
    tested = [hop.wilcoxon_p for hop in hops if hop.wilcoxon_p is not None]
    corrected = iter(holm(tested))
    return tuple(
        hop if hop.wilcoxon_p is None else hop.model_copy(update={"holm_p": next(corrected)})
        for hop in hops
    )
