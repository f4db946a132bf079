"""Which file is in which format, and what is written how."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from include.errors import ConfigurationError
from include.results.exchange import llmd, records, suite, vllm
from include.results.exchange.reading import read_document
from include.results.schema import BenchmarkResult

if TYPE_CHECKING:
    import pyarrow as pa

Imported = tuple[BenchmarkResult, "pa.Table | None"]
IMPORTS = ("auto", "llm-d", "vllm-bench", "aiperf", "guidellm", "csv")
EXPORTS = ("llm-d", "llm-d-superset", "vllm-bench", "csv")


def read(path: Path, form: str = "auto", *, model: str = "", workload: str = "") -> list[Imported]:
    """Return the results of a file, each with its requests where the file has them.

    :param model, workload: names for formats that do not carry them (AIPerf, GuideLLM).
    :raises ConfigurationError: the format cannot be told, or a name is missing.
    :raises IntegrityError: the file is not what it says it is.
    """
    chosen = guess(path) if form == "auto" else form
    if chosen == "csv":
        return [(result, None) for result in suite.read(path)]
    if chosen in ("aiperf", "guidellm"):
        if not model:
            raise ConfigurationError("ModelUnknown", f"{path} does not name its model", fix="give --model NAME")
        return [records.read(path, chosen, model, workload)]
    document = read_document(path)
    return [((llmd.read if chosen == "llm-d" else vllm.read)(document), None)]


def guess(path: Path) -> str:
    """Return a file's format by its ending and its first fields."""
    if path.suffix == ".csv":
        return "csv"
    if path.suffix == ".jsonl":
        return "aiperf"
    content = read_document(path).content
    if "benchmarks" in content:
        return "guidellm"
    if "run" in content or "version" in content:
        return "llm-d"
    if "model_id" in content or "completed" in content:
        return "vllm-bench"
    raise ConfigurationError(
        "FormatUnknown",
        f"{path}: none of its fields tells the format",
        fix=f"give --format, one of {', '.join(IMPORTS[1:])}",
    )


def write(results: Sequence[BenchmarkResult], form: str) -> str:
    """Return results as text: one JSON object for one result, JSON lines for more, or CSV.

    :raises ConfigurationError: an unknown format.
    """
    if form == "csv":
        return suite.write(results)
    if form == "vllm-bench":
        contents = [vllm.write(result) for result in results]
    elif form in ("llm-d", "llm-d-superset"):
        contents = [llmd.write(result, strict=form == "llm-d") for result in results]
    else:
        raise ConfigurationError("FormatUnknown", f"cannot export {form!r}", fix=f"one of {', '.join(EXPORTS)}")
    if len(contents) == 1:
        return json.dumps(contents[0], indent=1) + "\n"
    return "".join(json.dumps(content) + "\n" for content in contents)
