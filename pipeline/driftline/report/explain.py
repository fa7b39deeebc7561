"""One golden prompt's path through the lineage, as text that is safe in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from driftline.errors import InputError, did_you_mean
from driftline.report.escape import visible
from driftline.report.figures import brief
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion
from driftline.schema.cells import CellRecord
from driftline.schema.hops import Cause, ItemDrift
from driftline.store.digest import sha256_text

ANSWER = 4000
"""Characters shown of one text before it is cut."""
WIDTH = 100


def explain_item(evidence: ReportInput, key: str, commands: Mapping[str, str]) -> str:
    """The prompt, every cell's answer in plan order, where it first changed, how to repeat it.

    Args:
        evidence: the report's input.
        key: `evalset/id`.
        commands: by cell id, the command that scores just that cell again.

    Returns:
        Lines of printable characters; whatever a model wrote is indented and escaped.

    Raises:
        InputError: there is no such prompt.
    """
    if key not in evidence.prompts:
        close = did_you_mean(key, evidence.prompts)
        raise InputError(
            f'no golden prompt "{visible(key)}"{close}',
            remedy="name it evalset/id, as in reports/lineage.md and evalsets/*.jsonl",
        )
    return "\n".join([*_prompt(evidence, key), *_cells(evidence, key, commands)]) + "\n"


def _prompt(evidence: ReportInput, key: str) -> Iterator[str]:
    prompt = evidence.prompts[key]
    yield f"item      {visible(key)}"
    yield f"prompt    {len(prompt.ids)} pinned token ids"
    yield from _block(prompt.text)
    if key in evidence.references:
        yield "expected"
        yield from _block(evidence.references[key])


def _cells(evidence: ReportInput, key: str, commands: Mapping[str, str]) -> Iterator[str]:
    for record in evidence.cells:
        name = record.cell.id
        if not evidence.was_asked(name, evidence.prompts[key].evalset):
            continue
        answer = evidence.answer(name, key) if record.ran else None
        yield ""
        yield f"{visible(name)}  {_verdict(evidence, record, key)}"
        if answer is not None:
            yield from _answer(evidence, record, key, answer)
        if name in commands:
            yield f"  again: {visible(commands[name], ANSWER)}"


def _verdict(evidence: ReportInput, record: CellRecord, key: str) -> str:
    """The item's state, or why the cell has no answer."""
    outcome = record.outcome
    if not record.ran:
        remedy = f" (remedy: {visible(outcome.remedy)})" if outcome.remedy else ""
        return f"{outcome.state}: {visible(outcome.reason)}{remedy}"
    score = evidence.item_scores.get(record.cell.id, {}).get(key)
    state = score.state if score else "unchecked"
    if key in record.unstable:
        return f"{state}, unstable: the cell answered differently the second time"
    return state


def _answer(
    evidence: ReportInput, record: CellRecord, key: str, answer: Completion
) -> Iterator[str]:
    yield from _block(answer.text)
    score = evidence.item_scores.get(record.cell.id, {}).get(key)
    for check in score.checks if score else ():
        if check.score < 1:
            yield f"  {check.kind}: {visible(check.detail) or 'failed'}"
    if answer.finish_reason != "stop":
        yield f"  ended by {answer.finish_reason}"
    yield f"  prompt ids: {_prompt_ids(evidence, record, key, answer)}"
    yield from _drift(evidence, record, key)


def _prompt_ids(evidence: ReportInput, record: CellRecord, key: str, answer: Completion) -> str:
    """Whether they are the pinned ones; if not, the class of the difference and where it begins."""
    if answer.prompt_ids == evidence.prompts[key].ids:
        return "as pinned"
    hop = evidence.hops_by_child.get(record.cell.id)
    if hop is None:
        return "NOT as pinned"
    before = evidence.answer(hop.hop.parent, key)
    if before is not None and before.prompt_ids == answer.prompt_ids:
        return f"NOT as pinned, as already in {visible(hop.hop.parent)}"
    for difference in hop.text.prompts:
        if difference.key == key:
            own, pinned = _piece(difference.own_piece), _piece(difference.pinned_piece)
            where = f"{difference.cause} at id {difference.position}, {own} instead of {pinned}"
            return f"NOT as pinned: {where}; {visible(difference.detail)}"
    return "NOT as pinned"


def _drift(evidence: ReportInput, record: CellRecord, key: str) -> Iterator[str]:
    """The step from the hop's parent, and whether the answer first changed here."""
    hop = evidence.hops_by_child.get(record.cell.id)
    if hop is None:
        return
    item = evidence.items_by_child[record.cell.id].get(key)
    if item is None:
        why = hop.reason or "not in the comparison"
        yield f"  not compared with {visible(hop.hop.parent)}: {visible(why)}"
    else:
        yield f"  {_step(item)} {visible(hop.hop.parent)}"
        if item.cause is not None:
            yield f"  cause: {_cause(item.cause)}"
    what = _first_changes(evidence, record.cell.id, key)
    if what:
        yield f"  ← first changed here ({what})"


def _step(item: ItemDrift) -> str:
    if item.same_sequence:
        return "same tokens as"
    before, after = _piece(item.parent_piece), _piece(item.child_piece)
    return f"first divergent token {item.first_divergent}: {before} → {after}, against"


def _piece(piece: str | None) -> str:
    return "(end)" if piece is None else f'"{visible(piece)}"'


def _cause(cause: Cause) -> str:
    """`numerics, margin 0.021 nats, near-tie: decoded token by token …`."""
    facts: list[str] = [cause.component or "not told apart"]
    if cause.margin is not None:
        facts.append(f"margin {brief(cause.margin)} nats")
    if cause.near_tie:
        facts.append("near-tie")
    return f"{', '.join(facts)}: {visible(cause.reason)}"


def _first_changes(evidence: ReportInput, cell: str, key: str) -> str:
    """What of this item changed first on the way into `cell`: tokens, verdict, or the stretch."""
    entry = evidence.blame_by_item.get((cell, key))
    if entry is None:
        return ""
    said = []
    for what, hop in (("tokens", entry.sequence_hop), ("verdict", entry.verdict_hop)):
        parent, _, child = (hop or "").partition(" → ")
        if child != cell:
            continue
        direct = parent == evidence.hops_by_child[cell].hop.parent
        said.append(what if direct else f"{what}; somewhere after {visible(parent)}")
    return ", ".join(said)


def _block(text: str) -> Iterator[str]:
    """Text in its own lines behind a bar, long ones folded; cut when longer than `ANSWER`."""
    for line in text[:ANSWER].split("\n") if text else ["(empty)"]:
        shown = visible(line, 10 * ANSWER)
        for start in range(0, len(shown) or 1, WIDTH):
            yield f"  │ {shown[start : start + WIDTH]}"
    if len(text) > ANSWER:
        yield f"  … {len(text)} characters in all, sha256 {sha256_text(text)}"
