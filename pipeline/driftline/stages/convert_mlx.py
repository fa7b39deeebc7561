"""Stage `convert_mlx`: a checkpoint to MLX by one recipe, with mlx-lm.

python -m driftline.stages.convert_mlx VARIANT RECIPE
"""

from __future__ import annotations

import sys
from typing import Any, cast

from driftline.conversions import mlx
from driftline.errors import exits_cleanly
from driftline.files import new_directory
from driftline.project.sections import reading
from driftline.project.sections.mlx import MlxRecipe
from driftline.store import records


@exits_cleanly
def main() -> None:
    """Convert the variant the command line names."""
    variant, recipe = sys.argv[1:3]
    # mlx-lm needs no PyTorch, but Transformers imports it wherever it can: seconds a process.
    cast(Any, sys.modules).setdefault("torch", None)
    parent = records.verified(f"checkpoints/{variant}")
    name = f"mlx/{variant}/{recipe}"
    with new_directory(records.ARTIFACTS / name) as folder:
        folder.rmdir()  # mlx-lm wants to make it
        made_by = reading.section(MlxRecipe, "mlx", "recipes", recipe)
        arguments = mlx.convert(records.ARTIFACTS / parent.name, folder, made_by)
    census = mlx.census(records.ARTIFACTS / name)
    mlx.check_same_weights(parent, census, name)
    records.write(
        name,
        command=("convert_mlx", variant, recipe),
        runtime="mlx",
        kind="mlx",
        conversion="convert",
        parents=(parent,),
        tool="mlx_lm.convert",
        tool_version=mlx.tool_version(),
        arguments=arguments,
        census=census,
    )


if __name__ == "__main__":
    main()
