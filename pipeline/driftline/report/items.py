"""The answers that changed, worst first, as many as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from driftline.report.model import ReportInput
from driftline.schema.hops import Cause, HopDrift, ItemDrift

FEWER = (256, 64, 32, 16, 8, 4, 2, 1)
"""How many mere token changes are listed per hop: the first number whose list fits."""


@dataclass(frozen=True)
class Change:
    """One answer over one hop; `first_hop` is where its tokens parted, when that was earlier.

    `first_cause` is then why they parted there, if anybody can tell.
    """

    hop: HopDrift
    item: ItemDrift
    parent_text: str
    child_text: str
    first_hop: str | None
    first_cause: Cause | None


@dataclass(frozen=True)
class Changes:
    """Changes that started from the same text, in plan order."""

    before: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class ChangedItem:
    """One golden prompt whose verdict changed, with every hop that changed it."""

    key: str
    question: str
    reference: str | None
    groups: tuple[Changes, ...]

    @property
    def n_worse(self) -> int:
        """Hops over which the answer stopped being correct."""
        return sum(each.item.flip == "worse" for group in self.groups for each in group.changes)


@dataclass(frozen=True)
class TokenChanges:
    """The answers of one hop that parted while the verdict stayed."""

    hop: HopDrift
    items: tuple[ItemDrift, ...]


def changed_items(evidence: ReportInput) -> tuple[ChangedItem, ...]:
    """Items with a changed verdict: those that became worse most often first, then plan order."""
    by_key: dict[str, list[Change]] = {}
    for hop in evidence.drift.hops:
        for item in hop.items:
            if _notable(hop, item):
                by_key.setdefault(item.key, []).append(_change(evidence, hop, item))
    found = [
        ChangedItem(
            key=key,
            question=_question(evidence, key),
            reference=evidence.references.get(key),
            groups=_grouped(by_key[key]),
        )
        for key in sorted(by_key, key=_places(evidence))
    ]
    return tuple(sorted(found, key=lambda item: -item.n_worse))


def token_changes(evidence: ReportInput) -> tuple[TokenChanges, ...]:
    """Per hop, the answers whose tokens changed and whose verdict did not, in plan order."""
    found = []
    for hop in evidence.drift.hops:
        items = tuple(i for i in hop.items if not i.same_sequence and i.flip == "none")
        if items and hop.hop.kind != "adapter":
            found.append(TokenChanges(hop=hop, items=items))
    return tuple(found)


def _notable(hop: HopDrift, item: ItemDrift) -> bool:
    """An adapter is there to change answers: only what it broke is news."""
    return item.flip == "worse" or (item.flip == "better" and hop.hop.kind != "adapter")


def _change(evidence: ReportInput, hop: HopDrift, item: ItemDrift) -> Change:
    before = evidence.answer(hop.hop.parent, item.key)
    after = evidence.answer(hop.hop.child, item.key)
    entry = evidence.blame_by_item.get((hop.hop.child, item.key))
    earlier = entry if entry and entry.sequence_hop != hop.hop.name else None
    return Change(
        hop=hop,
        item=item,
        parent_text=before.text if before else "",
        child_text=after.text if after else "",
        first_hop=earlier.sequence_hop if earlier else None,
        first_cause=earlier.sequence_cause if earlier else None,
    )


def _grouped(changes: Iterable[Change]) -> tuple[Changes, ...]:
    """Most hops of an item start from the same answer, which is then shown once."""
    by_text: dict[str, list[Change]] = {}
    for change in changes:
        by_text.setdefault(change.parent_text, []).append(change)
    return tuple(Changes(before, tuple(group)) for before, group in by_text.items())


def _question(evidence: ReportInput, key: str) -> str:
    """The last message, or the raw prompt."""
    prompt = evidence.prompts.get(key)
    if prompt is None:
        return ""
    return prompt.messages[-1].content if prompt.messages else prompt.prompt or ""


def _places(evidence: ReportInput) -> Callable[[str], int]:
    places = {key: place for place, key in enumerate(evidence.prompts)}
    return lambda key: places.get(key, len(places))


# ---------------------------------------------------------------------------------- making it fit


@dataclass(frozen=True)
class Fitted:
    """What is printed of a list, and how many of its entries are not."""

    texts: tuple[str, ...]
    more: int

    @property
    def size(self) -> int:
        """Bytes of UTF-8 that it takes."""
        return sum(len(text.encode()) for text in self.texts)


def fit(texts: Iterable[str], room: int, *, total: int) -> Fitted:
    """The longest beginning of `texts` that takes at most `room` bytes of UTF-8.

    Args:
        texts: `total` texts; those that do not fit are not even asked for.
        room: bytes.
        total: how many there are.
    """
    used = 0
    shown: list[str] = []
    for text in texts:
        used += len(text.encode())
        if used > room:
            break
        shown.append(text)
    return Fitted(tuple(shown), total - len(shown))


def fit_per_hop(
    changes: Sequence[TokenChanges], room: int, show: Callable[[TokenChanges, int], str]
) -> Fitted:
    """One line per hop, each with as many answers as let all hops fit into `room` bytes.

    Args:
        changes: per hop.
        room: bytes of UTF-8.
        show: (changes, how many to list) → a line that says itself how many it leaves out.
    """
    for count in FEWER:
        lines = (show(change, count) for change in changes)
        fitted = fit(lines, room, total=len(changes))
        if fitted.more == 0:
            return fitted
    return fitted
