"""Identity: recomputable with coreutils, sensitive to every byte and path, blind to order."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import RefusedError
from driftline.schema.artifacts import FileDigest
from driftline.store import digest


def tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


FILES = {
    "config.json": b"{}",
    "model.safetensors": b"\x00\x01",
    "sub/a b.txt": b"",
    "Z": b"z",
    "-r": b"r",
}


def test_coreutils_recompute_it(tmp_path: Path) -> None:
    tree(tmp_path, FILES)
    script = (
        r"find . -type f | sed 's|^\./||' | LC_ALL=C sort | xargs -d '\n' sha256sum -- | sha256sum"
    )
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == digest.identity(digest.rows(tmp_path))


rows = st.lists(
    st.builds(
        FileDigest,
        path=st.text("abc/", min_size=1, max_size=5),
        size=st.integers(0, 9),
        sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    ),
    unique_by=lambda row: row.path,
    min_size=1,
)


@given(rows, st.randoms())
def test_it_does_not_depend_on_order(found: list[FileDigest], rng: random.Random) -> None:
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert digest.identity(found) == digest.identity(shuffled)


@given(rows)
def test_it_depends_on_every_path_and_sum(found: list[FileDigest]) -> None:
    whole = digest.identity(found)
    for place, row in enumerate(found):
        renamed = row.model_copy(update={"path": row.path + "x"})
        assert digest.identity([*found[:place], renamed, *found[place + 1 :]]) != whole
        assert digest.identity(found[:place] + found[place + 1 :]) != whole


def test_verify_names_what_is_extra_missing_and_changed(tmp_path: Path) -> None:
    recorded = digest.rows(tree(tmp_path, FILES))
    assert digest.verify(tmp_path, recorded, remedy="-") == digest.identity(recorded)
    (tmp_path / "new").write_text("new")
    (tmp_path / "Z").unlink()
    (tmp_path / "config.json").write_bytes(b"[]")  # same size
    with pytest.raises(RefusedError) as caught:
        digest.verify(tmp_path, recorded, remedy="dvc repro")
    said = str(caught.value)
    assert "extra    new" in said and "missing  Z" in said and "changed  config.json" in said
    assert caught.value.exit_code == 3


def test_a_symlink_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, FILES)
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(RefusedError, match="symlink"):
        digest.rows(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="no file"):
        digest.rows(tmp_path)
