"""in-toto attestations of what the records say: plain dicts, ready for JSON; pure.

Sources: Statement v1 and its field types, https://github.com/in-toto/attestation/tree/main/spec/v1;
SLSA provenance v1, https://slsa.dev/spec/v1.0/provenance; test-result v0.1,
https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md.

**Digests.** An artifact is a folder: it is a subject of its own under `dirHash`, and each of its
files one under `sha256`, which every consumer knows. `dirHash` (digest_set.md, v1.1) is Go's h1
directory hash in lowercase hexadecimal without "h1:", the sha256 of the `sha256  path` lines: what
`driftline.store.digest.identity` computes. The base64 form has no place in a digest set.

**Times** are not in a record, so no statement has any: the same evidence gives the same bytes.

**Empty fields** are left out: the specifications treat them as unset.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from driftline.evidence.lineage import (
    ARTIFACTS,
    CELL,
    CELLS,
    ENVIRONMENTS,
    EVALSETS,
    IMPORT,
    RECORD,
    TENSORS,
    Evidence,
)
from driftline.project import params, plan
from driftline.release.contents import in_order, parents_first
from driftline.schema.artifacts import ArtifactRecord, FileDigest
from driftline.schema.cells import CellRecord
from driftline.schema.lineage import ItemEvidence
from driftline.schema.values import canonical_json
from driftline.store.digest import sha256_text

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
BUILDER = "urn:driftline:builder:v1"
"""Whoever ran the pipeline: one folder, no platform around it (SLSA build level 1)."""
FOLDER = "reports/lineage"
CONTENT_LIMIT = 1024
"""Bytes of content that a descriptor should stay below."""

Json = dict[str, Any]


def statements(evidence: Evidence) -> dict[str, Json]:
    """Every statement of a commit by file name: `artifacts/<artifact>` and `cells/<cell>`.

    Names are folders in folders, as in the evidence: flattened, two could become one.
    """
    named = {
        f"artifacts/{record.name}.intoto.json": provenance(record, evidence)
        for record in parents_first(evidence.artifacts)
    }
    for cell in in_order(evidence):
        named[f"cells/{cell.cell.id}.intoto.json"] = test_result(cell, evidence)
    return named


# ------------------------------------------------------------------------------------- provenance


def provenance(record: ArtifactRecord, evidence: Evidence) -> Json:
    """SLSA provenance v1 of one conversion.

    `buildType` is `urn:driftline:conversion:<conversion>:v<record format>`. Its external parameters
    are the stage's `command` and the `arguments` its tool was given, both as in the record. It
    depends on its parents (folder and files), on the listing of its code (`artifacts/code/<stage>`,
    lines as `sha256sum` prints them) and, where it has one, on an environment (the file of that
    sha256 under `reports/lineage/environments`); a `pin` from the Hub on the repository's commit.
    """
    return _statement(
        _subjects(record.name, record.identity, record.files),
        PROVENANCE,
        {
            "buildDefinition": _filled(
                {
                    "buildType": f"urn:driftline:conversion:{record.conversion}"
                    f":v{record.schema_version}",
                    "externalParameters": _filled(
                        {"command": record.command, "arguments": record.arguments}
                    ),
                    "internalParameters": {
                        "tool": record.tool,
                        "tool_version": record.tool_version,
                    },
                    "resolvedDependencies": list(_dependencies(record, evidence)),
                }
            ),
            "runDetails": _filled(
                {
                    "builder": {
                        "id": BUILDER,
                        "version": {"driftline": evidence.index.driftline},
                    },
                    "byproducts": _kept(
                        evidence,
                        f"{ARTIFACTS}/{record.name}/{RECORD}",
                        f"{ARTIFACTS}/{record.name}/{TENSORS}",
                    ),
                }
            ),
        },
    )


def _dependencies(record: ArtifactRecord, evidence: Evidence) -> Iterator[Json]:
    if record.conversion == "pin" and "repo" in record.arguments:
        yield {
            "uri": purl(record.arguments),
            "digest": {"gitCommit": record.arguments["revision"]},
        }
    for parent in record.parents:
        yield {"name": parent.name, "digest": {"dirHash": parent.identity}}
        made = evidence.artifacts.get(parent.name)
        if made is not None and made.identity == parent.identity:
            yield from _files(parent.name, made.files)
    yield from _made_with(_stage(record.command), record.code_sha256, record.environment_sha256)


def purl(location: Mapping[str, Any]) -> str:
    """A Hub repository at a commit, as package-url names it.

    Source: https://github.com/package-url/purl-spec, type `huggingface`.
    """
    return f"pkg:huggingface/{location['repo']}@{location['revision']}"


def _stage(command: str) -> str:
    """`merge` of `python -m driftline.stages.merge audit`; empty for no command."""
    return command.partition(".stages.")[2].partition(" ")[0]


def _made_with(code: str, code_sha256: str, environment_sha256: str | None) -> Iterator[Json]:
    if code and code_sha256:
        yield {"name": f"artifacts/code/{code}", "digest": {"sha256": code_sha256}}
    if environment_sha256:
        yield {
            "name": f"{FOLDER}/{ENVIRONMENTS}/{environment_sha256}.json",
            "digest": {"sha256": environment_sha256},
        }


# ------------------------------------------------------------------------------------ test result


def test_result(cell: CellRecord, evidence: Evidence) -> Json:
    """The golden prompts of one cell as an in-toto test result, by `evalset/id`.

    A test is `passed` when its item is correct and was so on the repeat; `warned` when it is
    correct but not the same on the repeat, or has no check; `failed` when it has another verdict or
    no answer. The `result` is FAILED when the cell itself did: a runtime's error. It is PASSED when
    every item passed, else WARNED, a skipped or unstable cell included: how many items may be wrong
    is the policy's to say, which reads `failedTests`.

    The configuration is what the cell was asked: the digests of each evalset's items, of each
    corpus and of the pinned prompts, what it was told of decoding (its JSON), its code and its
    environment, and the records of how all that went and of who else ran it.
    """
    items = evidence.items(cell.cell.id)
    unstable = cell.unstable
    tests: dict[str, list[str]] = {"passedTests": [], "warnedTests": [], "failedTests": []}
    for key, item in items.items():
        if item.state is not None:
            tests[_list(item, repeated=key not in unstable)].append(key)
    return _statement(
        list(_tested(cell, evidence)),
        TEST_RESULT,
        _filled(
            {
                "result": _result(cell, tests),
                "configuration": list(_configuration(cell, evidence)),
                **tests,
            }
        ),
    )


def _list(item: ItemEvidence, *, repeated: bool) -> str:
    if item.state == "unchecked":
        return "warnedTests"
    if item.state != "correct":
        return "failedTests"
    return "passedTests" if repeated else "warnedTests"


def _result(cell: CellRecord, tests: Mapping[str, list[str]]) -> str:
    if cell.outcome.state == "error":
        return "FAILED"
    whole = tests["passedTests"] and not tests["warnedTests"] and not tests["failedTests"]
    return "PASSED" if cell.outcome.state == "ok" and whole else "WARNED"


def _tested(cell: CellRecord, evidence: Evidence) -> Iterator[Json]:
    artifact, adapter = cell.cell.artifact_name, cell.cell.adapter_name
    for name, identity in ((artifact, cell.artifact_identity), (adapter, cell.adapter_identity)):
        if identity:
            made = evidence.artifacts.get(name)
            same = made is not None and made.identity == identity
            yield from _subjects(name, identity, made.files if made and same else ())


def _configuration(cell: CellRecord, evidence: Evidence) -> Iterator[Json]:
    project = params.parse(evidence.params, where=f"{evidence.where}: params")
    asked = plan.sources(project, cell.cell)
    for evalset in evidence.index.evalsets:
        if evalset.name in asked:
            name = f"{FOLDER}/{EVALSETS}/{evalset.name}.jsonl"
            yield {"name": name, "digest": {"sha256": evalset.sha256}}
    for name, sha256 in sorted(evidence.index.corpora.items()):
        if name in asked and sha256:
            yield {"name": f"corpus:{name}", "digest": {"sha256": sha256}}
    yield {
        "name": f"artifacts/prompts/{plan.prompts_of(cell.cell)}",
        "digest": {"sha256": cell.prompts_sha256},
    }
    yield _decode(canonical_json(cell.decode))
    yield from _made_with(f"score_{cell.cell.runtime}", cell.code_sha256, cell.environment_sha256)
    folder = f"{CELLS}/{cell.cell.id}"
    yield from _kept(evidence, f"{folder}/{CELL}", f"{folder}/{IMPORT}")


def _decode(told: str) -> Json:
    """What the cell was told of decoding; its text too where that is short enough to be given."""
    resource: Json = {
        "name": "decode",
        "mediaType": "application/json",
        "digest": {"sha256": sha256_text(told)},
    }
    if len(told.encode()) < CONTENT_LIMIT:
        resource["content"] = base64.b64encode(told.encode()).decode()
    return resource


# ------------------------------------------------------------------------------------------ parts


def _statement(subject: list[Json], kind: str, predicate: Json) -> Json:
    return {"_type": STATEMENT, "subject": subject, "predicateType": kind, "predicate": predicate}


def _subjects(name: str, identity: str, files: Iterable[FileDigest]) -> list[Json]:
    return [{"name": name, "digest": {"dirHash": identity}}, *_files(name, files)]


def _files(name: str, files: Iterable[FileDigest]) -> Iterator[Json]:
    for file in files:
        yield {"name": f"{name}/{file.path}", "digest": {"sha256": file.sha256}}


def _kept(evidence: Evidence, *paths: str) -> list[Json]:
    """Evidence files of these paths, where there are such."""
    listed = {file.path: file.sha256 for file in evidence.index.files}
    return [
        {"name": f"{FOLDER}/{path}", "digest": {"sha256": listed[path]}}
        for path in paths
        if path in listed
    ]


def _filled(fields: Mapping[str, Any]) -> Json:
    """Without fields that are empty."""
    return {name: value for name, value in fields.items() if value not in ("", [], {}, None)}
