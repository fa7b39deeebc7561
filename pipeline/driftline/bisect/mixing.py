"""Inputs that differ between two commits as groups, and params.yaml mixed of the two; pure."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from driftline.bisect.search import Mix
from driftline.compare.kinds import RUNS_IN
from driftline.conversions.checkpoint_lint import belongs
from driftline.project import routes
from driftline.store.facts import part_of

Key = tuple[str, ...]
"""Where a value is in params.yaml."""
MADE = tuple(row for row in routes.CONVERSIONS if row.forms)
"""Conversions whose artifacts params.yaml names."""
_FORMS: Mapping[Key, str] = {
    routes.key_of(row.forms): " ".join(routes.key_of(row.forms)) for row in MADE
}
KINDS = (
    *(
        kind
        for row in reversed(MADE)
        for kind in (*((row.given,) if row.recipes else ()), _FORMS[routes.key_of(row.forms)])
    ),
    RUNS_IN,
    "variants",
    "evalset",
    "evalsets of",
    "corpora",
    "decode",
    "distributions",
    "limits.threads",
    "merge",
    "adapter",
    "template",
    "tokenizer",
    "source",
    "params",
    "driftline code",
)
"""In what order groups are listed and swapped: a name is one of these, or begins with it.

What is nearest to a cell comes first: mixes of the first half then have everything upstream as GOOD
had it, and DVC has that already.
"""
CODE = ("pipeline/driftline/", "dvc.yaml", "probe/dvc.yaml")
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_KEYS = ("chat_template",)
_RECIPES = {routes.key_of(row.recipes): row for row in MADE if row.recipes}
_BY_NAME = (
    *("adapters", "evalsets", "runtimes", "distributions", "limits"),
    *(key[0] for key in _FORMS),
)
"""Sections of params.yaml whose keys are swapped one by one."""
_NAMED: Mapping[Key, str] = {
    **_FORMS,
    ("distributions", "corpora"): "corpora",
    ("limits", "threads"): "limits.threads",
}
_NO_INPUT = ("limits", "elsewhere", "gate", "baseline")
"""Sections that say how long, how much and where, and so nothing of what comes out."""
_ONE_EACH = {"adapters": "adapter", "evalsets": "evalsets of", "runtimes": RUNS_IN}


@dataclass(frozen=True)
class Group:
    """One input that can be swapped by itself.

    `paths` are its files, `keys` its values in params.yaml; `parts` are top-level keys of JSON
    files whose other keys belong to another group.
    """

    name: str
    paths: tuple[str, ...] = ()
    keys: tuple[Key, ...] = ()
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()


def groups(
    good: Mapping[str, Any],
    bad: Mapping[str, Any],
    paths: Iterable[str],
    *,
    json_keys: Mapping[str, Set[str]],
    code: bool,
) -> tuple[Group, ...]:
    """The inputs that differ between two commits, in the order of `KINDS`.

    Args:
        good: params.yaml of GOOD, as read.
        bad: that of BAD.
        paths: files that differ, relative to the project; what is no input is passed over.
        json_keys: by path, which top-level keys differ between two JSON files.
        code: whether the code of any stage that makes what is measured differs.
    """
    keys: dict[str, list[Key]] = {}
    for key in _differing(good, bad):
        if name := _group_of_key(key, good, bad):
            keys.setdefault(name, []).append(key)
    files: dict[str, list[str]] = {}
    parts: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for path in sorted(paths):
        name = _group_of_path(path, (good, bad))
        differing = json_keys.get(path, frozenset())
        own = tuple(key for key in TEMPLATE_KEYS if key in differing)
        if name == "tokenizer" and own:
            if differing <= set(own):
                name = "template"
            else:
                parts.setdefault("template", []).append((path, own))
        if name and (code or name != "driftline code"):
            files.setdefault(name, []).append(path)
    return tuple(
        Group(
            name,
            tuple(files.get(name, ())),
            tuple(keys.get(name, ())),
            tuple(parts.get(name, ())),
        )
        for name in sorted(files.keys() | keys.keys() | parts.keys(), key=_rank)
    )


def _rank(name: str) -> tuple[int, str]:
    of = [n for n, kind in enumerate(KINDS) if name == kind or name.startswith(f"{kind} ")]
    return max(of, default=len(KINDS)), name


def _group_of_key(key: Key, good: Mapping[str, Any], bad: Mapping[str, Any]) -> str:
    """Empty for what no result depends on."""
    if key in _NAMED:
        return _NAMED[key]
    if row := _RECIPES.get(key[:2]):
        forms = routes.key_of(row.forms)
        is_made = any(key[2] in value_at(side, forms, ()) for side in (good, bad))
        return f"{row.given} {key[2]}" if is_made else ""
    section, name = key[0], key[-1]
    if section in _NO_INPUT:
        return ""
    if section in _ONE_EACH:
        return f"{_ONE_EACH[section]} {name}"
    return section if section in KINDS else f"params {'.'.join(key)}"


def _group_of_path(path: str, sides: tuple[Mapping[str, Any], ...]) -> str:
    """Empty for a file that is no input."""
    if path.startswith(CODE[0]) or path in CODE:
        return "driftline code"
    evalset = path.removeprefix("evalsets/").removesuffix(".jsonl")
    if path == f"evalsets/{evalset}.jsonl":
        asked = {name for side in sides for v in side["evalsets"].values() for name in v}
        return f"evalset {evalset}" if evalset in asked else ""
    corpora = [corpus for side in sides for corpus in _corpora(side).values()]
    if path in {normal(corpus.get("path")) for corpus in corpora}:
        return "corpora"
    for name in dict.fromkeys(name for side in sides for name in side["adapters"]):
        for side in sides:
            inside = _inside(path, side["adapters"].get(name, {}))
            if inside and belongs(inside):
                return f"adapter {name}"
    for side in sides:
        inside = _inside(path, side["source"])
        if inside and belongs(inside):
            # Files of another folder only mean something together with `source` in params.yaml.
            return _part(inside) if sides[0]["source"] == sides[1]["source"] else "source"
    return ""


def _corpora(params: Mapping[str, Any]) -> Mapping[str, Any]:
    corpora: Mapping[str, Any] = value_at(params, ("distributions", "corpora"), {})
    return corpora


def _part(inside: str) -> str:
    """The group of a file of a checkpoint."""
    if inside == TOKENIZER_CONFIG:
        return "tokenizer"
    if inside.startswith("additional_chat_templates/"):
        return "template"
    group = part_of(inside)
    return group if group in ("template", "tokenizer") else "source"


def _inside(path: str, location: Mapping[str, Any]) -> str:
    """`path` relative to the folder at a location; empty when it is not in it."""
    folder = normal(location.get("path"))
    return path.removeprefix(f"{folder}/") if folder and path.startswith(f"{folder}/") else ""


def normal(path: str | None) -> str:
    """A path of params.yaml as git writes it; empty for none."""
    return posixpath.normpath(path) if path else ""


# ------------------------------------------------------------------------------------- params.yaml


def _keys(params: Mapping[str, Any]) -> Iterator[Key]:
    """The places whose values are swapped whole."""
    for section, value in params.items():
        if section not in _BY_NAME or not isinstance(value, Mapping):
            yield (section,)
            continue
        for name, below in value.items():
            if (section, name) in _RECIPES:
                yield from ((section, name, recipe) for recipe in below or ())
            else:
                yield (section, name)


def _differing(good: Mapping[str, Any], bad: Mapping[str, Any]) -> list[Key]:
    keys = dict.fromkeys((*_keys(good), *_keys(bad)))
    return [key for key in keys if value_at(good, key) != value_at(bad, key)]


def value_at(params: Mapping[str, Any], key: Key, default: Any = None) -> Any:
    """A value of params.yaml, `default` where there is none."""
    value: Any = params
    for name in key:
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


def mixed(
    good: Mapping[str, Any], bad: Mapping[str, Any], known: Iterable[Group], mix: Mix
) -> dict[str, Any]:
    """params.yaml of a mix: GOOD's, with what the groups of the mix have of BAD's.

    What belongs to no group (`limits` but for the threads, a recipe nobody uses) is BAD's.
    """
    kept = {key for group in known if group.name not in mix for key in group.keys}
    made = copy.deepcopy(dict(bad))
    for key in kept:
        _put(made, key, value_at(good, key))
    return made


def _put(params: dict[str, Any], key: Key, value: Any) -> None:
    """Set a value, or remove it when it is None."""
    *sections, name = key
    at = params
    for section in sections:
        at = at.setdefault(section, {})
    if value is None:
        at.pop(name, None)
    else:
        at[name] = copy.deepcopy(value)
