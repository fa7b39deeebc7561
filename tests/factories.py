"""Small values of the real formats, for tests that need evidence without running a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pipeline import params
from pipeline.digest import sha256_text
from pipeline.drift.evidence import CellEvidence
from pipeline.params import Params
from pipeline.schema import (
    ArtifactKind,
    ArtifactRecord,
    CellRecord,
    CellSpec,
    Census,
    CheckResult,
    Completion,
    FileDigest,
    ItemScore,
    ItemState,
    Message,
    NoiseFloor,
    Outcome,
    Parent,
    PinnedPrompt,
)

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
    }
    return params.parse({**data, **changes}, where="test")


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
    runtime, variant, form = cell.split("/")
    adapter = f"artifacts/adapters/{variant}" if form == "attached" else None
    return CellSpec(
        id=cell,
        runtime=runtime,
        variant=variant,
        form=form,
        artifact=f"artifacts/{variant}/{form}",
        adapter=adapter,
    )


def record(
    cell: str | CellSpec,
    *,
    state: Literal["ok", "error", "skipped", "unstable"] = "ok",
    reason: str = "",
    remedy: str = "",
    different: Iterable[str] = (),
    identity: str = "",
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
        artifact_identity=identity or sha256_text(made.artifact),
        adapter_identity=sha256_text(made.adapter) if made.adapter else None,
        prompts_sha256=sha256_text("prompts"),
        completions_sha256=sha256_text(made.id) if ran else None,
        floor=floor if ran else None,
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
    kind: ArtifactKind,
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
