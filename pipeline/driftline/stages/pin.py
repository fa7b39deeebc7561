"""Stage `pin`: the source checkpoint, or one adapter, verified and copied into the project.

python -m driftline.stages.pin source | adapter NAME
"""

from __future__ import annotations

import sys

from driftline.conversions import pin
from driftline.errors import exits_cleanly
from driftline.project.sections import reading
from driftline.project.sections.location import Location
from driftline.schema.artifacts import BASE
from driftline.store import records


@exits_cleanly
def main() -> None:
    """Pin what the command line names."""
    if sys.argv[1] == "source":
        name, location = f"checkpoints/{BASE}", reading.section(Location, "source")
        made = pin.pin(location, "source", records.ARTIFACTS / name, name)
    else:
        name, location = (
            f"adapters/{sys.argv[2]}",
            reading.section(Location, "adapters", sys.argv[2]),
        )
        made = pin.pin(location, "adapter", records.ARTIFACTS / name, name)
    records.write(
        name,
        command=("pin", *sys.argv[1:]),
        kind=made.kind,
        conversion="pin",
        parents=(),
        tool=made.tool,
        tool_version=made.tool_version,
        arguments=made.arguments,
        census=made.census,
        notes=made.notes,
    )


if __name__ == "__main__":
    main()
