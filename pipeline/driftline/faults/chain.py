"""A small real pipeline in one process: conversions, runtimes, grading and drift, as in a project.

Everything is the project's own code but for the child processes: a cell is `worker.run` in this
process, so that thirty pipelines take minutes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from driftline.conversions import gguf, merge, mlx
from driftline.counterfactual import control, reference
from driftline.counterfactual import record as weighing
from driftline.drift.analysis import analyse
from driftline.drift.evidence import CellEvidence, StoredWeights
from driftline.golden import prompts as pinning
from driftline.golden.grade import grade
from driftline.project import routes
from driftline.project.sections.mlx import MlxRecipe
from driftline.runtimes import collect, registry, worker
from driftline.runtimes.base import DecodeSettings, Job, Runtime, TextJob
from driftline.schema.answers import PinnedPrompt
from driftline.schema.artifacts import ArtifactRecord, Census
from driftline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.forced import ForcedRecord, ForcedSequence
from driftline.schema.hops import DriftReport, Hop
from driftline.schema.items import GoldenPrompt
from driftline.schema.values import dump_lines, load_lines
from driftline.schema.weights import ControlRecord
from driftline.store.distributions import IDS, SEQUENCES, Distributions
from driftline.store.safetensors_header import census

CONTEXT = 256
TEXT = "text"
FOUR_BITS = MlxRecipe(bits=4, group_size=64)


@dataclass(frozen=True)
class Recipe:
    """One pipeline: what it starts from and what it makes.

    `adapter` None starts the chain at the source. `stop` are stop strings of every cell.
    """

    source: Path
    items: tuple[GoldenPrompt, ...]
    adapter: Path | None = None
    merge_dtype: str = "float32"
    outtype: str = "f32"
    quantization: str = "q8_0"
    mlx: MlxRecipe = FOUR_BITS
    mlx_name: str = "4bit"
    stop: tuple[str, ...] = ()
    max_new_tokens: int = 48

    @property
    def variant(self) -> str:
        """Name of the converted checkpoint's variant."""
        return "tuned" if self.adapter else "base"

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The edges between its cells, as `driftline.project.graph` has them."""
        root, own = "transformers/base/checkpoint", f"transformers/{self.variant}/checkpoint"
        full = f"llamacpp/{self.variant}/{self.outtype}"
        attached = f"transformers/{self.variant}/attached"
        tuned = [
            Hop(parent=root, child=attached, kind="adapter"),
            Hop(parent=attached, child=own, kind="merge"),
        ]
        return (
            *(tuned if self.adapter else []),
            Hop(parent=own, child=full, kind="convert"),
            Hop(parent=full, child=f"llamacpp/{self.variant}/{self.quantization}", kind="quantize"),
            Hop(parent=own, child=f"mlx/{self.variant}/{self.mlx_name}", kind="convert"),
        )


@dataclass(frozen=True)
class Tampering:
    """What is done to one cell or its artifact on the way.

    `artifact` changes the files of the artifact of cell `at` (given its folder);
    `runtime`, `decode` and `limit` replace the class, settings and token limit of that cell;
    `load` replaces the loader of counterfactuals, by kind.
    """

    at: str
    artifact: Callable[[Path], None] | None = None
    runtime: type[Runtime] | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    load: Mapping[str, control.Loader] = field(default_factory=dict)


@dataclass
class _Made:
    """What one run of a chain has so far."""

    root: Path
    evidence: dict[str, CellEvidence] = field(default_factory=dict)


class Chain:
    """A recipe's healthy run, and runs with something tampered with, from there on."""

    def __init__(self, recipe: Recipe, work: Path) -> None:
        """Run the healthy pipeline in the existing, empty folder `work`."""
        reference.prepare(1)
        self.recipe, self._work = recipe, work
        tokenizer = pinning.tokenizer_of(recipe.source)
        self.vocabulary = pinning.vocabulary(tokenizer)
        pinned = pinning.pin(recipe.items, tokenizer, limit=recipe.max_new_tokens)
        self.pinned: dict[str, PinnedPrompt] = {prompt.key: prompt for prompt in pinned}
        self._items = {item.key: item for item in recipe.items}
        self._controls: dict[str, ControlRecord] = {}
        self._healthy = _Made(work / "healthy")
        self.clean = self._run(self._healthy, None)

    def run(self, tampering: Tampering, name: str) -> DriftReport:
        """Drift of the pipeline with something tampered with; what lies before is reused."""
        return self._run(_Made(self._work / name), tampering)

    @property
    def folder(self) -> Path:
        """Where the healthy run's artifacts lie, each under its name."""
        return self._healthy.root

    def evidence(self, cell: str) -> CellEvidence:
        """What one cell of the healthy run left behind."""
        return self._healthy.evidence[cell]

    def _run(self, made: _Made, tampering: Tampering | None) -> DriftReport:
        cells = ["transformers/base/checkpoint", *(hop.child for hop in self.recipe.hops)]
        parents = {hop.child: hop.parent for hop in self.recipe.hops}
        touched: set[str] = set()
        for cell in cells:
            if tampering is None or cell == tampering.at or parents.get(cell) in touched:
                touched.add(cell)
                own = tampering if tampering and cell == tampering.at else None
                self._artifact(made, cell, own)
                made.evidence[cell] = self._cell(made, cell, own)
            else:
                made.evidence[cell] = self._healthy.evidence[cell]
                self._link(made, cell)
        return analyse(self.recipe.hops, made.evidence, self.pinned, self.vocabulary)

    def _name(self, cell: str) -> str:
        """Name of a cell's artifact."""
        runtime, variant, form = cell.split("/")
        if runtime == "transformers":
            return f"checkpoints/{'base' if form == 'attached' else variant}"
        return f"{'gguf' if runtime == 'llamacpp' else 'mlx'}/{variant}/{form}"

    def _link(self, made: _Made, cell: str) -> None:
        path = made.root / self._name(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.symlink_to(self._healthy.root / self._name(cell))

    def _artifact(self, made: _Made, cell: str, tampering: Tampering | None) -> None:
        """Make a cell's artifact, and change it if that is asked for."""
        folder = made.root / self._name(cell)
        if cell.endswith("/attached"):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        if tampering is not None:  # its parents are the healthy ones: so was this artifact
            shutil.copytree(self._healthy.root / self._name(cell), folder)
            if tampering.artifact is not None:
                tampering.artifact(folder)
            return
        checkpoint = made.root / "checkpoints" / self.recipe.variant
        full = made.root / "gguf" / self.recipe.variant / self.recipe.outtype
        kind, form = self._name(cell).split("/")[0], cell.rpartition("/")[2]
        if cell == "transformers/base/checkpoint":
            shutil.copytree(self.recipe.source, folder)
        elif kind == "checkpoints":
            folder.mkdir()
            base = made.root / "checkpoints" / "base"
            if self.recipe.adapter is not None:
                merge.merge(base, self.recipe.adapter, folder, dtype=self.recipe.merge_dtype)
        elif kind == "mlx":
            mlx.convert(checkpoint, folder, self.recipe.mlx)
        else:
            folder.mkdir()
            if form == self.recipe.outtype:
                gguf.convert(checkpoint, folder, outtype=form, name="chain")
            else:
                gguf.quantize(full, folder, quantization=form, threads=1)

    def _cell(self, made: _Made, cell: str, tampering: Tampering | None) -> CellEvidence:
        """Score one cell in this process."""
        runtime, variant, form = cell.split("/")
        spec = CellSpec(
            id=cell, runtime=runtime, variant=variant, form=form, artifact=self._name(cell)
        )
        home = made.root / "cells" / cell
        home.mkdir(parents=True)
        limit = tampering.limit if tampering else None
        asked = [
            prompt.model_copy(update={"max_new_tokens": limit or prompt.max_new_tokens})
            for prompt in self.pinned.values()
        ]
        dump_lines(asked, home / "prompts.jsonl")
        changes = tampering.decode if tampering else {}
        settings = {"context_length": CONTEXT, "stop": self.recipe.stop, "threads": 1, **changes}
        attached = self.recipe.adapter if form == "attached" else None
        job = Job(
            runtime=runtime,
            target=routes.targets()[runtime],
            artifact=made.root / self._name(cell),
            adapter=attached,
            prompts=home / "prompts.jsonl",
            turn=1,
            journal=home / "journal.jsonl",
            decode=DecodeSettings.model_validate(settings),
            texts=self._texts(cell),
        )
        kind = (tampering.runtime if tampering else None) or registry.resolve(job.target)
        events = home / "events.jsonl"
        said = os.open(events, os.O_WRONLY | os.O_CREAT)
        try:
            loaded = kind(job)
            worker.run(job, loaded, said)
        finally:
            os.close(said)
        *_, done = load_lines(worker.Event, events)
        return self._evidence(made, spec, job, done, tampering)

    def _texts(self, cell: str) -> tuple[TextJob, ...]:
        """The text of the chain's reference; the source of a tuned chain makes one of its own."""
        names = {"base"} if cell == "transformers/base/checkpoint" else {self.recipe.variant}
        if cell.endswith("/attached"):
            names = {"base", self.recipe.variant}
        sources = tuple(dict.fromkeys(item.evalset for item in self.recipe.items))
        return tuple(
            TextJob(
                name=name,
                folder=None if self._makes(cell, name) else self._text(name),
                sources=sources,
                top_k=100_000,
            )
            for name in sorted(names)
        )

    def _makes(self, cell: str, text: str) -> bool:
        own = "transformers/base/checkpoint" if text == "base" else f"transformers/{text}/attached"
        return cell == own

    def _text(self, name: str) -> Path:
        return self._healthy.root / TEXT / name

    def _evidence(
        self,
        made: _Made,
        spec: CellSpec,
        job: Job,
        done: worker.Event,
        tampering: Tampering | None,
    ) -> CellEvidence:
        for text in job.texts:
            if text.folder is None:
                folder = self._text(text.name)
                folder.mkdir(parents=True)
                for name in (SEQUENCES, IDS):
                    shutil.copyfile(job.distributions / text.name / name, folder / name)
        kept, problem = collect.collected(job.texts, [job.distributions], [done.not_forced])
        entries = worker.read_journal(job.journal)
        answers = {entry.key: entry.completion for entry in entries if entry.completion}
        record = CellRecord(
            cell=spec,
            outcome=Outcome(state="ok"),
            artifact_identity=spec.artifact,
            adapter_identity=None,
            prompts_sha256="",
            completions_sha256=None,
            floor=NoiseFloor(items=len(answers), different=(), max_logprob_difference=0.0),
            forced=kept,
            not_forced=problem,
            build=done.build or {},
            settings=done.settings or {},
        )
        distributions = self._distributions(job.distributions, kept)
        scores = {
            key: grade(self._items[key], prompt, answers.get(key), spec.id)
            for key, prompt in self.pinned.items()
        }
        return CellEvidence(
            record=record,
            completions=answers,
            scores=scores,
            distributions=distributions,
            weights=self._weigh(made, spec, distributions, tampering),
            census=_census(made.root / spec.artifact, spec.runtime),
        )

    def _distributions(self, home: Path, kept: Sequence[ForcedRecord]) -> dict[str, Distributions]:
        return {
            found.text: Distributions(
                home / found.text,
                tuple(load_lines(ForcedSequence, self._text(found.text) / SEQUENCES)),
            )
            for found in kept
        }

    def _weigh(
        self,
        made: _Made,
        spec: CellSpec,
        own: Mapping[str, Distributions],
        tampering: Tampering | None,
    ) -> StoredWeights:
        checkpoint = self._record(f"checkpoints/{self.recipe.variant}", "merged")
        if spec.runtime == "transformers":
            merged = spec.form == "checkpoint" and spec.variant != "base"
            source = self._record("checkpoints/base", "source")
            which = weighing.Artifacts(checkpoint, checkpoint, source, made.root)
            return StoredWeights(own, weighing.merged(which) if merged else None, itself=True)
        kind: control.Kind = "gguf" if spec.runtime == "llamacpp" else "mlx"
        quantized = spec.form == self.recipe.quantization
        full = self._record(f"gguf/{spec.variant}/{self.recipe.outtype}", "gguf")
        which = weighing.Artifacts(
            self._record(spec.artifact, kind),
            checkpoint,
            full if quantized else checkpoint,
            made.root,
        )
        load = tampering.load.get(kind) if tampering else None
        home = made.root / "counterfactuals" / spec.artifact
        text = self._texts(spec.id)
        found = weighing.weigh(which, self.control(kind, load), text, home, lambda *_: None, load)
        return StoredWeights(self._distributions(home, found.forced), found)

    def control(self, kind: control.Kind, load: control.Loader | None = None) -> ControlRecord:
        """The control of a kind's loader: of its own once, of any other every time."""
        source = self._healthy.root / "checkpoints" / "base"
        if load is not None:
            return control.control(kind, source, load)
        if kind not in self._controls:
            self._controls[kind] = control.control(kind, source)
        return self._controls[kind]

    def _record(self, name: str, kind: str) -> ArtifactRecord:
        return ArtifactRecord(
            name=name,
            kind=kind,
            conversion="convert",
            identity=name,
            files=(),
            parents=(),
            tool="",
            tool_version="",
            arguments={},
        )


def _census(folder: Path, runtime: str) -> Census:
    if runtime == "llamacpp":
        return gguf.census(folder)
    return mlx.census(folder) if runtime == "mlx" else census(folder)
