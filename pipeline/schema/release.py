"""Release records: the evidence of one commit, frozen under a name."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from pipeline.schema.artifacts import ArtifactKind, Census, Conversion, Parent
from pipeline.schema.hops import Finding
from pipeline.schema.lineage import EvalsetEvidence, HopEvidence
from pipeline.schema.statistics import Estimate
from pipeline.schema.values import Sealed, Value


class ReleasedArtifact(Value):
    """One artifact: what it is, what made it, and its digests; `seal` is that of its record."""

    name: str
    kind: ArtifactKind
    conversion: Conversion
    identity: str
    parents: tuple[Parent, ...]
    command: str
    tool: str
    tool_version: str
    arguments: dict[str, JsonValue]
    census: Census | None
    tensors_sha256: str | None
    metadata_sha256: str | None
    tokenizer_sha256: str | None
    template_sha256: str | None
    bytes: int
    seal: str


class ReleasedScore(Value):
    """A cell's share of correct items of one evalset, with a 95 % Wilson score interval.

    `scored` of the `items` have a verdict; `mean_score` is the mean of their scores in [0, 1].
    """

    evalset: str
    items: int
    scored: int
    correct: int
    accuracy: float | None
    low: float | None
    high: float | None
    mean_score: float | None


class ReleasedCell(Value):
    """One cell: where and with what it ran, how it ended, what it scored; `seal` of its record.

    `made_at` says where an imported cell ran; empty for one of this project's own machine.
    """

    id: str
    state: str
    reason: str
    remedy: str
    artifact_identity: str
    adapter_identity: str | None
    runtime: str
    build: dict[str, JsonValue]
    settings: dict[str, JsonValue]
    decode: dict[str, JsonValue]
    environment_sha256: str
    made_at: str = ""
    scores: tuple[ReleasedScore, ...]
    kl_from_parent: Estimate | None
    seal: str


class GateVerdict(Value):
    """One verdict of the gate: what was held against which limit, and how that went."""

    rule: str
    where: str
    verdict: str
    reason: str


class ReleaseRecord(Sealed):
    """The evidence of `commit` under a name.

    `index_seal` seals everything under `reports/lineage/` at that commit; `dvc_lock_sha256` is the
    sha256 of its `dvc.lock`. Made twice of one commit it is the same bytes, wherever.
    """

    schema_version: Literal[1] = 1
    name: str
    commit: str
    driftline: str
    index_seal: str
    dvc_lock_sha256: str
    params: dict[str, JsonValue]
    artifacts: tuple[ReleasedArtifact, ...]
    cells: tuple[ReleasedCell, ...]
    evalsets: tuple[EvalsetEvidence, ...]
    environments: dict[str, dict[str, JsonValue]]
    hops: tuple[HopEvidence, ...]
    findings: tuple[Finding, ...]
    gate: tuple[GateVerdict, ...] = ()
    skipped: tuple[str, ...] = ()
