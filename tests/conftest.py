"""Shared fixtures: the embedded checkpoint, converted once per session for whoever asks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftline.conversions import gguf, mlx
from driftline.probe import environment
from driftline.project import routes
from driftline.project.sections.mlx import MlxRecipe
from tests.paths import ROOT

REQUIRED = tuple(filter(None, os.environ.get("DRIFTLINE_REQUIRED_RUNTIMES", "").split(",")))
"""Runtimes whose absence is a failure, not a skip: `make test` names all four on Linux."""


@pytest.fixture(scope="session")
def clerk() -> Path:
    """The embedded default checkpoint."""
    return ROOT / "models" / "clerk"


@pytest.fixture(scope="session")
def clerk_gguf(clerk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an F32 GGUF, by llama.cpp's converter."""
    need("llamacpp")
    folder = tmp_path_factory.mktemp("gguf")
    gguf.convert(clerk, folder, outtype="f32", name="clerk")
    return folder


@pytest.fixture(scope="session")
def clerk_mlx(clerk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as float32 MLX."""
    need("mlx")
    folder = tmp_path_factory.mktemp("mlx") / "float32"
    mlx.convert(clerk, folder, MlxRecipe(dtype="float32"))
    return folder


def need(name: str) -> None:
    """Skip, or fail where the runtime is required, when it is not installed."""
    os.chdir(ROOT)  # a runtime's own environment lies beside the project
    found = environment.probe(name, threads=1)
    if "missing" in found:
        message = f"{name}: {found['missing']}; install: {found['install']}"
        pytest.fail(message) if name in REQUIRED else pytest.skip(message)


@pytest.fixture(scope="session", params=list(routes.targets()))
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime in turn."""
    name: str = request.param
    need(name)
    return name
