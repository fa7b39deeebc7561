"""Stage `control`: can the loaders of counterfactuals be trusted for this architecture?

python -m pipeline.stages.control
"""

from __future__ import annotations

from pipeline import params, records
from pipeline.counterfactual import control, reference
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory
from pipeline.schema.values import dump, sealed

CONTROLS = records.ARTIFACTS / "controls"


@exits_cleanly
def main() -> None:
    """Try the loader of every kind of artifact this project has."""
    project = params.read()
    source = records.verified(f"checkpoints/{params.BASE}")
    reference.prepare(project.limits.threads)
    with new_directory(CONTROLS) as folder:
        for kind in control.KINDS:
            found = control.control(kind, records.ARTIFACTS / source.name)
            dump(sealed(found), folder / f"{kind}.json")


if __name__ == "__main__":
    main()
