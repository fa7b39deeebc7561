"""What the processes of one cell are told: the probe writes it, stages that run a model read it."""

from __future__ import annotations

from pydantic import JsonValue

from driftline.schema.cells import CellSpec
from driftline.schema.values import Value


class CellTask(Value):
    """Everything of a project that shapes one cell.

    `target` is the runtime's class and `counterfactual` the format's, as `module:Class`; None for a
    cell whose stored weights need no counterfactual, or whose format has none. `checkpoint` is the
    one its artifact descends from. `writes_text`: its answers are its variant's text. `prompts` is
    the file it answers, `texts` are the texts it is forced through, `sources` the evalsets and
    corpora it takes of them, with at most `top_k` ids a row. `decode` is what is asked of it.
    """

    cell: CellSpec
    target: str
    counterfactual: str | None
    checkpoint: str
    writes_text: bool
    prompts: str
    texts: tuple[str, ...]
    sources: tuple[str, ...]
    top_k: int
    decode: dict[str, JsonValue]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Everything the cell reads, by name under `artifacts/`: the artifact first, then the
        attached adapter if there is one."""
        spec = self.cell
        read = (name for name in self.texts if not self.writes_text or name != spec.variant)
        return (
            spec.artifact_name,
            *([spec.adapter_name] if spec.adapter else []),
            f"prompts/{self.prompts}",
            *(["prompts/corpora.json"] if self.writes_text else []),
            *(f"texts/{name}" for name in read),
        )
