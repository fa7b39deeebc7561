"""Verdicts on answers."""

from __future__ import annotations

from typing import Literal

from driftline.schema.values import Value


class CheckResult(Value):
    """One check of one completion: `score` in [0, 1] and, below 1, why."""

    kind: str
    score: float
    weight: float
    detail: str = ""


ItemState = Literal["correct", "wrong", "partial", "unparsed", "truncated", "errored", "unchecked"]


class ItemScore(Value):
    """The verdict on one golden prompt in one cell; `score` is the weighted mean of its checks.

    `errored` items have no score, and `unchecked` items (without a check) have none either.
    """

    cell: str
    evalset: str
    item: str
    tags: tuple[str, ...]
    state: ItemState
    score: float | None
    checks: tuple[CheckResult, ...]

    @property
    def key(self) -> str:
        """`evalset/id`: unique over a project."""
        return f"{self.evalset}/{self.item}"


class EvalsetScore(Value):
    """One evalset in one cell.

    `n` items, of which `n_scored` have a score; `mean_score` is their mean and `accuracy` the share
    of them that is `correct`, both None when none has. Items that errored or have no check count in
    `n` and `states` alone.
    """

    cell: str
    evalset: str
    n: int
    n_scored: int
    mean_score: float | None
    accuracy: float | None
    states: dict[str, int]
