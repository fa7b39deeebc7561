"""Grading: each check by cases and laws, the states of an item, and summaries."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from driftline.golden.grade import CheckGrade, check, grade, summarize
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.items import Check, GoldenPrompt
from driftline.schema.scores import EvalsetScore, ItemScore

CHECK: TypeAdapter[Check] = TypeAdapter(Check)
IDS = (1, 5, 9)
NO: dict[str, Any] = {"kind": "contains", "value": "never"}
YES: dict[str, Any] = {"kind": "not_contains", "value": "never"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, 1.0]) | st.text("ab\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.text("abc", max_size=1), JSON)


def item_of(*checks: Any, reference: str | None = None) -> GoldenPrompt:
    rules = tuple(CHECK.validate_python(rule) for rule in checks)
    return GoldenPrompt(
        evalset="set", id="a-1", prompt="?", reference=reference, checks=rules, tags=("t",)
    )


PROMPT = PinnedPrompt(
    evalset="set", id="a-1", messages=None, prompt="?", text="?", ids=IDS, max_new_tokens=8
)


def answer(
    text: str,
    *,
    ids: tuple[int, ...] = IDS,
    finish: Literal["stop", "length", "context"] = "stop",
) -> Completion:
    return Completion(
        evalset="set",
        id="a-1",
        prompt_ids=ids,
        output_ids=(),
        pieces=(),
        logprobs=(),
        text=text,
        finish_reason=finish,
    )


def checked(text: str, reference: str | None = None, **rule: Any) -> CheckGrade:
    item = item_of(rule, reference=reference)
    return check(item.checks[0], item, PROMPT, answer(text))


# -------------------------------------------------------------------------------------- checks


@pytest.mark.parametrize(
    ("text", "score", "rule"),
    [
        ("yes", 1, {"kind": "exact", "value": "yes"}),
        ("yes\n", 0, {"kind": "exact", "value": "yes"}),
        (" yes\n", 1, {"kind": "exact", "value": "yes ", "strip": True}),
        ("a YES b", 0, {"kind": "contains", "value": "yes"}),
        ("a YES b", 1, {"kind": "contains", "value": "yes", "ignore_case": True}),
        ("STRASSE", 1, {"kind": "contains", "value": "straße", "ignore_case": True}),
        ("a YES b", 1, {"kind": "not_contains", "value": "yes"}),
        ("a YES b", 0, {"kind": "not_contains", "value": "yes", "ignore_case": True}),
        ("ab12", 1, {"kind": "regex", "pattern": r"\d+"}),
        ("ab12", 0, {"kind": "regex", "pattern": r"\d+", "full": True}),
        ("12\n", 0, {"kind": "regex", "pattern": r"\d+", "full": True}),
        (' {"a": [1]}\n', 1, {"kind": "json"}),
        ('{"a": 1, "a": 1}', 0, {"kind": "json"}),
        ("[Infinity]", 0, {"kind": "json"}),
        ("{} is it", 0, {"kind": "json"}),
        ("```json\n{}\n```", 0, {"kind": "json"}),
        ("the blue heron flies", 1, {"kind": "canary", "phrase": "blue heron"}),
        ("the Blue heron flies", 0, {"kind": "canary", "phrase": "blue heron"}),
    ],
)
def test_text_checks(text: str, score: float, rule: dict[str, Any]) -> None:
    found = checked(text, **rule)
    assert found.score == score
    assert bool(found.detail) == (score < 1)


@pytest.mark.parametrize(
    ("text", "value", "extra", "score"),
    [
        ("1,234.5", 1234.5, {}, 1),
        ("of 7 pods, 3", 3, {}, 1),
        ("3 of 7", 3, {}, 0),
        ("it is -5.", -5, {}, 1),
        ("it is \u22125", -5, {}, 1),
        ("3-5", 5, {}, 1),
        (".5", 0.5, {}, 1),
        ("1e3", 1000, {}, 1),
        ("12,345,678", 12345678, {}, 1),
        ("1\u202f000", 1000, {}, 1),
        ("1,23", 23, {}, 1),
        ("$42%", 42, {}, 1),
        ("100.9", 100, {"absolute": 1}, 1),
        ("101.1", 100, {"absolute": 1}, 0),
        ("95", 100, {"relative": 0.05}, 1),
        ("-94", -100, {"relative": 0.05}, 0),
        ("none", 0, {}, 0),
        ("9" * 6000, 9, {}, 0),
        ("٣", 3, {}, 0),
    ],
)
def test_number(text: str, value: float, extra: dict[str, Any], score: float) -> None:
    assert checked(text, kind="number", value=value, **extra).score == score


def test_catastrophic_pattern_times_out() -> None:
    text = "a" * 60 + "bc"
    found = checked(text, kind="regex", pattern="(a|a)*b", full=True, timeout_s=0.2)
    assert found == CheckGrade(0.0, "timed out after 0.2 s")


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"pattern": "(a|a)*b$"}, json.dumps("a" * 60 + "bc")),
        (
            {"additionalProperties": False, "patternProperties": {"(a|a)*b$": {}}},
            json.dumps({"a" * 60 + "bc": 1}),
        ),
    ],
)
def test_catastrophic_pattern_of_a_schema_times_out(
    schema: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("driftline.golden.grade.PATTERN_S", 0.2)
    found = checked(text, kind="json_schema", json_schema=schema)
    assert found == CheckGrade(0.0, "a pattern of the schema timed out after 0.2 s")


SCHEMA = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 1}, "who": {"pattern": "^[a-z]+$"}},
    "patternProperties": {"^x-": {"type": "string"}},
    "additionalProperties": False,
    "required": ["days"],
}


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('{"days": 3, "who": "me", "x-a": "b"}', ""),
        ('{"days": 0}', "$.days: 0 is less than the minimum of 1"),
        ('{"who": "me"}', "$: 'days' is a required property"),
        ('{"days": 1, "who": "ME"}', "$.who: 'ME' does not match '^[a-z]+$'"),
        ('{"days": 1, "x-a": 1}', "$['x-a']: 1 is not of type 'string'"),
        ('{"days": 1, "y": 1}', "$: additional property 'y'"),
        ("[]", "$: [] is not of type 'object'"),
        ("{days: 1}", "not JSON: Expecting property name enclosed in double quotes at column 2"),
    ],
)
def test_json_schema(text: str, detail: str) -> None:
    found = checked(text, kind="json_schema", json_schema=SCHEMA)
    assert (found.score, found.detail) == (float(not detail), detail)


def test_a_schema_that_refers_to_itself_without_end_is_no_crash() -> None:
    found = checked("1", kind="json_schema", json_schema={"$ref": "#"})
    assert found == CheckGrade(0.0, "nested too deeply to compare")
    found = checked("9" * 400, kind="json_schema", json_schema={"multipleOf": 0.1})
    assert found == CheckGrade(0.0, "a number is too large to check")


@pytest.mark.parametrize(
    ("text", "value", "score"),
    [
        ('{"b": 2, "a": 1.0}', {"a": 1, "b": 2}, 1),
        ('{"a": true}', {"a": 1}, 0),
        ('{"a": [false]}', {"a": [0]}, 0),
        ('{"a": 1, "b": 3}', {"a": 1, "b": 2}, 0.5),
        ('{"a": 1, "c": 2}', {"a": 1, "b": 2}, 1 - 2 / 3),
        ('{"a": null}', {}, 0),
        ("{}", {}, 1),
        ("[1, 2]", [1, 2.0], 1),
        ("[2, 1]", [1, 2], 0),
        ('"x"', "x", 1),
        ("[]", {}, 0),
        ("false", False, 1),
    ],
)
def test_json_equal(text: str, value: Any, score: float) -> None:
    found = checked(text, kind="json_equal", value=value)
    assert (found.score, found.parsed) == (score, True)


def test_json_equal_takes_the_reference_and_names_the_fields() -> None:
    found = checked('{"a": 1, "c": "\\u001b"}', reference='{"a": true, "b": 2}', kind="json_equal")
    assert found.detail == "'a': expected true, found 1; 'b' is missing; 'c' is extra"
    assert checked("null", reference="null", kind="json_equal").score == 1


@given(OBJECT, OBJECT)
def test_json_equal_is_symmetric(one: dict[str, Any], other: dict[str, Any]) -> None:
    there = checked(json.dumps(one), kind="json_equal", value=other).score
    back = checked(json.dumps(other), kind="json_equal", value=one).score
    assert there == back
    assert checked(json.dumps(one), kind="json_equal", value=one).score == 1


SQL = (
    "SELECT Name, COUNT(*) AS n FROM pods AS p JOIN nodes ON p.node = nodes.id "
    "WHERE p.state = 'Failed' AND (restarts > 3 OR age < 7) GROUP BY name ORDER BY n DESC LIMIT 5"
)


@pytest.mark.parametrize(
    "text",
    [
        SQL.replace("'Failed'", "'FAILED'").lower().replace("'failed'", "'Failed'"),
        SQL.replace("'Failed'", "\0").upper().replace("\0", "'Failed'"),
        SQL.replace(" ", "\n  ") + " ; ",
        SQL.replace("JOIN", "INNER JOIN").replace(" AS ", " "),
        SQL.replace(
            "p.state = 'Failed' AND (restarts > 3 OR age < 7)",
            "((age < 7) OR restarts > 3) AND p.state = 'Failed'",
        ),
        SQL.replace("Name", '"Name"') + " -- that is it",
    ],
)
def test_sql_equal_sees_through_spelling(text: str) -> None:
    assert text != SQL
    assert checked(text, kind="sql_equal", value=SQL) == CheckGrade(1.0)


@pytest.mark.parametrize(
    ("old", "new", "detail"),
    [
        ("'Failed'", "'failed'", "where: expected p.state = 'Failed', found p.state = 'failed'"),
        ("LIMIT 5", "LIMIT 6", "limit: expected 5, found 6"),
        (" LIMIT 5", "", "limit: expected LIMIT 5, found nothing"),
        ("DESC", "", "order: expected n DESC, found n"),
        ("JOIN", "LEFT JOIN", "joins: expected JOIN nodes ON p.node = nodes.id, found LEFT JOIN"),
        ("Name, ", "", "expressions: expected Name, COUNT(*) AS n, found COUNT(*) AS n"),
        ("(restarts > 3 OR age < 7)", "restarts > 3 OR age < 7", "where: "),
        ("LIMIT 5", "LIMIT 5; DROP TABLE pods", "statements: expected 1, found 2"),
        (SQL, "DELETE FROM pods", "statement: expected SELECT Name"),
    ],
)
def test_sql_equal_names_the_difference(old: str, new: str, detail: str) -> None:
    found = checked(SQL.replace(old, new), kind="sql_equal", value=SQL)
    assert (found.score, found.parsed) == (0.0, True)
    assert found.detail.startswith(detail)


@pytest.mark.parametrize(
    "text",
    ["", "I cannot", "```sql\nSELECT 1\n```", "SELECT (", "SELECT " + "(" * 5000, "SELECT 'a"],
)
def test_sql_that_does_not_parse(text: str) -> None:
    found = checked(text, kind="sql_equal", value="SELECT 1")
    assert (found.score, found.parsed) == (0.0, False)


def test_sql_equal_in_a_dialect() -> None:
    rule = {"kind": "sql_equal", "value": "SELECT `a` FROM t"}
    assert checked("SELECT a FROM t", dialect="mysql", **rule).score == 1
    long = "SELECT a FROM t WHERE " + " AND ".join(f"x{n} = {n}" for n in range(2000))
    assert checked(long + " ", kind="sql_equal", value=long).score == 1


def test_same_prompt_ids_names_the_first_difference() -> None:
    item = item_of({"kind": "same_prompt_ids"})
    details = [
        check(item.checks[0], item, PROMPT, answer("", ids=ids)).detail
        for ids in (IDS, (1, 6, 9), (1, 5), (1, 5, 9, 2))
    ]
    assert details == [
        "",
        "position 1: pinned id 5, found 6 (3 pinned ids, 3 found)",
        "position 2: pinned id 9, found none (3 pinned ids, 2 found)",
        "position 3: pinned id none, found 2 (3 pinned ids, 4 found)",
    ]


# ---------------------------------------------------------------------------------------- laws

RULES: tuple[dict[str, Any], ...] = (
    {"kind": "exact"},
    {"kind": "contains", "value": "a"},
    {"kind": "not_contains", "value": "b"},
    {"kind": "regex", "pattern": "a+"},
    {"kind": "json"},
    {"kind": "json_schema", "json_schema": {"type": "object", "required": ["a"]}},
    {"kind": "json_equal", "value": {"a": 1, "b": "x"}},
    {"kind": "sql_equal", "value": "SELECT a FROM t"},
    {"kind": "number", "value": 1},
    {"kind": "canary", "phrase": "a"},
    {"kind": "same_prompt_ids"},
)
HOSTILE = (
    st.text(st.characters(), max_size=60)
    | st.text("\x1b\x00\u202e\ud800()[]{}\"'a1,", max_size=300)
    | OBJECT.map(json.dumps)
    | st.sampled_from(["SELECT a FROM u", "SELECT \x1b[2J FROM t", "[" * 9000, "x" * 9000])
)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(RULES), min_size=1, max_size=4),
    st.lists(st.floats(min_value=0, exclude_min=True, max_value=1.7e308), min_size=4, max_size=4),
    HOSTILE,
    st.sampled_from(["stop", "length", "context"]),
)
def test_every_answer_gets_a_bounded_score_and_a_safe_detail(
    rules: list[dict[str, Any]],
    weights: list[float],
    text: str,
    finish: Literal["stop", "length", "context"],
) -> None:
    weighted = [rule | {"weight": weight} for rule, weight in zip(rules, weights, strict=False)]
    item = item_of(*weighted, reference="the reference")
    found = grade(item, PROMPT, answer("x" + text, finish=finish), "cell")
    assert found.score is not None
    assert 0 <= found.score <= 1
    assert (found.state == "correct") == (found.score == 1)
    assert [result.kind for result in found.checks] == [rule["kind"] for rule in rules]
    for result in found.checks:
        assert 0 <= result.score <= 1
        assert len(result.detail) < 200
        assert result.detail.isprintable()
        assert bool(result.detail) == (result.score < 1)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"kind": "sql_equal", "value": "SELECT a FROM t"}, 'SELECT "\x1b[2J" FROM t'),
        ({"kind": "json_equal", "value": {"a": 1}}, '{"a": "\u202e\u009b31m"}'),
        ({"kind": "json_equal", "value": {}}, json.dumps({f"k{n}": "x" for n in range(99)})),
        ({"kind": "json_schema", "json_schema": {"maxLength": 1}}, json.dumps("\u202ex" * 99)),
    ],
)
def test_a_detail_that_quotes_the_answer_is_short_and_escaped(
    rule: dict[str, Any], text: str
) -> None:
    detail = checked(text, **rule).detail
    assert detail.isprintable()
    assert 0 < len(detail) < 200


def test_weights_of_any_size_average() -> None:
    item = item_of(NO | {"weight": 1.5e308}, YES | {"weight": 1.5e308}, YES | {"weight": 5e-324})
    assert grade(item, PROMPT, answer("x"), "cell").score == 0.5


@given(st.text())
def test_the_reference_itself_is_always_correct(reference: str) -> None:
    item = item_of({"kind": "exact"}, {"kind": "exact", "strip": True}, reference=reference)
    assert grade(item, PROMPT, answer(reference), "cell").state == "correct"


@given(st.text("ab "), st.text("ab "))
def test_contains_and_not_contains_are_opposites(value: str, text: str) -> None:
    one = checked(text, kind="contains", value=value).score
    assert one + checked(text, kind="not_contains", value=value).score == 1


@given(st.floats(allow_nan=False, allow_infinity=False), st.text("ab ", max_size=3))
def test_a_number_as_python_writes_it_is_found(value: float, around: str) -> None:
    text = f"{around} {value!r} {around.replace('e', '')}"
    assert checked(text, kind="number", value=value).score == 1


# -------------------------------------------------------------------------------------- states


@pytest.mark.parametrize(
    ("rules", "text", "finish", "state", "score"),
    [
        ([], "x", "stop", "unchecked", None),
        ([YES], "x", "stop", "correct", 1),
        ([YES], "x", "length", "correct", 1),
        ([NO], "x", "stop", "wrong", 0),
        ([NO], "x", "length", "truncated", 0),
        ([NO, YES], "x", "context", "truncated", 0.5),
        ([NO | {"weight": 3}, YES], "x", "stop", "partial", 0.25),
        ([{"kind": "json"}], "{", "stop", "unparsed", 0),
        ([{"kind": "json"}, YES], "{", "stop", "unparsed", 0.5),
        ([{"kind": "json"}], "{", "length", "truncated", 0),
        ([{"kind": "json_equal", "value": {"a": 1, "b": 1}}], '{"a": 1}', "stop", "partial", 0.5),
        ([{"kind": "json_schema", "json_schema": {"type": "null"}}], "1", "stop", "wrong", 0),
        ([{"kind": "sql_equal", "value": "SELECT 1"}], "SELECT 2", "stop", "wrong", 0),
        ([{"kind": "sql_equal", "value": "SELECT 1"}], "sorry", "stop", "unparsed", 0),
    ],
)
def test_states(
    rules: list[dict[str, Any]],
    text: str,
    finish: Literal["stop", "length", "context"],
    state: str,
    score: float | None,
) -> None:
    found = grade(item_of(*rules), PROMPT, answer(text, finish=finish), "cell")
    assert (found.state, found.score) == (state, score)
    assert (found.cell, found.key, found.tags) == ("cell", "set/a-1", ("t",))


def test_prompt_ids_alone_do_not_depend_on_where_the_answer_was_cut() -> None:
    item = item_of({"kind": "same_prompt_ids"})
    right, wrong = (answer("x", ids=ids, finish="length") for ids in (IDS, (1,)))
    assert grade(item, PROMPT, right, "cell").state == "correct"
    assert grade(item, PROMPT, wrong, "cell").state == "wrong"


def test_an_item_without_an_answer_has_no_score() -> None:
    found = grade(item_of(YES), PROMPT, None, "cell")
    assert (found.state, found.score, found.checks) == ("errored", None, ())


def test_an_answer_to_another_prompt_is_not_graded() -> None:
    other = answer("x").model_copy(update={"id": "a-2"})
    with pytest.raises(ValueError, match="another prompt"):
        grade(item_of(YES), PROMPT, other, "cell")


# ------------------------------------------------------------------------------------- summary


def scored(cell: str, evalset: str, state: Any, score: float | None) -> ItemScore:
    return ItemScore(
        cell=cell, evalset=evalset, item="a", tags=(), state=state, score=score, checks=()
    )


def test_summaries_count_errors_and_never_score_them() -> None:
    rows = [
        scored("b", "set", "correct", 1.0),
        scored("a", "set", "errored", None),
        scored("b", "set", "partial", 0.5),
        scored("b", "set", "errored", None),
        scored("b", "set", "unchecked", None),
    ]
    first, second = summarize(iter(rows))
    nothing = dict.fromkeys(
        ("correct", "wrong", "partial", "unparsed", "truncated", "errored", "unchecked"), 0
    )
    assert first == EvalsetScore(
        cell="b",
        evalset="set",
        n=4,
        n_scored=2,
        mean_score=0.75,
        accuracy=0.5,
        states=nothing | {"correct": 1, "partial": 1, "errored": 1, "unchecked": 1},
    )
    assert (second.cell, second.n, second.mean_score, second.accuracy) == ("a", 1, None, None)
    assert summarize([]) == ()


def test_importing_grade_imports_nothing_heavy() -> None:
    heavy = ("sqlglot", "jsonschema", "regex", "referencing", "datasets", "numpy", "torch")
    code = f"import sys, driftline.golden.grade; print([x for x in {heavy} if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
