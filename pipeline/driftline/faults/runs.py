"""A small real pipeline in one process: conversions, runtimes, grading and drift, as in a project.

Cells, hops and texts are those of the recipe's own project, everything is the project's own code
but for the child processes: a cell is `worker.run` in this process, so that thirty pipelines take
minutes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.conversions import gguf, merge, mlx
from driftline.counterfactual import base, control, record, reference
from driftline.counterfactual.base import StoredFormat
from driftline.drift.analysis import analyse
from driftline.drift.evidence import CellEvidence, StoredWeights
from driftline.faults.recipe import Recipe
from driftline.golden import prompts as pinning
from driftline.golden.grade import grade
from driftline.project import graph, plan, routes
from driftline.project.params import Params
from driftline.project.routes import ROOT_CELL
from driftline.runtimes import collect, registry, worker
from driftline.runtimes.base import DecodeSettings, Job, Runtime, TextJob
from driftline.schema.answers import PinnedPrompt
from driftline.schema.artifacts import ArtifactRecord, Census
from driftline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.forced import ForcedRecord, ForcedSequence
from driftline.schema.hops import DriftReport
from driftline.schema.values import dump_lines, load_lines
from driftline.schema.weights import ControlRecord
from driftline.store.distributions import IDS, SEQUENCES, Distributions
from driftline.store.safetensors_header import census

TEXT = "text"
CHECKPOINT = "checkpoint"
CENSUS: Mapping[str, Callable[[Path], Census]] = {
    CHECKPOINT: census,
    "gguf": gguf.census,
    "mlx": mlx.census,
}
"""What reads back an artifact's weights, by its format."""


def _to_gguf(parent: Path, folder: Path, form: str, _: Params) -> None:
    folder.mkdir()
    gguf.convert(parent, folder, outtype=form, name="chain")


def _to_mlx(parent: Path, folder: Path, form: str, params: Params) -> None:
    mlx.convert(parent, folder, params.mlx.recipes[form])


CONVERT: Mapping[str, Callable[[Path, Path, str, Params], None]] = {
    "gguf": _to_gguf,
    "mlx": _to_mlx,
}
"""What makes an artifact of its parent, by the folder it lies in."""


@dataclass(frozen=True)
class Tampering:
    """What is done to one cell or its artifact on the way.

    `artifact` changes the files of the artifact of cell `at` (given its folder);
    `runtime`, `decode` and `limit` replace the class, settings and token limit of that cell;
    `stored` replaces the format that loads its counterfactual.
    """

    at: str
    artifact: Callable[[Path], None] | None = None
    runtime: type[Runtime] | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    stored: StoredFormat | None = None


HEALTHY = Tampering(at="")
"""Nothing is done to any cell."""


@dataclass(frozen=True)
class Run:
    """One run of a chain: its artifacts below `root`, what each cell left, and the drift of it."""

    root: Path
    evidence: Mapping[str, CellEvidence]
    report: DriftReport


class Chain:
    """A recipe's healthy run, and runs with something tampered with, from there on."""

    def __init__(self, recipe: Recipe, work: Path) -> None:
        """Run the healthy pipeline in the existing, empty folder `work`."""
        reference.prepare(1)
        self._recipe, self._work, self._params = recipe, work, recipe.params
        self._planned = {cell.spec.id: cell for cell in plan.planned(self._params)}
        self._specs = {name: cell.spec for name, cell in self._planned.items()}
        self.hops = {hop.child: hop for hop in graph.hops(self._params)}
        tokenizer = pinning.tokenizer_of(recipe.source)
        limit = self._params.decode.max_new_tokens
        prompts = pinning.pin(recipe.items, tokenizer, limit=limit)
        self.vocabulary = pinning.vocabulary(tokenizer)
        self.pinned: dict[str, PinnedPrompt] = {prompt.key: prompt for prompt in prompts}
        self._items = {item.key: item for item in recipe.items}
        self._controls: dict[type[StoredFormat], ControlRecord] = {}
        self._home = work / "healthy"
        self.healthy = self._run(self._home, HEALTHY)

    def run(self, tampering: Tampering, name: str) -> Run:
        """The pipeline with something tampered with; what lies before is reused."""
        return self._run(self._work / name, tampering)

    def _run(self, root: Path, tampering: Tampering) -> Run:
        evidence: dict[str, CellEvidence] = {}
        touched: set[str] = set()
        for spec in self._specs.values():
            hop = self.hops.get(spec.id)
            follows = hop is not None and hop.parent in touched
            if tampering is HEALTHY or spec.id == tampering.at or follows:
                touched.add(spec.id)
                own = tampering if spec.id == tampering.at else HEALTHY
                self._artifact(root, spec, own)
                evidence[spec.id] = self._cell(root, spec, own)
            else:
                self._link(root, spec)
                evidence[spec.id] = self.healthy.evidence[spec.id]
        hops = tuple(self.hops.values())
        return Run(root, evidence, analyse(hops, evidence, self.pinned, self.vocabulary))

    # ----------------------------------------------------------------------------- artifacts

    def _link(self, root: Path, spec: CellSpec) -> None:
        path = root / spec.artifact_name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to(self._home / spec.artifact_name)

    def _artifact(self, root: Path, spec: CellSpec, tampering: Tampering) -> None:
        """Make a cell's artifact, and change it if that is asked for."""
        if spec.adapter is not None:  # it runs its parent's
            return
        folder = root / spec.artifact_name
        folder.parent.mkdir(parents=True, exist_ok=True)
        if tampering is HEALTHY:
            self._convert(root, spec, folder)
            return
        # its parents are the healthy ones: so was this artifact
        shutil.copytree(self._home / spec.artifact_name, folder)
        if tampering.artifact is not None:
            tampering.artifact(folder)

    def _convert(self, root: Path, spec: CellSpec, folder: Path) -> None:
        if spec.id == ROOT_CELL:
            shutil.copytree(self._recipe.source, folder)
            return
        step, parent = self.hops[spec.id].kind, root / self._parent(spec).artifact_name
        if step == "convert":
            CONVERT[self._format_of(spec)](parent, folder, spec.form, self._params)
            return
        folder.mkdir()
        if step == "quantize":
            gguf.quantize(parent, folder, quantization=spec.form, threads=1)
        elif self._recipe.adapter is not None:
            merge.merge(parent, self._recipe.adapter, folder, dtype=self._params.merge.dtype)

    def _format_of(self, spec: CellSpec) -> str:
        return self._planned[spec.id].route.format

    def _parent(self, spec: CellSpec) -> CellSpec:
        return self._specs[self.hops[spec.id].parent]

    def _checkpoint(self, spec: CellSpec) -> CellSpec:
        """The nearest cell above that runs a checkpoint, the cell itself included."""
        return spec if self._format_of(spec) == CHECKPOINT else self._checkpoint(self._parent(spec))

    # --------------------------------------------------------------------------------- cells

    def _cell(self, root: Path, spec: CellSpec, tampering: Tampering) -> CellEvidence:
        """Score one cell in this process."""
        home = root / "cells" / spec.id
        home.mkdir(parents=True)
        job = self._job(root, spec, home, tampering)
        runtime = tampering.runtime or registry.resolve(job.target)
        events = home / "events.jsonl"
        said = os.open(events, os.O_WRONLY | os.O_CREAT)
        try:
            worker.run(job, runtime(job), said)
        finally:
            os.close(said)
        *_, done = load_lines(worker.Event, events)
        self._publish_text(job)
        return self._evidence(root, spec, job, done, tampering)

    def _job(self, root: Path, spec: CellSpec, home: Path, tampering: Tampering) -> Job:
        asked = [
            prompt.model_copy(update={"max_new_tokens": tampering.limit or prompt.max_new_tokens})
            for prompt in self.pinned.values()
        ]
        dump_lines(asked, home / "prompts.jsonl")
        decode = self._params.decode.model_dump(include={"context_length", "stop"})
        threads = self._params.limits.threads
        return Job(
            runtime=spec.runtime,
            target=self._planned[spec.id].route.target,
            artifact=root / spec.artifact_name,
            adapter=self._recipe.adapter if spec.adapter else None,
            prompts=home / "prompts.jsonl",
            turn=1,
            journal=home / "journal.jsonl",
            decode=DecodeSettings.model_validate(
                {**decode, "threads": threads, **tampering.decode}
            ),
            texts=self._texts(spec),
        )

    def _texts(self, spec: CellSpec) -> tuple[TextJob, ...]:
        own = spec.id == plan.reference(self._params, spec.variant)
        return tuple(
            TextJob(
                name=name,
                folder=None if own and name == spec.variant else self._text(name),
                sources=plan.sources(self._params, spec),
                top_k=self._params.distributions.top_k,
            )
            for name in plan.texts(self._planned[spec.id])
        )

    def _text(self, name: str) -> Path:
        return self._home / TEXT / name

    def _publish_text(self, job: Job) -> None:
        """Keep the text that a reference made, for the cells after it."""
        for text in job.texts:
            if text.folder is None:
                folder = self._text(text.name)
                folder.mkdir(parents=True)
                for name in (SEQUENCES, IDS):
                    shutil.copyfile(job.distributions / text.name / name, folder / name)

    # ------------------------------------------------------------------------------ evidence

    def _evidence(
        self, root: Path, spec: CellSpec, job: Job, done: worker.Event, tampering: Tampering
    ) -> CellEvidence:
        forced, problem = collect.collected(job.texts, [job.distributions], [done.not_forced])
        entries = worker.read_journal(job.journal)
        answers = {entry.key: entry.completion for entry in entries if entry.completion}
        floor = NoiseFloor(items=len(answers), different=(), max_logprob_difference=0.0)
        kept = self._distributions(job.distributions, forced)
        return CellEvidence(
            record=CellRecord(
                cell=spec,
                outcome=Outcome(state="ok"),
                artifact_identity=spec.artifact_name,
                adapter_identity=None,
                prompts_sha256="",
                completions_sha256=None,
                floor=floor,
                forced=forced,
                not_forced=problem,
                capabilities=registry.resolve(job.target).capabilities,
                build=done.build or {},
                settings=done.settings or {},
            ),
            completions=answers,
            scores={
                key: grade(self._items[key], prompt, answers.get(key), spec.id)
                for key, prompt in self.pinned.items()
            },
            distributions=kept,
            weights=self._weights(root, spec, kept, tampering),
            census=CENSUS[self._format_of(spec)](root / spec.artifact_name),
        )

    def _distributions(
        self, home: Path, forced: Sequence[ForcedRecord]
    ) -> dict[str, Distributions]:
        return {
            each.text: Distributions(
                home / each.text,
                tuple(load_lines(ForcedSequence, self._text(each.text) / SEQUENCES)),
            )
            for each in forced
        }

    def _weights(
        self,
        root: Path,
        spec: CellSpec,
        kept: Mapping[str, Distributions],
        tampering: Tampering,
    ) -> StoredWeights:
        if spec.id == ROOT_CELL:
            return StoredWeights(kept, itself=True)
        which = record.Artifacts(
            self._record(spec),
            self._record(self._checkpoint(spec)),
            self._record(self._parent(spec)),
            root,
        )
        if self._format_of(spec) == CHECKPOINT:
            merged = self.hops[spec.id].kind == "merge"
            return StoredWeights(kept, record.merged(which) if merged else None, itself=True)
        stored = tampering.stored or base.resolve(routes.counterfactuals()[self._format_of(spec)])
        home = root / "counterfactuals" / spec.artifact_name
        made = record.counterfactual(
            which,
            stored,
            self._control(stored),
            texts=self._texts(spec),
            out=home,
            say=lambda *_: None,
        )
        return StoredWeights(self._distributions(home, made.forced), made)

    def _record(self, spec: CellSpec) -> ArtifactRecord:
        """As much of an artifact's record as a counterfactual reads."""
        kinds = (row for row in routes.CONVERSIONS if row.format == self._format_of(spec))
        return ArtifactRecord(
            name=spec.artifact_name,
            kind=[row.kind for row in kinds][-1],
            conversion="convert",
            identity=spec.artifact_name,
            files=(),
            parents=(),
            tool="",
            tool_version="",
            arguments={},
        )

    def _control(self, stored: StoredFormat) -> ControlRecord:
        """The control of a format's loader, tried once."""
        kind = type(stored)
        if kind not in self._controls:
            source = self._home / self._specs[ROOT_CELL].artifact_name
            self._controls[kind] = control.control(stored, source)
        return self._controls[kind]
