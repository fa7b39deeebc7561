"""Whole evidence of a made-up project in memory, sealed and consistent, to change one thing in.

A `World` is what a run is given; `evidence` derives everything else from it as the pipeline would,
so that a changed input has its consequences and nothing else differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from driftline.evidence import lineage
from driftline.evidence.lineage import Evidence
from driftline.project import graph, params, plan
from driftline.project.params import Params
from driftline.project.routes import ROOT_CELL
from driftline.schema.artifacts import (
    BASE,
    ArtifactRecord,
    Census,
    Facts,
    FileDigest,
    Parent,
    Reference,
    TensorDigest,
)
from driftline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.forced import ForcedRecord
from driftline.schema.lineage import (
    EvalsetEvidence,
    HopEvidence,
    ItemDigest,
    ItemEvidence,
    LineageIndex,
)
from driftline.schema.scores import ItemState
from driftline.schema.statistics import Estimate
from driftline.schema.values import Value, canonical, canonical_json, sealed
from driftline.store import digest
from driftline.store.digest import sha256_text
from driftline.store.facts import listing, part_of
from tests.factories import asked, project
from tests.params_data import with_runtimes

STAGES = (
    *("pin", "merge", "convert_gguf", "quantize", "convert_mlx", "prompts", "control"),
    *("counterfactual", "grade", "drift", "lineage", "report"),
    *("score_transformers", "score_llamacpp", "score_mlx", "score_vllm"),
)
DISTRIBUTIONS = {
    "transformers": ("torch", "transformers", "peft", "tokenizers"),
    "llamacpp": ("llama_cpp_python",),
    "mlx": ("mlx", "mlx_lm", "transformers", "tokenizers"),
    "vllm": ("vllm", "torch", "transformers", "tokenizers"),
}
MADE_WITH = {"merged": "transformers", "gguf": "llamacpp", "mlx": "mlx"}


class MemoryTree:
    """Evidence files in memory."""

    def __init__(self, files: Mapping[str, bytes], where: str = "memory") -> None:
        self.files, self.where = dict(files), where
        self.was_read: list[str] = []

    def paths(self) -> tuple[str, ...]:
        return tuple(sorted(self.files))

    def read(self, path: str) -> bytes:
        self.was_read.append(path)
        return self.files[path]


@dataclass(frozen=True)
class Folder:
    """A checkpoint or adapter: each tensor's and each metadata field's content."""

    tensors: Mapping[str, str]
    metadata: Mapping[str, str]
    template: str | None = None


SOURCE = Folder(
    tensors={f"layer.{n}.weight": "w" for n in range(5)},
    metadata={
        "config.json:rms_norm_eps": "1e-05",
        "tokenizer.model": f"sha256 {sha256_text('tokenizer')}",
        "chat_template.jinja": f"sha256 {sha256_text('template')}",
    },
    template="template",
)
ADAPTER = Folder(
    tensors={f"layer.{n}.lora_{side}.weight": "a" for n in range(2) for side in "AB"},
    metadata={"adapter_config.json:lora_alpha": "16", "adapter_config.json:r": "8"},
)

PROJECT = project(
    adapters={"audit": {"path": "models/adapters/audit"}},
    variants=["base", "audit"],
    evalsets={"base": ["clauses"], "audit": ["audit"]},
    gguf={"outtype": "f32", "quantizations": ["q8_0"]},
    mlx={
        "artifacts": ["4bit"],
        "recipes": {"4bit": {"bits": 4, "group_size": 64}, "8bit": {"bits": 8, "group_size": 64}},
    },
    vllm=["audit"],
    distributions={"top_k": 64, "corpora": {"notes": {"path": "notes.txt", "window": 64}}},
)
SEQUENCES = 12


def same_answer(cell: str, key: str) -> str:
    return key


def correct(cell: str, key: str) -> ItemState:
    return "correct"


def little(cell: str, key: str) -> float:
    return 1e-3 + 1e-5 * (sum(map(ord, key)) % 7)


@dataclass(frozen=True)
class World:
    """What a run is given (and, from `bytes_of` on, what came of it)."""

    where: str = "memory"
    project: Params = PROJECT
    source: Folder = SOURCE
    adapters: Mapping[str, Folder] = field(default_factory=lambda: {"audit": ADAPTER})
    items: Mapping[str, Mapping[str, str]] = field(
        default_factory=lambda: {
            name: {f"{name[0]}-{n:02}": f"question {n}" for n in range(SEQUENCES)}
            for name in ("clauses", "audit")
        }
    )
    corpora: Mapping[str, str] = field(default_factory=lambda: {"notes": "once upon a time"})
    packages: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(
        default_factory=lambda: {
            "python": "3.11.7",
            "machine": "x86_64",
            "system": "Linux",
            "cpu_features": ["avx2", "fma"],
        }
    )
    converter: str = "converter"
    code: Mapping[str, str] = field(default_factory=dict)
    bytes_of: Mapping[str, str] = field(default_factory=dict)
    prompt: Callable[[str], str] = str
    answer: Callable[[str, str], str] = same_answer
    state: Callable[[str, str], ItemState] = correct
    kl: Callable[[str, str], float] = little
    reference: Callable[[str], str] = str
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unstable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def but(self, **changes: Any) -> World:
        """The same with something else."""
        return replace(self, **changes)

    def params(self, **changes: Any) -> World:
        """The same with other keys of params.yaml."""
        data = {**self.project.model_dump(mode="json"), **changes}
        if changes.keys() & {"vllm", "variants"}:
            runs = data.pop("runtimes")
            data.setdefault("vllm", runs["vllm"]["variants"])
        return replace(self, project=params.parse(with_runtimes(data), where="test"))

    def tree(self) -> MemoryTree:
        """All evidence files."""
        return MemoryTree(_Build(self).files(), self.where)

    def evidence(self) -> Evidence:
        """The same, read and checked as from any commit."""
        return lineage.read(self.tree())


class _Build:
    def __init__(self, world: World) -> None:
        self.world, self.project = world, world.project
        self._environments = {runtime: self._environment(runtime) for runtime in DISTRIBUTIONS}
        self._made: dict[str, ArtifactRecord] = {}
        self._files: dict[str, bytes] = {}

    def files(self) -> dict[str, bytes]:
        for text in self._environments.values():
            self._files[f"environments/{sha256_text(text)}.json"] = text.encode()
        self._artifacts()
        for spec in plan.plan(self.project):
            self._cell(spec)
        evalsets = [self._evalset(name) for name in self.project.evalset_names]
        rows = tuple(
            FileDigest(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in sorted(self._files.items())
        )
        index = LineageIndex(
            driftline="0.1.0",
            params=self.project.model_dump(mode="json"),
            code={stage: self._code(stage) for stage in STAGES},
            corpora={name: sha256_text(text) for name, text in self.world.corpora.items()},
            evalsets=tuple(evalsets),
            hops=tuple(self._hop(hop) for hop in graph.hops(self.project)),
            findings=(),
            drift_identity=sha256_text("drift"),
            files=rows,
        )
        return {**self._files, "index.json": _json(sealed(index))}

    # -- environments and code

    def _environment(self, runtime: str) -> str:
        if runtime in self.world.missing:
            why = self.world.missing[runtime]
            return canonical_json({"runtime": runtime, "missing": why, "install": "make"})
        versions = {
            name: self.world.packages.get(f"{name} in {runtime}", self.world.packages.get(name, ""))
            or "1.0"
            for name in DISTRIBUTIONS[runtime]
        }
        found: dict[str, Any] = {
            "runtime": runtime,
            "distributions": {
                name: {"version": said.partition("+")[0], "files_sha256": sha256_text(name + said)}
                for name, said in versions.items()
            },
            "threads": self.project.limits.threads,
            **self.world.machine,
        }
        if runtime == "llamacpp":
            found["converter_sha256"] = sha256_text(self.world.converter)
        return canonical_json(found)

    def _code(self, stage: str) -> str:
        return sha256_text(stage + self.world.code.get(stage, ""))

    # -- artifacts

    def _artifacts(self) -> None:
        source = self._pin("checkpoints/base", "source", self.world.source, self.project.source)
        merged = {BASE: source}
        for name, location in self.project.adapters.items():
            lora = self._pin(f"adapters/{name}", "adapter", self.world.adapters[name], location)
            merged[name] = self._derive(
                f"checkpoints/{name}",
                "merged",
                ("merge", name),
                (source, lora),
                dtype=self.project.merge.dtype,
            )
        for name in self.project.variants:
            outtype = self.project.gguf.outtype
            full = self._derive(
                f"gguf/{name}/{outtype}",
                "gguf",
                ("convert_gguf", name),
                (merged[name],),
                outtype=outtype,
                origin={"version": f"sha256:{source.identity}"},
            )
            for form in self.project.gguf.quantizations:
                path = f"gguf/{name}/{form}"
                self._derive(path, "gguf", ("quantize", name, form), (full,), ftype=form)
            for form in self.project.mlx.artifacts:
                recipe = self.project.mlx.recipes[form].model_dump(mode="json")
                path = f"mlx/{name}/{form}"
                self._derive(path, "mlx", ("convert_mlx", name, form), (merged[name],), **recipe)

    def _pin(self, name: str, kind: Any, folder: Folder, location: Any) -> ArtifactRecord:
        place = location.model_dump(mode="json", exclude_none=True)
        return self._record(name, kind, "pin", ("pin",), (), folder, place)

    def _derive(
        self,
        name: str,
        kind: Any,
        command: tuple[str, ...],
        parents: tuple[ArtifactRecord, ...],
        **arguments: Any,
    ) -> ArtifactRecord:
        """A conversion: tensors and metadata follow from the parents' and from the arguments."""
        conversion = command[0].partition("_")[0]
        told = {key: value for key, value in arguments.items() if key != "origin"}
        weights = [
            each.identity if each.kind == "adapter" or not each.facts else each.facts.tensors_sha256
            for each in parents
        ]
        content = canonical_json([weights, told, self.world.bytes_of.get(name, "")])
        tensors = dict.fromkeys(self.world.source.tensors, content)
        metadata = dict(parents[0].facts.metadata if parents[0].facts else {})
        if kind == "gguf" and conversion == "convert":
            version = canonical_json(arguments["origin"]["version"])
            metadata = {**metadata, "general.base_model.0.version": version}
        folder = Folder(tensors, metadata, self.world.source.template)
        return self._record(name, kind, conversion, command, parents, folder, arguments)

    def _record(
        self,
        name: str,
        kind: Any,
        conversion: Any,
        command: tuple[str, ...],
        parents: Iterable[ArtifactRecord],
        folder: Folder,
        arguments: dict[str, Any],
    ) -> ArtifactRecord:
        tensors = [
            TensorDigest(
                file="model", name=tensor, dtype="F32", shape=(4, 4), sha256=sha256_text(content)
            )
            for tensor, content in folder.tensors.items()
        ]
        facts = _facts(tensors, folder)
        files = (
            _file("metadata", canonical_json(folder.metadata) + str(folder.template)),
            _file("model", listing(tensors) + self.world.bytes_of.get(f"files of {name}", "")),
        )
        environment = self._environments.get(MADE_WITH.get(kind, ""))
        record = sealed(
            ArtifactRecord(
                name=name,
                kind=kind,
                conversion=conversion,
                identity=digest.identity(files),
                files=files,
                parents=tuple(Parent(name=p.name, identity=p.identity) for p in parents),
                command=f"python -m driftline.stages.{' '.join(command)}",
                tool=f"{conversion} tool",
                tool_version="1.0",
                code_sha256=self._code(command[0]),
                environment_sha256=sha256_text(environment) if environment else None,
                arguments=arguments,
                census=Census(
                    types={"F32": len(tensors)},
                    elements={"F32": 16 * len(tensors)},
                    tensors=len(tensors),
                    weights=16 * len(tensors),
                    bits_per_weight=32.0,
                ),
                facts=facts,
            )
        )
        self._made[name] = record
        self._files[f"artifacts/{name}/record.json"] = _json(record)
        self._files[f"artifacts/{name}/tensors.jsonl"] = listing(tensors).encode()
        return record

    # -- cells, evalsets, hops

    def _cell(self, spec: CellSpec) -> None:
        world, artifact = self.world, self._made[spec.artifact_name]
        adapter = self._made.get(spec.adapter_name)
        outcome = world.outcomes.get(spec.id, Outcome(state="ok"))
        ran = outcome.ran
        keys = [f"{name}/{item}" for name in self._asked(spec) for item in world.items[name]]
        answers = {key: world.answer(spec.id, key) for key in keys} if ran else {}
        floor = NoiseFloor(
            items=len(keys), different=world.unstable.get(spec.id, ()), max_logprob_difference=0.0
        )
        items = [self._item(spec, key, answers.get(key)) for key in keys]
        if ran and spec.id != ROOT_CELL:
            items += [self._item(spec, f"notes/window-{n}", None) for n in range(3)]
        prompts = canonical_json([[key, self._pinned(key)] for key in keys])
        record = CellRecord(
            cell=spec,
            outcome=outcome,
            artifact_identity=artifact.identity,
            adapter_identity=adapter.identity if adapter else None,
            inputs=(Reference(name=artifact.name, identity=artifact.identity),),
            prompts_sha256=sha256_text(prompts),
            completions_sha256=sha256_text(canonical_json(answers)) if ran else None,
            floor=floor if ran else None,
            forced=(
                ForcedRecord(
                    text=spec.variant,
                    sequences=len(items),
                    rows=10 * len(items),
                    width=self.project.distributions.top_k,
                    logits_sha256=sha256_text("logits"),
                    rows_sha256=sha256_text("rows"),
                    floor=None,
                ),
            )
            if ran
            else (),
            decode={**self.project.decode.model_dump(mode="json"), "threads": self._threads},
            code_sha256=self._code(f"score_{spec.runtime}"),
            environment_sha256=sha256_text(self._environments[spec.runtime]),
            build={"version": "1.0"} if ran else {},
            settings={"threads": self._threads, **world.settings.get(spec.id, {})} if ran else {},
        )
        self._files[f"cells/{spec.id}/cell.json"] = _json(sealed(record))
        self._files[f"cells/{spec.id}/items.jsonl"] = _lines(items)

    @property
    def _threads(self) -> int:
        return self.project.limits.threads

    def _asked(self, spec: CellSpec) -> tuple[str, ...]:
        return asked(self.project, spec)

    def _item(self, spec: CellSpec, key: str, answer: str | None) -> ItemEvidence:
        corpus = key.startswith("notes/")
        forced = spec.id != ROOT_CELL and (corpus or answer is not None)
        state = None if corpus or answer is None else self.world.state(spec.id, key)
        text = self._pinned(key) + self.world.reference(key)
        return ItemEvidence(
            key=key,
            state=state,
            score=None if state in (None, "errored", "unchecked") else float(state == "correct"),
            output_sha256=None if answer is None else sha256_text(answer),
            text_sha256=sha256_text(text) if forced else None,
            rows=10 + len(key) % 3 if forced else 0,
            kl=self.world.kl(spec.id, key) if forced else None,
        )

    def _pinned(self, key: str) -> str:
        if key.startswith("notes/"):
            return f"{self.world.corpora['notes']} {key}"
        return self.world.prompt(f"{self.world.source.template} {key} {self._question(key)}")

    def _question(self, key: str) -> str:
        evalset, _, item = key.partition("/")
        return self.world.items.get(evalset, {}).get(item, "")

    def _evalset(self, name: str) -> EvalsetEvidence:
        rows = [
            ItemDigest(
                id=item,
                sha256=sha256_text(question),
                prompt_sha256=sha256_text(self._pinned(f"{name}/{item}")),
            )
            for item, question in self.world.items[name].items()
        ]
        data = _lines(rows)
        self._files[f"evalsets/{name}.jsonl"] = data
        return EvalsetEvidence(name=name, sha256=hashlib.sha256(data).hexdigest(), items=len(rows))

    def _hop(self, hop: Any) -> HopEvidence:
        ends = [self.world.outcomes.get(cell) for cell in (hop.parent, hop.child)]
        failed = [end.reason for end in ends if end and not end.ran]
        kl = Estimate(value=1e-3, se=0.0, low=1e-3, high=1e-3)
        return HopEvidence(
            hop=hop,
            compared=not failed,
            reason="; ".join(failed),
            items=0 if failed else SEQUENCES,
            same_sequence=0,
            worse=(),
            better=(),
            kl=None if failed else kl,
            answers_kl=None,
            weights_kl=None,
            numerics_kl=None,
            scores=None,
            withheld="",
            summary="",
        )


def _facts(tensors: list[TensorDigest], folder: Folder) -> Facts:
    own = {name: value for name, value in folder.metadata.items() if part_of(name) == "tokenizer"}
    return Facts(
        tensors_sha256=sha256_text(listing(tensors)),
        metadata_sha256=sha256_text(canonical_json(folder.metadata)),
        tokenizer_sha256=sha256_text(canonical_json(own)) if own else None,
        template_sha256=sha256_text(folder.template) if folder.template is not None else None,
        metadata=dict(folder.metadata),
    )


def _file(path: str, content: str) -> FileDigest:
    return FileDigest(path=path, size=len(content), sha256=sha256_text(content))


def _json(value: Value) -> bytes:
    return (json.dumps(value.model_dump(mode="json"), sort_keys=True, indent=1) + "\n").encode()


def _lines(values: Iterable[Value]) -> bytes:
    return "".join(canonical(value) + "\n" for value in values).encode()


def templated(template: str) -> Folder:
    """The source with another chat template."""
    metadata = {**SOURCE.metadata, "chat_template.jinja": f"sha256 {sha256_text(template)}"}
    return replace(SOURCE, metadata=metadata, template=template)
