"""Stage `control`: can the loaders of counterfactuals be trusted for this architecture?

python -m driftline.stages.control
"""

from __future__ import annotations

from driftline.counterfactual import control, reference
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project.sections import reading
from driftline.project.sections.limits import Limits
from driftline.schema.artifacts import BASE
from driftline.schema.values import dump, sealed
from driftline.store import records

CONTROLS = records.ARTIFACTS / "controls"


@exits_cleanly
def main() -> None:
    """Try the loader of every kind of artifact this project has."""
    source = records.verified(f"checkpoints/{BASE}")
    reference.prepare(reading.section(Limits, "limits").threads)
    with new_directory(CONTROLS) as folder:
        for kind in control.KINDS:
            found = control.control(kind, records.ARTIFACTS / source.name)
            dump(sealed(found), folder / f"{kind}.json")


if __name__ == "__main__":
    main()
