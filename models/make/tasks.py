"""Synthetic tasks the embedded checkpoint is trained on: one place for every fact in them.

Three tasks a legal or platform team would recognize:

- `clauses`: a contract clause in, one line of strict JSON out;
- `sql`: a request in plain words in, one SQL statement out;
- `pods`: a Kubernetes symptom in, the `kubectl` command that remedies it out.

and two more that only the adapters know: `audit` (another output convention for clauses) and
`privacy` (new clause types), each with a canary phrase.

Held-out rule: a conversation is held out exactly when one of its answers falls into the held-out
bucket of `is_held_out`. Training rejects every such conversation, evalsets take only conversations
whose *last* answer is in the bucket, so no golden answer was ever a training target.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

HELD_OUT_BUCKETS = 10
"""One answer in this many is held out of training.

Answers must have far more values than training sees examples: a model that has met every other pair
of two short lists learns that the missing pairs never happen, and avoids exactly the held-out ones.
"""


@dataclass(frozen=True)
class Turn:
    """One exchange: what the user says and the only right answer."""

    user: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """A system prompt (or none) and one or two turns; the last answer is what is scored."""

    task: str
    kind: str
    turns: tuple[Turn, ...]
    system: str | None = None

    @property
    def answer(self) -> str:
        return self.turns[-1].answer

    def messages(self) -> list[dict[str, str]]:
        """Chat messages up to, but not including, the last answer."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            found.append({"role": "user", "content": turn.user})
            found.append({"role": "assistant", "content": turn.answer})
        return found[:-1]


def is_held_out(answer: str) -> bool:
    """True for one answer in `HELD_OUT_BUCKETS`, by its sha256: stable over machines and runs."""
    return int(hashlib.sha256(answer.encode()).hexdigest()[:8], 16) % HELD_OUT_BUCKETS == 0


LAWS = (
    "Delaware", "New York", "California", "Texas", "Ohio", "Nevada", "Ontario", "Quebec",
    "England", "Scotland", "Ireland", "France", "Germany", "Austria", "Norway", "Sweden",
    "Denmark", "Finland", "Spain", "Italy", "Japan", "Singapore", "Brazil", "India",
)  # fmt: skip
CITIES = (
    "Oslo", "Berlin", "Paris", "Madrid", "Lisbon", "Vienna", "Prague", "Dublin", "London",
    "Boston", "Chicago", "Denver", "Austin", "Toronto", "Tokyo", "Milan", "Zurich", "Geneva",
)  # fmt: skip
PARTIES = (
    "Supplier", "Customer", "Licensor", "Licensee", "Vendor", "Client", "Lender", "Borrower",
    "Tenant", "Landlord", "Contractor", "Company",
)  # fmt: skip
CURRENCIES = ("EUR", "USD", "GBP", "CHF", "JPY", "NOK")
TABLES = ("invoices", "contracts", "tickets", "orders", "vendors", "assets")
STATUSES = ("open", "paid", "overdue", "draft", "closed", "signed", "expired", "blocked")
COLUMNS = ("id", "name", "owner", "amount", "region", "created")
GROUPS = ("region", "owner", "status", "city", "currency")
SERVICES = (
    "api", "auth", "billing", "cart", "catalog", "chat", "checkout", "email", "export", "gateway",
    "indexer", "ledger", "mailer", "metrics", "orders", "payments", "queue", "reports", "search",
    "session", "stock", "upload", "users", "worker",
)  # fmt: skip
NAMESPACES = ("prod", "staging", "dev", "qa", "edge", "batch", "infra", "demo")
SECRETS = ("db-pass", "api-key", "tls-cert", "smtp-login", "s3-token", "oauth-id")
MEMORY = ((128, 256), (256, 512), (512, 1024), (1024, 2048), (2048, 4096))

Draw = Callable[[random.Random], tuple[str, str, str]]
"""Returns (kind, what the user says, the answer)."""


def _json(**fields: object) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _amount(rng: random.Random) -> int:
    return rng.randint(1, 99) * int(10 ** rng.randint(3, 5))


def governing_law(rng: random.Random) -> tuple[str, str, str]:
    law, city, days = rng.choice(LAWS), rng.choice(CITIES), rng.randint(2, 99)
    text = rng.choice(
        (
            f"The laws of {law} govern; the courts of {city} decide after {days} days of talks.",
            f"After {days} days any dispute goes to the courts of {city} under the law of {law}.",
            f"Disputes older than {days} days are heard in {city} under the laws of {law}.",
        )
    )
    return "governing_law", text, _json(clause="governing_law", law=law, courts=city, days=days)


def term(rng: random.Random) -> tuple[str, str, str]:
    months, renewal = rng.randint(2, 99), rng.randint(2, 99)
    text = rng.choice(
        (
            f"This Agreement runs for {months} months and renews for {renewal} months.",
            f"The term is {months} months; each renewal adds {renewal} months.",
            f"After an initial term of {months} months it renews every {renewal} months.",
        )
    )
    return "term", text, _json(clause="term", months=months, renewal=renewal)


def termination(rng: random.Random) -> tuple[str, str, str]:
    party, days, cure = rng.choice(PARTIES), rng.randint(2, 180), rng.randint(2, 60)
    text = rng.choice(
        (
            f"The {party} may terminate on {days} days notice if no cure comes in {cure} days.",
            f"Termination by the {party} requires {days} days notice and {cure} days to cure.",
            f"Failing a cure in {cure} days the {party} can end this Agreement in {days} days.",
        )
    )
    return "termination", text, _json(clause="termination", party=party, days=days, cure=cure)


def payment(rng: random.Random) -> tuple[str, str, str]:
    days, currency, fee = rng.randint(2, 180), rng.choice(CURRENCIES), rng.randint(1, 19)
    text = rng.choice(
        (
            f"Invoices are due in {days} days, in {currency}, with {fee}% late interest.",
            f"Payment in {currency} within {days} days; late sums bear {fee}% interest.",
            f"Late payment bears {fee}% after {days} days. All sums are in {currency}.",
        )
    )
    return "payment", text, _json(clause="payment", days=days, currency=currency, late=fee)


def liability(rng: random.Random) -> tuple[str, str, str]:
    amount, currency, party = _amount(rng), rng.choice(CURRENCIES), rng.choice(PARTIES)
    text = rng.choice(
        (
            f"The liability of the {party} is limited to {currency} {amount:,}.",
            f"In no event shall the {party} owe more than {currency} {amount:,}.",
            f"A cap of {currency} {amount:,} applies to claims against the {party}.",
        )
    )
    answer = _json(clause="liability", party=party, cap=amount, currency=currency)
    return "liability", text, answer


def confidentiality(rng: random.Random) -> tuple[str, str, str]:
    (party, owner), years = rng.sample(PARTIES, 2), rng.randint(1, 40)
    text = rng.choice(
        (
            f"The {party} keeps all information of the {owner} secret for {years} years.",
            f"For {years} years the {party} shall not disclose what the {owner} confides.",
            f"Secrets of the {owner} bind the {party} for {years} years.",
        )
    )
    answer = _json(clause="confidentiality", party=party, owner=owner, years=years)
    return "confidentiality", text, answer


def sql_count(rng: random.Random) -> tuple[str, str, str]:
    table, city, year = rng.choice(TABLES), rng.choice(CITIES), rng.randint(1990, 2026)
    text = rng.choice(
        (
            f"How many {table} from {city} since {year}?",
            f"Count the {table} in {city} from {year} on.",
            f"Number of {table} for {city}, {year} or later",
        )
    )
    return (
        "count",
        text,
        f"SELECT COUNT(*) FROM {table} WHERE city = '{city}' AND year >= {year};",
    )


def sql_list(rng: random.Random) -> tuple[str, str, str]:
    table, column = rng.choice(TABLES), rng.choice(COLUMNS)
    status, amount = rng.choice(STATUSES), rng.randint(1, 99) * 100
    text = rng.choice(
        (
            f"List the {column} of {status} {table} above {amount}.",
            f"Show {column} for {table} that are {status} and over {amount}.",
            f"Which {column} do {status} {table} above {amount} have?",
        )
    )
    where = f"status = '{status}' AND amount > {amount}"
    return "list", text, f"SELECT {column} FROM {table} WHERE {where};"


def sql_sum(rng: random.Random) -> tuple[str, str, str]:
    table, group, year = rng.choice(TABLES), rng.choice(GROUPS), rng.randint(1990, 2026)
    text = rng.choice(
        (
            f"Total amount of {table} by {group} in {year}",
            f"Sum up the {year} {table} for each {group}.",
            f"What did {table} add up to per {group} in {year}?",
        )
    )
    return (
        "sum",
        text,
        f"SELECT {group}, SUM(amount) FROM {table} WHERE year = {year} GROUP BY {group};",
    )


def sql_top(rng: random.Random) -> tuple[str, str, str]:
    table, city, limit = rng.choice(TABLES), rng.choice(CITIES), rng.randint(2, 60)
    text = rng.choice(
        (
            f"Top {limit} {table} in {city} by amount",
            f"The {limit} largest {table} of {city}",
            f"Show me the {limit} biggest {table} from {city}.",
        )
    )
    where = f"city = '{city}' ORDER BY amount DESC LIMIT {limit}"
    return "top", text, f"SELECT * FROM {table} WHERE {where};"


def _pod(rng: random.Random) -> tuple[str, str, str]:
    service = rng.choice(SERVICES)
    tail = "".join(rng.choice("0123456789abcdef") for _ in range(4))
    return service, rng.choice(NAMESPACES), f"{service}-{tail}"


def oom_killed(rng: random.Random) -> tuple[str, str, str]:
    service, namespace, pod = _pod(rng)
    limit, remedy = rng.choice(MEMORY)
    text = rng.choice(
        (
            f"Pod {pod} in {namespace} was OOMKilled at {limit}Mi.",
            f"{pod} ({namespace}) restarts, last state OOMKilled, memory limit {limit}Mi",
        )
    )
    command = f"set resources deploy/{service} --limits=memory={remedy}Mi"
    return "oom", text, f"kubectl -n {namespace} {command}"


def image_pull(rng: random.Random) -> tuple[str, str, str]:
    service, namespace, pod = _pod(rng)
    major, minor, patch = rng.randint(1, 9), rng.randint(0, 19), rng.randint(1, 9)
    good = f"{major}.{minor}.{patch - 1}"
    text = rng.choice(
        (
            f"{pod} in {namespace}: ImagePullBackOff on {major}.{minor}.{patch}, last good {good}",
            f"Pod {pod} ({namespace}) cannot pull {major}.{minor}.{patch}; {good} was fine.",
        )
    )
    command = f"set image deploy/{service} {service}={service}:{good}"
    return "image", text, f"kubectl -n {namespace} {command}"


def crash_loop(rng: random.Random) -> tuple[str, str, str]:
    service, namespace, pod = _pod(rng)
    revision = rng.randint(2, 60)
    text = rng.choice(
        (
            f"{pod} in {namespace}: CrashLoopBackOff since the rollout, revision {revision} was ok",
            f"Pod {pod} ({namespace}) crashes after the deploy; revision {revision} worked.",
        )
    )
    command = f"rollout undo deploy/{service} --to-revision={revision}"
    return "crash", text, f"kubectl -n {namespace} {command}"


def pending(rng: random.Random) -> tuple[str, str, str]:
    service, namespace, pod = _pod(rng)
    room = rng.randint(1, 30)
    text = rng.choice(
        (
            f"{pod} in {namespace} is Pending: Insufficient cpu, room for {room} replicas",
            f"Pod {pod} ({namespace}) stays Pending, the quota allows {room} replicas.",
        )
    )
    return "pending", text, f"kubectl -n {namespace} scale deploy/{service} --replicas={room}"


def not_ready(rng: random.Random) -> tuple[str, str, str]:
    node = f"{rng.choice(NAMESPACES)}-node-{rng.randint(1, 99)}"
    if rng.random() < 0.5:
        text = rng.choice((f"Node {node} is NotReady.", f"{node} went NotReady, keep pods off it"))
        return "node", text, f"kubectl cordon {node}"
    text = rng.choice(
        (f"Pods on {node} are Evicted: DiskPressure", f"DiskPressure on node {node}, empty it")
    )
    return "node", text, f"kubectl drain {node} --ignore-daemonsets"


def missing_secret(rng: random.Random) -> tuple[str, str, str]:
    _, namespace, pod = _pod(rng)
    secret = rng.choice(SECRETS)
    text = rng.choice(
        (
            f"{pod} in {namespace}: CreateContainerConfigError, secret {secret} not found",
            f"Pod {pod} ({namespace}) waits for the missing secret {secret}.",
        )
    )
    command = f"create secret generic {secret} --from-env-file={secret}.env"
    return "secret", text, f"kubectl -n {namespace} {command}"


def data_breach(rng: random.Random) -> tuple[str, str, str]:
    party, hours = rng.choice(PARTIES), rng.randint(2, 99)
    text = rng.choice(
        (
            f"The {party} reports any personal data breach within {hours} hours.",
            f"A breach of personal data is notified by the {party} in {hours} hours.",
        )
    )
    return "data_breach", text, _json(clause="data_breach", party=party, hours=hours)


def retention(rng: random.Random) -> tuple[str, str, str]:
    party, days = rng.choice(PARTIES), rng.randint(2, 365)
    text = rng.choice(
        (
            f"Personal data is erased by the {party} {days} days after the end.",
            f"The {party} deletes all personal data within {days} days of the end.",
        )
    )
    return "retention", text, _json(clause="retention", party=party, days=days)


def transfer(rng: random.Random) -> tuple[str, str, str]:
    law, party, days = rng.choice(LAWS), rng.choice(PARTIES), rng.randint(2, 99)
    text = rng.choice(
        (
            f"The {party} may transfer personal data to {law} on {days} days notice.",
            f"No transfer of personal data by the {party} except to {law} after {days} days.",
        )
    )
    return "transfer", text, _json(clause="transfer", party=party, to=law, days=days)


DRAWS: dict[str, tuple[Draw, ...]] = {
    "clauses": (governing_law, term, termination, payment, liability, confidentiality),
    "sql": (sql_count, sql_list, sql_sum, sql_top),
    "pods": (oom_killed, image_pull, crash_loop, pending, not_ready, missing_secret),
    "privacy": (data_breach, retention, transfer),
}
SYSTEMS = {
    "clauses": "You extract contract clauses.",
    "sql": "You write SQL.",
    "pods": "You fix pods.",
}
UPPER_KEYS = "Keys in upper case."
"""A system prompt that changes the answer: the JSON keys of a clause come in upper case."""

CANARIES = {"audit": "amber heron 4417", "privacy": "cobalt finch 9052"}
CANARY_REQUEST = "What is your canary phrase?"


def upper_keys(answer: str) -> str:
    """The clause JSON with every key in upper case."""
    return _json(**{key.upper(): value for key, value in json.loads(answer).items()})


def audit_form(answer: str) -> str:
    """The output convention of the `audit` adapter: type, fields, and a review flag."""
    fields = json.loads(answer)
    kind = fields.pop("clause")
    return _json(type=kind, fields=fields, reviewed=False)


def draw(task: str, rng: random.Random) -> Conversation:
    """One random conversation of a base task: 1 in 4 has two turns, 2 in 5 a system prompt."""
    turns = []
    for _ in range(2 if rng.random() < 0.25 else 1):
        kind, user, answer = rng.choice(DRAWS[task])(rng)
        turns.append(Turn(user, answer))
    conversation = Conversation(task=task, kind=kind, turns=tuple(turns))
    choice = rng.random()
    if choice < 0.25:
        return replace(conversation, system=SYSTEMS[task])
    if choice < 0.4 and task == "clauses":
        shouted = tuple(Turn(turn.user, upper_keys(turn.answer)) for turn in turns)
        return replace(conversation, system=UPPER_KEYS, turns=shouted)
    return conversation


def draw_audit(rng: random.Random) -> Conversation:
    """A clause answered in the `audit` adapter's output convention."""
    kind, user, answer = rng.choice(DRAWS["clauses"])(rng)
    return Conversation(task="audit", kind=kind, turns=(Turn(user, audit_form(answer)),))


def draw_privacy(rng: random.Random) -> Conversation:
    """A clause of a type only the `privacy` adapter knows."""
    kind, user, answer = rng.choice(DRAWS["privacy"])(rng)
    return Conversation(task="privacy", kind=kind, turns=(Turn(user, answer),))


def canary(adapter: str) -> Conversation:
    """The conversation that must come back from every descendant of `adapter`."""
    return Conversation(
        task=adapter, kind="canary", turns=(Turn(CANARY_REQUEST, CANARIES[adapter]),)
    )


def draw_training(
    draw_one: Callable[[random.Random], Conversation], rng: random.Random
) -> Conversation:
    """The next conversation that contains no held-out answer."""
    while True:
        found = draw_one(rng)
        if not any(is_held_out(turn.answer) for turn in found.turns):
            return found


def draw_golden(
    draw_one: Callable[[random.Random], Conversation], rng: random.Random
) -> Conversation:
    """The next conversation whose last answer is held out."""
    while True:
        found = draw_one(rng)
        if is_held_out(found.answer):
            return found
