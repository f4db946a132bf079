"""What a pod of a load Job does, and how its results come back: through a folder of the object store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from include.catalog.specs import JsonObject, LoadEngine, LoadSpec, WorkloadSpec
from include.errors import ConfigurationError, FailureClass, PipelineError
from include.loadtest.job import Job
from include.loadtest.kubernetes_job import ForeignRun, Order
from include.loadtest.rendezvous import Rendezvous
from include.objects import Objects

if TYPE_CHECKING:
    from include.loadtest.scrape import Scraper
    from include.loadtest.serverside import ServerSide

METRICS, SUMMARY = "server-metrics.parquet", "server-metrics.json"
GRACE_S = 60.0


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
        _foreign(order, order.foreign, store, path)
    elif order.job is not None:
        _ours(order, order.job, index, store, path)
    return path


def _ours(order: Order, job: Job, index: int, store: Objects, path: Path) -> None:
    from include.loadtest.scrape import Scraper

    job = msgspec.structs.replace(job, out=str(path.with_suffix(".spool")))
    meeting = Rendezvous(store, index, order.pods, order.ready_s)
    with Scraper(order.metrics_urls, path.parent / METRICS) as scraper:
        if order.scraped and index == 0:
            meeting.scraping()
        elif order.scraped:
            meeting.await_scraping()
        _generate(job, meeting, store, path)
        # What the others send until then is in the count too.
        complete = not order.metrics_urls or meeting.all_done(job.timeout_s + GRACE_S)
    _keep_metrics(scraper, store, path.parent, complete=complete)


def _generate(job: Job, meeting: Rendezvous, store: Objects, path: Path) -> None:
    """Send this pod's share; its records go to the store whatever happens."""
    from include.loadtest.records import read_shard, shard_table, write_parquet
    from include.loadtest.supervise import Generators

    spool = Path(job.out)
    try:
        with Generators([job], path.parent, meeting.meet) as generators:
            generators.run()
    finally:
        if spool.exists():
            write_parquet(shard_table(read_shard(spool)), path)
            store.put_file(path.name, path)
        meeting.done()


def _keep_metrics(scraper: Scraper, store: Objects, folder: Path, *, complete: bool = True) -> None:
    """Put what the servers said meanwhile into the store, the pages' errors too.

    :param complete: no pod sent anything after the scrape, so that the count is of all requests.
    """
    from include.loadtest.serverside import server_side

    if scraper.pages:
        server = server_side(scraper)
        requests = server.requests if complete else None
        store.put(SUMMARY, msgspec.json.encode({"requests": requests, "summary": server.summary}))
    if scraper.samples:
        store.put_file(METRICS, folder / METRICS)


def _foreign(order: Order, run: ForeignRun, store: Objects, path: Path) -> None:
    from include.loadtest.foreign.run import run_foreign
    from include.loadtest.records import write_parquet
    from include.loadtest.scrape import Scraper
    from include.loadtest.target import Target

    with Scraper(order.metrics_urls, path.parent / METRICS) as scraper:
        table = run_foreign(
            run.engine,
            Target.model_validate(run.target),
            WorkloadSpec.model_validate(run.workload),
            LoadSpec.model_validate(run.load),
            LoadEngine.model_validate(run.install),
            out_dir=path.parent,
        )
    store.put_file(path.name, write_parquet(table, path))
    _keep_metrics(scraper, store, path.parent)


def collect_pods(results_uri: str, pods: int, folder: Path, *, session: Any = None) -> Path:
    """Merge the pods' records into ``folder/requests.parquet``; server metrics come beside it when there are any.

    :raises PipelineError: ``MissingShard`` names the pods that left nothing.
    """
    from include.loadtest.records import load, write_parquet
    from include.loadtest.serverside import with_count

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
    counted = with_count(load(paths).table, collected_metrics(results_uri, session=session).requests)
    merged = write_parquet(counted, folder / "requests.parquet")
    for path in paths:
        path.unlink()
    if (metrics := store.get(METRICS)) is not None:
        (folder / METRICS).write_bytes(metrics)
    return merged


def collected_metrics(results_uri: str, *, session: Any = None) -> ServerSide:
    """Return what the servers said of themselves as the pods scraped it; empty when they scraped nothing."""
    from include.loadtest.serverside import ServerSide

    content = Objects.open(results_uri, session=session).get(SUMMARY)
    found: JsonObject = msgspec.json.decode(content) if content is not None else {}
    # Pods of an earlier image leave the summary alone.
    return ServerSide(found.get("requests"), found["summary"]) if "summary" in found else ServerSide(summary=found)
