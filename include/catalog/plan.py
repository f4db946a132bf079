"""The frozen decision of a run: everything that later tasks and retries read, and nothing else."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from decimal import Decimal

from pydantic import Field, computed_field

from include.canonical import digest
from include.catalog.specs import ClusterSpec, JsonObject, ModelSpec, Slo, Spec, WorkloadSpec


class RunIdentity(Spec):
    """Which DAG run (and which cell of it) owns what is made.

    :param cell: empty for an unmapped run, else ``model--workloads`` of a nightly cell.
    """

    dag_id: str
    run_id: str
    cell: str = ""
    started_at: dt.datetime

    @property
    def owner(self) -> str:
        """Label-safe (63 characters) name of the owner: the same for every try of the same run and cell."""
        text = f"{self.dag_id}|{self.run_id}|{self.cell}"
        return f"run-{hashlib.sha256(text.encode()).hexdigest()[:20]}"

    @property
    def path(self) -> str:
        """Folder of the run below ``results_uri``: ``runs/<dag>/<run>[/<cell>]``."""
        parts = ["runs", self.dag_id, self.run_id] + ([self.cell] if self.cell else [])
        return "/".join(re.sub(r"[^A-Za-z0-9_.=+-]", "_", part) for part in parts)


def endpoint_name(model: str, run: RunIdentity) -> str:
    """Return ``<model>-<yyyymmdd>-<hash>``, at most 40 characters, the same for every retry of the run."""
    tail = f"-{run.started_at:%Y%m%d}-{run.owner.removeprefix('run-')[:8]}"
    return model[: 40 - len(tail)].rstrip("-") + tail


class ReleasePlan(Spec):
    """What a run will do. Made once by the plan task; later tasks read only this.

    :param revision: pinned: 40-hex commit, or ``sha256-<16 hex>`` of the content, or a JumpStart version.
    :param model_prefix: key prefix of the staged revision below ``cluster.models_uri``.
    :param custom_resource: the object to apply, complete but for the staged manifest's digest.
    :param ttl_seconds: from creation; the reaper deletes what is older.
    :param hourly_price: USD per hour of all replicas together; 0 is local.
    """

    run: RunIdentity
    model: ModelSpec
    revision: str
    cluster: ClusterSpec
    workloads: tuple[WorkloadSpec, ...]
    endpoint_name: str
    model_prefix: str
    custom_resource: JsonObject
    slo: Slo = Slo()
    keep: bool = False
    ttl_seconds: int = Field(4 * 3600, gt=0)
    hold_failed_seconds: int = Field(0, ge=0)
    budget_usd: Decimal | None = None
    hourly_price: Decimal = Decimal(0)
    price_id: str = ""
    forecast_usd: Decimal = Decimal(0)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of what the plan says beyond the defaults.

        A new field with a default does not change it: a run that was planned before an upgrade ends after it.
        """
        return digest(self.model_dump(mode="json", exclude={"digest"}, exclude_defaults=True))

    @classmethod
    def from_xcom(cls, value: JsonObject) -> ReleasePlan:
        """Rebuild a plan from :meth:`to_xcom`; refuses one whose digest does not match its content."""
        stated = value.get("digest")
        plan = cls.model_validate({k: v for k, v in value.items() if k != "digest"})
        if stated != plan.digest:
            raise ValueError(f"plan digest {stated} does not match its content {plan.digest}")
        return plan

    def to_xcom(self) -> JsonObject:
        """Return plain JSON values."""
        return self.model_dump(mode="json")
