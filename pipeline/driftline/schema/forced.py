"""The fixed text every cell of a variant is teacher-forced through, and what is kept of it."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Value


class ForcedSequence(Value):
    """One sequence of pinned ids, fed whole from an empty context.

    Row t is the next-token distribution after `ids[: t + 1]`; its *target* is `ids[t + 1]`, and
    `target` for the last row (None where the text says nothing about what follows). Rows before
    `first_row` only give context and are not kept. `n_prompt` ids are the prompt: rows from
    `n_prompt - 1` on are about the answer (all rows of a corpus window are about text, so there it
    is the number of ids).
    """

    kind: Literal["golden", "corpus"]
    source: str
    id: str
    ids: tuple[int, ...]
    target: int | None
    n_prompt: int
    first_row: int = 0

    @property
    def key(self) -> str:
        """`evalset/id`, or `corpus/window`."""
        return f"{self.source}/{self.id}"

    @property
    def n_rows(self) -> int:
        """Rows kept of this sequence."""
        return len(self.ids) - self.first_row

    @property
    def targets(self) -> tuple[int, ...]:
        """The target of each kept row, -1 for none."""
        last = -1 if self.target is None else self.target
        return (*self.ids[self.first_row + 1 :], last)


class Corpora(Value):
    """The windows of every corpus of a project."""

    windows: tuple[ForcedSequence, ...]


class ForcedFloor(Value):
    """The forced text a second time, in reverse order, in a process of its own, against the first.

    KL divergences in nats; all zero where the runtime repeats itself to the bit.
    """

    rows: int
    mean_kl: float
    max_kl: float


class ForcedRecord(Value):
    """What one cell kept of one text: `width` logits for each of `rows`, and digests of the files.

    `text` is the variant whose reference answers it holds. `floor` is None where there was no
    second pass to compare with.
    """

    text: str
    sequences: int
    rows: int
    width: int
    logits_sha256: str
    rows_sha256: str
    floor: ForcedFloor | None

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of its files, by path in the folder of the cell or counterfactual."""
        home = f"distributions/{self.text}"
        return {f"{home}/logits.npy": self.logits_sha256, f"{home}/rows.npy": self.rows_sha256}
