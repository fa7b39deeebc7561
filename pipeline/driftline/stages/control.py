"""Stage `control`: can the loaders of counterfactuals be trusted for this architecture?

python -m driftline.stages.control
"""

from __future__ import annotations

from driftline.counterfactual import base, control, reference
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project import routes
from driftline.project.sections import reading
from driftline.project.sections.limits import Limits
from driftline.schema.artifacts import BASE
from driftline.schema.values import dump, sealed
from driftline.store import records

CONTROLS = records.ARTIFACTS / "controls"


@exits_cleanly
def main() -> None:
    """Try the loader of every format."""
    source = records.verified(f"checkpoints/{BASE}")
    reference.prepare(reading.section(Limits, "limits").threads)
    with new_directory(CONTROLS) as folder:
        for name, target in routes.counterfactuals().items():
            record = control.control(base.resolve(target), records.ARTIFACTS / source.name)
            dump(sealed(record), folder / f"{name}.json")


if __name__ == "__main__":
    main()
