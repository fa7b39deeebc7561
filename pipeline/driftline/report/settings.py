"""The runtime matrix: what was in force in each cell, said once where cells agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from driftline.schema.cells import CellRecord
from driftline.schema.values import canonical_json


@dataclass(frozen=True)
class Shared:
    """One setting that every cell of a runtime has with the same value."""

    key: str
    value: str


@dataclass(frozen=True)
class Differing:
    """One value of a setting that differs between cells; None: not reported by these cells."""

    key: str
    value: str | None
    cells: tuple[str, ...]


@dataclass(frozen=True)
class RuntimeMatrix:
    """One runtime: laws: every setting of every cell is in `shared` or `differing`, not in both."""

    runtime: str
    cells: tuple[str, ...]
    shared: tuple[Shared, ...]
    differing: tuple[Differing, ...]
    silent: tuple[str, ...]
    """Cells that never got as far as reporting anything."""


def runtime_matrix(cells: Sequence[CellRecord]) -> tuple[RuntimeMatrix, ...]:
    """One entry per runtime, in the order in which runtimes first occur."""
    runtimes = dict.fromkeys(cell.cell.runtime for cell in cells)
    return tuple(
        _matrix(name, [cell for cell in cells if cell.cell.runtime == name]) for name in runtimes
    )


def flatten(tree: Mapping[str, JsonValue], prefix: str = "") -> dict[str, str]:
    """Nested settings as `outer.inner` → value; text as it is, anything else as JSON."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value if isinstance(value, str) else canonical_json(value)
    return flat


def _matrix(runtime: str, cells: Sequence[CellRecord]) -> RuntimeMatrix:
    reported = {
        cell.cell.id: {
            **flatten(cell.build, "build."),
            **flatten(cell.settings),
        }
        for cell in cells
        if cell.build or cell.settings
    }
    keys = sorted({key for settings in reported.values() for key in settings})
    shared: list[Shared] = []
    differing: list[Differing] = []
    for key in keys:
        by_value: dict[str | None, list[str]] = {}
        for cell, settings in reported.items():
            by_value.setdefault(settings.get(key), []).append(cell)
        values = list(by_value.items())
        if len(values) == 1 and values[0][0] is not None:
            shared.append(Shared(key=key, value=values[0][0]))
        else:
            differing += [Differing(key, value, tuple(where)) for value, where in values]
    return RuntimeMatrix(
        runtime=runtime,
        cells=tuple(reported),
        shared=tuple(shared),
        differing=tuple(differing),
        silent=tuple(cell.cell.id for cell in cells if cell.cell.id not in reported),
    )
