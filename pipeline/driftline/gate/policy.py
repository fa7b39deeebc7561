"""The gate's policy: read from params.yaml, and which limits it sets on which items; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pydantic import ValidationError

from driftline.errors import InputError, did_you_mean
from driftline.project.params import Params
from driftline.project.sections import reading
from driftline.schema.gate import NO_LIMIT, GatePolicy, Rule
from driftline.schema.hops import HopKind

LIMITS = (
    "max_loss",
    "max_gain",
    "max_flips",
    "max_kl",
    "max_kl_p99",
    "min_items",
    "min_accuracy",
)


def policy(project: Params) -> GatePolicy:
    """What params.yaml says under `gate`, the default where it says nothing.

    Raises:
        InputError: all problems at once, one line each.
    """
    try:
        return GatePolicy.model_validate(project.gate)
    except ValidationError as error:
        lines = (reading.explain(problem, GatePolicy) for problem in error.errors())
        raise InputError(
            f"{reading.PARAMS_FILE}:\n  " + "\n  ".join(f"gate.{line}" for line in lines),
            remedy="correct the keys named above (docs/gates.md lists them all)",
        ) from None


def check_names(policy: GatePolicy, evalsets: Iterable[str], tags: Iterable[str]) -> None:
    """Refuse a rule on an evalset or tag that is not there: it would hold of nothing.

    Raises:
        InputError: it is named with the closest one.
    """
    for number, rule in enumerate(policy.rules, 1):
        for what, name, known in (
            ("evalset", rule.evalset, tuple(evalsets)),
            ("tag", rule.tag, tuple(tags)),
        ):
            if name is not None and not matches(name, known):
                raise InputError(
                    f'gate.rules: rule {number} is about {what} "{name}", which no item is of'
                    f"{did_you_mean(name, known)}; known: {', '.join(known) or 'none'}",
                    remedy=f"correct it in {reading.PARAMS_FILE}",
                )


def notes(policy: GatePolicy, kinds: Mapping[str, HopKind | None]) -> Iterator[str]:
    """Patterns and rules that select nothing, where that stops nobody.

    Args:
        policy: of the gate.
        kinds: every cell, and the kind of the hop into it (None: the root).
    """
    for key in ("may_skip", "experimental"):
        for pattern in getattr(policy, key):
            if not matches(pattern, kinds):
                yield f"gate.{key}: no cell is {pattern}"
    for number, rule in enumerate(policy.rules, 1):
        if not any(is_about(rule, kind, cell) for cell, kind in kinds.items()):
            yield f"gate.rules: rule {number} selects no hop"


def matches(pattern: str, names: Iterable[str]) -> bool:
    """Whether some name has the pattern."""
    return any(fnmatchcase(name, pattern) for name in names)


def any_of(patterns: Iterable[str], name: str) -> bool:
    """Whether a name has some pattern."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_about(rule: Rule, kind: HopKind | None, cell: str) -> bool:
    """Whether a rule is about the hop into a cell; the root has no hop, and so no kind."""
    return (not rule.kinds or kind in rule.kinds) and (not rule.cells or any_of(rule.cells, cell))


# ----------------------------------------------------------------------------------------- scopes


@dataclass(frozen=True)
class Scope:
    """Which items of a hop: all, an evalset's, a tag's, or a tag's in an evalset."""

    evalset: str | None = None
    tag: str | None = None

    @property
    def suffix(self) -> str:
        """`:pods#oom` at the end of an id; empty for all items."""
        label = f"{self.evalset or ''}{'' if self.tag is None else f'#{self.tag}'}"
        return f":{label}" if label else ""

    def has(self, key: str, tags: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether an item is one of them."""
        right = self.evalset is None or key.partition("/")[0] == self.evalset
        return right and (self.tag is None or self.tag in tags.get(key, ()))


ALL = Scope()


def scopes(
    rules: Iterable[Rule],
    kind: HopKind,
    cell: str,
    keys: Iterable[str],
    tags: Mapping[str, tuple[str, ...]],
) -> tuple[Scope, ...]:
    """All items, and every scope that some rule on this hop sets limits for and has items in.

    Args:
        rules: of the policy.
        kind: of the hop.
        cell: it leads to.
        keys: of the items it was asked.
        tags: of items, by key.
    """
    asked = tuple(keys)
    evalsets = dict.fromkeys(key.partition("/")[0] for key in asked)
    labels = dict.fromkeys(tag for key in asked for tag in tags.get(key, ()))
    chosen = {ALL: None}
    for rule in rules:
        if is_about(rule, kind, cell):
            for evalset in _named(rule.evalset, evalsets):
                for tag in _named(rule.tag, labels):
                    scope = Scope(evalset, tag)
                    if any(scope.has(key, tags) for key in asked):
                        chosen[scope] = None
    return tuple(chosen)


def _named(pattern: str | None, names: Iterable[str]) -> tuple[str | None, ...]:
    if pattern is None:
        return (None,)
    return tuple(name for name in names if fnmatchcase(name, pattern))


@dataclass(frozen=True)
class Limit:
    """A limit and the number of the rule that set it, from 1."""

    value: float
    rule: int


def limits(policy: GatePolicy, kind: HopKind, cell: str, scope: Scope) -> dict[str, Limit]:
    """The limits of some items of the hop into `cell`: of each the last rule's that says one."""
    chosen: dict[str, Limit] = {}
    for number, rule in enumerate(policy.rules, 1):
        same = _same(rule.evalset, scope.evalset) and _same(rule.tag, scope.tag)
        if same and is_about(rule, kind, cell):
            for name in LIMITS:
                value = getattr(rule, name)
                if value == NO_LIMIT:
                    chosen.pop(name, None)
                elif value is not None:
                    chosen[name] = Limit(value, number)
    return chosen


def _same(pattern: str | None, name: str | None) -> bool:
    if pattern is None or name is None:
        return pattern is name
    return fnmatchcase(name, pattern)


def allowed(
    policy: GatePolicy, kind: HopKind | None, cell: str
) -> tuple[tuple[str, ...], int | None]:
    """Codes of findings that may be there, and the rule that says so: the last that says any."""
    for number, rule in reversed(tuple(enumerate(policy.rules, 1))):
        if rule.allow is not None and is_about(rule, kind, cell):
            return rule.allow, number
    return (), None
