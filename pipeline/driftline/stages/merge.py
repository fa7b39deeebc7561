"""Stage `merge`: one adapter merged into the source.

python -m driftline.stages.merge ADAPTER
"""

from __future__ import annotations

import sys

from driftline.conversions import merge
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project.sections import reading
from driftline.project.sections.location import Location
from driftline.project.sections.merge import Merge
from driftline.schema.artifacts import BASE
from driftline.store import records
from driftline.store.safetensors_header import census


@exits_cleanly
def main() -> None:
    """Merge the adapter the command line names."""
    name = sys.argv[1]
    source = records.verified(f"checkpoints/{BASE}")
    adapter = records.verified(f"adapters/{name}")
    base, lora = records.ARTIFACTS / source.name, records.ARTIFACTS / adapter.name
    merge.check_belongs(lora, reading.section(Location, "source"))
    merged = f"checkpoints/{name}"
    with new_directory(records.ARTIFACTS / merged) as folder:
        arguments = merge.merge(base, lora, folder, dtype=reading.section(Merge, "merge").dtype)
    records.write(
        merged,
        command=("merge", name),
        runtime="transformers",
        kind="merged",
        conversion="merge",
        parents=(source, adapter),
        tool="peft",
        tool_version=merge.merge_version(),
        arguments=arguments,
        census=census(records.ARTIFACTS / merged),
    )


if __name__ == "__main__":
    main()
