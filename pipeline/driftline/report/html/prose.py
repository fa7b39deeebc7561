"""Text that anybody could have written, as HTML that shows what it is and does nothing.

Line breaks, controls, direction overrides, zero-width characters and spaces other than the plain
one become marked escapes (`<i>` with `\\n`, `\\x1b`, `\\u202e`, …), so that a backslash of the text
itself stays single and is not taken for one of ours. What is cut says how long the whole is and its
sha256.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from markupsafe import Markup, escape

from driftline.report.html.markup import NONE, fill, joined
from driftline.store.digest import sha256_text

LIMIT = 1500
"""Characters shown of one text; a longer one is cut and named by the sha256 of the whole."""
LINES = 40
"""Lines shown of one text."""
PIECE = 60
"""Characters shown of one token."""
BEFORE = 400
"""Characters shown before the place that matters, where that is far into a text."""

_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COMMAND = re.compile(r"^( *):(?=:)|#(?=#\w*\[)", re.M)
"""Where a CI runner that prints the file would find `::command::` or `##[command]`."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""How vocabularies spell a byte of their own."""
_SPACES = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n"})
"""How vocabularies spell a space and a line break."""


def shown(text: str, limit: int = LIMIT) -> Markup:
    """The text from its beginning, at most `limit` characters and `LINES` lines of it."""
    end = _end(text, 0, limit)
    body = inert(text[:end])
    return body if end == len(text) else fill("{}{}", body, cut(text))


def window(text: str, span: tuple[int, int], limit: int = LIMIT) -> Markup:
    """The text around `span`, which is marked; what is left out at either end is said."""
    at, after = span
    start = 0 if at <= limit // 2 else max(0, at - min(BEFORE, limit // 2))
    end = max(_end(text, start, limit), min(after, start + limit))
    parts = [
        fill('<span class="cut">… {} characters before</span> ', f"{start:,}") if start else NONE,
        inert(text[start:at]),
        fill("<mark>{}</mark>", inert(text[at : min(after, end)])),
        inert(text[min(after, end) : end]),
        NONE if end == len(text) else cut(text),
    ]
    return joined(*parts)


def cut(text: str) -> Markup:
    """That there is more, and what it is."""
    note = ' <span class="cut">… cut: {} characters in all, sha256 {}</span>'
    return fill(note, f"{len(text):,}", sha256_text(text))


def inert(text: str) -> Markup:
    """All of a text, escaped, with everything that could not be seen made visible."""
    if text.isprintable():
        return _defused(escape(text))
    runs = groupby(text, key=str.isprintable)
    pieces = (escape("".join(run)) if plain else _marked(run) for plain, run in runs)
    return _defused(joined(*pieces))


def _marked(run: Iterable[str]) -> Markup:
    pieces = []
    for char in run:
        piece = fill("<i>{}</i>", _NAMED.get(char) or _escape(char))
        pieces.append(piece + Markup("\n") if char == "\n" else piece)
    return joined(*pieces)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _defused(markup: Markup) -> Markup:
    """As it was for a browser; a line of the file no longer begins with a command."""
    return Markup(_COMMAND.sub(_as_entity, str(markup)))  # noqa: S704  (it was escaped before)


def _as_entity(match: re.Match[str]) -> str:
    return "&#35;" if match[0] == "#" else f"{match[1]}&#58;"


def _end(text: str, start: int, limit: int) -> int:
    """Where to cut what begins at `start`."""
    end = min(len(text), start + limit)
    breaks = [place for place in range(start, end) if text[place] == "\n"]
    return end if len(breaks) < LINES else breaks[LINES - 1]


# ------------------------------------------------------------------------------------- of tokens


def spelled(pieces: Iterable[str]) -> str | None:
    """What vocabulary pieces say together; None where not all bytes of a character are there."""
    spelling = bytearray()
    for piece in pieces:
        byte = _BYTE.fullmatch(piece)
        if byte:
            spelling.append(int(byte[1], 16))
        else:
            spelling += piece.translate(_SPACES).encode("utf-8", "surrogatepass")
    try:
        return spelling.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def span_of(text: str, pieces: Sequence[str], place: int) -> tuple[int, int] | None:
    """Where the token at `place` lies in an answer's text; None where its pieces do not spell it.

    A token past the end of the text (the one that ends an answer) lies at its end, empty.
    """
    before, upto = spelled(pieces[:place]), spelled(pieces[: place + 1])
    if before is None or upto is None:
        return None
    trimmed = len(upto) - len(upto.lstrip(" "))
    for skipped in dict.fromkeys((0, min(trimmed, 1))):
        start, end = max(0, len(before) - skipped), max(0, len(upto) - skipped)
        if text[:end] == upto[skipped:]:
            return start, end
        if text == before[skipped:] or (not text and not before[skipped:]):
            return len(text), len(text)
    return None


def token(piece: str, limit: int = PIECE) -> Markup:
    """One vocabulary piece in a box, so that its spaces show."""
    return fill("<u>{}</u>", shown(piece, limit))


def ids(numbers: Sequence[int], pieces: Sequence[str], special: frozenset[int]) -> Markup:
    """Token ids as what they spell: special tokens boxed, everything else as text."""
    return _tokens(numbers, pieces, special, None)


def ids_around(
    numbers: Sequence[int], pieces: Sequence[str], special: frozenset[int], place: int
) -> Markup:
    """The same with the token at `place` marked and the pieces around it set apart."""
    return _tokens(numbers, pieces, special, place)


_AROUND = 6
"""Tokens on either side of a difference that are shown one by one."""


def _tokens(
    numbers: Sequence[int], pieces: Sequence[str], special: frozenset[int], place: int | None
) -> Markup:
    near = range(0) if place is None else range(max(0, place - _AROUND), place + _AROUND + 1)
    shown_ids = numbers[:LIMIT] if place is None else numbers[: max(LIMIT, near.stop)]
    drawn: list[Markup] = []
    run: list[str] = []

    def flush() -> None:
        if run:
            text = spelled(run)
            drawn.append(shown("".join(run) if text is None else text))
            run.clear()

    for at, token in enumerate(shown_ids):
        piece = pieces[token] if 0 <= token < len(pieces) else f"id {token}"
        if token in special or at in near or not 0 <= token < len(pieces):
            flush()
            box = fill("<b>{}</b>" if token in special else "<u>{}</u>", shown(piece, PIECE))
            drawn.append(fill("<mark>{}</mark>", box) if at == place else box)
        else:
            run.append(piece)
    flush()
    if place is not None and place >= len(numbers):
        drawn.append(Markup("<mark>(end)</mark>"))
    if len(shown_ids) < len(numbers):
        drawn.append(fill(' <span class="cut">… {} ids in all</span>', f"{len(numbers):,}"))
    return joined(*drawn)
