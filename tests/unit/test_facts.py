"""Facts of an artifact: each digest follows its own part, whatever shape carries it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from driftline.errors import RefusedError
from driftline.schema.artifacts import Facts, TensorDigest
from driftline.schema.values import canonical_json, seal_of, sealed
from driftline.store import digest, facts
from driftline.store.digest import sha256_text
from tests import factories
from tests.checkpoints import write_json
from tests.paths import ROOT
from tests.unit.gguf_bytes import F32, F32_TENSOR, STRING, U32, field, gguf, tensor, text

TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>é{{ message.content }}{% endfor %}\n"
PARTS = ("tensors_sha256", "metadata_sha256", "tokenizer_sha256", "template_sha256")
CONFIG = {"model_type": "llama", "rms_norm_eps": 1e-5, "vocab_size": 8}
TOKENIZER_CONFIG = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}


def folder_artifact(
    folder: Path,
    *,
    weight: float = 1.0,
    config: dict[str, Any] | None = None,
    tokenizer: bytes = b"\n\x07\n\x05<unk>",
    tokenizer_config: dict[str, Any] | None = None,
    template: str | None = None,
    about: dict[str, str] | None = None,
) -> Path:
    """A checkpoint in a folder; what is not named is the same every time."""
    folder.mkdir()
    write_json(folder / "config.json", {**CONFIG, **(config or {})})
    write_json(folder / "tokenizer_config.json", {**TOKENIZER_CONFIG, **(tokenizer_config or {})})
    (folder / "tokenizer.model").write_bytes(tokenizer)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    tensors = {"embed": np.full((8, 2), weight, np.float32), "norm": np.ones(2, np.float32)}
    save_file(tensors, folder / "model.safetensors", metadata=about or {"format": "pt"})
    return folder


def gguf_artifact(
    folder: Path,
    *,
    weight: float = 1.0,
    layers: int = 4,
    bos: int = 1,
    template: str | None = None,
) -> Path:
    """The same as a GGUF."""
    folder.mkdir()
    fields = [
        field(b"general.architecture", STRING, text(b"llama")),
        field(b"llama.block_count", U32, struct.pack("<I", layers)),
        field(b"tokenizer.ggml.bos_token_id", U32, struct.pack("<I", bos)),
    ]
    if template is not None:
        fields.append(field(b"tokenizer.chat_template", STRING, text(template.encode())))
    weights = np.full(8, weight, "<f4").tobytes()
    data = gguf(fields, [tensor(b"token_embd.weight", [2, 4], F32_TENSOR, 0)], weights)
    (folder / "model.gguf").write_bytes(data)
    return folder


def found(folder: Path) -> Facts:
    return facts.of_artifact(folder, digest.rows(folder))[0]


def changed(one: Path, other: Path) -> set[str]:
    """Which digests of two artifacts differ."""
    before, after = found(one), found(other)
    return {part for part in PARTS if getattr(before, part) != getattr(after, part)}


MAKERS = [folder_artifact, gguf_artifact]


class TestParts:
    @pytest.mark.parametrize("make", MAKERS)
    def test_the_same_content_has_the_same_facts(self, tmp_path: Path, make: Any) -> None:
        assert found(make(tmp_path / "a")) == found(make(tmp_path / "b"))

    @pytest.mark.parametrize("make", MAKERS)
    def test_a_weight_alone(self, tmp_path: Path, make: Any) -> None:
        other = make(tmp_path / "b", weight=1.0000001)
        assert changed(make(tmp_path / "a"), other) == {"tensors_sha256"}

    @pytest.mark.parametrize(
        ("make", "change"),
        [
            (folder_artifact, {"config": {"rms_norm_eps": 1e-6}}),
            (folder_artifact, {"config": {"rope_theta": 7}}),
            (folder_artifact, {"about": {"format": "np"}}),
            (gguf_artifact, {"layers": 5}),
        ],
    )
    def test_what_is_written_beside_the_weights_alone(
        self, tmp_path: Path, make: Any, change: dict[str, Any]
    ) -> None:
        other = make(tmp_path / "b", **change)
        assert changed(make(tmp_path / "a"), other) == {"metadata_sha256"}

    @pytest.mark.parametrize(
        ("make", "change"),
        [
            (folder_artifact, {"tokenizer": b"\n\x07\n\x05<unl>"}),
            (folder_artifact, {"tokenizer_config": {"add_bos_token": False}}),
            (gguf_artifact, {"bos": 2}),
        ],
    )
    def test_the_tokenizer_alone(self, tmp_path: Path, make: Any, change: dict[str, Any]) -> None:
        one = make(tmp_path / "a", template=TEMPLATE)
        other = make(tmp_path / "b", template=TEMPLATE, **change)
        assert changed(one, other) == {"metadata_sha256", "tokenizer_sha256"}

    @pytest.mark.parametrize("make", MAKERS)
    @pytest.mark.parametrize("after", [TEMPLATE + " ", None])
    def test_the_template_alone(self, tmp_path: Path, make: Any, after: str | None) -> None:
        one, other = make(tmp_path / "a", template=TEMPLATE), make(tmp_path / "b", template=after)
        assert changed(one, other) == {"metadata_sha256", "template_sha256"}

    def test_where_a_checkpoint_was_loaded_from_is_no_tokenizer(self, tmp_path: Path) -> None:
        one = folder_artifact(tmp_path / "a", tokenizer_config={"name_or_path": "/one"})
        other = folder_artifact(tmp_path / "b", tokenizer_config={"name_or_path": "/other"})
        assert changed(one, other) == {"metadata_sha256"}

    @pytest.mark.parametrize(
        ("field", "part"),
        [
            ("chat_template.jinja", "template"),
            ("tokenizer_config.json:chat_template", "template"),
            ("tokenizer.chat_template", "template"),
            ("tokenizer.json", "tokenizer"),
            ("tokenizer.model", "tokenizer"),
            ("merges.txt", "tokenizer"),
            ("special_tokens_map.json:eos_token", "tokenizer"),
            ("tokenizer_config.json:add_bos_token", "tokenizer"),
            ("tokenizer.ggml.tokens", "tokenizer"),
            ("config.json:vocab_size", "config"),
            ("adapter_config.json:lora_alpha", "config"),
            ("llama.block_count", "config"),
        ],
    )
    def test_every_field_has_a_part(self, field: str, part: str) -> None:
        assert facts.part_of(field) == part


class TestTemplate:
    def test_it_is_the_same_in_every_shape(self, tmp_path: Path) -> None:
        shapes = [
            folder_artifact(tmp_path / "file", template=TEMPLATE),
            folder_artifact(tmp_path / "key", tokenizer_config={"chat_template": TEMPLATE}),
            gguf_artifact(tmp_path / "gguf", template=TEMPLATE),
        ]
        assert {found(each).template_sha256 for each in shapes} == {sha256_text(TEMPLATE)}

    @pytest.mark.runtime
    def test_it_is_the_same_in_what_the_converters_wrote(
        self, clerk: Path, clerk_gguf: Path, clerk_mlx: Path
    ) -> None:
        own = sha256_text((clerk / "chat_template.jinja").read_text(encoding="utf-8"))
        assert {found(each).template_sha256 for each in (clerk, clerk_gguf, clerk_mlx)} == {own}

    def test_a_file_wins_over_a_key_as_it_does_in_transformers(self, tmp_path: Path) -> None:
        both = folder_artifact(
            tmp_path / "a", template=TEMPLATE, tokenizer_config={"chat_template": "other"}
        )
        assert found(both).template_sha256 == sha256_text(TEMPLATE)

    @pytest.mark.parametrize("chat_template", [None, [{"name": "default", "template": "x"}], 3])
    def test_what_is_no_text_is_none(self, tmp_path: Path, chat_template: Any) -> None:
        made = folder_artifact(tmp_path / "a", tokenizer_config={"chat_template": chat_template})
        assert found(made).template_sha256 is None

    def test_an_artifact_without_one_has_none(self, tmp_path: Path) -> None:
        assert found(folder_artifact(tmp_path / "a")).template_sha256 is None
        assert found(gguf_artifact(tmp_path / "b")).template_sha256 is None


class TestFields:
    def test_a_value_is_canonical_and_a_long_one_a_digest(self, tmp_path: Path) -> None:
        made = folder_artifact(
            tmp_path / "a", config={"short": {"b": 1, "a": "é"}, "long": "x" * 999}
        )
        own = found(made).metadata
        assert own["config.json:short"] == '{"a":"é","b":1}'
        assert (
            own["config.json:long"]
            == f"1001 characters, sha256 {sha256_text(json.dumps('x' * 999))}"
        )
        assert own["tokenizer.model"] == f"sha256 {digest.sha256_file(made / 'tokenizer.model')}"
        assert own["model.safetensors:format"] == '"pt"'

    def test_an_adapters_settings_are_fields(self) -> None:
        folder = ROOT / "models" / "adapters" / "audit"
        config = json.loads((folder / "adapter_config.json").read_text())
        own = found(folder)
        assert own.metadata["adapter_config.json:lora_alpha"] == str(config["lora_alpha"])
        assert own.metadata["adapter_config.json:r"] == str(config["r"])
        assert (own.tokenizer_sha256, own.template_sha256) == (None, None)

    def test_another_lora_alpha_is_one_field_and_no_tensor(self, tmp_path: Path) -> None:
        source = ROOT / "models" / "adapters" / "audit"
        other = tmp_path / "adapter"
        other.mkdir()
        for path in source.iterdir():
            (other / path.name).write_bytes(path.read_bytes())
        config = json.loads((other / "adapter_config.json").read_text())
        write_json(other / "adapter_config.json", {**config, "lora_alpha": 99})
        assert changed(source, other) == {"metadata_sha256"}
        before, after = found(source).metadata, found(other).metadata
        assert {key for key in after if after[key] != before.get(key)} == {
            "adapter_config.json:lora_alpha"
        }

    @pytest.mark.parametrize("content", ["[1, 2]", "not json", "", "{" * 99_999, '{"a":' * 99_999])
    def test_a_json_file_that_is_no_object_is_one_fact(self, tmp_path: Path, content: str) -> None:
        made = folder_artifact(tmp_path / "a")
        (made / "config.json").write_text(content)
        own = found(made).metadata
        assert own["config.json"] == f"sha256 {sha256_text(content)}"
        assert not any(name.startswith("config.json:") for name in own)

    @pytest.mark.parametrize("value", ["NaN", "Infinity", '"\\ud800"', '{"\\udfff": NaN}'])
    def test_what_a_record_cannot_hold_is_written_all_the_same(
        self, tmp_path: Path, value: str
    ) -> None:
        made = folder_artifact(tmp_path / "a")
        (made / "config.json").write_text(f'{{"odd": {value}, "\\udcff": 1, "plain": 2}}')
        own = found(made)
        assert own.metadata["config.json:plain"] == "2"
        assert own.metadata["config.json:odd"] == value.replace(": ", ":")
        assert own.metadata["config.json:\\udcff"] == "1"
        record = sealed(factories.artifact("a", "source", "pin").model_copy(update={"facts": own}))
        again = type(record).model_validate_json(canonical_json(record.model_dump(mode="json")))
        assert again == record and seal_of(again) == record.seal

    @pytest.mark.parametrize("value", [float("nan"), float("-inf")])
    def test_so_is_a_field_of_a_gguf(self, tmp_path: Path, value: float) -> None:
        (tmp_path / "model.gguf").write_bytes(gguf([field(b"x", F32, struct.pack("<f", value))]))
        assert found(tmp_path).metadata == {"x": "NaN" if value != value else "-Infinity"}


class TestTensors:
    def test_each_has_the_digest_of_its_bytes(self, tmp_path: Path) -> None:
        made = folder_artifact(tmp_path / "a", weight=2.0)
        own, tensors = facts.of_artifact(made, digest.rows(made))
        assert own.tensors_sha256 == sha256_text(facts.listing(tensors))
        listed = {each.name: each for each in tensors}
        assert listed["embed"] == TensorDigest(
            file="model.safetensors",
            name="embed",
            dtype="F32",
            shape=(8, 2),
            sha256=_sha256(np.full((8, 2), 2.0, "<f4")),
        )
        assert set(listed) == {"embed", "norm"}

    def test_one_larger_than_a_chunk(self, tmp_path: Path) -> None:
        values = np.arange(facts.CHUNK // 2, dtype="<f4")
        save_file({"big": values, "next": values[:3]}, tmp_path / "model.safetensors")
        _, tensors = facts.of_artifact(tmp_path, digest.rows(tmp_path))
        assert {each.name: each.sha256 for each in tensors} == {
            "big": _sha256(values),
            "next": _sha256(values[:3]),
        }

    def test_those_of_every_file_are_there(self, tmp_path: Path) -> None:
        for shard in ("one", "two"):
            save_file({shard: np.ones(2, np.float32)}, tmp_path / f"{shard}.safetensors")
        _, tensors = facts.of_artifact(tmp_path, digest.rows(tmp_path))
        assert [(each.file, each.name) for each in tensors] == [
            ("one.safetensors", "one"),
            ("two.safetensors", "two"),
        ]

    def test_a_type_or_shape_alone_is_another_tensor(self, tmp_path: Path) -> None:
        folders = []
        for number, (shape, kind) in enumerate([((4,), "<f4"), ((2, 2), "<f4"), ((4,), "<i4")]):
            folder = tmp_path / str(number)
            folder.mkdir()
            save_file({"x": np.zeros(shape, kind)}, folder / "model.safetensors")
            folders.append(folder)
        assert len({found(folder).tensors_sha256 for folder in folders}) == 3

    @pytest.mark.parametrize("name", ["model.gguf", "model.safetensors"])
    def test_a_malformed_file_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"GGUF" + bytes(9))
        with pytest.raises(RefusedError, match=name):
            found(tmp_path)


def _sha256(values: Any) -> str:
    import hashlib

    return hashlib.sha256(values.tobytes()).hexdigest()
