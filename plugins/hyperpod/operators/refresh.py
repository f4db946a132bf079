"""Find models whose source moved on, and hand one at a time to a release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from hyperpod.assets import CANDIDATES

if TYPE_CHECKING:
    from airflow.sdk import Context

    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.catalog.specs import ClusterSpec, ModelSpec


class FindCandidateOperator(BaseOperator):
    """Compare every model's source with what was last released; stage the first that changed and announce it.

    One candidate a run: GPUs are scarce, and the next run finds the next. A model that cannot be read or staged is
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
        """Return the candidate; skips the rest of the run when nothing changed.

        :raises PipelineError: of the last model, when none of them could be looked at or staged.
        """
        from airflow.sdk.exceptions import AirflowSkipException

        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.loader import load_catalog

        catalog = load_catalog()
        cluster = catalog.cluster(self.cluster)
        hook = HyperPodHook(cluster)
        wanted = self._wanted(catalog, cluster.name)
        known, failed = _known(cluster, hook), dict[str, Exception]()
        for model in wanted:
            try:
                candidate = self._candidate(model, cluster, hook, known, str(context["run_id"]))
            except Exception as error:
                # Whatever is wrong with one model, the others are not to wait for it.
                self.log.exception("%s cannot be refreshed", model.name)
                failed[model.name] = error
                continue
            if candidate is not None:
                outlets: Any = context["outlet_events"]
                outlets[CANDIDATES].extra = candidate
                return {name: candidate[name] for name in ("model", "revision", "cluster")}
        if failed and len(failed) == len(wanted):
            raise failed.popitem()[1]
        left_out = f"; failed, see above: {', '.join(failed)}" if failed else ""
        raise AirflowSkipException(f"no model's source has changed{left_out}")

    def _wanted(self, catalog: Any, cluster: str) -> list[ModelSpec]:
        from include.catalog.specs import JumpStartSource

        models = [catalog.model(name) for name in self.models or sorted(catalog.models)]
        return [one for one in models if not isinstance(one.source, JumpStartSource) and _runs_on(one, cluster)]

    def _candidate(
        self, model: ModelSpec, cluster: ClusterSpec, hook: HyperPodHook, known: set[tuple[Any, Any]], run_id: str
    ) -> dict[str, Any] | None:
        """Stage a model's newest revision when no run has recorded it; return what to announce."""
        from include.staging.api import resolve_revision, stage

        staging = hook.staging_of(model)
        revision = resolve_revision(model, staging)
        if (model.name, revision) in known:
            self.log.info("%s: %s is already released or was rejected", model.name, revision)
            return None
        staged = stage(
            model,
            revision,
            cluster.models_uri,
            staging,
            owner=f"refresh-{run_id}",
            progress=lambda progress: self.log.info("staging %s: %s", model.name, progress),
            budget_bytes=cluster.max_staged_bytes,
            notice=lambda sentence: self.log.warning("%s", sentence),
        )
        self.log.info("candidate %s @ %s, staged at %s", model.name, revision, staged.uri)
        return {
            "model": model.name, "revision": revision, "cluster": cluster.name,
            "manifest_digest": staged.manifest_digest,
        }  # fmt: skip


def _known(cluster: ClusterSpec, hook: HyperPodHook) -> set[tuple[Any, Any]]:
    """Return name and revision of everything that a run has recorded."""
    from include.results.store import ResultsStore

    session = hook.session if cluster.results_uri.startswith("s3://") else None
    records = ResultsStore.open(cluster.results_uri, session=session).records()
    return {(record.model.get("name"), record.model.get("revision")) for record in records}


def _runs_on(model: Any, cluster: str) -> bool:
    # The local cluster has only its own instance type; a GPU model cannot be released there.
    local_type = str(model.deployment.instance_type or "").startswith("ml.local.")
    return local_type == (cluster == "local")
