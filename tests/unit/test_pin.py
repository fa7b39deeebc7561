from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pytest

from driftline import __version__
from driftline.conversions.pin import pin
from driftline.errors import InputError, RefusedError
from driftline.project.sections.location import Location
from driftline.schema.artifacts import ArtifactRecord
from driftline.store import digest
from tests import checkpoints
from tests.checkpoints import INDEX, SHARDS, write_json, write_weights
from tests.hub_server import COMMIT, Hub, Repo

ROOT = Path(__file__).parents[2]
CLIENT = """
import json, sys
from pathlib import Path
from driftline.conversions.pin import pin
from driftline.errors import DriftlineError
from driftline.project.sections.location import Location
from driftline.schema.values import canonical

for line in sys.stdin:
    location, kind, destination, name = json.loads(line)
    try:
        answer = [0, canonical(pin(Location(**location), kind, Path(destination), name))]
    except DriftlineError as error:
        answer = [error.exit_code, str(error)]
    print(json.dumps(answer), flush=True)
"""
"""Pins what its input asks for: a process of its own, since HF_ENDPOINT is read at import."""


def content(folder: Path) -> dict[str, bytes]:
    """Every file outside hidden folders: name to bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


# --------------------------------------------------------------------------------- a local folder


def test_a_local_source(tmp_path: Path) -> None:
    folder = checkpoints.source(tmp_path / "models" / "tiny")
    write_json(folder / "golden.json", {"a": 1})
    made = tmp_path / "artifacts" / "checkpoints" / "base"
    record = pin(Location(path=str(folder)), "source", made, "checkpoints/base")
    wanted = content(folder)
    del wanted["README.md"], wanted["golden.json"]
    assert content(made) == wanted
    assert (record.kind, record.conversion, record.parents) == ("source", "pin", ())
    assert (record.tool, record.tool_version) == ("driftline pin", __version__)
    assert record.arguments == {"path": str(folder)}
    assert record.notes == ("left out: README.md, golden.json",)
    assert record.files == digest.rows(made)
    assert record.identity == digest.identity(record.files)
    assert record.census is not None
    assert record.census.elements == {"F32": 24}
    assert digest.verify(made, record.files, remedy="") == record.identity


def test_a_local_sharded_source_with_templates(tmp_path: Path) -> None:
    folder = checkpoints.sharded(tmp_path / "tiny")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ x }}", encoding="utf-8")
    record = pin(Location(path=str(folder)), "source", tmp_path / "made", "base")
    paths = {row.path for row in record.files}
    assert {INDEX, *SHARDS, "additional_chat_templates/rag.jinja"} < paths


def test_a_local_adapter(tmp_path: Path) -> None:
    folder = checkpoints.adapter(tmp_path / "audit")
    record = pin(Location(path=str(folder)), "adapter", tmp_path / "made", "audit")
    assert record.kind == "adapter"
    assert sorted(content(tmp_path / "made")) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_pinning_again_gives_the_same_bytes_and_replaces_what_was_there(tmp_path: Path) -> None:
    folder = checkpoints.source(tmp_path / "tiny")
    made = tmp_path / "made"
    made.mkdir()
    (made / "stale.bin").touch()
    first = pin(Location(path=str(folder)), "source", made, "base")
    os.utime(folder / "config.json", (0, 0))
    (folder / "config.json").chmod(0o400)
    assert pin(Location(path=str(folder)), "source", made, "base") == first
    assert not (made / "stale.bin").exists()
    assert (made / "config.json").stat().st_mode & 0o200  # DVC replaces it later


@pytest.mark.parametrize(
    ("kind", "name", "where"),
    [
        ("source", "checkpoints/base", "source.path"),
        ("adapter", "adapters/audit", "adapters.audit.path"),
    ],
)
def test_a_missing_folder_names_the_value(tmp_path: Path, kind: Any, name: str, where: str) -> None:
    with pytest.raises(
        InputError, match=f"error: {re.escape(where)}: 'no/such' not found"
    ) as caught:
        pin(Location(path="no/such"), kind, tmp_path / "out" / "made", name)
    assert caught.value.exit_code == 2
    assert "params.yaml" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        pin(Location(path=str(tmp_path / "x.gguf")), "source", tmp_path / "made", "base")


def test_what_is_refused_leaves_nothing(tmp_path: Path) -> None:
    folder = checkpoints.source(tmp_path / "tiny")
    (folder / "sub").mkdir()
    (folder / "sub" / "modeling.py").touch()
    made = tmp_path / "out" / "made"
    with pytest.raises(RefusedError, match=r"modeling\.py"):
        pin(Location(path=str(folder)), "source", made, "base")
    assert not made.parent.exists()


# ---------------------------------------------------------------------------------------- the Hub


@dataclass(frozen=True)
class Answer:
    """Exit code, and the record as JSON or the error as shown."""

    code: int
    text: str

    @property
    def record(self) -> ArtifactRecord:
        assert self.code == 0, self.text
        return ArtifactRecord.model_validate_json(self.text)


class Client:
    """A process that pins from the Hub, with an environment of its own."""

    def __init__(self, endpoint: str, home: Path, **env: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            cwd=ROOT,
            env=environment | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def pin(self, *arguments: Any) -> Answer:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client died: its traceback is above"
        return Answer(*json.loads(line))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def shared_client(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(hub.endpoint, tmp_path_factory.mktemp("hf")) as client:
        yield client


Serve = Callable[..., Repo]


@pytest.fixture
def serve(hub: Hub) -> Serve:
    """Put files on the Hub under a new name, so that no cache has them."""

    def add(files: Mapping[str, bytes], **faults: Any) -> Repo:
        lfs = frozenset(name for name in files if name.endswith((".safetensors", ".model")))
        repo = Repo(f"org/tiny-{len(hub.repos)}", files, lfs, **faults)
        hub.repos[repo.name] = repo
        return repo

    return add


class FromHub:
    """Pins a repository into `made`: in the shared process, or in a fresh one with `env`."""

    def __init__(self, hub: Hub, client: Client, folder: Path) -> None:
        self.hub, self.client = hub, client
        self.made, self.home = folder / "out" / "made", folder / "hf"

    def __call__(self, repo: Repo | str, *, kind: str = "source", revision: str = COMMIT) -> Answer:
        return self.client.pin(*self._arguments(repo, kind, revision))

    def fresh(self, repo: Repo | str, *, revision: str = COMMIT, **env: str) -> Answer:
        endpoint = env.pop("HF_ENDPOINT", self.hub.endpoint)
        with Client(endpoint, self.home, **env) as client:
            return client.pin(*self._arguments(repo, "source", revision))

    def _arguments(self, repo: Repo | str, kind: str, revision: str) -> tuple[Any, ...]:
        name = repo if isinstance(repo, str) else repo.name
        return {"repo": name, "revision": revision}, kind, str(self.made), "adapters/audit"


@pytest.fixture
def from_hub(hub: Hub, shared_client: Client, tmp_path: Path) -> FromHub:
    return FromHub(hub, shared_client, tmp_path)


@pytest.fixture
def made(from_hub: FromHub) -> Path:
    return from_hub.made


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, bytes]:
    folder = checkpoints.source(tmp_path / "tiny")
    return content(folder) | {".gitattributes": b"*.safetensors filter=lfs\n"}


def test_a_hub_source(serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes]) -> None:
    repo = serve(tiny | {"pytorch_model.bin": b"\x80\x02}", "original/model.pth": b"x"})
    record = from_hub(repo).record
    del tiny["README.md"], tiny[".gitattributes"]
    assert content(made) == tiny
    assert not any(path.is_symlink() for path in made.rglob("*"))
    assert (record.tool, record.tool_version) == ("huggingface-hub", version("huggingface-hub"))
    assert record.arguments == {"repo": repo.name, "revision": COMMIT}
    assert record.notes == (
        "left out: .gitattributes, README.md, original/model.pth, pytorch_model.bin",
    )
    assert record.identity == digest.identity(digest.rows(made))
    assert repo.fetched() == set(tiny)


def test_hub_and_local_pins_of_the_same_bytes_have_one_identity(
    serve: Serve, from_hub: FromHub, tmp_path: Path
) -> None:
    folder = checkpoints.sharded(tmp_path / "sharded")
    record = from_hub(serve(content(folder))).record
    local = pin(Location(path=str(folder)), "source", tmp_path / "local", "base")
    assert record.identity == local.identity
    assert record.files == local.files
    assert record.census == local.census


def test_a_second_pin_fetches_nothing(
    serve: Serve, from_hub: FromHub, tiny: dict[str, bytes]
) -> None:
    repo = serve(tiny)
    first = from_hub(repo).record
    repo.requests.clear()
    assert from_hub(repo).record == first
    assert repo.fetched() == set()


def test_a_hub_adapter(serve: Serve, from_hub: FromHub, made: Path, tmp_path: Path) -> None:
    files = content(checkpoints.adapter(tmp_path / "audit"))
    extra = {"training_args.bin": b"\x80\x02", "checkpoint-5/model.safetensors": b"x"}
    assert from_hub(serve(files | extra), kind="adapter").record.kind == "adapter"
    assert sorted(content(made)) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("revision", ["main", "v1"])
def test_a_branch_or_tag_prints_the_commit(
    serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes], revision: str
) -> None:
    repo = serve(tiny)
    answer = from_hub(repo, revision=revision, kind="adapter")
    assert answer.code == 2
    assert f"adapters.audit.revision: '{revision}' can move" in answer.text
    assert f"\n    revision: {COMMIT}\n" in answer.text
    assert repo.fetched() == set()
    assert not made.parent.exists()


@pytest.mark.parametrize("env", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_branch_when_the_hub_cannot_be_reached(
    hub: Hub, from_hub: FromHub, env: dict[str, str]
) -> None:
    answer = from_hub.fresh("org/tiny", revision="main", **env)
    assert answer.code == 2
    endpoint = env.get("HF_ENDPOINT", hub.endpoint)
    assert f"`git ls-remote {endpoint}/org/tiny main` prints it" in answer.text


def test_an_unreachable_hub(from_hub: FromHub, made: Path) -> None:
    answer = from_hub.fresh("org/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer.code == 4
    assert "source: fetching org/tiny failed" in answer.text
    assert not made.parent.exists()


@pytest.mark.parametrize("name", ["org/none", "not a repo!"])
@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_repository_that_is_not_there(from_hub: FromHub, name: str, revision: str) -> None:
    answer = from_hub(name, revision=revision)
    assert answer.code == 2
    assert f"source.repo: '{name}' is not on the Hub for you" in answer.text


@pytest.mark.parametrize("revision", ["f" * 40, "gone"])
def test_a_revision_that_is_not_there(
    serve: Serve, from_hub: FromHub, tiny: dict[str, bytes], revision: str
) -> None:
    repo = serve(tiny)
    answer = from_hub(repo, revision=revision)
    assert answer.code == 2
    assert f"source.revision: {repo.name} has no such revision" in answer.text


def test_a_private_repository_needs_the_token(
    serve: Serve, from_hub: FromHub, tiny: dict[str, bytes]
) -> None:
    repo = serve(tiny, private="hf_secret")
    refused = from_hub(repo)
    assert refused.code == 2
    assert "set HF_TOKEN" in refused.text
    answer = from_hub.fresh(repo, HF_TOKEN="hf_secret")
    assert answer.record.census
    assert "hf_secret" not in answer.text
    assert {r.authorization for r in repo.requests if r.path.startswith("/cdn/")} == {None}


def test_a_pickle_only_repository_is_refused_before_any_download(
    serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes]
) -> None:
    tiny["pytorch_model.bin"] = tiny.pop("model.safetensors")
    repo = serve(tiny)
    answer = from_hub(repo)
    assert answer.code == 3
    assert "only pickled weights: 'pytorch_model.bin'" in answer.text
    assert repo.fetched() == set()
    assert not made.parent.exists()


def test_code_is_refused_before_any_download(
    serve: Serve, from_hub: FromHub, tiny: dict[str, bytes]
) -> None:
    repo = serve(tiny | {"modeling_x.py": b"raise SystemExit"})
    answer = from_hub(repo)
    assert answer.code == 3
    assert "'modeling_x.py': code" in answer.text
    assert repo.fetched() == set()


def test_a_dangerous_config_is_refused_before_the_weights(
    serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes]
) -> None:
    repo = serve(tiny | {"config.json": b'{"auto_map": {"AutoModel": "other/repo--x.X"}}'})
    answer = from_hub(repo)
    assert answer.code == 3
    assert "'config.json': auto_map" in answer.text
    assert "config.json" in repo.fetched()
    assert "model.safetensors" not in repo.fetched()
    assert not made.parent.exists()


def test_only_the_shards_of_the_index_are_fetched(
    serve: Serve, from_hub: FromHub, tmp_path: Path
) -> None:
    files = content(checkpoints.sharded(tmp_path / "sharded"))
    repo = serve(files | {"consolidated.safetensors": b"x" * 99})
    assert "consolidated.safetensors" in from_hub(repo).record.notes[0]
    assert "consolidated.safetensors" not in repo.fetched()


def test_missing_and_ambiguous_shards_are_refused_before_the_weights(
    serve: Serve, from_hub: FromHub, tmp_path: Path
) -> None:
    files = content(checkpoints.sharded(tmp_path / "sharded"))
    files["model.safetensors"] = files.pop(SHARDS[1])
    repo = serve(files)
    answer = from_hub(repo)
    assert answer.code == 3
    assert f"'{SHARDS[1]}': missing" in answer.text
    assert "'model.safetensors': extra" in answer.text
    assert not any(name.endswith(".safetensors") for name in repo.fetched())


def test_an_interrupted_download_is_resumed(
    serve: Serve, from_hub: FromHub, made: Path, tmp_path: Path
) -> None:
    folder = checkpoints.source(tmp_path / "large")
    # 24 MB, because the client keeps what it has in steps of 10 MiB.
    write_weights(folder / "model.safetensors", "embed", size=2_000_000)
    repo = serve(content(folder), cut_once={"model.safetensors": 15_000_000})
    assert from_hub(repo).code == 0
    assert repo.transfers("model.safetensors") == [None, "bytes=10485760-"]
    weights = (folder / "model.safetensors").read_bytes()
    assert (made / "model.safetensors").read_bytes() == weights


def test_a_failed_download_keeps_finished_files(
    serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes]
) -> None:
    repo = serve(tiny, failing={"model.safetensors": 500})
    answer = from_hub.fresh(repo)
    assert answer.code == 4
    assert "finished files are not fetched again" in answer.text
    assert "?" not in answer.text  # a CDN's URL carries a signature
    assert not made.parent.exists()
    repo.failing.clear()
    repo.requests.clear()
    assert from_hub.fresh(repo).code == 0
    assert repo.fetched() == {"model.safetensors"}


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model"])
def test_content_that_is_not_what_is_listed_is_refused(
    serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes], name: str
) -> None:
    altered = bytearray(tiny[name])
    altered[-1] ^= 1
    repo = serve(tiny, sent={name: bytes(altered)})
    answer = from_hub(repo)
    assert answer.code == 3
    assert f"'{name}' is not what the Hub lists" in answer.text
    assert repo.transfers(name) == [None, None]
    assert not made.parent.exists()
    repo.sent.clear()
    assert from_hub(repo).code == 0
    assert (made / name).read_bytes() == tiny[name]


def test_a_bit_flipped_in_the_cache_is_fetched_again(
    serve: Serve, from_hub: FromHub, tiny: dict[str, bytes]
) -> None:
    repo = serve(tiny)
    first = from_hub.fresh(repo).record
    [cached] = from_hub.home.rglob("snapshots/*/model.safetensors")
    data = bytearray(cached.read_bytes())
    data[random.Random(0).randrange(len(data))] ^= 4
    cached.resolve().write_bytes(data)
    repo.requests.clear()
    assert from_hub.fresh(repo).record == first
    assert repo.fetched() == {"model.safetensors"}


def test_truncated_weights_on_the_hub_are_refused(
    serve: Serve, from_hub: FromHub, made: Path, tiny: dict[str, bytes]
) -> None:
    tiny["model.safetensors"] = tiny["model.safetensors"][:-7]
    answer = from_hub(serve(tiny))
    assert answer.code == 3
    assert "'model.safetensors': not a whole Safetensors file" in answer.text
    assert not made.parent.exists()
