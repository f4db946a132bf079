"""What the server said meanwhile: the requests that it counted, and a summary of its metrics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.catalog.specs import JsonObject
from include.loadtest.records import METADATA_KEY, Records

if TYPE_CHECKING:
    import pyarrow as pa

    from include.loadtest.scrape import Scraper

# Counters of finished requests, by server; the first that a page has is taken.
REQUEST_COUNTERS = (
    "vllm:request_success_total",
    "sglang:num_requests_total",
    "tgi_request_success",
    "llamacpp:requests_total",
    "model_invocations_total",
)
_COUNTED = "server_requests"


@dataclass(frozen=True)
class ServerSide:
    """What the server said meanwhile.

    :param requests: that it counted from before the warm-up to the end; ``None``: not known.
    :param summary: of its metrics.
    """

    requests: int | None = None
    summary: JsonObject = field(default_factory=dict)


def server_side(scraper: Scraper) -> ServerSide:
    """Return what a finished scrape found."""
    return ServerSide(server_requests(scraper), series_summary(scraper))


def server_requests(scraper: Scraper) -> int | None:
    """Return how many requests the servers finished during the scrape.

    ``None``: no page counts them; or one of those that do, or should, was silent in the first or last round, or began
    anew in between. A count that lacks a server's share would be a false proof of somebody else's requests.
    """
    series = scraper.series()
    for name in REQUEST_COUNTERS:
        counters = series.of(name)
        if not counters:
            continue
        kinds = {scraper.page(url).alike for url, _ in counters}
        pages = [page.url for page in scraper.pages if page.alike in kinds]
        if any(not {0, scraper.last} <= scraper.answered[url] for url in pages):
            return None
        grown = [(values.get(0, 0.0), values.get(scraper.last, -1.0)) for values in counters.values()]
        if any(last < first for first, last in grown):
            return None
        return round(sum(last - first for first, last in grown))
    return None


def series_summary(scraper: Scraper) -> JsonObject:
    """Return, per metric, first, last, mean and maximum over the run, of all pages together; and what failed."""
    series, found = scraper.series(), {}
    for name in series.names:
        if not name.endswith("_bucket"):
            values = [value for _, value in series.gauge(name)]
            mean = sum(values) / len(values)
            found[name] = {"first": values[0], "last": values[-1], "mean": mean, "max": max(values)}
    return {"series": found, "errors": dict(scraper.errors)} if found or scraper.errors else {}


def with_count(table: pa.Table, requests: int | None) -> pa.Table:
    """Return records that carry the server's count, so that they can be judged again as they were.

    :param requests: ``None``: the table itself.
    """
    if requests is None:
        return table
    metadata = dict(table.schema.metadata or {})
    content = json.loads(metadata[METADATA_KEY])
    run = f"{len(content['workers'])}:{_first_id(table)}"
    for worker in content["workers"]:
        worker["meta"][_COUNTED] = {"run": run, "count": requests}
    return table.replace_schema_metadata(metadata | {METADATA_KEY: json.dumps(content).encode()})


def _first_id(table: pa.Table) -> str:
    return str(table["request_id"][0].as_py()) if table.num_rows else ""


def count_of(records: Records) -> int | None:
    """Return the server's count of the records' runs; ``None``: not all of them have one."""
    found: Sequence[Any] = [worker["meta"].get(_COUNTED) for worker in records.workers]
    if not found or None in found:
        return None
    return sum({item["run"]: int(item["count"]) for item in found}.values())
