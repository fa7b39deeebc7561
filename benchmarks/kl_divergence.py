"""Our drift statistics against `llama-perplexity --kl-divergence`: same models, windows and rows.

    python -m benchmarks.llama_perplexity_build    # once
    python -m benchmarks.kl_divergence             # exit code 1 if a figure is further off

The embedded checkpoint as F32 GGUF is the base, its Q8_0 and Q4_K_M the other models. What the tool
may be off by follows from its base file alone (`benchmarks.llama_perplexity`): each ln p(base) is
rounded to a step s, so it is at most s / 2 off, independently, by s / sqrt(12) in the mean square.
Therefore, on top of the last digit printed:

- a mean: 5 standard deviations of the mean of these errors, and all that ids left out of KL add;
- a percentile: what it moves if every row is off by all it can be, upwards or downwards;
- a standard error: that of rows that are nothing but their errors (triangle inequality).

A target more than 16 nats below the maximum is raised to that in the file, which is no small error:
figures marked * are compared with ours on rows raised likewise. `perplexity_exact` is what the tool
prints before it rounds, and compared as it is.

Then what either way costs, for base and one quantization: wall time and bytes on disk.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import llama_perplexity, llama_perplexity_build
from benchmarks.corpus import corpus
from benchmarks.llama_perplexity import ToolResult, Windows
from driftline.conversions import gguf
from driftline.drift.statistics import PERCENTILES, RowSample, compare, summarize
from driftline.errors import ToolError
from driftline.golden import prompts
from driftline.project import routes
from driftline.runtimes import forced
from driftline.runtimes.base import DecodeSettings, Job, TextJob
from driftline.runtimes.llamacpp import LlamaCppRuntime
from driftline.schema.forced import ForcedSequence
from driftline.schema.statistics import Estimate
from driftline.schema.values import dump_lines
from driftline.store.distributions import Chunk, Distributions

Floats = NDArray[np.float64]

CHECKPOINT = Path("models/clerk")
BASE = "f32"
OTHERS = ("q8_0", "q4_k_m")
CONTEXT = 256
TOKENS = 20_000
NAME = "text"
"""What the text is called among a text's sources."""
WHOLE = 1 << 20
"""A `top_k` that no vocabulary exceeds."""
NARROW = 64
ROUNDS = 3
"""Every time measured is the best of so many."""

SIGMAS = 5
FLOAT32 = 4e-6
"""Noise of one ln p in the tool's float32 arithmetic: a few units in the last place of 16 to 32."""
LEFT_OUT = -16.0
"""The tool's KL has no id whose ln p(base) is lower."""
RAISED = ("perplexity_parent", "ln_perplexity_ratio", "correlation", "delta_p")
"""How the figures begin that the tool reads from targets of its base file."""
PRINTED = {"correlation": 5e-5, "perplexity_exact": 5e-5, "delta_p": 5e-6, "top1": 5e-6}
"""Half a unit of the last digit printed, by how a figure's name begins; else 5e-7."""


@dataclass(frozen=True)
class Rounding:
    """What the tool's base file does to each row; all [rows], in nats.

    `kl_sigma` and `target_sigma` are standard deviations of the errors of the row's KL and of ln p
    of its target, `kl_bound` and `target_bound` the most they can be, `kl_lost` what ids left out
    of KL contribute, `target_raised` by how much the target's ln p is raised before it is rounded.
    `tied` is 1 where the most likely id is so close to the second that either may be taken for it,
    else 0.
    """

    kl_sigma: Floats
    kl_bound: Floats
    kl_lost: Floats
    target_sigma: Floats
    target_bound: Floats
    target_raised: Floats
    tied: Floats


def rounding(parent: Chunk, child: Chunk) -> Rounding:
    """Errors of the tool's rows, from distributions over the whole vocabulary."""
    logits, p, q = parent.logits.astype(np.float64), parent.log_probs, child.log_probs
    top = logits.max(1)
    least = np.maximum(logits.min(1), top - 16)
    step = (top - least) / 65535
    kept = p > LEFT_OUT + step[:, None]
    # KL is the sum of p (ln p - ln q): its derivative by ln p. The top id has no error.
    slope = np.where(kept & (logits < top[:, None]), np.exp(p) * np.abs(1 + p - q), 0.0)
    lost = np.where(kept, 0.0, np.exp(p) * np.abs(p - q)).sum(1)
    target = parent.rows["target_logit"].astype(np.float64)
    raised, rounded = np.maximum(least - target, 0.0), target < top
    return Rounding(
        kl_sigma=step / math.sqrt(12) * np.sqrt((slope**2).sum(1)),
        kl_bound=step / 2 * slope.sum(1) + lost + FLOAT32,
        kl_lost=lost,
        target_sigma=step / math.sqrt(12) * rounded,
        target_bound=step / 2 * rounded + FLOAT32,
        target_raised=raised,
        tied=((parent.margin < step) | (child.margin < FLOAT32)).astype(np.float64),
    )


def roundings(parent: Distributions, child: Distributions) -> Rounding:
    """`rounding` of every row, in the parent's order."""
    keys = [sequence.key for sequence in parent.sequences]
    both = zip(parent.chunks(keys), child.chunks(keys), strict=True)
    found = [vars(rounding(before, after)) for (_, before), (_, after) in both]
    return Rounding(**{name: np.concatenate([each[name] for each in found]) for name in found[0]})


def figures(sample: RowSample, errors: Rounding) -> dict[str, float]:
    """Our values of the tool's figures (fields of `ToolResult`), `RAISED` ones as it has them."""
    exact = summarize(sample).perplexity_parent
    sample = replace(sample, parent_log_p=sample.parent_log_p + errors.target_raised)
    drift = summarize(sample)
    correlation = np.corrcoef(sample.parent_log_p, sample.child_log_p)[0, 1]
    found = {"correlation": float(correlation)}
    for name in (
        "perplexity_parent",
        "perplexity_child",
        "ln_perplexity_ratio",
        "kl_mean",
        "delta_p_mean",
        "delta_p_rms",
        "top1_agreement",
    ):
        estimate: Estimate = getattr(drift, name)
        found |= {name: estimate.value, f"{name}_se": estimate.se}
    found["perplexity_exact"] = exact.value if exact else math.nan
    # Not all percentiles of KL are part of a drift; those that are must be these.
    for rank, fraction in PERCENTILES.items():
        own = getattr(drift, f"kl_{rank}", None)
        found[f"kl_{rank}"] = float(np.quantile(sample.kl, fraction)) if own is None else own
        found[f"delta_p_{rank}"] = drift.delta_p_percentiles[rank]
    return found


def allowances(ours: dict[str, float], sample: RowSample, errors: Rounding) -> dict[str, float]:
    """How far the tool may be from each of `ours`, apart from the last digit it prints."""
    log_p = sample.parent_log_p + errors.target_raised
    p, q = np.exp(log_p), np.exp(sample.child_log_p)
    moved = p * errors.target_bound + q * FLOAT32
    squares = 2 * np.abs(q - p) * moved + moved**2
    none = np.zeros_like(p)
    base, base_se = _mean(errors.target_sigma, none), _se(errors.target_bound)
    noise, noise_se = _mean(none, none), _se(none + FLOAT32)
    root = math.sqrt((moved**2).mean())
    ties = errors.tied.mean()
    parent, child = ours["perplexity_parent"], ours["perplexity_child"]
    found = {
        "perplexity_exact": ours["perplexity_exact"] * noise,
        "perplexity_parent": parent * base,
        "perplexity_parent_se": parent * base_se + ours["perplexity_parent_se"] * base,
        "perplexity_child": child * noise,
        "perplexity_child_se": child * noise_se + ours["perplexity_child_se"] * noise,
        "ln_perplexity_ratio": base + noise,
        "ln_perplexity_ratio_se": base_se + noise_se,
        "correlation": 2 * base_se / _se(log_p - log_p.mean()),
        "kl_mean": _mean(errors.kl_sigma, errors.kl_lost),
        "kl_mean_se": _se(errors.kl_bound),
        "delta_p_mean": _mean(p * errors.target_sigma, none),
        "delta_p_mean_se": _se(moved),
        "delta_p_rms": root,
        "delta_p_rms_se": 0.5 * _se(squares) / ours["delta_p_rms"]
        + ours["delta_p_rms_se"] * root / ours["delta_p_rms"],
        "top1_agreement": ties,
        "top1_agreement_se": _share_se(ours["top1_agreement"], ties, len(p)),
    }
    for rank, fraction in PERCENTILES.items():
        found[f"kl_{rank}"] = _rank(sample.kl, errors.kl_bound, fraction)
        found[f"delta_p_{rank}"] = _rank(q - p, moved, fraction)
    return found


def _mean(sigma: Floats, one_way: Floats) -> float:
    """How far a mean may be off: random errors, float32's, and those all of one sign."""
    random = math.sqrt((sigma**2 + FLOAT32**2).sum()) / len(sigma)
    return SIGMAS * random + float(one_way.mean())


def _se(errors: Floats) -> float:
    return math.sqrt((errors**2).mean() / (len(errors) - 1))


def _rank(values: Floats, bound: Floats, fraction: float) -> float:
    low, at, high = (
        float(np.quantile(each, fraction)) for each in (values - bound, values, values + bound)
    )
    return max(high - at, at - low)


def _share_se(share: float, moved: float, rows: int) -> float:
    def error(x: float) -> float:
        return math.sqrt(max(x * (1 - x), 0.0) / (rows - 1))

    return max(abs(error(x) - error(share)) for x in (share - moved, min(share + moved, 1.0)))


@dataclass(frozen=True)
class Pass:
    """One cell forced through the text: its distributions, seconds with loading, bytes written."""

    distributions: Distributions
    seconds: float
    size: int


def ours(artifact: Path, sequences: Sequence[ForcedSequence], text: TextJob, out: Path) -> Pass:
    """Force `sequences` through llama.cpp as a cell does, in this process; best of `ROUNDS`.

    Args:
        artifact: folder with one GGUF file.
        sequences: the text.
        text: without a folder for the base, with the base's for another.
        out: folder that does not exist.
    """
    seconds = []
    for number in range(ROUNDS):
        folder = out / str(number)
        folder.mkdir(parents=True)
        started = time.perf_counter()
        if text.folder is None:
            dump_lines(sequences, folder / "sequences.jsonl")
        runtime = LlamaCppRuntime(_job(artifact))
        forced.force(runtime.force, text, folder, reverse=False, say=lambda *_: None)
        seconds.append(time.perf_counter() - started)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return Pass(Distributions(folder, tuple(sequences)), min(seconds), size)


def _job(artifact: Path) -> Job:
    nothing = artifact / "none"
    return Job(
        runtime="llamacpp",
        target=routes.targets()["llamacpp"],
        artifact=artifact,
        adapter=None,
        prompts=nothing,
        turn=1,
        journal=nothing,
        decode=DecodeSettings(context_length=CONTEXT, stop=(), threads=1),
    )


def both(
    artifacts: dict[str, Path],
    other: str,
    sequences: Sequence[ForcedSequence],
    out: Path,
    top_k: int,
) -> tuple[Pass, Pass]:
    """The base and one other model on the same rows."""
    text = TextJob(name=NAME, folder=None, sources=(NAME,), top_k=top_k)
    base = ours(artifacts[BASE], sequences, text, out / BASE)
    given = text.model_copy(update={"folder": base.distributions.folder})
    return base, ours(artifacts[other], sequences, given, out / other)


def tool(artifacts: dict[str, Path], other: str, text: Path, work: Path) -> ToolResult:
    """The tool's figures, with the best seconds of `ROUNDS`."""
    files = (artifacts[BASE] / gguf.FILE_NAME, artifacts[other] / gguf.FILE_NAME, text)
    runs = [
        llama_perplexity.run(*files, context=CONTEXT, threads=1, work=work) for _ in range(ROUNDS)
    ]
    return min(runs, key=lambda run: run.base_seconds + run.other_seconds)


def gguf_artifacts(folder: Path) -> dict[str, Path]:
    """The base GGUF and its quantizations, each in a folder of its own."""
    found = {name: folder / name for name in (BASE, *OTHERS)}
    for path in found.values():
        path.mkdir()
    gguf.convert(CHECKPOINT.absolute(), found[BASE], outtype=BASE, name="clerk")
    for name in OTHERS:
        gguf.quantize(found[BASE], found[name], quantization=name, threads=1)
    return found


def windows_agree(mine: Sequence[ForcedSequence], theirs: Windows) -> bool:
    """Whether our windows of the text are the tool's: same ids, same scored rows."""
    scored = range(theirs.first_row, theirs.context - 1)
    return tuple((*each.ids, each.target) for each in mine) == theirs.ids and all(
        range(each.first_row, len(each.ids)) == scored for each in mine
    )


def base_file_agrees(base: Distributions, file: Path, errors: Rounding) -> bool:
    """Whether every ln p in the tool's base file is ours, rounded to its row's step."""
    ids = np.load(base.folder / "ids.npy")
    found = llama_perplexity.base_log_probs(file)
    keys = [sequence.key for sequence in base.sequences]
    exact = np.concatenate([chunk.log_probs for _, chunk in base.chunks(keys)])
    logits = np.load(base.folder / "logits.npy").astype(np.float64)
    steps = (np.minimum(logits.max(1) - logits.min(1), 16) / 65535)[:, None]
    least = exact.max(1, keepdims=True) - 65535 * steps
    off = np.abs(np.take_along_axis(found, ids, axis=1) - np.maximum(exact, least))
    worst = float((off - steps / 2).max())
    print(
        f"base file: {off.size} values of ln p, at most {off.max():.3g} nats from ours"
        f" ({worst:+.1e} of half their step)"
    )
    return worst <= 2 * FLOAT32 and len(errors.tied) == len(found)


def table(name: str, result: ToolResult, sample: RowSample, errors: Rounding) -> bool:
    """Print figure by figure; whether all are within what is allowed."""
    mine = figures(sample, errors)
    allowed = allowances(mine, sample, errors)
    print(f"\n{BASE} → {name}: {result.windows} windows, {result.positions} rows")
    print(f"{'figure':24}{'tool':>13}{'ours':>13}{'difference':>13}{'allowed':>11}")
    fine = True
    for field, limit in allowed.items():
        if not hasattr(result, field):
            continue  # a quartile of KL, which the tool does not print
        theirs, own = getattr(result, field), mine[field]
        printed = next((unit for start, unit in PRINTED.items() if field.startswith(start)), 5e-7)
        within = abs(theirs - own) <= limit + printed
        fine &= within
        label = f"{field}*" if field.startswith(RAISED) else field
        print(
            f"{label:24}{theirs:13.6f}{own:13.6f}{own - theirs:+13.1e}{limit + printed:11.1e}"
            f"  {'ok' if within else 'NOT'}"
        )
    return fine


def start_seconds(code: str) -> float:
    """Seconds a fresh Python needs before it can work; best of `ROUNDS`."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def costs(result: ToolResult, passes: tuple[Pass, Pass], label: str) -> None:
    """Print wall time and bytes on disk of both ways, and their ratios."""
    base, other = passes
    started = time.perf_counter()
    drift = summarize(
        compare(base.distributions, other.distributions, list(base.distributions.offsets))
    )
    statistics = time.perf_counter() - started
    tool_seconds = result.base_seconds + result.other_seconds
    seconds = base.seconds + other.seconds + statistics
    starts = 2 * start_seconds("import driftline.runtimes.worker, llama_cpp") + start_seconds(
        "import driftline.drift.statistics; from scipy import stats"
    )
    size = base.size + other.size
    print(f"\ncost, {label}; mean KL {drift.kl_mean.value:.6f}, tail {drift.tail_mass_mean:.2e}")
    print(f"  tool  {tool_seconds:6.2f} s  {result.base_bytes:>12,} bytes")
    print(
        f"  ours  {seconds:6.2f} s  {size:>12,} bytes"
        f"   (base {base.seconds:.2f}, other {other.seconds:.2f}, statistics {statistics:.2f};"
        f" base {base.size:,}, other {other.size:,} bytes)"
    )
    print(
        f"  ours / tool: wall time {seconds / tool_seconds:.2f},"
        f" bytes {size / result.base_bytes:.2f};"
        f" with three starts of Python ({starts:.1f} s) wall time"
        f" {(seconds + starts) / tool_seconds:.2f}"
    )


def check(folder: Path) -> bool:
    """Run everything in `folder`; whether the two agree."""
    artifacts, text, work = gguf_artifacts(folder), folder / "text.txt", folder / "tool"
    work.mkdir()
    print(f"text: {corpus(text, TOKENS)} tokens, windows of {CONTEXT}")
    tokenizer = prompts.tokenizer_of(CHECKPOINT)
    mine = prompts.windows(tokenizer, NAME, text.read_text(encoding="utf-8"), size=CONTEXT)
    fine = True
    for number, other in enumerate(OTHERS):
        result = tool(artifacts, other, text, work)
        file = work / llama_perplexity.BASE_FILE
        passes = both(artifacts, other, mine, folder / f"whole-{other}", WHOLE)
        base, child = (each.distributions for each in passes)
        errors = roundings(base, child)
        if number == 0:
            theirs = llama_perplexity.windows(file, bos=tokenizer.bos_token_id)
            same = windows_agree(mine, theirs)
            print(f"windows: {len(theirs.ids)}, {'the same' if same else 'NOT the same'}")
            fine &= same and base_file_agrees(base, file, errors)
        fine &= table(other, result, compare(base, child, list(base.offsets)), errors)
        costs(result, passes, f"{other}, the whole vocabulary")
        narrow = both(artifacts, other, mine, folder / f"narrow-{other}", NARROW)
        costs(result, narrow, f"{other}, top {NARROW} ids")
    return fine


def main() -> None:
    """Exit code 1 if a figure is further off than rounding allows, 4 without the tool."""
    try:
        llama_perplexity_build.require()
        with tempfile.TemporaryDirectory() as folder:
            fine = check(Path(folder))
    except ToolError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    print(
        "\nevery figure within the tool's rounding" if fine else "\nNOT within the tool's rounding"
    )
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
