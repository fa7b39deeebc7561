"""One artifact's counterfactual: its stored weights through the reference runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.counterfactual import control, fields, gguf, mlx, reference
from driftline.counterfactual.tensors import change
from driftline.runtimes import collect, forced
from driftline.runtimes.base import TextJob
from driftline.runtimes.transformers import force_model
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.forced import ForcedSequence
from driftline.schema.values import load_lines
from driftline.schema.weights import ControlRecord, CounterfactualRecord, FieldChange, TensorChange
from driftline.store.distributions import SEQUENCES

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Artifacts:
    """What is compared: an artifact, the checkpoint it descends from, and its direct parent."""

    artifact: ArtifactRecord
    checkpoint: ArtifactRecord
    parent: ArtifactRecord
    root: Path

    def folder(self, record: ArtifactRecord) -> Path:
        """Where an artifact lies."""
        return self.root / record.name


def weigh(
    which: Artifacts,
    known: ControlRecord,
    texts: tuple[TextJob, ...],
    out: Path,
    say: forced.Say,
    load: control.Loader | None = None,
) -> CounterfactualRecord:
    """Force the texts through the artifact's stored weights in float32, into `out`.

    Whatever keeps the loader from being trusted withholds the split; nothing is raised.

    Args:
        which: the artifact and those it comes from.
        known: the control of the loader.
        texts: what to teacher-force.
        out: folder for one folder of distributions per text.
        say: told of every sequence.
        load: in place of the kind's own loader.
    """
    folder, kind = which.folder(which.artifact), known.kind
    config, text = _fields(which, known)
    record = CounterfactualRecord(
        artifact=which.artifact.name,
        artifact_identity=which.artifact.identity,
        parent=which.parent.name,
        parent_identity=which.parent.identity,
        trusted=known.trusted,
        reason=known.reason and f"the loader failed its control: {known.reason}",
        config=config,
        text_fields=text,
    )
    if not known.trusted:
        return record
    try:
        model = (load or control.LOADERS[kind])(folder)
        loaded = reference.arrays(model)
        fault = (gguf.unfaithful if kind == "gguf" else mlx.unfaithful)(folder, loaded)
        if fault:
            return record.model_copy(update={"trusted": False, "reason": fault})
        tensors = _tensors(which, kind, loaded)
        made = tuple(_force(model, text_job, out / text_job.name, say) for text_job in texts)
    except Exception as error:  # a loader that raises is one that gives no trustworthy split
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
        return record.model_copy(update={"trusted": False, "reason": reason})
    return record.model_copy(
        update={"tensors": tensors, "forced": tuple(each for each in made if each is not None)}
    )


def merged(which: Artifacts) -> CounterfactualRecord:
    """A merged checkpoint against its source: files beside the weights, and how far each tensor is.

    It needs no counterfactual: its own cell in the reference runtime is one.
    """
    source, folder = which.folder(which.parent), which.folder(which.artifact)
    changed = fields.changes(fields.of_folder(source), fields.of_folder(folder))
    before, after = _stored(source), _stored(folder)
    kinds = {name: kind for name, (_, kind) in after.items()}
    return CounterfactualRecord(
        artifact=which.artifact.name,
        artifact_identity=which.artifact.identity,
        parent=which.parent.name,
        parent_identity=which.parent.identity,
        trusted=True,
        config=tuple(each for each in changed if not fields.is_text(each.field)),
        text_fields=tuple(each for each in changed if fields.is_text(each.field)),
        tensors=tuple(
            change(name, before=values, after=after[name][0], stored=kinds[name]).model_copy(
                update={"explained": None}
            )
            for name, (values, _) in before.items()
            if name in after
        ),
    )


def _stored(folder: Path) -> dict[str, tuple[NDArray[np.float32], str]]:
    from safetensors import safe_open

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                found[name] = (tensor.float().numpy(), str(tensor.dtype).rpartition(".")[2])
    return found


def _fields(
    which: Artifacts, known: ControlRecord
) -> tuple[tuple[FieldChange, ...], tuple[FieldChange, ...]]:
    """What is not the parent's or, at a conversion, not what the converter writes."""
    own = control.fields(known.kind, which.folder(which.artifact))
    quantized = which.parent.kind == "gguf"
    expected = (
        control.fields(known.kind, which.folder(which.parent)) if quantized else known.expected
    )
    found = fields.changes(expected, own) if expected else ()
    return (
        tuple(each for each in found if not fields.is_text(each.field)),
        tuple(each for each in found if fields.is_text(each.field)),
    )


def _tensors(which: Artifacts, kind: control.Kind, loaded: Arrays) -> tuple[TensorChange, ...]:
    folder = which.folder(which.artifact)
    if which.parent.kind == "gguf":
        return gguf.against_gguf(folder, which.folder(which.parent), loaded)
    parent = reference.arrays(reference.checkpoint(which.folder(which.checkpoint)))
    compare = gguf.against_checkpoint if kind == "gguf" else mlx.against_checkpoint
    return compare(folder, loaded, parent)


def _force(model: Any, text: TextJob, out: Path, say: forced.Say) -> Any:
    def source(ids: Any, first_row: int) -> Any:
        return force_model(model, ids, first_row)

    if text.folder is None:
        raise ValueError(f"text {text.name} has no folder")
    listed = load_lines(ForcedSequence, text.folder / SEQUENCES)
    sequences = [each for each in listed if each.source in text.sources]
    if not sequences:
        return None
    out.mkdir(parents=True, exist_ok=True)
    forced.force(source, text, out, reverse=False, say=say)
    return collect.record(text, out, sequences)
