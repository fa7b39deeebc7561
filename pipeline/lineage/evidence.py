"""The evidence of one commit as values, read from any tree of files, and written to one; pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, TypeVar

from pydantic import ValidationError

from pipeline.digest import differences, sha256_text
from pipeline.drift.evidence import CellEvidence
from pipeline.errors import RefusedError
from pipeline.schema.answers import PinnedPrompt
from pipeline.schema.artifacts import ArtifactRecord, FileDigest, TensorDigest
from pipeline.schema.cells import CellRecord
from pipeline.schema.hops import HopDrift
from pipeline.schema.items import GoldenPrompt
from pipeline.schema.lineage import HopEvidence, ItemDigest, ItemEvidence, LineageIndex
from pipeline.schema.statistics import DistributionDrift, Estimate, SequenceDrift
from pipeline.schema.values import Sealed, V, canonical, canonical_json, seal_of

INDEX = "index.json"
ARTIFACTS, CELLS, EVALSETS, ENVIRONMENTS = "artifacts", "cells", "evalsets", "environments"
RECORD, TENSORS, CELL, ITEMS = "record.json", "tensors.jsonl", "cell.json", "items.jsonl"

REMEDY = "git checkout reports/lineage   (or: dvc repro --force --single-item lineage)"

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

    def items(self, cell: str) -> dict[str, ItemEvidence]:
        """A cell's golden prompts and corpus windows by key, in its order."""
        found = _lines(ItemEvidence, self.tree, f"{CELLS}/{cell}/{ITEMS}")
        return {item.key: item for item in found}

    def tensors(self, artifact: str) -> tuple[TensorDigest, ...]:
        """An artifact's tensors, in the order of its files."""
        return tuple(_lines(TensorDigest, self.tree, f"{ARTIFACTS}/{artifact}/{TENSORS}"))

    def evalset(self, name: str) -> dict[str, ItemDigest]:
        """The items of an evalset by id."""
        found = _lines(ItemDigest, self.tree, f"{EVALSETS}/{name}.jsonl")
        return {item.id: item for item in found}

    def environment(self, sha256: str) -> bytes:
        """What was installed where a record with this `environment_sha256` was made, as JSON."""
        return self.tree.read(f"{ENVIRONMENTS}/{sha256}.json")

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
    found, faults = survey(tree)
    if faults:
        shown = "\n  ".join(fault.line for fault in faults[:20])
        raise RefusedError(
            f"{tree.where}: evidence is not what was written:\n  {shown}", remedy=REMEDY
        )
    return found


@dataclass(frozen=True)
class Fault:
    """One evidence file that is not what it should be; `what` is extra, missing, changed, edited.

    `path` is relative to `reports/lineage`.
    """

    what: str
    path: str
    detail: str = ""

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.what:8} {self.path}{self.detail}"


def survey(tree: Tree) -> tuple[Evidence, tuple[Fault, ...]]:
    """As much of the evidence in `tree` as can be read, and everything that is wrong with it.

    Raises:
        RefusedError: there is no index, or it is not one.
    """
    paths = tree.paths()
    if INDEX not in paths:
        raise RefusedError(
            f"{tree.where}: no evidence (reports/lineage/{INDEX})",
            remedy="driftline run, then commit reports/",
        )
    index, problem = _record(LineageIndex, tree, INDEX)
    if index is None:
        raise RefusedError(f"{tree.where}: {INDEX}: {problem}", remedy=REMEDY)
    faults = [Fault("edited", INDEX, f": {problem}")] if problem else []
    changes = differences(index.files, _digests(tree, paths))
    faults += [Fault(each.what, each.path, each.detail) for each in changes]
    artifacts = list(_records(ArtifactRecord, tree, f"{ARTIFACTS}/", f"/{RECORD}", faults))
    cells = list(_records(CellRecord, tree, f"{CELLS}/", f"/{CELL}", faults))
    found = Evidence(
        where=tree.where,
        index=index,
        artifacts={record.name: record for record in artifacts},
        cells={record.cell.id: record for record in cells},
        tree=tree,
    )
    return found, tuple(faults)


def _records(kind: type[S], tree: Tree, start: str, end: str, faults: list[Fault]) -> Iterator[S]:
    for path in tree.paths():
        if path.startswith(start) and path.endswith(end):
            record, problem = _record(kind, tree, path)
            if problem:
                faults.append(Fault("edited", path, f": {problem}"))
            if record is not None:
                yield record


def _record(kind: type[S], tree: Tree, path: str) -> tuple[S | None, str]:
    """A record as far as it can be read, and what is wrong with it."""
    try:
        found = kind.model_validate_json(tree.read(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        return None, f"not a record of this version ({where}: {problem['msg']})"
    seal = seal_of(found)
    if found.seal != seal:
        return found, f"its seal is {found.seal[:12]}…, its content has {seal[:12]}…"
    return found, ""


def _digests(tree: Tree, paths: tuple[str, ...]) -> Iterator[FileDigest]:
    for path in paths:
        if path != INDEX:
            data = tree.read(path)
            yield FileDigest(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _lines(kind: type[V], tree: Tree, path: str) -> Iterator[V]:
    for line in tree.read(path).decode("utf-8").splitlines():
        yield kind.model_validate_json(line)


# --------------------------------------------------------------------------- what a run writes


def item_digest(item: GoldenPrompt, prompt: PinnedPrompt) -> ItemDigest:
    """Digests of one golden prompt."""
    return ItemDigest(
        id=item.id,
        sha256=sha256_text(canonical(item)),
        prompt_sha256=sha256_text(canonical_json([prompt.text, list(prompt.ids)])),
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
        for found in cell.distributions.values()
        for sequence in found.sequences
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
    return HopEvidence(
        hop=hop.hop,
        compared=hop.compared,
        reason=hop.reason,
        items=hop.n_items,
        same_sequence=hop.n_same_sequence,
        worse=hop.worse,
        better=hop.better,
        kl=split.end_to_end.kl_mean if split else None,
        answers_kl=_mean(split.answers if split else None),
        weights_kl=_mean(split.weights if split else None),
        numerics_kl=_mean(split.numerics if split else None),
        scores=hop.scores,
        withheld=split.withheld if split else hop.not_split,
        summary=hop.summary,
    )


def _mean(drift: DistributionDrift | None) -> Estimate | None:
    return drift.kl_mean if drift else None
