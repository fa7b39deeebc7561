"""What one scored cell left behind, as drift reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from driftline.schema.answers import Completion
from driftline.schema.artifacts import Census
from driftline.schema.cells import CellRecord
from driftline.schema.scores import ItemScore, ItemState
from driftline.schema.weights import CounterfactualRecord
from driftline.store.distributions import Distributions


@dataclass(frozen=True)
class StoredWeights:
    """The counterfactual cell W(B): a cell's stored weights in the reference runtime.

    `distributions` are its own, by text; none where the record says why. A cell that runs in the
    reference runtime is its own counterfactual: then `itself` is True, and `record` is what is
    known of its artifact, if anything. `none` says why there is none at all.
    """

    distributions: Mapping[str, Distributions]
    record: CounterfactualRecord | None = None
    itself: bool = False
    none: str = ""

    @property
    def withheld(self) -> str:
        """Why these weights give no split; empty when they do."""
        if self.record is not None and not self.record.trusted:
            return f"{self.record.artifact}: {self.record.reason}"
        return self.none


@dataclass(frozen=True)
class CellEvidence:
    """One cell: its record, and per golden prompt (key `evalset/id`) its answer and verdict.

    `distributions` are those it kept, by text; `weights` the counterfactual of its artifact;
    `census` what is in its artifact's weights.

    Laws: an answer of a cell that failed is never read, though some may have been kept; neither is
    one the cell did not repeat in its own noise floor.
    """

    record: CellRecord
    completions: Mapping[str, Completion]
    scores: Mapping[str, ItemScore]
    distributions: Mapping[str, Distributions] = field(default_factory=dict)
    weights: StoredWeights | None = None
    census: Census | None = None

    @property
    def id(self) -> str:
        """`runtime/variant/form`."""
        return self.record.cell.id

    @property
    def failure(self) -> str | None:
        """Why nothing of this cell can be compared, None when it can."""
        outcome = self.record.outcome
        if outcome.ran:
            return None
        return f"{self.id}: {outcome.state}: {outcome.reason or 'no reason recorded'}"

    @property
    def unstable(self) -> frozenset[str]:
        """Keys of the prompts that the cell answered differently the second time."""
        return self.record.unstable

    @property
    def answered(self) -> tuple[str, ...]:
        """Keys of the prompts that were completed, in the order of the cell; none if it failed."""
        return () if self.failure else tuple(self.completions)

    def answer(self, key: str) -> Completion | None:
        """The answer to one prompt if drift may read it: completed, and the same both times."""
        if self.failure or key in self.unstable:
            return None
        return self.completions.get(key)

    def state(self, key: str) -> ItemState:
        """The verdict on one prompt; `unchecked` when nobody gave one."""
        score = self.scores.get(key)
        return score.state if score else "unchecked"

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer, as the runtime reported them."""
        ids = self.record.settings.get("end_ids")
        listed = ids if isinstance(ids, list) else []
        return frozenset(token for token in listed if isinstance(token, int))
