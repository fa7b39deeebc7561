"""`driftline budget`: the error budget of one hop of the project, from what the stages left."""

from __future__ import annotations

from pathlib import Path

from driftline.budget import swapping
from driftline.budget.swapping import ForcedText, Say, Subject
from driftline.counterfactual import base, reference
from driftline.drift.evidence import CellEvidence
from driftline.errors import InputError, RefusedError, did_you_mean
from driftline.evidence import scored
from driftline.files import write_text
from driftline.gate.judgement import BUDGETS
from driftline.project import graph, params, plan, routes
from driftline.report.heatmap import svg
from driftline.schema.budget import Budget
from driftline.schema.forced import ForcedSequence
from driftline.schema.hops import Hop
from driftline.schema.values import dump, load_lines
from driftline.store import records, texts
from driftline.store.distributions import IDS, SEQUENCES

MEASURED = ("convert", "quantize")


def measure(project: params.Params, name: str, *, most: int, say: Say) -> Budget:
    """The error budget of the hop `name`: its name, or the id of the cell it leads to.

    Args:
        project: the project, scored.
        name: `parent → child`, or `child`.
        most: teacher-forced sequences to use, evenly spread over the text.
        say: told what is being swapped.

    Raises:
        InputError: there is no such hop, or it stores no weights anew, or nothing is scored yet.
        RefusedError: its counterfactuals cannot be trusted, or artifacts are not as recorded.
    """
    hop = _hop(project, name)
    if not scored.SCORES.exists():
        raise InputError("nothing has been scored yet", remedy="driftline run")
    records.manifest("grades")
    cells = scored.evidence(project, whole=True)
    parent, child = cells[hop.parent], cells[hop.child]
    records.manifest(texts.name_of(child.record.cell.variant))
    text = _text(child.record.cell.variant, parent, most)
    _trusted(hop, parent, child)
    reference.prepare(project.limits.threads)
    before, after = _model(parent), reference.arrays(_model(child))
    return swapping.budget(_subject(hop, parent, child), before, after, text, say)


def _subject(hop: Hop, parent: CellEvidence, child: CellEvidence) -> Subject:
    ends = (parent.record.artifact_identity, child.record.artifact_identity)
    return Subject(hop.name, *ends)


def write(project: params.Params, budget: Budget) -> tuple[Path, Path]:
    """Write a budget as JSON and as a heat map."""
    stem = plan.find(project, _hop(project, budget.hop).child).spec.file_name
    data, picture = BUDGETS / f"{stem}.json", BUDGETS / f"{stem}.svg"
    dump(budget, data)
    write_text(picture, svg(budget))
    return data, picture


def _hop(project: params.Params, name: str) -> Hop:
    hops = graph.hops(project)
    measured = [hop for hop in hops if hop.kind in MEASURED]
    for hop in hops:
        if name in (hop.name, hop.child):
            if hop.kind in MEASURED:
                return hop
            raise InputError(
                f"{hop.name}: a hop of kind {hop.kind} stores no weights anew",
                remedy=f"name a conversion: {', '.join(each.child for each in measured)}",
            )
    close = did_you_mean(name, [hop.child for hop in measured])
    raise InputError(
        f'no hop "{name}"{close}',
        remedy=f"name the cell it leads to: {', '.join(each.child for each in measured)}",
    )


def _trusted(hop: Hop, *ends: CellEvidence) -> None:
    for cell in ends:
        reason = cell.weights.withheld if cell.weights else f"{cell.id} has no counterfactual"
        if reason:
            raise RefusedError(
                f"{hop.name}: no trustworthy split, so no budget: {reason}",
                remedy="its end-to-end drift is in reports/lineage.md",
            )


def _model(cell: CellEvidence) -> object:
    """A cell's stored weights in the reference runtime, its artifact verified just now."""
    artifact = records.verified(cell.record.cell.artifact_name)
    target = routes.counterfactuals().get(routes.format_of(artifact.kind))
    load = base.resolve(target).load if target else reference.checkpoint
    return load(records.ARTIFACTS / artifact.name)


def _text(variant: str, parent: CellEvidence, most: int) -> ForcedText:
    """The text of a hop's parent, at most `most` of its sequences."""
    kept = parent.weights.distributions.get(variant) if parent.weights else None
    if kept is None or not kept.sequences:
        raise InputError(
            f"{parent.id}: no distributions of text {variant} were kept", remedy="driftline run"
        )
    folder = texts.FOLDER / variant
    starts, at = {}, 0
    for sequence in load_lines(ForcedSequence, folder / SEQUENCES):
        starts[sequence.key] = at
        at += sequence.n_rows
    step = max(1, -(-len(kept.sequences) // most))
    return ForcedText(kept, folder / IDS, starts, kept.sequences[::step])
