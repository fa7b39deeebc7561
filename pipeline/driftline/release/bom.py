"""A release as a CycloneDX 1.6 machine-learning bill of materials: a plain dict; pure.

Source: https://cyclonedx.org/docs/1.6/json/. Written by hand, because the model classes of
cyclonedx-python-lib drop a `modelCard`.

- An artifact is a component `machine-learning-model`; its files are components within it, each with
  its SHA-256. Its own `version` is its identity (dirHash), which is no hash of any one file: the
  component has `hashes` only where it is a single file.
- `pedigree.ancestors` are all artifacts it descends from, nearest first; `dependencies` have the
  direct parents.
- What was measured stands in `modelCard.quantitativeAnalysis.performanceMetrics`: one accuracy per
  cell and evalset with its 95 % Wilson interval, one mean KL divergence from the cell before with
  its bootstrap interval. Of a cell with an adapter attached it stands with the adapter. A cell that
  did not run has no metric.
- No time: `serialNumber` is a UUIDv5 of the release's seal, and so of the name, the commit and all
  the evidence (by its own seal): another release is another BOM, the same release the same bytes.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from driftline.release.statements import purl
from driftline.schema.artifacts import FileDigest
from driftline.schema.release import ReleasedArtifact, ReleasedCell, ReleaseRecord
from driftline.schema.values import canonical_json

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:driftline:release")

Json = dict[str, Any]


def bom(record: ReleaseRecord) -> Json:
    """The bill of materials of a release."""
    artifacts = {artifact.name: artifact for artifact in record.artifacts}
    release = f"release:{record.name}"
    components = [_model(artifact, artifacts, record) for artifact in record.artifacts]
    data = list(_data(record))
    depends = [
        {
            "ref": _ref(artifact.name),
            "dependsOn": [_ref(p.name) for p in artifact.parents if p.name in artifacts],
        }
        for artifact in record.artifacts
    ]
    everything = [each["bom-ref"] for each in (*components, *data)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(NAMESPACE, record.seal).urn,
        "version": 1,
        "metadata": {
            "tools": {
                "components": [
                    {"type": "application", "name": "driftline", "version": record.driftline}
                ]
            },
            "component": {
                "type": "machine-learning-model",
                "bom-ref": release,
                "name": record.name,
                "version": record.commit,
                "properties": _properties(
                    {
                        "driftline:seal": record.seal,
                        "driftline:index_seal": record.index_seal,
                        "driftline:dvc_lock_sha256": record.dvc_lock_sha256,
                    }
                ),
            },
        },
        "components": [*components, *data],
        "dependencies": [
            {"ref": release, "dependsOn": everything},
            *depends,
            *({"ref": each["bom-ref"], "dependsOn": []} for each in data),
        ],
    }


def _ref(artifact: str) -> str:
    return f"artifact:{artifact}"


def _model(
    artifact: ReleasedArtifact, artifacts: Mapping[str, ReleasedArtifact], record: ReleaseRecord
) -> Json:
    component: Json = {
        "type": "machine-learning-model",
        "bom-ref": _ref(artifact.name),
        **_named(artifact),
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{artifact.name}/{file.path}",
                "name": file.path,
                "hashes": _hashes(file),
            }
            for file in artifact.files
        ],
        "externalReferences": [
            {"type": "attestation", "url": f"attestations/artifacts/{artifact.name}.intoto.json"},
            *(
                {"type": "attestation", "url": f"attestations/cells/{cell.id}.intoto.json"}
                for cell in _cells(artifact, record)
            ),
        ],
        "modelCard": _card(artifact, record),
        "properties": _properties(_facts(artifact)),
    }
    ancestors = _ancestors(artifact, artifacts)
    if ancestors:
        component["pedigree"] = {
            "ancestors": [{"type": "machine-learning-model", **_named(each)} for each in ancestors],
            "notes": f"{artifact.conversion} by {artifact.tool} {artifact.tool_version}",
        }
    return component


def _named(artifact: ReleasedArtifact) -> Json:
    """Name and digests, as a component and as an ancestor of another."""
    named: Json = {"name": artifact.name, "version": artifact.identity}
    if artifact.conversion == "pin" and "repo" in artifact.arguments:
        named["purl"] = purl(artifact.arguments)
    if len(artifact.files) == 1:
        named["hashes"] = _hashes(artifact.files[0])
    return named


def _hashes(file: FileDigest) -> list[Json]:
    return [{"alg": "SHA-256", "content": file.sha256}]


def _ancestors(
    artifact: ReleasedArtifact, artifacts: Mapping[str, ReleasedArtifact]
) -> tuple[ReleasedArtifact, ...]:
    """All it descends from, nearest first."""
    ancestors: dict[str, ReleasedArtifact] = {}
    waiting = [artifact]
    while waiting:
        for parent in waiting.pop(0).parents:
            if parent.name in artifacts and parent.name not in ancestors:
                ancestors[parent.name] = artifacts[parent.name]
                waiting.append(artifacts[parent.name])
    return tuple(ancestors.values())


def _facts(artifact: ReleasedArtifact) -> Mapping[str, str | None]:
    census = artifact.census
    return {
        "driftline:dirHash": artifact.identity,
        "driftline:kind": artifact.kind,
        "driftline:conversion": artifact.conversion,
        "driftline:arguments": canonical_json(artifact.arguments),
        "driftline:bits_per_weight": f"{census.bits_per_weight:g}" if census else None,
        "driftline:tensors_by_type": canonical_json(census.types) if census else None,
        "driftline:tensors_sha256": artifact.tensors_sha256,
        "driftline:tokenizer_sha256": artifact.tokenizer_sha256,
        "driftline:template_sha256": artifact.template_sha256,
        "driftline:code_sha256": artifact.code_sha256,
        "driftline:environment_sha256": artifact.environment_sha256,
        "driftline:record_seal": artifact.seal,
    }


def _properties(facts: Mapping[str, str | None]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in facts.items() if value]


# ------------------------------------------------------------------------------------- model card


def _cells(artifact: ReleasedArtifact, record: ReleaseRecord) -> tuple[ReleasedCell, ...]:
    """Cells that measured this artifact: those that ran it by itself, an adapter's with it."""
    return tuple(cell for cell in record.cells if (cell.adapter or cell.artifact) == artifact.name)


def _card(artifact: ReleasedArtifact, record: ReleaseRecord) -> Json:
    cells = _cells(artifact, record)
    asked = {score.evalset for cell in cells for score in cell.scores}
    parameters: Json = {"task": "text-generation"}
    if asked:
        parameters["datasets"] = [{"ref": f"evalset:{name}"} for name in sorted(asked)]
    card: Json = {"modelParameters": parameters}
    metrics = [metric for cell in cells for metric in _metrics(cell)]
    if metrics:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def _metrics(cell: ReleasedCell) -> Iterator[Json]:
    """Values and bounds are strings in CycloneDX: numbers with as many digits as they have."""
    for score in cell.scores:
        if score.accuracy is not None:
            yield {
                "type": "accuracy",
                "value": repr(score.accuracy),
                "slice": f"{score.evalset} in {cell.id}",
                "confidenceInterval": {
                    "lowerBound": repr(score.low),
                    "upperBound": repr(score.high),
                },
            }
    if cell.kl_from_parent is not None:
        yield {
            "type": "mean KL divergence in nats from the cell before",
            "value": repr(cell.kl_from_parent.value),
            "slice": f"all positions in {cell.id}",
            "confidenceInterval": {
                "lowerBound": repr(cell.kl_from_parent.low),
                "upperBound": repr(cell.kl_from_parent.high),
            },
        }


def _data(record: ReleaseRecord) -> Iterator[Json]:
    """What models were asked: evalsets by the digest of their items' digests, corpora by theirs."""
    for evalset in record.evalsets:
        yield _dataset("evalset", evalset.name, evalset.sha256)
    for name, sha256 in sorted(record.corpora.items()):
        if sha256 is not None:
            yield _dataset("corpus", name, sha256)


def _dataset(kind: str, name: str, sha256: str) -> Json:
    return {
        "type": "data",
        "bom-ref": f"{kind}:{name}",
        "name": name,
        "version": sha256,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "data": [{"type": "dataset", "name": name}],
    }
