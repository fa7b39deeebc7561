"""Evidence of a small project in memory, whole and sealed, for tests of what a release says."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from driftline.evidence import lineage
from driftline.evidence.lineage import Evidence
from driftline.project import graph, plan
from driftline.project.params import Params
from driftline.project.sections.location import Location
from driftline.release.contents import release
from driftline.schema.artifacts import ArtifactRecord, Facts, FileDigest, Parent
from driftline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.hops import Finding, Hop
from driftline.schema.imports import ImportRecord, Machine
from driftline.schema.items import GoldenPrompt
from driftline.schema.lineage import (
    EvalsetEvidence,
    HopEvidence,
    ItemDigest,
    ItemEvidence,
    LineageIndex,
)
from driftline.schema.release import ReleaseRecord
from driftline.schema.scores import ItemState
from driftline.schema.statistics import Estimate
from driftline.schema.values import Value, canonical, canonical_json, sealed
from driftline.store.digest import identity, sha256_text
from tests.factories import artifact, project
from tests.paths import ROOT as TOP

COMMIT = "a1" * 20
REVISION, ADAPTER_REVISION = "b2" * 20, "c3" * 20
LOCK = sha256_text("dvc.lock")
TEMPLATE = sha256_text("template")
ITEMS = tuple(f"p-{n}" for n in range(4))
"""Of each evalset."""
ROOT = "transformers/base/checkpoint"
Q8, VLLM, MLX = "llamacpp/base/q8_0", "vllm/base/checkpoint", "mlx/base/4bit"

SMALL = project(
    adapters={"audit": {"path": "models/audit"}},
    variants=["base", "audit"],
    evalsets={"base": ["pods"], "audit": ["clauses"]},
    gguf={"outtype": "f32", "quantizations": ["q8_0"]},
    mlx={"artifacts": ["4bit"], "recipes": {"4bit": {"bits": 4, "group_size": 64}}},
    vllm=["base"],
    distributions={"top_k": 64, "corpora": {"notes": {"path": "notes.txt", "window": 64}}},
)
"""A source in a folder, one adapter: 10 cells."""
HUB = SMALL.model_copy(
    update={
        "source": Location(repo="acme/clerk", revision=REVISION),
        "adapters": {"audit": Location(repo="acme/audit", revision=ADAPTER_REVISION)},
    }
)
"""The same from the Hub."""


class MemoryTree:
    """Evidence files in memory."""

    where = "memory"

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)

    def paths(self) -> tuple[str, ...]:
        return tuple(sorted(self.files))

    def read(self, path: str) -> bytes:
        return self.files[path]


def made(
    project: Params = SMALL,
    *,
    outcomes: Mapping[str, Outcome] | None = None,
    states: Mapping[str, Mapping[str, ItemState]] | None = None,
    different: Mapping[str, tuple[str, ...]] | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
    hops: Mapping[str, Mapping[str, Any]] | None = None,
    imported: Mapping[str, str] | None = None,
    findings: tuple[Finding, ...] = (),
) -> Evidence:
    """The evidence of a project in which everything went well, read back with its seals checked.

    Args:
        project: whose plan.
        outcomes: how cells ended, by id, where not `ok`.
        states: of items, by cell and key, where not `correct`.
        different: what cells did not repeat, by id.
        changes: fields of artifacts' and cells' records, by name.
        facts: digests of artifacts, by name.
        hops: fields of hops, by child.
        imported: where cells of another machine were made, by id.
        findings: of the drift report.
    """
    outcomes, changes = outcomes or {}, changes or {}
    files: dict[str, bytes] = {}
    for plain in artifacts(project, facts or {}):
        record = sealed(plain.model_copy(update=dict(changes.get(plain.name, {}))))
        files[f"artifacts/{record.name}/record.json"] = canonical(record).encode()
        files[f"artifacts/{record.name}/tensors.jsonl"] = b""
    for spec in plan.plan(project):
        told = changes.get(spec.id, {})
        cell = _cell(project, spec, outcomes.get(spec.id), (different or {}).get(spec.id, ()))
        cell = sealed(cell.model_copy(update=dict(told)))
        files[f"cells/{spec.id}/cell.json"] = canonical(cell).encode()
        if spec.id in (imported or {}):
            taken = _import(cell, (imported or {})[spec.id])
            files[f"cells/{spec.id}/import.json"] = canonical(taken).encode()
        ran = cell.ran
        items = _items(project, spec, (states or {}).get(spec.id, {})) if ran else []
        files[f"cells/{spec.id}/items.jsonl"] = _lines(items)
    for runtime in ("transformers", "llamacpp", "mlx", "vllm"):
        files[f"environments/{_sha256(_environment(runtime))}.json"] = _environment(runtime)
    evalsets = []
    for name in project.evalset_names:
        text = _lines([_digest(name, item) for item in ITEMS])
        files[f"evalsets/{name}.jsonl"] = text
        evalsets.append(EvalsetEvidence(name=name, sha256=_sha256(text), items=len(ITEMS)))
    index = LineageIndex(
        driftline="0.1.0",
        params=project.model_dump(mode="json"),
        code={"merge": sha256_text("merge")},
        corpora={"notes": sha256_text("notes")},
        evalsets=tuple(evalsets),
        hops=tuple(_hop(hop, outcomes, (hops or {}).get(hop.child, {})) for hop in _hops(project)),
        findings=findings,
        drift_identity=sha256_text("drift"),
        files=tuple(
            FileDigest(path=path, size=len(data), sha256=_sha256(data))
            for path, data in sorted(files.items())
        ),
    )
    files["index.json"] = canonical(sealed(index)).encode()
    return lineage.read(MemoryTree(files))


def released(found: Evidence | None = None, name: str = "v1") -> ReleaseRecord:
    return release(name, COMMIT, found or made(), LOCK)


def artifacts(
    project: Params, facts: Mapping[str, Mapping[str, Any]]
) -> tuple[ArtifactRecord, ...]:
    """Records of every artifact, parents before children, with identities that follow."""
    source = _pinned("checkpoints/base", "source", project.source)
    found = [source]
    for name, location in project.adapters.items():
        adapter = _pinned(f"adapters/{name}", "adapter", location)
        found += [adapter, artifact(f"checkpoints/{name}", "merged", "merge", dtype="float32")]
        found[-1] = _child(found[-1], source, adapter)
    made = {record.name: record for record in found}
    for name in project.variants:
        full = artifact(f"gguf/{name}/f32", "gguf", "convert", outtype="f32")
        full = _typed(_child(full, made[f"checkpoints/{name}"]), {"F32": 38}, 32.0)
        found.append(full)
        for form in project.gguf.quantizations:
            found.append(_child(artifact(f"gguf/{name}/{form}", "gguf", "quantize"), full))
        for form in project.mlx.artifacts:
            mlx = artifact(f"mlx/{name}/{form}", "mlx", "convert", bits=4)
            found.append(_child(mlx, made[f"checkpoints/{name}"]))
    return tuple(_with_facts(record, facts.get(record.name, {})) for record in found)


def _pinned(name: str, kind: Any, location: Location) -> ArtifactRecord:
    told = location.model_dump(mode="json", exclude_none=True)
    record = artifact(name, kind, "pin", **told)
    files = (
        FileDigest(path="config.json", size=10, sha256=sha256_text(f"{name} config")),
        FileDigest(path="model.safetensors", size=1000, sha256=sha256_text(f"{name} weights")),
    )
    return _typed(
        record.model_copy(
            update={
                "files": files,
                "identity": identity(files),
                "command": f"python -m driftline.stages.pin {name}",
                "code_sha256": sha256_text("pin"),
            }
        ),
        {"BF16": 38},
        16.0,
    )


def _child(record: ArtifactRecord, *parents: ArtifactRecord) -> ArtifactRecord:
    stage = {"merge": "merge", "quantize": "quantize"}.get(record.conversion, "convert_gguf")
    files = (FileDigest(path="model.bin", size=900, sha256=sha256_text(f"{record.name} weights")),)
    return record.model_copy(
        update={
            "files": files,
            "identity": identity(files),
            "parents": tuple(Parent(name=each.name, identity=each.identity) for each in parents),
            "command": f"python -m driftline.stages.{stage} {record.name.split('/')[1]}",
            "code_sha256": sha256_text(stage),
            "environment_sha256": _sha256(_environment("llamacpp")),
        }
    )


def _typed(record: ArtifactRecord, types: dict[str, int], bits: float) -> ArtifactRecord:
    assert record.census is not None
    census = record.census.model_copy(
        update={"types": types, "elements": types, "bits_per_weight": bits}
    )
    return record.model_copy(update={"census": census})


def _with_facts(record: ArtifactRecord, told: Mapping[str, Any]) -> ArtifactRecord:
    facts: dict[str, Any] = {
        "tensors_sha256": sha256_text(f"{record.name} tensors"),
        "metadata_sha256": sha256_text(f"{record.name} metadata"),
        "tokenizer_sha256": sha256_text(f"{record.kind} tokenizer"),
        "template_sha256": None if record.kind == "adapter" else TEMPLATE,
        "metadata": {},
    }
    return record.model_copy(update={"facts": Facts(**{**facts, **told})})


def _cell(
    project: Params, spec: CellSpec, outcome: Outcome | None, different: tuple[str, ...]
) -> CellRecord:
    by_name = {record.name: record for record in artifacts(project, {})}
    adapter = by_name[spec.adapter_name] if spec.adapter else None
    ran = outcome is None or outcome.ran
    asked = project.evalset_names if spec.id == ROOT else project.evalsets[spec.variant]
    floor = NoiseFloor(
        items=len(asked) * len(ITEMS), different=different, max_logprob_difference=0.0
    )
    return CellRecord(
        cell=spec,
        outcome=outcome or Outcome(state="ok"),
        artifact_identity=by_name[spec.artifact_name].identity,
        adapter_identity=adapter.identity if adapter else None,
        prompts_sha256=sha256_text(f"prompts {spec.variant}"),
        completions_sha256=sha256_text(spec.id) if ran else None,
        floor=floor if ran else None,
        decode={**project.decode.model_dump(mode="json"), "threads": 1},
        code_sha256=sha256_text(f"score_{spec.runtime}"),
        environment_sha256=_sha256(_environment(spec.runtime)),
        build={"version": "1.0"} if ran else {},
        settings={"dtype": "float32", "threads": 1} if ran else {},
    )


def _items(project: Params, spec: CellSpec, states: Mapping[str, ItemState]) -> list[ItemEvidence]:
    asked = project.evalset_names if spec.id == ROOT else project.evalsets[spec.variant]
    found = []
    for key in (f"{evalset}/{item}" for evalset in asked for item in ITEMS):
        state = states.get(key, "correct")
        score = None if state in ("errored", "unchecked") else float(state == "correct")
        found.append(
            ItemEvidence(key=key, state=state, score=score, output_sha256=sha256_text(key))
        )
    return [*found, ItemEvidence(key="notes/0", rows=32, text_sha256=sha256_text("notes"))]


def _import(cell: CellRecord, made_at: str) -> ImportRecord:
    return sealed(
        ImportRecord(
            cell=cell.cell.id,
            revision=COMMIT,
            made_at=made_at,
            machine=Machine(system="Darwin"),
            software={},
            artifact_identity=cell.artifact_identity,
            adapter_identity=cell.adapter_identity,
            environment_sha256=cell.environment_sha256,
            cell_seal=cell.seal,
        )
    )


def _hops(project: Params) -> tuple[Hop, ...]:
    return graph.hops(project)


def _hop(hop: Hop, outcomes: Mapping[str, Outcome], told: Mapping[str, Any]) -> HopEvidence:
    failed = [
        name for name in (hop.parent, hop.child) if name in outcomes and not outcomes[name].ran
    ]
    kl = None if failed else Estimate(value=0.01, se=0.002, low=0.006, high=0.014)
    fields: dict[str, Any] = {
        "hop": hop,
        "compared": not failed,
        "reason": f"{failed[0]} has no answers" if failed else "",
        "items": 0 if failed else len(ITEMS),
        "same_sequence": 0 if failed else len(ITEMS),
        "worse": (),
        "better": (),
        "kl": kl,
        "answers_kl": kl,
        "weights_kl": kl,
        "numerics_kl": kl,
        "scores": None,
        "withheld": "",
        "summary": "" if failed else f"{hop.child} changes no answer of {len(ITEMS)}",
    }
    return HopEvidence(**{**fields, **told})


def golden(evalset: str, item: str) -> GoldenPrompt:
    return GoldenPrompt(evalset=evalset, id=item, prompt=f"{item}?", reference=item)


def _digest(evalset: str, item: str) -> ItemDigest:
    sha256 = sha256_text(canonical(golden(evalset, item)))
    return ItemDigest(id=item, sha256=sha256, prompt_sha256=sha256_text(f"{item} pinned"))


def write(found: Evidence, folder: Path) -> None:
    """The project of `found` as a folder: evidence, params.yaml, dvc.lock and evalsets."""
    for path in found.tree.paths():
        target = folder / "reports" / "lineage" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(found.tree.read(path))
    (folder / "params.yaml").write_text(yaml.safe_dump(found.index.params, sort_keys=False))
    shutil.copyfile(TOP / "dvc.yaml", folder / "dvc.yaml")
    (folder / "dvc.lock").write_text("schema: '2.0'\n")
    (folder / "evalsets").mkdir()
    for evalset in found.index.evalsets:
        rows = [golden(evalset.name, item).model_dump(mode="json") for item in ITEMS]
        text = "".join(
            json.dumps({key: value for key, value in row.items() if key != "evalset"}) + "\n"
            for row in rows
        )
        (folder / "evalsets" / f"{evalset.name}.jsonl").write_text(text)


def _environment(runtime: str) -> bytes:
    return canonical_json(
        {
            "runtime": runtime,
            "python": "3.11.7",
            "cpu_features": [f"f{n}" for n in range(20)],
            "distributions": {runtime: {"version": "1.0", "files_sha256": sha256_text(runtime)}},
        }
    ).encode()


def _lines(values: list[Any]) -> bytes:
    kept: list[Value] = values
    return "".join(canonical(value) + "\n" for value in kept).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
