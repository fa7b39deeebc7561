"""What each cell was about to say where two answers part: its most likely tokens, as it kept them.

Read from the distributions that cells and counterfactuals left on disk; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from driftline.evidence import scored
from driftline.project import params, plan
from driftline.report.changes import Change, changes, selected
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion
from driftline.schema.forced import ForcedSequence
from driftline.schema.text import SourceVocabulary
from driftline.schema.values import load_lines
from driftline.store import texts
from driftline.store.distributions import IDS, SEQUENCES, Distributions

TOP = 5
"""Tokens shown per cell and place."""

Kept = Mapping[str, Mapping[str, Distributions]]
"""By cell id, then by the name of the text."""


@dataclass(frozen=True)
class Candidate:
    """One token a cell could have said next, with the log of its probability."""

    token: int
    piece: str
    log_prob: float


@dataclass(frozen=True)
class Parting:
    """Most likely tokens where two answers part, most likely first.

    Empty where a cell kept no distribution of that very context. `weights` are those of the child's
    stored weights in the reference runtime; empty too where the child is that itself.
    """

    parent: tuple[Candidate, ...] = ()
    child: tuple[Candidate, ...] = ()
    weights: tuple[Candidate, ...] = ()


Partings = Mapping[tuple[str, str], Parting]
"""By a hop's name and an item's key."""


@dataclass(frozen=True)
class Texts:
    """Distributions of cells and of their counterfactuals, and the partition of each text."""

    own: Kept
    stored: Kept
    partitions: Mapping[str, Distributions]


def read(project: params.Params, evidence: ReportInput) -> tuple[Partings, SourceVocabulary]:
    """For every answer a page shows in full; and what the source calls its tokens."""
    vocabulary = scored.vocabulary()
    return partings(evidence, vocabulary, texts_of(project, evidence)), vocabulary


def texts_of(project: params.Params, evidence: ReportInput) -> Texts:
    """What the cells that ran and their counterfactuals left on disk."""
    own: dict[str, dict[str, Distributions]] = {}
    stored: dict[str, dict[str, Distributions]] = {}
    counterfactuals = {record.artifact: record for record in evidence.counterfactuals}
    for record in (cell for cell in evidence.cells if cell.ran):
        spec, sources = record.cell, plan.sources(project, record.cell)
        own[spec.id] = texts.distributions(scored.CELLS / spec.id, record.forced, sources)
        # That of a checkpoint has none: the reference runtime runs it as a cell of its own.
        weights = counterfactuals.get(spec.artifact_name)
        if weights is not None and weights.forced:
            home = texts.counterfactual(weights.artifact)
            stored[spec.id] = texts.distributions(home, weights.forced, sources)
    names = dict.fromkeys(text for kept in own.values() for text in kept)
    return Texts(own, stored, {name: partition_of(texts.FOLDER / name) for name in names})


def partition_of(folder: Path) -> Distributions:
    """The folder of a text, as what says which rows are whose."""
    return Distributions(folder, tuple(load_lines(ForcedSequence, folder / SEQUENCES)))


def partings(
    evidence: ReportInput, vocabulary: SourceVocabulary, kept: Texts
) -> dict[tuple[str, str], Parting]:
    """The same from distributions that lie anywhere."""
    variants = {record.cell.id: record.cell.variant for record in evidence.cells}
    reader = _Reader(vocabulary.pieces, kept.partitions)
    known = {}
    for change in selected(changes(evidence)):
        hop = change.hop.hop
        text = variants.get(hop.parent if hop.kind == "adapter" else hop.child, "")
        parting = _parting(evidence, change, kept, reader, text)
        if parting != Parting():
            known[hop.name, change.item.key] = parting
    return known


def _parting(
    evidence: ReportInput, change: Change, kept: Texts, reader: _Reader, text: str
) -> Parting:
    item, hop = change.item, change.hop.hop
    if item.first_divergent is None:
        return Parting()
    place = item.first_divergent

    def top(source: Kept, cell: str) -> tuple[Candidate, ...]:
        answer, rows = evidence.answer(cell, item.key), source.get(cell, {}).get(text)
        return reader.top(text, rows, answer, place) if rows and answer else ()

    return Parting(
        parent=top(kept.own, hop.parent),
        child=top(kept.own, hop.child),
        weights=top(kept.stored, hop.child),
    )


class _Reader:
    """Rows of distributions by the context they are about."""

    def __init__(self, pieces: tuple[str, ...], partitions: Mapping[str, Distributions]) -> None:
        self._pieces, self._partitions = pieces, partitions
        self._starts = {name: rows.offsets for name, rows in partitions.items()}
        self._sequences = {
            name: {each.key: each for each in rows.sequences} for name, rows in partitions.items()
        }

    def top(
        self, text: str, kept: Distributions, answer: Completion, place: int
    ) -> tuple[Candidate, ...]:
        """Most likely tokens after the prompt and the first `place` tokens of an answer."""
        context = (*answer.prompt_ids, *answer.output_ids[:place])
        sequence = self._sequences.get(text, {}).get(answer.key)
        if sequence is None or not context or sequence.ids[: len(context)] != context:
            return ()
        row = len(context) - 1 - sequence.first_row
        if not 0 <= row < sequence.n_rows or kept.sequence(answer.key) is None:
            return ()
        chunk = kept.read(answer.key)
        one, start = chunk.rows[row], self._starts[text][answer.key][0]
        ids = np.load(self._partitions[text].folder / IDS, mmap_mode="r")[start + row]
        log_probs = {
            int(one[token]): float(one[logit]) - float(one["log_z"])
            for token, logit in (("top1", "top1_logit"), ("top2", "top2_logit"))
        }
        log_probs |= dict(zip(ids.tolist(), chunk.log_probs[row].tolist(), strict=True))
        ranked = sorted(log_probs.items(), key=lambda each: (-each[1], each[0]))
        return tuple(self._candidate(*each) for each in ranked[:TOP])

    def _candidate(self, token: int, log_prob: float) -> Candidate:
        known = 0 <= token < len(self._pieces)
        return Candidate(token, self._pieces[token] if known else f"id {token}", log_prob)
