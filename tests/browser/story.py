"""Thirty generated nights: a regression at night 20, two failed nights, one infrastructure outlier."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np

from include.endpoint.intents import Deletion, Intent
from include.results.store import ResultsStore
from include.results.verdicts import Confirmation, keep_confirmation
from tests.include.results.builders import (
    percentiles,
    provenance,
    record,
    requests_file,
    result,
    run_of,
    statistics,
)

NIGHTS, STEP_AT, STEP, FAILED, OUTLIER = 30, 20, 0.12, (8, 14), 11
HOSTILE = '<script>document.title="owned"</script><img src=x onerror=alert(1)>'
LOADS = {"c=1": (60.0, 120.0), "c=4": (100.0, 420.0), "c=16": (220.0, 900.0), "c=64": (700.0, 1000.0)}


def night_name(night: int) -> str:
    return f"{run_of(night).started_at:%Y-%m-%d}"


def write(folder: Path) -> ResultsStore:
    """Write the story into a store."""
    store, rng = ResultsStore.open(str(folder / "store")), np.random.default_rng(20)
    for night in range(NIGHTS):
        run = run_of(night)
        if night in FAILED:
            store.put_record(
                record(night, state="failed", failed_stage="wait_until_ready", reason="ImagePullBackOff",
                       message="node ip-10-0-3-7 could not pull the image", fix="check the registry's credentials",
                       evidence=("Back-off pulling image repo/vllm:1",))
            )  # fmt: skip
            continue
        store.put_record(record(night))
        factor = (1 + STEP if night >= STEP_AT else 1.0) * (1.35 if night == OUTLIER else 1.0)
        for load, (ttft, rate) in LOADS.items():
            level = factor * float(np.exp(rng.normal(0, 0.012)))
            stats = statistics(
                ttft * level, tokens_per_s=rate / level, goodput_rps=rate / level / 40,
                goodput_share=0.99 if ttft < 300 else 0.4, tpot_ms=percentiles(9.0 * level),
            )  # fmt: skip
            image = "sha256:" + ("b" if night >= STEP_AT else "a") * 64
            one = result(night, load=load, run=run, statistics=stats, cost_usd=Decimal("0.051"),
                         provenance=provenance(image_digest=image, endpoint_uid=f"uid-{night}"))  # fmt: skip
            requests = None
            if load == "c=4" and night in (STEP_AT - 1, STEP_AT, STEP_AT + 1):
                requests = requests_file(folder / f"{night}.parquet", ttft_ms=ttft * level, seed=night)
            store.put_result(one, requests)
    store.put_result(result(3, workload=HOSTILE, provenance=provenance(model=HOSTILE)), None)
    return store


def endpoints(store: ResultsStore, now: dt.datetime) -> None:
    """Add three endpoints: in use, past its expiry, and being removed; the last has a hostile name."""
    cases = (
        ("llama-in-use", -1.5, 2.5, None),
        ("llama-expired", -30.0, -2.0, None),
        (HOSTILE, -4.0, -0.1, Deletion(began_at=now)),
    )
    for number, (name, opened, expires, deletion) in enumerate(cases):
        one = Intent(
            cluster="prod", namespace="default", kind="InferenceEndpointConfig", name=name, run=run_of(29 - number),
            plan_digest="sha256:2", opened_at=now + dt.timedelta(hours=opened), accelerators=1, uid=f"uid-{number}",
            expires_at=now + dt.timedelta(hours=expires), hourly_price=Decimal("1.52"), deletion=deletion,
        )  # fmt: skip
        store.objects.put(f"intents/prod/{number}.json", one.model_dump_json().encode())


def confirm(store: ResultsStore, series: str, metric: str = "ttft_ms_p50") -> None:
    """Add what the re-run of night 20 said."""
    keep_confirmation(
        store.objects,
        Confirmation(series=series, metric=metric, night=night_name(STEP_AT), decision="confirmed", effect=0.118,
                     low=0.1, high=0.137, pairs=6, at=dt.datetime(2026, 10, 21, 5, tzinfo=dt.UTC)),
    )  # fmt: skip
