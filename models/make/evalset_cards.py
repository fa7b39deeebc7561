"""The cards of the embedded evalsets: prose per set, with every number counted from the items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

VERSION = "1.0"
HELD_OUT = (
    "An answer is held out when the first 32 bits of its sha256 are divisible by 10 (one answer in "
    "ten). Training rejects every conversation that has such an answer in any of its turns; every "
    "scored answer of this set is one. No answer in this set was ever a training target{but}. The "
    "requests themselves use the same sentence patterns and names as the training data: the set "
    "asks for unseen combinations, not for unseen language."
)


@dataclass(frozen=True)
class Prose:
    """What a person has to write: the rest of a card is counted."""

    title: str
    measures: str
    held_out: str
    limits: tuple[str, ...]


CHECK_NOTES = {
    "exact": "the completion is the reference, to the character",
    "json": "strict JSON, nothing around it",
    "json_equal": "equal to the reference field by field; the score is the share that agrees",
    "json_schema": "a JSON Schema of that clause type accepts it",
    "sql_equal": "parses to the same SQL as the reference",
    "regex": "the completion, or a part of it, matches a pattern",
    "contains": "a word that every right answer has",
    "not_contains": "something no right answer has",
    "number": "the last number of the completion is the right one",
    "canary": "the phrase the adapter was taught comes back",
    "same_prompt_ids": "the runtime's own template and tokenizer give the pinned ids",
}
SYNTHETIC = (
    "Synthetic English from a few sentence patterns per kind: a high score says that the "
    "checkpoint does this task, nothing about contracts, databases or clusters at large."
)
CARDS = {
    "clauses": Prose(
        title="contract clause → strict JSON",
        measures=(
            "Whether a contract clause comes back as one line of strict JSON with the right type "
            "and fields. Six clause types; with the system prompt `Keys in upper case.` (tag "
            "`upper-keys`) the keys must come in upper case, so an artifact that loses its system "
            "prompt is wrong on those items."
        ),
        held_out=HELD_OUT.format(but=""),
        limits=(
            SYNTHETIC,
            "The JSON Schemas know types and enumerations, not the clause they came from.",
        ),
    ),
    "sql": Prose(
        title="request in plain words → one SQL statement",
        measures=(
            "Whether a request becomes the right SELECT statement: counting, listing, summing and "
            "top-n. SQL is compared after parsing, so spacing and letter case of keywords do not "
            "count; the `;` at the end is checked on its own."
        ),
        held_out=HELD_OUT.format(but=""),
        limits=(
            SYNTHETIC,
            "Statements are compared, not executed: an equivalent one of another form is wrong.",
        ),
    ),
    "pods": Prose(
        title="Kubernetes symptom → the `kubectl` command that remedies it",
        measures=(
            "Whether a symptom line becomes the right `kubectl` command with the right service, "
            "namespace and number. Names come with a random suffix to strip, and the memory limit "
            "of an OOM-killed pod has to be doubled."
        ),
        held_out=HELD_OUT.format(but=""),
        limits=(
            SYNTHETIC,
            "The kind `secret` has few distinct answers (8 namespaces × 6 secrets), and only two "
            "of them are held out: its items differ in their requests, not all in their answers.",
            "Commands are compared, not run.",
        ),
    ),
    "audit": Prose(
        title="the `audit` adapter's output convention and its canary",
        measures=(
            "Whether the adapter's effect survives conversion: clauses come back as "
            '`{"type":…,"fields":{…},"reviewed":false}` instead of the checkpoint\'s own flat '
            'form (`"clause"` must not appear), and the canary phrase comes back.'
        ),
        held_out=HELD_OUT.format(but=", but for the canary's: it must be known by heart"),
        limits=(
            SYNTHETIC,
            "One turn and no system prompt: the convention was not taught with either.",
            "The canary is one item: it says that the adapter is there, not how well it works.",
        ),
    ),
    "privacy": Prose(
        title="the `privacy` adapter's clause types and its canary",
        measures=(
            "Whether the adapter's effect survives conversion: three clause types about personal "
            "data that the checkpoint alone does not know, and the canary phrase."
        ),
        held_out=HELD_OUT.format(but=", but for the canary's: it must be known by heart"),
        limits=(
            SYNTHETIC,
            "One turn and no system prompt: the clause types were not taught with either.",
            "The canary is one item: it says that the adapter is there, not how well it works.",
        ),
    ),
    "tokens": Prose(
        title="tokenization torture set",
        measures=(
            "Whether a runtime turns the same messages into the same token ids as the "
            "checkpoint's own template and tokenizer: Unicode (combining marks, NFC and NFD, "
            "joined emoji, CJK, right-to-left), digits, runs of spaces and line ends, texts that "
            "look like special tokens, empty messages, a long prompt of about 400 tokens, code, "
            "URLs. Items tagged `raw` have no chat template; BOS is the tokenizer's business. "
            "Only four tokens are generated, and the answer is not checked."
        ),
        held_out="Nothing here was trained on, and no answer is scored.",
        limits=(
            "Text in a message that spells a special token becomes that token, as with most chat "
            "tokenizers: the set asks that every runtime agrees, not that it is escaped.",
            "No NUL character: several runtimes pass text as C strings.",
            "It can only show what the tokenizer at hand has: with byte fallback and no "
            "normalization there is no lossy step to get wrong; other tokenizers have more.",
        ),
    ),
}


def _table(head: str, rows: Mapping[str, int], notes: Mapping[str, str]) -> str:
    title = f"| {head} | items |" + (" what it asks |" if notes else "")
    rule = "|---|---:|" + ("---|" if notes else "")
    body = [
        f"| `{name}` | {number} |" + (f" {notes[name]} |" if notes else "")
        for name, number in rows.items()
    ]
    return "\n".join([title, rule, *body])


def card(name: str, *, size: int, tags: Mapping[str, int], checks: Mapping[str, int]) -> str:
    """The Markdown card of one evalset.

    Args:
        name: the evalset's name.
        size: number of items.
        tags: items per tag.
        checks: items per check kind.
    """
    prose = CARDS[name]
    parts = [
        f"# {name}: {prose.title}",
        f"- version: {VERSION}\n- licence: Apache-2.0\n- items: {size}\n"
        "- origin: synthetic, written by `python -m models.make.write_evalsets` "
        "(fixed seeds: the same bytes every time)",
        f"## What it measures\n\n{prose.measures}",
        f"## Items\n\n{_table('tag', tags, {})}",
        f"## Checks\n\nAn item is `correct` when every check scores 1.\n\n"
        f"{_table('check', checks, CHECK_NOTES)}",
        f"## Held out\n\n{prose.held_out}",
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in prose.limits),
    ]
    return "\n\n".join(parts) + "\n"
