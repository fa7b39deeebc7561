"""Stage `merge`: one adapter merged into the source.

python -m driftline.stages.merge ADAPTER
"""

from __future__ import annotations

import sys

from driftline.conversions import merge
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project import params
from driftline.store import records
from driftline.store.safetensors_header import census


@exits_cleanly
def main() -> None:
    """Merge the adapter the command line names."""
    name = sys.argv[1]
    project = params.read()
    source = records.verified(f"checkpoints/{params.BASE}")
    adapter = records.verified(f"adapters/{name}")
    base, lora = records.ARTIFACTS / source.name, records.ARTIFACTS / adapter.name
    merge.check_belongs(lora, project.source)
    merged = f"checkpoints/{name}"
    with new_directory(records.ARTIFACTS / merged) as folder:
        arguments = merge.merge(base, lora, folder, dtype=project.merge.dtype)
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
