"""Where a checkpoint or an adapter comes from: `source`, and each of `adapters`."""

from __future__ import annotations

import re

from pydantic import model_validator

from driftline.schema.values import Value

COMMIT = re.compile(r"[0-9a-f]{40}")


class Location(Value):
    """Where a checkpoint or adapter comes from: a local `path`, or a Hub `repo` at a `revision`."""

    path: str | None = None
    repo: str | None = None
    revision: str | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Location:
        if (self.path is None) == (self.repo is None):
            raise ValueError('needs either "path" (a local folder) or "repo" (a Hub repository)')
        if self.repo is None and self.revision is not None:
            raise ValueError('"revision" goes with "repo", not with "path"')
        if self.repo is not None and self.revision is None:
            raise ValueError('"repo" needs "revision": a 40-hex commit')
        return self
