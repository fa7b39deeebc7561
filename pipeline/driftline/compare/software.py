"""Which software, machine and code of driftline differ, where they made anything; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from driftline.compare.sides import Key, Sides, differing, short_digest, text_of, there, value_at
from driftline.errors import RefusedError
from driftline.evidence.lineage import REMEDY, Evidence
from driftline.project import routes
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.comparison import Detail


def conversion_named(step: str, kind: str) -> str:
    """What people call a conversion: its step, and what of, where a step makes several kinds."""
    return f"{step} {kind}" if step == "convert" else step


NO_RESULT = ("lineage", "report")
"""Stages that show results and make none."""
MAKERS = {
    row.stage: conversion_named(row.step, row.kind)
    for row in routes.CONVERSIONS
    if row.step != "pin"
}
"""Stages whose code matters only where an artifact of that conversion (and kind) is there."""
TRACKED = (
    "runtime",
    "missing",
    "install",
    "python",
    "distributions",
    "converter_sha256",
    "threads",
    "cpu_features",
)
"""Keys of an environment that have a kind of their own; any other is about the machine."""
CONVERTER = "llama_cpp_python"
"""The distribution whose source the GGUF converter is taken from."""


def environment_differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[Key, tuple[str, str, tuple[Detail, ...]]]:
    """What differs between two probed environments of one runtime, as inputs."""
    differences: dict[Key, tuple[str, str, tuple[Detail, ...]]] = {}
    name = str(new.get("runtime") or old.get("runtime") or "")
    if "missing" in old or "missing" in new:
        if old.get("missing") != new.get("missing"):
            states = [str(side.get("missing", "installed")) for side in (old, new)]
            differences["runtime", name] = (states[0], states[1], ())
        return differences
    if old.get("python") != new.get("python"):
        differences["package", "python"] = (
            text_of(old.get("python")),
            text_of(new.get("python")),
            (),
        )
    for package, was, now in differing(
        value_at(old, "distributions"), value_at(new, "distributions")
    ):
        same = (was or {}).get("version") == (now or {}).get("version")
        differences["package", package] = (_package(was, same), _package(now, same), ())
    if old.get("converter_sha256") != new.get("converter_sha256"):
        detail = Detail(
            what="GGUF converter",
            before=short_digest(old.get("converter_sha256")),
            after=short_digest(new.get("converter_sha256")),
        )
        versions = [
            _package(value_at(side, "distributions", CONVERTER), False) for side in (old, new)
        ]
        sides = differences.get(("package", CONVERTER), (versions[0], versions[1], ()))
        differences["package", CONVERTER] = (sides[0], sides[1], (detail,))
    if old.get("threads") != new.get("threads"):
        differences["threads", ""] = (text_of(old.get("threads")), text_of(new.get("threads")), ())
    if machine := tuple(_machine(old, new)):
        differences["hardware", ""] = (_hardware(old), _hardware(new), machine)
    return differences


def _package(distribution: Mapping[str, str] | None, same_version: bool) -> str:
    if not distribution:
        return ""
    files = f" (files {short_digest(distribution.get('files_sha256'))})" if same_version else ""
    return f"{distribution.get('version')}{files}"


def _machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Detail]:
    sides = [
        {key: side[key] for key in side if key not in TRACKED and side[key] not in ("", None)}
        for side in (old, new)
    ]
    for key, was, now in differing(*sides):
        yield Detail(what=key, before=text_of(was), after=text_of(now))
    was, now = (set(side.get("cpu_features") or ()) for side in (old, new))
    for name in sorted(was ^ now):
        yield there(name, before=name in was, after=name in now)


def _hardware(environment: Mapping[str, Any]) -> str:
    said = [environment.get(key) for key in ("cpu", "machine", "system")]
    features = len(environment.get("cpu_features") or ())
    return ", ".join([*(str(each) for each in said if each), f"{features} CPU features"])


class Environments:
    """The environments that records of the two sides were made in, read once each."""

    def __init__(self, before: Evidence, after: Evidence) -> None:
        self.before, self.after = before, after
        self._read: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._differences: dict[tuple[str, str], dict[Key, tuple[str, str, Any]]] = {}

    def labels(self, old: str | None, new: str | None) -> frozenset[str]:
        """Labels of the inputs that differ between two environments."""
        if not old or not new or old == new:
            return frozenset()
        return frozenset(f"{kind} {name}".rstrip() for kind, name in self._between(old, new))

    def changes(self) -> Iterator[tuple[Key, Sides]]:
        """One change per input, whatever number of environments has it."""
        values: dict[Key, dict[tuple[str, str], list[str]]] = {}
        details: dict[Key, dict[Detail, None]] = {}
        users: dict[Key, dict[str, None]] = {}
        for (old, new), touched in self._pairs().items():
            runtime = str(self._environment(1, new).get("runtime"))
            for key, (was, now, said) in self._between(old, new).items():
                values.setdefault(key, {}).setdefault((was, now), []).append(runtime)
                details.setdefault(key, {}).update(dict.fromkeys(said))
                users.setdefault(key, {}).update(dict.fromkeys(touched))
        for key, sides in values.items():
            listed = list(details[key])
            if len(sides) > 1:
                listed += [
                    Detail(what=f"in {', '.join(sorted(set(where)))}", before=was, after=now)
                    for (was, now), where in sorted(sides.items(), key=lambda each: each[1])
                ]
            listed.append(Detail(what=f"touches {', '.join(sorted(users[key]))}"))
            joined = [
                ", ".join(sorted({side[end] for side in sides if side[end]})) for end in (0, 1)
            ]
            yield key, Sides(joined[0], joined[1], tuple(listed))

    def _pairs(self) -> dict[tuple[str, str], dict[str, None]]:
        """Differing environments of records that both sides have, and who uses them.

        A runtime all of whose records have other names is taken by what it has on either side, if
        that is one environment.
        """
        pairs: dict[tuple[str, str], dict[str, None]] = {}
        old, new = _users(self.before), _users(self.after)
        shared = set()
        for name in old.keys() & new.keys():
            (was, user), (now, _) = old[name], new[name]
            shared.add(user)
            if was != now:
                pairs.setdefault((was, now), {})[user] = None
        for user in {user for _, user in old.values()} & {user for _, user in new.values()}:
            if user not in shared:
                was_all = {sha for sha, each in old.values() if each == user}
                now_all = {sha for sha, each in new.values() if each == user}
                if len(was_all) == len(now_all) == 1 and was_all != now_all:
                    pairs.setdefault((was_all.pop(), now_all.pop()), {})[user] = None
        return dict(sorted(pairs.items()))

    def _between(self, old: str, new: str) -> dict[Key, tuple[str, str, Any]]:
        if (old, new) not in self._differences:
            self._differences[old, new] = environment_differences(
                self._environment(0, old), self._environment(1, new)
            )
        return self._differences[old, new]

    def _environment(self, side: int, sha256: str) -> Mapping[str, Any]:
        if (side, sha256) not in self._read:
            evidence = (self.before, self.after)[side]
            try:
                self._read[side, sha256] = json.loads(evidence.environment(sha256))
            except (OSError, KeyError, ValueError):
                raise RefusedError(
                    f"{evidence.where}: environment {sha256[:12]}… of a record is not among the "
                    "evidence",
                    remedy=REMEDY,
                ) from None
        return self._read[side, sha256]


def _users(evidence: Evidence) -> dict[str, tuple[str, str]]:
    """Environment of every record that has one, and what that record is of."""
    users = {}
    for name, record in evidence.artifacts.items():
        if record.environment_sha256:
            users[name] = (record.environment_sha256, conversion_of(record))
    for name, cell in evidence.cells.items():
        if cell.environment_sha256:
            users[f"cells/{name}"] = (cell.environment_sha256, f"{cell.cell.runtime} cells")
    return users


def conversion_of(record: ArtifactRecord) -> str:
    """`merge`, `quantize`, `convert gguf`, `convert mlx`."""
    return conversion_named(record.conversion, record.kind)


def code(before: Evidence, after: Evidence) -> Iterator[tuple[Key, Sides]]:
    """Stages whose code differs, where it made anything of either side."""
    digests: dict[str, dict[tuple[str, str], None]] = {}
    for stage, was, now in differing(before.index.code, after.index.code):
        digests.setdefault(stage, {})[was or "", now or ""] = None
    old, new = _code_of_records(before), _code_of_records(after)
    for name in old.keys() & new.keys():
        (stage, was), (_, now) = old[name], new[name]
        if was != now:
            digests.setdefault(stage, {})[was, now] = None
    for stage, sides in digests.items():
        if any(_makes(stage, evidence) for evidence in (before, after)):
            joined = [", ".join(sorted({s[end][:12] for s in sides if s[end]})) for end in (0, 1)]
            yield ("driftline code", stage), Sides(joined[0], joined[1])


def _code_of_records(evidence: Evidence) -> dict[str, tuple[str, str]]:
    code_of = {name: (stage_of(r), r.code_sha256) for name, r in evidence.artifacts.items()}
    for name, cell in evidence.cells.items():
        code_of[f"cells/{name}"] = (f"score_{cell.cell.runtime}", cell.code_sha256)
    return {name: (stage, sha) for name, (stage, sha) in code_of.items() if stage and sha}


def stage_of(record: ArtifactRecord) -> str:
    """`merge` of `python -m driftline.stages.merge audit`; empty where there is no command."""
    return record.command.partition(".stages.")[2].partition(" ")[0]


def _makes(stage: str, evidence: Evidence) -> bool:
    """Whether a stage's code could have changed anything of this evidence."""
    if stage in NO_RESULT:
        return False
    if stage.startswith("score_"):
        runtime = stage.removeprefix("score_")
        return any(cell.cell.runtime == runtime for cell in evidence.cells.values())
    if stage in MAKERS:
        return any(conversion_of(record) == MAKERS[stage] for record in evidence.artifacts.values())
    return True
