"""Hub model cards of what a release ships: Markdown with YAML front matter; pure.

Sources: https://huggingface.co/docs/hub/model-cards, and `huggingface_hub.ModelCardData`, which
writes the front matter, so that the Hub's own client reads it back.

A card is where an upload starts: whoever uploads knows the licence, the language and the repository
of the merged checkpoint, which no record has. The text holds names, digests, figures and ASCII JSON
only: no words that came with a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from driftline.project import routes
from driftline.schema.release import ReleasedArtifact, ReleasedCell, ReleaseRecord

LIBRARIES = {
    row.kind: routes.FORMATS[row.format].library for row in routes.CONVERSIONS if row.shipped
}
"""The Hub's name for what loads a shipped artifact, by its kind."""
TASK = "text-generation"
PLAIN = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Storage types that quantize nothing."""


def cards(record: ReleaseRecord) -> dict[str, str]:
    """The card of every shipped artifact, by file name: `<artifact>.md`."""
    return {
        f"{artifact.name}.md": card(record, artifact)
        for artifact in record.artifacts
        if artifact.kind in LIBRARIES
    }


def card(record: ReleaseRecord, artifact: ReleasedArtifact) -> str:
    """The card of one artifact."""
    from huggingface_hub import ModelCardData

    base, relation = lineage(record, artifact)
    results = list(_results(record, artifact))
    data = ModelCardData(
        base_model=base[0] if len(base) == 1 else base or None,
        base_model_relation=relation if base else None,
        library_name=LIBRARIES[artifact.kind],
        pipeline_tag=TASK,
        tags=[artifact.kind, "driftline"],
        model_name=artifact.name if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{''.join(_body(record, artifact))}"


def lineage(record: ReleaseRecord, artifact: ReleasedArtifact) -> tuple[list[str], str | None]:
    """`base_model` and `base_model_relation`: the repositories an artifact descends from, and how.

    No repository without the source's: an adapter's alone would name the wrong base. An artifact
    that descends from a merge is another model than the source, however it is stored: a `merge` of
    both repositories, or a `finetune` of the source where the adapter has none. One of the source
    itself is `quantized` when its weights are; a mere change of format has no relation on the Hub.
    """
    pinned = [each for each in _roots(record, artifact) if "repo" in each.arguments]
    sources = [str(each.arguments["repo"]) for each in pinned if each.kind == "source"]
    adapters = [str(each.arguments["repo"]) for each in pinned if each.kind == "adapter"]
    adapted = any(each.kind == "adapter" for each in _roots(record, artifact))
    if not sources:
        return [], None
    if adapted:
        return [*sources, *adapters], "merge" if adapters else "finetune"
    return sources, "quantized" if _quantized(artifact) else None


def _roots(record: ReleaseRecord, artifact: ReleasedArtifact) -> Iterator[ReleasedArtifact]:
    """The pinned artifacts it descends from, the source first, each once."""
    artifacts = {each.name: each for each in record.artifacts}
    ancestors: dict[str, ReleasedArtifact] = {}
    waiting = [artifact.name]
    while waiting:
        one = artifacts.get(waiting.pop(0))
        if one is not None:
            ancestors.setdefault(one.name, one)
            waiting += [parent.name for parent in one.parents]
    pinned = [each for each in ancestors.values() if each.conversion == "pin"]
    yield from sorted(pinned, key=lambda each: each.kind != "source")


def _quantized(artifact: ReleasedArtifact) -> bool:
    types = artifact.census.types if artifact.census else {}
    return any(name not in PLAIN for name in types)


def _cells(record: ReleaseRecord, artifact: ReleasedArtifact) -> list[ReleasedCell]:
    return [cell for cell in record.cells if cell.artifact == artifact.name and not cell.adapter]


def _results(record: ReleaseRecord, artifact: ReleasedArtifact) -> Iterator[Any]:
    """One accuracy per cell and evalset; `metric_config` says in which cell."""
    from huggingface_hub import EvalResult

    digests = {evalset.name: evalset.sha256 for evalset in record.evalsets}
    for cell in _cells(record, artifact):
        for score in cell.scores:
            if score.accuracy is not None:
                yield EvalResult(
                    task_type=TASK,
                    dataset_type="driftline-evalset",
                    dataset_name=score.evalset,
                    dataset_revision=digests[score.evalset],
                    metric_type="accuracy",
                    metric_name=f"correct of {score.scored} golden prompts",
                    metric_value=score.accuracy,
                    metric_config=cell.id,
                )


# ------------------------------------------------------------------------------------------- text


def _body(record: ReleaseRecord, artifact: ReleasedArtifact) -> Iterator[str]:
    yield f"# {artifact.name}\n\n"
    if not lineage(record, artifact)[0]:
        yield (
            "<!-- base_model is left out: the source is a folder, with no repository on the Hub. "
            "Add it, with base_model_relation, if it has one. -->\n\n"
        )
    yield f"Release `{record.name}`, commit `{record.commit}`.\n\n"
    yield "| | |\n| --- | --- |\n"
    yield f"| identity (dirHash) | `{artifact.identity}` |\n"
    for parent in artifact.parents:
        yield f"| {artifact.conversion} of | `{parent.name}` (`{parent.identity}`) |\n"
    if artifact.census:
        types = ", ".join(f"{name} {n}" for name, n in sorted(artifact.census.types.items()))
        yield f"| bits per weight, as found | {artifact.census.bits_per_weight:.2f} |\n"
        yield f"| tensors by type, as found | {types} |\n"
    if artifact.template_sha256:
        yield f"| chat template, sha256 | `{artifact.template_sha256}` |\n"
    if artifact.tokenizer_sha256:
        yield f"| tokenizer's digest | `{artifact.tokenizer_sha256}` |\n"
    yield "\nMade by:\n\n```json\n"
    told = {
        "tool": artifact.tool,
        "version": artifact.tool_version,
        "arguments": artifact.arguments,
    }
    yield json.dumps(told, sort_keys=True, indent=1)
    yield "\n```\n\n"
    yield from _figures(record, artifact)
    yield "## Files\n\n```\n"
    yield "".join(f"{file.sha256}  {json.dumps(file.path)[1:-1]}\n" for file in artifact.files)
    yield (
        "```\n\nThe sha256 of these lines is the identity: in the folder,\n\n```sh\n"
        "find . -type f | sed 's|^\\./||' | LC_ALL=C sort "
        "| xargs -d '\\n' sha256sum -- | sha256sum\n"
        "```\n"
    )


def _figures(record: ReleaseRecord, artifact: ReleasedArtifact) -> Iterator[str]:
    yield "## Golden prompts\n\n"
    cells = _cells(record, artifact)
    scores = [(cell, score) for cell in cells for score in cell.scores]
    if scores:
        yield "Correct of scored, and the 95 % Wilson interval of the share.\n\n"
        yield "| cell | evalset | correct | scored | interval |\n| --- | --- | --: | --: | --- |\n"
    for cell, score in scores:
        interval = "–" if score.low is None else f"[{score.low:.3f}, {score.high:.3f}]"
        ended = "" if cell.state == "ok" else f", {cell.state}"
        yield (
            f"| `{cell.id}`{ended} | `{score.evalset}` | {score.correct} | {score.scored} "
            f"| {interval} |\n"
        )
    silent = [cell for cell in cells if not cell.scores]
    for cell in silent:
        yield f"{'' if not scores else chr(10)}No score: `{cell.id}` ended {cell.state}.\n"
    if not cells:
        yield "No cell ran this artifact.\n"
    for cell in cells:
        if cell.kl_from_parent is not None:
            yield (
                f"\nMean KL divergence of `{cell.id}` from the cell before: "
                f"{cell.kl_from_parent.value:.2g} nats.\n"
            )
    yield "\n"
