"""From what a foreign file says to one of our results: unknown stays empty, and the source is kept whole."""

from __future__ import annotations

import datetime as dt
from typing import Any

from include.canonical import digest
from include.catalog.plan import RunIdentity
from include.results.schema import BenchmarkResult, Percentiles, Provenance, Statistics, Validity

JsonObject = dict[str, Any]
DAG_ID = "import"


def imported(
    *,
    form: str,
    version: str,
    document: JsonObject,
    model: str,
    workload: str,
    load_spec: JsonObject,
    statistics: Statistics,
    started_at: dt.datetime | None = None,
    tool: str = "",
    tool_version: str = "",
    provenance: JsonObject | None = None,
) -> BenchmarkResult:
    """Return a result.

    Its identity is the content's digest, so that importing a file twice keeps one result. Its harness is the foreign
    tool, so that history is never compared across tools.

    :param document: the source's own content; kept in ``extension.imported``, from which an export in the same format
        gives back every field.
    """
    mark = digest(document).removeprefix("sha256:")
    begun = started_at or dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    reasons = [] if statistics.requests_ok else ["no request succeeded"]
    return BenchmarkResult(
        result_id=f"{form}-{mark[:24]}",
        run=RunIdentity(dag_id=DAG_ID, run_id=f"{form}-{mark[:12]}", started_at=begun),
        workload=workload or "unknown",
        load=load_label(load_spec),
        load_spec=load_spec,
        workload_digest=digest({"workload": workload, "load": load_spec, "tool": tool or form}),
        started_at=begun,
        ended_at=begun + dt.timedelta(seconds=statistics.duration_s),
        statistics=statistics,
        validity=Validity(valid=not reasons, reasons=tuple(reasons)),
        provenance=Provenance(
            **{
                "model": model, "revision": "", "manifest_digest": "", "plan_digest": "", "spec_digest": "",
                "harness": tool or form, "harness_version": tool_version,
            } | (provenance or {})
        ),
        extension={"imported": {"format": form, "version": version, "document": document}},
    )  # fmt: skip


def load_label(load: JsonObject) -> str:
    """Return how we name a load level: ``c=8`` (closed loop) or ``rate=2`` (open loop)."""
    if load.get("concurrency"):
        return f"c={load['concurrency']:g}"
    return f"rate={load['rate']}" if load.get("rate") else "unknown"


def source(result: BenchmarkResult, form: str) -> JsonObject | None:
    """Return the document that a result was imported from, if it was in this format."""
    found = result.extension.get("imported") or {}
    return dict(found["document"]) if found.get("format") == form else None


def percentiles(count: int, values: dict[str, float | None], *, scale: float = 1.0) -> Percentiles:
    """Return a latency from ``mean``, ``p50`` … ``max``, each times ``scale``."""
    kept = {name: value * scale for name, value in values.items() if value is not None}
    return Percentiles(count=count, **kept) if kept else Percentiles()
