"""Stage `convert_gguf`: a checkpoint to GGUF with llama.cpp's own converter.

python -m pipeline.stages.convert_gguf VARIANT
"""

from __future__ import annotations

import sys

from pipeline import params, records
from pipeline.conversions import gguf
from pipeline.errors import exits_cleanly
from pipeline.files import new_directory


@exits_cleanly
def main() -> None:
    """Convert the variant the command line names."""
    variant = sys.argv[1]
    outtype = params.read().gguf.outtype
    parent = records.verified(f"checkpoints/{variant}")
    name = f"gguf/{variant}/{outtype}"
    with new_directory(records.ARTIFACTS / name) as folder:
        arguments = gguf.convert(
            records.ARTIFACTS / parent.name, folder, outtype=outtype, name=variant
        )
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
        census=gguf.census(records.ARTIFACTS / name),
    )


if __name__ == "__main__":
    main()
