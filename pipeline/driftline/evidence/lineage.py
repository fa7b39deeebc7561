"""The evidence of one commit as values, read from any tree of files, and written to one; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from driftline.drift.evidence import CellEvidence
from driftline.errors import RefusedError
from driftline.project import params
from driftline.schema.answers import PinnedPrompt
from driftline.schema.artifacts import ArtifactRecord, FileDigest, TensorDigest
from driftline.schema.cells import CellRecord
from driftline.schema.hops import HopDrift
from driftline.schema.imports import ImportRecord
from driftline.schema.items import GoldenPrompt
from driftline.schema.lineage import HopEvidence, ItemDigest, ItemEvidence, LineageIndex
from driftline.schema.statistics import DistributionDrift, Estimate, SequenceDrift
from driftline.schema.values import (
    NotARecordError,
    Sealed,
    V,
    canonical,
    canonical_json,
    parse_sealed,
)
from driftline.store.digest import Difference, differences, sha256_text

INDEX = "index.json"
ARTIFACTS, CELLS, EVALSETS, ENVIRONMENTS = "artifacts", "cells", "evalsets", "environments"
RECORD, TENSORS, CELL, ITEMS = "record.json", "tensors.jsonl", "cell.json", "items.jsonl"
IMPORT = "import.json"

REMEDY = "git checkout reports/lineage   (or: dvc repro --force --single-item lineage)"

Known = ArtifactRecord | CellRecord | ImportRecord
S = TypeVar("S", bound=Sealed)


class Tree(Protocol):
    """Evidence files by path relative to `reports/lineage`, wherever they lie."""

    @property
    def where(self) -> str:
        """What to call this tree in a message: a folder or a revision."""

    def paths(self) -> tuple[str, ...]:
        """Every file, sorted."""

    def read(self, path: str) -> bytes:
        """One file's bytes."""


@dataclass(frozen=True)
class Evidence:
    """Everything `reports/lineage` of one commit says, by name; records and files as one.

    Laws: every record's seal is right, and the index lists exactly the files that are there, with
    their digests: `read` refuses anything else.
    """

    where: str
    index: LineageIndex
    artifacts: Mapping[str, ArtifactRecord]
    cells: Mapping[str, CellRecord]
    tree: Tree = field(repr=False)
    imports: Mapping[str, ImportRecord] = field(default_factory=dict)
    """By cell: those that another machine made."""

    def items(self, cell: str) -> dict[str, ItemEvidence]:
        """A cell's golden prompts and corpus windows by key, in its order."""
        items = _lines(ItemEvidence, self.tree, f"{CELLS}/{cell}/{ITEMS}")
        return {item.key: item for item in items}

    def tensors(self, artifact: str) -> tuple[TensorDigest, ...]:
        """An artifact's tensors, in the order of its files."""
        return tuple(_lines(TensorDigest, self.tree, f"{ARTIFACTS}/{artifact}/{TENSORS}"))

    def evalset(self, name: str) -> dict[str, ItemDigest]:
        """The items of an evalset by id."""
        items = _lines(ItemDigest, self.tree, f"{EVALSETS}/{name}.jsonl")
        return {item.id: item for item in items}

    def environment(self, sha256: str) -> bytes:
        """What was installed where a record with this `environment_sha256` was made, as JSON."""
        return self.tree.read(f"{ENVIRONMENTS}/{sha256}.json")

    @cached_property
    def params(self) -> dict[str, Any]:
        """The parameters of the run, in today's shape whichever version recorded them."""
        return params.upgraded(self.index.params)

    @cached_property
    def hops(self) -> dict[str, HopEvidence]:
        """By child: every cell but the root has one hop into it."""
        return {hop.hop.child: hop for hop in self.index.hops}


def read(tree: Tree) -> Evidence:
    """The evidence in `tree`, its seals and digests checked.

    Raises:
        RefusedError: there is no evidence, or it was edited; extra, missing and changed files are
            named.
    """
    evidence, faults = survey(tree)
    if faults:
        shown = "\n  ".join(fault.line for fault in faults[:20])
        raise RefusedError(
            f"{tree.where}: evidence is not what was written:\n  {shown}", remedy=REMEDY
        )
    return evidence


def survey(tree: Tree) -> tuple[Evidence, tuple[Difference, ...]]:
    """As much of the evidence in `tree` as can be read, and every file that is wrong in it.

    Raises:
        RefusedError: there is no index, or it is not one.
    """
    paths = tree.paths()
    if INDEX not in paths:
        raise RefusedError(
            f"{tree.where}: no evidence (reports/lineage/{INDEX})",
            remedy="driftline run, then commit reports/",
        )
    index, problem = _parsed(LineageIndex, tree.read(INDEX))
    if index is None:
        raise RefusedError(f"{tree.where}: {INDEX}: {problem}", remedy=REMEDY)
    faults = [Difference("edited", INDEX, problem)] if problem else []
    artifacts: dict[str, ArtifactRecord] = {}
    cells: dict[str, CellRecord] = {}
    imports: dict[str, ImportRecord] = {}
    digests = []
    for path in paths:
        if path == INDEX:
            continue
        data = tree.read(path)
        sha256 = hashlib.sha256(data).hexdigest()
        digests.append(FileDigest.model_construct(path=path, size=len(data), sha256=sha256))
        record, problem = _record_at(path, data)
        if problem:
            faults.append(Difference("edited", path, problem))
        if isinstance(record, ArtifactRecord):
            artifacts[record.name] = record
        elif isinstance(record, CellRecord):
            cells[record.cell.id] = record
        elif isinstance(record, ImportRecord):
            imports[record.cell] = record
    faults += [*differences(index.files, digests), *_foreign(imports, cells)]
    return Evidence(tree.where, index, artifacts, cells, tree, imports), tuple(faults)


def _foreign(
    imports: Mapping[str, ImportRecord], cells: Mapping[str, CellRecord]
) -> Iterator[Difference]:
    """Imports that are not of the cell whose record lies beside them."""
    for name, record in imports.items():
        seal = cells[name].seal if name in cells else "none"
        if record.cell_seal != seal:
            detail = f"of a cell {record.cell_seal[:12]}…, the record beside it is {seal[:12]}…"
            yield Difference("broken", _place(record), detail)


def _record_at(path: str, data: bytes) -> tuple[Known | None, str]:
    """The record a file is by its place, if any, and what is wrong with it."""
    record: Known | None = None
    problem = ""
    if path.startswith(f"{ARTIFACTS}/") and path.endswith(f"/{RECORD}"):
        record, problem = _parsed(ArtifactRecord, data)
    elif path.startswith(f"{CELLS}/") and path.endswith(f"/{CELL}"):
        record, problem = _parsed(CellRecord, data)
    elif path.startswith(f"{CELLS}/") and path.endswith(f"/{IMPORT}"):
        record, problem = _parsed(ImportRecord, data)
    if record is not None and _place(record) != path:
        return None, f"it belongs at {_place(record)}"
    return record, problem


def _place(record: Known) -> str:
    """Where a record belongs."""
    if isinstance(record, ArtifactRecord):
        return f"{ARTIFACTS}/{record.name}/{RECORD}"
    if isinstance(record, ImportRecord):
        return f"{CELLS}/{record.cell}/{IMPORT}"
    return f"{CELLS}/{record.cell.id}/{CELL}"


def _parsed(kind: type[S], data: bytes) -> tuple[S | None, str]:
    """A record as far as it can be read, and what is wrong with it."""
    try:
        record, seal = parse_sealed(kind, data)
    except NotARecordError as error:
        return None, str(error)
    if record.seal != seal:
        return record, f"its seal is {record.seal[:12]}…, its content has {seal[:12]}…"
    return record, ""


def _lines(kind: type[V], tree: Tree, path: str) -> Iterator[V]:
    for line in tree.read(path).splitlines():  # of bytes: text would be cut at U+2028 too
        yield kind.model_validate_json(line)


# --------------------------------------------------------------------------- what a run writes


def item_digest(item: GoldenPrompt, prompt: PinnedPrompt) -> ItemDigest:
    """Digests of one golden prompt."""
    return ItemDigest(
        id=item.id,
        sha256=sha256_text(canonical(item)),
        prompt_sha256=sha256_text(canonical_json([prompt.text, list(prompt.ids)])),
        tags=item.tags,
    )


def item_evidence(cell: CellEvidence, hop: HopDrift | None) -> tuple[ItemEvidence, ...]:
    """One cell item by item: its golden prompts in order, then the corpus windows.

    Args:
        cell: what the cell left behind.
        hop: the hop into it, None for the root.
    """
    split = hop.split if hop else None
    drift = {each.key: each for each in split.sequences} if split else {}
    texts = {
        sequence.key: sha256_text(canonical_json(list(sequence.ids)))
        for distributions in cell.distributions.values()
        for sequence in distributions.sequences
        if sequence.key in drift
    }
    keys = dict.fromkeys((*cell.scores, *drift))
    return tuple(_item(cell, key, drift.get(key), texts.get(key)) for key in keys)


def _item(
    cell: CellEvidence, key: str, drift: SequenceDrift | None, text: str | None
) -> ItemEvidence:
    score, answer = cell.scores.get(key), cell.completions.get(key)
    return ItemEvidence(
        key=key,
        state=score.state if score else None,
        score=score.score if score else None,
        output_sha256=sha256_text(canonical_json(list(answer.output_ids))) if answer else None,
        text_sha256=text,
        rows=drift.rows if drift else 0,
        kl=drift.kl_mean if drift else None,
    )


def hop_evidence(hop: HopDrift) -> HopEvidence:
    """One hop of the drift report, without its items."""
    split = hop.split
    flips = {item.key: item.cause for item in hop.items if item.flip != "none"}
    return HopEvidence(
        hop=hop.hop,
        compared=hop.compared,
        reason=hop.reason,
        items=hop.n_items,
        same_sequence=hop.n_same_sequence,
        worse=hop.worse,
        better=hop.better,
        kl=split.end_to_end.kl_mean if split else None,
        kl_p99=split.end_to_end.kl_p99 if split else None,
        answers_kl=_mean(split.answers if split else None),
        weights_kl=_mean(split.weights if split else None),
        numerics_kl=_mean(split.numerics if split else None),
        scores=hop.scores,
        causes={key: cause.component for key, cause in flips.items() if cause and cause.component},
        near_ties=tuple(key for key, cause in flips.items() if cause and cause.near_tie),
        withheld=split.withheld if split else hop.not_split,
        summary=hop.summary,
    )


def _mean(drift: DistributionDrift | None) -> Estimate | None:
    return drift.kl_mean if drift else None
