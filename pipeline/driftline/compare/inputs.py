"""Which of the things a run is given differ between two commits, and what they explain; pure.

An *input* is what somebody chose or installed: checkpoint, adapters, params.yaml, golden prompts,
corpora, software, the machine, driftline's own code. Artifacts, pinned prompts and answers are made
from inputs: where they differ, that is a *consequence*, traced back through the records to the
inputs that differ; what cannot be traced is *unexplained*.

Laws: `changes(a, a)` is empty, and so are the consequences; swapping the two swaps `before` and
`after` everywhere and changes nothing else. Takes time linear in the records; of item and tensor
listings only those that differ are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from driftline.compare import checkpoints, given, software
from driftline.compare.kinds import KINDS
from driftline.compare.sides import Key, Sides, differing, value_at
from driftline.evidence.lineage import Evidence
from driftline.project import routes
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.comparison import Consequence, InputChange
from driftline.store.digest import sha256_text

PIN_READERS = ("package transformers", "package tokenizers", "package python")
"""Software that renders and tokenizes golden prompts."""
ORDER = {kind: number for number, kind in enumerate(KINDS)}
ARTIFACT_ORDER = {kind: number for number, kind in enumerate(routes.artifact_kinds())}


def changes(before: Evidence, after: Evidence) -> tuple[InputChange, ...]:
    """Every input that differs, by kind and then name."""
    return Inputs(before, after).changes


def consequences(before: Evidence, after: Evidence) -> tuple[Consequence, ...]:
    """Every artifact and evalset's pinned prompts that differ, parents first."""
    return Inputs(before, after).consequences


class Inputs:
    """Inputs that differ between two commits, and the way from what they changed back to them."""

    def __init__(self, before: Evidence, after: Evidence) -> None:
        """Look at two commits; nothing is read before it is asked for."""
        self.before, self.after = before, after
        self._environments = software.Environments(before, after)
        self._traced: dict[str, frozenset[str]] = {}

    @cached_property
    def changes(self) -> tuple[InputChange, ...]:
        """Every input that differs, by kind and then name."""
        before, after = self.before, self.after
        threads = [value_at(side.params, "limits", "threads") or None for side in (before, after)]
        sides: dict[Key, Sides] = {
            **dict(given.keys("threads", *({"": value} for value in threads))),
            **dict(self._environments.changes()),
            **dict(checkpoints.source(before, after)),
            **dict(checkpoints.adapters(before, after)),
            **dict(given.settings(before.params, after.params)),
            **dict(given.evalsets(before, after)),
            **dict(given.corpora(before, after)),
            **dict(software.code(before, after)),
        }
        return tuple(
            InputChange(
                kind=kind, name=name, before=s.before, after=s.after, details=tuple(s.details)
            )
            for (kind, name), s in sorted(
                sides.items(), key=lambda each: (ORDER[each[0][0]], each[0][1])
            )
        )

    @cached_property
    def labels(self) -> frozenset[str]:
        """Labels of all changes."""
        return frozenset(change.label for change in self.changes)

    @property
    def consequences(self) -> tuple[Consequence, ...]:
        """Artifacts and pinned prompts that differ, parents first, each with what explains it."""
        return (*self._artifacts(), *self._prompts())

    def _artifacts(self) -> Iterator[Consequence]:
        old, new = self.before.artifacts, self.after.artifacts
        for name in sorted(old.keys() | new.keys(), key=self._rank):
            was, now = old.get(name), new.get(name)
            if was is None or now is None or was.identity != now.identity:
                yield Consequence(
                    kind="artifact",
                    name=name,
                    before=was.identity if was else "",
                    after=now.identity if now else "",
                    because=tuple(sorted(self.because(name))),
                )

    def _rank(self, name: str) -> tuple[int, bool, str]:
        record = self.after.artifacts.get(name) or self.before.artifacts[name]
        return ARTIFACT_ORDER[record.kind], record.conversion == "quantize", name

    def because(self, name: str) -> frozenset[str]:
        """Labels of the changed inputs an artifact was made from, whichever way.

        Empty for one whose bytes are the same, that only one side has, or that nothing explains.
        """
        if name not in self._traced:
            self._traced[name] = frozenset()  # records of a cycle explain nothing
            self._traced[name] = self._because(name)
        return self._traced[name]

    def _because(self, name: str) -> frozenset[str]:
        old, new = self.before.artifacts.get(name), self.after.artifacts.get(name)
        if old is None or new is None or old.identity == new.identity:
            return frozenset()
        labels = set(self._environments.labels(old.environment_sha256, new.environment_sha256))
        if old.code_sha256 != new.code_sha256:
            labels.add(f"driftline code {software.stage_of(new)}")
        if old.conversion == new.conversion == "pin":
            if old.arguments != new.arguments or "revision" not in new.arguments:
                labels |= self._pinned(name)
        else:
            labels |= self._parents(old, new)
            if old.arguments != new.arguments:
                labels |= self._arguments(old, new)
        if not labels and old.arguments != new.arguments:
            labels.add("its arguments")
        if not labels and (old.tool, old.tool_version) != (new.tool, new.tool_version):
            labels.add(f"tool {old.tool} {old.tool_version} → {new.tool} {new.tool_version}")
        return frozenset(labels)

    def _pinned(self, name: str) -> set[str]:
        if name.startswith(checkpoints.ADAPTERS):
            return {f"adapter {name.removeprefix(checkpoints.ADAPTERS)}"}
        return self._of(lambda change: change.kind == "source" and change.name != "location")

    def _parents(self, old: ArtifactRecord, new: ArtifactRecord) -> set[str]:
        was, now = ({each.name: each.identity for each in r.parents} for r in (old, new))
        labels: set[str] = set()
        for parent, a, b in differing(was, now):
            if a and b:
                labels |= self.because(parent) or {f"{parent} (unexplained)"}
        if was.keys() != now.keys():
            labels |= self._of(lambda c: c.kind == _given_of_parent(new)) or {"other parents"}
        return labels

    def _arguments(self, old: ArtifactRecord, new: ArtifactRecord) -> set[str]:
        wanted = {_given(new)}
        told = {key for key, _, _ in differing(old.arguments, new.arguments)}
        # A GGUF says where its source comes from, and which bytes that was.
        if checkpoints.ORIGIN in told:
            wanted = {"source", *(wanted if told != {checkpoints.ORIGIN} else ())}
        return self._of(lambda change: change.kind in wanted or change.label in wanted)

    def _of(self, which: Callable[[InputChange], bool]) -> set[str]:
        return {change.label for change in self.changes if which(change)}

    def _prompts(self) -> Iterator[Consequence]:
        """Evalsets whose unchanged items are rendered or tokenized to something else."""
        old = {each.name: each for each in self.before.index.evalsets}
        for new in self.after.index.evalsets:
            was = old.get(new.name)
            if was is None or was.sha256 == new.sha256:
                continue
            before, after = self.before.evalset(new.name), self.after.evalset(new.name)
            same = [k for k in before if k in after and before[k].sha256 == after[k].sha256]
            moved = [k for k in same if before[k].prompt_sha256 != after[k].prompt_sha256]
            if moved:
                read = self._of(
                    lambda c: c.kind == "source" and c.name not in ("location", "weights")
                )
                known = {*PIN_READERS, "driftline code prompts"} & self.labels
                digests = [
                    sha256_text("".join(side[key].prompt_sha256 for key in moved))
                    for side in (before, after)
                ]
                yield Consequence(
                    kind="prompts",
                    name=f"{new.name}: {len(moved)} of {len(same)} prompts",
                    before=digests[0],
                    after=digests[1],
                    because=tuple(sorted(read | known)),
                )


def _given(record: ArtifactRecord) -> str:
    """Kind of the input that decides how an artifact is made, or, one of each form, its label."""
    for row in routes.CONVERSIONS:
        if (row.step, row.kind) == (record.conversion, record.kind):
            form = record.name.rpartition("/")[2]
            return f"{row.given} {form}" if row.recipes else row.given
    return ""


def _given_of_parent(record: ArtifactRecord) -> str:
    """Kind of the input that names the artifact another of the same kind is made from."""
    rows = (row for row in routes.CONVERSIONS if row.kind == record.kind and row.step == "convert")
    return next((row.given for row in rows), "")
