"""`llama-perplexity --kl-divergence`, the reference for driftline's statistics: run it, read it.

What the tool does, from its source (llama.cpp, tools/perplexity/perplexity.cpp, functions
`perplexity` and `kl_divergence`, as vendored in llama-cpp-python 0.3.36); n is the context:

**Windows.** The text, less one final newline, is tokenized whole, special tokens read as plain
text, BOS in front if the vocabulary asks for it. Window i is ids [i n, (i + 1) n); what is left
over at the end is dropped; there must be at least 2 n ids. If the vocabulary adds BOS, the first id
of every window is *replaced* by it when the window is fed; no id is inserted. Each window starts
from an empty KV cache at position 0. The second pass takes the ids from the file of the first, not
from the text.

**Scored rows.** Row t (the distribution after ids 0 … t) against id t + 1, for t = n // 2 … n - 2:
n - 1 - n // 2 rows a window. The last id of a window is fed, but its row is not scored.

**Base file.** `_logits_`, then int32 context, vocabulary, windows, all ids (before BOS is put over
them), then per scored row float32 s and m and one uint16 c per id (one more if the vocabulary is
odd), with M and L the greatest and least logit, L' = max(L, M - 16), Z = ln of the sum of
e^(logit - M) over the vocabulary:

    s = (M - L') / 65535      m = L' - M - Z      c = round((logit - L') / s), 0 where logit <= L'
    ln p(base) is read back as s c + m

So each ln p(base) is off by at most s / 2 <= 16 / 131070 = 1.23e-4 nats (0 at the maximum, bar
float32), apart from ids more than 16 nats below the maximum, which are raised to that. Not
normalized again.

**KL.** Per row the sum of p (ln p - ln q), over ids with ln p > -16 in the file, where q, the other
model, is not rounded (float32 logits, sum of exponentials in float64). The rounding errors e of
ln p enter as the sum of p (1 + ln p - ln q) e: at most about 1.23e-4 nats in one row, of either
sign (a row's KL may be negative), independent between ids and rows: over N rows the mean is off by
about 7e-5 sqrt(mean over rows of the sum of p² without the top id) / sqrt(N). What is left out
(ln p <= -16) has a probability of at most vocabulary x 1.1e-7. Float32 noise of ln p and of logits
of magnitude 30 is about 2e-6 a row. Printed to 6 decimals, Δp and agreement to 3 decimals of a
percent, the correlation to 2.

**Statistics.** Mean ± sqrt((mean of squares - square of mean) / (N - 1)). Percentiles interpolate
linearly at fraction x (N - 1), as numpy's default. PPL = exp(mean of -ln p(target)), ± by the delta
method; PPL(base) comes from the rounded file. ln(PPL(Q)/PPL(base)) ± sqrt(a² + b² - 2 cov), a², b²
and cov being variances and covariance of the means. Δp = q(target) - p(target); RMS Δp ±
(0.5 / RMS) x the standard error of the mean of Δp². Same top p ± sqrt(x (1 - x) / (N - 1)); the
base's top id is taken from the file: of ids that round to one value the lowest wins.

**Settings.** Its defaults: KV f16, flash attention auto (on for a CPU that supports it: other
arithmetic), batch 2048 and ubatch 512, so that several windows share one decode. Set here as in
driftline's cells: KV f16, flash attention off, no GPU layers, weights not repacked (a repacked
Q4_K_M moved the mean KL of F32 → Q4_K_M by 0.2 %), one window a decode, in pieces of
`distributions.CHUNK` ids where it is longer. It exits with 0 after most failures: only its output
tells.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks import llama_perplexity_build
from driftline.errors import ToolError
from driftline.store.distributions import CHUNK

T = TypeVar("T")

ATTEMPTS = 3
"""Runs of a pass: in one of twenty the program ends before its log thread has printed all."""
BASE_FILE = "base.kld"
"""What the first pass leaves in the `work` folder."""


@dataclass(frozen=True)
class ToolResult:
    """What the tool printed of base (parent) and other model (child).

    KL divergences and log ratios in nats; Δp and agreement as fractions, not percent; `_se` is what
    the tool prints after ±, one standard error of independent rows (NaN where it divides by zero).
    `perplexity_exact` is the base's before its log-probabilities were rounded, `base_seconds` and
    `other_seconds` the wall time of each pass with the loading of its model, `base_bytes` the size
    of the file between them.
    """

    windows: int
    positions: int
    base_seconds: float
    other_seconds: float
    base_bytes: int

    perplexity_exact: float
    perplexity_parent: float
    perplexity_parent_se: float
    perplexity_child: float
    perplexity_child_se: float
    correlation: float
    ln_perplexity_ratio: float
    ln_perplexity_ratio_se: float

    kl_mean: float
    kl_mean_se: float
    kl_max: float
    kl_p999: float
    kl_p99: float
    kl_p95: float
    kl_p90: float
    kl_median: float
    kl_p10: float
    kl_p05: float
    kl_p01: float
    kl_p001: float
    kl_min: float

    delta_p_mean: float
    delta_p_mean_se: float
    delta_p_max: float
    delta_p_p999: float
    delta_p_p99: float
    delta_p_p95: float
    delta_p_p90: float
    delta_p_p75: float
    delta_p_median: float
    delta_p_p25: float
    delta_p_p10: float
    delta_p_p05: float
    delta_p_p01: float
    delta_p_p001: float
    delta_p_min: float
    delta_p_rms: float
    delta_p_rms_se: float

    top1_agreement: float
    top1_agreement_se: float


@dataclass(frozen=True)
class Windows:
    """Ids [windows][context] as the tool fed them; rows `first_row` … context - 2 are scored.

    Row t is judged by id t + 1. `vocabulary` is the width of the distributions.
    """

    ids: tuple[tuple[int, ...], ...]
    vocabulary: int

    @property
    def context(self) -> int:
        """Ids in each window."""
        return len(self.ids[0])

    @property
    def first_row(self) -> int:
        """The first scored row of each window."""
        return self.context // 2

    @property
    def positions(self) -> int:
        """Scored rows of all windows."""
        return len(self.ids) * (self.context - 1 - self.first_row)


_RANKS = {
    "Maximum": "max",
    "99.9%": "p999",
    "99.0%": "p99",
    "95.0%": "p95",
    "90.0%": "p90",
    "75.0%": "p75",
    "Median": "median",
    "25.0%": "p25",
    "10.0%": "p10",
    "5.0%": "p05",
    "1.0%": "p01",
    "0.1%": "p001",
    "Minimum": "min",
}
_QUARTILES = ("75.0%", "25.0%")
_FIELDS = {
    "Mean PPL(Q)": "perplexity_child",
    "Mean PPL(base)": "perplexity_parent",
    "Cor(ln(PPL(Q)), ln(PPL(base)))": "correlation",
    "Mean ln(PPL(Q)/PPL(base))": "ln_perplexity_ratio",
    "Mean KLD": "kl_mean",
    "Mean Δp": "delta_p_mean",
    "RMS Δp": "delta_p_rms",
    "Same top p": "top1_agreement",
    **{f"{word} KLD": f"kl_{rank}" for word, rank in _RANKS.items() if word not in _QUARTILES},
    **{f"{word} Δp": f"delta_p_{rank}" for word, rank in _RANKS.items()},
}
"""A line's label, runs of spaces as one → field of `ToolResult`."""
_PRINTED = {each.name for each in fields(ToolResult)} - {
    "windows",
    "positions",
    "base_seconds",
    "other_seconds",
    "base_bytes",
    "perplexity_exact",
}
"""What the second pass prints of them."""
_LINE = re.compile(r"^\s*(\S.*?)\s*: +(\S+?)(%?)(?: ± +(\S+)( %)?)?$")
_FINAL = re.compile(r"Final estimate: PPL = (\S+) ")


def run(
    gguf_base: Path, gguf_other: Path, text: Path, *, context: int, threads: int, work: Path
) -> ToolResult:
    """Run both passes; the base file stays in `work`, for `windows`.

    Args:
        gguf_base: the parent's GGUF file.
        gguf_other: the child's, with the same vocabulary.
        text: UTF-8 text of at least 2 x `context` tokens.
        context: ids a window; even, and a multiple of `CHUNK` if longer than it.
        threads: of the decoding; the statistics take every core, for a moment per window.
        work: existing folder.

    Raises:
        ToolError: the tool is not built, or did not print its statistics (for instance because
            there are fewer than 100 scored rows).
    """
    program, base = llama_perplexity_build.require(), work / BASE_FILE
    base.unlink(missing_ok=True)
    common = ["-c", str(context), "-t", str(threads), "--kl-divergence-base", str(base)]
    command = [str(program), "-m", str(gguf_base), "-f", str(text), *common]
    exact, base_seconds = _pass(command, _final_estimate)
    # The second pass has no use for the text: its ids are in the base file.
    command = [str(program), "-m", str(gguf_other), "--kl-divergence", *common]
    found, other_seconds = _pass(command, parse)
    made = windows(base, bos=None)
    return ToolResult(
        windows=len(made.ids),
        positions=made.positions,
        base_seconds=base_seconds,
        other_seconds=other_seconds,
        base_bytes=base.stat().st_size,
        perplexity_exact=exact,
        **found,
    )


def parse(output: str) -> dict[str, float]:
    """Fields of `ToolResult` in the tool's statistics, percent as fractions; empty if any lacks."""
    found: dict[str, float] = {}
    for line in output.splitlines():
        match = _LINE.match(line)
        field = _FIELDS.get(" ".join(match[1].split())) if match else None
        if match is None or field is None:
            continue
        value, percent, error, percents = match.groups()[1:]
        scale = 0.01 if percent or percents else 1.0
        found[field] = float(value) * scale
        if error is not None:
            found[f"{field}_se"] = float(error) * scale
    return found if found.keys() >= _PRINTED else {}


def _final_estimate(output: str) -> float | None:
    found = _FINAL.search(output)
    return float(found[1]) if found else None


def windows(base_file: Path, *, bos: int | None) -> Windows:
    """The ids both passes fed.

    Args:
        base_file: what the first pass wrote.
        bos: the BOS id if the vocabulary has one and asks for it (`add_bos_token`), else None.

    Raises:
        ToolError: not such a file.
    """
    with base_file.open("rb") as file:
        found = _header(file, base_file)
    if bos is None:
        return found
    return replace(found, ids=tuple((bos, *window[1:]) for window in found.ids))


def base_log_probs(base_file: Path) -> NDArray[np.float64]:
    """ln p(base) as the second pass reads it, [scored rows, vocabulary].

    Raises:
        ToolError: not such a file.
    """
    with base_file.open("rb") as file:
        header = _header(file, base_file)
        width = 4 + header.vocabulary + header.vocabulary % 2
        rows = np.fromfile(file, dtype="<u2").reshape(header.positions, width)
    scale, least = np.ascontiguousarray(rows[:, :4]).view("<f4").T[:, :, np.newaxis]
    codes = rows[:, 4 : 4 + header.vocabulary].astype(np.float64)
    found: NDArray[np.float64] = scale * codes + least
    return found


def _header(file: BinaryIO, path: Path) -> Windows:
    if file.read(8) != b"_logits_":
        raise ToolError(f"{path}: no base file", remedy="run the first pass again")
    context, vocabulary, count = np.fromfile(file, dtype="<i4", count=3).tolist()
    ids = np.fromfile(file, dtype="<i4", count=context * count).reshape(count, context)
    return Windows(ids=tuple(map(tuple, ids.tolist())), vocabulary=vocabulary)


def _pass(command: list[str], read: Callable[[str], T | None]) -> tuple[T, float]:
    """What `read` finds in the output of `command`, and seconds of wall time.

    Raises:
        ToolError: it finds nothing in that of `ATTEMPTS` runs.
    """
    output = ""
    for _ in range(ATTEMPTS):
        output, seconds = _call(command)
        found = read(output)
        if found:
            return found, seconds
    tail = "\n  ".join(output.strip().splitlines()[-8:])
    raise ToolError(
        f"{' '.join(command[:3])} gave no statistics:\n  {tail}",
        remedy="a longer text, a smaller context, or two models with one vocabulary",
    )


def _call(command: list[str]) -> tuple[str, float]:
    """Standard output and error together, and seconds of wall time.

    Every setting that could change a logit is named; `LLAMA_ARG_…` variables could change others.

    Raises:
        ToolError: the program crashed.
    """
    size = command[command.index("-c") + 1]
    piece = str(min(int(size), CHUNK))
    options = ["-b", piece, "-ub", piece, "-fa", "off", "-ctk", "f16", "-ctv", "f16"]
    options += ["-ngl", "0", "-fit", "off", "--no-repack", "--no-warmup", "--offline"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA_")}
    started = time.perf_counter()
    done = subprocess.run(
        [*command, *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode < 0:
        raise ToolError(
            f"{Path(command[0]).name} was killed by {signal.Signals(-done.returncode).name}",
            remedy="compile it for this machine, or by another compiler",
        )
    return done.stdout, time.perf_counter() - started
