from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.conversions.checkpoint_lint import belongs, check, lint, refuse
from driftline.errors import RefusedError
from tests import checkpoints
from tests.checkpoints import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    SHARDS,
    write_index,
    write_json,
    write_weights,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return checkpoints.source(tmp_path / "source")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return checkpoints.sharded(tmp_path / "sharded")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return checkpoints.adapter(tmp_path / "adapter")


def refusal(folder: Path, kind: Any = "source") -> str:
    with pytest.raises(RefusedError) as caught:
        lint(folder, kind)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_whole_checkpoints_pass(source: Path, sharded: Path, adapter: Path) -> None:
    lint(source, "source")
    lint(sharded, "source")
    lint(adapter, "adapter")


def test_harmless_neighbours_pass(source: Path) -> None:
    write_json(source / "golden.json", [1])
    (source / "LICENSE").write_text("Apache", encoding="utf-8")
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool.jinja").write_text("{{ x }}", encoding="utf-8")
    write_json(source / "vocab.json", {"auto_map": 1, "model_file": 2})  # words, not settings
    lint(source, "source")


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin", "model.pt", "consolidated.00.pth", "model.ckpt", "x.pkl", "x.pickle",
        "x.joblib", "weights.npz", "tf_model.h5", "flax_model.msgpack", "MODEL.BIN",
        "old/deep/optimizer.pt",
    ],
)  # fmt: skip
def test_pickles_are_refused_anywhere(source: Path, name: str) -> None:
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes(b"x")
    assert f"- '{name}': pickled" in refusal(source)


@pytest.mark.parametrize(
    "name", ["modeling_x.py", "a/b.pyc", "x.pyd", "libx.so", "libx.so.1.2", "x.dylib", "x.dll"]
)
def test_code_is_refused_anywhere(source: Path, name: str) -> None:
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).write_bytes(b"x")
    assert f"- '{name}': code" in refusal(source)


def test_a_pickle_under_another_name_is_refused(source: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (source / f"notes{protocol}.txt").write_bytes(pickle.dumps({}, protocol))
    with zipfile.ZipFile(source / "archive", "w") as archive:
        archive.writestr("data.pkl", b"x")
    (source / "table").write_bytes(b"\x89HDF\r\n\x1a\n")
    message = refusal(source)
    for name in ("notes2.txt", "notes5.txt", "archive", "table"):
        assert f"- '{name}': begins like a pickle" in message


def test_a_header_length_that_looks_like_a_pickle_passes(source: Path) -> None:
    path = source / "model.safetensors"
    header = json.dumps({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode()
    checkpoints.raw_safetensors(path, header.ljust(0x0280), b"xx")
    assert path.read_bytes().startswith(b"\x80\x02")
    lint(source, "source")


CONFIG_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
DANGERS: dict[str, tuple[Any, str]] = {
    "auto_map": ({"AutoModel": "modeling_x.X"}, "auto_map names code"),
    "model_file": ("evil.txt", "model_file 'evil.txt': mlx-lm would run it"),
    "trust_remote_code": (True, "trust_remote_code is set"),
    "attn_implementation": ("org/kernel", "attn_implementation 'org/kernel': would fetch"),
    "_attn_implementation": ("org/kernel@v1:f", "'org/kernel@v1:f': would fetch"),
    "_attn_implementation_internal": ("paged|o/k", "'paged|o/k': would fetch"),
    "parent_library": ("evil", "parent_library 'evil': PEFT would import it"),
    "megatron_core": ("evil", "megatron_core 'evil': PEFT would import it"),
}


@pytest.mark.parametrize("name", CONFIG_FILES)
@pytest.mark.parametrize("key", DANGERS)
def test_dangerous_settings_are_refused_in_every_config(adapter: Path, name: str, key: str) -> None:
    value, message = DANGERS[key]
    write_json(adapter / name, ADAPTER_CONFIG | {key: value})
    assert f"- '{name}': " in refusal(adapter, "adapter")
    assert message in refusal(adapter, "adapter")


@settings(deadline=None)
@given(key=st.sampled_from(sorted(DANGERS)), path=st.lists(st.sampled_from(["k", 0]), max_size=40))
def test_dangerous_settings_are_found_at_any_depth(
    tmp_path_factory: pytest.TempPathFactory, key: str, path: list[str | int]
) -> None:
    inner: Any = {key: DANGERS[key][0]}
    for step in path:
        inner = {step: inner} if isinstance(step, str) else [inner]
    file = tmp_path_factory.getbasetemp() / "config.json"
    write_json(file, CONFIG | {"text_config": inner})
    found = check({"config.json": file}, "source")
    assert any(DANGERS[key][1] in problem for problem in found)


@pytest.mark.parametrize("depth", [400, 900, 100_000])
def test_nesting_is_no_way_out(source: Path, depth: int) -> None:
    text = '{"attn_implementation":' + '{"a":' * depth + '"org/kernel"' + "}" * depth + "}"
    (source / "config.json").write_text(text, encoding="utf-8")
    assert "'config.json': " in refusal(source)


def test_known_attention_and_harmless_settings_pass(source: Path) -> None:
    for name in ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", None):
        parts = {"attn_implementation": name, "vision_config": {"_attn_implementation": name}}
        write_json(source / "config.json", CONFIG | parts | {"trust_remote_code": False})
        lint(source, "source")
    for name, key in (("eager", "text_config"), ("sdpa", "")):
        write_json(source / "config.json", CONFIG | {"_attn_implementation": {key: name}})
        lint(source, "source")
    per_part = {"_attn_implementation": {"": "sdpa", "text_config": "org/kernel"}}
    write_json(source / "config.json", CONFIG | per_part)
    assert "'org/kernel': would fetch" in refusal(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "not valid JSON: key 'a' is there twice"),
        ('{"a": {"b": 1, "b": 2}}', "not valid JSON: key 'b' is there twice"),
        ('{"a": ', "not valid JSON"),
        ("", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"a": "\udcff"}', "not valid JSON: not UTF-8"),
    ],
)
def test_bad_json_is_refused(source: Path, text: str, message: str) -> None:
    (source / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert f"- 'config.json': {message}" in refusal(source)


def test_data_must_be_json_too(source: Path) -> None:
    (source / "tokenizer.json").write_text('{"model": {}, "model": {}}', encoding="utf-8")
    assert "- 'tokenizer.json': not valid JSON: key 'model' is there twice" in refusal(source)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), "'x': a symlink"),
        (lambda path: path.symlink_to("/etc"), "'x': a symlink"),
        (lambda path: path.symlink_to("nowhere"), "'x': a symlink"),
        (os.mkfifo, "'x': not a plain file"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "'x': not a plain file"),
    ],
)
def test_what_is_not_a_plain_file_is_refused(
    source: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(source)  # a socket's path must be short
    make(Path("x"))
    assert f"- {message}" in refusal(source)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.model", "no tokenizer: neither tokenizer.model nor tokenizer.json"),
        ("model.safetensors", f"no Safetensors weights: neither model.safetensors nor {INDEX}"),
    ],
)
def test_what_a_source_needs(source: Path, removed: str, message: str) -> None:
    (source / removed).unlink()
    assert f"\n  - {message}" in refusal(source)
    assert refusal(source).count("\n  - ") == 1


def test_a_pickle_only_source_says_so(source: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    assert "(only pickled weights: 'pytorch_model.bin')" in refusal(source)


def test_what_an_adapter_needs(adapter: Path) -> None:
    (adapter / "adapter_config.json").unlink()
    (adapter / "adapter_model.safetensors").rename(adapter / "model.safetensors")
    message = refusal(adapter, "adapter")
    assert "- no adapter_config.json" in message
    assert "- no adapter_model.safetensors" in message
    assert "- 'model.safetensors': extra" in message


def test_an_adapter_is_no_source(source: Path) -> None:
    write_json(source / "adapter_config.json", ADAPTER_CONFIG)
    assert "Transformers would load the model it names" in refusal(source)


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / SHARDS[1]).unlink()
    assert f"- '{SHARDS[1]}': missing, named by {INDEX}" in refusal(sharded)


def test_extra_shards(source: Path, sharded: Path) -> None:
    write_weights(sharded / "model-00003-of-00003.safetensors", "more")
    write_weights(sharded / "model.safetensors", "embed")
    message = refusal(sharded)
    assert "- 'model-00003-of-00003.safetensors': extra" in message
    assert "- 'model.safetensors': extra" in message
    write_weights(source / "consolidated.safetensors", "embed")
    assert "- 'consolidated.safetensors': extra" in refusal(source)


def test_tensors_in_the_wrong_shard(sharded: Path) -> None:
    write_index(sharded, {"embed": SHARDS[1], "norm": SHARDS[1], "head": SHARDS[0]})
    message = refusal(sharded)
    assert f"- '{SHARDS[0]}': lacks tensor 'head'" in message
    assert f"- '{SHARDS[0]}': holds a tensor the index does not map to it, 'embed'" in message
    assert f"- '{SHARDS[1]}': lacks tensor 'embed'" in message


def test_many_misplaced_tensors_are_counted(sharded: Path) -> None:
    names = [f"layer.{i}" for i in range(50)]
    write_index(sharded, {"embed": SHARDS[0], **dict.fromkeys(["norm", "head", *names], SHARDS[1])})
    message = refusal(sharded)
    assert message.count("lacks tensor 'layer") == 3
    assert "lacks tensor and 47 more" in message


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ({"weight_map": []}, "no weight_map"),
        ({"weight_map": {}}, "no weight_map"),
        ({"weight_map": {"a": 1}}, "mapped to 1, not to a shard"),
        ({"weight_map": {"a": "../x.safetensors"}}, "'../x.safetensors', not to a shard"),
        ({"weight_map": {"a": "/x.safetensors"}}, "not to a shard"),
        ({"weight_map": {"a": "config.json"}}, "'config.json', not to a shard"),
        ({"weight_map": {"a": "additional_chat_templates/x.jinja"}}, "not to a shard"),
        ({"weight_map": {"a": "\ud800.safetensors"}}, "not to a shard"),
    ],
)
def test_a_malformed_index(sharded: Path, index: Any, message: str) -> None:
    write_json(sharded / INDEX, index)
    assert message in refusal(sharded)


def test_truncated_weights(source: Path, sharded: Path) -> None:
    for folder, name in ((source, "model.safetensors"), (sharded, SHARDS[1])):
        os.truncate(folder / name, (folder / name).stat().st_size - 1)
        assert f"- '{name}': not a whole Safetensors file: its tensors end" in refusal(folder)


def test_weights_without_a_tensor(source: Path) -> None:
    checkpoints.raw_safetensors(source / "model.safetensors", {})
    assert "no tensor in any Safetensors file" in refusal(source)


def test_everything_wrong_is_said_at_once(source: Path) -> None:
    write_json(source / "config.json", CONFIG | {"auto_map": {}, "model_file": "x"})
    (source / "x.py").touch()
    (source / "x.bin").touch()
    (source / "link").symlink_to("x.py")
    os.truncate(source / "model.safetensors", 5)
    (source / "tokenizer.model").unlink()
    message = refusal(source)
    assert message.count("\n  - ") == 7
    assert "remedy: " in message


def test_a_long_report_is_capped_to_a_screen(source: Path) -> None:
    for i in range(300):
        (source / f"{i}.py").touch()
    message = refusal(source)
    assert message.count("\n") < 25
    assert "- and 280 more" in message


def test_hostile_names_are_escaped(source: Path) -> None:
    (source / "\x1b[31m\n::error::.py").touch()
    message = refusal(source)
    assert "\x1b" not in message
    assert "\n::" not in message


def test_no_problem_is_no_refusal() -> None:
    refuse("somewhere", [])


def test_every_file_of_a_pin_belongs(source: Path, sharded: Path) -> None:
    assert {path.name for path in source.iterdir() if not belongs(path.name)} == {
        ".git",
        "README.md",
    }
    assert all(belongs(name) for name in (INDEX, *SHARDS, "additional_chat_templates/rag.jinja"))
    for name in ("x/config.json", "../config.json", ".x.safetensors", "a/model.safetensors",
                 "additional_chat_templates/../x.jinja", "x.safetensors\n"):  # fmt: skip
        assert not belongs(name)


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'safetensors', 'huggingface_hub'}"
    code = f"import driftline.conversions.checkpoint_lint, sys; print({heavy} & set(sys.modules))"
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
