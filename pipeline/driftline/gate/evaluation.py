"""The gate: policy x evidence x blessings → one verdict with its reasons; pure.

Laws: a report depends on the evidence, not on the order of its hops, findings or cells, nor of the
blessings; one more reason never turns a verdict towards `pass`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import cached_property
from typing import Any, get_args

from driftline.errors import DriftlineError, RefusedError
from driftline.evidence.lineage import Evidence
from driftline.gate import blessings as blessed
from driftline.gate import policy as policies
from driftline.gate.counts import counted
from driftline.gate.policy import Limit, Scope, any_of, matches
from driftline.gate.readings import HopFacts, hop_facts
from driftline.gate.rows import row
from driftline.gate.scores import corrected, intervals
from driftline.project import params
from driftline.project.params import Params
from driftline.project.plan import find, plan, stage
from driftline.project.sections import reading
from driftline.schema.cells import CellRecord, CellSpec
from driftline.schema.gate import (
    Blessing,
    CheckKind,
    GatePolicy,
    GateReport,
    GateVerdict,
    Later,
    Verdict,
)
from driftline.schema.hops import Finding
from driftline.schema.lineage import ItemEvidence

EXIT_CODES: Mapping[Verdict, int] = {
    "refused": 3,
    "error": 4,
    "unstable": 5,
    "fail": 1,
    "undecided": 1,
    "pass": 0,
}
"""Worst first: that is the order of precedence."""
ORDER: tuple[Verdict, ...] = (*EXIT_CODES, "skipped")
CHECKS: tuple[CheckKind, ...] = get_args(CheckKind)
"""In the order in which those of a cell are shown."""
ALWAYS = date.min
"""The day on which no blessing has expired."""


def evaluate(
    policy: GatePolicy, evidence: Evidence, blessings: Iterable[Blessing] = (), *, today: date
) -> GateReport:
    """Hold one commit's evidence against a policy.

    Args:
        policy: what it has to be.
        evidence: what was measured.
        blessings: reasons that were accepted.
        today: blessings that expire before it do not count.

    Raises:
        InputError: a rule names an evalset or tag that the evidence does not have.
    """
    given = tuple(sorted(blessings, key=lambda each: each.model_dump_json()))
    gate = _Gate(policy, evidence)
    policies.check_names(policy, gate.evalsets, gate.all_tags)
    places = {name: n for n, name in enumerate(gate.cells)}
    rows = sorted(
        (blessed.applied(each, given, today) for each in gate.rows()),
        key=lambda each: _place(each, places),
    )
    verdict = worst(each.verdict for each in rows if each.stops)
    return GateReport(
        verdict=verdict,
        exit_code=EXIT_CODES[verdict],
        judged_on=today,
        index_seal=evidence.index.seal,
        policy=policy,
        checks=tuple(rows),
        blessings=tuple(blessed.use(each, rows, today) for each in given),
        notes=tuple(policies.notes(policy, gate.kinds)),
    )


def outlook(report: GateReport) -> tuple[Later, ...]:
    """How the verdict changes as the blessings in a report expire, one after the other.

    Of a report in which every blessing is in force (`ALWAYS`), that is all there is to say about
    time: a page made from it is the same whenever it is made.
    """
    changes, verdict = [], report.verdict
    lasting = [(each.blessed.expires, each.verdict) for each in report.checks if each.blessed]
    for end in sorted({expires for expires, _ in lasting}):
        over = [known for expires, known in lasting if expires <= end]
        then = worst((report.verdict, *over))
        if then != verdict:
            changes.append(Later(after=end, verdict=then))
            verdict = then
    return tuple(changes)


def refused(error: DriftlineError, *, today: date) -> GateReport:
    """The report on evidence that cannot be read as what it says it is."""
    check = row("evidence", "", "refused", error.message, id_="evidence", look=error.remedy)
    return GateReport(
        verdict="refused",
        exit_code=EXIT_CODES["refused"],
        judged_on=today,
        index_seal="",
        policy=None,
        checks=(check,),
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on all of them; `pass` on none."""
    given = set(verdicts)
    return next((verdict for verdict in EXIT_CODES if verdict in given), "pass")


def _place(check: GateVerdict, cells: Mapping[str, int]) -> tuple[Any, ...]:
    return (
        ORDER.index(check.verdict),
        cells.get(check.cell, len(cells)),
        CHECKS.index(check.check),
        check.id,
        check.message,
    )


def check_made_with(project: Params, evidence: Evidence) -> None:
    """Refuse evidence of another project than params.yaml describes.

    Raises:
        RefusedError: keys that differ are named.
    """
    here, there = _results(project), _results(_project(evidence))
    differ = [key for key in here if here[key] != there[key]]
    if differ:
        raise RefusedError(
            f"{evidence.where}: the evidence was made with another {reading.PARAMS_FILE}: "
            f"{', '.join(differ)}",
            remedy="driftline run, then again",
        )


def _results(project: Params) -> dict[str, Any]:
    """What of params.yaml changes a result: of `limits` only threads do."""
    values = project.model_dump(mode="json", exclude={"elsewhere", "limits"})
    return {**values, "limits.threads": project.limits.threads}


def _project(evidence: Evidence) -> Params:
    return params.parse(evidence.params, where=f"{evidence.where}: params")


class _Gate:
    """Evidence and policy, and every check that follows from the two."""

    def __init__(self, policy: GatePolicy, evidence: Evidence) -> None:
        self.policy, self.evidence = policy, evidence
        self.project = _project(evidence)
        self.specs: Mapping[str, CellSpec] = {spec.id: spec for spec in plan(self.project)}
        self.cells = tuple(dict.fromkeys((*self.specs, *sorted(evidence.cells))))
        hops = {each.hop.child: each.hop.kind for each in evidence.index.hops}
        self.kinds = {name: hops.get(name) for name in self.cells}
        self.evalsets = tuple(each.name for each in evidence.index.evalsets)
        self._items: dict[str, dict[str, ItemEvidence]] = {}

    @cached_property
    def tags(self) -> Mapping[str, tuple[str, ...]]:
        """Tags of every golden prompt, by key."""
        return {
            f"{name}/{item.id}": item.tags
            for name in self.evalsets
            for item in self.evidence.evalset(name).values()
        }

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Every tag once, sorted."""
        return tuple(sorted({tag for tags in self.tags.values() for tag in tags}))

    def rows(self) -> list[GateVerdict]:
        """Every check; that nothing was judged is a reason not to pass."""
        limited = [each for hop in self._hops() for each in self._limited(hop)]
        of_hops = [check for each in limited for check in counted(*each)]
        of_hops += corrected([test for each in limited for test in intervals(*each)])
        rows = [*self._cells(), *map(self._finding, self.evidence.index.findings), *of_hops]
        if not of_hops and not any(each.stops for each in rows):
            said = "no hop is held against any limit: nothing was judged"
            look = "driftline gate --json   (it has the policy)"
            rows.append(row("evidence", "", "undecided", said, id_="evidence", look=look))
        return rows

    def _is_experimental(self, cell: str) -> bool:
        return any_of(self.policy.experimental, cell)

    def _is_required(self, cell: str) -> bool:
        return any_of(self.policy.required, cell) and not self._is_experimental(cell)

    def _ran(self, cell: str) -> bool:
        record = self.evidence.cells.get(cell)
        return record is not None and record.ran

    def _of_cell(self, cell: str) -> dict[str, ItemEvidence]:
        if cell not in self._items:
            self._items[cell] = self.evidence.items(cell)
        return self._items[cell]

    # -- cells

    def _cells(self) -> Iterator[GateVerdict]:
        for pattern in self.policy.required:
            if not matches(pattern, self.cells):
                said = f"no cell of this project is {pattern}, and the policy requires one"
                yield row("cell", pattern, "fail", said, look="driftline plan")
        for name in self.cells:
            yield self._cell(name)
            yield from self._answers(name)

    def _cell(self, name: str) -> GateVerdict:
        """Whether a cell is there, whole and stable; or why that need not be."""
        record = self.evidence.cells.get(name)
        verdict, said = _outcome(record)
        look = "" if verdict == "pass" else self._again(name)
        if record is not None and verdict == "skipped":
            look = record.outcome.remedy or look
        if self._is_experimental(name):
            verdict, said = "skipped", f"experimental, not judged: {said}"
        elif verdict != "pass" and not self._is_required(name):
            verdict, said = "skipped", f"not required: {said}"
        elif verdict == "skipped" and any_of(self.policy.may_skip, name):
            said = f"it may be: {said}"
        elif verdict == "skipped":
            verdict = "fail"
        return row(
            "cell",
            name,
            verdict,
            said,
            keys=tuple(sorted(record.unstable)) if record else (),
            look=look,
        )

    def _again(self, name: str) -> str:
        """The command that scores a cell once more."""
        if name not in self.specs:
            return "driftline run"
        return f"dvc repro --single-item --force {stage(self.project, find(self.project, name))}"

    def _answers(self, name: str) -> Iterator[GateVerdict]:
        """Prompts without an answer in a required cell that ran: they are nobody's score."""
        if not self._ran(name) or not self._is_required(name):
            return
        states = {key: item.state for key, item in self._of_cell(name).items() if item.state}
        lost = tuple(key for key, state in states.items() if state == "errored")
        if lost:
            said = f"{len(lost)} of {len(states)} prompts got no answer"
            look = f"driftline explain {lost[0]}"
            yield row("answers", name, "error", said, keys=lost, look=look)

    # -- findings

    def _finding(self, finding: Finding) -> GateVerdict:
        cell = finding.where.rpartition(" → ")[2]
        kind = self.kinds.get(cell)
        codes, rule = policies.allowed(self.policy, kind, cell)
        verdict: Verdict = "pass" if finding.code in codes else "fail"
        if self._is_experimental(cell):
            verdict, rule = "skipped", None
        look = "reports/lineage.md#findings"
        if finding.items:
            look = f"driftline explain {finding.items[0]}"
        elif finding.component == "weights" and kind in ("convert", "quantize"):
            look = f"driftline budget {cell}"
        return row(
            "finding",
            cell,
            verdict,
            f"{finding.code}: {finding.message}",
            id_=f"{finding.code}:{cell}",
            hop=self.evidence.hops.get(cell),
            cause=finding.component or "",
            keys=finding.items,
            look=look,
            rule=rule,
        )

    # -- hops

    def _hops(self) -> Iterator[HopFacts]:
        """Hops to judge. Where an end did not run, its own verdict says so, if it is required."""
        for each in self.evidence.index.hops:
            parent, child = each.hop.parent, each.hop.child
            if self._is_experimental(child) or not self._ran(child):
                continue
            if self._ran(parent):
                before = self._of_cell(parent)
            elif self._is_required(parent) and not any_of(self.policy.may_skip, parent):
                continue
            else:
                before = {}
            yield hop_facts(self.evidence, each, before, self._of_cell(child), self.tags)

    def _limited(self, hop: HopFacts) -> Iterator[tuple[HopFacts, Scope, dict[str, Limit]]]:
        rules = self.policy.rules
        for scope in policies.scopes(rules, hop.kind, hop.child, hop.asked, hop.tags):
            limits = policies.limits(self.policy, hop.kind, hop.child, scope)
            if limits:
                yield hop, scope, limits


def _outcome(record: CellRecord | None) -> tuple[Verdict, str]:
    """How a cell ended, as a verdict and in words."""
    if record is None:
        return "fail", "there is no evidence of it"
    outcome = record.outcome
    reason = outcome.reason or "no reason recorded"
    if outcome.state == "error":
        return "error", f"{outcome.kind or 'error'}: {reason}"
    if outcome.state == "skipped":
        return "skipped", f"skipped: {reason}"
    if outcome.state == "unstable" or record.unstable:
        return "unstable", outcome.reason or "answers differ on repeat"
    return "pass", "ran, and repeats every answer"
