"""One golden prompt in full: what changed it, both answers side by side, what every cell saw."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from markupsafe import Markup

from driftline.drift.cause import first_difference
from driftline.report.candidates import Candidate, Parting, Partings
from driftline.report.changes import Change, ChangedItem, parted_before
from driftline.report.escape import Safe
from driftline.report.html import prose
from driftline.report.html.markup import NONE, fill
from driftline.report.html.matrix import MARKS, excerpt, words
from driftline.report.html.names import Names, numbers
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.hops import ItemDrift
from driftline.schema.scores import CheckResult, ItemState
from driftline.schema.text import PromptDifference, SourceVocabulary

ANSWER, OTHER = 1200, 300
"""Characters shown of an answer side by side, and in the list of all cells' answers."""
CONTEXT = 3
"""Tokens shown before the one that differs."""
DETAIL = 300
"""Characters of why a check failed."""


@dataclass(frozen=True)
class Likely:
    """One candidate: the token, its probability, whether it is what the cell said."""

    token: Markup
    probability: float
    figure: Safe
    said: bool


@dataclass(frozen=True)
class Side:
    """One end of a hop: the answer with the divergent token marked, and what was likely there."""

    cell: str
    state: ItemState
    mark: str
    answer: Markup
    token: Markup
    ended: str
    checks: tuple[CheckResult, ...]
    likely: tuple[Likely, ...]
    alone: Safe | None
    """The probability of the token that was said, where that is all that is known."""


@dataclass(frozen=True)
class ChangeView:
    """One change in full."""

    change: Change
    hop: str
    context: Markup
    parent: Side
    child: Side
    weights: tuple[Likely, ...]
    first_hop: str
    """Where the tokens parted already, on an earlier hop."""


@dataclass(frozen=True)
class Said:
    """Cells that gave the same answer."""

    cells: tuple[str, ...]
    state: str
    mark: str
    answer: Markup


@dataclass(frozen=True)
class Seen:
    """Cells that saw the same prompt; `note` says how it differs from the pinned one."""

    cells: tuple[str, ...]
    count: int
    prompt: Markup
    rendered: Markup | None
    note: str


@dataclass(frozen=True)
class ItemView:
    """Everything about one item."""

    key: str
    anchor: str
    number: int
    question: str
    expected: Markup | None
    tags: tuple[str, ...]
    tag_numbers: str
    hops: str
    components: str
    changed: ChangedItem
    changes: tuple[ChangeView, ...]
    rest: tuple[Change, ...]
    answers: tuple[Said, ...]
    seen: tuple[Seen, ...]


class Items:
    """Item views over one evidence."""

    def __init__(
        self,
        evidence: ReportInput,
        names: Names,
        full: Collection[tuple[int, str]],
        vocabulary: SourceVocabulary | None,
        partings: Partings,
    ) -> None:
        """`full` are places of the changes that are shown in full; nothing is made yet."""
        self._evidence, self._names, self._partings = evidence, names, partings
        self._full = full
        self._pieces = vocabulary.pieces if vocabulary else ()
        self._special = frozenset(vocabulary.special) if vocabulary else frozenset()
        self._ends = frozenset(vocabulary.eos) if vocabulary else frozenset()

    def view(self, item: ChangedItem) -> ItemView:
        """One item in full."""
        evidence, names, key = self._evidence, self._names, item.key
        prompt = evidence.prompts.get(key)
        reference = evidence.references.get(key)
        return ItemView(
            key=key,
            anchor=names.items[key],
            number=names.evalsets.get(prompt.evalset, -1) if prompt else -1,
            question=excerpt(evidence.question(key), 160),
            expected=None if reference is None else prose.shown(reference, ANSWER),
            tags=names.tags_of.get(key, ()),
            tag_numbers=names.tag_numbers(key),
            hops=numbers(change.at for change in item.changes),
            components=words(change.component for change in item.changes),
            changed=item,
            changes=tuple(self._change(each) for each in item.changes if each.place in self._full),
            rest=tuple(each for each in item.changes if each.place not in self._full),
            answers=self._answers(key),
            seen=self._seen(prompt) if prompt else (),
        )

    # ------------------------------------------------------------------------------ side by side

    def _change(self, change: Change) -> ChangeView:
        hop, item = change.hop.hop, change.item
        parting = self._partings.get((hop.name, item.key), Parting())
        parent = self._evidence.answer(hop.parent, item.key)
        parted = parted_before(self._evidence, change)
        said = self._emitted(hop.child, item)
        return ChangeView(
            change=change,
            hop=self._names.hops[hop.name],
            context=self._context(parent, item),
            parent=self._side(hop.parent, item, item.parent_state, parting.parent),
            child=self._side(hop.child, item, item.child_state, parting.child),
            weights=_likely(parting.weights, said),
            first_hop=(parted.sequence_hop or "") if parted else "",
        )

    def _side(
        self, cell: str, item: ItemDrift, state: ItemState, candidates: tuple[Candidate, ...]
    ) -> Side:
        answer = self._evidence.answer(cell, item.key)
        score = self._evidence.item_scores.get(cell, {}).get(item.key)
        said, place = self._emitted(cell, item), item.first_divergent
        alone = None
        if answer and not candidates and place is not None and place < len(answer.logprobs):
            alone = probability(answer.logprobs[place])
        return Side(
            cell=cell,
            state=state,
            mark=MARKS[state],
            answer=_marked(answer, place),
            token=_token(answer, place),
            ended="" if answer is None or answer.finish_reason == "stop" else answer.finish_reason,
            checks=tuple(check for check in (score.checks if score else ()) if check.score < 1),
            likely=_likely(candidates, said),
            alone=alone,
        )

    def _emitted(self, cell: str, item: ItemDrift) -> int | None:
        answer, place = self._evidence.answer(cell, item.key), item.first_divergent
        if answer is None or place is None or place >= len(answer.output_ids):
            return None
        return answer.output_ids[place]

    def _context(self, answer: Completion | None, item: ItemDrift) -> Markup:
        """The last tokens both said."""
        place = item.first_divergent
        if answer is None or not place:
            return NONE
        pieces = answer.pieces[max(0, place - CONTEXT) : place]
        lead = Markup("… ") if place > CONTEXT else NONE
        return lead + Markup(" ").join(token(piece) for piece in pieces)

    # --------------------------------------------------------------------------------- every cell

    def _answers(self, key: str) -> tuple[Said, ...]:
        """What every cell said, the same answers together, in plan order."""
        evalset = key.partition("/")[0]
        prompt = self._evidence.prompts.get(key)
        groups: dict[tuple[str, str, str], list[str]] = {}
        for cell in self._evidence.cells:
            name = cell.cell.id
            if not self._evidence.was_asked(name, prompt.evalset if prompt else evalset):
                continue
            answer = self._evidence.answer(name, key) if cell.ran else None
            score = self._evidence.item_scores.get(name, {}).get(key) if cell.ran else None
            state = score.state if score else cell.outcome.state if not cell.ran else "no answer"
            said = answer.text if answer else ""
            end = answer.finish_reason if answer else "none"
            groups.setdefault((said, state, end), []).append(name)
        return tuple(
            Said(
                cells=tuple(cells),
                state=state,
                mark=MARKS.get(state, "x"),
                answer=_said(said, end),
            )
            for (said, state, end), cells in groups.items()
        )

    # ------------------------------------------------------------------------- what the cells saw

    def _seen(self, prompt: PinnedPrompt) -> tuple[Seen, ...]:
        """The prompt as every cell saw it: the pinned ids first, then what differs from them."""
        groups: dict[tuple[tuple[int, ...], str | None], list[str]] = {}
        for cell in self._evidence.cells:
            answer = self._evidence.answer(cell.cell.id, prompt.key) if cell.ran else None
            if answer is not None:
                rendered = answer.prompt_text if answer.prompt_text != prompt.text else None
                groups.setdefault((answer.prompt_ids, rendered), []).append(cell.cell.id)
        pinned = (prompt.ids, None)
        own = groups.pop(pinned, [])
        first = Seen(tuple(own), len(own), self._prompt(prompt, prompt.ids), None, "")
        others = [
            Seen(
                cells=tuple(cells),
                count=len(cells),
                prompt=self._prompt(prompt, ids),
                rendered=_rendered(prompt.text, rendered),
                note=self._note(prompt, cells, ids),
            )
            for (ids, rendered), cells in groups.items()
        ]
        return (first, *others)

    def _prompt(self, prompt: PinnedPrompt, ids: tuple[int, ...]) -> Markup:
        if not self._pieces:
            same = ids == prompt.ids
            return prose.shown(prompt.text) if same else prose.shown(" ".join(map(str, ids)))
        place = first_difference(prompt.ids, ids)
        if place is None:
            return prose.ids(ids, self._pieces, self._special)
        return prose.ids_around(ids, self._pieces, self._special, place)

    def _note(self, prompt: PinnedPrompt, cells: list[str], ids: tuple[int, ...]) -> str:
        """How these ids differ, as the text path of the hop that changed them says."""
        if ids == prompt.ids:
            return "the pinned ids, rendered otherwise"
        for cell in cells:
            hop = self._evidence.hops_by_child.get(cell)
            for difference in hop.text.prompts if hop else ():
                if difference.key == prompt.key:
                    return _difference(difference)
        return f"other ids from place {first_difference(prompt.ids, ids)} on"


def _difference(difference: PromptDifference) -> str:
    return f"{difference.cause}: {difference.detail}" if difference.detail else difference.cause


def _rendered(pinned: str, own: str | None) -> Markup | None:
    """The rendered text of a runtime that tells it, marked where it leaves the pinned one."""
    if own is None:
        return None
    pairs = zip(pinned, own, strict=False)
    place = next((at for at, (one, other) in enumerate(pairs) if one != other), None)
    if place is None:
        place = min(len(pinned), len(own))
    return prose.window(own, (place, min(len(own), place + 1)))


def _marked(answer: Completion | None, place: int | None) -> Markup:
    """An answer with the token at `place` marked; the whole of it where tokens don't spell it."""
    if answer is None:
        return Markup('<span class="cut">no answer</span>')
    span = None if place is None else prose.span_of(answer.text, answer.pieces, place)
    if span is None:
        return prose.shown(answer.text, ANSWER) if answer.text else _EMPTY
    body = prose.window(answer.text, span, ANSWER)
    if span[0] != span[1] or place is None:
        return body
    last = prose.token(answer.pieces[place]) if place < len(answer.pieces) else Markup("(end)")
    plain = prose.shown(answer.text, ANSWER) if span[0] == len(answer.text) else body
    return plain + fill(" <mark>{}</mark>", last)


_EMPTY = Markup('<span class="cut">(empty)</span>')


def _said(answer: str, end: str) -> Markup:
    if end == "none":
        return NONE
    body = prose.shown(answer, OTHER) if answer else _EMPTY
    note = fill(' <span class="cut">ended by {}</span>', end)
    return body if end == "stop" else body + note


def _token(answer: Completion | None, place: int | None) -> Markup:
    if answer is None or place is None or place >= len(answer.pieces):
        return Markup("(end)")
    return token(answer.pieces[place])


def token(piece: str) -> Markup:
    """A vocabulary piece as a box of its own."""
    return prose.token(piece)


def _likely(candidates: Iterable[Candidate], said: int | None) -> tuple[Likely, ...]:
    return tuple(
        Likely(
            token=token(each.piece),
            probability=min(1.0, math.exp(each.log_prob)),
            figure=probability(each.log_prob),
            said=each.token == said,
        )
        for each in candidates
    )


def probability(log_prob: float) -> Safe:
    """A probability in percent, with as many digits as tell it from all and nothing."""
    value = 100 * math.exp(min(log_prob, 0.0))
    if value >= 99.95:
        return Safe("100 %" if log_prob >= 0 else "> 99.9 %")
    if value >= 0.1:
        return Safe(f"{value:.1f} %")
    return Safe(f"{value:.1g} %" if value >= 1e-4 else "< 0.0001 %")
