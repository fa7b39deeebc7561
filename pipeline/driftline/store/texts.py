"""Where teacher-forced texts and distributions (of cells and of counterfactuals) lie."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from driftline.files import new_directory
from driftline.schema.artifacts import Reference
from driftline.schema.cells import CellRecord
from driftline.schema.forced import ForcedRecord, ForcedSequence
from driftline.schema.values import load_lines
from driftline.store import records
from driftline.store.distributions import IDS, LOGITS, ROWS, SEQUENCES, Distributions

FOLDER = records.ARTIFACTS / "texts"
"""One folder per variant: `sequences.jsonl` and the partition `ids.npy`."""
DISTRIBUTIONS = "distributions"
RECORD = "record.json"
CORPORA = records.ARTIFACTS / "prompts" / "corpora.json"


def name_of(text: str) -> str:
    """Name of a text's manifest."""
    return f"{FOLDER.name}/{text}"


def write(made: Path, record: CellRecord, inputs: Iterable[Reference]) -> None:
    """Publish the text its reference cell made in `made`; an empty one if that cell failed.

    `inputs` are the records of what that cell read.
    """
    with new_directory(FOLDER / record.cell.variant) as folder:
        if any(found.text == record.cell.variant for found in record.forced):
            shutil.copyfile(made / SEQUENCES, folder / SEQUENCES)
            shutil.copyfile(made / IDS, folder / IDS)
        else:
            (folder / SEQUENCES).write_text("")
        records.write_manifest(folder, name_of(record.cell.variant), inputs)


def keep(made: Path, record: CellRecord, cell: Path) -> None:
    """Move the distributions a cell's record names into its folder."""
    for found in record.forced:
        folder = cell / DISTRIBUTIONS / found.text
        folder.mkdir(parents=True)
        for name in (LOGITS, ROWS):
            shutil.move(made / found.text / name, folder / name)


def sequences(text: str, sources: tuple[str, ...]) -> tuple[ForcedSequence, ...]:
    """The sequences of a text that belong to `sources`, in the text's order."""
    path = FOLDER / text / SEQUENCES
    if not path.exists():
        return ()
    return tuple(each for each in load_lines(ForcedSequence, path) if each.source in sources)


def distributions(
    home: Path, forced: tuple[ForcedRecord, ...], sources: tuple[str, ...]
) -> dict[str, Distributions]:
    """What a cell or counterfactual in `home` kept, by text."""
    return {
        found.text: Distributions(home / DISTRIBUTIONS / found.text, sequences(found.text, sources))
        for found in forced
    }


def counterfactual(artifact: str) -> Path:
    """Where an artifact's counterfactual lies."""
    return records.ARTIFACTS / "counterfactuals" / artifact
