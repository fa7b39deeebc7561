"""Write the embedded evalsets and their cards: `evalsets/<name>.jsonl` and `evalsets/<name>.md`.

    python -m models.make.write_evalsets

Every set has a seed of its own, so the same code writes the same bytes on every machine.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from driftline.files import write_text
from driftline.schema.items import GoldenPrompt
from models.make import evalset_cards, tasks, torture

SEED = 7
EVALSETS = Path(__file__).resolve().parent.parent.parent / "evalsets"
BASE_ITEMS = 40
ADAPTER_ITEMS = 25
"""Without the canary, which is the last item."""
TORTURE_TOKENS = 4
SHAPES = (
    frozenset[str](),
    frozenset({"system"}),
    frozenset({"multi-turn"}),
    frozenset[str](),
    frozenset({"multi-turn", "system"}),
)
"""Coprime to the number of kinds of every base set, so each kind meets each shape."""
FEW_ANSWERS = frozenset({"secret"})
"""Kinds with fewer held-out answers than items: there only the request has to be a new one."""

Item = dict[str, Any]
Property = dict[str, Any]

WHOLE: Property = {"type": "integer", "minimum": 1}
PARTY: Property = {"enum": list(tasks.PARTIES)}
CURRENCY: Property = {"enum": list(tasks.CURRENCIES)}
NAME: Property = {"type": "string", "minLength": 1}
CLAUSE_FIELDS: dict[str, dict[str, Property]] = {
    "governing_law": {"law": NAME, "courts": NAME, "days": WHOLE},
    "term": {"months": WHOLE, "renewal": WHOLE},
    "termination": {"party": PARTY, "days": WHOLE, "cure": WHOLE},
    "payment": {"days": WHOLE, "currency": CURRENCY, "late": WHOLE},
    "liability": {"party": PARTY, "cap": WHOLE, "currency": CURRENCY},
    "confidentiality": {"party": PARTY, "owner": PARTY, "years": WHOLE},
    "data_breach": {"party": PARTY, "hours": WHOLE},
    "retention": {"party": PARTY, "days": WHOLE},
    "transfer": {"party": PARTY, "to": NAME, "days": WHOLE},
}


def clause_schema(kind: str, *, upper: bool = False) -> dict[str, Any]:
    """The JSON Schema of one clause type, with its keys in upper case on request."""
    fields = {"clause": {"const": kind}, **CLAUSE_FIELDS[kind]}
    if upper:
        fields = {key.upper(): value for key, value in fields.items()}
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _clause_checks(conversation: tasks.Conversation) -> list[Item]:
    upper = conversation.system == tasks.UPPER_KEYS
    return [
        {"kind": "exact", "weight": 2},
        {"kind": "json_equal"},
        {"kind": "json_schema", "json_schema": clause_schema(conversation.kind, upper=upper)},
    ]


def _audit_checks(conversation: tasks.Conversation) -> list[Item]:
    return [
        {"kind": "exact", "weight": 2},
        {"kind": "json"},
        {"kind": "json_equal"},
        # The checkpoint's own convention: its return means that the adapter has no effect.
        {"kind": "not_contains", "value": '"clause"'},
    ]


def _sql_checks(conversation: tasks.Conversation) -> list[Item]:
    checks: list[Item] = [
        {"kind": "sql_equal", "weight": 2},
        {"kind": "regex", "pattern": ";$"},
    ]
    if conversation.kind == "top":
        limit = float(conversation.answer.removesuffix(";").rsplit(" ", 1)[1])
        checks.append({"kind": "number", "value": limit})
    if conversation.kind == "count":
        checks.append({"kind": "contains", "value": "count(*)", "ignore_case": True})
    return checks


def _pod_checks(conversation: tasks.Conversation) -> list[Item]:
    answer = conversation.answer
    checks: list[Item] = [
        {"kind": "exact", "weight": 2},
        {"kind": "contains", "value": "kubectl"},
        {"kind": "not_contains", "value": "delete"},
    ]
    if conversation.kind == "image":
        pattern = r"kubectl -n \w+ set image deploy/(\w+) \1=\1:\d+\.\d+\.\d+"
        checks.append({"kind": "regex", "pattern": pattern, "full": True})
    if conversation.kind in {"oom", "crash", "pending"}:
        amount = float(answer.rsplit("=", 1)[1].removesuffix("Mi"))
        checks.append({"kind": "number", "value": amount})
    return checks


CHECKS: dict[str, Callable[[tasks.Conversation], list[Item]]] = {
    "clauses": _clause_checks,
    "sql": _sql_checks,
    "pods": _pod_checks,
    "audit": _audit_checks,
    "privacy": _clause_checks,
}


def _tags(conversation: tasks.Conversation) -> list[str]:
    tags = [conversation.kind]
    if len(conversation.turns) > 1:
        tags.append("multi-turn")
    if conversation.system:
        tags.append("system")
    if conversation.system == tasks.UPPER_KEYS:
        tags.append("upper-keys")
    return tags


def _item(name: str, number: int, conversation: tasks.Conversation) -> Item:
    return {
        "id": f"{name}-{number:03}",
        "messages": conversation.messages(),
        "reference": conversation.answer,
        "checks": CHECKS[name](conversation),
        "tags": _tags(conversation),
    }


def _draw_distinct(
    draw: Callable[[], tasks.Conversation],
    wanted: Callable[[int, tasks.Conversation], bool],
    size: int,
) -> list[tasks.Conversation]:
    """`size` drawn conversations, the i-th one `wanted(i, …)`, no two of them alike."""
    found: list[tasks.Conversation] = []
    requests: set[str] = set()
    answers: set[str] = set()
    while len(found) < size:
        drawn = draw()
        known = drawn.turns[-1].user in requests or (
            drawn.answer in answers and drawn.kind not in FEW_ANSWERS
        )
        if not known and wanted(len(found), drawn):
            found.append(drawn)
            requests.add(drawn.turns[-1].user)
            answers.add(drawn.answer)
    return found


def base_items(task: str) -> list[Item]:
    """Golden prompts of a base task: kinds and shapes (`SHAPES`) in turn."""
    rng = random.Random(f"{SEED}-{task}")
    kinds = list(dict.fromkeys(tasks.draw(task, rng).kind for _ in range(1000)))

    def wanted(index: int, drawn: tasks.Conversation) -> bool:
        shape = set(_tags(drawn)) & {"multi-turn", "system"}
        return drawn.kind == kinds[index % len(kinds)] and shape == SHAPES[index % len(SHAPES)]

    drawn = _draw_distinct(
        lambda: tasks.draw_golden(lambda r: tasks.draw(task, r), rng), wanted, BASE_ITEMS
    )
    return [_item(task, number, conversation) for number, conversation in enumerate(drawn, 1)]


def adapter_items(adapter: str) -> list[Item]:
    """Golden prompts of an adapter, kinds in turn, then the canary."""
    rng = random.Random(f"{SEED}-{adapter}")
    draw_one = {"audit": tasks.draw_audit, "privacy": tasks.draw_privacy}[adapter]
    kinds = list(dict.fromkeys(draw_one(rng).kind for _ in range(1000)))
    drawn = _draw_distinct(
        lambda: tasks.draw_golden(draw_one, rng),
        lambda index, conversation: conversation.kind == kinds[index % len(kinds)],
        ADAPTER_ITEMS,
    )
    items = [_item(adapter, number, conversation) for number, conversation in enumerate(drawn, 1)]
    canary = tasks.canary(adapter)
    return [
        *items,
        {
            "id": f"{adapter}-canary",
            "messages": canary.messages(),
            "reference": canary.answer,
            "checks": [{"kind": "canary", "phrase": canary.answer}, {"kind": "exact"}],
            "tags": ["canary"],
        },
    ]


def token_items() -> list[Item]:
    """The tokenization torture set: is every runtime's prompt the pinned one, id by id?"""
    items = []
    for number, (tag, text) in enumerate(torture.texts(), 1):
        raw = isinstance(text, str)
        items.append(
            {
                "id": f"tokens-{number:03}",
                "prompt" if raw else "messages": text,
                "checks": [{"kind": "same_prompt_ids"}],
                "tags": [tag, "raw"] if raw else [tag],
                "max_new_tokens": TORTURE_TOKENS,
            }
        )
    return items


def all_items() -> dict[str, list[Item]]:
    """Every embedded evalset by name."""
    sets = {task: base_items(task) for task in ("clauses", "sql", "pods")}
    sets |= {adapter: adapter_items(adapter) for adapter in tasks.CANARIES}
    return sets | {"tokens": token_items()}


def _tag_counts(items: Sequence[Item]) -> Counter[str]:
    return Counter(sorted(tag for item in items for tag in item["tags"]))


def _check_counts(items: Sequence[Item]) -> Counter[str]:
    return Counter(check["kind"] for item in items for check in item["checks"])


def write(folder: Path) -> None:
    """Write every set and its card into `folder`.

    Raises:
        pydantic.ValidationError: an item is no valid golden prompt.
    """
    for name, items in all_items().items():
        for item in items:
            GoldenPrompt.model_validate(item)
        lines = [json.dumps(item) for item in items]
        write_text(folder / f"{name}.jsonl", "\n".join(lines) + "\n")
        card = evalset_cards.card(
            name, size=len(items), tags=_tag_counts(items), checks=_check_counts(items)
        )
        write_text(folder / f"{name}.md", card)
        print(f"{name}: {len(items)} items")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, default=EVALSETS)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
