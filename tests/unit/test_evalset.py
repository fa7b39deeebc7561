"""Evalset files: what loads is what was written, and everything wrong is said at once."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.errors import InputError
from driftline.golden import evalset, strict

GOOD = {"id": "a-1", "prompt": "Say yes", "reference": "yes", "checks": [{"kind": "exact"}]}

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A function that writes lines, objects or bytes to an evalset file."""

    def write(*lines: Any, name: str = "set.jsonl") -> Path:
        path = tmp_path / name
        parts = [line if isinstance(line, bytes) else (json.dumps(line)).encode() for line in lines]
        path.write_bytes(b"".join(part + b"\n" for part in parts))
        return path

    return write


def problems(*paths: Path) -> list[str]:
    """The problems of files, as `line: what`, with the files' folder left out."""
    with pytest.raises(InputError) as caught:
        evalset.load(paths)
    assert caught.value.exit_code == 2
    lines = [line.strip() for line in caught.value.message.splitlines()]
    return [line.removeprefix(f"{paths[0].parent}/") for line in lines[1:]]


def problem(path: Path) -> str:
    """The one problem of a file, without its place."""
    (line,) = problems(path)
    return line.split(": ", 1)[1]


def checked(**check: Any) -> dict[str, Any]:
    """An item without a reference whose only check is this one."""
    return {"id": "a-1", "prompt": "?", "checks": [check]}


# ---------------------------------------------------------------------------------- what loads


def test_items_come_in_order_and_know_their_evalset(write: Write) -> None:
    one = write(GOOD, {**GOOD, "id": "a-2"}, name="one.jsonl")
    two = write(GOOD, name="two.v1.jsonl")
    keys = [item.key for item in evalset.load([two, one])]
    assert keys == ["two.v1/a-1", "one/a-1", "one/a-2"]


def test_checks_of_different_shapes_keep_their_own_fields(write: Write) -> None:
    values: list[Any] = [{"a": 1}, [1, 2.5], "x", True, 10**30, {"a": "b", "c": None}]
    lines = [
        {**checked(kind="json_equal", value=value), "id": f"v{index}"}
        for index, value in enumerate(values)
    ]
    loaded = [item.checks[0].model_dump()["value"] for item in evalset.load([write(*lines)])]
    assert [json.dumps(value) for value in loaded] == [json.dumps(value) for value in values]


def test_blank_lines_and_windows_line_ends_do_not_move_anything(write: Write) -> None:
    good = json.dumps(GOOD).encode()
    path = write(b"", good + b"\r", b"  \t", b"\r", good.replace(b"a-1", b"a-2") + b"\r", b"{")
    assert problems(path) == [
        "set.jsonl:6: not JSON: Expecting property name enclosed in double quotes at column 2"
    ]
    assert len(evalset.load([write(b"", good + b"\r", b"")])) == 1


def test_a_last_line_without_a_line_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(json.dumps(GOOD).encode())
    assert len(evalset.load([path])) == 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_any_text_survives(prompts: list[str]) -> None:
    # U+2028, U+0085, \x0b and \x1c end a line for str.splitlines, and must not here.
    special = "\u2028|\u2029|\x85|\x7f"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.jsonl"
        lines = [
            json.dumps({"id": f"p{n}", "prompt": special + text}, ensure_ascii=bool(n % 2))
            for n, text in enumerate(prompts)
        ]
        path.write_bytes("\n".join(lines).encode())
        assert [item.prompt for item in evalset.load([path])] == [special + x for x in prompts]


def test_loading_is_quiet_offline_and_leaves_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    scratch = tmp_path / "[a-z]*"  # a pattern, if anything took it for one
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(evalset.load([write(GOOD)])) == 1
    assert not list(scratch.iterdir())
    assert capfd.readouterr() == ("", "")


def test_path_of() -> None:
    assert evalset.path_of("clauses") == Path("evalsets/clauses.jsonl")
    for name in ("../secrets", "", "a/b", ".hidden"):
        with pytest.raises(InputError, match="cannot name an evalset"):
            evalset.path_of(name)


# ------------------------------------------------------------------------------ what is refused

FAULTS: tuple[tuple[Any, str], ...] = (
    (b'{"id": "x1", "prompt": ', "not JSON: Expecting value at column 24"),
    (b'{"id": "x2", "prompt": "a", "prompt": "b"}', "duplicate key 'prompt'"),
    (
        b'{"id": "x3", "prompt": "a", "checks": [{"kind": "number", "value": NaN}]}',
        "NaN is not JSON",
    ),
    ({"id": "x4", "promt": "a"}, 'promt: unknown key (did you mean "prompt"?)'),
    ({"prompt": "a"}, "id: missing"),
    ({"id": 5, "prompt": "a"}, "id: should be a valid string; found 5"),
    ({"id": "a-1", "prompt": "again"}, "id: 'a-1' is taken: line 1 has it"),
    (
        {"id": "x8", "prompt": "a", "messages": [{"role": "user", "content": "a"}]},
        'needs either "messages" (a chat) or "prompt" (raw text): found both',
    ),
    ({"id": "x9"}, 'needs "messages" (a chat) or "prompt" (raw text): found neither'),
    (
        {"id": "x10", "messages": [{"role": "assistant", "content": "a"}]},
        'messages[0].role: the last message must be from the "user"; found "assistant"',
    ),
    ({"id": "x11", "messages": []}, "messages: empty: a chat ends with a message from the user"),
    (
        {**checked(kind="regex", pattern="a(b"), "id": "x12"},
        "checks[0].pattern: not a regular expression: missing ) at position 3 of 'a(b'",
    ),
    (
        {**checked(kind="json_schema", json_schema={"properties": {"a": {"minimum": "1"}}})},
        "checks[0].json_schema: $.properties.a.minimum: '1' is not of type 'number'",
    ),
    (
        {**checked(kind="exact"), "id": "x14"},
        'checks[0]: exact needs "value", or the item needs "reference"',
    ),
    (
        {**checked(kind="json_equal"), "id": "x15", "reference": "{a: 1}"},
        "checks[0]: the item's reference: not JSON: "
        "Expecting property name enclosed in double quotes at column 2",
    ),
    (
        {**checked(kind="sql_equal", value="SELECT a FROM"), "id": "x16"},
        "checks[0].value: not SQL: Expected table name at line 1 column 13",
    ),
    (
        {**checked(kind="sql_equal", value="SELECT 1", dialect="postgre"), "id": "x17"},
        "checks[0].dialect: unknown dialect 'postgre' (did you mean \"postgres\"?)",
    ),
    (
        {**checked(kind="regx", pattern="a"), "id": "x18"},
        "checks[0].kind: unknown check 'regx' (did you mean \"regex\"?)",
    ),
    ({**checked(kind="regex", patern="a"), "id": "x19"}, "checks[0].pattern: missing"),
    (b'{"id": "x20", "prompt": "caf\xe9"}', "not UTF-8: byte 0xe9 at byte 29"),
    (b"[1]", "expected a JSON object, found an array"),
)


def test_every_fault_of_every_file_is_reported_with_its_line(write: Write) -> None:
    first = write(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), *(line for line, _ in FAULTS))
    second = write({"id": "b c", "prompt": "x", "evalset": "b"}, name="other.jsonl")
    found = problems(first, second, first.with_name("sett.jsonl"))
    for number, (_, what) in enumerate(FAULTS, start=2):
        assert any(line.startswith(f"set.jsonl:{number}: {what}") for line in found), what
    assert found[0].startswith("set.jsonl:1: starts with a byte order mark")
    assert 'set.jsonl:20: checks[0].patern: unknown key (did you mean "pattern"?)' in found
    assert "set.jsonl:14: id: 'a-1' is taken: line 1 has it" in found
    assert "other.jsonl:1: id: should match pattern" in "\n".join(found)
    assert "other.jsonl:1: evalset: unknown key: the file's name says it" in "\n".join(found)
    assert found[-1] == 'sett.jsonl:1: not found (did you mean "set.jsonl"?)'
    numbers = [int(line.split(":")[1]) for line in found if line.startswith("set.")]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("line", [line for line, _ in FAULTS], ids=range(len(FAULTS)))
def test_no_fault_brings_others_with_it(write: Write, line: Any) -> None:
    known = {3: 2, 18: 2}  # an unknown key stands beside the one it was meant to be
    position = next(n for n, (fault, _) in enumerate(FAULTS) if fault is line)
    if position == 6:
        return  # a repeated id needs the first
    assert len(problems(write(line))) == known.get(position, 1)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (checked(kind="contains", value=""), "checks[0].value: empty: every answer contains it"),
        (checked(kind="canary", phrase=""), "checks[0].phrase: empty: every answer contains it"),
        (checked(kind="number", value="3"), 'checks[0].value: should be a valid number; found "3"'),
        (
            checked(kind="number", value=3, weight=0),
            "checks[0].weight: should be greater than 0; found 0",
        ),
        (checked(kind="number", value=True), "checks[0].value: should be a valid number"),
        (checked(pattern="a"), "checks[0].kind: missing; known: exact, contains"),
        ({**GOOD, "checks": ["exact"]}, 'checks[0]: should be an object; found "exact"'),
        ({**GOOD, "checks": {"kind": "exact"}}, "checks: should be a valid array; found an object"),
        ({**GOOD, "max_new_tokens": 1.5}, "max_new_tokens: should be a valid integer; found 1.5"),
        ({**GOOD, "prompt": "\ud800"}, r"\ud800 is half of a surrogate pair, not a character"),
        (
            {"id": "a", "messages": [{"role": "user", "content": "a", "nam": "b"}]},
            "messages[0].nam: unknown key",
        ),
        (
            {"id": "a", "messages": [{"role": "usr", "content": "a"}]},
            "messages[0].role: should be 'system', 'user' or 'assistant'; found \"usr\"",
        ),
        (checked(kind="json_schema", json_schema={"pattern": "("}), "checks[0].json_schema: $.pa"),
        (
            checked(kind="json_schema", json_schema={"$ref": "https://example.org/s"}),
            "checks[0].json_schema: $ref: 'https://example.org/s' is not in this schema",
        ),
        (
            checked(kind="json_schema", json_schema={"items": {"$ref": "#/$defs/x"}}),
            "checks[0].json_schema: $ref: '#/$defs/x' is not in this schema",
        ),
        (
            checked(
                kind="json_schema",
                json_schema={"$schema": "http://json-schema.org/draft-07/schema#"},
            ),
            "checks[0].json_schema: $schema: only https://json-schema.org/draft/2020-12/schema",
        ),
        (
            checked(kind="sql_equal"),
            'checks[0]: sql_equal needs "value", or the item needs "reference"',
        ),
        (
            {**checked(kind="sql_equal"), "reference": "I cannot"},
            "checks[0]: the item's reference: not a query or a statement that can be compared",
        ),
        (b'{"id": "a", "prompt": "a\rb"}', "a carriage return within the line"),
        (b'{"id": "a", "prompt": "a\x00b"}', "not JSON: Invalid control character at"),
        (b'{"id": "a", "max_new_tokens": 1e999, "prompt": "a"}', "the number '1e999' is too large"),
        (b"[" * 100_000, "not JSON that can be read: nested too deeply"),
        (b"9" * 5000, "not JSON that can be read: a number has too many digits"),
        (
            b'{"id": "a", "prompt": "a", "tags": ' + b"[" * 300 + b"]" * 300 + b"}",
            "nested too deeply to read",
        ),
    ],
)
def test_one_fault(write: Write, line: Any, what: str) -> None:
    found = problems(write(line))
    assert found[0].split(": ", 1)[1].startswith(what)


@pytest.mark.parametrize(
    ("schema"),
    [
        {"$ref": "#/$defs/x", "$defs": {"x": {"type": "string", "pattern": "^a+$"}}},
        {"$id": "https://example.org/a", "$anchor": "top", "properties": {"a": {"$ref": "#top"}}},
    ],
)
def test_references_within_a_schema_are_fine(write: Write, schema: dict[str, Any]) -> None:
    assert evalset.load([write(checked(kind="json_schema", json_schema=schema))])


def test_an_empty_file_and_a_second_evalset_of_a_name(write: Write, tmp_path: Path) -> None:
    assert problem(write(b"", b" ")) == "no items: the file is empty"
    good = write(GOOD)
    (tmp_path / "again").mkdir()
    again = write(GOOD, name="again/set.jsonl")
    assert "again/set.jsonl:1: a second evalset of this name" in problems(good, again)[0]
    assert "set.jsonl:1: a second evalset of this name" in problems(good, good)[0]
    assert "cannot name an evalset" in problem(write(GOOD, name="a b.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    assert problem(tmp_path / "folder.jsonl").startswith("cannot be read: ")


def test_a_screenful_of_problems_and_a_count_of_the_rest(write: Write) -> None:
    found = problems(write(*([b"{"] * 73)))
    assert len(found) == 51
    assert found[-1] == "and 23 more"


def test_hostile_text_reaches_no_terminal(write: Write) -> None:
    path = write({"id": "\x1b[31m\n::error::", "prompt": "a", "\x1b\u202e": 1})
    text = "\n".join(problems(path))
    assert text.replace("\n", "").isprintable()
    assert all(line.startswith("set.jsonl:1: ") for line in text.splitlines())


# ------------------------------------------------------------------------------- strict parsers


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).filter(lambda value: "Infinity" not in json.dumps(value))
)
def test_strict_json_reads_what_json_writes(value: Any) -> None:
    assert strict.strict_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":1}', "[NaN]", "-Infinity", "1e999", "{} {}", "'a'", "", "[1,]", "01", "\ufeff1"],
)
def test_strict_json_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        strict.strict_json(text)


@pytest.mark.parametrize(
    "text",
    ["", ";", "I cannot", "SELECT 'a", "{}", "SHOW x", "SELECT ((", "SELECT " + "JOIN x " * 60],
)
def test_sql_statements_refuses(text: str) -> None:
    # The last one has 2^60 readings, which sqlglot would try one by one.
    with pytest.raises(ValueError, match=r"."):
        strict.sql_statements(text, "")


def test_sql_statements_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="command"):
        strict.sql_statements("VACUUM \x1b[31m", "")
    assert not caplog.records
