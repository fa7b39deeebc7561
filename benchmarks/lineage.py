"""Auditing at scale: verify, compare and graph queries over generated records.

    python -m benchmarks.lineage [ARTIFACTS …]       default: 1000 10000; five cells an artifact

Records are generated, sealed and committed to a git repository of their own: families of a source,
two adapters, merged checkpoints, GGUFs and MLX folders, each artifact with five cells of twenty
items. The second commit changes one adapter in a hundred and everything made from it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from driftline.compare.comparison import compare
from driftline.evidence import chain, history
from driftline.schema.artifacts import (
    ArtifactRecord,
    Census,
    Facts,
    FileDigest,
    Parent,
    Reference,
    TensorDigest,
)
from driftline.schema.cells import CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.hops import Hop
from driftline.schema.lineage import (
    EvalsetEvidence,
    HopEvidence,
    ItemDigest,
    ItemEvidence,
    LineageIndex,
)
from driftline.schema.statistics import Estimate, PairedScores
from driftline.schema.values import Sealed, canonical, canonical_json, sealed
from driftline.store import digest
from driftline.verify import audit as audits
from driftline.verify.hashes import folder_md5

CELLS_EACH = 5
ITEMS = 20
FAMILY = 10
"""Artifacts that descend from one source."""
RUNTIMES = ("transformers", "llamacpp", "mlx", "vllm", "ollama")
CHANGED_EVERY = 100
ENVIRONMENT = canonical_json({"runtime": "any", "distributions": {}, "machine": "x86_64"})
DECODE: dict[str, JsonValue] = {"max_new_tokens": 96, "stop": []}
SETTINGS: dict[str, JsonValue] = {"threads": 1}


class Evidence:
    """Files of one commit by path, made record by record."""

    def __init__(self, artifacts: int, changed: bool) -> None:
        """Generate evidence of `artifacts` artifacts and `CELLS_EACH` cells each."""
        self.files: dict[str, bytes] = {}
        self._changed = changed
        self._lock = ["schema: '2.0'\nstages:\n"]
        self._hops: list[HopEvidence] = []
        self._environment = digest.sha256_text(ENVIRONMENT)
        self.files[f"environments/{self._environment}.json"] = ENVIRONMENT.encode()
        for family in range(artifacts // FAMILY):
            self._family(family)
        self.files["evalsets/items.jsonl"] = self._lines(
            ItemDigest(id=f"item-{n}", sha256=_sha("item", n), prompt_sha256=_sha("prompt", n))
            for n in range(ITEMS)
        )
        self.files["index.json"] = self._index()
        for name in ("prompts", "evalset", "grades", "drift"):
            self._stage(name, name)
        keys = {path: _md5(data) for path, data in self.files.items()}
        size = sum(map(len, self.files.values()))
        self._lock.append(_out("lineage", "reports/lineage", folder_md5(keys), size, len(keys)))
        self.files = {f"{history.FOLDER}/{path}": data for path, data in self.files.items()}
        self.files["dvc.lock"] = "".join(self._lock).encode()

    def _stage(self, name: str, out: str, *read: str) -> None:
        """An entry of dvc.lock: one stage, one folder, what it read."""
        made = _out(name, f"artifacts/{out}", f"{_md5(out.encode())}.dir", 9000, 2)
        deps = "".join(
            f"    - path: artifacts/{each}\n      hash: md5\n      md5: {_md5(each.encode())}.dir\n"
            "      size: 9000\n      nfiles: 2\n"
            for each in read
        )
        self._lock.append(made + (f"    deps:\n{deps}" if deps else ""))

    def _family(self, number: int) -> None:
        salt = "again" if self._changed and number % CHANGED_EVERY == 0 else ""
        name = "base" if number == 0 else f"base-{number}"
        source = self._artifact(f"checkpoints/{name}", "source", "pin", (), "")
        parent = self._artifact(f"adapters/a{number}", "adapter", "pin", (), salt)
        merged = self._artifact(f"checkpoints/a{number}", "merged", "merge", (source, parent), salt)
        full = self._artifact(f"mlx/a{number}/float32", "mlx", "convert", (merged,), salt)
        made = [source, parent, merged, full]
        for form in range(FAMILY - len(made)):
            made.append(
                self._artifact(f"mlx/a{number}/recipe-{form}", "mlx", "convert", (merged,), salt)
            )
        for artifact in made:
            for runtime in RUNTIMES[:CELLS_EACH]:
                self._cell(artifact, runtime)

    def _artifact(
        self,
        name: str,
        kind: Any,
        conversion: Any,
        parents: tuple[ArtifactRecord, ...],
        salt: str,
    ) -> ArtifactRecord:
        tensors = self._lines(
            TensorDigest(
                file="model.safetensors",
                name=f"layer.{n}.weight",
                dtype="F32",
                shape=(256, 256),
                sha256=_sha(name, salt, n),
            )
            for n in range(20)
        )
        metadata = {f"config.json:field_{n}": str(n) for n in range(20)}
        files = (
            FileDigest(path="config.json", size=900, sha256=_sha(name, "config")),
            FileDigest(path="model.safetensors", size=10**9, sha256=_sha(name, salt, "weights")),
        )
        record = sealed(
            ArtifactRecord(
                name=name,
                kind=kind,
                conversion=conversion,
                identity=digest.identity(files),
                files=files,
                parents=tuple(Parent(name=each.name, identity=each.identity) for each in parents),
                command=f"python -m driftline.stages.{conversion} {name}",
                tool="tool",
                tool_version="1.2.3",
                code_sha256=_sha("code"),
                environment_sha256=self._environment,
                arguments={"dtype": "float32"},
                census=Census(
                    types={"F32": 20},
                    elements={"F32": 20 * 65536},
                    tensors=20,
                    weights=20 * 65536,
                    bits_per_weight=32.0,
                ),
                facts=Facts(
                    tensors_sha256=digest.sha256_text(tensors.decode()),
                    metadata_sha256=digest.sha256_text(canonical_json(metadata)),
                    tokenizer_sha256=_sha("tokenizer"),
                    template_sha256=_sha("template"),
                    metadata=metadata,
                ),
            )
        )
        self._stage(f"make-{name}", name, *(each.name for each in parents))
        self._stage(f"record-{name}", f"records/{name}")
        self.files[f"artifacts/{name}/record.json"] = _dump(record)
        self.files[f"artifacts/{name}/tensors.jsonl"] = tensors
        return record

    def _cell(self, artifact: ArtifactRecord, runtime: str) -> None:
        kind, variant, *rest = artifact.name.split("/")
        form = f"{kind}-{rest[0]}" if rest else kind
        name = f"{runtime}/{variant}/{form}"
        spec = CellSpec(
            id=name,
            runtime=runtime,
            variant=variant,
            form=form,
            artifact=f"artifacts/{artifact.name}",
        )
        record = sealed(
            CellRecord(
                cell=spec,
                outcome=Outcome(state="ok"),
                artifact_identity=artifact.identity,
                adapter_identity=None,
                inputs=(Reference(name=artifact.name, identity=artifact.identity),),
                prompts_sha256=_sha("prompts"),
                completions_sha256=_sha(artifact.identity, runtime),
                outputs=(
                    FileDigest(
                        path="completions.jsonl", size=9000, sha256=_sha(artifact.identity, runtime)
                    ),
                ),
                floor=NoiseFloor(items=ITEMS, different=(), max_logprob_difference=0.0),
                decode=DECODE,
                code_sha256=_sha("code"),
                environment_sha256=self._environment,
                build={"version": "1.0"},
                settings=SETTINGS,
            )
        )
        self._stage(f"score-{name}", f"cells/{name}", artifact.name)
        self.files[f"cells/{name}/cell.json"] = _dump(record)
        self.files[f"cells/{name}/items.jsonl"] = self._lines(
            ItemEvidence(
                key=f"items/item-{n}",
                state="correct" if (n + len(artifact.identity)) % 7 else "wrong",
                score=1.0,
                output_sha256=_sha(artifact.identity, runtime, n),
                text_sha256=_sha("text", n),
                rows=30,
                kl=(n % 5) * 1e-3 + int(artifact.identity[:2], 16) * 1e-7,
            )
            for n in range(ITEMS)
        )
        if name != "transformers/base/checkpoints":
            self._hops.append(_hop(name))

    def _index(self) -> bytes:
        rows = tuple(
            FileDigest(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in sorted(self.files.items(), key=lambda entry: entry[0].encode())
        )
        evalset = hashlib.sha256(self.files["evalsets/items.jsonl"]).hexdigest()
        params = json.loads(PARAMS)
        return _dump(
            sealed(
                LineageIndex(
                    driftline="0.1.0",
                    params=params,
                    code={"merge": _sha("code")},
                    corpora={},
                    evalsets=(EvalsetEvidence(name="items", sha256=evalset, items=ITEMS),),
                    hops=tuple(self._hops),
                    findings=(),
                    drift_identity=_sha("drift"),
                    files=rows,
                )
            )
        )

    @staticmethod
    def _lines(values: Any) -> bytes:
        return "".join(canonical(value) + "\n" for value in values).encode()


PARAMS = canonical_json(
    {
        "source": {"path": "models/base"},
        "adapters": {},
        "variants": ["base"],
        "evalsets": {"base": ["items"]},
        "merge": {"dtype": "float32"},
        "gguf": {"outtype": "f32", "quantizations": []},
        "mlx": {"artifacts": [], "recipes": {}},
        "vllm": [],
        "decode": {"max_new_tokens": 96, "context_length": 512, "stop": []},
        "distributions": {"top_k": 64, "corpora": {}},
        "limits": {"threads": 1},
    }
)


def _hop(child: str) -> HopEvidence:
    estimate = Estimate(value=2e-3, se=1e-4, low=1.8e-3, high=2.2e-3)
    return HopEvidence(
        hop=Hop(parent="transformers/base/checkpoints", child=child, kind="convert"),
        compared=True,
        reason="",
        items=ITEMS,
        same_sequence=ITEMS,
        worse=(),
        better=(),
        kl=estimate,
        answers_kl=estimate,
        weights_kl=estimate,
        numerics_kl=estimate,
        scores=PairedScores(
            items=ITEMS, worse=0, better=0, mcnemar_p=1.0, holm_p=1.0, difference=estimate
        ),
        withheld="",
        summary="changes no answer",
    )


def _sha(*parts: object) -> str:
    return digest.sha256_text("/".join(map(str, parts)))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _out(stage: str, path: str, md5: str, size: int, nfiles: int) -> str:
    return (
        f"  {stage}:\n    cmd: make\n    outs:\n    - path: {path}\n      hash: md5\n"
        f"      md5: {md5}{'' if md5.endswith('.dir') else '.dir'}\n"
        f"      size: {size}\n      nfiles: {nfiles}\n"
    )


def _dump(value: Sealed) -> bytes:
    data = json.dumps(value.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, indent=1)
    return f"{data}\n".encode()


# ---------------------------------------------------------------------------------- measuring


def commit(files: dict[str, bytes], message: str) -> None:
    """Commit `files` with git fast-import: no loose objects."""
    process = subprocess.Popen(["git", "fast-import", "--quiet"], stdin=subprocess.PIPE)
    if process.stdin is None:
        raise ValueError("git fast-import was started without a pipe")
    head = "commit refs/heads/main\ncommitter bench <bench> 0 +0000\n"
    process.stdin.write(f"{head}data {len(message)}\n{message}\n".encode())
    if message != "one":
        process.stdin.write(b"from refs/heads/main^0\n")
    for path, data in files.items():
        process.stdin.write(f"M 100644 inline {path}\n".encode())
        process.stdin.write(f"data {len(data)}\n".encode() + data + b"\n")
    process.stdin.close()
    if process.wait():
        raise RuntimeError("git fast-import failed")


@contextlib.contextmanager
def repository(artifacts: int) -> Iterator[None]:
    """A git repository with two commits of evidence, checked out at the second."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            subprocess.run(["git", "init", "-q", "-b", "main", "."], check=True)
            commit(Evidence(artifacts, changed=False).files, "one")
            commit(Evidence(artifacts, changed=True).files, "two")
            subprocess.run(["git", "reset", "-q", "--hard", "main"], check=True)
            gc.collect()
            yield
        finally:
            os.chdir(before)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, which other work on the machine does not change, and result."""
    gc.collect()
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def measure(artifacts: int) -> dict[str, float]:
    """Seconds of each kind of question over `artifacts` artifacts."""
    seconds = {}
    with repository(artifacts):
        seconds["verify"], audit = timed(audits.verify)
        if audit.problems:
            raise RuntimeError(str(audit.problems[0]))
        seconds["compare"], report = timed(
            lambda: compare(history.at("main~1"), history.at("main"))
        )
        print(
            f"  compare: {len(report.inputs)} inputs changed, {len(report.cells)} cells with them"
        )
        seconds["read evidence"], evidence = timed(lambda: history.at("main"))
        some = [f"checkpoints/a{n}" for n in range(0, artifacts // FAMILY, 7)]
        took, _ = timed(lambda: [chain.descendants(evidence, name) for name in some[:20]])
        seconds["descendants of one"] = took / len(some[:20])
        took, _ = timed(lambda: [chain.ancestors(evidence, name) for name in some])
        seconds["ancestors of one"] = took / len(some)
    return seconds


def main() -> None:
    """Measure and print a table."""
    sizes = [int(word) for word in sys.argv[1:]] or [1000, 10000]
    results = {}
    for size in sizes:
        print(f"{size} artifacts, {size * CELLS_EACH} cells")
        results[size] = measure(size)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  peak memory so far {peak:.0f} MiB")
    names = list(results[sizes[0]])
    print(f"{'CPU seconds':22}" + "".join(f"{size:>12}" for size in sizes) + f"{'growth':>10}")
    for name in names:
        row = [results[size][name] for size in sizes]
        growth = row[-1] / row[0] if row[0] else float("nan")
        print(f"{name:22}" + "".join(f"{value:12.4f}" for value in row) + f"{growth:9.1f}x")


if __name__ == "__main__":
    main()
