"""The graph of cells: which two are one step apart, and what that step is; pure."""

from __future__ import annotations

from driftline.project.params import ROOT_CELL, Params
from driftline.project.plan import plan
from driftline.schema.hops import Hop


def hops(params: Params) -> tuple[Hop, ...]:
    """The edges between cells, in the order of `plan`: every cell but the root has one parent."""
    found = []
    for spec in plan(params):
        checkpoint = f"transformers/{spec.variant}/checkpoint"
        if spec.id == ROOT_CELL:
            continue
        if spec.form == "attached":
            found.append(Hop(parent=ROOT_CELL, child=spec.id, kind="adapter"))
        elif spec.runtime == "transformers":
            parent = f"transformers/{spec.variant}/attached"
            found.append(Hop(parent=parent, child=spec.id, kind="merge"))
        elif spec.runtime == "vllm":
            found.append(Hop(parent=checkpoint, child=spec.id, kind="runtime"))
        elif spec.runtime == "llamacpp" and spec.form != params.gguf.outtype:
            parent = f"llamacpp/{spec.variant}/{params.gguf.outtype}"
            found.append(Hop(parent=parent, child=spec.id, kind="quantize"))
        else:
            found.append(Hop(parent=checkpoint, child=spec.id, kind="convert"))
    return tuple(found)
