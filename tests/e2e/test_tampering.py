"""Every way of tampering we could think of: named by `driftline verify`, refused by who reads it.

`CASES` is the table: `python -m pytest tests/e2e/test_tampering.py -s` prints it, docs/verify.md
shows it. With DRIFTLINE_FOLLOW_EVERY_REMEDY the printed remedies of all rows are followed (minutes
more), not just those of every kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from driftline.commands.verify import verify as command
from driftline.errors import RefusedError
from driftline.evidence import history
from driftline.schema.values import canonical_json, dump, sealed
from driftline.store import digest, facts, records
from tests import projects
from tests.conftest import need
from tests.paths import ROOT
from tests.projects import Project

pytestmark = pytest.mark.e2e

EVIDENCE = "evidence"
"""Stands for a stage: whoever reads the evidence, `driftline compare` among others."""


@dataclass(frozen=True)
class Tampering:
    """One row of the table.

    `how` is done in a project's folder; `says` is what `driftline verify` prints, `stage` the one
    it names, `shallow` whether it does so without --deep. `refused` is the stage that reads the
    object next, `because` what it answers. `restored`: the printed remedies are followed.
    """

    name: str
    how: Callable[[Project], None]
    says: tuple[str, ...]
    stage: str
    refused: str = ""
    because: str = ""
    shallow: bool = False
    problems: int = 1
    restored: bool = False

    @property
    def row(self) -> str:
        """Of the table in the documentation."""
        level = "always" if self.shallow else "--deep"
        return f"| {self.name} | {level} | `{self.stage or '–'}` | {_shown(self.refused)} |"


def _shown(refused: str) -> str:
    if refused == EVIDENCE:
        return "whoever reads evidence"
    return f"`{refused}`" if refused else "–"


# ---------------------------------------------------------------------------------------- tools


def rewrite(path: str | Path, data: bytes) -> None:
    """Other bytes in a file of the same mode, and in no other link to it: see `project`."""
    file = Path(path)
    made = file.with_name(f"{file.name}.new")
    made.write_bytes(data)
    made.chmod(file.stat().st_mode)
    made.replace(file)


def flip(path: str | Path, at: int = -1) -> None:
    """Change one bit of one byte."""
    data = bytearray(Path(path).read_bytes())
    data[at] ^= 1
    rewrite(path, bytes(data))


def put(path: str | Path, before: str | bytes, after: str | bytes) -> None:
    """Replace the first `before` in a file."""
    file = Path(path)
    old, new = (each.encode() if isinstance(each, str) else each for each in (before, after))
    data = file.read_bytes()
    assert old in data and old != new, f"{before!r} is not in {path}"
    rewrite(file, data.replace(old, new, 1))


def reseal(path: str | Path, **changes: Any) -> None:
    """Change fields of a record, and give it the seal that fits."""
    file = Path(path)
    data = {**json.loads(file.read_text()), **changes}
    content = {key: value for key, value in data.items() if key != "seal"}
    data["seal"] = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    file.write_text(json.dumps(data, sort_keys=True, ensure_ascii=False, indent=1) + "\n")


def reseal_manifest(folder: str) -> None:
    """Make a manifest fit the folder as it is now."""
    path = Path(folder) / "manifest.json"
    rows = [row.model_dump() for row in digest.rows(Path(folder), but=("manifest.json",))]
    reseal(path, files=rows)


def swap(one: str, other: str) -> None:
    shutil.move(one, f"{one}.aside")
    shutil.move(other, one)
    shutil.move(f"{one}.aside", other)


def lock() -> Any:
    return yaml.safe_load(Path("dvc.lock").read_text())


def lock_entry(data: Any, stage: str, path: str, which: str = "outs") -> Any:
    return next(each for each in data["stages"][stage][which] if each["path"] == path)


def relock(data: Any) -> None:
    Path("dvc.lock").write_text(yaml.safe_dump(data, sort_keys=False))


def oid(stage: str, path: str, inside: str = "") -> str:
    """DVC's name of an out, or of a file in it."""
    name: str = lock_entry(lock(), stage, path)["md5"]
    if not inside:
        return name
    listed = json.loads(cached(name).read_text())
    found: str = next(each["md5"] for each in listed if each["relpath"] == inside)
    return found


def cached(name: str, top: str = ".dvc/cache") -> Path:
    return Path(top, "files", "md5", name[:2], name[2:])


def edit(path: str, before: str, after: str) -> Callable[[Project], None]:
    return lambda project: put(path, before, after)


def flipped(path: str, at: int = -1) -> Callable[[Project], None]:
    return lambda project: flip(path, at)


def outside(path: str) -> Path:
    """Move something out of the project, and leave a link to it."""
    kept = Path.cwd().parent / f"{Path.cwd().name}-outside"
    kept.mkdir(exist_ok=True)
    target = kept / Path(path).name
    shutil.move(path, target)
    Path(path).symlink_to(target)
    return target


# ------------------------------------------------------------------------------------ tamperings

CHECKPOINT, BASE = "artifacts/checkpoints/audit", "artifacts/checkpoints/base"
F32, Q8, MLX = "artifacts/gguf/audit/f32", "artifacts/gguf/audit/q8_0", "artifacts/mlx/audit/4bit"
ADAPTER = "artifacts/adapters/audit"
RECORD = "artifacts/records/gguf/audit/q8_0/record.json"
CELL = "artifacts/cells/llamacpp/audit/q8_0"
WEIGHED = "artifacts/counterfactuals/gguf/audit/q8_0"
LINEAGE = "reports/lineage"
OLD, NEW = b"llama.rope.freq_base\x06\x00\x00\x00\x00\x40\x1cF", b"\x00\x50\x1cF"


def rope_base(project: Project) -> None:
    put(f"{Q8}/model.gguf", OLD, OLD[:-4] + NEW)


def extra_file(project: Project) -> None:
    Path(MLX, "modeling_clerk.py").write_text("print('hello')\n")


def linked_file(project: Project) -> None:
    outside(f"{CHECKPOINT}/tokenizer.model")


def linked_folder(project: Project) -> None:
    outside(Q8)


def swapped(project: Project) -> None:
    swap(F32, Q8)


def swapped_with_records(project: Project) -> None:
    swap(F32, Q8)
    swap("artifacts/records/gguf/audit/f32", "artifacts/records/gguf/audit/q8_0")


def other_argument(project: Project) -> None:
    reseal(RECORD, arguments={"ftype": "q8_0", "ftype_value": 8})


def other_identity(project: Project) -> None:
    reseal(RECORD, identity="ab" * 32)


def forged_artifact(project: Project) -> None:
    """Another artifact, and a record that fits it in every respect."""
    flip(f"{Q8}/model.gguf")
    name = "gguf/audit/q8_0"
    before = records.read(name)
    files = digest.rows(records.ARTIFACTS / name)
    found, tensors = facts.of_artifact(records.ARTIFACTS / name, files)
    said = {"files": files, "identity": digest.identity(files), "facts": found}
    dump(sealed(before.model_copy(update=said)), records.path_of(name))
    (records.RECORDS / name / "tensors.jsonl").write_text(facts.listing(tensors))


def no_record(project: Project) -> None:
    shutil.rmtree("artifacts/records/checkpoints/audit")


def other_artifact_ran(project: Project) -> None:
    reseal(f"{CELL}/cell.json", artifact_identity="ab" * 32)


def other_outcome(project: Project) -> None:
    outcome = json.loads(Path(CELL, "cell.json").read_text())["outcome"]
    reseal(f"{CELL}/cell.json", outcome={**outcome, "state": "unstable", "reason": "so I say"})


def copied_cell(project: Project) -> None:
    shutil.rmtree(CELL)
    shutil.copytree("artifacts/cells/llamacpp/audit/f32", CELL)


def no_cell_record(project: Project) -> None:
    Path(CELL, "cell.json").unlink()


def other_prompts(project: Project) -> None:
    """Another id in a prompt, and a manifest that fits."""
    put("artifacts/prompts/audit.jsonl", "[1,4,727,", "[1,4,726,")
    reseal_manifest("artifacts/prompts")


def other_counterfactual(project: Project) -> None:
    reseal(f"{WEIGHED}/record.json", reason="so I say")


def other_control(project: Project) -> None:
    reseal("artifacts/controls/gguf.json", tensors=21)


def other_drift(project: Project) -> None:
    put("artifacts/drift/drift.json", '"n_items": 3', '"n_items": 4')
    reseal_manifest("artifacts/drift")


def other_environment(project: Project) -> None:
    put("artifacts/records/gguf/audit/q8_0/environment.json", '"python": "3.', '"python": "4.')


def resealed_evidence(project: Project) -> None:
    path = f"{LINEAGE}/artifacts/gguf/audit/q8_0/record.json"
    reseal(path, identity="ab" * 32)


def forged_evidence(project: Project) -> None:
    """An edited record, with an index that fits it: nothing in the evidence contradicts itself."""
    path = f"{LINEAGE}/artifacts/gguf/audit/q8_0/record.json"
    reseal(path, tool_version="llama-cpp-python 0.3.37 (vendored llama.cpp)")
    rows = [row.model_dump() for row in digest.rows(Path(LINEAGE), but=("index.json",))]
    reseal(f"{LINEAGE}/index.json", files=rows)


def deleted_evidence(project: Project) -> None:
    Path(LINEAGE, "cells/mlx/audit/4bit/items.jsonl").unlink()


def added_evidence(project: Project) -> None:
    Path(LINEAGE, "cells/mlx/audit/4bit/notes.txt").write_text("fine\n")


def edited_environment(project: Project) -> None:
    path = next(Path(LINEAGE, "environments").glob("*.json"))
    put(path, '"python": "3.', '"python": "4.')


def swapped_in_the_lock(project: Project) -> None:
    data = lock()
    one = lock_entry(data, "quantize@audit-q8_0", Q8)
    other = lock_entry(data, "convert_gguf@audit", F32)
    one.update(md5=other["md5"], size=other["size"])
    relock(data)
    shutil.rmtree(Q8)
    assert project.dvc("checkout", Q8).code == 0


def other_md5(project: Project) -> None:
    data = lock()
    entry = lock_entry(data, "quantize@audit-q8_0", Q8)
    entry["md5"] = f"{'0' * 32}.dir"
    relock(data)


def other_size(project: Project) -> None:
    data = lock()
    lock_entry(data, "quantize@audit-q8_0", Q8)["size"] += 1
    relock(data)


def other_dep(project: Project) -> None:
    data = lock()
    lock_entry(data, "score_quantized@audit-q8_0", Q8, "deps")["md5"] = f"{'0' * 32}.dir"
    relock(data)


def other_file_dep(project: Project) -> None:
    data = lock()
    path = "artifacts/prompts/audit.jsonl"
    lock_entry(data, "score_quantized@audit-q8_0", path, "deps")["md5"] = "0" * 32
    relock(data)


def cut_lock(project: Project) -> None:
    data = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(data[: data.rindex(b"md5: ") + 9])


def short_lock(project: Project) -> None:
    data = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(data[: data.index("\n  grade:") + 1])


def flipped_object(project: Project) -> None:
    flip(cached(oid("quantize@audit-q8_0", Q8, "model.gguf")))


def served_from_the_cache(project: Project) -> None:
    flipped_object(project)
    shutil.rmtree(Q8)
    assert project.dvc("checkout", Q8).code == 0


def flipped_everywhere(project: Project) -> None:
    """The same byte in workspace and cache, as on a disk that DVC links to."""
    flipped_object(project)
    flip(f"{Q8}/model.gguf")


def flipped_listing(project: Project) -> None:
    flip(cached(oid("quantize@audit-q8_0", Q8)))


def flipped_listing_of_a_cell(project: Project) -> None:
    put(cached(oid(SCORE, CELL)), "completions.jsonl", "completions.json1")


def object_of_no_commit(project: Project) -> None:
    path = cached("0123456789abcdef0123456789abcdef")
    path.parent.mkdir(exist_ok=True)
    path.write_text("not this\n")
    path.chmod(0o444)


def pushed(project: Project) -> Path:
    """A remote that has everything."""
    remote = Path.cwd().parent / f"{Path.cwd().name}-remote"
    assert project.dvc("remote", "add", "-q", "-d", "store", str(remote)).code == 0
    assert project.dvc("push", "-q").code == 0
    return remote


def flipped_in_the_remote(project: Project) -> None:
    flip(cached(oid("quantize@audit-q8_0", Q8, "model.gguf"), str(pushed(project))))


def flipped_listing_in_the_remote(project: Project) -> None:
    flip(cached(oid("quantize@audit-q8_0", Q8), str(pushed(project))))


def lost_in_the_remote(project: Project) -> None:
    cached(oid("quantize@audit-q8_0", Q8, "model.gguf"), str(pushed(project))).unlink()


def pulled_from_the_remote(project: Project) -> None:
    """Nothing but what git has, and then a pull from a remote with one wrong byte."""
    flipped_in_the_remote(project)
    shutil.rmtree(".dvc/cache")
    for path in Path("artifacts").iterdir():
        if path.is_dir() and path.name not in ("env", "code", "locations", "tasks", "attempts"):
            shutil.rmtree(path)
    assert project.dvc("pull", "-q").code == 0


def whole_in_the_remote(project: Project) -> None:
    pushed(project)
    flipped_everywhere(project)


W, E, L, C = "workspace:", "evidence:", "dvc.lock:", "cache: .dvc/cache/files/md5/"
MERGE, PIN, QUANTIZE = "merge@audit", "pin_source", "quantize@audit-q8_0"
SCORE = "score_quantized@audit-q8_0"

CASES = (
    Tampering(
        "one byte of a checkpoint's weights",
        flipped(f"{CHECKPOINT}/model.safetensors"),
        (
            f"changed  {W} {CHECKPOINT}/model.safetensors\n",
            "weights: 1 of 38 tensors are others: model.norm.weight\n",
            "template, tokenizer, config: as recorded",
        ),
        MERGE,
        "convert_gguf audit",
        "changed  model.safetensors",
        restored=True,
    ),
    Tampering(
        "safetensors header, its tensors kept",
        edit(f"{BASE}/model.safetensors", '{"format":"pt"}', '{"format":"np"}'),
        (
            f"changed  {W} {BASE}/model.safetensors\n",
            "weights: all 38 tensors are as recorded\n",
            'config: model.safetensors:format "pt" → "np"\n',
        ),
        PIN,
        "merge audit",
        "changed  model.safetensors",
    ),
    Tampering(
        "one tensor of a GGUF, its metadata kept",
        flipped(f"{F32}/model.gguf"),
        (
            f"changed  {W} {F32}/model.gguf\n",
            "weights: 1 of 38 tensors are others: ",
            "template, tokenizer, config: as recorded",
        ),
        "convert_gguf@audit",
        "quantize audit q8_0",
        "changed  model.gguf",
    ),
    Tampering(
        "a GGUF's rope base, its tensors kept",
        rope_base,
        (
            f"changed  {W} {Q8}/model.gguf\n",
            "weights: all 38 tensors are as recorded\n",
            "config: llama.rope.freq_base 10000.0 → 10004.0\n",
        ),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "changed  model.gguf",
    ),
    Tampering(
        "a GGUF's chat template, its tensors kept",
        edit(f"{F32}/model.gguf", "<|assistant|>' }}", "<|assistent|>' }}"),
        (
            f"changed  {W} {F32}/model.gguf\n",
            "weights: all 38 tensors are as recorded\n",
            "template: tokenizer.chat_template 195 characters, sha256 ",
        ),
        "convert_gguf@audit",
        "counterfactual llamacpp audit f32",
        "changed  model.gguf",
    ),
    Tampering(
        "tokenizer.model alone",
        flipped(f"{CHECKPOINT}/tokenizer.model", 1000),
        (
            f"changed  {W} {CHECKPOINT}/tokenizer.model\n",
            "weights: all 38 tensors are as recorded\n",
            "tokenizer: tokenizer.model sha256 ",
        ),
        MERGE,
        "convert_mlx audit 4bit",
        "changed  tokenizer.model",
    ),
    Tampering(
        "chat_template.jinja alone",
        edit(f"{BASE}/chat_template.jinja", "<|end|>", "<|END|>"),
        (
            f"changed  {W} {BASE}/chat_template.jinja\n",
            "weights: all 38 tensors are as recorded\n",
            "template: chat_template.jinja sha256 ",
        ),
        PIN,
        "prompts",
        "changed  chat_template.jinja",
    ),
    Tampering(
        "config.json alone",
        edit(f"{BASE}/config.json", '"rms_norm_eps": 1e-05', '"rms_norm_eps": 1e-06'),
        (
            f"changed  {W} {BASE}/config.json\n",
            "weights: all 38 tensors are as recorded\n",
            "config: config.json:rms_norm_eps 1e-05 → 1e-06\n",
        ),
        PIN,
        "control",
        "changed  config.json",
    ),
    Tampering(
        "generation_config.json alone",
        edit(f"{BASE}/generation_config.json", '"do_sample": false', '"do_sample": true'),
        (
            f"changed  {W} {BASE}/generation_config.json\n",
            "config: generation_config.json:do_sample false → true\n",
        ),
        PIN,
        "score transformers base checkpoint",
        "changed  generation_config.json",
        shallow=True,
    ),
    Tampering(
        "an adapter's lora_alpha",
        edit(f"{ADAPTER}/adapter_config.json", '"lora_alpha": 16', '"lora_alpha": 32'),
        (
            f"changed  {W} {ADAPTER}/adapter_config.json\n",
            "weights: all 56 tensors are as recorded\n",
            "config: adapter_config.json:lora_alpha 16 → 32\n",
        ),
        "pin_adapter@audit",
        "score transformers audit attached",
        "changed  adapter_config.json",
    ),
    Tampering(
        "a tensor of an adapter",
        flipped(f"{ADAPTER}/adapter_model.safetensors"),
        (
            f"changed  {W} {ADAPTER}/adapter_model.safetensors\n",
            "weights: 1 of 56 tensors are others: ",
            "lora_",
        ),
        "pin_adapter@audit",
        "merge audit",
        "changed  adapter_model.safetensors",
    ),
    Tampering(
        "a file more in an artifact",
        extra_file,
        (f"extra    {W} {MLX}/modeling_clerk.py\n", "weights: all 96 tensors are as recorded\n"),
        "convert_mlx@audit-4bit",
        "score mlx audit 4bit",
        "extra    modeling_clerk.py",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "a file less in an artifact",
        lambda project: Path(MLX, "tokenizer.json").unlink(),
        (f"missing  {W} {MLX}/tokenizer.json\n",),
        "convert_mlx@audit-4bit",
        "counterfactual mlx audit 4bit",
        "missing  tokenizer.json",
        shallow=True,
    ),
    Tampering(
        "a link out of the tree, to the same bytes",
        linked_file,
        (f"refused  {W} {CHECKPOINT}/tokenizer.model\n", "is a symlink"),
        MERGE,
        "counterfactual merged audit",
        "tokenizer.model: is a symlink",
        shallow=True,
    ),
    Tampering(
        "an artifact's folder as a link",
        linked_folder,
        (f"refused  {W} {Q8}\n", "is a symlink"),
        QUANTIZE,
        "score llamacpp audit q8_0",
        f"{Q8}: is a symlink",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "two artifacts swapped",
        swapped,
        (
            f"changed  {W} {F32}/model.gguf\n",
            f"changed  {W} {Q8}/model.gguf\n",
            "weights: 29 of 38",
        ),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "changed  model.gguf",
        shallow=True,
        problems=2,
    ),
    Tampering(
        "two artifacts swapped, and their records",
        swapped_with_records,
        (
            f"changed  {W} {F32}/model.gguf\n",
            f"changed  {W} {Q8}/model.gguf\n",
            f"changed  {W} artifacts/records/gguf/audit/f32\n",
            f"changed  {W} artifacts/records/gguf/audit/q8_0\n",
            "edited   record.json: other arguments, census, ",
        ),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "is the record of gguf/audit/f32, expected that of gguf/audit/q8_0",
        shallow=True,
        problems=4,
    ),
    Tampering(
        "a record's argument",
        edit(RECORD, '"ftype_value": 7', '"ftype_value": 8'),
        (f"edited   {W} {RECORD}\n", "other arguments; its seal does not fit"),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "the record was edited",
        shallow=True,
    ),
    Tampering(
        "a record's argument, sealed again",
        other_argument,
        (f"edited   {W} {RECORD}\n", "other arguments; sealed again"),
        QUANTIZE,
        shallow=True,
        restored=True,
    ),
    Tampering(
        "a record's identity, sealed again",
        other_identity,
        (f"edited   {W} {RECORD}\n", "other identity; sealed again"),
        QUANTIZE,
        "counterfactual llamacpp audit q8_0",
        "does not follow from its files",
        shallow=True,
    ),
    Tampering(
        "an artifact, with a record that fits it",
        forged_artifact,
        (
            "edited   record.json: other facts, files, identity; sealed again",
            f"changed  {W} {Q8}/model.gguf\n",
            "weights: 1 of 38 tensors are others: ",
        ),
        QUANTIZE,
        "grade",
        "llamacpp/audit/q8_0 was made from gguf/audit/q8_0",
        shallow=True,
        problems=2,
        restored=True,
    ),
    Tampering(
        "the record of a parent missing",
        no_record,
        (f"missing  {W} artifacts/records/checkpoints/audit/record.json\n",),
        MERGE,
        "convert_gguf audit",
        "record.json: missing, though artifacts/checkpoints/audit is here",
        shallow=True,
    ),
    Tampering(
        "a record's tensors.jsonl",
        edit(RECORD.replace("record.json", "tensors.jsonl"), '"dtype":"F32"', '"dtype":"F16"'),
        (f"changed  {W} artifacts/records/gguf/audit/q8_0/tensors.jsonl\n",),
        QUANTIZE,
        "lineage",
        "tensors.jsonl: sha256",
        shallow=True,
    ),
    Tampering(
        "a record's environment",
        other_environment,
        (f"changed  {W} artifacts/records/gguf/audit/q8_0/environment.json\n",),
        QUANTIZE,
        "lineage",
        "environment.json: sha256",
        shallow=True,
    ),
    Tampering(
        "an answer of a cell",
        edit(f"{CELL}/completions.jsonl", "invoices", "Invoices"),
        (f"changed  {W} {CELL}/completions.jsonl\n",),
        SCORE,
        "grade",
        "changed  completions.jsonl",
        restored=True,
    ),
    Tampering(
        "one byte of a cell's distributions",
        flipped(f"{CELL}/distributions/audit/logits.npy"),
        (f"changed  {W} {CELL}/distributions/audit/logits.npy\n",),
        SCORE,
        "drift",
        "changed  distributions/audit/logits.npy",
    ),
    Tampering(
        "a cell's outcome",
        edit(f"{CELL}/cell.json", '"state": "ok"', '"state": "error"'),
        (f"edited   {W} {CELL}/cell.json\n", "other outcome; its seal does not fit"),
        SCORE,
        "grade",
        "the record was edited",
        shallow=True,
    ),
    Tampering(
        "a cell's outcome, sealed again",
        other_outcome,
        (f"edited   {W} {CELL}/cell.json\n", "other outcome; sealed again"),
        SCORE,
        "drift",
        "grades was made from cells/llamacpp/audit/q8_0",
        shallow=True,
    ),
    Tampering(
        "the artifact a cell says it ran, sealed again",
        other_artifact_ran,
        (f"edited   {W} {CELL}/cell.json\n", "other artifact_identity; sealed again"),
        SCORE,
        "grade",
        "llamacpp/audit/q8_0 was made from gguf/audit/q8_0 abababababab…",
        shallow=True,
    ),
    Tampering(
        "a cell copied over another",
        copied_cell,
        (f"changed  {W} {CELL}\n", "edited   cell.json: other ", "changed  completions.jsonl"),
        SCORE,
        "grade",
        "is the record of llamacpp/audit/f32, expected that of llamacpp/audit/q8_0",
        shallow=True,
    ),
    Tampering(
        "the record of a cell missing",
        no_cell_record,
        (f"missing  {W} {CELL}/cell.json\n",),
        SCORE,
        "grade",
        "cell.json: missing",
        shallow=True,
    ),
    Tampering(
        "one id of a pinned prompt",
        edit("artifacts/prompts/audit.jsonl", "[1,4,727,", "[1,4,726,"),
        (f"changed  {W} artifacts/prompts/audit.jsonl\n",),
        "prompts",
        "score llamacpp audit f32",
        "artifacts/prompts/audit.jsonl: sha256",
        shallow=True,
    ),
    Tampering(
        "one id of a pinned prompt, the manifest sealed again",
        other_prompts,
        ("artifacts/prompts",),
        "prompts",
        "score llamacpp audit f32",
        "texts/audit was made from prompts/audit.jsonl",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "the teacher-forced text",
        edit("artifacts/texts/audit/sequences.jsonl", '"target":2', '"target":3'),
        (f"changed  {W} artifacts/texts/audit/sequences.jsonl\n",),
        "score_attached@audit",
        "counterfactual llamacpp audit q8_0",
        "changed  sequences.jsonl",
    ),
    Tampering(
        "a golden prompt's reference",
        edit("artifacts/evalset/items.jsonl", "'Oslo'", "'Bonn'"),
        (f"changed  {W} artifacts/evalset/items.jsonl\n",),
        "prompts",
        "grade",
        "changed  items.jsonl",
    ),
    Tampering(
        "a score",
        edit("artifacts/grades/scores.jsonl", '"score":1.0', '"score":0.5'),
        (f"changed  {W} artifacts/grades/scores.jsonl\n",),
        "grade",
        "drift",
        "changed  scores.jsonl",
    ),
    Tampering(
        "the drift",
        edit("artifacts/drift/drift.json", '"n_items": 3', '"n_items": 4'),
        (f"changed  {W} artifacts/drift/drift.json\n",),
        "drift",
        "report",
        "changed  drift.json",
    ),
    Tampering(
        "the drift, its manifest sealed again",
        other_drift,
        (f"changed  {W} artifacts/drift\n", "not the drift that reports/lineage is of"),
        "drift",
        shallow=True,
    ),
    Tampering(
        "a counterfactual's record",
        edit(f"{WEIGHED}/record.json", '"trusted": true', '"trusted": false'),
        (f"edited   {W} {WEIGHED}/record.json\n", "its seal is "),
        "counterfactual_quantized@audit-q8_0",
        "drift",
        "the record was edited",
        shallow=True,
    ),
    Tampering(
        "a counterfactual's record, sealed again",
        other_counterfactual,
        (WEIGHED,),
        "counterfactual_quantized@audit-q8_0",
        "report",
        "drift was made from counterfactuals/gguf/audit/q8_0",
        shallow=True,
    ),
    Tampering(
        "one byte of a counterfactual's distributions",
        flipped(f"{WEIGHED}/distributions/audit/logits.npy"),
        (f"changed  {W} {WEIGHED}/distributions/audit/logits.npy\n",),
        "counterfactual_quantized@audit-q8_0",
        "drift",
        f"{WEIGHED}/distributions/audit/logits.npy: sha256",
    ),
    Tampering(
        "a loader's control",
        edit("artifacts/controls/gguf.json", '"trusted": true', '"trusted": false'),
        (f"edited   {W} artifacts/controls/gguf.json\n", "its seal is "),
        "control",
        "counterfactual llamacpp audit q8_0",
        "the record was edited",
        shallow=True,
    ),
    Tampering(
        "a loader's control, sealed again",
        other_control,
        (f"changed  {W} artifacts/controls/gguf.json\n", "md5 "),
        "control",
    ),
    Tampering(
        "a report",
        edit("reports/lineage.md", "llamacpp", "LLAMACPP"),
        (f"changed  {W} reports/lineage.md\n", "md5 "),
        "report",
        restored=True,
    ),
    Tampering(
        "what the probe found installed",
        edit("artifacts/env/llamacpp.json", '"python": "3.', '"python": "4.'),
        (f"changed  {W} artifacts/env\n", "md5 "),
        "probe/dvc.yaml:probe",
        restored=True,
    ),
    Tampering(
        "an evidence record",
        edit(f"{LINEAGE}/artifacts/gguf/audit/q8_0/record.json", '"F32": 9', '"F32": 8'),
        (f"edited   {E} {LINEAGE}/artifacts/gguf/audit/q8_0/record.json\n", "its seal is "),
        "lineage",
        EVIDENCE,
        "edited   artifacts/gguf/audit/q8_0/record.json",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "an evidence record, sealed again",
        resealed_evidence,
        (f"changed  {E} {LINEAGE}/artifacts/gguf/audit/q8_0/record.json\n", "sha256 "),
        "lineage",
        EVIDENCE,
        "changed  artifacts/gguf/audit/q8_0/record.json",
        shallow=True,
    ),
    Tampering(
        "an evidence record, sealed again, and the index with it",
        forged_evidence,
        (
            f"edited   {E} {LINEAGE}\n",
            "not what its stage left in artifacts/records/gguf/audit/q8_0\n",
        ),
        "lineage",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "the index of the evidence",
        edit(f"{LINEAGE}/index.json", '"driftline": "', '"driftline": "9'),
        (f"edited   {E} {LINEAGE}/index.json\n", "its seal is "),
        "lineage",
        EVIDENCE,
        "edited   index.json",
        shallow=True,
    ),
    Tampering(
        "scores in the evidence",
        edit(f"{LINEAGE}/cells/llamacpp/audit/q8_0/items.jsonl", '"score":1.0', '"score":0.0'),
        (f"changed  {E} {LINEAGE}/cells/llamacpp/audit/q8_0/items.jsonl\n",),
        "lineage",
        EVIDENCE,
        "changed  cells/llamacpp/audit/q8_0/items.jsonl",
        shallow=True,
    ),
    Tampering(
        "an evidence file deleted",
        deleted_evidence,
        (f"missing  {E} {LINEAGE}/cells/mlx/audit/4bit/items.jsonl\n",),
        "lineage",
        EVIDENCE,
        "missing  cells/mlx/audit/4bit/items.jsonl",
        shallow=True,
    ),
    Tampering(
        "an evidence file added",
        added_evidence,
        (f"extra    {E} {LINEAGE}/cells/mlx/audit/4bit/notes.txt\n",),
        "lineage",
        EVIDENCE,
        "extra    cells/mlx/audit/4bit/notes.txt",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "an environment in the evidence",
        edited_environment,
        (f"changed  {E} {LINEAGE}/environments/",),
        "lineage",
        EVIDENCE,
        "changed  environments/",
        shallow=True,
    ),
    Tampering(
        "an md5 in dvc.lock swapped for another artifact's, checked out",
        swapped_in_the_lock,
        (f"changed  {W} {Q8}/model.gguf\n", "weights: 29 of 38 tensors are others: "),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "changed  model.gguf",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "an md5 in dvc.lock",
        other_md5,
        (f"changed  {L} {Q8}\n", f"md5 {'0' * 32}.dir"),
        QUANTIZE,
        shallow=True,
        restored=True,
    ),
    Tampering(
        "a size in dvc.lock",
        other_size,
        (f"changed  {L} {Q8}\n", "3580129 bytes"),
        QUANTIZE,
        shallow=True,
        restored=True,
    ),
    Tampering(
        "what a stage read, in dvc.lock",
        other_dep,
        (f"changed  {L} {Q8}\n", f"stage {SCORE} read md5 {'0' * 32}.dir"),
        SCORE,
        shallow=True,
    ),
    Tampering(
        "which file a stage read, in dvc.lock",
        other_file_dep,
        (f"changed  {L} artifacts/prompts/audit.jsonl\n", f"read by stage {SCORE}: md5 {'0' * 32}"),
        SCORE,
    ),
    Tampering(
        "dvc.lock cut off",
        cut_lock,
        (f"broken   {L} dvc.lock\n", "not a DVC lock file"),
        "",
        shallow=True,
        restored=True,
    ),
    Tampering(
        "dvc.lock cut off between two stages",
        short_lock,
        (f"missing  {L} dvc.lock\n", "no entry for artifacts/grades, artifacts/drift, "),
        "",
        shallow=True,
    ),
    Tampering(
        "one byte in the cache, the workspace whole",
        flipped_object,
        (f"changed  {C}", f"it is {Q8}/model.gguf\n"),
        QUANTIZE,
        restored=True,
    ),
    Tampering(
        "one byte in the cache, checked out",
        served_from_the_cache,
        (f"changed  {C}", f"it is {Q8}/model.gguf\n", f"changed  {W} {Q8}/model.gguf\n"),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "changed  model.gguf",
        problems=2,
        restored=True,
    ),
    Tampering(
        "the same byte in cache and workspace",
        flipped_everywhere,
        (f"changed  {C}", f"it is {Q8}/model.gguf\n", f"changed  {W} {Q8}/model.gguf\n"),
        QUANTIZE,
        "counterfactual llamacpp audit q8_0",
        "changed  model.gguf",
        problems=2,
    ),
    Tampering(
        "the same byte in cache and workspace, a remote whole",
        whole_in_the_remote,
        (f"changed  {C}", f"it is {Q8}/model.gguf\n", f"changed  {W} {Q8}/model.gguf\n"),
        QUANTIZE,
        problems=2,
        restored=True,
    ),
    Tampering(
        "a folder's listing in the cache",
        flipped_listing,
        (f"changed  {C}", f"it is {Q8}\n"),
        QUANTIZE,
        restored=True,
    ),
    Tampering(
        "a folder's listing in the cache, still readable",
        flipped_listing_of_a_cell,
        (f"changed  {C}", f"it is {CELL}\n"),
        SCORE,
    ),
    Tampering(
        "an object in the cache that this commit does not use",
        object_of_no_commit,
        (f"changed  {C}01/23456789abcdef", "this commit does not use it\n"),
        "",
        restored=True,
    ),
    Tampering(
        "one byte in a remote",
        flipped_in_the_remote,
        ("changed  remote store: ", f"it is {Q8}/model.gguf\n"),
        QUANTIZE,
        restored=True,
    ),
    Tampering(
        "a folder's listing in a remote",
        flipped_listing_in_the_remote,
        ("changed  remote store: ", f"it is {Q8}\n"),
        QUANTIZE,
        restored=True,
    ),
    Tampering(
        "a file of a folder deleted in a remote",
        lost_in_the_remote,
        ("missing  remote store: ", f"a listing that names it is there; it is {Q8}/model.gguf\n"),
        QUANTIZE,
        restored=True,
    ),
    Tampering(
        "one byte in a remote, pulled into an empty clone",
        pulled_from_the_remote,
        (f"changed  {C}", "changed  remote store: ", f"changed  {W} {Q8}/model.gguf\n"),
        QUANTIZE,
        "score llamacpp audit q8_0",
        "changed  model.gguf",
        problems=3,
        restored=True,
    ),
)


# ------------------------------------------------------------------------------------- the tests


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project with an adapter, committed; nothing ever changes it."""
    need("llamacpp")
    need("mlx")
    made = projects.create(
        tmp_path_factory.mktemp("tampering") / "project",
        items=projects.ITEMS[:3],
        adapters={"audit": {"path": "models/adapters/audit"}},
        variants=["audit"],
        evalsets={"base": ["small"], "audit": ["small"]},
        vllm=["audit"],  # no environment of its own in this project: its cell is skipped
        distributions={"top_k": 64, "corpora": {}},
    )
    adapter = "models/adapters/audit"
    shutil.copytree(ROOT / adapter, made.folder / adapter)
    (made.folder / ".gitignore").write_text(".driftline/\n__pycache__/\n")
    done = made.repro()
    assert done.code == 0, done.output
    for arguments in (
        ("config", "user.name", "Somebody"),
        ("config", "user.email", "somebody@example.org"),
        ("add", "--all"),
        ("commit", "--quiet", "--message", "a run"),
    ):
        subprocess.run(["git", *arguments], cwd=made.folder, check=True)
    return made


@pytest.fixture(scope="module")
def whole(template: Project) -> dict[str, str]:
    """sha256 of everything in the project that its pipeline wrote."""
    return content(template.folder)


@pytest.fixture
def project(
    template: Project,
    whole: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """A copy of its own, and the working directory in it.

    Model files are links, so that a copy takes a moment: whatever changes one must write another.
    """
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "project"
    shutil.copytree(template.folder, folder, symlinks=True, copy_function=link_or_copy)
    monkeypatch.chdir(folder)
    yield Project(folder)
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(folder)


def link_or_copy(source: str, target: str) -> None:
    big = Path(source).stat().st_size > 1_000_000
    (os.link if big else shutil.copy2)(source, target)


def content(folder: Path) -> dict[str, str]:
    """sha256 by path of what stages wrote: the probe's files, which say what is here, left out."""
    tops = ("artifacts", "reports", "dvc.lock")
    probed = tuple(
        f"artifacts/{name}/" for name in ("env", "code", "locations", "tasks", "attempts")
    )
    found = {}
    for path in sorted(each for top in tops for each in (folder / top, *(folder / top).rglob("*"))):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(probed):
            found[name] = "a link" if path.is_symlink() else digest.sha256_file(path)
    return found


@dataclass(frozen=True)
class Said:
    """What `driftline verify` printed."""

    code: int
    output: str

    @property
    def problems(self) -> int:
        found = re.search(r"^(\d+) problems?; looked at: ", self.output, re.MULTILINE)
        assert found, self.output
        return int(found[1])

    @property
    def remedies(self) -> list[str]:
        found = re.findall(r"^ +remedy: (.*)$", self.output, re.MULTILINE)
        return list(dict.fromkeys(found))


def verify(*arguments: str) -> Said:
    """`driftline verify` where we are, in this process: most of half a second is imports."""
    done = CliRunner().invoke(command, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return Said(done.exit_code, done.output)


def consume(project: Project, what: str) -> tuple[int, str]:
    """Run the stage that reads next, or read the evidence: exit code, and what it said."""
    if what == EVIDENCE:
        with pytest.raises(RefusedError) as caught:
            history.at(None)
        return caught.value.exit_code, str(caught.value)
    done = project.stage(*what.split())
    return done.returncode, done.stdout + done.stderr


def follow(remedies: list[str]) -> None:
    """Do literally what was printed, from top to bottom."""
    for remedy in remedies:
        done = subprocess.run(
            ["bash", "-c", remedy],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{remedy}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_it_is_named_and_refused(case: Tampering, project: Project, whole: dict[str, str]) -> None:
    case.how(project)
    found = verify()
    assert found.code == (3 if case.shallow else 0), found.output
    deep = verify("--deep")
    assert deep.code == 3
    for text in case.says:
        assert text in deep.output, deep.output
    assert deep.problems == case.problems, deep.output
    assert f"made by stage {case.stage}\n" in deep.output or not case.stage, deep.output
    assert deep.output.count("remedy: ") == len(deep.remedies), "one remedy is printed once"
    if case.refused:
        code, said = consume(project, case.refused)
        assert code == 3 and case.because in said, said
        assert said.startswith("refused: ") and "Traceback" not in said
    if case.restored or os.environ.get("DRIFTLINE_FOLLOW_EVERY_REMEDY"):
        follow(deep.remedies)
        again = verify("--deep")
        assert again.code == 0, f"{deep.output}\nthen\n{again.output}"
        assert "objects of this commit" not in again.output, "some are not in the remote"
        assert content(project.folder) == whole


def test_the_table_is_in_the_documentation() -> None:
    table = "\n".join(case.row for case in CASES)
    print(f"\n{table}")
    assert table in (ROOT / "docs" / "verify.md").read_text()


def test_a_clone_with_nothing_but_what_git_has_is_sound_and_says_what_it_lacks(
    template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", template.folder, clone], check=True)
    monkeypatch.chdir(clone)
    for arguments in ((), ("--deep",)):
        found = verify(*arguments)
        assert (found.code, found.problems) == (0, 0), found.output
        said = re.search(r"note +(\d+) of (\d+) outputs are not here", found.output)
        outs = [out["path"] for stage in lock()["stages"].values() for out in stage["outs"]]
        gone = [path for path in outs if path.startswith("artifacts/")]
        assert said and [int(each) for each in said.groups()] == [len(gone), len(outs)]
    edit(f"{LINEAGE}/index.json", '"driftline": "', '"driftline": "9')(Project(clone))
    found = verify()
    assert (found.code, found.problems) == (3, 1), found.output
    follow(found.remedies)
    assert verify().code == 0


def test_a_remote_that_is_not_known_is_bad_input(project: Project) -> None:
    assert project.dvc("remote", "add", "-q", "store", "../nowhere").code == 0
    found = CliRunner().invoke(command, ["--remote", "stor"])
    assert found.exit_code == 2
    assert 'no DVC remote "stor" (did you mean "store"?)' in found.output
    empty = verify("--remote", "store")
    assert empty.code == 0 and "remote store has none of the " in empty.output


def test_a_cell_that_was_skipped_is_evidence_like_any_other(project: Project) -> None:
    path = "artifacts/cells/vllm/audit/checkpoint/cell.json"
    assert json.loads(Path(path).read_text())["outcome"]["state"] == "skipped"
    put(path, "is not installed", "is not wanted")
    found = verify()
    assert (found.code, found.problems) == (3, 1)
    assert f"edited   workspace: {path}\n" in found.output
    assert "made by stage score_vllm@audit\n" in found.output


def test_nothing_of_this_reached_the_project_it_was_copied_from(
    template: Project, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(template.folder)
    done = template.driftline("verify", "--deep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 problems" in done.stdout and not done.stderr
    assert "no DVC remote: what is here is nowhere else" in done.stdout
    assert content(template.folder) == whole
