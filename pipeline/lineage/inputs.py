"""Which of the things a run is given differ between two commits, and what they explain; pure.

An *input* is what somebody chose or installed: checkpoint, adapters, params.yaml, golden prompts,
corpora, software, the machine, driftline's own code. Artifacts, pinned prompts and answers are made
from inputs: where they differ, that is a *consequence*, traced back through the records to the
inputs that differ; what cannot be traced is *unexplained*.

Laws: `changes(a, a)` is empty, and so are the consequences; swapping the two swaps `before` and
`after` everywhere and changes nothing else. Takes time linear in the records; of item and tensor
listings only those that differ are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast, get_args

from pipeline.digest import differences, sha256_text
from pipeline.errors import RefusedError
from pipeline.facts import part_of
from pipeline.lineage.evidence import REMEDY, Evidence
from pipeline.params import BASE
from pipeline.schema.artifacts import ArtifactRecord, TensorDigest
from pipeline.schema.comparison import PRESENT, Consequence, Detail, InputChange, InputKind
from pipeline.schema.lineage import ItemDigest
from pipeline.schema.values import canonical_json

SOURCE = f"checkpoints/{BASE}"
ADAPTERS = "adapters/"
PARTS = ("weights", "tokenizer", "template", "config", "files")
"""Parts of a checkpoint or adapter; `files`: other bytes, though every part is the same."""
NAMED = 3
"""Tensors that are named; the others are counted."""
NO_RESULT = ("lineage", "report")
"""Stages that show results and make none."""
MAKERS = {
    "merge": ("merge",),
    "convert_gguf": ("convert", "gguf"),
    "quantize": ("quantize",),
    "convert_mlx": ("convert", "mlx"),
}
"""Stages whose code matters only where an artifact of that conversion (and kind) is there."""
TRACKED = (
    "runtime",
    "missing",
    "install",
    "python",
    "distributions",
    "converter_sha256",
    "threads",
    "cpu_features",
)
"""Keys of an environment that have a kind of their own; any other is about the machine."""
CONVERTER = "llama_cpp_python"
"""The distribution whose source the GGUF converter is taken from."""
ORIGIN = "origin"
"""The argument by which a converter is told where the source comes from."""
PIN_READERS = ("package transformers", "package tokenizers", "package python")
"""Software that renders and tokenizes golden prompts."""

_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")

Key = tuple[InputKind, str]
K = TypeVar("K")


@dataclass(frozen=True)
class _Sides:
    """Before and after of one input, on the way to an `InputChange`."""

    before: str
    after: str
    details: tuple[Detail, ...] = ()


def changes(before: Evidence, after: Evidence) -> tuple[InputChange, ...]:
    """Every input that differs, by kind and then name."""
    return Inputs(before, after).changes


def consequences(before: Evidence, after: Evidence) -> tuple[Consequence, ...]:
    """Every artifact and evalset's pinned prompts that differ, parents first."""
    return Inputs(before, after).consequences


# -------------------------------------------------------------------------- two values, key by key


def _differing(old: Mapping[K, Any], new: Mapping[K, Any]) -> Iterator[tuple[K, Any, Any]]:
    """Keys whose values differ, sorted, with both; None where a side has no such key."""
    for key in sorted(old.keys() | new.keys(), key=str):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield key, before, after


def _text(value: Any) -> str:
    """A plain value in few characters; nothing for None."""
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_json(value)


def _short(text: str) -> str:
    """Every sha256 in a text by its first 12 digits."""
    return _DIGEST.sub(r"\1…", text)


def _mark(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _there(name: str, *, before: bool, after: bool) -> Detail:
    return Detail(what=name, before=PRESENT if before else "", after=PRESENT if after else "")


def _at(params: Mapping[str, Any], *keys: str) -> Any:
    """A value of params.yaml; an empty mapping where there is none."""
    found: Any = params
    for key in keys:
        found = found.get(key, {}) if isinstance(found, Mapping) else {}
    return {} if found is None else found


# ------------------------------------------------------------------------- checkpoint and adapters


def _parts(name: str, before: Evidence, after: Evidence) -> dict[str, tuple[Detail, ...]]:
    """What differs in an artifact that both sides have, part by part; nothing if no byte does."""
    old, new = before.artifacts[name], after.artifacts[name]
    if old.identity == new.identity:
        return {}
    found: dict[str, list[Detail]] = {}
    if old.facts and new.facts:
        if old.facts.tensors_sha256 != new.facts.tensors_sha256:
            found["weights"] = list(_tensors(before.tensors(name), after.tensors(name)))
        told = {
            "tokenizer": old.facts.tokenizer_sha256 != new.facts.tokenizer_sha256,
            "template": old.facts.template_sha256 != new.facts.template_sha256,
        }
        for field, was, now in _differing(old.facts.metadata, new.facts.metadata):
            part = part_of(field)
            detail = Detail(what=field, before=_short(was or ""), after=_short(now or ""))
            found.setdefault(part if told.get(part) else "config", []).append(detail)
    if not found:
        found["files"] = [
            Detail(what=f"changed file {each.path}")
            if each.what == "changed"
            else _there(each.path, before=each.what == "missing", after=each.what == "extra")
            for each in differences(old.files, new.files)
        ]
    return {part: tuple(found[part]) for part in PARTS if part in found}


def _tensors(old: Iterable[TensorDigest], new: Iterable[TensorDigest]) -> Iterator[Detail]:
    was = {each.name: (each.dtype, each.shape, each.sha256) for each in old}
    now = {each.name: (each.dtype, each.shape, each.sha256) for each in new}
    names = [name for name, _, _ in _differing(was, now)]
    if not names:
        yield Detail(what="the same tensors, in other files or another order")
        return
    more = f", … ({len(names) - NAMED} more)" if len(names) > NAMED else ""
    listed = ", ".join(names[:NAMED])
    yield Detail(what=f"{len(names)} of {len(was.keys() | now.keys())} tensors: {listed}{more}")
    kinds = [", ".join(sorted({each[0] for each in side.values()})) for side in (was, now)]
    if kinds[0] != kinds[1]:
        yield Detail(what="stored as", before=kinds[0], after=kinds[1])


def _place(location: Mapping[str, Any]) -> str:
    """Where a checkpoint comes from: a path, or `repo@revision`."""
    if location.get("path"):
        return str(location["path"])
    repo, revision = location.get("repo"), str(location.get("revision"))
    return f"{repo}@{revision[:12]}" if repo else ""


def _source(before: Evidence, after: Evidence) -> Iterator[tuple[Key, _Sides]]:
    places = _place(_at(before.index.params, "source")), _place(_at(after.index.params, "source"))
    moved = places[0] != places[1]
    old, new = before.artifacts.get(SOURCE), after.artifacts.get(SOURCE)
    if old is None or new is None:
        if old or new:
            yield ("source", ""), _Sides(_identity(old), _identity(new))
        return
    parts = _parts(SOURCE, before, after)
    if moved and not parts:
        yield ("source", "location"), _Sides(*places)
    for number, (part, details) in enumerate(parts.items()):
        where = (Detail(what="location", before=places[0], after=places[1]),)
        yield (
            ("source", part),
            _Sides(
                _part_digest(old, part),
                _part_digest(new, part),
                (*(where if moved and not number else ()), *details),
            ),
        )


def _part_digest(record: ArtifactRecord, part: str) -> str:
    if record.facts is None or part == "files":
        return _mark(record.identity)
    return _mark(
        {
            "weights": record.facts.tensors_sha256,
            "tokenizer": record.facts.tokenizer_sha256,
            "template": record.facts.template_sha256,
        }.get(part, record.facts.metadata_sha256)
    )


def _adapters(before: Evidence, after: Evidence) -> Iterator[tuple[Key, _Sides]]:
    names = {
        name.removeprefix(ADAPTERS)
        for side in (before, after)
        for name in side.artifacts
        if name.startswith(ADAPTERS)
    }
    for name in sorted(names):
        record = f"{ADAPTERS}{name}"
        old, new = before.artifacts.get(record), after.artifacts.get(record)
        places = [_place(_at(side.index.params, "adapters", name)) for side in (before, after)]
        moved = places[0] != places[1]
        where = (Detail(what="location", before=places[0], after=places[1]),) if moved else ()
        if old is None or new is None:
            yield ("adapter", name), _Sides(_identity(old), _identity(new), where)
        elif parts := _parts(record, before, after):
            details = tuple(each for part in parts.values() for each in part)
            yield (
                ("adapter", name),
                _Sides(_identity(old), _identity(new), (*where, *details)),
            )
        elif moved:
            yield ("adapter location", name), _Sides(places[0], places[1])


def _identity(record: ArtifactRecord | None) -> str:
    return _mark(record.identity) if record else ""


# ------------------------------------------------------------------------------------- params.yaml


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Key, _Sides]]:
    for kind, section in (("merge settings", "merge"), ("decode", "decode")):
        yield from _keys(cast(InputKind, kind), _at(old, section), _at(new, section))
    if (was := _at(old, "gguf", "outtype")) != (now := _at(new, "gguf", "outtype")):
        yield ("gguf outtype", ""), _Sides(_text(was or None), _text(now or None))
    was, now = (set(_at(side, "gguf", "quantizations")) for side in (old, new))
    for name in sorted(was ^ now):
        yield ("quantization", name), _presence(name in was, name in now)
    yield from _recipes(old, new)
    for kind in ("variants", "vllm"):
        was, now = set(_at(old, kind)), set(_at(new, kind))
        if was != now:
            details = tuple(_there(n, before=n in was, after=n in now) for n in sorted(was ^ now))
            sides = [", ".join(sorted(side)) or "none" for side in (was, now)]
            yield (cast(InputKind, kind), ""), _Sides(sides[0], sides[1], details)
    kept = [
        {key: value for key, value in _at(side, "distributions").items() if key != "corpora"}
        for side in (old, new)
    ]
    yield from _keys("distributions", *kept)
    yield from _keys("params", *(_others(side) for side in (old, new)))


def _keys(kind: InputKind, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Any]:
    for key, was, now in _differing(old, new):
        yield (kind, key), _Sides(_text(was), _text(now))


def _presence(before: bool, after: bool) -> _Sides:
    return _Sides(PRESENT if before else "", PRESENT if after else "")


def _recipes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[Key, _Sides]]:
    """Recipes that an artifact is made by, on either side."""
    sides = [
        {name: _at(side, "mlx", "recipes", name) for name in _at(side, "mlx", "artifacts")}
        for side in (old, new)
    ]
    for name, was, now in _differing(*sides):
        details = (
            Detail(what=key, before=_text(a) or "none", after=_text(b) or "none")
            for key, a, b in _differing(was or {}, now or {})
            if was and now
        )
        yield ("mlx recipe", name), _Sides(_recipe(was), _recipe(now), tuple(details))


def _recipe(recipe: Mapping[str, Any] | None) -> str:
    said = sorted((key, value) for key, value in (recipe or {}).items() if value is not None)
    return ", ".join(f"{key} {_text(value)}" for key, value in said)


_HANDLED = ("source", "adapters", "variants", "evalsets", "merge", "vllm", "decode", "limits")
_HANDLED_WITHIN = {
    "gguf": ("outtype", "quantizations"),
    "mlx": ("artifacts", "recipes"),
    "distributions": ("top_k", "corpora"),
}


def _others(params: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of params.yaml that nothing above knows, so that none is ever passed over."""
    found: dict[str, Any] = {}
    for section, value in params.items():
        within = _HANDLED_WITHIN.get(section, ())
        if section in _HANDLED or section == "distributions":
            continue
        if not isinstance(value, Mapping):
            found[section] = value
        else:
            found |= {f"{section}.{k}": v for k, v in value.items() if k not in within}
    return found


# --------------------------------------------------------------------------- evalsets and corpora


def _evalsets(before: Evidence, after: Evidence) -> Iterator[tuple[Key, _Sides]]:
    old, new = ({each.name: each for each in side.index.evalsets} for side in (before, after))
    asked_old, asked_new = (_at(side.index.params, "evalsets") for side in (before, after))
    both = sorted(asked_old.keys() & asked_new.keys())
    for name in sorted(old.keys() | new.keys()):
        was, now = old.get(name), new.get(name)
        read = was is None or now is None or was.sha256 != now.sha256
        items_old = before.evalset(name) if was and read else {}
        items_new = after.evalset(name) if now and read else {}
        details = [
            *(_items(items_old, items_new) if was and now else ()),
            *(
                _there(f"asked of {v}", before=name in asked_old[v], after=name in asked_new[v])
                for v in both
                if (name in asked_old[v]) != (name in asked_new[v])
            ),
        ]
        if details or was is None or now is None:
            yield (
                ("evalset", name),
                _Sides(
                    _evalset(was.items if was else None, items_old),
                    _evalset(now.items if now else None, items_new),
                    tuple(details),
                ),
            )


def _items(old: Mapping[str, ItemDigest], new: Mapping[str, ItemDigest]) -> Iterator[Detail]:
    """Golden prompts that differ; how they are pinned is no input but a consequence."""
    was, now = ({each.id: each.sha256 for each in side.values()} for side in (old, new))
    named = False
    for item, a, b in _differing(was, now):
        named = True
        yield Detail(what=item, before=_mark(a) if a else "", after=_mark(b) if b else "")
    if not named and list(old) != list(new):
        yield Detail(what="the same items in another order")


def _evalset(count: int | None, items: Mapping[str, ItemDigest]) -> str:
    if count is None:
        return ""
    listed = "".join(f"{each.id} {each.sha256}\n" for each in items.values())
    digest = f", {_mark(sha256_text(listed))}" if items else ""
    return f"{count} item{'' if count == 1 else 's'}{digest}"


def _corpora(before: Evidence, after: Evidence) -> Iterator[tuple[Key, _Sides]]:
    sides = [
        {
            name: {**corpus, "text": side.index.corpora.get(name)}
            for name, corpus in _at(side.index.params, "distributions", "corpora").items()
        }
        for side in (before, after)
    ]
    for name, was, now in _differing(*sides):
        details = (
            Detail(what=key, before=_short(_text(a)), after=_short(_text(b)))
            for key, a, b in _differing(was or {}, now or {})
            if was and now
        )
        yield ("corpus", name), _Sides(_corpus(was), _corpus(now), tuple(details))


def _corpus(corpus: Mapping[str, Any] | None) -> str:
    if corpus is None:
        return ""
    return f"{_mark(corpus['text'])}, windows of {corpus.get('window')}"


# ------------------------------------------------------------------------------------ environments


@dataclass(frozen=True)
class _Used:
    """Two environments that stand for each other, and what was made in them."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    users: tuple[str, ...]


def environment_differences(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[Key, tuple[str, str, tuple[Detail, ...]]]:
    """What differs between two probed environments of one runtime, as inputs."""
    found: dict[Key, tuple[str, str, tuple[Detail, ...]]] = {}
    name = str(new.get("runtime") or old.get("runtime") or "")
    if "missing" in old or "missing" in new:
        if old.get("missing") != new.get("missing"):
            states = [str(side.get("missing", "installed")) for side in (old, new)]
            found["runtime", name] = (states[0], states[1], ())
        return found
    if old.get("python") != new.get("python"):
        found["package", "python"] = (_text(old.get("python")), _text(new.get("python")), ())
    for package, was, now in _differing(_at(old, "distributions"), _at(new, "distributions")):
        same = (was or {}).get("version") == (now or {}).get("version")
        found["package", package] = (_package(was, same), _package(now, same), ())
    if old.get("converter_sha256") != new.get("converter_sha256"):
        detail = Detail(
            what="GGUF converter",
            before=_mark(old.get("converter_sha256")),
            after=_mark(new.get("converter_sha256")),
        )
        versions = [_package(_at(side, "distributions", CONVERTER), False) for side in (old, new)]
        sides = found.get(("package", CONVERTER), (versions[0], versions[1], ()))
        found["package", CONVERTER] = (sides[0], sides[1], (detail,))
    if old.get("threads") != new.get("threads"):
        found["threads", ""] = (_text(old.get("threads")), _text(new.get("threads")), ())
    if machine := tuple(_machine(old, new)):
        found["hardware", ""] = (_hardware(old), _hardware(new), machine)
    return found


def _package(found: Mapping[str, str] | None, same_version: bool) -> str:
    if not found:
        return ""
    files = f" (files {_mark(found.get('files_sha256'))})" if same_version else ""
    return f"{found.get('version')}{files}"


def _machine(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Detail]:
    sides = [
        {key: side[key] for key in side if key not in TRACKED and side[key] not in ("", None)}
        for side in (old, new)
    ]
    for key, was, now in _differing(*sides):
        yield Detail(what=key, before=_text(was), after=_text(now))
    was, now = (set(side.get("cpu_features") or ()) for side in (old, new))
    for name in sorted(was ^ now):
        yield _there(name, before=name in was, after=name in now)


def _hardware(environment: Mapping[str, Any]) -> str:
    said = [environment.get(key) for key in ("cpu", "machine", "system")]
    features = len(environment.get("cpu_features") or ())
    return ", ".join([*(str(each) for each in said if each), f"{features} CPU features"])


class _Environments:
    """The environments that records of the two sides were made in, read once each."""

    def __init__(self, before: Evidence, after: Evidence) -> None:
        self.before, self.after = before, after
        self._read: dict[tuple[int, str], Mapping[str, Any]] = {}
        self._differences: dict[tuple[str, str], dict[Key, tuple[str, str, Any]]] = {}

    def labels(self, old: str | None, new: str | None) -> frozenset[str]:
        """Labels of the inputs that differ between two environments."""
        if not old or not new or old == new:
            return frozenset()
        return frozenset(f"{kind} {name}".rstrip() for kind, name in self._between(old, new))

    def changes(self) -> Iterator[tuple[Key, _Sides]]:
        """One change per input, whatever number of environments has it."""
        found: dict[Key, dict[tuple[str, str], list[str]]] = {}
        details: dict[Key, dict[Detail, None]] = {}
        users: dict[Key, dict[str, None]] = {}
        for (old, new), touched in self._pairs().items():
            runtime = str(self._environment(1, new).get("runtime"))
            for key, (was, now, said) in self._between(old, new).items():
                found.setdefault(key, {}).setdefault((was, now), []).append(runtime)
                details.setdefault(key, {}).update(dict.fromkeys(said))
                users.setdefault(key, {}).update(dict.fromkeys(touched))
        for key, sides in found.items():
            listed = list(details[key])
            if len(sides) > 1:
                listed += [
                    Detail(what=f"in {', '.join(sorted(set(where)))}", before=was, after=now)
                    for (was, now), where in sorted(sides.items(), key=lambda each: each[1])
                ]
            listed.append(Detail(what=f"touches {', '.join(sorted(users[key]))}"))
            joined = [
                ", ".join(sorted({side[end] for side in sides if side[end]})) for end in (0, 1)
            ]
            yield key, _Sides(joined[0], joined[1], tuple(listed))

    def _pairs(self) -> dict[tuple[str, str], dict[str, None]]:
        """Differing environments of records that both sides have, and who uses them.

        A runtime all of whose records have other names is taken by what it has on either side, if
        that is one environment.
        """
        found: dict[tuple[str, str], dict[str, None]] = {}
        old, new = _users(self.before), _users(self.after)
        shared = set()
        for name in old.keys() & new.keys():
            (was, user), (now, _) = old[name], new[name]
            shared.add(user)
            if was != now:
                found.setdefault((was, now), {})[user] = None
        for user in {user for _, user in old.values()} & {user for _, user in new.values()}:
            if user not in shared:
                was_all = {sha for sha, each in old.values() if each == user}
                now_all = {sha for sha, each in new.values() if each == user}
                if len(was_all) == len(now_all) == 1 and was_all != now_all:
                    found.setdefault((was_all.pop(), now_all.pop()), {})[user] = None
        return dict(sorted(found.items()))

    def _between(self, old: str, new: str) -> dict[Key, tuple[str, str, Any]]:
        if (old, new) not in self._differences:
            self._differences[old, new] = environment_differences(
                self._environment(0, old), self._environment(1, new)
            )
        return self._differences[old, new]

    def _environment(self, side: int, sha256: str) -> Mapping[str, Any]:
        if (side, sha256) not in self._read:
            evidence = (self.before, self.after)[side]
            try:
                self._read[side, sha256] = json.loads(evidence.environment(sha256))
            except (OSError, KeyError, ValueError):
                raise RefusedError(
                    f"{evidence.where}: environment {sha256[:12]}… of a record is not among the "
                    "evidence",
                    remedy=REMEDY,
                ) from None
        return self._read[side, sha256]


def _users(evidence: Evidence) -> dict[str, tuple[str, str]]:
    """Environment of every record that has one, and what that record is of."""
    found = {}
    for name, record in evidence.artifacts.items():
        if record.environment_sha256:
            found[name] = (record.environment_sha256, _conversion(record))
    for name, cell in evidence.cells.items():
        if cell.environment_sha256:
            found[f"cells/{name}"] = (cell.environment_sha256, f"{cell.cell.runtime} cells")
    return found


def _conversion(record: ArtifactRecord) -> str:
    """`merge`, `quantize`, `convert gguf`, `convert mlx`."""
    return record.conversion + (f" {record.kind}" if record.conversion == "convert" else "")


# -------------------------------------------------------------------------------- driftline's code


def _code(before: Evidence, after: Evidence) -> Iterator[tuple[Key, _Sides]]:
    """Stages whose code differs, where it made anything of either side."""
    found: dict[str, dict[tuple[str, str], None]] = {}
    for stage, was, now in _differing(before.index.code, after.index.code):
        found.setdefault(stage, {})[was or "", now or ""] = None
    old, new = _code_of_records(before), _code_of_records(after)
    for name in old.keys() & new.keys():
        (stage, was), (_, now) = old[name], new[name]
        if was != now:
            found.setdefault(stage, {})[was, now] = None
    for stage, sides in found.items():
        if any(_makes(stage, evidence) for evidence in (before, after)):
            joined = [", ".join(sorted({s[end][:12] for s in sides if s[end]})) for end in (0, 1)]
            yield ("driftline code", stage), _Sides(joined[0], joined[1])


def _code_of_records(evidence: Evidence) -> dict[str, tuple[str, str]]:
    found = {name: (stage_of(r), r.code_sha256) for name, r in evidence.artifacts.items()}
    for name, cell in evidence.cells.items():
        found[f"cells/{name}"] = (f"score_{cell.cell.runtime}", cell.code_sha256)
    return {name: (stage, sha) for name, (stage, sha) in found.items() if stage and sha}


def stage_of(record: ArtifactRecord) -> str:
    """`merge` of `python -m pipeline.stages.merge audit`; empty where there is no command."""
    return record.command.partition("pipeline.stages.")[2].partition(" ")[0]


def _makes(stage: str, evidence: Evidence) -> bool:
    """Whether a stage's code could have changed anything of this evidence."""
    if stage in NO_RESULT:
        return False
    if stage.startswith("score_"):
        runtime = stage.removeprefix("score_")
        return any(cell.cell.runtime == runtime for cell in evidence.cells.values())
    if stage in MAKERS:
        wanted = " ".join(MAKERS[stage])
        return any(_conversion(record) == wanted for record in evidence.artifacts.values())
    return True


# ---------------------------------------------------------------------------- all of it, and traces

ORDER = {kind: number for number, kind in enumerate(get_args(InputKind))}
ARTIFACT_ORDER = {kind: n for n, kind in enumerate(("source", "adapter", "merged", "gguf", "mlx"))}


class Inputs:
    """Inputs that differ between two commits, and the way from what they changed back to them."""

    def __init__(self, before: Evidence, after: Evidence) -> None:
        """Look at two commits; nothing is read before it is asked for."""
        self.before, self.after = before, after
        self._environments = _Environments(before, after)
        self._traced: dict[str, frozenset[str]] = {}

    @cached_property
    def changes(self) -> tuple[InputChange, ...]:
        """Every input that differs, by kind and then name."""
        before, after = self.before, self.after
        threads = [_at(side.index.params, "limits", "threads") or None for side in (before, after)]
        found: dict[Key, _Sides] = {
            **dict(_keys("threads", *({"": value} for value in threads))),
            **dict(self._environments.changes()),
            **dict(_source(before, after)),
            **dict(_adapters(before, after)),
            **dict(_settings(before.index.params, after.index.params)),
            **dict(_evalsets(before, after)),
            **dict(_corpora(before, after)),
            **dict(_code(before, after)),
        }
        return tuple(
            InputChange(
                kind=kind, name=name, before=s.before, after=s.after, details=tuple(s.details)
            )
            for (kind, name), s in sorted(
                found.items(), key=lambda each: (ORDER[each[0][0]], each[0][1])
            )
        )

    @cached_property
    def labels(self) -> frozenset[str]:
        """Labels of all changes."""
        return frozenset(change.label for change in self.changes)

    @property
    def consequences(self) -> tuple[Consequence, ...]:
        """Artifacts and pinned prompts that differ, parents first, each with what explains it."""
        return (*self._artifacts(), *self._prompts())

    def _artifacts(self) -> Iterator[Consequence]:
        old, new = self.before.artifacts, self.after.artifacts
        for name in sorted(old.keys() | new.keys(), key=self._rank):
            was, now = old.get(name), new.get(name)
            if was is None or now is None or was.identity != now.identity:
                yield Consequence(
                    kind="artifact",
                    name=name,
                    before=was.identity if was else "",
                    after=now.identity if now else "",
                    because=tuple(sorted(self.because(name))),
                )

    def _rank(self, name: str) -> tuple[int, bool, str]:
        record = self.after.artifacts.get(name) or self.before.artifacts[name]
        return ARTIFACT_ORDER[record.kind], record.conversion == "quantize", name

    def because(self, name: str) -> frozenset[str]:
        """Labels of the changed inputs an artifact was made from, whichever way.

        Empty for one whose bytes are the same, that only one side has, or that nothing explains.
        """
        if name not in self._traced:
            self._traced[name] = frozenset()  # records of a cycle explain nothing
            self._traced[name] = self._because(name)
        return self._traced[name]

    def _because(self, name: str) -> frozenset[str]:
        old, new = self.before.artifacts.get(name), self.after.artifacts.get(name)
        if old is None or new is None or old.identity == new.identity:
            return frozenset()
        found = set(self._environments.labels(old.environment_sha256, new.environment_sha256))
        if old.code_sha256 != new.code_sha256:
            found.add(f"driftline code {stage_of(new)}")
        if old.conversion == new.conversion == "pin":
            if old.arguments != new.arguments or "revision" not in new.arguments:
                found |= self._pinned(name)
        else:
            found |= self._parents(old, new)
            if old.arguments != new.arguments:
                found |= self._arguments(old, new)
        if not found and old.arguments != new.arguments:
            found.add("its arguments")
        if not found and (old.tool, old.tool_version) != (new.tool, new.tool_version):
            found.add(f"tool {old.tool} {old.tool_version} → {new.tool} {new.tool_version}")
        return frozenset(found)

    def _pinned(self, name: str) -> set[str]:
        if name.startswith(ADAPTERS):
            return {f"adapter {name.removeprefix(ADAPTERS)}"}
        return self._of(lambda change: change.kind == "source" and change.name != "location")

    def _parents(self, old: ArtifactRecord, new: ArtifactRecord) -> set[str]:
        was, now = ({each.name: each.identity for each in r.parents} for r in (old, new))
        found: set[str] = set()
        for parent, a, b in _differing(was, now):
            if a and b:
                found |= self.because(parent) or {f"{parent} (unexplained)"}
        if was.keys() != now.keys():
            found |= self._of(lambda c: c.kind == "gguf outtype") or {"other parents"}
        return found

    def _arguments(self, old: ArtifactRecord, new: ArtifactRecord) -> set[str]:
        kinds = {
            "merge": "merge settings",
            "convert gguf": "gguf outtype",
            "convert mlx": f"mlx recipe {new.name.rpartition('/')[2]}",
        }
        wanted = {kinds.get(_conversion(new))}
        told = {key for key, _, _ in _differing(old.arguments, new.arguments)}
        if ORIGIN in told:  # a GGUF says where its source comes from, and which bytes that was
            wanted = {"source", *(wanted if told != {ORIGIN} else ())}
        return self._of(lambda change: change.kind in wanted or change.label in wanted)

    def _of(self, which: Callable[[InputChange], bool]) -> set[str]:
        return {change.label for change in self.changes if which(change)}

    def _prompts(self) -> Iterator[Consequence]:
        """Evalsets whose unchanged items are rendered or tokenized to something else."""
        old = {each.name: each for each in self.before.index.evalsets}
        for new in self.after.index.evalsets:
            was = old.get(new.name)
            if was is None or was.sha256 == new.sha256:
                continue
            before, after = self.before.evalset(new.name), self.after.evalset(new.name)
            same = [k for k in before if k in after and before[k].sha256 == after[k].sha256]
            moved = [k for k in same if before[k].prompt_sha256 != after[k].prompt_sha256]
            if moved:
                read = self._of(
                    lambda c: c.kind == "source" and c.name not in ("location", "weights")
                )
                known = {*PIN_READERS, "driftline code prompts"} & self.labels
                digests = [
                    sha256_text("".join(side[key].prompt_sha256 for key in moved))
                    for side in (before, after)
                ]
                yield Consequence(
                    kind="prompts",
                    name=f"{new.name}: {len(moved)} of {len(same)} prompts",
                    before=digests[0],
                    after=digests[1],
                    because=tuple(sorted(read | known)),
                )
