"""Making hostile text harmless: whatever a model, a file or a user wrote, shown as what it is.

Model output can hold anything: Markdown, HTML, terminal and text-direction controls, NUL, workflow
commands that a CI runner would execute, megabytes on one line. `visible` turns it into one line of
printable characters; the other functions put such a line where Markdown or Mermaid cannot read it
as markup. Their result is `Safe`, and a report template refuses to print any text that is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from driftline.store.digest import sha256_text

LIMIT = 300
"""Characters shown of one text; a longer one is cut and named by the sha256 of the whole."""

_NAMED = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COMMAND = re.compile(r"^( *):(?=:)|#(?=#\w*\[)")
"""Where a CI runner would find `::command::`, `##[command]` or `##vso[command]`."""
_WORD = r"[A-Za-z0-9]+(?:[-/_'][A-Za-z0-9]+)*"
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:e[-+]\d+)?"
_PLAIN_WORD = rf"\(?(?:{_WORD}|{_NUMBER}|%)\)?[,;:.]?"
_PLAIN = re.compile(rf"{_PLAIN_WORD}(?: {_PLAIN_WORD})*")
"""Words and numbers in which Markdown sees nothing."""
_REFERENCE = re.compile(r"\bGH-|\b[0-9a-f]{7}")
"""Where GitHub would see an issue or a commit."""


class Safe(str):
    """Text that may be written into a report as it is."""

    __slots__ = ()


def visible(text: str, limit: int = LIMIT) -> str:
    r"""One line of printable characters, at most about `limit` of them.

    Line breaks, controls, direction overrides, zero-width characters and spaces other than the
    plain one (what `str.isprintable` says no to) become `\n`, `\x1b`, `\u202e`, …; a backslash is
    doubled, so that what is shown is unambiguous. A longer text is cut, followed by its length in
    characters and its sha256.
    """
    if len(text) <= limit and text.isprintable() and "\\" not in text:
        return _COMMAND.sub(_defused, text)
    shown: list[str] = []
    size = 0
    for char in text:
        piece = _shown(char)
        size += len(piece)
        if size > limit:
            shown.append(f"… [{len(text)} characters, sha256 {sha256_text(text)}]")
            break
        shown.append(piece)
    return _COMMAND.sub(_defused, "".join(shown))


def _shown(char: str) -> str:
    if char in _NAMED:
        return _NAMED[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _defused(match: re.Match[str]) -> str:
    return "\\x23" if match[0] == "#" else f"{match[1]}\\x3a"


def code(text: str, limit: int = LIMIT) -> Safe:
    """A Markdown code span: nothing in it is markup, a link, an image or a mention.

    Its fence is longer than any run of backticks within (CommonMark 0.31.2, section 6.1).
    """
    return _span(visible(text, limit))


def _span(shown: str) -> Safe:
    if not shown:
        return Safe("(empty)")
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    stripped = shown.startswith(" ") and shown.endswith(" ") and shown.strip(" ")
    pad = " " if stripped or "`" in (shown[0], shown[-1]) else ""
    return Safe(f"{fence}{pad}{shown}{pad}{fence}")


def cell(text: str, limit: int = LIMIT) -> Safe:
    """A code span inside a table, where `|` ends a cell even in code (GFM 0.29, section 4.10)."""
    return Safe(code(text, limit).replace("|", "\\|"))


def optional(text: str, limit: int = LIMIT) -> Safe:
    """`cell`, or a dash where nothing was said."""
    return cell(text, limit) if text else Safe("–")


def quoted(text: str | None, limit: int = LIMIT) -> Safe:
    """A token's text as a code span, in quotes so that its spaces show; "(end)" for none."""
    return Safe("(end)") if text is None else code(f'"{text}"', limit)


def line(text: str, limit: int = LIMIT) -> Safe:
    """A line inside a fenced block; the template puts something before it on the same line.

    Law: it has no line break, so it cannot close the fence.
    """
    return Safe(visible(text, limit) or "(empty)")


def word(text: str, limit: int = LIMIT) -> Safe:
    """A word of the project's own vocabulary as it is; anything else as a code span in a table."""
    return Safe(text) if re.fullmatch(r"[a-z_]+", text) else cell(text, limit)


def prose(text: str, limit: int = LIMIT) -> Safe:
    """Clauses (between `; `) of plain words as they are, any other as a code span in a table.

    What the drift stage writes about a hop is plain words for the most part, and quotes artifacts
    and models here and there. The template puts something before it on the same line.
    """
    clauses = visible(text, limit).split("; ")
    shown = (each if _is_plain(each) else _span(each) for each in clauses)
    return Safe("; ".join(shown).replace("|", "\\|"))


def _is_plain(clause: str) -> bool:
    return bool(_PLAIN.fullmatch(clause)) and not _REFERENCE.search(clause)


def html(text: str, limit: int = LIMIT) -> Safe:
    """A `<code>` element on one line, for where Markdown reads nothing: in a `<summary>`."""
    return Safe(f"<code>{escape(visible(text, limit))}</code>")


def label(text: str, limit: int = 60) -> Safe:
    """Text between double quotes in Mermaid: punctuation as numeric entities (`#35;`)."""
    return Safe(re.sub(r"[^\w \-./:,+=()→·%…]", _entity, visible(text, limit)))


def _entity(match: re.Match[str]) -> str:
    return f"#{ord(match[0])};"


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """A short name of `[A-Za-z0-9_]` for each name; different names keep different ones."""
    short_names: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        plain = re.sub(r"[^A-Za-z0-9]+", "_", name) or "_"
        digest = sha256_text(name)[:12]
        short = plain if len(plain) <= 60 else f"{plain[:60]}_{digest}"
        while short in taken:
            short = f"{short}_{digest}"
        taken.add(short)
        short_names[name] = short
    return short_names
