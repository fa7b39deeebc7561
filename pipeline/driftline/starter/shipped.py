"""Files of this repository that a new project gets a copy of, wherever driftline is installed.

A wheel has them in `data` below this folder: `setup.py` copies them there as it is built, by the
names listed here. A checkout has them at its top.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
DATA = FOLDER / "data"
CHECKOUT = FOLDER.parents[2]
TEMPLATES = FOLDER / "templates"

PIPELINE = (
    "dvc.yaml",
    "probe/dvc.yaml",
    "artifacts/.gitignore",
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
)
"""What every project has, byte for byte."""
EXAMPLE = (
    "models/clerk/README.md",
    "models/clerk/chat_template.jinja",
    "models/clerk/config.json",
    "models/clerk/generation_config.json",
    "models/clerk/model.safetensors",
    "models/clerk/tokenizer.model",
    "models/clerk/tokenizer_config.json",
    "models/adapters/audit/README.md",
    "models/adapters/audit/adapter_config.json",
    "models/adapters/audit/adapter_model.safetensors",
    "evalsets/audit.jsonl",
    "evalsets/audit.md",
    "evalsets/pods.jsonl",
    "evalsets/pods.md",
)
"""A checkpoint, an adapter and golden prompts, for a project without its own yet."""
CORE_LOCK = "requirements/core.lock"
VLLM_LOCK = "requirements/vllm.lock"
CI = {
    "github": (".github/workflows/nightly.yml", ".github/workflows/machines.yml"),
    "gitlab": (".gitlab-ci.yml",),
}

SHIPPED = (*PIPELINE, *EXAMPLE, CORE_LOCK, VLLM_LOCK, *CI["github"], *CI["gitlab"])


def shipped(name: str) -> Path:
    """Where a shipped file is: among the wheel's data, or in the checkout.

    Raises:
        ToolError: it is not there: the installation is not whole.
    """
    path = (DATA if DATA.is_dir() else CHECKOUT) / name
    if not path.is_file():
        from driftline.errors import ToolError

        raise ToolError(
            f"{path}: not found; driftline ships it, and this installation does not have it",
            remedy="pip install --force-reinstall --no-deps driftline, from where it came from",
        )
    return path


def template(name: str) -> Path:
    """Where a template of a new project's own files is."""
    return TEMPLATES / name
