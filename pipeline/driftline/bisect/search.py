"""Which of several inputs that changed at once it was, found by swapping them; pure.

Between two commits GOOD and BAD every input that differs is a *group*: the files and the keys of
params.yaml that make it. A *mix* is a set of group names: these are taken from BAD, the others from
GOOD. Whether a mix is bad is asked of a function; `search` asks as little as it can.

Source: A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE
Transactions on Software Engineering 28(2), 2002, doi:10.1109/32.988498: `ddmin` (section 3), with
outcomes that are good, bad or, where a mix cannot run, unresolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")
Mix = frozenset[str]
Bad = Callable[[Mix], bool | None]
"""Whether a mix is bad; None when it cannot be run."""

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
            minimal = _minimal(rest, runs)
            rest = tuple(name for name in rest if name not in minimal)
            after = runs(rest)
            mended = None if after is None else not after
            guilty.append(Guilty(minimal, mended))
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
    minimal = _ddmin(_halved(names, runs), runs)
    return tuple(name for name in names if name in minimal)


def _halved(names: tuple[str, ...], runs: _Runs) -> tuple[str, ...]:
    """A bad part of `names`, by halving: as small as can be where swapping more never mends.

    The first names, up to some one, are bad, and without that one they are not: halving finds it.
    It belongs to the answer; if it is not all of it, the rest lies among the names before it.
    """
    needed: tuple[str, ...] = ()
    while True:  # law: needed and names together are bad
        low, high = 0, len(names)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if runs((*needed, *names[:middle])) else (middle, high)
        needed, names = (*needed, names[high - 1]), names[: high - 1]
        if runs(needed):
            return needed
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
