"""What every stored format owes, tried on the embedded checkpoint; a new one by its row alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from driftline.counterfactual import base, control, fields, record, reference
from driftline.counterfactual.base import StoredFormat
from driftline.counterfactual.record import Artifacts
from driftline.counterfactual.tensors import change
from driftline.project import routes
from driftline.schema.artifacts import ArtifactRecord
from driftline.schema.weights import CounterfactualRecord, TensorChange
from tests import factories
from tests.conftest import need

Arrays = Mapping[str, NDArray[np.float32]]
NEEDS = {"gguf": "llamacpp", "mlx": "mlx"}


class Copied(StoredFormat):
    """A third format, to show that none is taken for another: a checkpoint as it is."""

    kind = "copied"
    shrunk = ("num_hidden_layers",)

    def load(self, folder: Path) -> Any:
        return reference.checkpoint(folder)

    def fields(self, folder: Path) -> dict[str, str]:
        return fields.of_folder(folder)

    def unfaithful(self, folder: Path, loaded: Arrays) -> str:
        return ""

    def against_checkpoint(
        self, folder: Path, loaded: Arrays, checkpoint: Arrays
    ) -> tuple[TensorChange, ...]:
        return tuple(
            change(name, before=values, after=loaded[name], stored="copied", again=values)
            for name, values in checkpoint.items()
        )

    def convert_control(self, checkpoint: Path, destination: Path) -> None:
        shutil.copytree(checkpoint, destination)


@pytest.fixture(params=[*routes.counterfactuals(), "copied"])
def stored(request: pytest.FixtureRequest) -> StoredFormat:
    """Each format in turn."""
    need("transformers")
    if request.param == Copied.kind:
        return Copied()
    need(NEEDS[request.param])
    return base.resolve(routes.counterfactuals()[request.param])


@pytest.fixture
def converted(stored: StoredFormat, clerk: Path, tmp_path: Path) -> Path:
    """The embedded checkpoint in that format, at full precision."""
    reference.prepare(1)
    (tmp_path / "mine").mkdir()
    stored.convert_control(clerk, tmp_path / "mine" / "converted")
    return tmp_path / "mine" / "converted"


def test_what_is_stored_at_full_precision_comes_back(
    stored: StoredFormat, converted: Path, clerk: Path
) -> None:
    checkpoint = reference.arrays(reference.checkpoint(clerk))
    loaded = reference.arrays(stored.load(converted))
    assert stored.unfaithful(converted, loaded) == ""
    changes = stored.against_checkpoint(converted, loaded, checkpoint)
    assert {each.name for each in changes} == set(checkpoint)
    assert {(each.explained, each.relative_error) for each in changes} == {("exact", 0.0)}


def test_another_value_is_seen(stored: StoredFormat, converted: Path, clerk: Path) -> None:
    checkpoint = reference.arrays(reference.checkpoint(clerk))
    loaded = reference.arrays(stored.load(converted))
    name = "model.layers.1.mlp.up_proj.weight"
    other = {**loaded, name: loaded[name] * np.float32(1.01)}
    changes = stored.against_checkpoint(converted, other, checkpoint)
    assert [each.name for each in changes if each.explained != "exact"] == [name]


def test_a_control_names_its_format_and_keeps_what_is_not_shrunk(
    stored: StoredFormat, converted: Path, clerk: Path
) -> None:
    tried = control.control(stored, clerk)
    assert (tried.kind, tried.trusted, tried.reason) == (stored.kind, True, "")
    assert tried.expected == control.fields(stored, converted)
    left_out = stored.fields(converted).keys() - tried.expected.keys()
    assert left_out and all(name.endswith(stored.shrunk) for name in left_out)


def artifact(name: str, kind: str) -> ArtifactRecord:
    return factories.artifact(name, kind, "convert")


def weights_of(stored: StoredFormat, root: Path, parent: ArtifactRecord) -> CounterfactualRecord:
    """The counterfactual of what lies in `mine/converted`, which has the records' kind `mlx`."""
    checkpoint = artifact("clerk", "source")
    return record.counterfactual(
        Artifacts(artifact("mine/converted", "mlx"), checkpoint, parent, root),
        stored,
        control.control(stored, root / "clerk"),
        texts=(),
        out=root / "out",
        say=lambda *_: None,
    )


@pytest.mark.parametrize("stored", ["copied"], indirect=True)
def test_a_parent_of_the_same_format_is_what_an_artifact_is_held_against(
    stored: StoredFormat, converted: Path, clerk: Path
) -> None:
    """Where no step makes one from another, that is why the split is withheld."""
    root = converted.parents[1]
    (root / "clerk").symlink_to(clerk)
    made = weights_of(stored, root, artifact("clerk", "source"))
    assert made.trusted and len(made.tensors) > 30
    assert made.parent == "clerk" and made.config == ()
    made = weights_of(stored, root, artifact("mine/converted", "mlx"))
    assert not made.trusted and made.tensors == ()
    assert made.reason == "NotImplementedError: no step makes copied from copied"


def test_a_loader_that_raises_is_not_trusted(clerk: Path) -> None:
    class Broken(Copied):
        def load(self, folder: Path) -> Any:
            raise KeyError("an architecture\nit never heard of")

    need("transformers")
    tried = control.control(Broken(), clerk)
    assert not tried.trusted and tried.expected == {}
    assert tried.reason == r"KeyError: 'an architecture\nit never heard of'"
