"""The files of a new project, as a mapping of paths to bytes: nothing is written here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from driftline.project.sections.location import Location
from driftline.schema.artifacts import BASE
from driftline.starter.requirement import Requirement
from driftline.starter.shipped import CI, CORE_LOCK, EXAMPLE, PIPELINE, VLLM_LOCK, shipped, template

GOLDEN = "golden"
PLAIN = re.compile(r"[A-Za-z0-9_./-]+")
CONSTRAINTS_HEAD = (
    "# Versions of all that driftline needs, used as pip constraints: requirements.txt decides\n"
    "# what is installed, this file in which version. From `driftline init`.\n"
)
REQUIREMENTS_HEAD = "# driftline itself; constraints.txt has the versions of all it needs.\n"
REQUIREMENTS_LOCAL = (
    "# `driftline init` ran from a local installation, which no other machine has: this version\n"
    "# has to be on an index, or its wheel in a folder: make run PIP_ARGS='--find-links FOLDER'\n"
)


@dataclass(frozen=True)
class Choice:
    """What a project is about: the embedded example, or a source of one's own with its adapters."""

    source: Location = field(default_factory=lambda: Location(path="models/clerk"))
    adapters: Mapping[str, Location] = field(
        default_factory=lambda: {"audit": Location(path="models/adapters/audit")}
    )
    evalsets: tuple[str, ...] = ("audit", "pods")
    example: bool = True
    ci: str | None = "github"


def own(source: Location, adapters: Mapping[str, Location], ci: str | None) -> Choice:
    """A project about someone's own source."""
    return Choice(source=source, adapters=adapters, evalsets=(GOLDEN,), example=False, ci=ci)


def files(choice: Choice, wanted: Requirement) -> dict[str, bytes]:
    """Every file of the project, by its path, sorted.

    Raises:
        ToolError: driftline's installation lacks one that it ships.
    """
    copied = [*PIPELINE, *(EXAMPLE if choice.example else ())]
    if choice.ci is not None:
        copied += CI[choice.ci]
    files = {name: shipped(name).read_bytes() for name in copied}
    files["params.yaml"] = params_yaml(choice).encode()
    files["requirements.txt"] = requirements(wanted).encode()
    files["constraints.txt"] = constraints(shipped(CORE_LOCK).read_text("utf-8")).encode()
    files["requirements-vllm.txt"] = shipped(VLLM_LOCK).read_bytes()
    files["Makefile"] = template("Makefile").read_bytes()
    files[".gitignore"] = template("gitignore").read_bytes()
    if not choice.example:
        for ending in ("jsonl", "md"):
            name = f"{GOLDEN}.{ending}"
            files[f"evalsets/{name}"] = template(name).read_bytes()
    return dict(sorted(files.items()))


def params_yaml(choice: Choice) -> str:
    """params.yaml with its comments."""
    from jinja2 import Environment, StrictUndefined

    # Not HTML: values are quoted for YAML by `scalar` and `flow`.
    environment = Environment(  # noqa: S701
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(scalar=scalar, flow=flow)
    text = template("params.yaml.jinja").read_text("utf-8")
    return environment.from_string(text).render(
        source=choice.source,
        adapters=dict(choice.adapters),
        variants=list(choice.adapters) or [BASE],
        evalsets=choice.evalsets,
        example=choice.example,
    )


def scalar(text: str) -> str:
    """A text as YAML reads it back: plain where it can be, else quoted."""
    if PLAIN.fullmatch(text) and yaml.safe_load(text) == text:
        return text
    return json.dumps(text)


def flow(place: Location) -> str:
    """A location as a YAML mapping on one line."""
    said = place.model_dump(exclude_none=True)
    return f"{{{', '.join(f'{key}: {scalar(text)}' for key, text in said.items())}}}"


def requirements(wanted: Requirement) -> str:
    """requirements.txt."""
    return f"{REQUIREMENTS_HEAD}{REQUIREMENTS_LOCAL if wanted.local else ''}{wanted.line}\n"


def constraints(lock: str) -> str:
    """constraints.txt: the shipped lock without its own comment."""
    pins = [line for line in lock.splitlines() if line and not line.startswith("#")]
    return CONSTRAINTS_HEAD + "".join(f"{line}\n" for line in pins)
