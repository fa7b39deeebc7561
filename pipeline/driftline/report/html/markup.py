"""Pieces of HTML: our own templates, filled with text that is escaped on the way."""

from __future__ import annotations

from typing import LiteralString

from markupsafe import Markup

NONE = Markup("")


def fill(template: LiteralString, *values: object) -> Markup:
    """One of our own templates with `{}` replaced: text is escaped, markup stays."""
    return Markup(template).format(*values)  # noqa: S704  (the template is ours, values are escaped)


def joined(*pieces: Markup) -> Markup:
    """One after the other."""
    return NONE.join(pieces)
