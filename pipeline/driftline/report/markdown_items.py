"""The answers that changed as Markdown shows them, still unescaped.

Its size is limited, so that it shows changed verdicts one by one, and of tokens that changed
without one a line per hop; which they are and in which order is `changes`'s to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from driftline.report.changes import (
    Change,
    ChangedItem,
    changed_items,
    changes,
    of_tokens,
    of_verdict,
    parted_before,
)
from driftline.report.model import ReportInput
from driftline.schema.hops import Blame, HopDrift, ItemDrift


@dataclass(frozen=True)
class ChangeText:
    """One change and the answer after it; `parted` is where its tokens did, if that was earlier."""

    change: Change
    after: str
    parted: Blame | None


@dataclass(frozen=True)
class SameBefore:
    """Changes that started from the same text, in plan order."""

    before: str
    changes: tuple[ChangeText, ...]


@dataclass(frozen=True)
class ItemText:
    """One golden prompt whose verdict changed, with every hop that changed it."""

    key: str
    question: str
    reference: str | None
    groups: tuple[SameBefore, ...]


@dataclass(frozen=True)
class TokenChanges:
    """The answers of one hop that parted while the verdict stayed."""

    hop: HopDrift
    items: tuple[ItemDrift, ...]


def verdict_changes(evidence: ReportInput) -> tuple[ItemText, ...]:
    """Items with a changed verdict: those that became worse most often first, then plan order."""
    items = changed_items(evidence, of_verdict(changes(evidence)))
    return tuple(_item(evidence, item) for item in items)


def token_changes(evidence: ReportInput) -> tuple[TokenChanges, ...]:
    """Per hop, the answers whose tokens changed and whose verdict did not, in plan order."""
    by_hop: dict[int, list[Change]] = {}
    for change in of_tokens(changes(evidence)):
        by_hop.setdefault(change.at, []).append(change)
    return tuple(
        TokenChanges(own[0].hop, tuple(change.item for change in own)) for own in by_hop.values()
    )


def _item(evidence: ReportInput, item: ChangedItem) -> ItemText:
    return ItemText(
        key=item.key,
        question=evidence.question(item.key),
        reference=evidence.references.get(item.key),
        groups=_grouped(evidence, item.changes),
    )


def _grouped(evidence: ReportInput, every: Iterable[Change]) -> tuple[SameBefore, ...]:
    """Most hops of an item start from the same answer, which is then shown once."""
    by_text: dict[str, list[ChangeText]] = {}
    for change in every:
        hop, key = change.hop.hop, change.item.key
        before, after = evidence.answer(hop.parent, key), evidence.answer(hop.child, key)
        made = ChangeText(change, after.text if after else "", parted_before(evidence, change))
        by_text.setdefault(before.text if before else "", []).append(made)
    return tuple(SameBefore(before, tuple(group)) for before, group in by_text.items())
