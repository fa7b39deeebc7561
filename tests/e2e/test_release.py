"""`driftline release` on a real run: the same bytes wherever, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests import projects
from tests.conftest import need

pytestmark = pytest.mark.e2e

IDENTITY = (
    "find . -type f | sed 's|^\\./||' | LC_ALL=C sort | xargs -d '\\n' sha256sum -- | sha256sum"
)


@dataclass(frozen=True)
class Clone:
    """A clone of the project, and the circumstances `driftline` runs in there."""

    folder: Path
    variables: dict[str, str]
    umask: int = 0o022
    cores: int | None = None

    def driftline(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [sys.executable, "-m", "driftline.cli", *arguments],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(self.folder / "pipeline"), **self.variables},
            umask=self.umask,
            preexec_fn=self._pin,
            capture_output=True,
            text=True,
            check=False,
        )

    def _pin(self) -> None:
        if self.cores is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: self.cores])

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")

    def released(self) -> dict[str, bytes]:
        top = self.folder / "reports" / "releases"
        found = (path for path in top.rglob("*") if path.is_file())
        return {path.relative_to(top).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small project, committed."""
    need("llamacpp")
    need("mlx")
    made = projects.create(tmp_path_factory.mktemp("release") / "project")
    run = made.repro()
    assert run.code == 0, run.output
    (made.folder / ".gitignore").write_text("/.driftline/\n__pycache__/\n")
    Clone(made.folder, {}).commit()
    return made.folder


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    private = Ed25519PrivateKey.generate()
    own, public = folder / "key.pem", folder / "key.pub.pem"
    own.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    known = private.public_key()
    public.write_bytes(known.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return own, public


@pytest.fixture(scope="module")
def clones(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Clone, Clone]:
    """Two clones in circumstances as different as one machine has them."""
    plain = Clone(
        tmp_path_factory.mktemp("a") / "p",
        {"TZ": "UTC", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "0", "COLUMNS": "60"},
        umask=0o077,
        cores=1,
    )
    other = Clone(
        tmp_path_factory.mktemp("b") / "tiefer" / "noch tiefer" / "größer" / "p",
        {
            "TZ": "Pacific/Kiritimati",
            "LANG": "de_DE.UTF-8",
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "4711",
            "PYTHONUTF8": "1",
        },
        umask=0o002,
    )
    for clone in (plain, other):
        clone.folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["git", "clone", "-q", str(project), str(clone.folder)], check=True, umask=clone.umask
        )
    return plain, other


@pytest.fixture
def fresh(clones: tuple[Clone, Clone], tmp_path: Path) -> Clone:
    """A clone to break."""
    folder = tmp_path / "broken"
    subprocess.run(["git", "clone", "-q", str(clones[0].folder), str(folder)], check=True)
    return Clone(folder, {})


def test_two_clones_make_the_same_bytes(
    clones: tuple[Clone, Clone], keys: tuple[Path, Path]
) -> None:
    made = []
    for clone in clones:
        done = clone.driftline("release", "v1", "--sign", str(keys[0]))
        assert done.returncode == 0, done.stderr
        made.append(clone.released())
    assert made[0] == made[1]
    assert {"v1.json", "v1.md", "v1.sigstore", "v1/bom.cdx.json"} <= made[0].keys()
    assert {"v1/cards/gguf/base/q8_0.md", "v1/cards/mlx/base/4bit.md"} <= made[0].keys()
    assert "v1/attestations/cells/llamacpp/base/q8_0.intoto.json" in made[0]
    record = json.loads(made[0]["v1.json"])
    assert record["commit"] == clones[0].git("rev-parse", "HEAD")
    assert len(record["artifacts"]) == len(record["cells"]) == 4
    host = os.uname().nodename
    for path, data in made[0].items():
        for clone in clones:
            assert str(clone.folder).encode() not in data, path
        assert len(host) < 5 or host.encode() not in data, path


def test_making_it_again_is_nothing(clones: tuple[Clone, Clone]) -> None:
    before = clones[1].released()
    done = clones[1].driftline("release", "v1")
    assert done.returncode == 0, done.stderr
    assert "nothing written" in done.stdout
    assert clones[1].released() == before


def test_the_signature_is_checked_from_the_command_line(
    clones: tuple[Clone, Clone], keys: tuple[Path, Path]
) -> None:
    clone, public = clones[0], str(keys[1])
    done = clone.driftline("verify", "--signature", "v1", "--key", public)
    assert done.returncode == 0, done.stderr
    path = clone.folder / "reports" / "releases" / "v1" / "bom.cdx.json"
    original = path.read_bytes()
    path.write_bytes(original.replace(b'"version": 1', b'"version": 2'))
    done = clone.driftline("verify", "--signature", "v1", "--key", public)
    path.write_bytes(original)
    assert done.returncode == 3
    assert "reports/releases/v1/bom.cdx.json: changed" in done.stderr


def test_a_release_already_given_is_refused_until_forced(clones: tuple[Clone, Clone]) -> None:
    clone = clones[1]
    clone.commit()  # the release itself: HEAD is another commit now
    done = clone.driftline("release", "v1")
    assert done.returncode == 3
    assert clone.git("rev-parse", "HEAD~1") in done.stderr and "--force" in done.stderr


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_coreutils_find_every_identity(project: Path, clones: tuple[Clone, Clone]) -> None:
    record = json.loads(clones[0].released()["v1.json"])
    for artifact in record["artifacts"]:
        folder = project / "artifacts" / artifact["name"]
        done = subprocess.run(
            ["sh", "-c", IDENTITY], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[0] == artifact["identity"], artifact["name"]


def test_dirty_evidence_is_refused(fresh: Clone) -> None:
    path = fresh.folder / "reports" / "lineage" / "evalsets" / "small.jsonl"
    path.write_text(path.read_text() + "\n")
    refused(fresh, "changed  reports/lineage/evalsets/small.jsonl")


def test_stale_params_are_refused(fresh: Clone) -> None:
    path = fresh.folder / "params.yaml"
    path.write_text(path.read_text().replace("max_new_tokens: 64", "max_new_tokens: 65"))
    fresh.commit()
    refused(fresh, "decode.max_new_tokens: 64 then, 65 now")


def test_a_stale_evalset_is_refused(fresh: Clone) -> None:
    path = fresh.folder / "evalsets" / "small.jsonl"
    path.write_text(path.read_text().replace("since 2003?", "since 2003, please?"))
    fresh.commit()
    refused(fresh, "changed  small/count-2003")


def refused(clone: Clone, named: str) -> None:
    done = clone.driftline("release", "v9")
    assert done.returncode == 3, done.stderr
    assert named in done.stderr and "remedy: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (clone.folder / "reports" / "releases" / "v9.json").exists()
