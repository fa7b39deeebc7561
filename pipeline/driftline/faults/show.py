"""The fault bench on a terminal: what is planted, what is blamed, the confusion table."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from driftline.errors import InputError, did_you_mean
from driftline.faults import bench
from driftline.faults.catalogue import FAULTS, Fault

MODELS = Path("models")


def run(names: Sequence[str], *, with_clean: bool) -> bool:
    """Run the bench and print it; True when everything was as it should be.

    Args:
        names: of the faults to plant, none for all.
        with_clean: run the pipelines without a fault as well.

    Raises:
        InputError: there is no such fault, or the embedded models are not here.
    """
    chosen = _chosen(names)
    if not (MODELS / "clerk").exists():
        raise InputError(
            f"{MODELS / 'clerk'}: not found", remedy="run from the top folder of driftline itself"
        )
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        made = bench.Bench(MODELS, Path(folder) / "faults", _say)
        verdicts = [made.plant(fault) for fault in chosen]
        clean = [_clean(name, Path(folder)) for name in bench.CLEAN] if with_clean else []
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_verdicts(verdicts))
    console.print(_confusion(verdicts))
    blamed = [each for each in clean if each.codes]
    for each in blamed:
        console.print(f"clean pipeline blamed: {each.name}: {', '.join(each.codes)}", markup=False)
    right = sum(verdict.right for verdict in verdicts)
    console.print(
        f"{right} of {len(verdicts)} faults blamed on exactly their hop and component; "
        f"{len(blamed)} of {len(clean)} clean pipelines blamed"
    )
    return right == len(verdicts) and not blamed


def _chosen(names: Sequence[str]) -> Sequence[Fault]:
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise InputError(
                f'no fault "{name}"{did_you_mean(name, known)}',
                remedy=f"one of: {', '.join(known)}",
            )
    return [known[name] for name in names] or FAULTS


def _clean(name: str, folder: Path) -> bench.Clean:
    _say(f"clean pipeline: {name}")
    work = folder / name
    work.mkdir()
    return bench.clean(name, MODELS, work)


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def _verdicts(verdicts: Sequence[bench.Verdict]) -> Table:
    shown = Table("fault", "planted at", "component", "blamed", "findings", "answers")
    for verdict in verdicts:
        hop, component = verdict.expected
        shown.add_row(
            verdict.name,
            hop.partition(" → ")[2],
            component or "withhold the split",
            "as planted" if verdict.right else f"WRONG: {verdict.blamed or 'nothing'}",
            ", ".join(verdict.codes),
            str(verdict.items),
        )
    return shown


def _confusion(verdicts: Sequence[bench.Verdict]) -> Table:
    counts = bench.table(verdicts)
    columns = ("text", "weights", "numerics", "withheld", "elsewhere", "nothing")
    shown = Table("planted \\ blamed", *columns, title="confusion table")
    for planted in ("text", "weights", "numerics", "withheld"):
        shown.add_row(planted, *(str(counts.get((planted, got), 0)) for got in columns))
    return shown
