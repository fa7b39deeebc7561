"""The verdict and why: the sentences a reviewer reads first, each with a place and an example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from driftline.report import hops
from driftline.report.changes import Change, changes, components, is_change, of_hop
from driftline.report.model import ReportInput
from driftline.schema.gate import GateVerdict
from driftline.schema.hops import Component, Finding, HopDrift

OTHERS = 4
"""Further hops and findings that are named at the top."""
EXAMPLES = 60
"""Items shown because they are named somewhere, at most."""
Tone = Literal["bad", "odd", "good"]


@dataclass(frozen=True)
class Reason:
    """One hop, why it drifts, and one item to look at.

    `finding` is what is not as it should be there, None where it is drift without a fault.
    """

    hop: HopDrift
    components: tuple[Component, ...]
    finding: Finding | None
    example: str
    change: Change | None

    @property
    def sentence(self) -> str:
        """What drift says about it."""
        return self.finding.message if self.finding else self.hop.summary

    @property
    def unseen(self) -> bool:
        """Whether there is a fault that no golden prompt shows."""
        return self.finding is not None and not self.example


@dataclass(frozen=True)
class Verdict:
    """What it comes to, and the reasons, the first of which is the one to know."""

    tone: Tone
    headline: str
    reasons: tuple[Reason, ...]
    more: int
    loose: tuple[Finding, ...]
    """Findings that blame no hop and no component."""


def verdict(evidence: ReportInput) -> Verdict:
    """From what others found: it counts, and picks what comes first."""
    every = reasons(evidence)
    named = {id(reason.finding) for reason in every}
    blaming = {reason.hop.hop.name for reason in every}
    return Verdict(
        tone=_tone(evidence),
        headline=_headline(evidence),
        reasons=every[: 1 + OTHERS],
        more=len(every[1 + OTHERS :]),
        loose=tuple(
            each
            for each in hops.findings(evidence)
            if id(each) not in named and each.where not in blaming
        ),
    )


def reasons(evidence: ReportInput) -> tuple[Reason, ...]:
    """Hops with a finding that blames a component, then others that changed answers; worst first.

    What stops the gate comes first, what it does not judge last. Of the rest a fault comes before
    ordinary drift, however little it cost: a 2-bit file is not the original.
    """
    every = changes(evidence)
    made = [_reason(evidence, each, finding, every) for each, finding in _blamed(evidence)]
    known = {reason.hop.hop.name for reason in made}
    for hop in hops.ranked(evidence.drift.hops):
        if hop.hop.name not in known and any(is_change(hop, item) for item in hop.items):
            made.append(_reason(evidence, hop, None, every))
    return tuple(sorted(made, key=lambda reason: _weight(evidence, reason.hop)))


def _weight(evidence: ReportInput, hop: HopDrift) -> int:
    """0 where the gate stops at a hop, 2 where it judges nothing of the cell, 1 otherwise."""
    if any(row.stops for row in _checks(evidence, hop)):
        return 0
    return 2 if _is_free(evidence, hop) else 1


def _is_free(evidence: ReportInput, hop: HopDrift) -> bool:
    """Whether the gate judges nothing of the cell that a hop leads to."""
    mine = _checks(evidence, hop)
    return bool(mine) and all(row.verdict == "skipped" for row in mine)


def _checks(evidence: ReportInput, hop: HopDrift) -> list[GateVerdict]:
    rows = evidence.gate.checks if evidence.gate else ()
    return [row for row in rows if row.cell == hop.hop.child]


def examples(evidence: ReportInput, most: int = EXAMPLES) -> tuple[str, ...]:
    """Items that reasons, findings and text paths name, in that order: they are shown in full."""
    named = [reason.example for reason in reasons(evidence)]
    named += [key for each in hops.findings(evidence) for key in each.items[:3]]
    named += [first.key for hop in evidence.drift.hops for first in hop.text.prompts[:1]]
    known = dict.fromkeys(key for key in named if key in evidence.prompts)
    return tuple(known)[:most]


def _blamed(evidence: ReportInput) -> list[tuple[HopDrift, Finding]]:
    """Per hop the first finding with a component, one with examples if there is any."""
    by_hop: dict[str, Finding] = {}
    for finding in hops.findings(evidence):
        if finding.component and finding.where in evidence.hops_by_name:
            first = by_hop.setdefault(finding.where, finding)
            if finding.items and not first.items:
                by_hop[finding.where] = finding
    return [(evidence.hops_by_name[name], finding) for name, finding in by_hop.items()]


def _reason(
    evidence: ReportInput, hop: HopDrift, finding: Finding | None, every: Sequence[Change]
) -> Reason:
    names = [each.hop.name for each in evidence.drift.hops]
    at = names.index(hop.hop.name)
    own = of_hop(every, at)
    by_key = {change.item.key: change for change in own}
    keys = [key for key in (finding.items if finding else ()) if key in evidence.prompts]
    telling = [key for key in keys if key in by_key] or keys or list(by_key)
    if not telling and finding and finding.component != "text":
        telling = _furthest(hop)
    example = telling[0] if telling else ""
    blamed = (finding.component,) if finding and finding.component else ()
    return Reason(
        hop=hop,
        components=blamed or components(hop, evidence.drift.findings),
        finding=finding,
        example=example,
        change=by_key.get(example),
    )


def _furthest(hop: HopDrift) -> list[str]:
    """The prompt whose distributions moved most, where no answer changed."""
    sequences = hop.split.sequences if hop.split else ()
    return [max(sequences, key=lambda each: each.kl_mean).key] if sequences else []


def _headline(evidence: ReportInput) -> str:
    words = _outcome(evidence)
    failed = [cell for cell in evidence.cells if not cell.ran]
    if failed:
        words += f" {len(failed)} of {len(evidence.cells)} cells did not run."
    return f"Gate: {evidence.gate.verdict}. {words}" if evidence.gate else words


def _outcome(evidence: ReportInput) -> str:
    """A fault first, however little it cost; then what became of answers."""
    compared = [hop for hop in evidence.drift.hops if hop.compared]
    if not compared:
        return "No hop could be compared."
    faulty = {hop.hop.name for hop, _ in _blamed(evidence)}
    answers = _damage(evidence, compared)
    if faulty:
        verb = "is" if len(faulty) == 1 else "are"
        return f"{len(faulty)} of {_hops(compared)} {verb} not as it should be; {answers}."
    return f"{answers[0].upper()}{answers[1:]}."


def _damage(evidence: ReportInput, compared: Sequence[HopDrift]) -> str:
    worse = [hop for hop in compared if hop.worse]
    if worse:
        count = sum(len(hop.worse) for hop in worse)
        said = f"{_answers(count)} became worse, over {len(worse)} of {_hops(compared)}"
        free = sum(len(hop.worse) for hop in worse if _is_free(evidence, hop))
        return f"{said}, {free:,} of them in cells that are not judged" if free else said
    parted = [hop for hop in compared if any(is_change(hop, item) for item in hop.items)]
    if parted:
        count = sum(is_change(hop, item) for hop in parted for item in hop.items)
        changed = f"{_answers(count)} changed, over {len(parted)} of {_hops(compared)}"
        return f"no answer became worse; {changed}"
    return f"no answer changed over {_hops(compared)}"


def _answers(count: int) -> str:
    return "1 answer" if count == 1 else f"{count:,} answers"


def _hops(compared: Sequence[HopDrift]) -> str:
    return "1 hop" if len(compared) == 1 else f"{len(compared)} hops"


def _tone(evidence: ReportInput) -> Tone:
    if evidence.gate:
        tones: dict[str, Tone] = {"pass": "good", "undecided": "odd"}
        return tones.get(evidence.gate.verdict, "bad")
    blamed = any(finding.component for finding in evidence.drift.findings)
    if blamed or any(hop.worse for hop in evidence.drift.hops):
        return "bad"
    every = evidence.drift.hops
    odd = any(not hop.compared or any(is_change(hop, i) for i in hop.items) for hop in every)
    return "odd" if odd or evidence.drift.findings or not every else "good"
