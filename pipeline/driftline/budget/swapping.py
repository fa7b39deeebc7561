"""An error budget: which stored tensors of an artifact cost how much, one group at a time.

A group is one module of one layer (`layers.3 mlp.up_proj`), or a tensor outside the blocks. Each in
turn takes the child's stored values inside the parent's model, in the reference runtime, and the
text is teacher-forced again: KL(parent || parent with that group swapped). Swapping nothing is the
zero control: forced anew, the parent must be exactly what its counterfactual kept. Swapping
everything is the whole that the sum over the groups is held against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.counterfactual import reference
from driftline.counterfactual.tensors import place
from driftline.runtimes.transformers import force_model
from driftline.schema.budget import Budget, GroupCost
from driftline.schema.forced import ForcedSequence
from driftline.store.distributions import Chunk, Distributions, divergence, gather, reduce

Arrays = Mapping[str, NDArray[np.float32]]
Group = tuple[int | None, str]
Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ForcedText:
    """What is teacher-forced: the parent's kept distributions, on the text's partition.

    `partition` is the text's `ids.npy`, `starts` the first row of each sequence in it, by key.
    """

    parent: Distributions
    partition: Path
    starts: Mapping[str, int]
    sequences: tuple[ForcedSequence, ...]


@dataclass(frozen=True)
class Subject:
    """What a budget is of: a hop by name, and the identities of the artifacts at its ends."""

    hop: str
    parent_identity: str
    child_identity: str


def budget(subject: Subject, parent: Any, child: Arrays, text: ForcedText, say: Say) -> Budget:
    """What each group of the child's tensors costs in the parent's model.

    Args:
        subject: for the record.
        parent: the parent's stored weights as a model of the reference runtime; left as it was.
        child: the child's stored weights by the same names, float32.
        text: what to teacher-force.
        say: told what is being swapped, how many are done, and how many there are.
    """
    own = {name: values.copy() for name, values in reference.arrays(parent).items()}
    groups = _groups(own, child)

    def swapped(names: Sequence[str]) -> float:
        _store(parent, {name: child[name] for name in names})
        kl = _mean_kl(parent, text)
        _store(parent, {name: own[name] for name in names})
        return kl

    control = swapped([])
    costs = []
    for number, ((layer, module), names) in enumerate(groups.items()):
        say(module if layer is None else f"layer {layer} {module}", number, len(groups))
        costs.append(GroupCost(layer=layer, module=module, tensors=tuple(names), kl=swapped(names)))
    whole = swapped([name for names in groups.values() for name in names])
    return Budget(
        hop=subject.hop,
        parent_identity=subject.parent_identity,
        child_identity=subject.child_identity,
        positions=sum(sequence.n_rows for sequence in text.sequences),
        control=control,
        whole=whole,
        additivity=sum(cost.kl for cost in costs) / whole if whole else None,
        groups=tuple(sorted(costs, key=lambda cost: -cost.kl)),
    )


def _groups(own: Arrays, child: Arrays) -> dict[Group, list[str]]:
    """Names of the tensors that differ, by group; a tied head goes with its embedding."""
    groups: dict[Group, list[str]] = {}
    for name, values in own.items():
        other = child.get(name)
        if other is not None and not np.array_equal(values, other):
            groups.setdefault(place(name), []).append(name)
    return groups


def _store(model: Any, tensors: Arrays) -> None:
    import torch

    known = model.state_dict()
    with torch.no_grad():
        for name, values in tensors.items():
            known[name].copy_(torch.from_numpy(np.array(values)))


def _mean_kl(model: Any, text: ForcedText) -> float:
    """Mean KL in nats of a model from the parent's kept distributions, sequence by sequence."""
    total, rows = 0.0, 0
    partition = np.load(text.partition, mmap_mode="r")
    for sequence in text.sequences:
        before, start, given = text.parent.read(sequence.key), text.starts[sequence.key], 0
        for logits in force_model(model, sequence.ids, sequence.first_row):
            end = given + len(logits)
            ids = np.array(partition[start + given : start + end])
            parent = Chunk(before.logits[given:end], before.rows[given:end])
            child = Chunk(gather(logits, ids), reduce(logits, ids, sequence.targets[given:end]))
            total += float(divergence(parent, child).sum())
            given = end
        rows += given
    return total / rows if rows else 0.0
