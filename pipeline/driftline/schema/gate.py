"""The gate: policy, what was accepted, and the verdict on one commit's evidence.

params.yaml, key `gate`     GatePolicy
blessings.yaml              Blessing, a list: what somebody accepted, why and until when
`driftline gate --json`     GateReport, which a release record holds too
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from driftline.schema.hops import HopKind
from driftline.schema.values import Value

Verdict = Literal["pass", "fail", "error", "refused", "unstable", "undecided", "skipped"]
CheckKind = Literal[
    "evidence",
    "cell",
    "answers",
    "finding",
    "items",
    "loss",
    "gain",
    "flips",
    "kl",
    "kl_p99",
    "accuracy",
]
NO_LIMIT = "none"


def _share(value: Any) -> Any:
    return _number(value, "a share from 0 to 1 (5 points are 0.05)", most=1)


def _amount(value: Any) -> Any:
    return _number(value, "a number of nats, 0 or more")


def _count(value: Any) -> Any:
    return _number(value, "a whole number, 0 or more", whole=True)


def _number(value: Any, wanted: str, *, most: float | None = None, whole: bool = False) -> Any:
    """A limit as it is, checked before pydantic tries its types one by one."""
    if value is None or value == NO_LIMIT:
        return value
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if not right or not value >= 0 or (most is not None and value > most):
        raise ValueError(f'expected {wanted}, or "{NO_LIMIT}"; found {value!r}')
    return value


Share = Annotated[float | Literal["none"] | None, BeforeValidator(_share)]
Amount = Annotated[float | Literal["none"] | None, BeforeValidator(_amount)]
Count = Annotated[int | Literal["none"] | None, BeforeValidator(_count)]


class Rule(Value):
    """Limits on some hops: those of `kinds` (none: all) whose child is in `cells` (none: all).

    Without `evalset` and `tag` a rule is about all items of the hop together; with a pattern
    (`pods`, `*`) about each evalset, or the items of each tag, by itself. A limit that is left out
    stays what an earlier rule made it, "none" lifts it.

    `max_loss` and `max_gain` are shares of the mean score, child against parent; `max_flips` counts
    answers that were right, are not any more, and are no near-ties; `max_kl` and `max_kl_p99` are
    nats above the noise floor; `min_accuracy` is the child's share of right answers; `allow` names
    findings that may be there.
    """

    kinds: tuple[HopKind, ...] = ()
    cells: tuple[str, ...] = ()
    evalset: str | None = None
    tag: str | None = None
    max_loss: Share = None
    max_gain: Share = None
    max_flips: Count = None
    max_kl: Amount = None
    max_kl_p99: Amount = None
    min_items: Count = None
    min_accuracy: Share = None
    allow: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _about_whole_hops(self) -> Rule:
        for name in ("max_kl_p99", "allow"):
            if getattr(self, name) is not None and (self.evalset or self.tag):
                raise ValueError(f"{name} is about a hop: leave evalset and tag out of its rule")
        return self


CHANGING: tuple[HopKind, ...] = ("merge", "convert", "quantize", "runtime")
"""Every kind of hop but `adapter`, which is meant to change answers."""
FLOATS = ("llamacpp/*/f32", "llamacpp/*/f16", "llamacpp/*/bf16")
_EXACT: dict[str, Any] = {"max_flips": 0, "max_kl": 0.001, "max_kl_p99": 0.02}

DEFAULT_RULES = (
    Rule(kinds=CHANGING, max_loss=0.05, max_gain=0.02, max_kl=0.1, max_kl_p99=1.0, min_items=30),
    Rule(kinds=CHANGING, evalset="*", max_loss=0.15, max_gain=0.05),
    Rule(kinds=("merge", "runtime"), **_EXACT),
    Rule(kinds=("convert",), cells=FLOATS, **_EXACT),
    Rule(kinds=("adapter",), min_items=30),
)
"""What holds where params.yaml says nothing; docs/gates.md gives the reasons."""


class GatePolicy(Value):
    """What a commit's evidence has to be; patterns are those of a shell (`*` matches `/` too).

    `required` cells have to be there, whole and stable; of these, those in `may_skip` may be
    skipped. `experimental` ones are measured and reported, and never judged. `rules` apply in
    order, later ones over earlier ones; they stand in for the default's, not beside them.
    """

    required: tuple[str, ...] = ("*",)
    may_skip: tuple[str, ...] = ()
    experimental: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = DEFAULT_RULES


class Blessing(Value):
    """One accepted reason: the very subject of `id`, as bad as it was, until `expires` (included).

    `fact` is what the gate said then, `up_to` its figure rounded up: a larger one is not covered.
    `items` are the flips that were accepted: others are not. A finding or a skipped cell is covered
    as long as it says the same. `accepted` is the date of the commit it was accepted on.
    """

    id: str = Field(min_length=1)
    fact: str
    up_to: float | None = None
    items: tuple[str, ...] = ()
    reason: str = Field(min_length=1)
    by: str = Field(min_length=1)
    accepted: date
    expires: date


class BlessingUse(Value):
    """A blessing and what it does: covers a reason, is expired, exceeded, or about nothing."""

    blessing: Blessing
    state: Literal["covers", "expired", "exceeded", "unused"]


class GateVerdict(Value):
    """One thing held against one limit.

    `id` names the subject, `check:cell[:evalset][#tag]` (`code:cell` for a finding), and is what
    `driftline bless` takes. `measured` is what a blessing accepts: larger is worse. `low` and
    `high` are one-sided 95 % bounds, `need` the number of items that would decide. `items` of the
    subject were judged; `keys` are those it is about. `rule` says which of the policy's rules set
    the limit, from 1. `look` is the command to look closer; `remark` what became of a blessing.
    """

    id: str
    check: CheckKind
    verdict: Verdict
    cell: str
    parent: str = ""
    kind: HopKind | None = None
    evalset: str | None = None
    tag: str | None = None
    items: int = 0
    measured: float | None = None
    limit: float | None = None
    low: float | None = None
    high: float | None = None
    need: int | None = None
    cause: str = ""
    keys: tuple[str, ...] = ()
    message: str
    look: str = ""
    rule: int | None = None
    blessed: Blessing | None = None
    remark: str = ""

    @property
    def stops(self) -> bool:
        """Whether it keeps the gate from passing."""
        return self.verdict not in ("pass", "skipped") and self.blessed is None


class Later(Value):
    """What the verdict becomes when a blessing's last day, `after`, is over."""

    after: date
    verdict: Verdict


class GateReport(Value):
    """The verdict on one commit's evidence, `index_seal`; blessings are judged as of `judged_on`.

    Laws: `verdict` is the worst of the checks that stop, in the order refused, error, unstable,
    fail, undecided, and `pass` without any; `exit_code` follows from it. The same evidence, policy,
    blessings and date give the same report.
    """

    schema_version: Literal[1] = 1
    verdict: Verdict
    exit_code: int
    judged_on: date
    index_seal: str
    policy: GatePolicy | None
    checks: tuple[GateVerdict, ...]
    blessings: tuple[BlessingUse, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stops(self) -> tuple[GateVerdict, ...]:
        """Checks that keep the gate from passing, worst first."""
        return tuple(row for row in self.checks if row.stops)

    @property
    def accepted(self) -> tuple[GateVerdict, ...]:
        """Checks that would stop it and are blessed."""
        return tuple(row for row in self.checks if row.blessed is not None)

    @property
    def skipped(self) -> tuple[GateVerdict, ...]:
        """Checks that are not judged."""
        return tuple(row for row in self.checks if row.verdict == "skipped")

    @property
    def passed(self) -> int:
        """How many checks pass by themselves."""
        return sum(row.verdict == "pass" for row in self.checks)
