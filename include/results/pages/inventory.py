"""What exists now and what ran: endpoints with age, owner, expiry and cost; runs with reason, report and records."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from urllib.parse import quote

from include.endpoint.intents import Intent
from include.results.pages.board import Board
from include.results.pages.html import (
    Child,
    Html,
    airflow_link,
    badge,
    dollars,
    el,
    facts,
    figure,
    form,
    link,
    page,
    table,
)
from include.results.pages.overview import pager


def endpoints(board: Board, now: dt.datetime) -> str:
    """Return the inventory of endpoints that are not proven absent."""
    found = board.endpoints()
    rows = [
        (
            one.name, one.cluster, _state(one, now), link(one.run.run_id, "run", path=one.run.path),
            f"{(now - one.opened_at).total_seconds() / 3600:.1f} h", f"{one.expires_at:%Y-%m-%d %H:%M} UTC",
            f"{dollars(float(one.hourly_price))}/h", dollars(_spent(one, now)), f"{one.accelerators}",
        )
        for one in found
    ]  # fmt: skip
    header = ("Endpoint", "Cluster", "State", "Owner", "Age", "Expires", "Price", "Cost so far", "Accelerators")
    held = sum(one.accelerators for one in found)
    hourly, spent = sum(float(one.hourly_price) for one in found), sum(_spent(one, now) for one in found)
    total = (
        f"{len(found)} endpoint(s) hold {held} accelerator(s), cost {dollars(hourly)}/h and have cost {dollars(spent)}."
    )
    note = "An endpoint stays here until its absence is proven. Expired ones are removed by the Dag reap_endpoints."
    return page(
        "Endpoints",
        "endpoints",
        el("p", total) if found else None,
        table("What exists", header, rows, empty="No endpoint exists."),
        el("p", note, class_="soft"),
    )


def _state(one: Intent, now: dt.datetime) -> Html:
    if one.deletion is not None:
        return el("span", "… being removed", class_="badge inconclusive")
    if now > one.expires_at:
        return el("span", "✗ expired", class_="badge fail")
    return el("span", "✓ in use", class_="badge pass") if one.uid else el("span", "… being made", class_="badge")


def _spent(one: Intent, now: dt.datetime) -> float:
    return float(one.hourly_price) * (now - one.opened_at).total_seconds() / 3600


def runs(board: Board, number: int) -> str:
    """Return the runs, newest first."""
    found, count = board.runs(number)
    rows = [
        (
            link(f"{run['run_id']} {run['cell']}".strip(), "run", path=run["run_path"]), badge(run["state"]),
            run["model"], run["failed_stage"], run["reason"], dollars(run["cost_usd"]),
            f"{run['started_at']:%Y-%m-%d %H:%M}",
        )
        for run in found
    ]  # fmt: skip
    header = ("Run", "State", "Model", "Failed stage", "Reason", "Cost", "Started, UTC")
    return page("Runs", "runs", table(f"{count} runs", header, rows), pager("runs", number, count))


def run(board: Board, run_path: str) -> str | None:
    """Return one run's page: what happened, its results, report and records; ``None`` when it is unknown."""
    record, results = board.run(run_path), board.results_of(run_path)
    if record is None and not results:
        return None
    known = record or results[0]
    body: list[Child] = []
    if record is not None:
        body += _record(record)
    rows = [
        (
            link(f"{row['workload']} {row['load']} {row['arm']}", "series", id=row["series"]),
            figure(row["ttft_ms_p50"]), figure(row["tpot_ms_p50"]), figure(row["output_tokens_per_s"]),
            row["requests_ok"], row["requests_failed"], "valid" if row["valid"] else f"INVALID: {row['reasons']}",
            [link("JSON", "file", path=row["path"]), " ",
             link("requests", "file", path=_below(board, row["requests_uri"])) if row["requests_uri"] else ""],
        )
        for row in results
    ]  # fmt: skip
    header = ("Load level", "TTFT p50, ms", "TPOT p50, ms", "Tokens/s", "ok", "failed", "Validity", "Files")
    body.append(table("Results", header, rows, empty="Nothing was measured."))
    if results:
        names = ("model", "revision", "manifest_digest", "image", "image_digest", "spec_digest", "plan_digest",
                 "engine_version", "instance_type", "endpoint_uid", "node_names", "operator_version",
                 "driver_version")  # fmt: skip
        body += [el("h2", "Provenance"), facts((name.replace("_", " "), results[0][name]) for name in names)]
    return page(f"Run {known['run_id']} {known['cell']}".strip(), "runs", body)


def _record(record: dict[str, Any]) -> list[Child]:
    evidence = json.loads(record["evidence"] or "[]")
    said: list[Child] = [badge(record["state"])]
    if record["state"] != "success":
        said.append(f" in {record['failed_stage'] or '?'}: {record['reason']}. {record['message']} {record['fix']}")
    log = f"/dags/{quote(record['dag_id'], safe='')}/runs/{quote(record['run_id'], safe='')}"
    links: list[Child] = [airflow_link("Run and logs in Airflow", log)]
    if record["report_uri"]:
        links.append(link("Report", "report", path=record["run_path"]))
    return [
        el("div", el("p", said), class_=f"notice {record['state']}"),
        el("p", [[item, " "] for item in links]),
        facts(
            (
                ("endpoint", record["endpoint_name"]),
                ("started, UTC", f"{record['started_at']:%Y-%m-%d %H:%M:%S}"),
                ("ended, UTC", f"{record['ended_at']:%Y-%m-%d %H:%M:%S}"),
                ("cold start", figure(record["cold_start_s"], "s")),
                ("GPU-hours", figure(record["gpu_hours"])),
                ("cost", dollars(record["cost_usd"])),
                ("proven absent", {True: "yes", False: "NO", None: "not known"}[record["absent"]]),
            )
        ),
        el("ul", [el("li", el("code", line)) for line in evidence]),
    ]


def _below(board: Board, uri: str) -> str:
    return str(uri).removeprefix(board.index.store.objects.uri + "/")


def cost(board: Board, rate: float) -> str:
    """Return how many instances of each type serve a rate under its SLO."""
    rows = [
        (
            f"{one.row['model']} · {one.row['workload']}", one.row["instance_type"] or "unknown", one.instances,
            f"{dollars(one.usd_per_hour)}/h", figure(one.per_instance), one.row["load"], one.row["slo"],
            figure(one.row["usd_per_million"]), figure(one.row["usd_per_million_good"]), one.row["night"],
        )
        for one in board.sizes(rate)
    ]  # fmt: skip
    header = ("What", "Type", "Instances", "Price", "Good req/s each", "At load", "SLO", "$/M tokens",
              "$/M good tokens", "Measured")  # fmt: skip
    field = el("input", type="number", name="rate", value=f"{rate:g}", min="0.001", step="any", required=True)
    fields = (el("label", "Requests per second", field), el("button", "Size", type="submit"))
    note = "From the best level at which 95 % of all requests met the SLO; instances are taken to add up."
    none = "No valid result met an SLO for 95 % of its requests."
    return page(
        "Cost",
        "cost",
        form(fields, action="cost"),
        table(f"Instances for {rate:g} requests/s", header, rows, empty=none),
        el("p", note, class_="soft"),
    )
