"""The contract of a stored format: what lets its weights run in the reference runtime, on one page.

A counterfactual runs an artifact's stored weights, dequantized to float32, in the reference
runtime, so that drift of the weights is told apart from drift of the arithmetic. To add a format:
copy a module of this folder, name its class in `FORMATS` of `driftline.project.routes`, give it a
`counterfactual` stage in `dvc.yaml` and a fault of its loader in `driftline.faults.catalogue`; the
contract suite (`tests/contract/test_formats.py`) tells you when you are done. A format without a
class has no counterfactual: its split is withheld.

What every format owes:

- `load` gives all that is stored, each tensor's values once and as stored, under the artifact's own
  config, in float32; what it may do is rename, and reorder where the reference runtime does;
- what the converter stores at full precision comes back bit for bit, tensors and logits: the
  control (`driftline.counterfactual.control`) tries that before any artifact is believed;
- a tensor is explained `exact` only where storing the parent's in the same type gives these values;
- nothing is hidden: whatever is raised becomes the reason for which the split is withheld.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from driftline.schema.weights import TensorChange

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.float32]]


class StoredFormat(ABC):
    """One format of artifacts; it holds no state, every method is told a folder."""

    kind: ClassVar[str]
    """Name of the format, as records of artifacts have it."""
    shrunk: ClassVar[tuple[str, ...]]
    """Ends of the names of fields that a control checkpoint has otherwise than its source."""

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """The stored tensors as a float32 model of the reference runtime."""

    @abstractmethod
    def fields(self, folder: Path) -> dict[str, str]:
        """Everything an artifact says beside its weights, each value as `facts.written`."""

    @abstractmethod
    def unfaithful(self, folder: Path, loaded: Arrays) -> str:
        """What of an artifact `load` did not give back, empty when it gave everything."""

    @abstractmethod
    def against_checkpoint(
        self, folder: Path, loaded: Arrays, checkpoint: Arrays
    ) -> tuple[TensorChange, ...]:
        """Loaded tensors against those of the checkpoint they were converted from.

        Args:
            folder: of the artifact.
            loaded: what `load` made of it, by the reference runtime's names.
            checkpoint: the same of the checkpoint.
        """

    def against_parent(
        self, folder: Path, parent: Path, loaded: Arrays
    ) -> tuple[TensorChange, ...]:
        """Loaded tensors against those of the artifact of the same format they were made from.

        Args:
            folder: of the artifact.
            parent: of the one it was made from.
            loaded: what `load` made of the artifact, by the reference runtime's names.

        Raises:
            NotImplementedError: nothing makes an artifact of this format from another.
        """
        raise NotImplementedError(f"no step makes {self.kind} from {self.kind}")

    @abstractmethod
    def convert_control(self, checkpoint: Path, destination: Path) -> None:
        """Convert a checkpoint at full precision; `destination` does not exist yet."""


def resolve(target: str) -> StoredFormat:
    """Import a format's class, `module:Class`, and make the format."""
    module, _, attribute = target.partition(":")
    made: StoredFormat = getattr(importlib.import_module(module), attribute)()
    return made
