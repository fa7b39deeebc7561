"""Stage `pin`: the source checkpoint, or one adapter, verified and copied into the project.

python -m pipeline.stages.pin source | adapter NAME
"""

from __future__ import annotations

import sys

from pipeline import params, records
from pipeline.conversions import pin
from pipeline.errors import exits_cleanly
from pipeline.schema.values import dump


@exits_cleanly
def main() -> None:
    """Pin what the command line names."""
    project = params.read()
    if sys.argv[1] == "source":
        name, location = f"checkpoints/{params.BASE}", project.source
        record = pin.pin(location, "source", records.ARTIFACTS / name, name)
    else:
        name, location = f"adapters/{sys.argv[2]}", project.adapters[sys.argv[2]]
        record = pin.pin(location, "adapter", records.ARTIFACTS / name, name)
    dump(record, records.path_of(name))


if __name__ == "__main__":
    main()
