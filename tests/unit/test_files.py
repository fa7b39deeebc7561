"""Nobody ever sees half of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline.files import new_directory, write_text


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with new_directory(tmp_path / "out") as folder:
        (folder / "new").write_text("new")
        assert (tmp_path / "out" / "old").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]


def test_a_folder_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(RuntimeError), new_directory(tmp_path / "out") as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert list((tmp_path / "out").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_text_with_a_lone_surrogate_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x\ud800y")
    assert (tmp_path / "a").read_text() == "x\\ud800y"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
