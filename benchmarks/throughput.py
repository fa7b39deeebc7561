"""Tokens per second of a cell against a bare loop over the same runtime, in one run.

    python -m benchmarks.throughput            # all four, as ratios
    make bench

A *cell* is what the worker does per prompt: rendering, tokenizing, greedy decoding with
log-probabilities, detokenizing and writing the journal line. The *bare loop* is the shortest code
that gives the same tokens from ready prompt ids: no text, no log-probabilities, nothing written.
Both run alternately in one process over one loaded model, three times; the best of each counts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from driftline.probe import environment as environments
from driftline.project import routes
from driftline.runtimes import registry
from driftline.runtimes.base import DecodeSettings, Job, Runtime
from driftline.runtimes.worker import JournalEntry
from driftline.schema.answers import PinnedPrompt
from driftline.schema.values import canonical, load, load_lines

ROUNDS = 3
PROMPTS = 24
ARTIFACTS = {
    "transformers": Path("artifacts/checkpoints/audit"),
    "llamacpp": Path("artifacts/gguf/audit/f32"),
    "mlx": Path("artifacts/mlx/audit/4bit"),
    "vllm": Path("artifacts/checkpoints/audit"),
}
Bare = Callable[[Any, Sequence[int], int], int]
"""(runtime, prompt ids, tokens to generate) → tokens generated."""


def bare_transformers(runtime: Any, ids: Sequence[int], count: int) -> int:
    """The key-value-cache loop of every tutorial."""
    import torch

    cache, given = None, torch.tensor([list(ids)])
    with torch.inference_mode():
        for _ in range(count):
            out = runtime._model(input_ids=given, past_key_values=cache, use_cache=True)
            cache, given = out.past_key_values, out.logits[:, -1:].argmax(-1)
            given.item()
    return count


def bare_llamacpp(runtime: Any, ids: Sequence[int], count: int) -> int:
    """`Llama.eval` and an argmax."""
    import llama_cpp
    import numpy as np

    llama, given = runtime._llama, list(ids)
    llama.reset()
    for _ in range(count):
        llama.eval(given)
        row = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        given = [int(np.ctypeslib.as_array(row, shape=(runtime._n_vocab,)).argmax())]
    return count


def bare_mlx(runtime: Any, ids: Sequence[int], count: int) -> int:
    """`mlx_lm`'s `generate_step` with its defaults."""
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    return sum(1 for _ in generate_step(mx.array(list(ids)), runtime._model, max_tokens=count))


def bare_vllm(runtime: Any, ids: Sequence[int], count: int) -> int:
    """`LLM.generate` on ids, greedy, exactly `count` tokens."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=False)
    runtime._llm.generate({"prompt_token_ids": list(ids)}, sampling, use_tqdm=False)
    return count


BARE: dict[str, Bare] = {
    "transformers": bare_transformers,
    "llamacpp": bare_llamacpp,
    "mlx": bare_mlx,
    "vllm": bare_vllm,
}


def cell(runtime: Runtime, prompts: Sequence[PinnedPrompt], journal: Path) -> tuple[int, float]:
    """(tokens, seconds) of what the worker does."""
    tokens, started = 0, time.perf_counter()
    with journal.open("w", encoding="utf-8") as lines:
        for prompt in prompts:
            completion = runtime.generate(prompt)
            lines.write(canonical(JournalEntry(completion=completion)) + "\n")
            lines.flush()
            tokens += len(completion.output_ids)
    return tokens, time.perf_counter() - started


def measure(job_file: Path) -> None:
    """Run in the runtime's own interpreter; prints one JSON line."""
    job = load(Job, job_file)
    runtime = registry.resolve(job.target)(job)
    prompts = list(load_lines(PinnedPrompt, job.prompts))
    answers = [runtime.generate(prompt) for prompt in prompts]  # warms up, and counts the tokens
    bare = BARE[job.runtime]
    cell_rate = bare_rate = 0.0
    for _ in range(ROUNDS):
        tokens, seconds = cell(runtime, prompts, job.journal)
        cell_rate = max(cell_rate, tokens / seconds)
        started = time.perf_counter()
        made = sum(bare(runtime, found.prompt_ids, len(found.output_ids)) for found in answers)
        bare_rate = max(bare_rate, made / (time.perf_counter() - started))
    print(json.dumps({"runtime": job.runtime, "cell": cell_rate, "bare": bare_rate}), flush=True)


def run(name: str, folder: Path) -> dict[str, Any]:
    """Measure one runtime in a process of its interpreter."""
    from driftline.evidence.scored import pinned
    from driftline.runtimes import sandbox
    from driftline.schema.values import dump, dump_lines

    chats = [prompt for prompt in pinned().values() if prompt.evalset in ("audit", "pods")]
    dump_lines(chats[:: len(chats) // PROMPTS][:PROMPTS], folder / "prompts.jsonl")
    job = Job(
        runtime=name,
        target=routes.targets()[name],
        artifact=ARTIFACTS[name].absolute(),
        adapter=None,
        prompts=folder / "prompts.jsonl",
        turn=1,
        journal=folder / "journal.jsonl",
        decode=DecodeSettings(context_length=512, stop=(), threads=1),
    )
    dump(job, folder / "job.json")
    software = environments.software_of(name)
    python = registry.interpreter(name, software)
    if python is None:
        return {"runtime": name, "missing": software.install}
    environment = sandbox.environment(
        threads=1,
        cache=folder,
        temporary=folder,
        code=Path(__file__).resolve().parents[1] / "pipeline",
        extra=software.environment,
    )
    done = subprocess.run(
        [str(python), "-m", "benchmarks.throughput", str(folder / "job.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Print the ratios."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    print(f"{'runtime':14}{'cell tok/s':>12}{'bare tok/s':>12}{'ratio':>8}")
    for name in routes.targets():
        with tempfile.TemporaryDirectory() as folder:
            found = run(name, Path(folder))
        if "missing" in found:
            print(f"{name:14} not installed: {found['missing']}")
            continue
        ratio = found["cell"] / found["bare"]
        print(f"{name:14}{found['cell']:12.0f}{found['bare']:12.0f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
