"""What a report gets of a pipeline with a planted fault: real artifacts, runtimes and drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from driftline.drift.evidence import CellEvidence
from driftline.drift.hops import median_divergence
from driftline.faults.runs import TEXT, Chain, Tampering
from driftline.golden.grade import summarize
from driftline.report.candidates import Partings, Texts, partings, partition_of
from driftline.report.model import ReportInput
from driftline.schema.answers import PinnedPrompt
from driftline.schema.hops import DriftReport
from driftline.schema.text import SourceVocabulary


@dataclass(frozen=True)
class Planted:
    """Everything a page is made of."""

    evidence: ReportInput
    vocabulary: SourceVocabulary
    partings: Partings


def plant(chain: Chain, tampering: Tampering, name: str) -> Planted:
    """The chain run with something tampered with, as a report sees it."""
    run = chain.run(tampering, name)
    texts = chain.healthy.root / TEXT
    return planted(run.report, run.evidence, chain.pinned, chain.vocabulary, texts)


def planted(
    drift: DriftReport,
    cells: Mapping[str, CellEvidence],
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary,
    texts: Path,
) -> Planted:
    """The same from what a run left behind; `texts` is where the forced texts lie."""
    medians = {hop.hop.name: median_divergence(hop) for hop in drift.hops}
    weighed = [cell.weights.record for cell in cells.values() if cell.weights]
    evidence = ReportInput(
        artifacts=(),
        cells=tuple(cell.record for cell in cells.values()),
        drift=drift,
        scores=summarize(score for cell in cells.values() for score in cell.scores.values()),
        item_scores={name: cell.scores for name, cell in cells.items()},
        completions={name: cell.completions for name, cell in cells.items()},
        prompts=pinned,
        references={},
        median_divergence={name: value for name, value in medians.items() if value is not None},
        counterfactuals=tuple(record for record in weighed if record is not None),
    )
    own = {name: cell.distributions for name, cell in cells.items()}
    stored = {
        name: cell.weights.distributions
        for name, cell in cells.items()
        if cell.weights and not cell.weights.itself
    }
    kept = Texts(own, stored, {name: partition_of(texts / name) for name in texts_of(cells)})
    return Planted(evidence, vocabulary, partings(evidence, vocabulary, kept))


def texts_of(cells: Mapping[str, CellEvidence]) -> set[str]:
    """Names of the teacher-forced texts."""
    return {name for cell in cells.values() for name in cell.distributions}
