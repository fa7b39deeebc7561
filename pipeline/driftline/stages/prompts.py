"""Stage `prompts`: every evalset checked, then rendered and tokenized once.

    python -m driftline.stages.prompts

Writes `artifacts/prompts/<variant>.jsonl` (what a variant's cells are asked), `root.jsonl` (what
the source is asked: everything), `corpora.json` (the corpora in windows), `vocabulary.json` (what
the source calls each id) and `artifacts/evalset/items.jsonl` (the items with their checks).
"""

from __future__ import annotations

from pathlib import Path

from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.golden import evalset, prompts
from driftline.project import params
from driftline.schema.artifacts import BASE
from driftline.schema.forced import Corpora
from driftline.schema.values import dump, dump_lines
from driftline.store import records, texts

ROOT = "root"


@exits_cleanly
def main() -> None:
    """Pin the prompts of the whole project."""
    project = params.read()
    items = evalset.load([evalset.path_of(name) for name in project.evalset_names])
    source = records.verified(f"checkpoints/{BASE}")
    tokenizer = prompts.tokenizer_of(records.ARTIFACTS / source.name)
    pinned = prompts.pin(items, tokenizer, limit=project.decode.max_new_tokens)
    windows = [
        window
        for name, corpus in project.distributions.corpora.items()
        for window in prompts.windows(
            tokenizer, name, evalset.corpus(name, Path(corpus.path)), size=corpus.window
        )
    ]
    with new_directory(records.ARTIFACTS / "prompts") as folder:
        dump_lines(pinned, folder / f"{ROOT}.jsonl")
        for variant, names in project.evalsets.items():
            asked = [prompt for prompt in pinned if prompt.evalset in names]
            dump_lines(asked, folder / f"{variant}.jsonl")
        dump(Corpora(windows=tuple(windows)), folder / texts.CORPORA.name)
        dump(prompts.vocabulary(tokenizer), folder / "vocabulary.json")
        records.write_manifest(folder, "prompts", [records.reference(source)])
    with new_directory(records.ARTIFACTS / "evalset") as folder:
        dump_lines(items, folder / "items.jsonl")
        records.write_manifest(folder, "evalset", ())


if __name__ == "__main__":
    main()
