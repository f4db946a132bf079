"""The published JSON Schemas of the store's files, and the check that every write passes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import Spec
from include.errors import IntegrityError
from include.results.schema import SCHEMA_VERSION, BenchmarkResult, RunRecord

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FOLDER = Path(__file__).with_name("schemas")
PUBLISHED: dict[str, type[Spec]] = {"benchmark_result": BenchmarkResult, "run_record": RunRecord}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema_of(name: str) -> dict[str, Any]:
    """Return a file kind's JSON Schema (draft 2020-12), as its model defines it."""
    content = PUBLISHED[name].model_json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": f"urn:hyperpod-pipelines:{name}:{SCHEMA_VERSION}", **content}


def publish(folder: Path = FOLDER) -> list[Path]:
    """Write every schema as ``<name>.schema.json``; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PUBLISHED:
        path = folder / f"{name}.schema.json"
        path.write_text(json.dumps(schema_of(name), indent=1, sort_keys=True) + "\n")
        paths.append(path)
    return paths


def to_json(name: str, value: Spec) -> bytes:
    """Return a value as JSON that the published schema accepts.

    :raises IntegrityError: naming every field that the schema refuses; ``model_copy`` can make such values.
    """
    try:
        text = json.dumps(value.model_dump(mode="json", warnings=False), indent=1, allow_nan=False)
    except ValueError as error:
        raise IntegrityError(
            "SchemaViolation", f"{name}: {error}", fix="NaN and infinity have no JSON: write null"
        ) from error
    problems = sorted(
        f"{'/'.join(str(part) for part in item.absolute_path) or '(root)'}: {item.message[:200]}"
        for item in _validator(name).iter_errors(json.loads(text))
    )
    if problems:
        raise IntegrityError(
            "SchemaViolation",
            f"{name} does not fit include/results/schemas/{name}.schema.json: {'; '.join(problems)}",
            fix="correct the fields named; nothing was written",
            evidence=tuple(problems),
        )
    return text.encode()


@cache
def _validator(name: str) -> Validator:
    from jsonschema import Draft202012Validator

    content = json.loads((FOLDER / f"{name}.schema.json").read_text())
    return Draft202012Validator(content, format_checker=Draft202012Validator.FORMAT_CHECKER)
