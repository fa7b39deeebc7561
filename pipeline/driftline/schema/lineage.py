"""`reports/lineage/`: the evidence of one commit, in git, that audits and comparisons read.

index.json                          LineageIndex: sealed, with a digest of every other file
artifacts/<artifact>/record.json    ArtifactRecord
artifacts/<artifact>/tensors.jsonl  TensorDigest, one a line
cells/<cell>/cell.json              CellRecord
cells/<cell>/items.jsonl            ItemEvidence, one a line
cells/<cell>/import.json            ImportRecord, of a cell that another machine made
evalsets/<name>.jsonl               ItemDigest, one a line
environments/<sha256>.json          what was installed where a record was made
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from driftline.schema.artifacts import FileDigest
from driftline.schema.hops import Component, Finding, Hop
from driftline.schema.scores import ItemState
from driftline.schema.statistics import Estimate, PairedScores
from driftline.schema.values import Sealed, Value


class ItemDigest(Value):
    """One golden prompt: the sha256 of all of it, and of its pinned text and ids."""

    id: str
    sha256: str
    prompt_sha256: str
    tags: tuple[str, ...] = ()


class ItemEvidence(Value):
    """One golden prompt (or corpus window) in one cell: `key` is `evalset/id`.

    `output_sha256` is over the answer's token ids; `text_sha256` over the ids of the teacher-forced
    sequence, `kl` the mean KL divergence in nats of its `rows` from the cell one hop before. What
    a cell does not have is None.
    """

    key: str
    state: ItemState | None = None
    score: float | None = None
    output_sha256: str | None = None
    text_sha256: str | None = None
    rows: int = 0
    kl: float | None = None


class HopEvidence(Value):
    """One hop as the drift report has it, without what `ItemEvidence` says item by item.

    `kl`, `answers_kl`, `weights_kl`, `numerics_kl` are mean KL divergences in nats: end to end, on
    answers alone, and of the parts; `kl_p99` is the 99th percentile end to end. Of the flips
    `causes` has the component where it is known, `near_ties` those that rounding can decide.
    """

    hop: Hop
    compared: bool
    reason: str
    items: int
    same_sequence: int
    worse: tuple[str, ...]
    better: tuple[str, ...]
    kl: Estimate | None
    kl_p99: float | None = None
    answers_kl: Estimate | None
    weights_kl: Estimate | None
    numerics_kl: Estimate | None
    scores: PairedScores | None
    causes: dict[str, Component] = Field(default_factory=dict)
    near_ties: tuple[str, ...] = ()
    withheld: str
    summary: str


class EvalsetEvidence(Value):
    """One evalset: the sha256 of its file under `reports/lineage/evalsets/`, and its items."""

    name: str
    sha256: str
    items: int


class LineageIndex(Sealed):
    """What one run of the pipeline was given and found; `files` has every other evidence file.

    `params` is params.yaml as read; `code` the sha256 of each stage's code listing; `corpora` the
    sha256 of each plain text (None: not there); `drift_identity` that of the drift report's folder.

    Law: with `files` the index seals all evidence of a commit.
    """

    schema_version: Literal[1] = 1
    driftline: str
    params: dict[str, JsonValue]
    code: dict[str, str]
    corpora: dict[str, str | None]
    evalsets: tuple[EvalsetEvidence, ...]
    hops: tuple[HopEvidence, ...]
    findings: tuple[Finding, ...]
    drift_identity: str
    files: tuple[FileDigest, ...]
