"""Stage `grade`: every answer of every cell against its item's checks. No model runs.

python -m driftline.stages.grade
"""

from __future__ import annotations

from collections.abc import Iterator

from driftline.errors import exits_cleanly
from driftline.evidence import scored
from driftline.files import new_directory
from driftline.golden.grade import grade, summarize
from driftline.project import params
from driftline.schema.cells import CellRecord
from driftline.schema.scores import ItemScore
from driftline.schema.values import dump_lines
from driftline.store import records


@exits_cleanly
def main() -> None:
    """Grade the whole project."""
    project = params.read()
    cells = scored.cell_records(project)
    inputs = [
        records.manifest("prompts"),
        records.manifest("evalset"),
        *(scored.reference(record) for record in cells),
    ]
    scores = [score for record in cells for score in _scores(project, record)]
    with new_directory(scored.SCORES.parent) as folder:
        dump_lines(scores, folder / scored.SCORES.name)
        dump_lines(summarize(scores), folder / scored.SUMMARY.name)
        records.write_manifest(folder, "grades", inputs)


def _scores(project: params.Params, record: CellRecord) -> Iterator[ItemScore]:
    """Verdicts on every item the cell was asked; an item without an answer is `errored`.

    A cell that did not run has no verdicts at all: an error is never a score.
    """
    if not record.ran:
        return
    answers, prompts, items = scored.completions(record), scored.pinned(), scored.items()
    wanted = scored.asked(project, record)
    for key, prompt in prompts.items():
        if prompt.evalset in wanted:
            yield grade(items[key], prompt, answers.get(key), record.cell.id)


if __name__ == "__main__":
    main()
