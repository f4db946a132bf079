"""Clean what any crash left: the promise behind "never leaks"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from hyperpod.run import run_has_ended

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReapEndpointsOperator(BaseOperator):
    """Delete endpoints of ours that are expired, ownerless or half made; verify; price each.

    :param cluster: catalog name of the cluster (templated).
    """

    template_fields: Sequence[str] = ("cluster",)
    ui_color = "#fde8e8"

    def __init__(self, *, cluster: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return what was reaped."""
        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.loader import load_catalog
        from include.endpoint.intents import IntentLog
        from include.endpoint.reaper import reap
        from include.objects import Objects

        cluster = load_catalog().cluster(self.cluster)
        hook = HyperPodHook(cluster)
        session = hook.session if cluster.results_uri.startswith("s3://") else None
        intents = IntentLog(Objects.open(cluster.results_uri, session=session))
        ti: Any = context["ti"]

        def run_is_over(dag_id: str, run_id: str) -> bool:
            return run_has_ended(ti, dag_id, run_id)

        reports = reap(cluster, hook.clients(), intents, run_is_over=run_is_over)
        for report in reports:
            self.log.warning(
                "reaped %s: absent %s, %.2f GPU-hours, $%s", report.endpoint, report.absent, report.gpu_hours,
                report.cost_usd,
            )  # fmt: skip
        if not reports:
            self.log.info("nothing to reap on %s", self.cluster)
        return [report.model_dump(mode="json") for report in reports]
