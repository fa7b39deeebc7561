"""Small values of the real formats, for tests that need evidence without running a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from driftline.drift.analysis import analyse
from driftline.drift.evidence import CellEvidence
from driftline.drift.hops import median_divergence
from driftline.golden.grade import summarize
from driftline.project import graph, params, plan
from driftline.project.params import Params
from driftline.project.routes import ROOT_CELL
from driftline.report.model import ReportInput
from driftline.schema.answers import Completion, PinnedPrompt
from driftline.schema.artifacts import ArtifactRecord, Census, FileDigest, Parent
from driftline.schema.cells import Capabilities, CellRecord, CellSpec, NoiseFloor, Outcome
from driftline.schema.messages import Message
from driftline.schema.scores import CheckResult, ItemScore, ItemState
from driftline.store.digest import sha256_text
from tests.params_data import with_runtimes

CAPABILITIES: Mapping[str, Capabilities] = {
    "transformers": Capabilities(adapters=True),
    "mlx": Capabilities(exact_products=True),
}
"""What a runtime of the project can give beside what most can."""
PIECES = ("", " the", " a", "|", "`", "\n", '"', "<b>")
"""What token ids 0 to 7 look like; later ids repeat them."""


def project(**changes: Any) -> Params:
    """Two adapters, four GGUF forms, two MLX recipes and vLLM: 26 cells."""
    data: dict[str, Any] = {
        "source": {"path": "models/clerk"},
        "adapters": {"audit": {"path": "a"}, "privacy": {"path": "p"}},
        "variants": ["base", "audit", "privacy"],
        "evalsets": {"base": ["clauses", "sql"], "audit": ["audit"], "privacy": ["privacy"]},
        "gguf": {"outtype": "f32", "quantizations": ["q8_0", "q4_k_m", "q2_k"]},
        "mlx": {
            "artifacts": ["8bit", "4bit"],
            "recipes": {
                "8bit": {"bits": 8, "group_size": 64},
                "4bit": {"bits": 4, "group_size": 64},
            },
        },
        "vllm": ["base", "audit", "privacy"],
        "merge": {"dtype": "float32"},
        "decode": {"max_new_tokens": 16, "context_length": 512},
        "distributions": {"top_k": 1024, "corpora": {}},
        "limits": {"threads": 1},
    }
    return params.parse(with_runtimes({**data, **changes}), where="test")


def pinned(evalset: str = "clauses", item: str = "c-1", text: str = "question") -> PinnedPrompt:
    ids = tuple(range(3, 3 + len(text) % 7 + 2))
    messages = (Message(role="user", content=text),)
    return PinnedPrompt(
        evalset=evalset,
        id=item,
        messages=messages,
        prompt=None,
        text=f"<user>{text}</user>",
        ids=ids,
        max_new_tokens=16,
    )


def prompts(*evalsets: str, count: int = 3) -> dict[str, PinnedPrompt]:
    """`count` pinned prompts per evalset, by key."""
    made = [pinned(name, f"{name[0]}-{n:03}") for name in evalsets for n in range(count)]
    return {prompt.key: prompt for prompt in made}


def completion(
    prompt: PinnedPrompt,
    ids: Iterable[int] = (1, 2),
    *,
    text: str | None = None,
    prompt_ids: tuple[int, ...] | None = None,
) -> Completion:
    output = tuple(ids)
    pieces = tuple(PIECES[token % len(PIECES)] for token in output)
    return Completion(
        evalset=prompt.evalset,
        id=prompt.id,
        prompt_ids=prompt.ids if prompt_ids is None else prompt_ids,
        output_ids=output,
        pieces=pieces,
        logprobs=tuple(-0.5 for _ in output),
        text="".join(pieces) if text is None else text,
        finish_reason="stop",
    )


def item_score(prompt: PinnedPrompt, cell: str, state: ItemState = "correct") -> ItemScore:
    unscored = state in ("errored", "unchecked")
    score = None if unscored else float(state == "correct")
    checks = (CheckResult(kind="exact", score=score or 0.0, weight=1.0),)
    return ItemScore(
        cell=cell,
        evalset=prompt.evalset,
        item=prompt.id,
        tags=(),
        state=state,
        score=score,
        checks=() if unscored else checks,
    )


def spec(cell: str) -> CellSpec:
    """One of the cells of `project()`."""
    return plan.cell(project(), *cell.split("/"))


def identity_of(path: str) -> str:
    """The identity that `artifact` gives to what lies at `path`."""
    return sha256_text(path.removeprefix("artifacts/"))


def record(
    cell: str | CellSpec,
    *,
    state: Literal["ok", "error", "skipped", "unstable"] = "ok",
    reason: str = "",
    remedy: str = "",
    different: Iterable[str] = (),
    settings: Mapping[str, Any] | None = None,
    build: Mapping[str, Any] | None = None,
) -> CellRecord:
    """A cell's record; one that failed has no answers, no noise floor and no settings."""
    made = cell if isinstance(cell, CellSpec) else spec(cell)
    ran = state in ("ok", "unstable")
    floor = NoiseFloor(items=9, different=tuple(different), max_logprob_difference=0.0)
    return CellRecord(
        cell=made,
        outcome=Outcome(
            state=state, kind="" if ran else "raised", reason=reason, remedy=remedy, last_item=""
        ),
        artifact_identity=identity_of(made.artifact),
        adapter_identity=identity_of(made.adapter) if made.adapter else None,
        prompts_sha256=sha256_text("prompts"),
        completions_sha256=sha256_text(made.id) if ran else None,
        floor=floor if ran else None,
        capabilities=CAPABILITIES.get(made.runtime, Capabilities()),
        build=dict(build or {"version": "1.0"}) if ran else {},
        settings=dict(settings or {"threads": 1, "dtype": "float32"}) if ran else {},
    )


def evidence(
    cell: str,
    answers: Mapping[str, Completion],
    states: Mapping[str, ItemState] | None = None,
    **how: Any,
) -> CellEvidence:
    """A cell's evidence; items not named in `states` are correct."""
    scores = {
        key: ItemScore(
            cell=cell,
            evalset=answer.evalset,
            item=answer.id,
            tags=(),
            state=(states or {}).get(key, "correct"),
            score=None,
            checks=(),
        )
        for key, answer in answers.items()
    }
    return CellEvidence(record=record(cell, **how), completions=dict(answers), scores=scores)


def artifact(
    name: str,
    kind: str,
    conversion: Literal["pin", "merge", "convert", "quantize"],
    *,
    parents: Iterable[ArtifactRecord] = (),
    identity: str = "",
    **arguments: Any,
) -> ArtifactRecord:
    return ArtifactRecord(
        name=name,
        kind=kind,
        conversion=conversion,
        identity=identity or sha256_text(name),
        files=(FileDigest(path="weights", size=1000, sha256=sha256_text(name + "w")),),
        parents=tuple(Parent(name=each.name, identity=each.identity) for each in parents),
        tool="tool",
        tool_version="1.2.3",
        arguments=arguments,
        census=Census(
            types={"F32": 9, "Q8_0": 28},
            elements={"F32": 900, "Q8_0": 2800},
            tensors=37,
            weights=3700,
            bits_per_weight=8.5,
        ),
    )


def lineage(project: Params) -> tuple[ArtifactRecord, ...]:
    """The records of every artifact of a project, parents before children."""
    source = artifact("checkpoints/base", "source", "pin")
    made = {"base": source}
    found = [source]
    for name in project.adapters:
        adapter = artifact(f"adapters/{name}", "adapter", "pin")
        made[name] = artifact(f"checkpoints/{name}", "merged", "merge", parents=[source, adapter])
        found += [adapter, made[name]]
    for name in project.variants:
        full = artifact(f"gguf/{name}/f32", "gguf", "convert", parents=[made[name]], outtype="f32")
        found.append(full)
        for form in project.gguf.quantizations:
            found.append(artifact(f"gguf/{name}/{form}", "gguf", "quantize", parents=[full]))
        for form in project.mlx.artifacts:
            found.append(artifact(f"mlx/{name}/{form}", "mlx", "convert", parents=[made[name]]))
    return tuple(found)


Answer = Callable[[CellSpec, PinnedPrompt], Completion | None]
Verdict = Callable[[CellSpec, PinnedPrompt], ItemState]


def asked(project: Params, cell: CellSpec) -> tuple[str, ...]:
    """The root is scored on all evalsets, the other cells on those of their variant."""
    if cell.id == ROOT_CELL:
        return project.evalset_names
    return project.evalsets[cell.variant]


def cell_evidence(
    project: Params,
    prompt_map: Mapping[str, PinnedPrompt],
    *,
    answer: Answer | None = None,
    verdict: Verdict | None = None,
    records: Mapping[str, CellRecord] | None = None,
) -> dict[str, CellEvidence]:
    """Every cell of a project; one that failed has neither answers nor verdicts.

    Args:
        answer: a cell's answer to a prompt; by default the same one everywhere.
        verdict: its state; by default correct.
        records: records that replace the usual one, by cell id.
    """
    found = {}
    for each in plan.plan(project):
        made = (records or {}).get(each.id) or record(each)
        given = asked(project, each)
        own = [prompt for prompt in prompt_map.values() if prompt.evalset in given]
        answers: dict[str, Completion] = {}
        scores: dict[str, ItemScore] = {}
        for prompt in own:
            said = answer(each, prompt) if answer else completion(prompt)
            if not made.ran:
                continue
            if said is None:
                scores[prompt.key] = item_score(prompt, each.id, "errored")
            else:
                answers[prompt.key] = said
                state: ItemState = verdict(each, prompt) if verdict else "correct"
                scores[prompt.key] = item_score(prompt, each.id, state)
        found[each.id] = CellEvidence(record=made, completions=answers, scores=scores)
    return found


def report_input(
    project: Params,
    prompt_map: Mapping[str, PinnedPrompt],
    *,
    artifacts: tuple[ArtifactRecord, ...] | None = None,
    references: Mapping[str, str] | None = None,
    **how: Any,
) -> ReportInput:
    """What a report reads, graded and analysed by the real code; see `cell_evidence`."""
    cells = cell_evidence(project, prompt_map, **how)
    drift = analyse(graph.hops(project), cells, prompt_map)
    medians = {hop.hop.name: median_divergence(hop) for hop in drift.hops}
    return ReportInput(
        artifacts=lineage(project) if artifacts is None else artifacts,
        cells=tuple(cell.record for cell in cells.values()),
        drift=drift,
        scores=summarize(score for cell in cells.values() for score in cell.scores.values()),
        item_scores={name: cell.scores for name, cell in cells.items()},
        completions={name: cell.completions for name, cell in cells.items()},
        prompts=prompt_map,
        references=references or {},
        median_divergence={name: value for name, value in medians.items() if value is not None},
        asked={each.id: asked(project, each) for each in plan.plan(project)},
    )
