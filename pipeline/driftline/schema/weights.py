"""The weights component of drift: what is stored in an artifact, held against what it came from."""

from __future__ import annotations

from typing import Literal

from driftline.schema.forced import ForcedRecord
from driftline.schema.values import Sealed, Value

Explained = Literal["exact", "within", "beyond"]


class FieldChange(Value):
    """One field that is not what it should be; values as canonical JSON, long ones as a digest.

    `expected` and `found` are None where there is no such field.
    """

    field: str
    expected: str | None
    found: str | None


class TensorChange(Value):
    """One stored tensor, dequantized to float32, against the one it came from.

    `relative_error` is the Frobenius norm of the difference over that of the parent's tensor.
    `explained` says whether the storage type accounts for it: `exact` when storing the parent's
    tensor in that type again gives these very values, `within` when the error is no larger than the
    type's usual one, `beyond` otherwise; None for a merge, which is there to change weights.
    `layer` is None outside the blocks.
    """

    name: str
    layer: int | None
    module: str
    stored: str
    relative_error: float
    explained: Explained | None


class ControlRecord(Sealed):
    """Whether the loader that builds counterfactuals of a format, `kind`, can be trusted here.

    It is tried on this project's architecture: a small random checkpoint with the source's own
    config and tokenizer goes through the converter at full precision and back through the loader;
    it must return bit for bit. `expected` is what the converter wrote beside the weights (metadata
    of a GGUF, config and tokenizer files of MLX): canonical JSON, long values as a digest. It is
    what a real artifact's fields are held against.
    """

    schema_version: Literal[2] = 2
    kind: str
    trusted: bool
    reason: str = ""
    tensors: int
    expected: dict[str, str]


class CounterfactualRecord(Sealed):
    """One artifact's stored weights in the float32 reference runtime: the cell W(B).

    `tensors` are held against those of the artifact `parent`. `trusted` False withholds the split
    of drift, because of `reason`; `forced` is then empty. `config` lists the model's own settings
    that differ from the parent's (rope base, epsilon, head counts), `text_fields` those of its
    tokenizer and template.
    """

    schema_version: Literal[2] = 2
    artifact: str
    artifact_identity: str
    parent: str
    parent_identity: str
    trusted: bool
    reason: str = ""
    config: tuple[FieldChange, ...] = ()
    text_fields: tuple[FieldChange, ...] = ()
    tensors: tuple[TensorChange, ...] = ()
    forced: tuple[ForcedRecord, ...] = ()
