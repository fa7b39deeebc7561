"""The text component: a runtime's own prompt against the pinned one, and how answers end; pure.

Laws: a prompt with the pinned ids has no difference; every other one has exactly one class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from driftline.drift.evidence import CellEvidence
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.text import (
    PromptClass,
    PromptDifference,
    SourceVocabulary,
    StopDifference,
    TextDrift,
)
from driftline.schema.values import canonical_json
from driftline.schema.weights import CounterfactualRecord

SHOWN = 24
"""Characters of text shown on each side of a difference."""
STOP_SETTINGS = ("end_ids", "stop", "context_length")


def prompt_difference(
    pinned: PinnedPrompt, answer: Completion, vocabulary: SourceVocabulary
) -> PromptDifference | None:
    """How a runtime's own rendering and tokenization of a prompt differ from the pinned one."""
    own = answer.prompt_ids
    if own == pinned.ids:
        return None
    position = _first(pinned.ids, own)
    cause, detail = _classify(pinned, answer, vocabulary)
    return PromptDifference(
        evalset=pinned.evalset,
        item=pinned.id,
        cause=cause,
        position=position,
        pinned_piece=_piece(vocabulary, pinned.ids, position),
        own_piece=_piece(vocabulary, own, position),
        detail=detail,
    )


def text_drift(
    parent: CellEvidence,
    child: CellEvidence,
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary | None,
) -> TextDrift:
    """The text path over one hop: prompts that were the pinned ones before it and are not after."""
    record = child.weights.record if child.weights else None
    return TextDrift(
        prompts=tuple(_prompts(parent, child, pinned, vocabulary)) if vocabulary else (),
        stops=tuple(_stops(parent, child)),
        fields=tuple(_fields(record)) if record else (),
    )


def _prompts(
    parent: CellEvidence,
    child: CellEvidence,
    pinned: Mapping[str, PinnedPrompt],
    vocabulary: SourceVocabulary,
) -> Iterator[PromptDifference]:
    for key, prompt in pinned.items():
        before, after = parent.answer(key), child.answer(key)
        if before is None or after is None or before.prompt_ids != prompt.ids:
            continue
        difference = prompt_difference(prompt, after, vocabulary)
        if difference is not None:
            yield difference


def _stops(parent: CellEvidence, child: CellEvidence) -> Iterator[StopDifference]:
    before, after = parent.record.settings, child.record.settings
    for name in STOP_SETTINGS:
        if name in before and name in after and before[name] != after[name]:
            yield StopDifference(
                setting=name, parent=canonical_json(before[name]), child=canonical_json(after[name])
            )


def _fields(record: CounterfactualRecord) -> Iterator[str]:
    for change in record.text_fields:
        expected, found = (
            "nothing" if value is None else value for value in (change.expected, change.found)
        )
        yield f"{change.field}: expected {expected}, found {found}"


def _classify(
    pinned: PinnedPrompt, answer: Completion, vocabulary: SourceVocabulary
) -> tuple[PromptClass, str]:
    own = answer.prompt_ids
    if vocabulary.bos is not None and _strip(own, vocabulary.bos) == _strip(
        pinned.ids, vocabulary.bos
    ):
        return "bos", _counted("BOS", vocabulary.bos, pinned.ids, own)
    for end in vocabulary.eos:
        if _strip(own[::-1], end) == _strip(pinned.ids[::-1], end):
            return "eos", _counted("EOS", end, pinned.ids[::-1], own[::-1])
    if answer.prompt_text is not None and answer.prompt_text != pinned.text:
        return "template", _text_difference(pinned.text, answer.prompt_text)
    lost = _lost_special(pinned.ids, own, vocabulary)
    if lost:
        return "special", f"special tokens became plain text: {', '.join(lost)}"
    return "tokenizer", "the same text, other pieces"


def _strip(ids: Sequence[int], token: int) -> tuple[int, ...]:
    """`ids` without any `token` they begin with."""
    return tuple(ids[_leading(ids, token) :])


def _leading(ids: Sequence[int], token: int) -> int:
    return next((index for index, each in enumerate(ids) if each != token), len(ids))


def _counted(name: str, token: int, pinned: Sequence[int], own: Sequence[int]) -> str:
    expected, found = _leading(pinned, token), _leading(own, token)
    word = "missing" if found < expected else "doubled" if expected else "added"
    return f"{name} {word}: {found} instead of {expected}"


def _text_difference(pinned: str, own: str) -> str:
    place = _first(pinned, own)
    if place == len(own):
        return f"the rendered text ends early, without {pinned[place : place + SHOWN]!r}"
    if place == len(pinned):
        return f"the rendered text goes on with {own[place : place + SHOWN]!r}"
    before = pinned[max(0, place - SHOWN) : place]
    return (
        f"rendered text at character {place}, after {before!r}: "
        f"{own[place : place + SHOWN]!r} instead of {pinned[place : place + SHOWN]!r}"
    )


def _lost_special(
    pinned: Sequence[int], own: Sequence[int], vocabulary: SourceVocabulary
) -> list[str]:
    """Special tokens whose text the runtime read as plain pieces: gone, and spelled out instead."""
    special = set(vocabulary.special)
    missing = Counter(token for token in pinned if token in special)
    missing.subtract(token for token in own if token in special)
    plain = "".join(
        vocabulary.pieces[token]
        for token in own
        if token not in special and token < len(vocabulary.pieces)
    )
    lost = [vocabulary.pieces[token] for token, count in sorted(missing.items()) if count > 0]
    return [piece for piece in lost if piece in plain]


def _first(a: Sequence[object], b: Sequence[object]) -> int:
    """Index of the first difference of two sequences that differ."""
    for index, (left, right) in enumerate(zip(a, b, strict=False)):
        if left != right:
            return index
    return min(len(a), len(b))


def _piece(vocabulary: SourceVocabulary, ids: Sequence[int], position: int) -> str | None:
    if position >= len(ids):
        return None
    token = ids[position]
    return vocabulary.pieces[token] if token < len(vocabulary.pieces) else f"id {token}"
