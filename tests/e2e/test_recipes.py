"""CONTRIBUTING's recipes, each carried out on a copy of a real project: what has to be touched, and
what runs again.

A recipe here is what a contributor would type, so it is also the proof that no other place knows.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import projects
from tests.conftest import need
from tests.projects import Project

pytestmark = pytest.mark.e2e

PROBE = "probe/dvc.yaml:probe"
LIGHT = {"grade", "drift", "lineage", "report"}
PINNED = "prompts"
TABLE_READERS = {PROBE, PINNED, "control", *LIGHT}
"""What runs where the table changed: no cell, no conversion; the control's model is a tiny one."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project that ran: the source, its GGUF at full precision and one quantization."""
    need("llamacpp")
    project = projects.create(
        tmp_path_factory.mktemp("recipes") / "project",
        items=projects.ITEMS[:4],
        mlx={"artifacts": [], "recipes": {}},
        runtimes={
            "transformers": {"variants": []},
            "llamacpp": {"variants": ["base"]},
            "mlx": {"variants": []},
            "vllm": {"variants": []},
        },
    )
    first = project.repro()
    assert first.code == 0, first.output
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """A copy of it with nothing left to do, its own code included."""
    copied = tmp_path / "project"
    shutil.copytree(made.folder, copied, symlinks=True)
    again = Project(copied).repro()
    assert again.ran == [PROBE], again.output
    return Project(copied)


def code(project: Project, path: str) -> Path:
    return project.folder / "pipeline" / "driftline" / path


def insert(path: Path, anchor: str, text: str) -> None:
    """Put `text` before the one place where `anchor` is."""
    source = path.read_text()
    assert source.count(anchor) == 1, (path, anchor)
    path.write_text(source.replace(anchor, text + anchor))


def stages(project: Project, text: str) -> None:
    insert(project.folder / "dvc.yaml", "  grade:\n    cmd:", text)


def runs(project: Project, **named: list[str]) -> None:
    data = yaml.safe_load((project.folder / "params.yaml").read_text())
    more = {name: {"variants": variants} for name, variants in named.items()}
    project.edit(runtimes={**data["runtimes"], **more})


def ran(project: Project, **environment: str) -> set[str]:
    again = project.repro(**environment)
    assert again.code == 0, again.output
    found = set(again.ran)
    # A second time there is nothing left to do.
    assert project.repro(**environment).ran == [PROBE]
    return found


def metrics(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.folder / "reports" / "metrics.json").read_text())
    return found


TWIN = '''
"""Transformers under another name, with all that a runtime has to say of itself."""

from __future__ import annotations

from typing import ClassVar

from driftline.runtimes.base import Software
from driftline.runtimes.transformers import TransformersRuntime


class TwinRuntime(TransformersRuntime):
    """A Safetensors checkpoint, once more."""

    software: ClassVar[Software] = Software(
        distributions=(("torch",), ("transformers",), ("tokenizers",)), install="make setup"
    )
'''
ROW = """
    Route(
        runtime="twin",
        target="{target}",
        format="checkpoint",
        forms="checkpoint",
        scope="variants",
        stage="score_twin",
        parent=Parent(REFERENCE, "checkpoint"),
        hop="runtime",
        weights="checkpoint",
    ),
"""
STAGE = """  score_twin:
    matrix:
      variant: ${runtimes.twin.variants}
    cmd: python -m driftline.stages.score twin ${item.variant} checkpoint
    deps:
      - artifacts/code/score_twin
      - artifacts/tasks/twin/${item.variant}/checkpoint.json
      - artifacts/attempts/twin/${item.variant}/checkpoint
      - artifacts/env/twin.json
      - artifacts/prompts/${item.variant}.jsonl
      - artifacts/texts/${item.variant}
      - artifacts/checkpoints/${item.variant}
    outs:
      - artifacts/cells/twin/${item.variant}/checkpoint

"""
TWIN_HOP = "transformers/base/checkpoint → twin/base/checkpoint"


def add_twin(project: Project) -> None:
    """CONTRIBUTING, "a runtime": one module, one row, one stage; then params.yaml names it."""
    code(project, "runtimes/twin.py").write_text(TWIN.lstrip())
    row = ROW.format(target="driftline.runtimes.twin:TwinRuntime").lstrip("\n")
    insert(code(project, "project/routes.py"), ")\n\nROOT_CELL =", row)
    stages(project, STAGE)
    runs(project, twin=["base"])


def test_a_runtime_is_one_module_one_row_one_stage(project: Project) -> None:
    add_twin(project)
    assert ran(project) == {*TABLE_READERS, "score_twin@base"}
    assert project.cell("twin/base/checkpoint")["outcome"]["state"] == "ok"
    report = (project.folder / "reports" / "lineage.md").read_text()
    assert f"`{TWIN_HOP}`" in report
    drift = json.loads((project.folder / "artifacts" / "drift" / "drift.json").read_text())
    (hop,) = (each for each in drift["hops"] if each["hop"]["child"] == "twin/base/checkpoint")
    # It is the reference once more: nothing drifts, and its weights are its checkpoint's.
    assert hop["split"]["end_to_end"]["kl_max"] == 0 == hop["split"]["weights"]["kl_max"]
    assert metrics(project)["cells"]["twin"]["base"]["checkpoint"]["small"]["accuracy"] == 1.0
    listed = project.driftline("plan").stdout
    assert "twin/base/checkpoint" in listed and "score_twin@base" in listed

    # A comment in its row runs no cell at all: what a row says reaches a cell by its task.
    insert(code(project, "project/routes.py"), '        runtime="twin",\n', "        # a comment\n")
    assert ran(project) == TABLE_READERS

    # A comment in what one runtime says of itself runs its cells and no other's.
    with code(project, "runtimes/twin.py").open("a") as module:
        module.write("# a comment\n")
    assert ran(project) == {PROBE, "score_twin@base", *LIGHT}


def test_an_installed_package_brings_a_runtime(project: Project, tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    package = source / "twin_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""A runtime for driftline."""\n')
    (package / "runtime.py").write_text(TWIN.lstrip())
    row = ROW.format(target="twin_runtime.runtime:TwinRuntime").strip().rstrip(",")
    (package / "route.py").write_text(
        f"from driftline.project.routes import REFERENCE, Parent, Route\n\nROUTE = {row}\n"
    )
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "twin-runtime"\nversion = "1"\n'
        '[project.entry-points."driftline.runtimes"]\ntwin = "twin_runtime.route:ROUTE"\n'
    )
    quiet = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *quiet, "--target", str(site), str(source)],
        check=True,
    )
    stages(project, STAGE)
    runs(project, twin=["base"])
    # No file of driftline changed: not even prompts are pinned anew.
    assert ran(project, PYTHONPATH=str(site)) == {PROBE, "score_twin@base", *LIGHT}
    assert project.cell("twin/base/checkpoint")["outcome"]["state"] == "ok"
    assert f"`{TWIN_HOP}`" in (project.folder / "reports" / "lineage.md").read_text()
    listing = (project.folder / "artifacts" / "code" / "score_twin").read_text()
    assert "  twin_runtime/runtime.py\n" in listing


HALF_SECTION = '''
"""Checkpoints stored at half precision, of every variant: `half`."""

from __future__ import annotations

from driftline.schema.values import Value


class Half(Value):
    """`artifacts` are the types to store them in."""

    artifacts: tuple[str, ...]
'''
HALF_CONVERSION = '''
"""Checkpoint → the same checkpoint with its tensors in another type."""

from __future__ import annotations

import shutil
from pathlib import Path

from pydantic import JsonValue


def convert(source: Path, target: Path, *, dtype: str) -> dict[str, JsonValue]:
    """Write the checkpoint in `source` to the existing folder `target`, stored as `dtype`."""
    import torch
    from safetensors.torch import load_file, save_file

    for path in source.iterdir():
        if path.suffix == ".safetensors":
            stored = {name: t.to(getattr(torch, dtype)) for name, t in load_file(path).items()}
            save_file(stored, target / path.name, metadata={"format": "pt"})
        else:
            shutil.copyfile(path, target / path.name)
    return {"dtype": dtype}
'''
HALF_STAGE = '''
"""Stage `convert_half`: a checkpoint stored in another type."""

from __future__ import annotations

import sys

from driftline.conversions import half
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.store import records
from driftline.store.safetensors_header import census


@exits_cleanly
def main() -> None:
    """Convert the variant the command line names."""
    variant, form = sys.argv[1:3]
    parent = records.verified(f"checkpoints/{variant}")
    name = f"half/{variant}/{form}"
    with new_directory(records.ARTIFACTS / name) as folder:
        arguments = half.convert(records.ARTIFACTS / parent.name, folder, dtype=form)
    records.write(
        name,
        command=("convert_half", variant, form),
        kind="half",
        conversion="convert",
        parents=(parent,),
        tool="torch",
        tool_version="1",
        arguments=arguments,
        census=census(records.ARTIFACTS / name),
    )


if __name__ == "__main__":
    main()
'''
HALF_DVC = """  convert_half:
    matrix:
      variant: ${variants}
      form: ${half.artifacts}
    cmd: python -m driftline.stages.convert_half ${item.variant} ${item.form}
    deps:
      - artifacts/code/convert_half
      - artifacts/checkpoints/${item.variant}
    outs:
      - artifacts/half/${item.variant}/${item.form}
      - artifacts/records/half/${item.variant}/${item.form}

  score_half:
    matrix:
      variant: ${runtimes.halved.variants}
      form: ${half.artifacts}
    cmd: python -m driftline.stages.score halved ${item.variant} ${item.form}
    deps:
      - artifacts/code/score_halved
      - artifacts/tasks/halved/${item.variant}/${item.form}.json
      - artifacts/attempts/halved/${item.variant}/${item.form}
      - artifacts/env/halved.json
      - artifacts/prompts/${item.variant}.jsonl
      - artifacts/texts/${item.variant}
      - artifacts/half/${item.variant}/${item.form}
    outs:
      - artifacts/cells/halved/${item.variant}/${item.form}

"""


def add_half(project: Project) -> None:
    """CONTRIBUTING, "a conversion": a section of params.yaml, the conversion, its stage, rows."""
    code(project, "project/sections/half.py").write_text(HALF_SECTION.lstrip())
    code(project, "conversions/half.py").write_text(HALF_CONVERSION.lstrip())
    code(project, "stages/convert_half.py").write_text(HALF_STAGE.lstrip())
    params = code(project, "project/params.py")
    insert(params, "    decode: Decode\n", "    half: Half\n")
    insert(
        params,
        "from driftline.project.sections.limits import",
        "from driftline.project.sections.half import Half\n",
    )
    table = code(project, "project/routes.py")
    insert(table, "}\n\n\n@dataclass(frozen=True)\nclass Conversion:", _FORMAT)
    insert(table, ")\n\nScope =", _CONVERSION)
    insert(table, ")\n\nROOT_CELL =", _HALF_ROW)
    stages(project, HALF_DVC)
    project.edit(half={"artifacts": ["bfloat16"]})
    runs(project, halved=["base"])


_FORMAT = '    "half": Format("half", library="transformers", forms=True),\n'
_CONVERSION = """    Conversion(
        "convert_half", "convert", "half", "half", forms="${half.artifacts}", given="half"
    ),
"""
_HALF_ROW = """    Route(
        runtime="halved",
        target="driftline.runtimes.transformers:TransformersRuntime",
        format="half",
        forms="${half.artifacts}",
        scope="variants",
        stage="score_half",
        parent=Parent(REFERENCE, "checkpoint"),
        hop="convert",
        weights="counterfactual",
    ),
"""


def test_a_format_is_a_section_a_conversion_a_stage_and_its_rows(project: Project) -> None:
    add_half(project)
    added = {"convert_half@base-bfloat16", "score_half@base-bfloat16"}
    assert ran(project) == {*TABLE_READERS, *added}
    assert project.cell("halved/base/bfloat16")["outcome"]["state"] == "ok"
    drift = json.loads((project.folder / "artifacts" / "drift" / "drift.json").read_text())
    (hop,) = (each for each in drift["hops"] if each["hop"]["child"] == "halved/base/bfloat16")
    assert hop["hop"]["parent"] == "transformers/base/checkpoint"
    assert hop["split"]["end_to_end"]["positions"] > 0
    assert "format half have no counterfactual" in hop["split"]["withheld"]
    report = (project.folder / "reports" / "lineage.md").read_text()
    assert "`transformers/base/checkpoint → halved/base/bfloat16`" in report
    done = project.driftline("verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_quantization_is_one_word(project: Project) -> None:
    project.edit(gguf={"outtype": "f32", "quantizations": ["q8_0", "q4_k_m"]})
    names = ("quantize", "score_quantized", "counterfactual_quantized")
    assert ran(project) == {PROBE, *(f"{name}@base-q4_k_m" for name in names), *LIGHT}


CONVERTING = re.compile(r"pin|merge|convert|quantize")


def add_check(project: Project) -> None:
    """CONTRIBUTING, "a check": its type, its branch in grading; then an evalset asks for it."""
    items = code(project, "schema/items.py")
    insert(
        items,
        "class SamePromptIds(_Check):",
        'class AtMost(_Check):\n    """The completion has at most `words` words."""\n\n'
        '    kind: Literal["at_most"]\n    words: int\n\n\n',
    )
    insert(items, "    | SamePromptIds,\n", "    | AtMost\n")
    grade = code(project, "golden/grade.py")
    insert(grade, "    Canary,\n    Check,\n", "    AtMost,\n")
    insert(
        grade,
        "        case SamePromptIds():",
        "        case AtMost():\n"
        "            few = len(text.split()) <= rule.words\n"
        '            result = GOOD if few else CheckGrade(0.0, "too many words")\n',
    )


def test_a_new_kind_of_check_runs_no_model(project: Project) -> None:
    before = metrics(project)["cells"]["llamacpp"]["base"]["q8_0"]["small"]["accuracy"]
    add_check(project)
    short = {"kind": "at_most", "words": 1}
    asked = [{**item, "checks": [*item["checks"], short]} for item in projects.ITEMS[:4]]
    projects.write_items(project.folder / "evalsets" / "small.jsonl", asked)
    assert ran(project) == {PROBE, PINNED, *LIGHT}
    after = metrics(project)["cells"]["llamacpp"]["base"]["q8_0"]["small"]["accuracy"]
    assert (before, after) == (1.0, 0.0)


def add_statistic(project: Project) -> None:
    """CONTRIBUTING, "a statistic": its field, its formula, where it is to be seen."""
    insert(code(project, "schema/statistics.py"), "    kl_p90: float\n", "    kl_p75: float\n")
    insert(
        code(project, "drift/statistics.py"),
        "        kl_p90=ranks[1],\n",
        "        kl_p75=float(np.quantile(sample.kl, 0.75)),\n",
    )
    insert(
        code(project, "report/metrics.py"),
        '        "kl_max": whole.kl_max,\n',
        '        "kl_p75": whole.kl_p75,\n',
    )


def test_a_statistic_is_a_field_a_formula_and_where_it_is_seen(project: Project) -> None:
    add_statistic(project)
    # Grading and prompts know nothing of statistics.
    assert ran(project) == {PROBE, *LIGHT} - {"grade"}
    text = (project.folder / "reports" / "metrics.json").read_text()
    assert '"kl_p75"' in text


def test_a_new_field_of_a_cells_record_pins_and_converts_nothing(project: Project) -> None:
    cells = code(project, "schema/cells.py")
    anchor = "    settings: dict[str, JsonValue]\n"
    assert cells.read_text().count(anchor) == 1
    cells.write_text(cells.read_text().replace(anchor, f"{anchor}    remark: str = ''\n"))
    again = ran(project)
    assert not [stage for stage in again if CONVERTING.match(stage)], again
    assert "score_source" in again
