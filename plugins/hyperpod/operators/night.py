"""The night: which cells to run, and what they came to."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier, BaseOperator

from hyperpod.assets import NIGHTS
from hyperpod.run import default_results_uri, run_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.catalog.loader import Catalog
    from include.catalog.specs import NightlyCell
    from include.results.alerts import Alert


class PlanNightOperator(BaseOperator):
    """List the night's cells: one for each model and workload, from the catalog's matrix or from the params.

    On a scheduled night only cells that are due or changed run (:mod:`include.results.due`), and quarantined ones are
    recorded as skipped; a night that a person triggers runs them all. A cell whose model or workload does not exist
    is listed too: it fails by itself and is recorded.

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
        # The SDK's enum prints as "DagRunType.SCHEDULED"; only its value is the type.
        kind: Any = context["dag_run"].run_type
        scheduled = getattr(kind, "value", kind) == "scheduled"
        cells: list[dict[str, Any]] = []
        if models:
            for model in models:
                for workload in workloads or ["smoke"]:
                    cells.append(_cell(model, workload, cluster or "local"))
        else:
            for entry in catalog.nightly.cells:
                for workload in workloads or entry.workloads:
                    cell = _cell(entry.model, workload, cluster or entry.cluster)
                    if not scheduled or self._is_due(catalog, entry, cell, context):
                        cells.append(cell)
        unique = list({cell["cell"]: cell for cell in cells}.values())
        until = run_of(None, context).started_at + dt.timedelta(hours=catalog.nightly.capacity_wait_hours)
        for cell in unique:
            cell["capacity_until"] = until.isoformat()
        self.log.info("%d cells: %s", len(unique), ", ".join(cell["cell"] for cell in unique))
        return unique

    def _is_due(self, catalog: Catalog, entry: NightlyCell, cell: dict[str, Any], context: Context) -> bool:
        from include.objects import Objects
        from include.results.due import due, inputs, note, record_skipped

        objects = Objects.open(default_results_uri())
        run = run_of(cell, context)
        digest = inputs(catalog, cell["model"], cell["workloads"][0], cell["cluster"])
        answer = due(objects, run, digest, entry)
        self.log.info("%s: %s", cell["cell"], answer.reason)
        if answer.run:
            note(objects, run, digest)
        elif answer.quarantined:
            record_skipped(objects, run, cell["model"], cell["workloads"], answer.reason)
        return answer.run


def _cell(model: str, workload: str, cluster: str) -> dict[str, Any]:
    return {
        "model": model,
        "workloads": [workload],
        "cluster": cluster,
        "cell": f"{model}--{workload}--{cluster}",
    }


class JudgeNightOperator(BaseOperator):
    """Judge the newest night once it is over: verdicts, alerts told once and closed by themselves, one asset event.

    :param notifiers: any Airflow notifiers; their templates read ``alert`` (the text), ``alert_subject`` (ASCII, one
        line, at most 100 characters, as SNS and e-mail want it), ``alert_title`` and ``alert_owner``. ``None``: those
        that ``HYPERPOD_NOTIFIERS`` names (:mod:`hyperpod.notifications.configured`).
    :param night: ``YYYY-MM-DD``; empty: the newest with a run (templated).
    """

    template_fields: Sequence[str] = ("night",)
    ui_color = "#fff4e5"

    def __init__(self, *, notifiers: Sequence[BaseNotifier] | None = None, night: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.notifiers = notifiers
        self.night = night

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the night's summary; it is also the extra of the event on ``hyperpod/nights``."""
        from hyperpod.notifications.configured import configured_notifiers
        from include.catalog.loader import load_catalog
        from include.results import alerts
        from include.results.index import Index
        from include.results.store import ResultsStore
        from include.results.verdicts import judge_night, keep

        # Before anything is judged or kept: a bad setting must not swallow the first alert.
        notifiers = configured_notifiers() if self.notifiers is None else self.notifiers
        index = Index(ResultsStore.open(default_results_uri()))
        index.refresh()
        made = judge_night(index, self.night)
        owners = {name: spec.owner for name, spec in load_catalog().models.items()}
        worse, judged = alerts.regressions(made.verdicts, owners)
        runs = index.query(
            "SELECT * FROM runs WHERE dag_id = 'nightly_benchmark' AND night <= ? ORDER BY started_at DESC",
            [made.night],
        )
        failed, ran = alerts.failures(runs, owners)
        objects = index.store.objects
        changed = alerts.reconcile(alerts.read_open(objects), [*worse, *failed], made.night, judged | ran)
        verdicts = keep(objects, made)
        # Told before it is kept: after a crash in between, the retry tells it again rather than never.
        for alert in (*changed.opened, *changed.closed):
            tell(notifiers, context, alert)
        alerts.keep(objects, changed)
        summary = {
            "night": made.night,
            "verdicts": verdicts,
            "fail": sorted({one.name for one in made.verdicts if one.outcome == "fail"}),
            "to_confirm": sorted({one.name for one in made.to_confirm}),
            "runs": {state: sum(run["night"] == made.night and run["state"] == state for run in runs)
                     for state in ("success", "failed", "skipped")},
            "alerts": {"opened": len(changed.opened), "open": len(changed.kept), "closed": len(changed.closed)},
        }  # fmt: skip
        outlets: Any = context["outlet_events"]
        outlets[NIGHTS].extra = summary
        self.log.info("%s", summary)
        return summary


def tell(notifiers: Sequence[BaseNotifier], context: Context, alert: Alert) -> None:
    """Give an alert to every notifier.

    :raises PipelineError: a notifier failed; the ones after it were not called.
    """
    from include.errors import PipelineError
    from include.results.alerts import message, subject

    told: Any = {
        **context, "alert": message(alert), "alert_subject": subject(alert), "alert_title": alert.trouble.title,
        "alert_owner": alert.trouble.owner,
    }  # fmt: skip
    for notifier in notifiers:
        try:
            # A notifier renders its templates in place: the same object would tell the first alert for ever.
            copy.copy(notifier)(told)
        except Exception as error:
            raise PipelineError("NotTold", f"{type(notifier).__name__}: {error}", fix="check its connection") from error
