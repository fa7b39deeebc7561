"""Grading: a completion against its golden prompt, nothing but a function of the two.

The prompt is one that `golden.evalset.load` accepted, so every check has something sound to
compare with. The answer is hostile text: it is parsed within limits, and what a detail quotes of it
is escaped and clipped.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

from pydantic import JsonValue

from driftline.golden.sql_forms import difference, forms, sql_text
from driftline.golden.strict import one_line, quoted, strict_json
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.items import (
    Canary,
    Check,
    Contains,
    Exact,
    GoldenPrompt,
    JsonEqual,
    JsonSchema,
    NotContains,
    Number,
    Regex,
    SamePromptIds,
    SqlEqual,
    ValidJson,
)
from driftline.schema.scores import CheckResult, EvalsetScore, ItemScore, ItemState

PATTERN_S = 1.0
"""Seconds a pattern of a JSON Schema may take."""
DETAIL = 180
"""Characters of a check's detail, at most."""
NUMBER = re.compile(
    r"(?:(?<![\w)])[-+\u2212])?"  # a sign, but not the hyphen of "3-5"
    r"(?:[0-9]{1,3}(?:[,_\u00a0\u202f][0-9]{3})+(?![0-9])|[0-9]+|(?<![0-9])(?=\.[0-9]))"
    r"(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
)
"""A decimal number; commas, underscores and no-break spaces may separate thousands."""


@dataclass(frozen=True)
class CheckGrade:
    """What one check gives one answer.

    Args:
        score: in [0, 1].
        detail: below a score of 1, why.
        parsed: False when the answer is not even of the language the check is about.
    """

    score: float
    detail: str = ""
    parsed: bool = True


GOOD = CheckGrade(1.0)


def grade(
    item: GoldenPrompt, prompt: PinnedPrompt, completion: Completion | None, cell: str
) -> ItemScore:
    """Grade one answer.

    Args:
        item: the golden prompt.
        prompt: its pinned text and ids.
        completion: the answer, None when the cell gave none.
        cell: the id of the cell that answered.

    Returns:
        The item's state, its score (the mean of its checks weighted by `weight`) and every check.

    Raises:
        ValueError: the three are not of one golden prompt.
    """
    if len({item.key, prompt.key, completion.key if completion else item.key}) > 1:
        raise ValueError(f"{item.key} cannot be graded by the answer to another prompt")
    rules = item.checks if completion else ()
    grades = [check(rule, item, prompt, completion) for rule in rules if completion]
    score = _weighted_mean([rule.weight for rule in rules], [each.score for each in grades])
    return ItemScore(
        cell=cell,
        evalset=item.evalset,
        item=item.id,
        tags=item.tags,
        state=_state(item, completion, grades, score),
        score=score,
        checks=tuple(
            CheckResult(kind=rule.kind, score=each.score, weight=rule.weight, detail=each.detail)
            for rule, each in zip(rules, grades, strict=True)
        ),
    )


def _weighted_mean(weights: list[float], scores: list[float]) -> float | None:
    """sum(w s) / sum(w), None of nothing; weights are scaled so that no sum overflows."""
    if not weights:
        return None
    scaled = [weight / max(weights) for weight in weights]
    return sum(w * s for w, s in zip(scaled, scores, strict=True)) / sum(scaled)


def _state(
    item: GoldenPrompt,
    completion: Completion | None,
    grades: list[CheckGrade],
    score: float | None,
) -> ItemState:
    if completion is None:
        return "errored"
    if score is None:
        return "unchecked"
    # The ids of a prompt are the same wherever its answer was cut.
    about_text = any(rule.kind != "same_prompt_ids" for rule in item.checks)
    if score == 1:
        return "correct"
    if about_text and completion.finish_reason != "stop":
        return "truncated"
    if not all(each.parsed for each in grades):
        return "unparsed"
    return "partial" if score > 0 else "wrong"


def summarize(scores: Iterable[ItemScore]) -> tuple[EvalsetScore, ...]:
    """Scores per cell and evalset, in the order in which each first appears."""
    groups: dict[tuple[str, str], list[ItemScore]] = {}
    for score in scores:
        groups.setdefault((score.cell, score.evalset), []).append(score)
    return tuple(_summary(cell, evalset, group) for (cell, evalset), group in groups.items())


def _summary(cell: str, evalset: str, group: list[ItemScore]) -> EvalsetScore:
    scored = [item.score for item in group if item.score is not None]
    states = Counter(item.state for item in group)
    return EvalsetScore(
        cell=cell,
        evalset=evalset,
        n=len(group),
        n_scored=len(scored),
        mean_score=math.fsum(scored) / len(scored) if scored else None,
        accuracy=states["correct"] / len(scored) if scored else None,
        states={state: states[state] for state in get_args(ItemState)},
    )


# -------------------------------------------------------------------------------------- checks


def check(
    rule: Check, item: GoldenPrompt, prompt: PinnedPrompt, completion: Completion
) -> CheckGrade:
    """Apply one check to one answer.

    Returns:
        Its score, with a detail of one short line without control characters.
    """
    try:
        result = _check(rule, item, prompt, completion)
    except RecursionError:
        result = CheckGrade(0.0, "nested too deeply to compare")
    return CheckGrade(result.score, one_line(result.detail, DETAIL), result.parsed)


def _check(
    rule: Check, item: GoldenPrompt, prompt: PinnedPrompt, completion: Completion
) -> CheckGrade:
    text = completion.text
    match rule:
        case Exact():
            result = _exact(rule, _expected(rule.value, item), text)
        case Contains() | NotContains() | Canary():
            result = _contains(rule, text)
        case Regex():
            result = _regex(rule, text)
        case ValidJson():
            result = _json(text, lambda _: GOOD)
        case JsonSchema():
            result = _json(text, lambda value: _accepted(rule.json_schema, value))
        case JsonEqual():
            result = _json(text, lambda value: _same_fields(_expected_json(rule, item), value))
        case SqlEqual():
            result = _sql_equal(_expected(rule.value, item), text, rule.dialect)
        case Number():
            result = _number(rule, text)
        case SamePromptIds():
            result = _same_ids(prompt.ids, completion.prompt_ids)
    return result


def _expected(value: str | None, item: GoldenPrompt) -> str:
    expected = item.reference if value is None else value
    if expected is None:
        raise ValueError(f"{item.key} has no reference, which no loaded evalset lacks")
    return expected


def _expected_json(rule: JsonEqual, item: GoldenPrompt) -> JsonValue:
    return strict_json(_expected(None, item)) if rule.value is None else rule.value


def _exact(rule: Exact, expected: str, text: str) -> CheckGrade:
    if rule.strip:
        expected, text = expected.strip(), text.strip()
    if text == expected:
        return GOOD
    at = _first_difference(expected, text)
    return CheckGrade(
        0.0,
        f"from character {at + 1} on: expected {quoted(expected[at:])}, found {quoted(text[at:])}",
    )


def _first_difference(expected: Sequence[object], given: Sequence[object]) -> int:
    """The first index where two sequences differ: the shorter one's length if it is a prefix."""
    pairs = enumerate(zip(expected, given, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(expected), len(given)))


def _contains(rule: Contains | NotContains | Canary, text: str) -> CheckGrade:
    if isinstance(rule, Canary):
        return GOOD if rule.phrase in text else CheckGrade(0.0, f"no canary {quoted(rule.phrase)}")
    value = rule.value
    if rule.ignore_case:
        value, text = value.casefold(), text.casefold()
    if (value in text) == isinstance(rule, Contains):
        return GOOD
    what = "does not contain" if isinstance(rule, Contains) else "contains"
    return CheckGrade(0.0, f"{what} {quoted(rule.value)}")


def _regex(rule: Regex, text: str) -> CheckGrade:
    import regex

    search = regex.fullmatch if rule.full else regex.search
    try:
        matched = search(rule.pattern, text, timeout=rule.timeout_s)
    except TimeoutError:
        return CheckGrade(0.0, f"timed out after {rule.timeout_s:g} s")
    what = "the whole answer does not match" if rule.full else "nothing matches"
    return GOOD if matched else CheckGrade(0.0, f"{what} {quoted(rule.pattern)}")


def _number(rule: Number, text: str) -> CheckGrade:
    numbers = NUMBER.findall(text)
    if not numbers:
        return CheckGrade(0.0, "no number")
    last = re.sub(r"[,_\u00a0\u202f]", "", numbers[-1]).replace("\u2212", "-")
    tolerance = max(rule.absolute, rule.relative * abs(rule.value))
    if abs(float(last) - rule.value) <= tolerance:
        return GOOD
    return CheckGrade(0.0, f"expected {rule.value:g} within {tolerance:g}, found {quoted(last)}")


def _same_ids(pinned: tuple[int, ...], given: tuple[int, ...]) -> CheckGrade:
    if pinned == given:
        return GOOD
    at = _first_difference(pinned, given)
    one, other = (str(ids[at]) if at < len(ids) else "none" for ids in (pinned, given))
    lengths = f"{len(pinned)} pinned ids, {len(given)} found"
    return CheckGrade(0.0, f"position {at}: pinned id {one}, found {other} ({lengths})")


# ---------------------------------------------------------------------------------------- JSON


def _json(text: str, judge: Callable[[JsonValue], CheckGrade]) -> CheckGrade:
    """What `judge` says of an answer that is strict JSON."""
    try:
        value = strict_json(text)
    except ValueError as error:
        return CheckGrade(0.0, str(error), parsed=False)
    return judge(value)


def _same_fields(expected: JsonValue, given: JsonValue) -> CheckGrade:
    """The share of top-level keys, of either side, whose values are equal; else all or nothing."""
    if not isinstance(expected, dict) or not isinstance(given, dict):
        if _same(expected, given):
            return GOOD
        return CheckGrade(0.0, f"expected {_shown(expected)}, found {_shown(given)}")
    keys = sorted(expected.keys() | given.keys())
    faults = []
    for key in keys:
        if key not in given:
            faults.append(f"{quoted(key)} is missing")
        elif key not in expected:
            faults.append(f"{quoted(key)} is extra")
        elif not _same(expected[key], given[key]):
            was = f"expected {_shown(expected[key])}, found {_shown(given[key])}"
            faults.append(f"{quoted(key)}: {was}")
    return CheckGrade(1 - len(faults) / len(keys) if keys else 1.0, "; ".join(faults))


def _same(one: JsonValue, other: JsonValue) -> bool:
    """Equality of JSON values: 1 is 1.0 and neither is true, which Python would have equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _shown(value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _accepted(schema: dict[str, JsonValue], value: JsonValue) -> CheckGrade:
    from referencing import Registry

    try:
        # An empty registry: a reference out of the schema is never fetched.
        errors = list(_validator()(schema, registry=Registry()).iter_errors(value))
    except TimeoutError:
        return CheckGrade(0.0, f"a pattern of the schema timed out after {PATTERN_S:g} s")
    except OverflowError:
        return CheckGrade(0.0, "a number is too large to check")
    if not errors:
        return GOOD
    first = min(errors, key=lambda error: (len(error.path), error.json_path, error.message))
    return CheckGrade(0.0, f"{first.json_path}: {first.message}")


@cache
def _validator() -> Any:
    """JSON Schema 2020-12 whose patterns run under a time limit, which `re` has not."""
    import regex
    from jsonschema import Draft202012Validator, ValidationError, validators

    def matches(pattern: str, text: str) -> bool:
        return regex.search(pattern, text, timeout=PATTERN_S) is not None

    def pattern(_: Any, wanted: str, value: Any, __: Any) -> Iterator[Any]:
        if isinstance(value, str) and not matches(wanted, value):
            yield ValidationError(f"{quoted(value)} does not match {quoted(wanted)}")

    def pattern_properties(run: Any, rules: Any, value: Any, _: Any) -> Iterator[Any]:
        fields = value.items() if isinstance(value, dict) else ()
        for wanted, rule in rules.items():
            for key, inner in fields:
                if matches(wanted, key):
                    yield from run.descend(inner, rule, path=key, schema_path=wanted)

    def additional(run: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key in value if isinstance(value, dict) else ():
            if key not in named and not any(matches(wanted, key) for wanted in patterns):
                if rule is False:
                    yield ValidationError(f"additional property {quoted(key)}")
                else:
                    yield from run.descend(value[key], rule, path=key)

    extend: Any = validators.extend  # its stub has no types
    return extend(
        Draft202012Validator,
        {
            "pattern": pattern,
            "patternProperties": pattern_properties,
            "additionalProperties": additional,
        },
    )


# ----------------------------------------------------------------------------------------- SQL


def _sql_equal(expected: str, text: str, dialect: str) -> CheckGrade:
    if text == expected:
        return GOOD
    wanted = forms(expected, dialect)
    try:
        given = forms(text, dialect)
    except ValueError as error:
        return CheckGrade(0.0, str(error), parsed=False)
    if len(wanted) != len(given):
        return CheckGrade(0.0, f"statements: expected {len(wanted)}, found {len(given)}")
    for one, other in zip(wanted, given, strict=True):
        if one != other:
            place, left, right = difference(one, other, "")
            sides = f"expected {sql_text(left, dialect)}, found {sql_text(right, dialect)}"
            return CheckGrade(0.0, f"{place.strip('_') or 'statement'}: {sides}")
    return GOOD
