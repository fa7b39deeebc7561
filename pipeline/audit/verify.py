"""`driftline verify`: is everything here what its record says, from git evidence to remote?"""

from __future__ import annotations

from pathlib import Path

from pipeline import history
from pipeline.audit import lock as locks
from pipeline.audit import objects, workspace
from pipeline.audit.hashes import Hashes
from pipeline.audit.problems import Audit, Problem
from pipeline.errors import RefusedError
from pipeline.lineage import chain, evidence
from pipeline.lineage.evidence import Evidence, Fault
from pipeline.progress import progress

EVIDENCE = "evidence"


def verify(*, deep: bool = False, remotes: tuple[str, ...] | None = None) -> Audit:
    """Check the evidence in git, `dvc.lock` and the working tree; with `deep` every byte.

    Args:
        deep: recompute every digest, and walk DVC's cache and remotes too.
        remotes: which remotes; None for the default one, where there is one.

    Raises:
        InputError: no DVC repository, or no such remote.
        RefusedError: there is no evidence to hold anything against.
        ToolError: a remote cannot be reached.
    """
    audit = Audit()
    with progress("verify") as report:

        def say(what: str) -> None:
            report(what, sum(audit.checked.values()), 0)

        lock = _lock(audit)
        found = _evidence(audit)
        workspace.Walk(found, lock, audit, Hashes(), deep, say).run()
        if deep:
            with objects.repository() as repo:
                objects.check_cache(repo, lock, audit, say)
                for name in objects.remote_names(repo)[:1] if remotes is None else remotes:
                    objects.check_remote(repo, name, lock, audit, say)
    audit.problems.sort()
    return audit


def _lock(audit: Audit) -> locks.Lock:
    try:
        lock = locks.read()
    except RefusedError as error:
        audit.problems.append(
            Problem(locks.PLACE, "dvc.lock", "broken", error.message, remedy=error.remedy)
        )
        return locks.Lock()
    audit.count(locks.PLACE, len(lock.deps))
    audit.problems += locks.contradictions(lock)
    return lock


def _evidence(audit: Audit) -> Evidence:
    found, faults = evidence.survey(history.FolderTree())
    audit.count(EVIDENCE, len(found.index.files) + 1)
    audit.problems += [_problem(fault) for fault in (*faults, *chain.faults(found))]
    return found


def _problem(fault: Fault) -> Problem:
    path = Path(history.FOLDER, fault.path).as_posix()
    return Problem(
        EVIDENCE, path, fault.what, fault.detail.removeprefix(": "), "lineage", evidence.REMEDY
    )
