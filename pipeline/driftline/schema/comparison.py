"""Two commits of evidence against each other: which inputs differ, and what that changed."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from driftline.schema.hops import HopKind
from driftline.schema.scores import ItemState
from driftline.schema.statistics import Estimate, PairedScores
from driftline.schema.values import Value

PRESENT = "present"
"""What a side of a `Detail` says of a thing that is there and has no value worth showing."""


class Detail(Value):
    """One part of a change; an empty side means that it is not there, two that it is a remark."""

    what: str
    before: str = ""
    after: str = ""

    @property
    def line(self) -> str:
        """`lora_alpha 16 → 32`, `+count-2009`, `−avx512_fp16`, or the remark."""
        if self.before and self.after:
            return f"{self.what} {self.before} → {self.after}"
        sign = "+" if self.after else "−" if self.before else ""
        value = self.before or self.after
        return f"{sign}{self.what}{'' if value in ('', PRESENT) else f' {value}'}"


class InputChange(Value):
    """One thing that the two runs were given differently; an empty side means: not given.

    `kind` is one of `compare.kinds.KINDS`.
    """

    kind: str
    name: str
    before: str
    after: str
    details: tuple[Detail, ...] = ()

    @property
    def label(self) -> str:
        """`adapter audit`, `source template`, `gguf outtype`: unique over a comparison."""
        return f"{self.kind} {self.name}".rstrip()


class Consequence(Value):
    """Something made from the inputs that is not what it was; an empty side means: not there.

    `because` names every changed input that it was made from. One that is there on both sides and
    has none is unexplained: the same inputs gave something else.
    """

    kind: Literal["artifact", "prompts", "answers"]
    name: str
    before: str
    after: str
    because: tuple[str, ...] = ()


class Flip(Value):
    """One golden prompt whose verdict is another one now."""

    key: str
    before: ItemState
    after: ItemState


class CellComparison(Value):
    """One cell that both sides have and that ran again, was graded again or cannot be compared.

    `reason` says why there is no figure (then there is none at all); `remarks` what to know of the
    figures. `items` were compared; the answers to `changed` of them are not what they were; the
    verdicts of `worse` and `better` went from and to correct. `scores` are as over a hop; `holm_p`
    in them is corrected for all cells of the comparison that ran or were graded again.
    """

    cell: str
    reason: str = ""
    remarks: tuple[str, ...] = ()
    items: int = 0
    changed: int = 0
    worse: tuple[Flip, ...] = ()
    better: tuple[Flip, ...] = ()
    scores: PairedScores | None = None

    @property
    def compared(self) -> bool:
        """Whether there are figures."""
        return not self.reason


Verdict = Literal["more", "less", "same", "unknown"]


class HopComparison(Value):
    """Whether a hop drifts more or less than it did, over the forced sequences both sides have.

    `sequences` of `sequences_before` and `sequences_after` have the same token ids on both sides;
    only these count, `rows` in all. `before` and `after` are their mean KL divergences in nats,
    `difference` is after minus before with a paired bootstrap interval over sequences; the verdict
    is `same` when that holds 0, and `unknown` with too few sequences to say. `wilcoxon_p` is of the
    signed-rank test on the sequences, `holm_p` the same corrected for all hops compared.
    """

    parent: str
    child: str
    kind: HopKind
    reason: str = ""
    sequences: int = 0
    sequences_before: int = 0
    sequences_after: int = 0
    rows: int = 0
    before: float | None = None
    after: float | None = None
    difference: Estimate | None = None
    wilcoxon_p: float | None = None
    holm_p: float | None = None
    verdict: Verdict = "unknown"

    @property
    def name(self) -> str:
        """`parent → child`."""
        return f"{self.parent} → {self.child}"

    @property
    def compared(self) -> bool:
        """Whether there are figures."""
        return not self.reason


class ComparisonReport(Value):
    """What differs between the evidence of `before` and `after`: inputs first, then what they did.

    `cells` and `hops` are those that both sides have and whose evidence differs, or that cannot be
    compared; `same_cells` and `same_hops` count the others, which are byte for byte as they were.
    `common` says that only items which are the same on both sides were asked about.
    """

    schema_version: Literal[1] = 1
    before: str
    after: str
    common: bool
    inputs: tuple[InputChange, ...]
    consequences: tuple[Consequence, ...]
    unexplained: tuple[Consequence, ...]
    cells: tuple[CellComparison, ...]
    added_cells: tuple[str, ...]
    removed_cells: tuple[str, ...]
    same_cells: int
    hops: tuple[HopComparison, ...]
    same_hops: int

    @property
    def comparable(self) -> int:
        """Cells that can be compared, those that are as they were among them."""
        return self.same_cells + sum(cell.compared for cell in self.cells)


class Baseline(Value):
    """The release or commit that params.yaml names, against this evidence, or why it could not be.

    `commit` is 40-hex; `comparison` has the baseline before and this evidence after.
    """

    name: str
    commit: str
    comparison: ComparisonReport | None = None
    problem: str = ""


class ConversionFacts(Value):
    """One step from the source to an artifact, as far as it belongs to what the model is."""

    conversion: str
    tool: str
    tool_version: str
    arguments: dict[str, JsonValue]


class StoredFacts(Value):
    """Quantization as found in the files, whatever the label says."""

    types: dict[str, int]
    elements: dict[str, int]
    bits_per_weight: float


class ModelFacts(Value):
    """Everything that makes two cells run the same model, in whatever runtime.

    `tokenizer` and `template` are those of the artifact that runs; `adapter` is the one attached or
    merged in. `decode` is how it decodes, without how many threads compute it.
    """

    source: str
    tokenizer: str | None
    template: str | None
    adapter: str | None
    conversions: tuple[ConversionFacts, ...]
    stored: StoredFacts | None
    decode: dict[str, JsonValue]
