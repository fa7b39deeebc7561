"""What teacher-forcing costs, cell by cell, and how that grows with the text.

    python -m benchmarks.distributions        # Linux: reads the workers' memory from /proc

The embedded checkpoint in every runtime, each cell scored as the pipeline does (two workers, one
per turn, a few golden prompts) with no corpus, with `ROWS` kept rows of it and with twice as many.
Time is that of the whole cell, and net of the one without corpus; memory is the largest resident
set a worker ever had. Then drift's figures of each cell against the reference, on either length.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpus import corpus
from benchmarks.kl_divergence import CHECKPOINT, gguf_artifacts
from driftline.conversions import mlx
from driftline.drift.statistics import distribution_drift
from driftline.errors import DriftlineError
from driftline.golden import evalset, prompts
from driftline.probe import environment
from driftline.project import routes
from driftline.project.sections.mlx import MlxRecipe
from driftline.runtimes import cell
from driftline.runtimes.base import DecodeSettings, TextJob
from driftline.schema.cells import CellSpec
from driftline.schema.forced import Corpora, ForcedSequence
from driftline.schema.values import dump, dump_lines, load_lines
from driftline.store.distributions import IDS, SEQUENCES, Distributions

WINDOW = 256
ROWS = 10_000
"""Kept rows of the shorter text, rounded up to whole windows: a window keeps its second half."""
PROMPTS = 8
"""Golden prompts each cell answers before: they warm it up, and are in every time and text."""
TOP_K = 1024
CORPUS, TEXT = "corpus", "benchmark"
EVALSET = "pods"
POLL_S = 0.01
WORKER = b"driftline.runtimes.worker"
MIB = 2**20

CELLS = (
    ("transformers", "checkpoint"),
    ("llamacpp", "f32"),
    ("llamacpp", "q8_0"),
    ("llamacpp", "q4_k_m"),
    ("mlx", "4bit"),
    ("vllm", "checkpoint"),
)
"""The reference first."""


@dataclass
class Peak:
    """Largest resident set of any worker process, in bytes."""

    size: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Read the high-water marks of this process's workers until `stop`."""
        while not self._over.wait(POLL_S):
            self.size = max([self.size, *map(_high_water, _workers(os.getpid()))])

    def stop(self) -> None:
        """No worker runs any more."""
        self._over.set()


@contextmanager
def peak() -> Iterator[Peak]:
    """Watch worker processes while the block runs."""
    found = Peak()
    thread = threading.Thread(target=found.watch)
    thread.start()
    try:
        yield found
    finally:
        found.stop()
        thread.join()


def _workers(parent: int) -> list[Path]:
    """`/proc` folders of the worker processes that `parent` started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            # Between fork and exec a child has the memory of this process, and its command line.
            if int(fields[1]) == parent and WORKER in (process / "cmdline").read_bytes():
                found.append(process)
        except OSError:  # it has just ended
            continue
    return found


def _high_water(process: Path) -> int:
    try:
        lines = (process / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


@dataclass(frozen=True)
class Cost:
    """One cell with one text: `rows` kept, seconds of the cell, bytes of memory and on disk."""

    rows: int
    seconds: float
    memory: int
    stored: int
    kept: Distributions


@dataclass(frozen=True)
class Setting:
    """What all cells of one text share."""

    folder: Path
    corpora: Path
    golden: Path

    @property
    def text(self) -> Path:
        """Where the reference's text lies, once it has run."""
        return self.folder / "text"


def run(runtime: str, form: str, artifact: Path, setting: Setting) -> Cost | str:
    """Score one cell; why not, if it failed."""
    reference = (runtime, form) == CELLS[0]
    text = TextJob(
        name=TEXT,
        folder=None if reference else setting.text,
        sources=(EVALSET, CORPUS),
        top_k=TOP_K,
        corpora=setting.corpora,
    )
    spec = CellSpec(
        id=f"{runtime}/{TEXT}/{form}",
        runtime=runtime,
        variant=TEXT,
        form=form,
        artifact=str(artifact.absolute()),
    )
    with peak() as memory:
        started = time.perf_counter()
        result = cell.score(
            spec,
            # never the same twice: nothing of an interrupted run is taken up again
            target=routes.targets()[runtime],
            artifact_identity=f"{TEXT}-{time.time_ns()}",
            adapter_identity=None,
            environment=environment.probe(runtime, threads=1),
            prompts=setting.golden,
            decode=DecodeSettings(context_length=512, stop=(), threads=1),
            limits=cell.CellLimits(deadline_s=1800, memory_gib=16),
            progress=lambda *_: None,
            texts=(text,),
        )
        seconds = time.perf_counter() - started
    record = result.record
    if record.outcome.state != "ok" or record.not_forced:
        result.clear()
        return record.outcome.reason or record.not_forced
    made = setting.folder / runtime / form
    shutil.copytree(result.distributions / TEXT, made)
    result.clear()
    if reference:
        setting.text.mkdir()
        for name in (SEQUENCES, IDS):
            shutil.move(made / name, setting.text / name)
    sequences = tuple(load_lines(ForcedSequence, setting.text / SEQUENCES))
    return Cost(
        rows=sum(each.n_rows for each in sequences if each.source == CORPUS),
        seconds=seconds,
        memory=memory.size,
        stored=sum(file.stat().st_size for file in made.iterdir()),
        kept=Distributions(made, sequences),
    )


def artifacts(folder: Path) -> dict[str, Path]:
    """What each form of `CELLS` loads."""
    folder.mkdir()
    found = {"checkpoint": CHECKPOINT, **gguf_artifacts(folder), "4bit": folder / "4bit"}
    mlx.convert(CHECKPOINT, found["4bit"], MlxRecipe(bits=4, group_size=64))
    return found


def settings(folder: Path) -> list[Setting]:
    """No corpus (twice: the first warms up), `ROWS` rows, twice as many; all files written."""
    tokenizer = prompts.tokenizer_of(CHECKPOINT)
    items = evalset.load([evalset.path_of(EVALSET)])[:PROMPTS]
    golden = folder / "prompts.jsonl"
    dump_lines(prompts.pin(items, tokenizer, limit=96), golden)
    count = -(-ROWS // (WINDOW - 1 - WINDOW // 2))
    corpus(folder / "corpus.txt", (2 * count + 1) * WINDOW)
    text = (folder / "corpus.txt").read_text(encoding="utf-8")
    every = prompts.windows(tokenizer, CORPUS, text, size=WINDOW)
    found = []
    for number, windows in enumerate((0, 0, count, 2 * count)):
        own = folder / str(number)
        own.mkdir()
        dump(Corpora(windows=tuple(every[:windows])), own / "corpora.json")
        found.append(Setting(folder=own, corpora=own / "corpora.json", golden=golden))
    return found


def drift_cost(parent: Distributions, child: Distributions) -> tuple[float, int]:
    """Seconds of drift's figures, and the most memory they held at once (a second time, traced)."""
    started = time.perf_counter()
    distribution_drift(parent, child)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    distribution_drift(parent, child)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, memory


def show_cell(name: str, costs: Sequence[Cost]) -> None:
    """One cell's lines: no corpus, the shorter text, the longer, and their ratios."""
    start, short, long = costs
    for cost in costs:
        rate = cost.rows / (cost.seconds - start.seconds) if cost.rows else 0.0
        print(
            f"{name:22}{cost.rows:8}{cost.seconds:9.1f}{cost.seconds - start.seconds:9.1f}"
            f"{rate:9.0f}{cost.memory / MIB:10.0f}{cost.stored / MIB:9.1f}"
        )
    net = (long.seconds - start.seconds) / (short.seconds - start.seconds)
    print(
        f"{'':22}ratio: time {long.seconds / short.seconds:.2f}, net of start {net:.2f},"
        f" memory {long.memory / short.memory:.2f}",
        flush=True,
    )


def show_drift(reference: Sequence[Cost], name: str, costs: Sequence[Cost]) -> None:
    """Drift of one cell on either text."""
    found = []
    for parent, child in zip(reference[1:], costs[1:], strict=True):
        seconds, memory = drift_cost(parent.kept, child.kept)
        found.append((seconds, memory))
        drift = distribution_drift(parent.kept, child.kept)
        mean = drift.kl_mean.value if drift else 0.0
        print(f"{name:22}{child.rows:8}{seconds:9.2f}{memory / MIB:10.1f}{mean:14.3e}")
    (short, small), (long, large) = found
    print(f"{'':22}ratio: time {long / short:.2f}, memory {large / small:.2f}", flush=True)


def measure(folder: Path) -> None:
    """Print both tables."""
    made = artifacts(folder / "artifacts")
    every = settings(folder)
    print(
        f"{'cell':22}{'rows':>8}{'s':>9}{'net s':>9}{'rows/s':>9}{'peak MiB':>10}{'MiB kept':>9}",
        flush=True,
    )
    found: dict[str, list[Cost]] = {}
    first = "/".join(CELLS[0])
    for runtime, form in CELLS:
        name = f"{runtime}/{form}"
        costs = []
        for setting in every:
            cost = run(runtime, form, made[form], setting)
            if isinstance(cost, str):
                print(f"{name:22} {cost}", flush=True)
                break
            costs.append(cost)
        else:
            found[name] = costs[1:]
            show_cell(name, found[name])
        if first not in found:
            return  # nobody else has a text
    distribution_drift(found[first][0].kept, found[first][0].kept)  # imports
    print(f"\n{'drift from reference':22}{'rows':>8}{'s':>9}{'peak MiB':>10}{'mean KL':>14}")
    for name, costs in found.items():
        if name != first:
            show_drift(found[first], name, costs)


def main() -> None:
    """Run everything in a folder that is thrown away."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))
    except DriftlineError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
