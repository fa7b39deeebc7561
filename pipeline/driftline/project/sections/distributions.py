"""What is kept of teacher-forced texts, and the corpora among them: `distributions`."""

from __future__ import annotations

from pydantic import Field

from driftline.schema.values import Value


class Corpus(Value):
    """A plain text file to teacher-force beside the golden prompts, in windows of `window` tokens.

    Cut as `llama-perplexity` cuts it: BOS first in each window, the first half only context.
    """

    path: str
    window: int = Field(gt=2)


class Distributions(Value):
    """Next-token distributions kept per position: the reference's `top_k` most likely ids.

    A vocabulary of at most `top_k` is kept whole. `corpora` are texts by name.
    """

    top_k: int = Field(gt=1)
    corpora: dict[str, Corpus]
