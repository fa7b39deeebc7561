"""The gate as JUnit XML: a suite of its checks, then one of each cell with a case per item; pure.

Law: there is a failure or an error in it if and only if the gate does not pass.

Elements are those that pytest writes: Jenkins, GitLab and GitHub's reporters read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from xml.etree import ElementTree as ET

from driftline.evidence.lineage import Evidence
from driftline.gate import words
from driftline.gate.policy import any_of
from driftline.project import params
from driftline.project.routes import ROOT_CELL
from driftline.report.escape import visible
from driftline.schema.cells import CellRecord
from driftline.schema.gate import GateReport, GateVerdict
from driftline.schema.lineage import HopEvidence, ItemDigest, ItemEvidence

Result = Literal["", "failure", "error", "skipped"]
RESULTS: tuple[Result, ...] = ("failure", "error", "skipped")
ERRORS = ("refused", "error", "unstable")
"""Verdicts on what could not be measured."""
MESSAGE = 600
ANSWER = 2000
"""Characters shown of an answer."""


@dataclass(frozen=True)
class Answers:
    """What was answered, by cell and key, and what was expected, by key."""

    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    expected: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One test case; `result` "" is a pass. Of its texts `lines` and `out` alone are escaped."""

    classname: str
    name: str
    result: Result = ""
    type: str = ""
    message: str = ""
    lines: tuple[str, ...] = ()
    out: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


def junit(report: GateReport, evidence: Evidence | None, answers: Answers | None = None) -> str:
    """The file's text; the same arguments give the same bytes.

    Args:
        report: of the gate.
        evidence: what it is about; None where that was refused.
        answers: text for the cases that fail.
    """
    root = ET.Element("testsuites", {"name": "driftline"})
    suites = [
        _suite("gate", _gate_properties(report, evidence), [_check(r) for r in report.checks])
    ]
    if evidence is not None:
        rows = _by_cell(report)
        for name, record in sorted(evidence.cells.items()):
            told = _told(evidence, name, report, rows.get(name, ()))
            cases = list(_items(evidence, record, told, answers or Answers()))
            suites.append(_suite(name, _cell_properties(record), cases))
    totals = Counter[str]()
    for suite in suites:
        totals.update({name: int(suite.get(name, "0")) for name in _COUNTS})
    root.attrib.update({name: str(totals[name]) for name in _COUNTS})
    root.extend(suites)
    ET.indent(root, " ")
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode() + "\n"


def _by_cell(report: GateReport) -> dict[str, list[GateVerdict]]:
    by_cell: dict[str, list[GateVerdict]] = {}
    for row in report.checks:
        by_cell.setdefault(row.cell, []).append(row)
    return by_cell


# -------------------------------------------------------------------------------------- elements

_COUNTS = ("tests", "failures", "errors", "skipped")


def _suite(name: str, properties: Mapping[str, str], cases: Sequence[Case]) -> ET.Element:
    results = Counter(case.result for case in cases)
    numbers = (len(cases), results["failure"], results["error"], results["skipped"])
    counts = {key: str(number) for key, number in zip(_COUNTS, numbers, strict=True)}
    suite = ET.Element("testsuite", {"name": visible(name), **counts})
    _add_properties(suite, properties)
    suite.extend(_element(case) for case in _distinct(cases))
    return suite


def _distinct(cases: Sequence[Case]) -> Iterator[Case]:
    """The same cases; of those of one name, which readers take for one, the later ones numbered."""
    seen = Counter[tuple[str, str]]()
    for case in cases:
        key = (case.classname, case.name)
        seen[key] += 1
        yield case if seen[key] == 1 else replace(case, name=f"{case.name} ({seen[key]})")


def _element(case: Case) -> ET.Element:
    element = ET.Element(
        "testcase", {"classname": visible(case.classname), "name": visible(case.name)}
    )
    _add_properties(element, case.properties)
    if case.result:
        facts = {"type": visible(case.type), "message": visible(case.message, MESSAGE)}
        ET.SubElement(element, case.result, facts).text = "\n".join(case.lines) or None
    if case.out:
        ET.SubElement(element, "system-out").text = "\n".join(case.out)
    return element


def _add_properties(parent: ET.Element, properties: Mapping[str, str]) -> None:
    known = {name: value for name, value in properties.items() if value}
    if known:
        inside = ET.SubElement(parent, "properties")
        for name, value in known.items():
            ET.SubElement(inside, "property", {"name": name, "value": visible(value)})


# --------------------------------------------------------------------------------------- the gate


def _gate_properties(report: GateReport, evidence: Evidence | None) -> dict[str, str]:
    return {
        "verdict": report.verdict,
        "exit_code": str(report.exit_code),
        "index_seal": report.index_seal,
        "driftline": evidence.index.driftline if evidence else "",
    }


def _check(row: GateVerdict) -> Case:
    out = f"accepted by {words.accepted(row.blessed)}" if row.blessed else ""
    return Case(
        classname=words.subject(row.model_copy(update={"evalset": None, "tag": None})),
        name=row.id,
        result=_result(row),
        type=row.check,
        message=words.said(row),
        lines=tuple(_lines(row)) if row.stops else (),
        out=(visible(words.said(row), MESSAGE), visible(out, MESSAGE)) if out else (),
    )


def _result(row: GateVerdict) -> Result:
    if row.stops:
        return "error" if row.verdict in ERRORS else "failure"
    return "skipped" if row.verdict == "skipped" else ""


def _lines(row: GateVerdict) -> Iterator[str]:
    """A stopping check in full, escaped."""
    yield visible(f"{row.verdict} {words.subject(row)}: {words.said(row)}", MESSAGE)
    for name, text in (
        ("items", words.items(row)),
        ("look closer", row.look),
        ("accept", f"driftline bless {row.id}" if row.verdict not in ERRORS else ""),
        ("blessing", row.remark),
    ):
        if text:
            yield visible(f"{name}: {text}", MESSAGE)


# ---------------------------------------------------------------------------------------- a cell


def _cell_properties(record: CellRecord) -> dict[str, str]:
    return {
        "outcome": record.outcome.state,
        "runtime": record.cell.runtime,
        "artifact": record.cell.artifact,
        "artifact_identity": record.artifact_identity,
        "adapter_identity": record.adapter_identity or "",
        "prompts_sha256": record.prompts_sha256,
        "completions_sha256": record.completions_sha256 or "",
        "code_sha256": record.code_sha256,
        "environment_sha256": record.environment_sha256,
        "seal": record.seal,
    }


@dataclass(frozen=True)
class _Told:
    """What the gate says about a cell: checks that stop and that were accepted, by item; and why
    its items are not judged, as a result with its type and reason, if they are not."""

    hop: HopEvidence | None
    stopping: Mapping[str, Sequence[GateVerdict]]
    accepted: Mapping[str, Sequence[GateVerdict]]
    instead: tuple[Result, str, str] | None


def _told(evidence: Evidence, cell: str, report: GateReport, rows: Sequence[GateVerdict]) -> _Told:
    return _Told(
        hop=evidence.hops.get(cell),
        stopping=_by_item([row for row in rows if row.stops]),
        accepted=_by_item([row for row in rows if row.blessed]),
        instead=_instead(evidence.cells[cell], report, rows),
    )


def _by_item(rows: Sequence[GateVerdict]) -> dict[str, list[GateVerdict]]:
    by_item: dict[str, list[GateVerdict]] = {}
    for row in rows:
        for key in row.keys:
            by_item.setdefault(key, []).append(row)
    return by_item


def _instead(
    record: CellRecord, report: GateReport, rows: Sequence[GateVerdict]
) -> tuple[Result, str, str] | None:
    outcome = record.outcome
    if report.policy is not None and any_of(report.policy.experimental, record.cell.id):
        return "skipped", "experimental", f"experimental, not judged: {outcome.state}"
    if outcome.state == "skipped":
        return "skipped", outcome.state, outcome.reason
    if outcome.state == "error":
        stops = any(row.check == "cell" and row.stops for row in rows)
        return "error" if stops else "skipped", outcome.kind or outcome.state, outcome.reason
    return None


def _items(evidence: Evidence, record: CellRecord, told: _Told, answers: Answers) -> Iterator[Case]:
    """A case per golden prompt, in the order of the evidence."""
    cell = record.cell.id
    digests = {each.name: evidence.evalset(each.name) for each in evidence.index.evalsets}
    for item in _asked(evidence, record, digests):
        evalset, _, name = item.key.partition("/")
        case = Case(
            classname=cell,
            name=item.key,
            properties=_item_properties(item, digests.get(evalset, {}).get(name)),
        )
        yield _with_result(case, item, told, _texts(answers, cell, item.key))


def _asked(
    evidence: Evidence, record: CellRecord, digests: Mapping[str, Mapping[str, ItemDigest]]
) -> Iterator[ItemEvidence]:
    """Golden prompts with what came of them; a cell that did not run has nothing but their keys."""
    items = [item for item in evidence.items(record.cell.id).values() if item.state is not None]
    yield from items
    if not items and not record.ran:
        evalsets = params.parse(evidence.params, where=evidence.where).evalsets
        is_root = record.cell.id == ROOT_CELL
        for name in digests if is_root else evalsets.get(record.cell.variant, ()):
            yield from (ItemEvidence(key=f"{name}/{item}") for item in digests[name])


def _item_properties(item: ItemEvidence, digest: ItemDigest | None) -> dict[str, str]:
    return {
        "state": item.state or "",
        "score": "" if item.score is None else f"{item.score:g}",
        "output_sha256": item.output_sha256 or "",
        "text_sha256": item.text_sha256 or "",
        "item_sha256": digest.sha256 if digest else "",
        "prompt_sha256": digest.prompt_sha256 if digest else "",
    }


def _with_result(case: Case, item: ItemEvidence, told: _Told, texts: tuple[str, ...]) -> Case:
    stopping = told.stopping.get(item.key, ())
    if stopping:
        worst = stopping[0]
        cause = told.hop.causes.get(item.key, "") if told.hop else ""
        place = words.subject(worst)
        return replace(
            case,
            result=_result(worst),
            type=worst.check,
            message=f"{worst.check}, {place}: {cause or worst.cause or 'no cause known'}",
            lines=(*(_line(row) for row in stopping), *texts),
        )
    if told.instead is not None:
        result, kind, reason = told.instead
        return replace(case, result=result, type=kind, message=reason)
    if item.score is None:
        said = "no answer" if item.state == "errored" else "has no check"
        return replace(case, result="skipped", type=item.state or "", message=said)
    return replace(case, out=tuple(_worse(item.key, told)))


def _line(row: GateVerdict) -> str:
    return visible(f"{row.verdict} [{row.id}]: {words.said(row)}", MESSAGE)


def _worse(key: str, told: _Told) -> Iterator[str]:
    """Why an item that became worse passes, escaped."""
    accepted = told.accepted.get(key, ())
    if told.hop is not None and key in told.hop.worse:
        why = "within limits"
        if accepted:
            why = "accepted"
        elif key in told.hop.near_ties:
            why = "a near-tie, which rounding decides"
        hop = told.hop.hop
        yield visible(f"became worse over {hop.kind} {hop.name}: {why}", MESSAGE)
    for row in accepted:
        if row.blessed:
            yield visible(f"[{row.id}] {words.accepted(row.blessed)}", MESSAGE)


def _texts(answers: Answers, cell: str, key: str) -> tuple[str, ...]:
    """Expected and given answer, escaped, each if it is known."""
    pairs = (
        ("expected", answers.expected.get(key)),
        ("got", answers.given.get(cell, {}).get(key)),
    )
    return tuple(f"{name}: {visible(text, ANSWER)}" for name, text in pairs if text is not None)
