"""Which of the things that people write differ: params.yaml, golden prompts, corpora; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from driftline.compare.kinds import RUNS_IN
from driftline.compare.sides import (
    Key,
    Sides,
    differing,
    short,
    short_digest,
    text_of,
    there,
    value_at,
)
from driftline.evidence.lineage import Evidence
from driftline.project import routes
from driftline.schema.comparison import PRESENT, Detail
from driftline.schema.lineage import ItemDigest
from driftline.store.digest import sha256_text


def settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Key, Sides]]:
    """Keys of params.yaml that differ, but for those of which files or software say more."""
    for kind, section in (("merge settings", "merge"), ("decode", "decode")):
        yield from keys(kind, value_at(old, section), value_at(new, section))
    for row in routes.CONVERSIONS:
        if row.forms:
            yield from _forms(row, old, new)
    yield from _names(("variants", ""), *(value_at(side, "variants") for side in (old, new)))
    for name, was, now in differing(value_at(old, "runtimes"), value_at(new, "runtimes")):
        sides = ((side or {}).get("variants", ()) for side in (was, now))
        yield from _names((RUNS_IN, name), *sides)
    kept = [
        {key: value for key, value in value_at(side, "distributions").items() if key != "corpora"}
        for side in (old, new)
    ]
    yield from keys("distributions", *kept)
    yield from keys("params", *(_others(side) for side in (old, new)))


def keys(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Any]:
    """Every key that differs, as an input of that kind."""
    for key, was, now in differing(old, new):
        yield (kind, key), Sides(text_of(was), text_of(now))


def _names(
    key: Key, before: Collection[str], after: Collection[str]
) -> Iterator[tuple[Key, Sides]]:
    """A list of names whose order says nothing."""
    was, now = set(before), set(after)
    if was != now:
        details = tuple(there(n, before=n in was, after=n in now) for n in sorted(was ^ now))
        sides = [", ".join(sorted(side)) or "none" for side in (was, now)]
        yield key, Sides(sides[0], sides[1], details)


def _forms(
    row: routes.Conversion, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[Key, Sides]]:
    """The artifacts of a variant that one conversion makes, and how."""
    was, now = (value_at(side, *routes.key_of(row.forms)) for side in (old, new))
    if row.recipes:
        yield from _recipes(row, old, new)
    elif isinstance(was, str) or isinstance(now, str):
        if was != now:
            yield (row.given, ""), Sides(text_of(was or None), text_of(now or None))
    else:
        for name in sorted(set(was) ^ set(now)):
            yield (row.given, name), _presence(name in was, name in now)


def _presence(before: bool, after: bool) -> Sides:
    return Sides(PRESENT if before else "", PRESENT if after else "")


def _recipes(
    row: routes.Conversion, old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[Key, Sides]]:
    """Recipes that an artifact is made by, on either side."""
    sides = [
        {
            name: value_at(side, *routes.key_of(row.recipes), name)
            for name in value_at(side, *routes.key_of(row.forms))
        }
        for side in (old, new)
    ]
    for name, was, now in differing(*sides):
        details = (
            Detail(what=key, before=text_of(a) or "none", after=text_of(b) or "none")
            for key, a, b in differing(was or {}, now or {})
            if was and now
        )
        yield (row.given, name), Sides(_recipe(was), _recipe(now), tuple(details))


def _recipe(recipe: Mapping[str, Any] | None) -> str:
    said = sorted((key, value) for key, value in (recipe or {}).items() if value is not None)
    return ", ".join(f"{key} {text_of(value)}" for key, value in said)


_HANDLED = ("source", "adapters", "variants", "runtimes", "evalsets", "merge", "decode", "limits")
_HANDLED_WITHIN: dict[str, set[str]] = {}
for _row in routes.CONVERSIONS:
    for _place in filter(None, (_row.forms, _row.recipes)):
        _section, _key = routes.key_of(_place)
        _HANDLED_WITHIN.setdefault(_section, set()).add(_key)


def _others(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of params.yaml that nothing above knows, so that none is ever passed over."""
    values: dict[str, Any] = {}
    for section, value in params.items():
        within = _HANDLED_WITHIN.get(section, set())
        if section in _HANDLED or section == "distributions":
            continue
        if not isinstance(value, Mapping):
            values[section] = value
        else:
            values |= {f"{section}.{k}": v for k, v in value.items() if k not in within}
    return values


def evalsets(before: Evidence, after: Evidence) -> Iterator[tuple[Key, Sides]]:
    """Evalsets whose items differ, and variants that are asked others."""
    old, new = ({each.name: each for each in side.index.evalsets} for side in (before, after))
    asked_old, asked_new = (value_at(side.params, "evalsets") for side in (before, after))
    both = sorted(asked_old.keys() & asked_new.keys())
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        read = was is None or now is None or was.sha256 != now.sha256
        items_old = before.evalset(name) if was and read else {}
        items_new = after.evalset(name) if now and read else {}
        details = [
            *(_items(items_old, items_new) if was and now else ()),
            *(
                there(f"asked of {v}", before=name in asked_old[v], after=name in asked_new[v])
                for v in both
                if (name in asked_old[v]) != (name in asked_new[v])
            ),
        ]
        if details or was is None or now is None:
            yield (
                ("evalset", name),
                Sides(
                    _evalset(was.items if was else None, items_old),
                    _evalset(now.items if now else None, items_new),
                    tuple(details),
                ),
            )


def _items(old: Mapping[str, ItemDigest], new: Mapping[str, ItemDigest]) -> Iterator[Detail]:
    """Golden prompts that differ; how they are pinned is no input but a consequence."""
    was, now = ({each.id: each.sha256 for each in side.values()} for side in (old, new))
    named = False
    for item, a, b in differing(was, now):
        named = True
        yield Detail(
            what=item, before=short_digest(a) if a else "", after=short_digest(b) if b else ""
        )
    if not named and list(old) != list(new):
        yield Detail(what="the same items in another order")


def _evalset(count: int | None, items: Mapping[str, ItemDigest]) -> str:
    if count is None:
        return ""
    listed = "".join(f"{each.id} {each.sha256}\n" for each in items.values())
    digest = f", {short_digest(sha256_text(listed))}" if items else ""
    return f"{count} item{'' if count == 1 else 's'}{digest}"


def corpora(before: Evidence, after: Evidence) -> Iterator[tuple[Key, Sides]]:
    """Plain texts beside the golden prompts."""
    sides = [
        {
            name: {**corpus, "text": side.index.corpora.get(name)}
            for name, corpus in value_at(side.params, "distributions", "corpora").items()
        }
        for side in (before, after)
    ]
    for name, was, now in differing(*sides):
        details = (
            Detail(what=key, before=short(text_of(a)), after=short(text_of(b)))
            for key, a, b in differing(was or {}, now or {})
            if was and now
        )
        yield ("corpus", name), Sides(_corpus(was), _corpus(now), tuple(details))


def _corpus(corpus: Mapping[str, Any] | None) -> str:
    if corpus is None:
        return ""
    return f"{short_digest(corpus['text'])}, windows of {corpus.get('window')}"
