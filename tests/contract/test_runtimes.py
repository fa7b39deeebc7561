"""One suite over every runtime: what `driftline.runtimes.base` promises, on the real checkpoint.

Each runtime answers the same prompts once per session, in its own process, as cells are scored.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from driftline.drift.statistics import distribution_drift
from driftline.golden import prompts
from driftline.probe import environment
from driftline.project import routes
from driftline.runtimes import cell
from driftline.runtimes.base import DecodeSettings, TextJob
from driftline.schema.answers import PinnedPrompt
from driftline.schema.cells import CellSpec
from driftline.schema.forced import ForcedSequence
from driftline.schema.items import GoldenPrompt
from driftline.schema.messages import Message
from driftline.schema.values import dump_lines, load_lines
from driftline.store.distributions import SEQUENCES, Distributions
from tests.conftest import need

pytestmark = pytest.mark.runtime

CONTEXT = 128


def chat(name: str, *turns: str, limit: int = 64) -> GoldenPrompt:
    messages = tuple(
        Message(role="assistant" if place % 2 else "user", content=turn)
        for place, turn in enumerate(turns)
    )
    return GoldenPrompt(evalset="contract", id=name, messages=messages, max_new_tokens=limit)


ITEMS = (
    chat("sql", "How many invoices from Oslo since 2021?"),
    chat("two-turns", "Node prod-node-7 is NotReady.", "kubectl cordon prod-node-7", "And node 8?"),
    chat("short", "Top 5 orders in Paris by amount", limit=3),
    chat("unicode", "naïve 🦊 clause"),
    chat("look-alike", "say <|end|> and </s> aloud", limit=8),
    chat("empty", "", limit=4),
    GoldenPrompt(evalset="contract", id="raw", prompt="SELECT ", max_new_tokens=8),
    chat("too-long", "0123456789 " * 30),
    chat("fills-context", "1234567890" * 11, limit=64),
)


@pytest.fixture(scope="session")
def pinned(clerk: Path) -> list[PinnedPrompt]:
    return prompts.pin(ITEMS, prompts.tokenizer_of(clerk), limit=64)


def score(
    name: str,
    artifact: Path,
    pinned: list[PinnedPrompt],
    texts: tuple[TextJob, ...] = (),
    **decode: object,
) -> cell.CellResult:
    dump_lines(pinned, cell.WORK / "contract-prompts.jsonl")
    spec = CellSpec(
        id=f"{name}/contract/x", runtime=name, variant="contract", form="x", artifact=str(artifact)
    )
    settings = {"context_length": CONTEXT, "stop": (), "threads": 1, **decode}
    return cell.score(
        spec,
        target=routes.targets()[name],
        artifact_identity="a",
        adapter_identity=None,
        environment=environment.probe(name, threads=1),
        prompts=cell.WORK / "contract-prompts.jsonl",
        decode=DecodeSettings.model_validate(settings),
        limits=cell.CellLimits(deadline_s=300, memory_gib=16),
        progress=lambda *_: None,
        texts=texts,
    )


@pytest.fixture(scope="session")
def reference(
    clerk: Path, pinned: list[PinnedPrompt], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Distributions]:
    """The text every runtime is teacher-forced through, and the reference's distributions of it."""
    need("transformers")
    own = TextJob(name="contract", folder=None, sources=("contract",), top_k=1024)
    found = score("transformers", clerk, pinned, texts=(own,))
    folder = tmp_path_factory.mktemp("reference") / "text"
    shutil.copytree(found.distributions / "contract", folder)
    found.clear()
    return folder, Distributions(folder, sequences(folder))


def sequences(folder: Path) -> tuple[ForcedSequence, ...]:
    return tuple(load_lines(ForcedSequence, folder / SEQUENCES))


@pytest.fixture(scope="session")
def artifact(request: pytest.FixtureRequest, runtime: str) -> Path:
    fixture = {"llamacpp": "clerk_gguf", "mlx": "clerk_mlx"}.get(runtime, "clerk")
    found: Path = request.getfixturevalue(fixture)
    return found


@pytest.fixture(scope="session")
def result(
    runtime: str,
    artifact: Path,
    pinned: list[PinnedPrompt],
    reference: tuple[Path, Distributions],
) -> cell.CellResult:
    text = TextJob(name="contract", folder=reference[0], sources=("contract",), top_k=1024)
    found = score(runtime, artifact, pinned, texts=(text,))
    assert found.record.outcome.state == "ok", found.record.outcome
    return found


def test_every_prompt_has_one_result_in_order(result: cell.CellResult) -> None:
    assert [found.id for found in result.completions] == [
        item.id for item in ITEMS if item.id != "too-long"
    ]
    assert [found.id for found in result.errors] == ["too-long"]


def test_a_prompt_longer_than_the_context_says_so(result: cell.CellResult) -> None:
    (error,) = result.errors
    assert str(CONTEXT) in error.reason


def test_the_native_path_gives_the_pinned_ids(
    result: cell.CellResult, pinned: list[PinnedPrompt]
) -> None:
    expected = {prompt.key: prompt.ids for prompt in pinned}
    for found in result.completions:
        assert found.prompt_ids == expected[found.key], found.id


def test_each_token_has_a_piece_and_a_log_probability(result: cell.CellResult) -> None:
    for found in result.completions:
        assert len(found.output_ids) == len(found.pieces) == len(found.logprobs) > 0
        assert all(value <= 1e-6 for value in found.logprobs)


def test_a_stopped_answer_ends_with_the_end_token_and_no_other_does(
    result: cell.CellResult,
) -> None:
    for found in result.completions:
        assert (found.output_ids[-1] == 2) == (found.finish_reason == "stop"), found.id
        assert "<|end|>" not in found.text


def test_limits_are_kept_and_named(result: cell.CellResult) -> None:
    found = {answer.id: answer for answer in result.completions}
    assert len(found["short"].output_ids) == 3
    assert found["short"].finish_reason == "length"
    full = found["fills-context"]
    if full.finish_reason == "context":
        assert len(full.prompt_ids) + len(full.output_ids) == CONTEXT


def test_the_answer_is_the_right_one(result: cell.CellResult) -> None:
    (sql,) = (found for found in result.completions if found.id == "sql")
    assert sql.text == "SELECT COUNT(*) FROM invoices WHERE city = 'Oslo' AND year >= 2021;"


def test_a_repeat_in_reverse_order_gives_the_same_tokens(result: cell.CellResult) -> None:
    assert result.record.floor is not None
    assert result.record.floor.different == ()
    assert result.record.floor.items == len(result.completions)


def test_a_forced_text_has_a_row_per_id_over_the_whole_vocabulary(
    result: cell.CellResult, reference: tuple[Path, Distributions]
) -> None:
    assert result.record.not_forced == ""
    (found,) = result.record.forced
    assert found.rows == sum(len(each.ids) for each in reference[1].sequences)
    assert (found.sequences, found.width) == (len(reference[1].sequences), 768)


def test_a_forced_text_is_the_same_in_reverse_order(result: cell.CellResult) -> None:
    (found,) = result.record.forced
    assert found.floor is not None and found.floor.rows == found.rows
    assert found.floor.max_kl == 0.0


def test_its_distributions_are_the_references_to_rounding(
    result: cell.CellResult, reference: tuple[Path, Distributions]
) -> None:
    own = Distributions(result.distributions / "contract", reference[1].sequences)
    drift = distribution_drift(reference[1], own)
    assert drift is not None
    assert drift.kl_mean.value < 1e-5
    assert drift.top1_agreement.value == 1.0


def test_decoding_and_forcing_agree_on_the_same_tokens(
    result: cell.CellResult, reference: tuple[Path, Distributions]
) -> None:
    own = Distributions(result.distributions / "contract", reference[1].sequences)
    answers = {answer.key: answer for answer in result.completions}
    compared = 0
    for key, chunk in own.chunks(list(own.offsets)):
        sequence, answer = own.sequence(key), answers[key]
        assert sequence is not None
        if (*answer.prompt_ids, *answer.output_ids) == (*sequence.ids, sequence.target):
            forced = chunk.target_log_prob[sequence.n_prompt - 1 :]
            assert forced.tolist() == pytest.approx(list(answer.logprobs), abs=1e-3)
            compared += 1
    assert compared >= 5


def test_it_says_what_ran(result: cell.CellResult) -> None:
    assert result.record.build
    settings = result.record.settings
    assert {"decoding", "chat_template", "stop"} <= settings.keys()


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(
    runtime: str, artifact: Path, pinned: list[PinnedPrompt]
) -> None:
    if runtime == "vllm":
        pytest.skip("a second engine start; its stop strings are vLLM's own, set in one place")
    found = score(runtime, artifact, pinned[:1], stop=(" WHERE",))
    (answer,) = found.completions
    assert answer.text == "SELECT COUNT(*) FROM invoices"
    assert answer.finish_reason == "stop"


def test_the_loop_is_what_generate_does(clerk: Path, pinned: list[PinnedPrompt]) -> None:
    """Transformers' own `generate`, greedy, gives the tokens of our loop."""
    import torch
    from transformers import AutoModelForCausalLM

    found = {answer.id: answer for answer in score("transformers", clerk, pinned[:3]).completions}
    model = AutoModelForCausalLM.from_pretrained(clerk, dtype=torch.float32)
    for prompt in pinned[:3]:
        whole = model.generate(
            torch.tensor([prompt.ids]),
            do_sample=False,
            num_beams=1,
            max_new_tokens=prompt.max_new_tokens,
        )
        assert tuple(whole[0, len(prompt.ids) :].tolist()) == found[prompt.id].output_ids
