"""What a pod of a load Job does, and how its results come back: through a folder of the object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from include.catalog.specs import JsonObject, LoadEngine, LoadSpec, WorkloadSpec
from include.errors import ConfigurationError, FailureClass, PipelineError
from include.loadtest.job import Job
from include.loadtest.kubernetes_job import ForeignRun, Order
from include.loadtest.rendezvous import Rendezvous
from include.objects import Objects

METRICS, SUMMARY = "server-metrics.parquet", "server-metrics.json"


def run_pod(orders_file: Path, index: int, results_uri: str, scratch: Path) -> Path:
    """Do one pod's order and put its records into the store, also those of a run that broke off; return their file.

    :raises ConfigurationError: there is no order for this index.
    """
    orders = msgspec.json.decode(orders_file.read_bytes(), type=list[Order])
    if not 0 <= index < len(orders):
        raise ConfigurationError(
            "NoSuchIndex",
            f"{orders_file} has {len(orders)} orders, none with index {index}",
            fix="Set completions to match.",
        )
    scratch.mkdir(parents=True, exist_ok=True)
    order, store = orders[index], Objects.open(results_uri)
    path = scratch / f"worker-{index}.parquet"
    if order.foreign is not None:
        _foreign(order.foreign, scratch).replace(path)
        store.put_file(path.name, path)
    elif order.job is not None:
        _ours(order, order.job, index, store, path)
    return path


def _ours(order: Order, job: Job, index: int, store: Objects, path: Path) -> None:
    from include.loadtest.records import read_shard, shard_table, write_parquet
    from include.loadtest.scrape import Scraper, series_summary
    from include.loadtest.supervise import Generators

    spool, folder = path.with_suffix(".spool"), path.parent
    job = msgspec.structs.replace(job, out=str(spool))
    meeting = Rendezvous(store, index, order.pods, order.ready_s)
    try:
        with (
            Scraper(tuple(order.metrics_urls), folder / METRICS) as scraper,
            Generators([job], folder, meeting.meet) as generators,
        ):
            generators.run()
        if scraper.readings:
            store.put(SUMMARY, msgspec.json.encode(series_summary(scraper)))
            store.put_file(METRICS, folder / METRICS)
    finally:
        if spool.exists():
            write_parquet(shard_table(read_shard(spool)), path)
            store.put_file(path.name, path)


def _foreign(run: ForeignRun, scratch: Path) -> Path:
    from include.loadtest.foreign.run import run_foreign
    from include.loadtest.target import Target

    return run_foreign(
        run.engine,
        Target.model_validate(run.target),
        WorkloadSpec.model_validate(run.workload),
        LoadSpec.model_validate(run.load),
        LoadEngine.model_validate(run.install),
        out_dir=scratch,
    )


def collect_pods(results_uri: str, pods: int, folder: Path, *, session: Any = None) -> Path:
    """Merge the pods' records into ``folder/requests.parquet``; server metrics come beside it when there are any.

    :raises PipelineError: ``MissingShard`` names the pods that left nothing.
    """
    from include.loadtest.records import load, write_parquet

    store = Objects.open(results_uri, session=session)
    folder.mkdir(parents=True, exist_ok=True)
    found = {f"worker-{pod}": store.get(f"worker-{pod}.parquet") for pod in range(pods)}
    missing = [name for name, content in found.items() if content is None]
    if missing:
        raise PipelineError(
            "MissingShard",
            f"{len(missing)} of {pods} load pods left no records: {', '.join(missing)}",
            fix="Look at the pods' logs; a load without its share is not the load asked for.",
            failure_class=FailureClass.TRANSIENT,
        )
    paths = []
    for name, content in found.items():
        path = folder / f"{name}.part"
        path.write_bytes(content or b"")
        paths.append(path)
    merged = write_parquet(load(paths).table, folder / "requests.parquet")
    for path in paths:
        path.unlink()
    if (metrics := store.get(METRICS)) is not None:
        (folder / METRICS).write_bytes(metrics)
    return merged


def collected_metrics(results_uri: str, *, session: Any = None) -> JsonObject:
    """Return the summary of the server's metrics that the pods left; empty when they scraped nothing."""
    content = Objects.open(results_uri, session=session).get(SUMMARY)
    found: JsonObject = msgspec.json.decode(content) if content is not None else {}
    return found
