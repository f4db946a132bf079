"""The assets that runs produce and Dags schedule on."""

from __future__ import annotations

from airflow.sdk import Asset, AssetAlias

BENCHMARKS = AssetAlias(name="hyperpod/benchmarks", group="hyperpod")
CANDIDATES = Asset(name="hyperpod/candidates", uri="x-hyperpod://candidates", group="hyperpod")
NIGHTS = Asset(name="hyperpod/nights", uri="x-hyperpod://nights", group="hyperpod")


def benchmark_asset(model: str) -> Asset:
    """Return the asset of a model's benchmarks; its events carry the summary in ``extra``."""
    return Asset(name=f"hyperpod/benchmarks/{model}", uri=f"x-hyperpod://benchmarks/{model}", group="hyperpod")
