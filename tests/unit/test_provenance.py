"""What a GGUF says of where it comes from: the keys, the refusal, and real files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import JsonValue, ValidationError

from driftline.conversions import gguf
from driftline.counterfactual.gguf import Gguf
from driftline.errors import RefusedError, ToolError
from driftline.project.sections.location import Location
from driftline.schema.artifacts import Census
from driftline.store.digest import sha256_file
from tests.conftest import need

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDENTITY = "ab" * 32
HUB = Location(repo="acme/Tiny-7B-Chat", revision=COMMIT)
LOCAL = Location(path="models/clerk")
ARTIFACT = "gguf/audit/q8_0"

HUB_KEYS: dict[str, JsonValue] = {
    "general.base_model.count": 1,
    "general.base_model.0.name": "Tiny-7B-Chat",
    "general.base_model.0.version": COMMIT,
    "general.base_model.0.organization": "acme",
    "general.base_model.0.repo_url": "https://huggingface.co/acme/Tiny-7B-Chat",
    "general.source.repo_url": "https://huggingface.co/acme/Tiny-7B-Chat",
    "general.finetune": "audit",
}
LOCAL_KEYS: dict[str, JsonValue] = {
    "general.base_model.count": 1,
    "general.base_model.0.name": "clerk",
    "general.base_model.0.version": f"sha256:{IDENTITY}",
}
BESIDE: dict[str, JsonValue] = {
    "general.architecture": "llama",
    "general.name": "audit",
    "general.size_label": "3.3M",
    "general.license": "apache-2.0",
    "llama.block_count": 4,
}


def census(metadata: dict[str, JsonValue]) -> Census:
    return Census(
        types={"F32": 1},
        elements={"F32": 1},
        tensors=1,
        weights=1,
        bits_per_weight=32,
        metadata={**BESIDE, **metadata},
    )


def complaint(metadata: dict[str, JsonValue], origin: gguf.Origin) -> str:
    with pytest.raises(RefusedError) as caught:
        gguf.check_provenance(census(metadata), origin, ARTIFACT)
    return str(caught.value)


class TestOrigin:
    def test_a_hub_source_is_its_repository_at_its_commit(self) -> None:
        assert gguf.origin(HUB, IDENTITY, "audit") == gguf.Origin(
            name="Tiny-7B-Chat",
            organization="acme",
            repo_url="https://huggingface.co/acme/Tiny-7B-Chat",
            version=COMMIT,
            finetune="audit",
        )

    def test_a_hub_repository_without_an_organization_has_none(self) -> None:
        found = gguf.origin(Location(repo="gpt2", revision=COMMIT), IDENTITY, None)
        assert (found.name, found.organization) == ("gpt2", None)
        assert found.repo_url == "https://huggingface.co/gpt2"

    def test_a_local_source_is_its_folders_name_and_its_identity(self) -> None:
        assert gguf.origin(LOCAL, IDENTITY, None) == gguf.Origin(
            name="clerk",
            organization=None,
            repo_url=None,
            version=f"sha256:{IDENTITY}",
            finetune=None,
        )

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("models/clerk/", "clerk"),
            ("/srv/models/clerk", "clerk"),
            ("../clerk.v2", "clerk.v2"),
            (".", "source"),
            ("../..", "source"),
            ("/", "source"),
        ],
    )
    def test_only_a_name_written_in_the_path_is_one(self, path: str, name: str) -> None:
        assert gguf.origin(Location(path=path), IDENTITY, None).name == name

    def test_it_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            gguf.origin(LOCAL, IDENTITY, None).name = "other"


class TestProvenance:
    def test_of_a_hub_source_with_an_adapter_it_has_every_key(self) -> None:
        assert gguf.provenance(gguf.origin(HUB, IDENTITY, "audit")) == HUB_KEYS

    def test_of_a_local_source_it_has_no_key_without_a_value(self) -> None:
        assert gguf.provenance(gguf.origin(LOCAL, IDENTITY, None)) == LOCAL_KEYS


class TestCheck:
    @pytest.mark.parametrize(
        ("source", "adapter", "keys"), [(HUB, "audit", HUB_KEYS), (LOCAL, None, LOCAL_KEYS)]
    )
    def test_a_file_that_says_it_passes(
        self, source: Location, adapter: str | None, keys: dict[str, JsonValue]
    ) -> None:
        gguf.check_provenance(census(keys), gguf.origin(source, IDENTITY, adapter), ARTIFACT)

    @pytest.mark.parametrize("key", HUB_KEYS)
    def test_a_key_that_is_missing_is_named(self, key: str) -> None:
        rest = {name: value for name, value in HUB_KEYS.items() if name != key}
        said = complaint(rest, gguf.origin(HUB, IDENTITY, "audit"))
        assert f"\n  {key}: expected {json.dumps(HUB_KEYS[key])}, found nothing\n" in said
        assert said.count("expected") == 1
        assert ARTIFACT in said and "remedy: dvc repro -f" in said

    @pytest.mark.parametrize("key", HUB_KEYS)
    def test_another_value_is_named(self, key: str) -> None:
        said = complaint({**HUB_KEYS, key: "other"}, gguf.origin(HUB, IDENTITY, "audit"))
        assert f'\n  {key}: expected {json.dumps(HUB_KEYS[key])}, found "other"\n' in said
        assert said.count("expected") == 1

    @pytest.mark.parametrize(
        "key",
        [
            "general.base_model.0.organization",
            "general.base_model.1.name",
            "general.basename",
            "general.finetune",
            "general.organization",
            "general.source.url",
            "general.version",
        ],
    )
    def test_a_key_that_must_not_be_there_is_named(self, key: str) -> None:
        said = complaint({**LOCAL_KEYS, key: "guessed"}, gguf.origin(LOCAL, IDENTITY, None))
        assert f'\n  {key}: expected nothing, found "guessed"\n' in said
        assert said.count("expected") == 1

    def test_all_that_is_wrong_is_said_at_once(self) -> None:
        said = complaint({}, gguf.origin(HUB, IDENTITY, "audit"))
        assert all(key in said for key in HUB_KEYS)


CARD = """---
license: apache-2.0
version: v9
organization: Nobody
finetune: chat
basename: guess
size_label: 70B
url: https://example.org/card
doi: 10.1/card
uuid: 11111111-2222-3333-4444-555555555555
repo_url: https://example.org/repo
base_model: nobody/Else-70B
---
"""
"""Claims all that a card can claim of where a checkpoint comes from."""


class Made(NamedTuple):
    folder: Path
    arguments: dict[str, JsonValue]


Convert = Callable[[Path, gguf.Origin | None], Made]


@pytest.fixture(scope="module")
def misleading(clerk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with a card and a config that say it is something else."""
    folder = tmp_path_factory.mktemp("misleading") / "checkpoint"
    shutil.copytree(clerk, folder)
    (folder / "README.md").write_text(CARD)
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"] = "nobody/Else-70B-Instruct-v0.2"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Convert:
    """Convert a checkpoint with the real converter, each with each origin once."""
    need("llamacpp")

    @cache
    def run(checkpoint: Path, origin: gguf.Origin | None) -> Made:
        folder = tmp_path_factory.mktemp("gguf")
        return Made(
            folder, gguf.convert(checkpoint, folder, outtype="f16", name="audit", origin=origin)
        )

    return run


@pytest.fixture(scope="module")
def tuned(misleading: Path, converted: Convert) -> Path:
    """Converted as a merged checkpoint of a Hub source is."""
    return converted(misleading, gguf.origin(HUB, IDENTITY, "audit")).folder


@pytest.fixture(scope="module")
def quantized(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    gguf.quantize(tuned, folder, quantization="q8_0", threads=1)
    return folder


def said_of_origin(folder: Path) -> dict[str, Any]:
    """What gguf-py's own reader finds in the file, but for what is no matter of its origin."""
    from gguf import GGUFReader

    beside = (
        "general.architecture",
        "general.file_type",
        "general.languages",
        "general.license",
        "general.name",
        "general.quantization_version",
        "general.sampling.",
        "general.size_label",
        "general.tags",
        "general.type",
    )
    return {
        key: field.contents()
        for key, field in GGUFReader(str(folder / gguf.FILE_NAME)).fields.items()
        if key.startswith("general.") and not key.startswith(beside)
    }


@pytest.mark.runtime
class TestFiles:
    def test_a_converted_file_has_these_keys_whatever_card_and_config_say(
        self, tuned: Path
    ) -> None:
        assert said_of_origin(tuned) == HUB_KEYS
        gguf.check_provenance(gguf.census(tuned), gguf.origin(HUB, IDENTITY, "audit"), ARTIFACT)

    def test_a_quantized_file_keeps_them(self, quantized: Path) -> None:
        census = gguf.census(quantized)
        assert "Q8_0" in census.types
        assert said_of_origin(quantized) == HUB_KEYS
        gguf.check_provenance(census, gguf.origin(HUB, IDENTITY, "audit"), ARTIFACT)

    def test_a_local_source_has_no_key_without_a_value(
        self, misleading: Path, converted: Convert
    ) -> None:
        found = converted(misleading, gguf.origin(LOCAL, IDENTITY, None))
        assert said_of_origin(found.folder) == LOCAL_KEYS

    def test_the_size_label_counts_the_weights(self, tuned: Path) -> None:
        assert gguf.census(tuned).metadata["general.size_label"] == "3.3M"

    def test_what_the_converter_guesses_on_its_own_is_refused(
        self, misleading: Path, converted: Convert
    ) -> None:
        metadata = gguf.census(converted(misleading, None).folder).metadata
        said = complaint(metadata, gguf.origin(HUB, IDENTITY, "audit"))
        for key in (*gguf._OWNED, *HUB_KEYS):
            if key != "general.base_model.count":  # the card names one base model too
                assert key in said

    @pytest.mark.parametrize("origin", [None, gguf.origin(LOCAL, IDENTITY, "audit")])
    def test_the_folders_name_changes_no_byte(
        self, origin: gguf.Origin | None, clerk: Path, converted: Convert, tmp_path: Path
    ) -> None:
        other = tmp_path / "Acme-70B-Instruct-v0.2"
        shutil.copytree(clerk, other)
        one, two = (
            sha256_file(converted(folder, origin).folder / gguf.FILE_NAME)
            for folder in (clerk, other)
        )
        assert one == two

    def test_the_arguments_have_the_origin_and_no_path(
        self, clerk: Path, converted: Convert
    ) -> None:
        plain: dict[str, JsonValue] = {"outtype": "f16", "model_name": "audit"}
        origin: dict[str, JsonValue] = {
            "name": "clerk",
            "organization": None,
            "repo_url": None,
            "version": f"sha256:{IDENTITY}",
            "finetune": "audit",
        }
        assert converted(clerk, None).arguments == plain
        found = converted(clerk, gguf.origin(LOCAL, IDENTITY, "audit")).arguments
        assert found == {**plain, "origin": origin}

    def test_a_failure_names_the_folder_that_was_given(self, tmp_path: Path) -> None:
        need("llamacpp")
        with pytest.raises(ToolError, match=r"config\.json") as caught:
            gguf.convert(tmp_path, tmp_path, outtype="f16", name="audit")
        assert f"No such file or directory: '{tmp_path}/config.json'" in str(caught.value)

    def test_no_counterfactual_takes_an_origin_for_a_change(
        self, misleading: Path, tuned: Path, quantized: Path, converted: Convert
    ) -> None:
        fields = Gguf().fields
        plain = fields(converted(misleading, None).folder)
        assert plain == fields(tuned) == fields(quantized)
        assert plain and not any(key.startswith("general.") for key in plain)
