"""Stage `convert_gguf`: a checkpoint to GGUF with llama.cpp's own converter.

python -m driftline.stages.convert_gguf VARIANT
"""

from __future__ import annotations

import sys

from driftline.conversions import gguf
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project.sections import reading
from driftline.project.sections.gguf import Gguf
from driftline.project.sections.location import Location
from driftline.schema.artifacts import BASE, ArtifactRecord
from driftline.store import records


@exits_cleanly
def main() -> None:
    """Convert the variant the command line names."""
    variant = sys.argv[1]
    outtype = reading.section(Gguf, "gguf").outtype
    location = reading.section(Location, "source")
    parent = records.verified(f"checkpoints/{variant}")
    origin = gguf.origin(location, _source(parent), variant if parent.parents else None)
    name = f"gguf/{variant}/{outtype}"
    with new_directory(records.ARTIFACTS / name) as folder:
        arguments = gguf.convert(
            records.ARTIFACTS / parent.name, folder, outtype=outtype, name=variant, origin=origin
        )
    census = gguf.census(records.ARTIFACTS / name)
    gguf.check_provenance(census, origin, name)
    records.write(
        name,
        command=("convert_gguf", variant),
        runtime="llamacpp",
        kind="gguf",
        conversion="convert",
        parents=(parent,),
        tool="convert_hf_to_gguf.py",
        tool_version=gguf.tool_version(),
        arguments=arguments,
        census=census,
    )


def _source(checkpoint: ArtifactRecord) -> str:
    """Identity of the source a checkpoint is or was merged from."""
    merged_from = {parent.name: parent.identity for parent in checkpoint.parents}
    return merged_from.get(f"checkpoints/{BASE}", checkpoint.identity)


if __name__ == "__main__":
    main()
