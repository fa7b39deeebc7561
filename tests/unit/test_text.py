"""Prompts on a runtime's own text path: clerk's own template and pieces, rendered in wrong ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, get_args

import jinja2
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from driftline.drift.evidence import CellEvidence, StoredWeights
from driftline.drift.text import prompt_difference, text_drift
from driftline.project.routes import ROOT_CELL
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.text import (
    PromptClass,
    PromptDifference,
    SourceVocabulary,
    StopDifference,
    TextDrift,
)
from driftline.schema.weights import CounterfactualRecord, FieldChange
from tests.factories import completion, evidence, prompts
from tests.paths import ROOT

CLERK = ROOT / "models" / "clerk"
TEMPLATE = (CLERK / "chat_template.jinja").read_text(encoding="utf-8")
PIECES = sentencepiece.SentencePieceProcessor(model_file=str(CLERK / "tokenizer.model"))
SIZE = PIECES.get_piece_size()
BOS, EOS = PIECES.bos_id(), PIECES.eos_id()
SPECIAL = tuple(token for token in range(SIZE) if PIECES.is_control(token))
VOCABULARY = SourceVocabulary(
    pieces=tuple(PIECES.id_to_piece(token) for token in range(SIZE)),
    special=SPECIAL,
    bos=BOS,
    eos=(EOS,),
)
QUESTION = "How many invoices are from Oslo?"
F32 = "llamacpp/base/f32"


def rendered(template: str = TEMPLATE) -> str:
    """The one chat of these tests, as a template writes it."""
    made = jinja2.Environment(autoescape=False).from_string(template)  # text, not HTML
    messages = [{"role": "user", "content": QUESTION}]
    return made.render(messages=messages, bos_token="<s>", add_generation_prompt=True)


def encoded(text: str) -> tuple[int, ...]:
    """Ids as the source's tokenizer gives them: special tokens are recognized in the text."""
    special = "|".join(re.escape(PIECES.id_to_piece(token)) for token in SPECIAL)
    found: list[int] = []
    for part in re.split(f"({special})", text):
        found += [PIECES.piece_to_id(part)] if re.fullmatch(special, part) else PIECES.encode(part)
    return tuple(found)


def prompt_of(text: str, ids: Iterable[int] | None = None) -> PinnedPrompt:
    (prompt,) = prompts("sql", count=1).values()
    own = encoded(text) if ids is None else tuple(ids)
    return prompt.model_copy(update={"text": text, "ids": own})


def answer_to(prompt: PinnedPrompt, ids: Sequence[int], text: str | None) -> Completion:
    made = completion(prompt, prompt_ids=tuple(ids))
    return made.model_copy(update={"prompt_text": text})


CHAT = prompt_of(rendered())


def difference(
    ids: Sequence[int], text: str | None = CHAT.text, *, pinned: PinnedPrompt = CHAT
) -> PromptDifference:
    found = prompt_difference(pinned, answer_to(pinned, ids, text), VOCABULARY)
    assert found is not None
    return found


def replaced(old: str, new: str) -> PromptDifference:
    """What becomes of the chat when its template has `new` in place of `old`."""
    assert old in TEMPLATE
    text = rendered(TEMPLATE.replace(old, new))
    return difference(encoded(text), text)


def shown(found: PromptDifference) -> tuple[str, int, str | None, str | None, str]:
    return found.cause, found.position, found.pinned_piece, found.own_piece, found.detail


class TestTheChat:
    """These tests stand on the pinned ids being what the checkpoint's own tokenizer gives."""

    def test_its_ids(self) -> None:
        pieces = [VOCABULARY.pieces[token] for token in CHAT.ids]
        assert (pieces[:3], pieces[-2:]) == (
            ["<s>", "<|user|>", "H"],
            ["<|end|>", "<|assistant|>"],
        )

    @pytest.mark.parametrize("text", [CHAT.text, None, "other text, same ids"])
    def test_pinned_ids_are_no_difference(self, text: str | None) -> None:
        assert prompt_difference(CHAT, answer_to(CHAT, CHAT.ids, text), VOCABULARY) is None


class TestBos:
    def test_the_tokenizer_adds_one_to_the_templates(self) -> None:
        assert shown(difference((BOS, *CHAT.ids))) == (
            "bos",
            1,
            "<|user|>",
            "<s>",
            "BOS doubled: 2 instead of 1",
        )

    def test_the_template_writes_two(self) -> None:
        found = replaced("{{- bos_token }}", "{{- bos_token + bos_token }}")
        assert (found.cause, found.detail) == ("bos", "BOS doubled: 2 instead of 1")

    @pytest.mark.parametrize("text", [CHAT.text, None])
    def test_missing(self, text: str | None) -> None:
        assert shown(difference(CHAT.ids[1:], text)) == (
            "bos",
            0,
            "<s>",
            "<|user|>",
            "BOS missing: 0 instead of 1",
        )

    def test_missing_from_the_template(self) -> None:
        assert replaced("{{- bos_token }}", "").detail == "BOS missing: 0 instead of 1"

    def test_added_to_a_prompt_without(self) -> None:
        plain = prompt_of(QUESTION)
        found = difference((BOS, *plain.ids), QUESTION, pinned=plain)
        assert (found.cause, found.detail) == ("bos", "BOS added: 1 instead of 0")

    def test_nothing_but_bos(self) -> None:
        only = prompt_of("<s>")
        assert shown(difference((), "", pinned=only)) == (
            "bos",
            0,
            "<s>",
            None,
            "BOS missing: 0 instead of 1",
        )

    def test_a_source_without_bos_has_no_such_class(self) -> None:
        bare = VOCABULARY.model_copy(update={"bos": None})
        found = prompt_difference(CHAT, answer_to(CHAT, (BOS, *CHAT.ids), CHAT.text), bare)
        assert found is not None and found.cause == "tokenizer"


class TestEos:
    def test_added(self) -> None:
        assert shown(difference((*CHAT.ids, EOS))) == (
            "eos",
            len(CHAT.ids),
            None,
            "<|end|>",
            "EOS added: 1 instead of 0",
        )

    def test_missing_and_doubled(self) -> None:
        closed = prompt_of(CHAT.text + "<|end|>")
        missing = difference(closed.ids[:-1], closed.text, pinned=closed)
        assert (missing.cause, missing.detail) == ("eos", "EOS missing: 0 instead of 1")
        assert (missing.pinned_piece, missing.own_piece) == ("<|end|>", None)
        doubled = difference((*closed.ids, EOS), closed.text, pinned=closed)
        assert (doubled.cause, doubled.detail) == ("eos", "EOS doubled: 2 instead of 1")

    def test_one_inside_is_none_of_it(self) -> None:
        assert difference((*CHAT.ids[:4], EOS, *CHAT.ids[4:])).cause == "tokenizer"

    def test_any_of_several_ends(self) -> None:
        (other,) = (token for token in SPECIAL if PIECES.id_to_piece(token) == "<|system|>")
        both = VOCABULARY.model_copy(update={"eos": (EOS, other)})
        found = prompt_difference(CHAT, answer_to(CHAT, (*CHAT.ids, other), CHAT.text), both)
        assert found is not None and found.cause == "eos"


class TestTemplate:
    def test_no_generation_prompt(self) -> None:
        assert shown(replaced("if add_generation_prompt", "if false")) == (
            "template",
            len(CHAT.ids) - 1,
            "<|assistant|>",
            None,
            "the rendered text ends early, without '<|assistant|>'",
        )

    def test_more_behind_the_generation_prompt(self) -> None:
        found = replaced("'<|assistant|>'", "'<|assistant|>{'")
        assert found.cause == "template"
        assert (found.pinned_piece, found.position) == (None, len(CHAT.ids))
        assert found.detail == "the rendered text goes on with '{'"

    def test_one_space_more(self) -> None:
        found = replaced("'<|end|>'", "'<|end|> '")
        place = CHAT.text.index("<|assistant|>")
        assert found.cause == "template"
        assert found.detail == (
            f"rendered text at character {place}, after {CHAT.text[place - 24 : place]!r}: "
            "' <|assistant|>' instead of '<|assistant|>'"
        )

    def test_near_the_beginning(self) -> None:
        assert replaced("{{- bos_token }}", "{{- bos_token + ' ' }}").detail.startswith(
            "rendered text at character 3, after '<s>': ' <|user|>"
        )

    def test_at_the_first_character_and_cut(self) -> None:
        found = replaced("{{- bos_token }}", "{{- 'Answer in French and in full. ' }}")
        assert found.cause == "template"
        assert found.detail == (
            "rendered text at character 0, after '': 'Answer in French and in ' instead of "
            f"{CHAT.text[:24]!r}"
        )

    def test_a_missing_bos_does_not_hide_another_text(self) -> None:
        text = rendered(TEMPLATE.replace("{{- bos_token }}", "").replace("'<|end|>'", "'<|end|> '"))
        assert difference(encoded(text), text).cause == "template"


class TestSpecial:
    def test_read_as_plain_text(self) -> None:
        own = (BOS, *PIECES.encode(CHAT.text.removeprefix("<s>")))
        assert shown(difference(own)) == (
            "special",
            1,
            "<|user|>",
            "<",
            "special tokens became plain text: <|end|>, <|user|>, <|assistant|>",
        )

    def test_only_one_of_them_and_only_once(self) -> None:
        """Counted, not looked up: `<|end|>` is still there, once."""
        twice = prompt_of(rendered() + "x<|end|>y")
        place = twice.ids.index(EOS)
        own = (*twice.ids[:place], *PIECES.encode("<|end|>"), *twice.ids[place + 1 :])
        found = difference(own, twice.text, pinned=twice)
        assert (found.cause, found.position) == ("special", place)
        assert found.detail == "special tokens became plain text: <|end|>"

    def test_a_token_that_is_merely_missing_was_not_split(self) -> None:
        """BOS is not there at all, and other pieces make up the text."""
        start = CHAT.ids.index(PIECES.piece_to_id("ow"))
        own = (*CHAT.ids[1:start], *map(PIECES.piece_to_id, "ow"), *CHAT.ids[start + 1 :])
        assert difference(own).cause == "tokenizer"


class TestTokenizer:
    def test_other_pieces_for_the_same_text(self) -> None:
        start = CHAT.ids.index(PIECES.piece_to_id("ow"))
        own = (*CHAT.ids[:start], *map(PIECES.piece_to_id, "ow"), *CHAT.ids[start + 1 :])
        assert shown(difference(own)) == (
            "tokenizer",
            start,
            "ow",
            "o",
            "the same text, other pieces",
        )

    def test_an_id_the_source_has_no_name_for(self) -> None:
        assert difference((*CHAT.ids[:3], SIZE, *CHAT.ids[4:])).own_piece == f"id {SIZE}"


# -- laws ----------------------------------------------------------------------------------------

ids = st.lists(st.sampled_from((*SPECIAL, *range(300, 305), SIZE)), max_size=6).map(tuple)
texts = st.sampled_from((CHAT.text, "other", ""))


@given(ids, ids, texts | st.none(), texts)
def test_pinned_ids_have_no_difference_and_others_exactly_one_class(
    expected: tuple[int, ...], own: tuple[int, ...], text: str | None, pinned_text: str
) -> None:
    pinned = prompt_of(pinned_text, expected)
    found = prompt_difference(pinned, answer_to(pinned, own, text), VOCABULARY)
    assert (found is None) == (own == expected)
    if found is not None:
        assert found.cause in get_args(PromptClass)
        assert (found.key, bool(found.detail)) == (pinned.key, True)
        place = found.position
        assert own[:place] == expected[:place]
        assert own[place : place + 1] != expected[place : place + 1]
        for piece, side in ((found.pinned_piece, expected), (found.own_piece, own)):
            assert (piece is None) == (place == len(side))


def stripped(side: tuple[int, ...], token: int, *, end: bool) -> list[int]:
    left = list(side)
    while left and left[-1 if end else 0] == token:
        left.pop(-1 if end else 0)
    return left


@given(ids, ids, texts | st.none())
def test_each_class_is_what_its_name_says(
    expected: tuple[int, ...], own: tuple[int, ...], text: str | None
) -> None:
    pinned = prompt_of("other", expected)
    found = prompt_difference(pinned, answer_to(pinned, own, text), VOCABULARY)
    if found is None:
        return
    if stripped(own, BOS, end=False) == stripped(expected, BOS, end=False):
        assert found.cause == "bos"
    elif stripped(own, EOS, end=True) == stripped(expected, EOS, end=True):
        assert found.cause == "eos"
    elif text not in (None, "other"):
        assert found.cause == "template"
    else:
        assert found.cause in ("special", "tokenizer")


@given(st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_ends_are_counted(expected: int, own: int, front: bool) -> None:
    """Whatever the numbers, both are said, and which word is right."""

    def with_ends(n: int) -> tuple[int, ...]:
        return (BOS,) * n + (300, 301) if front else (300, 301) + (EOS,) * n

    pinned = prompt_of("x", with_ends(expected))
    found = prompt_difference(pinned, answer_to(pinned, with_ends(own), "x"), VOCABULARY)
    if expected == own:
        assert found is None
        return
    assert found is not None
    word = "missing" if own < expected else "doubled" if expected else "added"
    assert found.detail == f"{'BOS' if front else 'EOS'} {word}: {own} instead of {expected}"


# -- over a hop ----------------------------------------------------------------------------------

ITEMS = {
    f"sql/{name}": CHAT.model_copy(update={"id": name}) for name in ("good", "bad", "worse", "gone")
}


def cell(name: str, wrong: Iterable[str] = (), **how: Any) -> CellEvidence:
    """A cell that doubles BOS in the prompts named `wrong`."""
    answers = {
        key: answer_to(prompt, (BOS, *CHAT.ids) if prompt.id in wrong else CHAT.ids, CHAT.text)
        for key, prompt in ITEMS.items()
    }
    return evidence(name, answers, **how)


def over_hop(
    parent: CellEvidence, child: CellEvidence, vocabulary: SourceVocabulary | None = VOCABULARY
) -> TextDrift:
    return text_drift(parent, child, ITEMS, vocabulary)


def with_record(child: CellEvidence, *changes: FieldChange) -> CellEvidence:
    record = CounterfactualRecord(
        artifact="gguf/base/f32",
        artifact_identity="a",
        parent="checkpoints/base",
        parent_identity="b",
        trusted=True,
        config=(FieldChange(field="rope", expected="1", found="2"),),
        text_fields=changes,
    )
    return replace(child, weights=StoredWeights({}, record))


class TestOverAHop:
    def test_nothing(self) -> None:
        assert over_hop(cell(ROOT_CELL), cell(F32)) == TextDrift()

    def test_prompts_that_were_right_before_and_are_not_after(self) -> None:
        found = over_hop(cell(ROOT_CELL, ["worse"]), cell(F32, ["bad", "worse"]))
        assert [each.key for each in found.prompts] == ["sql/bad"]
        assert over_hop(cell(ROOT_CELL, ["bad"]), cell(F32)).prompts == ()

    def test_in_the_order_of_the_pinned(self) -> None:
        found = over_hop(cell(ROOT_CELL), cell(F32, ["gone", "bad"]))
        assert [each.item for each in found.prompts] == ["bad", "gone"]

    def test_what_either_cell_did_not_answer_or_repeat_is_left_out(self) -> None:
        wrong = ["bad", "worse", "gone"]
        parent = cell(ROOT_CELL, state="unstable", different=["sql/bad"])
        child = cell(F32, wrong, state="unstable", different=["sql/worse"])
        assert [each.item for each in over_hop(parent, child).prompts] == ["gone"]
        failed = cell(F32, wrong, state="error", reason="x")
        assert over_hop(cell(ROOT_CELL), failed).prompts == ()

    def test_without_a_vocabulary_prompts_are_not_told_apart(self) -> None:
        assert over_hop(cell(ROOT_CELL), cell(F32, ["bad"]), None).prompts == ()

    def test_rules_for_ending_an_answer(self) -> None:
        before = {"end_ids": [2], "stop": [";"], "context_length": 512, "threads": 1}
        after = {"end_ids": [2, 5], "stop": [], "context_length": 64, "threads": 2}
        parent = cell(ROOT_CELL, settings=before)
        assert over_hop(parent, cell(F32, settings=after)).stops == (
            StopDifference(setting="end_ids", parent="[2]", child="[2,5]"),
            StopDifference(setting="stop", parent='[";"]', child="[]"),
            StopDifference(setting="context_length", parent="512", child="64"),
        )
        assert over_hop(parent, cell(F32, settings=before)).stops == ()

    def test_a_rule_one_of_them_does_not_report(self) -> None:
        parent = cell(ROOT_CELL, settings={"end_ids": [2], "stop": []})
        assert over_hop(parent, cell(F32, settings={"stop": []})).stops == ()
        assert over_hop(cell(F32, settings={"stop": []}), parent).stops == ()

    def test_fields_of_tokenizer_and_template(self) -> None:
        child = with_record(
            cell(F32),
            FieldChange(field="tokenizer.ggml.bos_token_id", expected="1", found="5"),
            FieldChange(field="tokenizer.chat_template", expected=None, found='"x"'),
            FieldChange(field="tokenizer.ggml.scores", expected="long", found=None),
        )
        assert over_hop(cell(ROOT_CELL), child).fields == (
            "tokenizer.ggml.bos_token_id: expected 1, found 5",
            'tokenizer.chat_template: expected nothing, found "x"',
            "tokenizer.ggml.scores: expected long, found nothing",
        )
        assert over_hop(child, cell(F32)).fields == ()
