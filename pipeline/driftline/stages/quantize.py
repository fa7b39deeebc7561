"""Stage `quantize`: a GGUF to one quantization, through llama.cpp.

python -m driftline.stages.quantize VARIANT QUANTIZATION
"""

from __future__ import annotations

import sys

from driftline.conversions import gguf
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project.sections import reading
from driftline.project.sections.gguf import Gguf
from driftline.project.sections.limits import Limits
from driftline.store import records


@exits_cleanly
def main() -> None:
    """Quantize the variant the command line names."""
    variant, quantization = sys.argv[1:3]
    outtype = reading.section(Gguf, "gguf").outtype
    parent = records.verified(f"gguf/{variant}/{outtype}")
    name = f"gguf/{variant}/{quantization}"
    with new_directory(records.ARTIFACTS / name) as folder:
        arguments = gguf.quantize(
            records.ARTIFACTS / parent.name,
            folder,
            quantization=quantization,
            threads=reading.section(Limits, "limits").threads,
        )
    census = gguf.census(records.ARTIFACTS / name)
    gguf.check_same_tensors(parent, census, name)
    records.write(
        name,
        command=("quantize", variant, quantization),
        runtime="llamacpp",
        kind="gguf",
        conversion="quantize",
        parents=(parent,),
        tool="llama_model_quantize",
        tool_version=gguf.tool_version(),
        arguments=arguments,
        census=census,
    )


if __name__ == "__main__":
    main()
