"""Make and read many records or results, one action a process: ``make|summarise|index|query``; prints its cost."""

from __future__ import annotations

import datetime as dt
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

QUERY = """
SELECT model, workload, load, count(*) AS nights, median(ttft_ms_p50) AS ttft, max(output_tokens_per_s) AS best
FROM results WHERE valid AND started_at >= TIMESTAMP '2026-01-03' GROUP BY ALL ORDER BY ALL
"""


def make(case: str, folder: Path, count: int) -> None:
    """Write the files that both tools read."""
    if case == "records":
        _records(folder / "requests.parquet", count)
    else:
        _results(folder / "store", count)


def _records(path: Path, count: int) -> None:
    import numpy as np
    import pyarrow as pa

    from include.loadtest.records import METADATA_KEY, schema, write_parquet

    rng = np.random.default_rng(7)
    sent = np.arange(count, dtype=np.int64) * 1_000_000 + 1_790_000_000_000_000_000
    first = (np.exp(rng.normal(4.6, 0.3, count)) * 1e6).astype(np.int64)
    chunks = 8
    gaps = (np.exp(rng.normal(2.3, 0.2, (count, chunks - 1))) * 1e6).astype(np.int64)
    offsets = np.cumsum(np.concatenate([first[:, None], gaps], axis=1), axis=1)
    given: dict[str, Any] = {
        "request_id": [f"r{n}" for n in range(count)],
        "phase": ["measure"] * count, "arm": ["cold"] * count, "index": np.arange(count),
        "scheduled_ns": sent, "ready_ns": sent, "sent_ns": sent, "first_byte_ns": sent + first,
        "first_token_ns": sent + first, "last_token_ns": sent + offsets[:, -1], "end_ns": sent + offsets[:, -1],
        "chunk_offsets_ns": pa.ListArray.from_arrays(np.arange(0, count * chunks + 1, chunks, dtype=np.int32),
                                                     offsets.ravel()),
        "chunks": np.full(count, chunks), "input_tokens": np.full(count, 512), "output_tokens": np.full(count, chunks),
        "status": np.full(count, 200), "ok": np.full(count, True), "error_class": [""] * count,
    }  # fmt: skip
    columns = [
        pa.array(given[f.name], f.type) if f.name in given and not isinstance(given[f.name], pa.Array)
        else given.get(f.name, pa.nulls(count, f.type))
        for f in schema()
    ]  # fmt: skip
    meta = {METADATA_KEY: json.dumps({"schema_version": 1, "workers": []}).encode()}
    write_parquet(pa.Table.from_arrays(columns, schema=schema().with_metadata(meta)), path)


def _results(folder: Path, count: int) -> None:
    from include.catalog.plan import RunIdentity
    from include.results.schema import BenchmarkResult, Percentiles, Provenance, Statistics, Validity

    start = dt.datetime(2026, 1, 1, 2, tzinfo=dt.UTC)
    latency = Percentiles(count=500, mean=101, p50=100, p90=120, p95=130, p99=160, max=200)
    template = BenchmarkResult(
        result_id="ID", run=RunIdentity(dag_id="nightly_benchmark", run_id="RUN", started_at=start),
        workload="chat", load="c=4", load_spec={"mode": "closed", "concurrency": 4}, workload_digest="sha256:5",
        started_at=start, ended_at=start,
        statistics=Statistics(ttft_ms=latency, chunk_gap_ms=latency, tpot_ms=latency, e2e_ms=latency, requests_ok=500,
                              output_tokens=16000, output_tokens_per_s=500, requests_per_s=15, duration_s=60),
        validity=Validity(valid=True),
        provenance=Provenance(model="MODEL", revision="a" * 40, manifest_digest="sha256:1", plan_digest="sha256:2",
                              spec_digest="sha256:3", instance_type="ml.g5.8xlarge", accelerators=1),
    ).model_dump(mode="json")  # fmt: skip
    for number in range(count):
        night, one = divmod(number, 400)
        moment = (start + dt.timedelta(days=night, minutes=one)).isoformat()
        template["result_id"] = f"r{number}"
        template["run"] |= {"run_id": f"n{night}", "cell": f"c{one}", "started_at": moment}
        template |= {"started_at": moment, "ended_at": moment, "workload": f"w{one % 5}", "load": f"c={one % 4}"}
        template["provenance"]["model"] = model = f"model-{one % 20}"
        template["statistics"]["ttft_ms"]["p50"] = 100 + number % 17
        place = folder / f"results/date={moment[:10]}/model={model}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"r{number}.json").write_text(json.dumps(template))


def summarise(tool: str, folder: Path, count: int) -> None:
    """Percentiles of TTFT, chunk gap, TPOT, E2E, and rates, from the per-request file."""
    path = folder / "requests.parquet"
    if tool == "ours":
        from include.loadtest.statistics import summarise as compute

        found = compute(path)
        if found.requests_ok != count:
            raise ValueError(f"{found.requests_ok} of {count} records")
        return
    import numpy as np
    import pandas as pd

    frame = pd.read_parquet(path)
    frame = frame[frame["ok"] & (frame["phase"] == "measure")]
    gaps = pd.Series(np.concatenate([np.diff(item) for item in frame["chunk_offsets_ns"]]))
    tpot = (frame["last_token_ns"] - frame["first_token_ns"]) / (frame["output_tokens"] - 1)
    for values in (frame["first_token_ns"] - frame["scheduled_ns"], gaps, tpot, frame["end_ns"] - frame["sent_ns"]):
        values.quantile([0.5, 0.9, 0.95, 0.99])


def index(folder: Path, count: int) -> None:
    """Build the query index from every file."""
    from include.results.index import Index
    from include.results.store import ResultsStore

    built = Index(ResultsStore.open(str(folder / "store")))
    built.rebuild()
    if built.query("SELECT count(*) AS n FROM results") != [{"n": count}]:
        raise ValueError("results are missing from the index")


def query(tool: str, folder: Path) -> None:
    """Open the store and answer one question; pandas has no index and reads the files."""
    if tool == "ours":
        from include.results.index import Index
        from include.results.store import ResultsStore

        if not Index(ResultsStore.open(str(folder / "store"))).query(QUERY):
            raise ValueError("no rows")
        return
    import pandas as pd

    frame = pd.json_normalize([json.loads(path.read_bytes()) for path in folder.glob("store/results/*/*/*.json")])
    started = pd.to_datetime(frame["started_at"], format="ISO8601")
    frame = frame[frame["validity.valid"] & (started >= pd.Timestamp("2026-01-03", tz="UTC"))]
    frame.groupby(["provenance.model", "workload", "load"]).agg(
        {"statistics.ttft_ms.p50": ["count", "median"], "statistics.output_tokens_per_s": "max"}
    )


def main(action: str, what: str, folder: str, count: str) -> int:
    """Run one action and print its seconds and peak memory."""
    began = time.perf_counter()
    if action == "make":
        make(what, Path(folder), int(count))
    elif action == "summarise":
        summarise(what, Path(folder), int(count))
    elif action == "index":
        index(Path(folder), int(count))
    else:
        query(what, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump({"wall_seconds": time.perf_counter() - began, "peak_rss_mib": peak}, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
