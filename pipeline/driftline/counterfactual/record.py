"""One artifact's counterfactual: its stored weights through the reference runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from driftline.counterfactual import control, fields, reference
from driftline.counterfactual.base import StoredFormat
from driftline.counterfactual.tensors import change
from driftline.runtimes import collect, forced
from driftline.runtimes.base import TextJob
from driftline.runtimes.transformers import force_model
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.forced import ForcedRecord, ForcedSequence
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

    @property
    def same_format(self) -> bool:
        """Whether the artifact was made from one of its own format: quantized, not converted."""
        return self.artifact.kind == self.parent.kind

    def folder(self, record: ArtifactRecord) -> Path:
        """Where an artifact lies."""
        return self.root / record.name


def counterfactual(
    which: Artifacts,
    stored: StoredFormat,
    tried: ControlRecord,
    *,
    texts: tuple[TextJob, ...],
    out: Path,
    say: forced.Say,
) -> CounterfactualRecord:
    """Force the texts through the artifact's stored weights in float32, into `out`.

    Whatever keeps the loader from being trusted withholds the split; nothing is raised.

    Args:
        which: the artifact and those it comes from.
        stored: the artifact's format.
        tried: what the control of that format's loader gave.
        texts: what to teacher-force.
        out: folder for one folder of distributions per text.
        say: told of every sequence.
    """
    record = _record(
        which,
        _field_changes(which, stored, tried),
        trusted=tried.trusted,
        reason=tried.reason and f"the loader failed its control: {tried.reason}",
    )
    if not tried.trusted:
        return record
    folder = which.folder(which.artifact)
    try:
        model = stored.load(folder)
        loaded = reference.arrays(model)
        fault = stored.unfaithful(folder, loaded)
        if fault:
            return record.model_copy(update={"trusted": False, "reason": fault})
        tensors = _tensor_changes(which, stored, loaded)
        rows = tuple(_force(model, text, out / text.name, say) for text in texts)
    except Exception as error:  # a loader that raises is one that gives no trustworthy split
        return record.model_copy(update={"trusted": False, "reason": control.one_line(error)})
    kept = tuple(each for each in rows if each is not None)
    return record.model_copy(update={"tensors": tensors, "forced": kept})


def merged(which: Artifacts) -> CounterfactualRecord:
    """A merged checkpoint against its source: files beside the weights, and how far each tensor is.

    It needs no counterfactual: its own cell in the reference runtime is one.
    """
    source, folder = which.folder(which.parent), which.folder(which.artifact)
    before, after = _stored(source), _stored(folder)
    tensors = tuple(
        change(name, before=values, after=after[name][0], stored=after[name][1]).model_copy(
            update={"explained": None}
        )
        for name, (values, _) in before.items()
        if name in after
    )
    changes = fields.changes(fields.of_folder(source), fields.of_folder(folder))
    return _record(which, changes, trusted=True).model_copy(update={"tensors": tensors})


def _record(
    which: Artifacts, changes: Sequence[FieldChange], *, trusted: bool, reason: str = ""
) -> CounterfactualRecord:
    """The record of one artifact, whose fields beside the weights have these changes."""
    return CounterfactualRecord(
        artifact=which.artifact.name,
        artifact_identity=which.artifact.identity,
        parent=which.parent.name,
        parent_identity=which.parent.identity,
        trusted=trusted,
        reason=reason,
        config=tuple(each for each in changes if not fields.is_text(each.field)),
        text_fields=tuple(each for each in changes if fields.is_text(each.field)),
    )


def _stored(folder: Path) -> dict[str, tuple[NDArray[np.float32], str]]:
    """Every tensor of a checkpoint by name, as float32, and its storage type."""
    from safetensors import safe_open

    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                tensors[name] = (tensor.float().numpy(), str(tensor.dtype).rpartition(".")[2])
    return tensors


def _field_changes(
    which: Artifacts, stored: StoredFormat, tried: ControlRecord
) -> tuple[FieldChange, ...]:
    """What is not the parent's or, at a conversion, not what the converter writes."""
    own = control.fields(stored, which.folder(which.artifact))
    expected: Mapping[str, str] = tried.expected
    if which.same_format:
        expected = control.fields(stored, which.folder(which.parent))
    return fields.changes(expected, own) if expected else ()


def _tensor_changes(
    which: Artifacts, stored: StoredFormat, loaded: Arrays
) -> tuple[TensorChange, ...]:
    folder = which.folder(which.artifact)
    if which.same_format:
        return stored.against_parent(folder, which.folder(which.parent), loaded)
    checkpoint = reference.arrays(reference.checkpoint(which.folder(which.checkpoint)))
    return stored.against_checkpoint(folder, loaded, checkpoint)


def _force(model: Any, text: TextJob, out: Path, say: forced.Say) -> ForcedRecord | None:
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
