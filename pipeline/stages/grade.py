"""Stage `grade`: every answer of every cell against its item's checks. No model runs.

python -m pipeline.stages.grade
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline import cells, params, records
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory
from pipeline.grade import grade, summarize
from pipeline.schema.cells import CellRecord
from pipeline.schema.scores import ItemScore
from pipeline.schema.values import dump_lines


@exits_cleanly
def main() -> None:
    """Grade the whole project."""
    project = params.read()
    found = cells.cell_records(project)
    inputs = [
        records.manifest("prompts"),
        records.manifest("evalset"),
        *(cells.reference(record) for record in found),
    ]
    scores = [score for record in found for score in _scores(project, record)]
    with new_directory(cells.SCORES.parent) as folder:
        dump_lines(scores, folder / cells.SCORES.name)
        dump_lines(summarize(scores), folder / cells.SUMMARY.name)
        records.write_manifest(folder, "grades", inputs)


def _scores(project: params.Params, record: CellRecord) -> Iterator[ItemScore]:
    """Verdicts on every item the cell was asked; an item without an answer is `errored`.

    A cell that did not run has no verdicts at all: an error is never a score.
    """
    if record.outcome.state in ("error", "skipped"):
        return
    answers, prompts, items = cells.completions(record), cells.pinned(), cells.items()
    wanted = cells.asked(project, record)
    for key, prompt in prompts.items():
        if prompt.evalset in wanted:
            yield grade(items[key], prompt, answers.get(key), record.cell.id)


if __name__ == "__main__":
    main()
