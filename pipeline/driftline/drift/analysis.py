"""Everything drift finds in the evidence of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftline.drift.blame import blame, path_to
from driftline.drift.evidence import CellEvidence
from driftline.drift.findings import findings, reference_findings
from driftline.drift.hops import hop_drift, not_compared
from driftline.drift.split import Comparisons
from driftline.drift.statistics import holm
from driftline.drift.summary import summary
from driftline.schema.answers import PinnedPrompt
from driftline.schema.hops import CellDrift, DriftReport, Finding, Hop, HopDrift
from driftline.schema.text import SourceVocabulary


def analyse(
    hops: Sequence[Hop],
    evidence: Mapping[str, CellEvidence],
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary | None = None,
) -> DriftReport:
    """Drift over every hop, in their order, its causes, and the first change of every answer.

    Args:
        hops: the edges between cells, parents before children.
        evidence: what each cell left behind, by cell id.
        pinned: the golden prompts by key, in the order in which items are listed.
        vocabulary: what the source calls its ids; without it prompts are not told apart by class.

    Raises:
        InputError: a cell completed a prompt that is not pinned.
    """
    made = Comparisons()
    measured = _corrected([_measure(hop, evidence, pinned, vocabulary, made) for hop in hops])
    problems = [
        finding for each in measured for finding in _findings(each, evidence, pinned, vocabulary)
    ]
    problems += _reference_findings(measured, evidence)
    measured = [
        each.model_copy(update={"summary": summary(each, evidence[each.hop.child].record.cell)})
        if each.compared
        else each
        for each in measured
    ]
    return DriftReport(
        hops=tuple(measured),
        blame=blame(measured, evidence, pinned),
        cells=tuple(_cells(measured, evidence, made)),
        findings=tuple(problems),
    )


def _measure(
    hop: Hop,
    evidence: Mapping[str, CellEvidence],
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary | None,
    made: Comparisons,
) -> HopDrift:
    missing = [name for name in (hop.parent, hop.child) if name not in evidence]
    if missing:
        return not_compared(hop, "; ".join(f"{name}: not scored" for name in missing))
    return hop_drift(hop, evidence[hop.parent], evidence[hop.child], pinned, vocabulary, made)


def _corrected(hops: Sequence[HopDrift]) -> list[HopDrift]:
    """With p values corrected for the number of hops, adapters' own aside: they mean to change."""
    tested = [hop for hop in hops if hop.scores is not None and hop.hop.kind != "adapter"]
    corrected = holm([hop.scores.mcnemar_p for hop in tested if hop.scores is not None])
    by_name = {hop.hop.name: p for hop, p in zip(tested, corrected, strict=True)}
    return [
        hop.model_copy(
            update={
                "scores": hop.scores.model_copy(update={"holm_p": by_name[hop.hop.name]})
                if hop.scores is not None and hop.hop.name in by_name
                else hop.scores
            }
        )
        for hop in hops
    ]


def _findings(
    hop: HopDrift,
    evidence: Mapping[str, CellEvidence],
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary | None,
) -> list[Finding]:
    if hop.hop.parent not in evidence or hop.hop.child not in evidence:
        return []
    size = len(vocabulary.pieces) if vocabulary else 0
    parent, child = evidence[hop.hop.parent], evidence[hop.hop.child]
    return list(findings(hop, parent, child, pinned, size))


def _reference_findings(
    hops: Sequence[HopDrift], evidence: Mapping[str, CellEvidence]
) -> list[Finding]:
    """Findings of the cells that lineages start from, those whose answers others are held to."""
    own = [each.hop for each in hops if each.hop.kind != "adapter"]
    references = {hop.parent for hop in own} - {hop.child for hop in own}
    return [
        finding
        for name, cell in evidence.items()
        if name in references
        for finding in reference_findings(cell)
    ]


def _cells(
    hops: Sequence[HopDrift], evidence: Mapping[str, CellEvidence], made: Comparisons
) -> list[CellDrift]:
    parents = {each.hop.child: each.hop for each in hops}
    cost = {each.hop.name: _cost(each) for each in hops}
    rows = []
    for each in hops:
        path = path_to(each.hop.child, parents)
        cell, reference = evidence.get(each.hop.child), path[0].parent if path else each.hop.child
        text = cell.record.cell.variant if cell else ""
        own = cell.distributions.get(text) if cell else None
        root = evidence[reference].distributions.get(text) if reference in evidence else None
        rows.append(
            CellDrift(
                cell=each.hop.child,
                reference=reference,
                drift=made.drift(root, own) if path and root and own else None,
                hops=tuple(sorted((hop.name for hop in path), key=lambda name: cost[name])),
                decoding_gap=_decoding_gap(cell) if cell else None,
            )
        )
    return rows


def _cost(hop: HopDrift) -> tuple[int, float]:
    """Sorts hops by what they cost: answers that became wrong, then mean KL, most first."""
    nats = hop.split.end_to_end.kl_mean.value if hop.split else 0.0
    return len(hop.better) - len(hop.worse), -nats


def _decoding_gap(cell: CellEvidence) -> float | None:
    """Largest gap between decoded and forced log-probabilities on the reference's answers."""
    kept = cell.distributions.get(cell.record.cell.variant)
    if kept is None:
        return None
    gaps = []
    for key, chunk in kept.chunks([each.key for each in kept.sequences if each.kind == "golden"]):
        sequence, answer = kept.sequence(key), cell.answer(key)
        if sequence is None or answer is None:
            continue
        context = (*answer.prompt_ids, *answer.output_ids)
        if context != (*sequence.ids, sequence.target):
            continue
        forced = chunk.target_log_prob[sequence.n_prompt - 1 :]
        gaps += [abs(a - b) for a, b in zip(answer.logprobs, forced.tolist(), strict=True)]
    return max(gaps, default=None)
