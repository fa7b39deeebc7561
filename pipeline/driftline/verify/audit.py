"""`driftline verify`: is everything here what its record says, from git evidence to remote?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from driftline.errors import InputError, RefusedError, ToolError
from driftline.evidence import chain, history, lineage
from driftline.evidence.lineage import Evidence
from driftline.progress import progress
from driftline.schema.artifacts import FileDigest
from driftline.store.digest import Difference
from driftline.verify import lock as locks
from driftline.verify import locked, objects, workspace
from driftline.verify.expected import Recorded
from driftline.verify.hashes import Hashes
from driftline.verify.lock import Lock, LockedPath
from driftline.verify.objects import Stores
from driftline.verify.problems import EVIDENCE, LOCK, Audit, LookedAt, Problem, as_problems
from driftline.verify.remedies import Remedies
from driftline.verify.survey import WorkingTree

LINEAGE = history.FOLDER.as_posix()


def verify(*, deep: bool = False, remotes: tuple[str, ...] | None = None) -> Audit:
    """Check the evidence in git, `dvc.lock` and the working tree; with `deep` every byte.

    Args:
        deep: recompute every digest, and walk DVC's cache and remotes too.
        remotes: which remotes; None for the default one, where there is one.

    Raises:
        InputError: nothing was run here yet, no DVC repository, or no such remote.
        RefusedError: there is no evidence to hold anything against.
    """
    with progress("verify") as report, ExitStack() as stack:
        run = _Run(deep, stack)

        def say(what: str) -> None:
            report(what, sum(run.audit.checked.values()), 0)

        def looked_at(place: str, what: str) -> None:
            say(what)
            run.audit.count(place)

        names = objects.known_remotes(run.repo, remotes) if deep else ()
        run.walk(looked_at)
        if deep:
            objects.check_cache(run.repo, run.stores, run.lock, run.audit, say)
        for name in names:
            run.remote(name, say)
        if deep and not objects.remote_names(run.repo):
            run.audit.notes.append("no DVC remote: what is here is nowhere else (dvc remote add)")
        run.finish()
    return run.audit


@dataclass
class _Run:
    deep: bool
    stack: ExitStack
    audit: Audit = field(default_factory=Audit)
    hashes: Hashes = field(default_factory=Hashes)
    lock: Lock = field(default_factory=Lock)
    head: Lock | None = None
    expected: Mapping[str, tuple[FileDigest, ...]] = field(default_factory=dict)

    @cached_property
    def repo(self) -> Any:
        """DVC's repository: opened where it is needed, that takes half a second."""
        return self.stack.enter_context(objects.repository())

    @cached_property
    def stores(self) -> Stores:
        """Its cache, and the remotes looked at."""
        return Stores.of(self.repo)

    @cached_property
    def tree(self) -> WorkingTree:
        """The working tree."""
        return WorkingTree(self.hashes, self.deep)

    def walk(self, looked_at: LookedAt) -> None:
        """The evidence, the lock file and the working tree."""
        if not any(path.is_file() for path in locks.FILES) and not Path(LINEAGE).exists():
            raise InputError(
                f"nothing was run here yet: neither {locks.FILES[0]} nor {LINEAGE}",
                remedy="driftline run",
            )
        self.head = locks.at_head()
        self._read_lock()
        evidence, faults = lineage.survey(history.FolderTree())
        self.audit.count(EVIDENCE, len(evidence.index.files) + 1)
        doubted = frozenset(fault.path for fault in faults)
        faults = (*faults, *chain.faults(evidence, doubted))
        recorded = Recorded(
            evidence=evidence,
            doubted=doubted,
            forged=self._forged(),
            lock=self.lock,
            head=self.head,
            listing=self._listing,
        )
        checked = workspace.check(recorded, self.tree, looked_at)
        self.expected = checked.expected
        self.audit.problems += [*_merged(faults), *as_problems(checked.deviations, self.lock)]
        if recorded.forged and not faults:
            self.audit.problems.append(self._forgery(checked.disowned))
        self._check_lock(evidence, checked.known | ({LINEAGE} if faults else set()))
        self._count_absent()

    def _count_absent(self) -> None:
        gone, made = locked.absent(self.lock)
        if gone:
            self.audit.notes.append(
                f"{gone} of {made} outputs are not here, and were not looked at: dvc pull"
            )

    def _read_lock(self) -> None:
        """The lock file; where it cannot be read, the one that is committed."""
        try:
            self.lock = locks.read()
        except RefusedError as error:
            path, _, detail = error.message.partition(": ")
            remedy = error.remedy if self.head else f"rm -f {path} && dvc repro"
            self.audit.problems.append(Problem(LOCK, path, "broken", detail, remedy=remedy))
            self.lock = self.head or Lock()
        self.audit.count(LOCK, len(self.lock.deps))

    def _check_lock(self, evidence: Evidence, known: frozenset[str]) -> None:
        """What the lock file says of itself; then whether the committed one would do instead."""
        problems = self.audit.problems
        if not any(each.place == LOCK and each.what == "broken" for each in problems):
            problems += locked.without_entry(self.lock, evidence)
        wrong = known | {each.out for each in problems if each.place == LOCK}
        problems += locked.contradictions(self.lock, self.tree, wrong)
        if self.deep:
            problems += locked.others_read(self.lock, self.tree, wrong)
        edited = any(each.place == LOCK for each in problems) or self._differs_from_head(known)
        if not edited or self.head is None or not locked.sound(self.head, self.tree, known):
            self.head = None

    def _differs_from_head(self, outs: frozenset[str]) -> bool:
        """Whether an out that is wrong is another one in the committed lock file."""
        committed = self.head.outs if self.head else {}
        return any(
            self.lock.outs[out].content != committed[out].content
            for out in outs & self.lock.outs.keys() & committed.keys()
        )

    def _forged(self) -> bool:
        """Whether the evidence is not what its stage wrote, as the lock file has it."""
        entry = self.lock.outs.get(LINEAGE)
        if entry is None or not self.tree.differs(entry, deep=True):
            return False
        committed = self.head.outs.get(LINEAGE) if self.head else None
        return committed is None or bool(self.tree.differs(committed, deep=True))

    def _forgery(self, disowned: tuple[str, ...]) -> Problem:
        detail = self.tree.differs(self.lock.outs[LINEAGE], deep=True)
        for out in disowned:
            detail += f"\nnot what its stage left in {out}"
        return Problem(EVIDENCE, LINEAGE, "edited", detail, "lineage", out=LINEAGE)

    def _listing(self, entry: LockedPath) -> Mapping[str, str]:
        with suppress(InputError):
            return self.stores.listing(entry)
        return {}

    def remote(self, name: str, say: objects.Say) -> None:
        """One remote; one that cannot be reached hides no problem of another place."""
        try:
            objects.check_remote(self.repo, name, self.stores, self.lock, self.audit, say)
        except ToolError as error:
            self.audit.unreachable.append(error)

    def finish(self) -> None:
        """Put every problem's remedy to it, in the order in which they are to be followed."""
        self.audit.problems.sort(key=lambda each: each.order)
        if not self.audit.problems:
            return
        with suppress(InputError):  # without DVC's cache there is nothing to restore from
            self.audit.problems = Remedies(
                lock=self.lock,
                head=self.head,
                stores=self.stores,
                hashes=self.hashes,
                expected=self.expected,
                problems=self.audit.problems,
            ).all()


def _merged(faults: tuple[Difference, ...]) -> list[Problem]:
    """One problem per evidence file."""
    by_path: dict[str, list[Difference]] = {}
    for fault in faults:
        by_path.setdefault(fault.path, []).append(fault)
    return [
        Problem(
            EVIDENCE,
            f"{LINEAGE}/{path}",
            own[0].what,
            "\n".join(each.detail for each in own if each.detail),
            "lineage",
        )
        for path, own in by_path.items()
    ]
