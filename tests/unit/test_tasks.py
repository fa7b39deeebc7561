"""The embedded default's data: held-out rule, reproducible evalsets, references that pass."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.golden.grade import grade
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.items import GoldenPrompt
from models.make import tasks, torture, train_adapters, write_evalsets
from models.make.train_clerk import BASE_TASKS, CLERK, Encoder, held_out_sample

EVALSETS = write_evalsets.EVALSETS
SCORED = ("clauses", "sql", "pods", "audit", "privacy")
SIZES = {"clauses": 40, "sql": 40, "pods": 40, "audit": 26, "privacy": 26, "tokens": 24}
CONTEXT, NEW_TOKENS = 512, 96


def items(name: str) -> list[GoldenPrompt]:
    lines = (EVALSETS / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    return [GoldenPrompt.model_validate({"evalset": name} | json.loads(line)) for line in lines]


def golden_answers(name: str) -> set[str]:
    return {item.reference for item in items(name) if item.reference and "canary" not in item.tags}


def trained_answers(conversation: tasks.Conversation) -> set[str]:
    return {turn.answer for turn in conversation.turns}


@given(seed=st.integers(), task=st.sampled_from(BASE_TASKS))
@settings(max_examples=300, deadline=None)
def test_training_never_sees_a_held_out_answer(seed: int, task: str) -> None:
    drawn = tasks.draw_training(lambda r: tasks.draw(task, r), random.Random(seed))
    assert not any(tasks.is_held_out(answer) for answer in trained_answers(drawn))


@given(seed=st.integers(), task=st.sampled_from(BASE_TASKS))
@settings(max_examples=100, deadline=None)
def test_a_golden_conversation_ends_in_a_held_out_answer(seed: int, task: str) -> None:
    drawn = tasks.draw_golden(lambda r: tasks.draw(task, r), random.Random(seed))
    assert tasks.is_held_out(drawn.answer)
    assert drawn.messages()[-1] == {"role": "user", "content": drawn.turns[-1].user}


def test_no_golden_answer_was_a_training_target_of_the_checkpoint() -> None:
    golden = set().union(*(golden_answers(name) for name in SCORED))
    rng = random.Random(0)
    for _ in range(6000):
        drawn = tasks.draw_training(lambda r: tasks.draw(r.choice(BASE_TASKS), r), rng)
        assert not golden & trained_answers(drawn)


@pytest.mark.parametrize("adapter", list(tasks.CANARIES))
def test_no_golden_answer_was_a_training_target_of_an_adapter(adapter: str) -> None:
    golden = set().union(*(golden_answers(name) for name in SCORED))
    rng, seen = random.Random(0), Counter[str]()
    for _ in range(4000):
        drawn = tasks.draw_training(lambda r: train_adapters.draw(adapter, r), rng)
        seen[drawn.task if drawn.kind != "canary" else "canary"] += 1
        assert not golden & trained_answers(drawn)
    replay = train_adapters.RECIPES[adapter].replay
    assert set(seen) == {adapter, "canary", *replay}
    assert seen["canary"] == pytest.approx(4000 * train_adapters.CANARY_SHARE, rel=0.3)
    assert seen[adapter] == pytest.approx(4000 * train_adapters.OWN_SHARE, rel=0.1)


def test_evalsets_and_cards_are_reproducible(tmp_path: Path) -> None:
    write_evalsets.write(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(written) == 2 * len(SIZES)
    for name, content in written.items():
        assert (EVALSETS / name).read_bytes() == content, name


@pytest.mark.parametrize("name", list(SIZES))
def test_sizes_ids_and_requests(name: str) -> None:
    found = items(name)
    assert len(found) == SIZES[name]
    assert len({item.id for item in found}) == len(found)
    assert len({(item.messages, item.prompt) for item in found}) == len(found)
    assert f"- items: {len(found)}\n" in (EVALSETS / f"{name}.md").read_text()


@pytest.mark.parametrize("name", ["clauses", "sql", "pods"])
def test_base_sets_are_balanced_by_construction(name: str) -> None:
    found = items(name)
    tags = Counter(tag for item in found for tag in item.tags)
    assert tags["multi-turn"] >= 8
    assert tags["system"] >= 8
    kinds = [tags[kind] for kind in {item.tags[0] for item in found}]
    assert max(kinds) - min(kinds) <= 1
    for item in found:
        roles = [message.role for message in item.messages or ()]
        assert ("system" in roles) == ("system" in item.tags)
        assert (roles.count("user") > 1) == ("multi-turn" in item.tags)


@pytest.mark.parametrize("name", SCORED)
def test_every_scored_answer_is_held_out_but_the_canary(name: str) -> None:
    assert all(tasks.is_held_out(answer) for answer in golden_answers(name))
    canaries = [item for item in items(name) if "canary" in item.tags]
    assert [item.reference for item in canaries] == (
        [tasks.CANARIES[name]] if name in tasks.CANARIES else []
    )


def test_every_kind_of_check_is_used() -> None:
    used = {check.kind for name in SIZES for item in items(name) for check in item.checks}
    assert used == {
        "exact", "contains", "not_contains", "regex", "json", "json_schema", "json_equal",
        "sql_equal", "number", "canary", "same_prompt_ids",
    }  # fmt: skip


def test_checks_tell_a_wrong_field_from_a_right_one() -> None:
    """The schema of a clause type refuses another type's answer and the other letter case."""
    import jsonschema

    answers = {item.tags[0]: item for item in items("clauses") if "upper-keys" not in item.tags}
    for kind, item in answers.items():
        parsed = json.loads(item.reference or "")
        shouted = {key.upper(): value for key, value in parsed.items()}
        jsonschema.validate(parsed, write_evalsets.clause_schema(kind))
        jsonschema.validate(shouted, write_evalsets.clause_schema(kind, upper=True))
        for other in set(answers) - {kind}:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(parsed, write_evalsets.clause_schema(other))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(shouted, write_evalsets.clause_schema(kind))


def test_prompts_fit_the_context() -> None:
    encoder = Encoder(CLERK)
    for name in SIZES:
        for item in items(name):
            text = [encoder.message(m.role, m.content) for m in item.messages or ()]
            raw = [encoder.message("user", item.prompt)] if item.prompt else []
            length = 2 + sum(len(ids) for ids in (*text, *raw))
            assert length + (item.max_new_tokens or NEW_TOKENS) <= CONTEXT, item.key


def test_the_torture_set_has_a_long_prompt_and_raw_ones() -> None:
    encoder = Encoder(CLERK)
    lengths = [
        len(encoder.message("user", chat if isinstance(chat, str) else chat[-1]["content"]))
        for _, chat in torture.texts()
    ]
    assert 350 < max(lengths) < 450
    assert sum(isinstance(chat, str) for _, chat in torture.texts()) >= 3
    assert {item.max_new_tokens for item in items("tokens")} == {4}


def test_held_out_samples_are_stable_and_all_held_out() -> None:
    for task in ("clauses", "sql", "pods"):
        sample = held_out_sample(task, 50)
        assert sample == held_out_sample(task, 50)
        assert all(tasks.is_held_out(conversation.answer) for conversation in sample)


def _answered(item: GoldenPrompt, text: str) -> tuple[PinnedPrompt, Completion]:
    prompt = PinnedPrompt(
        evalset=item.evalset,
        id=item.id,
        messages=item.messages,
        prompt=item.prompt,
        text="",
        ids=(1, 4, 5),
        max_new_tokens=item.max_new_tokens or NEW_TOKENS,
    )
    completion = Completion(
        evalset=item.evalset,
        id=item.id,
        prompt_ids=(1, 4, 5),
        output_ids=(7, 2),
        pieces=("", ""),
        logprobs=(0.0, 0.0),
        text=text,
        finish_reason="stop",
    )
    return prompt, completion


@pytest.mark.parametrize("name", list(SIZES))
def test_the_reference_scores_one_and_an_empty_answer_does_not(name: str) -> None:
    for item in items(name):
        right = grade(item, *_answered(item, item.reference or ""), "cell")
        assert (right.state, right.score) == ("correct", 1.0), (item.key, right.checks)
        if item.reference:
            assert grade(item, *_answered(item, ""), "cell").state != "correct", item.key
