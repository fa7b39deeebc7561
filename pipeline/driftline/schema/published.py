"""JSON Schemas of the formats that others may read, as files beside the documentation.

    python -m driftline.schema.published docs/schema

Writes `<name>.v<N>.json` for the current version of each; files of earlier versions stay.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from driftline.files import write_text
from driftline.schema.artifacts import ArtifactRecord, Manifest, TensorDigest
from driftline.schema.budget import Budget
from driftline.schema.cells import CellRecord
from driftline.schema.comparison import ComparisonReport
from driftline.schema.gate import GateReport
from driftline.schema.hops import DriftReport
from driftline.schema.imports import ImportRecord
from driftline.schema.lineage import ItemDigest, ItemEvidence, LineageIndex
from driftline.schema.release import ReleaseRecord
from driftline.schema.values import Value
from driftline.schema.weights import ControlRecord, CounterfactualRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: tuple[type[Value], ...] = (
    ArtifactRecord,
    CellRecord,
    Manifest,
    LineageIndex,
    ItemEvidence,
    ItemDigest,
    TensorDigest,
    CounterfactualRecord,
    ControlRecord,
    DriftReport,
    ReleaseRecord,
    GateReport,
    ComparisonReport,
    ImportRecord,
    Budget,
)
PUBLISHED: Mapping[str, type[Value]] = {
    re.sub(r"(?<=[a-z])(?=[A-Z])", "-", kind.__name__).lower(): kind for kind in TYPES
}
"""By name: `artifact-record`."""


class _AsWritten(GenerateJsonSchema):
    """Every field is there, whether or not it has a default: `dump` writes them all."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        """Always."""
        return True


def file_name(name: str) -> str:
    """`artifact-record.v2.json`: a type without a `schema_version` is at its first."""
    version = PUBLISHED[name].model_fields.get("schema_version")
    return f"{name}.v{version.default if version else 1}.json"


def schema(name: str) -> dict[str, Any]:
    """What a file of that format holds, as JSON Schema 2020-12."""
    body = PUBLISHED[name].model_json_schema(mode="serialization", schema_generator=_AsWritten)
    return {"$schema": DIALECT, "$id": file_name(name), **body}


def text(name: str) -> str:
    """The same as it is written."""
    return json.dumps(schema(name), sort_keys=True, ensure_ascii=False, indent=1) + "\n"


def write(folder: Path) -> None:
    """Write the current schema of every format into `folder`."""
    for name in PUBLISHED:
        write_text(folder / file_name(name), text(name))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
