"""The night's matrix: which cells to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlanNightOperator(BaseOperator):
    """List the night's cells: one for each model and workload, from the catalog's matrix or from the params.

    A cell whose model or workload does not exist is listed too: it fails by itself and is recorded.

    :param models: override the matrix's models (templated).
    :param workloads: override the matrix's workloads (templated).
    :param cluster: override the matrix's cluster (templated).
    """

    template_fields: Sequence[str] = ("models", "workloads", "cluster")
    ui_color = "#fff4e5"

    def __init__(self, *, models: Any = None, workloads: Any = None, cluster: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.models = models
        self.workloads = workloads
        self.cluster = cluster

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return one release request for each cell."""
        from include.catalog.loader import load_catalog

        catalog = load_catalog()
        params = context["params"]
        models = list(self.models or params.get("models") or ())
        workloads = list(self.workloads or params.get("workloads") or ())
        cluster = self.cluster or params.get("cluster") or ""
        cells: list[dict[str, Any]] = []
        if models:
            for model in models:
                for workload in workloads or ["smoke"]:
                    cells.append(_cell(model, workload, cluster or "local"))
        else:
            for entry in catalog.nightly.cells:
                for workload in workloads or entry.workloads:
                    cells.append(_cell(entry.model, workload, cluster or entry.cluster))
        unique = list({cell["cell"]: cell for cell in cells}.values())
        self.log.info("%d cells: %s", len(unique), ", ".join(cell["cell"] for cell in unique))
        return unique


def _cell(model: str, workload: str, cluster: str) -> dict[str, Any]:
    return {
        "model": model,
        "workloads": [workload],
        "cluster": cluster,
        "cell": f"{model}--{workload}--{cluster}",
    }
