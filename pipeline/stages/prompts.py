"""Stage `prompts`: every evalset checked, then rendered and tokenized once.

    python -m pipeline.stages.prompts

Writes `artifacts/prompts/<variant>.jsonl` (what a variant's cells are asked), `root.jsonl` (what
the source is asked: everything) and `artifacts/evalset/items.jsonl` (the items with their checks).
"""

from __future__ import annotations

from pipeline import evalset, params, prompts, records
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory
from pipeline.schema.values import dump_lines

ROOT = "root"


@exits_cleanly
def main() -> None:
    """Pin the prompts of the whole project."""
    project = params.read()
    items = evalset.load([evalset.path_of(name) for name in project.evalset_names])
    source = records.verified(f"checkpoints/{params.BASE}")
    pinned = prompts.pin(
        items, records.ARTIFACTS / source.name, limit=project.decode.max_new_tokens
    )
    with new_directory(records.ARTIFACTS / "prompts") as folder:
        dump_lines(pinned, folder / f"{ROOT}.jsonl")
        for variant, names in project.evalsets.items():
            asked = [prompt for prompt in pinned if prompt.evalset in names]
            dump_lines(asked, folder / f"{variant}.jsonl")
    with new_directory(records.ARTIFACTS / "evalset") as folder:
        dump_lines(items, folder / "items.jsonl")


if __name__ == "__main__":
    main()
