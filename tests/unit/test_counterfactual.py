"""What a counterfactual is held against: fields beside the weights, and tensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from driftline.counterfactual import base, fields, tensors
from driftline.counterfactual.mlx import Mlx
from driftline.project import routes
from driftline.store.facts import written

Array = NDArray[np.float32]

values = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-8, 8, width=32)
)


def config(folder: Path, **changes: object) -> Path:
    folder.mkdir()
    data = {"model_type": "llama", "rms_norm_eps": 1e-5, "eos_token_id": 2, **changes}
    (folder / "config.json").write_text(json.dumps(data))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return folder


class TestFormats:
    @pytest.mark.parametrize(("kind", "target"), routes.counterfactuals().items())
    def test_each_is_imported_by_name_and_bears_its_own(self, kind: str, target: str) -> None:
        stored = base.resolve(target)
        assert stored.kind == kind and stored.shrunk

    def test_one_that_none_is_made_from_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(NotImplementedError, match="no step makes mlx from mlx"):
            Mlx().against_parent(tmp_path, tmp_path, {})


class TestFields:
    def test_equal_folders_have_no_change(self, tmp_path: Path) -> None:
        one, other = config(tmp_path / "a"), config(tmp_path / "b")
        assert fields.changes(fields.of_folder(one), fields.of_folder(other)) == ()

    def test_a_change_names_its_field_and_both_values(self, tmp_path: Path) -> None:
        one, other = config(tmp_path / "a"), config(tmp_path / "b", rms_norm_eps=0.01)
        (change,) = fields.changes(fields.of_folder(one), fields.of_folder(other))
        assert (change.field, change.expected, change.found) == (
            "config.json:rms_norm_eps",
            "1e-05",
            "0.01",
        )

    def test_a_field_that_is_there_on_one_side_only_is_a_change(self, tmp_path: Path) -> None:
        one, other = config(tmp_path / "a"), config(tmp_path / "b", rope_theta=7.0)
        (change,) = fields.changes(fields.of_folder(one), fields.of_folder(other))
        assert (change.expected, change.found) == (None, "7.0")

    def test_what_says_nothing_of_the_model_is_no_change(self, tmp_path: Path) -> None:
        one = config(tmp_path / "a", transformers_version="5")
        other = config(tmp_path / "b", quantization={"bits": 4})
        assert fields.changes(fields.of_folder(one), fields.of_folder(other)) == ()

    def test_text_and_model_are_told_apart(self) -> None:
        text = ("tokenizer.ggml.eos_token_id", "chat_template.jinja", "config.json:eos_token_id")
        model = ("config.json:rms_norm_eps", "llama.rope.freq_base", "qwen2.block_count")
        assert all(fields.is_text(name) for name in text)
        assert not any(fields.is_text(name) for name in model)

    def test_a_long_value_is_kept_as_a_digest(self) -> None:
        assert "sha256" in written(list(range(1000)))
        assert written([1, 2]) == "[1,2]"
        assert written(list(range(1000))) != written(list(range(1001)))


class TestTensors:
    @given(values)
    def test_a_tensor_is_no_distance_from_itself(self, tensor: Array) -> None:
        assert tensors.relative_error(tensor, tensor) == 0.0

    def test_relative_error_is_that_of_the_norms(self) -> None:
        before = np.array([[3.0, 4.0]], dtype=np.float32)
        assert tensors.relative_error(before, before * 0) == 1.0
        assert tensors.relative_error(before, before * 2) == pytest.approx(1.0)
        assert tensors.relative_error(before, before * 1.01) == pytest.approx(0.01, rel=1e-4)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("model.layers.3.mlp.up_proj.weight", (3, "mlp.up_proj")),
            ("blk.11.attn_q.weight", (11, "attn_q")),
            ("model.embed_tokens.weight", (None, "embed_tokens")),
            ("lm_head.weight", (None, "lm_head")),
        ],
    )
    def test_a_name_has_a_place(self, name: str, expected: tuple[int | None, str]) -> None:
        assert tensors.place(name) == expected

    def test_what_storing_again_gives_is_explained_to_the_bit(self) -> None:
        before = np.array([[1.0, 2.06]], dtype=np.float32)
        stored = np.array([[1.0, 2.0]], dtype=np.float32)

        def explained(after: Array) -> str | None:
            return tensors.change(
                "w", before=before, after=after, stored="Q", again=stored
            ).explained

        assert explained(stored) == "exact"
        assert explained(np.array([[1.0, 2.01]], dtype=np.float32)) == "within"
        assert explained(np.array([[0.0, 2.0]], dtype=np.float32)) == "beyond"

    def test_a_lossless_type_explains_nothing_but_equality(self) -> None:
        before = np.array([[1.0, 2.0]], dtype=np.float32)
        near = np.array([[1.0, np.nextafter(np.float32(2), np.float32(3))]], dtype=np.float32)
        change = tensors.change("w", before=before, after=near, stored="F32", again=before)
        assert change.explained == "beyond"

    @given(values, st.randoms())
    def test_an_order_changes_no_values(self, tensor: Array, random: object) -> None:
        flat = tensor.reshape(-1)
        order = np.random.default_rng(id(random) % 2**32).permutation(len(flat))
        assert tensors.same_values(tensor, flat[order])

    @given(values)
    def test_another_value_is_seen(self, tensor: Array) -> None:
        other = tensor.copy()
        other.reshape(-1)[0] = np.float32(9.0)
        assert not tensors.same_values(tensor, other)

    def test_an_added_tensor_is_a_change_unless_it_is_a_copy(self) -> None:
        embedding = np.array([[1.0, 2.0]], dtype=np.float32)
        parent = {"embed": embedding}
        kinds = {"head": "F32"}
        copied = {"embed": embedding, "head": embedding.copy()}
        own = {"embed": embedding, "head": embedding + 1}
        assert list(tensors.added(copied, parent, kinds)) == []
        (change,) = tensors.added(own, parent, kinds)
        assert (change.name, change.explained) == ("head", "beyond")
