"""Which of several inputs that changed at once it was, found by swapping them; pure.

Between two commits GOOD and BAD every input that differs is a *group*: the files and the keys of
params.yaml that make it. A *mix* is a set of group names: these are taken from BAD, the others from
GOOD. Whether a mix is bad is asked of a function; `search` asks as little as it can.

Source: A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
Transactions on Software Engineering 28(2), 2002, doi:10.1109/32.988498: `ddmin` (section 3), with
outcomes that are good, bad or, where a mix cannot run, unresolved.
"""

from __future__ import annotations

import copy
import math
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pipeline.conversions.checkpoint_lint import belongs
from pipeline.facts import part_of
from pipeline.lineage.evidence import Evidence
from pipeline.schema.scores import ItemState

T = TypeVar("T")
Key = tuple[str, ...]
"""Where a value is in params.yaml."""
Mix = frozenset[str]
Bad = Callable[[Mix], bool | None]
"""Whether a mix is bad; None when it cannot be run."""

# ------------------------------------------------------------------------------------------ search

Ends = Literal["recorded", "as needed", "run"]
"""How far GOOD and BAD themselves are taken as recorded: `as needed` runs one of them as soon as
the answer would rest on it alone, `run` both before anything else."""

Failure = Literal["", "good", "bad", "unresolved"]


@dataclass(frozen=True)
class Trial:
    """One mix that was run, counted from 1; `bad` is None where it could not be run."""

    number: int
    mix: tuple[str, ...]
    bad: bool | None


@dataclass(frozen=True)
class Guilty:
    """Groups that are bad swapped alone, all together; more than one: only together.

    `mended` is whether BAD is good with these, and all found before them, taken back from GOOD;
    None where that could not be run.
    """

    names: tuple[str, ...]
    mended: bool | None


@dataclass(frozen=True)
class Found:
    """What a search found, and every run it made.

    Nobody is guilty where `failed` says why: it names an end that, run here, is not what was
    recorded, or `unresolved` when no mix at all could be run.

    Laws: each of `guilty` is 1-minimal: with its names swapped a mix is bad, and with any one of
    them left out it is not. No group is in two of them. All but the last are not `mended`.
    """

    guilty: tuple[Guilty, ...]
    trials: tuple[Trial, ...]
    failed: Failure = ""

    @property
    def unresolved(self) -> tuple[Trial, ...]:
        """Runs of mixes that could not be run."""
        return tuple(trial for trial in self.trials if trial.bad is None)


def search(names: Sequence[str], bad: Bad, *, ends: Ends = "recorded") -> Found:
    """Every independent set of groups that makes a mix bad.

    One guilty group of n takes at most log2 n + 2 runs, the last of them the counter-check: BAD
    with that group taken back. Where that is bad too there is another cause, looked for in the
    rest. An interaction of k groups takes about k log2 n + k^2 runs, and any predicate at all at
    most n^2 + 3n + n (log2 n + 1) for each set found. No mix is run twice.

    Args:
        names: the groups, at least one.
        bad: asked of mixes of them; the empty one is GOOD, all of them is BAD.
        ends: whether those two are run.

    Raises:
        ValueError: there is no group.
    """
    if not names:
        raise ValueError("there is no group to search among")
    runs = _Runs(tuple(names), bad, ends)
    guilty: list[Guilty] = []
    rest = tuple(names)
    try:
        runs.expect_ends()
        mended: bool | None = False
        while mended is False:
            found = _minimal(rest, runs)
            rest = tuple(name for name in rest if name not in found)
            after = runs(rest)
            mended = None if after is None else not after
            guilty.append(Guilty(found, mended))
        runs.expect_bad()
        runs.expect_good()
        runs.expect_any()
    except _FailedError as error:
        return Found((), tuple(runs.trials), error.failure)
    return Found(tuple(guilty), tuple(runs.trials))


class _FailedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


class _Runs:
    """Outcomes of mixes: those of the ends as recorded, until they are run."""

    def __init__(self, names: tuple[str, ...], bad: Bad, ends: Ends) -> None:
        self._names, self._bad, self._ends = names, bad, ends
        self._recorded: dict[Mix, bool] = {frozenset(): False, frozenset(names): True}
        self._made: dict[Mix, bool | None] = {}
        self.trials: list[Trial] = []

    def __call__(self, names: Iterable[str]) -> bool | None:
        mix = frozenset(names)
        if mix in self._recorded and mix not in self._made:
            return self._recorded[mix]
        return self._run(mix)

    def _run(self, mix: Mix) -> bool | None:
        if mix not in self._made:
            self._made[mix] = self._bad(mix)
            listed = tuple(name for name in self._names if name in mix)
            self.trials.append(Trial(len(self.trials) + 1, listed, self._made[mix]))
        return self._made[mix]

    def expect_ends(self) -> None:
        """Run both ends, where that was asked for."""
        if self._ends == "run":
            self._expect(frozenset(), bad=False)
            self._expect(frozenset(self._names), bad=True)

    def expect_bad(self) -> None:
        """Some mix must have been bad when run; if none was, BAD itself."""
        if self._ends == "as needed" and True not in self._made.values():
            self._expect(frozenset(self._names), bad=True)

    def expect_good(self) -> None:
        """Some mix must have been good when run; if none was, GOOD itself."""
        if self._ends == "as needed" and False not in self._made.values():
            self._expect(frozenset(), bad=False)

    def expect_any(self) -> None:
        """Where anything was run at all, some of it must have been possible."""
        if self._made and all(outcome is None for outcome in self._made.values()):
            raise _FailedError("unresolved")

    def _expect(self, mix: Mix, *, bad: bool) -> None:
        if self._run(mix) is not bad:
            raise _FailedError("bad" if bad else "good")


def _minimal(names: tuple[str, ...], runs: _Runs) -> tuple[str, ...]:
    """A 1-minimal bad part of `names`, which are bad; in their order."""
    found = _ddmin(_halved(names, runs), runs)
    return tuple(name for name in names if name in found)


def _halved(names: tuple[str, ...], runs: _Runs) -> tuple[str, ...]:
    """A bad part of `names`, by halving: as small as can be where swapping more never mends.

    The first names, up to some one, are bad, and without that one they are not: halving finds it.
    It belongs to the answer; if it is not all of it, the rest lies among the names before it.
    """
    found: tuple[str, ...] = ()
    while True:  # law: found and names together are bad
        low, high = 0, len(names)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if runs((*found, *names[:middle])) else (middle, high)
        found, names = (*found, names[high - 1]), names[: high - 1]
        if runs(found):
            return found
        runs.expect_bad()


def _ddmin(names: tuple[str, ...], runs: _Runs) -> tuple[str, ...]:
    """`ddmin` of the paper: a 1-minimal bad part of `names`, which are bad."""
    parts = 2
    while len(names) > 1:
        pieces = _split(names, parts)
        rests = [tuple(name for name in names if name not in piece) for piece in pieces]
        if smaller := next((piece for piece in pieces if runs(piece)), None):
            names, parts = smaller, 2
        elif smaller := next((rest for rest in rests if runs(rest)), None):
            names, parts = smaller, max(parts - 1, 2)
        elif parts < len(names):
            parts = min(2 * parts, len(names))
        else:
            break
    return names


def _split(names: tuple[T, ...], parts: int) -> list[tuple[T, ...]]:
    cuts = [len(names) * number // parts for number in range(parts + 1)]
    return [names[cuts[number] : cuts[number + 1]] for number in range(parts)]


def interacts(moved: Set[T], without: Iterable[Set[T] | None]) -> bool | None:
    """Whether any of what several groups move together needs more than one of them.

    Args:
        moved: by all of them.
        without: what still moves with each of them left out; None where that could not be run.

    Returns:
        None where that is not known.
    """
    needed: list[set[T]] = []
    for each in without:
        if each is None:
            return None
        needed.append(set(moved) - set(each))
    return sum(len(each) for each in needed) > len(set().union(*needed))


# -------------------------------------------------------------------------------------- what moved

KL_FLOOR = 1e-6
"""Nats below which a mean KL divergence counts as none: float32 kernels differ by less."""
KL_MOVED = 1.1
"""By what factor a hop's mean KL must have grown to be worth a search."""


@dataclass(frozen=True)
class Moved:
    """One golden prompt (`evalset/id`) that a cell answered right in GOOD and not in BAD.

    `same_answer`: token for token, so that it is the check that moved, or the grader.
    """

    cell: str
    key: str
    before: ItemState
    after: ItemState
    same_answer: bool

    @property
    def pair(self) -> tuple[str, str]:
        """What it is the verdict of."""
        return self.cell, self.key


def moved(good: Evidence, bad: Evidence) -> tuple[Moved, ...]:
    """Every verdict that was correct and is something else, over cells and items both have."""
    return tuple(_moved(good, bad))


def _moved(good: Evidence, bad: Evidence) -> Iterator[Moved]:
    for cell in shared_cells(good, bad):
        before = good.items(cell)
        for key, item in bad.items(cell).items():
            was = before.get(key)
            if was is None or was.state != "correct" or item.state in (None, "correct"):
                continue
            same = was.output_sha256 == item.output_sha256
            yield Moved(cell, key, "correct", item.state or "errored", same)


def shared_cells(good: Evidence, bad: Evidence) -> tuple[str, ...]:
    """Cells that both sides have."""
    return tuple(cell for cell in bad.cells if cell in good.cells)


@dataclass(frozen=True)
class MovedHop:
    """A hop whose mean KL divergence, in nats, grew from `good` to `bad`."""

    parent: str
    child: str
    good: float
    bad: float

    @property
    def factor(self) -> float:
        """By what it grew."""
        return max(self.bad, KL_FLOOR) / max(self.good, KL_FLOOR)

    def nearer_bad(self, kl: float) -> bool:
        """Whether a mix with this mean KL is nearer BAD than GOOD, on a log scale."""
        middle = math.sqrt(max(self.good, KL_FLOOR) * max(self.bad, KL_FLOOR))
        return max(kl, KL_FLOOR) >= middle


def moved_hops(good: Evidence, bad: Evidence) -> tuple[MovedHop, ...]:
    """Hops of both sides that drift more in BAD, by how much more, most first."""
    found = []
    for cell in shared_cells(good, bad):
        was, now = good.hops.get(cell), bad.hops.get(cell)
        if was and now and was.kl and now.kl and was.hop == now.hop:
            found.append(MovedHop(was.hop.parent, cell, was.kl.value, now.kl.value))
    return tuple(sorted((h for h in found if h.factor >= KL_MOVED), key=lambda h: -h.factor))


# ------------------------------------------------------------------------------------------ groups

KINDS = (
    "mlx recipe",
    "mlx artifacts",
    "gguf quantizations",
    "gguf outtype",
    "vllm",
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
CODE = ("pipeline/", "dvc.yaml", "probe/dvc.yaml")
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATE_KEYS = ("chat_template",)
_BY_NAME = ("adapters", "evalsets", "gguf", "distributions", "limits")
"""Sections of params.yaml whose keys are swapped one by one."""
_NAMED: Mapping[Key, str] = {
    ("gguf", "outtype"): "gguf outtype",
    ("gguf", "quantizations"): "gguf quantizations",
    ("mlx", "artifacts"): "mlx artifacts",
    ("distributions", "corpora"): "corpora",
    ("limits", "threads"): "limits.threads",
}
_NO_INPUT = ("limits", "elsewhere", "gate", "baseline")
"""Sections that say how long, how much and where, and so nothing of what comes out."""
_ONE_EACH = {"adapters": "adapter", "evalsets": "evalsets of"}


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
    if key[:2] == ("mlx", "recipes"):
        used = any(key[2] in value_at(side, ("mlx", "artifacts"), ()) for side in (good, bad))
        return f"mlx recipe {key[2]}" if used else ""
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
    found: Mapping[str, Any] = value_at(params, ("distributions", "corpora"), {})
    return found


def _part(inside: str) -> str:
    """The group of a file of a checkpoint."""
    if inside == TOKENIZER_CONFIG:
        return "tokenizer"
    if inside.startswith("additional_chat_templates/"):
        return "template"
    found = part_of(inside)
    return found if found in ("template", "tokenizer") else "source"


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
        if section == "mlx":
            yield from ((section, name) for name in value if name != "recipes")
            yield from ((section, "recipes", name) for name in value.get("recipes", ()))
        elif section in _BY_NAME and isinstance(value, Mapping):
            yield from ((section, name) for name in value)
        else:
            yield (section,)


def _differing(good: Mapping[str, Any], bad: Mapping[str, Any]) -> list[Key]:
    keys = dict.fromkeys((*_keys(good), *_keys(bad)))
    return [key for key in keys if value_at(good, key) != value_at(bad, key)]


def value_at(params: Mapping[str, Any], key: Key, default: Any = None) -> Any:
    """A value of params.yaml, `default` where there is none."""
    found: Any = params
    for name in key:
        if not isinstance(found, Mapping) or name not in found:
            return default
        found = found[name]
    return found


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
