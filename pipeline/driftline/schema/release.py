"""Release records: the evidence of one commit, frozen under a name.

reports/releases/<name>.json      ReleaseRecord
reports/releases/<name>.md        the same for a reviewer
reports/releases/<name>/          the same for other tools: in-toto statements (attestations/),
                                  a CycloneDX BOM (bom.cdx.json), Hub cards (cards/)
reports/releases/<name>.sigstore  a signature over all of these, where somebody signed
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from driftline.schema.artifacts import Census, FileDigest, Parent, StepName
from driftline.schema.cells import NoiseFloor
from driftline.schema.gate import GateReport
from driftline.schema.hops import Finding
from driftline.schema.lineage import EvalsetEvidence, HopEvidence
from driftline.schema.statistics import Estimate
from driftline.schema.values import Sealed, Value


class ReleasedArtifact(Value):
    """One artifact: what it is, what made it, and its digests; `seal` is that of its record.

    `identity` is the dirHash of `files`, whose sizes add up to `bytes`.
    """

    name: str
    kind: str
    conversion: StepName
    identity: str
    files: tuple[FileDigest, ...]
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
    code_sha256: str
    environment_sha256: str | None
    notes: tuple[str, ...]
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

    `artifact` and `adapter` are names of artifacts, empty for no adapter. `made_at` says where an
    imported cell ran; empty for one of this project's own machine. A cell that did not run has no
    scores.
    """

    id: str
    state: str
    reason: str
    remedy: str
    artifact: str
    adapter: str
    artifact_identity: str
    adapter_identity: str | None
    runtime: str
    build: dict[str, JsonValue]
    settings: dict[str, JsonValue]
    decode: dict[str, JsonValue]
    environment_sha256: str
    made_at: str = ""
    floor: NoiseFloor | None
    scores: tuple[ReleasedScore, ...]
    kl_from_parent: Estimate | None
    seal: str


class NotChecked(Value):
    """Something the evidence says nothing about: a cell, a hop, or the split of a hop.

    `where` is a cell's id or a hop's name; `remedy` is empty where nobody knows one.
    """

    what: Literal["cell", "hop", "split"]
    where: str
    state: str
    reason: str
    remedy: str = ""


class ReleaseRecord(Sealed):
    """The evidence of `commit` under a name.

    `index_seal` seals everything under `reports/lineage/` at that commit; `dvc_lock_sha256` is the
    sha256 of its `dvc.lock`. `environments` has every environment a record names, by the sha256 of
    its file; `skipped` what was not checked. `gate` is the report on the same evidence, blessings
    judged as of the date of `commit`; None where nobody asked for one.

    Law: made twice of one commit it is the same bytes, wherever.
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
    corpora: dict[str, str | None]
    environments: dict[str, dict[str, JsonValue]]
    hops: tuple[HopEvidence, ...]
    findings: tuple[Finding, ...]
    gate: GateReport | None = None
    skipped: tuple[NotChecked, ...] = ()
