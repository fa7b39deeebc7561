"""What links and filters of a page call hops, items, evalsets and tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from driftline.report.model import ReportInput
from driftline.report.views import evalsets
from driftline.schema.cells import CellSpec
from driftline.store.digest import sha256_text

LONGEST = 150


def anchors(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    """An element's id for each key, made of the name it goes by; different keys, different ids.

    `#hop=mlx/audit/4bit` is a link that people can read, write and keep.
    """
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for key, name in names.items():
        plain = re.sub(r"[^A-Za-z0-9._/+-]", "_", name)
        anchor = f"{prefix}={plain}"
        if len(plain) > LONGEST:
            anchor = f"{prefix}={plain[:LONGEST]}_{sha256_text(key)[:12]}"
        while anchor in taken:
            anchor = f"{anchor}_{sha256_text(key)[:12]}"
        taken.add(anchor)
        ids[key] = anchor
    return ids


@dataclass(frozen=True)
class Names:
    """Of one page. `shown` are the keys of the items that it has in full."""

    evidence: ReportInput
    shown: tuple[str, ...]

    @cached_property
    def hops(self) -> dict[str, str]:
        """A hop's id by its name: after the cell it leads to, which has no other."""
        return anchors("hop", {hop.hop.name: hop.hop.child for hop in self.evidence.drift.hops})

    @cached_property
    def places(self) -> dict[str, int]:
        """A hop's place in the plan by its name, which is what filters call it."""
        return {hop.hop.name: at for at, hop in enumerate(self.evidence.drift.hops)}

    @cached_property
    def items(self) -> dict[str, str]:
        """An item's id by its key."""
        return anchors("item", {key: key for key in self.shown})

    @cached_property
    def evalsets(self) -> dict[str, int]:
        """An evalset's number: those with scores, then others of which there are prompts."""
        prompts = (prompt.evalset for prompt in self.evidence.prompts.values())
        names = dict.fromkeys((*evalsets(self.evidence), *prompts))
        return {name: number for number, name in enumerate(names)}

    @cached_property
    def tags(self) -> dict[str, int]:
        """A tag's number, in alphabetical order."""
        names = sorted({tag for tags in self.tags_of.values() for tag in tags})
        return {tag: number for number, tag in enumerate(names)}

    @cached_property
    def tags_of(self) -> dict[str, tuple[str, ...]]:
        """An item's tags by its key."""
        return {
            key: score.tags
            for scores in self.evidence.item_scores.values()
            for key, score in scores.items()
        }

    @cached_property
    def specs(self) -> dict[str, CellSpec]:
        """A cell's specification by its id."""
        return {record.cell.id: record.cell for record in self.evidence.cells}

    def short(self, cell: str) -> str:
        """A cell's id without what is the same for neighbours: `mlx/audit/4bit` → `mlx 4bit`."""
        spec = self.specs.get(cell)
        return f"{spec.runtime} {spec.form}" if spec else cell

    def tag_numbers(self, key: str) -> str:
        """Numbers of an item's tags, for the filter."""
        return numbers(self.tags[tag] for tag in self.tags_of.get(key, ()))


def numbers(values: Iterable[int]) -> str:
    """Different numbers in order, as the value of an attribute."""
    return " ".join(map(str, sorted(set(values))))
