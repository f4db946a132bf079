"""Find models whose source moved on, and hand one at a time to a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from hyperpod.assets import CANDIDATES
from include.errors import PipelineError

if TYPE_CHECKING:
    from airflow.sdk import Context


class FindCandidateOperator(BaseOperator):
    """Compare every model's source with what was last released; stage the first that changed and announce it.

    One candidate a run: GPUs are scarce, and the next run finds the next. A source that cannot be read is
    logged and does not stop the others.

    :param cluster: catalog name of the cluster to release to (templated).
    :param models: names to look at; empty: all that are staged to that cluster (templated).
    """

    template_fields = ("cluster", "models")
    ui_color = "#e6f4ea"

    def __init__(self, *, cluster: str, models: Any = None, **kwargs: Any) -> None:
        super().__init__(outlets=[CANDIDATES], **kwargs)
        self.cluster = cluster
        self.models = models

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Return the candidate; skips the rest of the run when nothing changed."""
        from airflow.sdk.exceptions import AirflowSkipException

        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.loader import load_catalog
        from include.catalog.specs import JumpStartSource
        from include.results.store import ResultsStore
        from include.staging.api import resolve_revision, stage

        catalog = load_catalog()
        cluster = catalog.cluster(self.cluster)
        hook = HyperPodHook(cluster)
        session = hook.session if cluster.results_uri.startswith("s3://") else None
        store = ResultsStore.open(cluster.results_uri, session=session)
        known = {(record.model.get("name"), record.model.get("revision")) for record in store.records()}
        wanted = [catalog.model(name) for name in self.models or sorted(catalog.models)]
        for model in wanted:
            if isinstance(model.source, JumpStartSource) or not _runs_on(model, cluster.name):
                continue
            staging = hook.staging(getattr(model.source, "token_conn_id", None))
            try:
                revision = resolve_revision(model, staging)
            except PipelineError as error:
                self.log.error("%s: %s", model.name, error)
                continue
            if (model.name, revision) in known:
                self.log.info("%s: %s is already released or was rejected", model.name, revision)
                continue
            staged = stage(model, revision, cluster.models_uri, staging, owner=f"refresh-{context['run_id']}")
            candidate = {"model": model.name, "revision": revision, "cluster": cluster.name}
            self.log.info("candidate %s @ %s, staged at %s", model.name, revision, staged.uri)
            outlets: Any = context["outlet_events"]
            outlets[CANDIDATES].extra = {**candidate, "manifest_digest": staged.manifest_digest}
            return candidate
        raise AirflowSkipException("no model's source has changed")


def _runs_on(model: Any, cluster: str) -> bool:
    # The local cluster has only its own instance type; a GPU model cannot be released there.
    local_type = str(model.deployment.instance_type or "").startswith("ml.local.")
    return local_type == (cluster == "local")
