"""The error budget of a hop: what each group of stored tensors costs alone."""

from __future__ import annotations

from driftline.schema.values import Value


class GroupCost(Value):
    """One module of one layer (None outside the blocks) swapped alone: mean KL in nats."""

    layer: int | None
    module: str
    tensors: tuple[str, ...]
    kl: float


class Budget(Value):
    """Mean KL from the parent's stored weights, one group of the child's swapped in at a time.

    `control` is what swapping nothing gives (0), `whole` what swapping everything gives,
    `additivity` the sum over the groups over the whole: 1 when groups don't interact (None when
    nothing differs). `groups` are costliest first; those whose values are the parent's are left
    out. `parent_identity` and `child_identity` are those of the two artifacts: a budget is theirs,
    and says nothing about what was converted anew.
    """

    hop: str
    parent_identity: str
    child_identity: str
    positions: int
    control: float
    whole: float
    additivity: float | None
    groups: tuple[GroupCost, ...]
