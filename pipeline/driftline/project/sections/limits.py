"""What a process may use: `limits`. None of it is part of what a cell is, but for `threads`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from driftline.schema.values import Value


class Limits(Value):
    """What a cell's processes may use: threads of arithmetic, seconds and GiB of memory each.

    A cell is two processes, one per turn; `workers` says how many of them run at once.
    """

    threads: int = Field(gt=0)
    deadline_s: int = Field(default=3600, gt=0)
    memory_gib: float = Field(default=16, gt=0)
    workers: Literal[1, 2] = 2
