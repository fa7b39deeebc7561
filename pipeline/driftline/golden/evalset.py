"""Evalsets: `evalsets/<name>.jsonl`, one golden prompt per line, checked before any model runs.

Nothing here stops at the first fault: a file is read to its end and everything wrong with it is
said at once, line by line. The parsers that judge an expectation here (`golden.strict`) are those
that judge a model's answer in `golden.grade`.
"""

from __future__ import annotations

import codecs
import glob
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from driftline.errors import InputError, did_you_mean
from driftline.golden.check_faults import check_faults
from driftline.golden.strict import one_line, parse_json, quoted
from driftline.schema.items import Check, GoldenPrompt
from driftline.schema.messages import Message
from driftline.schema.values import Value

FOLDER = Path("evalsets")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MOST_SHOWN = 50
"""Problems printed before "and N more": what fits a screen or two."""
CHECK: TypeAdapter[Check] = TypeAdapter(Check)
KINDS: dict[str, type[Value]] = {
    get_args(kind.model_fields["kind"].annotation)[0]: kind for kind in get_args(get_args(Check)[0])
}
"""Every check, by the word that names it in an evalset."""

Problem = tuple[int, str]
"""A line number, from 1, and what is wrong there."""


def corpus(name: str, path: Path) -> str:
    """The text of a corpus.

    Raises:
        InputError: there is no such file, or it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: corpus {name} cannot be read: {error}",
            remedy=f"correct distributions.corpora.{name}.path in params.yaml: a UTF-8 text file",
        ) from None


def path_of(name: str) -> Path:
    """Where the evalset of that name is, relative to the project.

    Raises:
        InputError: the name could not be a file's name.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"{quoted(name)} cannot name an evalset: letters, digits, . _ -",
            remedy=f"name a file of the folder {FOLDER}, without its ending .jsonl",
        )
    return FOLDER / f"{name}.jsonl"


def load(paths: Sequence[Path]) -> tuple[GoldenPrompt, ...]:
    """Read and check evalset files.

    Args:
        paths: the files, each named after its evalset.

    Returns:
        The golden prompts in the order of the files and of their lines.

    Raises:
        InputError: everything that is wrong with any of the files, as `file:line: problem`.
    """
    items: list[GoldenPrompt] = []
    reported: list[str] = []
    sources = [_rows(path) for path in paths]
    texts = iter(_texts([row for rows, _ in sources for row in rows]))
    first: dict[str, Path] = {}
    for path, (rows, problems) in zip(paths, sources, strict=True):
        own, more = _items(path.stem, list(islice(texts, len(rows))))
        if not own and not problems and not more:
            more.append((1, "no items: the file is empty"))
        if path.stem in first:
            more.append((1, f"a second evalset of this name: the first is {first[path.stem]}"))
        first.setdefault(path.stem, path)
        items += own
        reported += [
            one_line(f"{path}:{number}: {what}", 300)
            for number, what in sorted(problems + more, key=lambda problem: problem[0])
        ]
    if reported:
        raise _all_of(reported)
    return tuple(items)


def _all_of(reported: list[str]) -> InputError:
    shown = reported[:MOST_SHOWN]
    if len(reported) > MOST_SHOWN:
        shown.append(f"and {len(reported) - MOST_SHOWN} more")
    count = "1 problem" if len(reported) == 1 else f"{len(reported)} problems"
    return InputError(
        f"{count} in the evalsets:\n  " + "\n  ".join(shown),
        remedy="correct the lines named above",
    )


# ------------------------------------------------------------------------------------ the files


def _rows(path: Path) -> tuple[list[bytes], list[Problem]]:
    """The lines of a file, each that is not clean UTF-8 emptied and reported."""
    if not NAME.fullmatch(path.stem):
        return [], [(1, "the file's name cannot name an evalset: letters, digits, . _ -")]
    try:
        raw = path.read_bytes()
    except OSError as error:
        return [], [(1, _unreadable(path, error))]
    problems: list[Problem] = []
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw.removeprefix(codecs.BOM_UTF8)
        problems.append((1, "starts with a byte order mark: save the file as UTF-8 without it"))
    rows = [row.removesuffix(b"\r") for row in raw.split(b"\n")]
    for index, row in enumerate(rows):
        fault = _row_fault(row)
        if fault:
            problems.append((index + 1, fault))
            rows[index] = b""
    return rows, problems


def _row_fault(row: bytes) -> str:
    try:
        row.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{row[error.start]:02x} at byte {error.start + 1}"
    # A text reader ends a line at a lone \r too, which would shift every number after it.
    return r"a carriage return within the line: end lines with \n or \r\n" if b"\r" in row else ""


def _unreadable(path: Path, error: OSError) -> str:
    if not isinstance(error, FileNotFoundError):
        return f"cannot be read: {error.strerror}"
    others = (other.name for other in path.parent.glob("*.jsonl"))
    return f"not found{did_you_mean(path.name, others)}"


def _texts(rows: list[bytes]) -> list[str]:
    """Lines of clean UTF-8 as text, read by `datasets`.

    Its text builder splits at line ends alone and gives Arrow nothing but strings, where its JSON
    builder would unify the fields of different checks. It reads a copy, so that what was checked is
    what is read and no character of a file's path is taken for a pattern; the copy and the cache
    are gone when it is done. It opens no connection.
    """
    if not any(rows):
        return [""] * len(rows)
    from datasets import Dataset

    with tempfile.TemporaryDirectory(prefix="driftline-") as folder, _no_progress_bars():
        copy = Path(folder) / "evalsets.txt"
        copy.write_bytes(b"".join(row + b"\n" for row in rows))
        cache = str(Path(folder) / "cache")
        table = Dataset.from_text(glob.escape(str(copy)), cache_dir=cache, keep_in_memory=True)
        return [str(text) for text in table["text"]]


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


# ------------------------------------------------------------------------------------ one item


def _items(evalset: str, texts: list[str]) -> tuple[list[GoldenPrompt], list[Problem]]:
    """The golden prompts of a file's lines, and everything wrong with them."""
    items: list[GoldenPrompt] = []
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for number, text in enumerate(texts, start=1):
        if not text.strip(" \t"):
            continue
        data, faults = _object(text)
        if data is not None:
            item, more = _item(data, evalset)
            faults += more
            items += [item] if item else []
            name = data.get("id")
            if isinstance(name, str) and first.setdefault(name, number) != number:
                faults.append(f"id: {quoted(name)} is taken: line {first[name]} has it")
        problems += [(number, fault) for fault in faults]
    return items, problems


def _object(text: str) -> tuple[dict[str, Any] | None, list[str]]:
    """A line's JSON object, or None, and what is wrong with its JSON."""
    data, faults = parse_json(text)
    if data is None and faults:
        return None, faults
    if not isinstance(data, dict):
        return None, [*faults, f"expected a JSON object, found {_found(data)}"]
    try:
        json.dumps(data, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        return None, [*faults, f"\\u{code:04x} is half of a surrogate pair, not a character"]
    return data, faults


def _item(data: dict[str, Any], name: str) -> tuple[GoldenPrompt | None, list[str]]:
    """The golden prompt of a line, or None when its fields are not those of one, and its faults."""
    faults = []
    if "evalset" in data:
        data = {key: value for key, value in data.items() if key != "evalset"}
        faults.append('evalset: unknown key: the file\'s name says it, leave "evalset" out')
    item, broken = None, set()
    try:
        # As JSON, because only there does pydantic's strict mode take an array for a tuple.
        text = json.dumps({**data, "evalset": name})
        item = GoldenPrompt.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = error.errors()
        faults += [_explain(problem) for problem in problems]
        broken = {problem["loc"][:2] for problem in problems}
    faults += _conversation_faults(data)
    checks = data.get("checks")
    if ("checks",) not in broken and () not in broken and isinstance(checks, list):
        for index, fields in enumerate(checks):
            if ("checks", index) not in broken:
                check = CHECK.validate_json(json.dumps(fields), strict=True)
                where = f"checks[{index}]"
                faults += [f"{where}{each}" for each in check_faults(check, data.get("reference"))]
    return item, faults


def _conversation_faults(data: dict[str, Any]) -> Iterator[str]:
    messages, prompt = data.get("messages"), data.get("prompt")
    if messages is None and prompt is None:
        yield 'needs "messages" (a chat) or "prompt" (raw text): found neither'
    if messages is not None and prompt is not None:
        yield 'needs either "messages" (a chat) or "prompt" (raw text): found both'
    if messages == []:
        yield "messages: empty: a chat ends with a message from the user"
    chat = messages if isinstance(messages, list) else []
    role = chat[-1].get("role") if chat and isinstance(chat[-1], dict) else "user"
    if role in ("system", "assistant"):
        where = f"messages[{len(chat) - 1}].role"
        yield f'{where}: the last message must be from the "user"; found "{role}"'


def _explain(problem: Any) -> str:
    """One pydantic problem as one line: which key, what it should be, what was found."""
    location = tuple(problem["loc"])
    kind = problem["type"]
    if kind == "json_invalid":
        return "nested too deeply to read"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        word = problem.get("ctx", {}).get("tag")
        what = f"unknown check {quoted(word)}{did_you_mean(word, KINDS)}" if word else "missing"
        return f"{_where(location)}.kind: {what}; known: {', '.join(KINDS)}"
    if location[:1] == ("checks",) and len(location) > 2:
        fields = KINDS[location[2]].model_fields
        location = (*location[:2], *location[3:])  # pydantic puts the check's kind in the path
    else:
        fields = (Message if location[:1] == ("messages",) else GoldenPrompt).model_fields
    if kind == "extra_forbidden":
        return f"{_where(location)}: unknown key{did_you_mean(str(location[-1]), fields)}"
    if kind == "missing":
        return f"{_where(location)}: missing"
    expected = problem["msg"].removeprefix("Input ").removeprefix("String ")
    return f"{_where(location)}: {expected}; found {_found(problem['input'])}"


def _where(location: Iterable[str | int]) -> str:
    """A path as one writes it: `checks[0].pattern`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _found(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else one_line(json.dumps(value), 60)
