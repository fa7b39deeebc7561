"""Stage `control`: can the loaders of counterfactuals be trusted for this architecture?

python -m driftline.stages.control
"""

from __future__ import annotations

from driftline.counterfactual import base, control, reference
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project import params
from driftline.schema.values import dump, sealed
from driftline.store import records

CONTROLS = records.ARTIFACTS / "controls"


@exits_cleanly
def main() -> None:
    """Try the loader of every format."""
    project = params.read()
    source = records.verified(f"checkpoints/{params.BASE}")
    reference.prepare(project.limits.threads)
    with new_directory(CONTROLS) as folder:
        for kind, target in base.FORMATS.items():
            record = control.control(base.resolve(target), records.ARTIFACTS / source.name)
            dump(sealed(record), folder / f"{kind}.json")


if __name__ == "__main__":
    main()
