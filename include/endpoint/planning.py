"""From a request to a frozen plan: the object to apply, checked; the price, forecast; refused when it cannot work."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from include.catalog.plan import ReleasePlan, RunIdentity, endpoint_name
from include.catalog.specs import ClusterSpec, JsonObject, JumpStartSource, ModelSpec, PriceBook, Slo, WorkloadSpec
from include.endpoint.crds import schema_of, shipped
from include.endpoint.fields import is_newer
from include.endpoint.problems import Problem, problem, refuse
from include.endpoint.render import RenderContext, render
from include.endpoint.rules import check_rules
from include.endpoint.schema import check, paths_in
from include.errors import ConfigurationError
from include.staging.api import model_prefix

DEFAULT_TTL = 4 * 3600
# Registration, validation and deletion, besides the deployment and the load levels themselves.
OVERHEAD_SECONDS = 900
SECONDS_PER_LEVEL = 300


def make_plan(
    run: RunIdentity,
    model: ModelSpec,
    cluster: ClusterSpec,
    workloads: tuple[WorkloadSpec, ...],
    revision: str,
    *,
    price_book: PriceBook,
    slo: Slo | None = None,
    keep: bool = False,
    ttl_seconds: int = DEFAULT_TTL,
    hold_failed_seconds: int = 0,
    budget_usd: Decimal | None = None,
) -> ReleasePlan:
    """Decide everything about a run before anything is spent.

    :param revision: pinned; what ``include.staging.api.resolve_revision`` returned.
    :param ttl_seconds: how long the endpoint may live; the reaper enforces it.
    :raises ConfigurationError: listing every problem with field, value and fix, or when the forecast is over
        the budget or the cluster's price limit.
    """
    context = RenderContext(
        name=endpoint_name(model.name, run),
        model=model,
        cluster=cluster,
        run=run,
        model_prefix="" if isinstance(model.source, JumpStartSource) else model_prefix(model.name, revision),
        revision=revision,
        benchmarking=bool(workloads),
    )
    refuse(problems(context, ttl_seconds), reason="DeploymentInvalid", subject=f"model {model.name!r}")
    hourly, price_id = _price(model, price_book, run)
    forecast = forecast_usd(hourly, model, workloads, ttl_seconds, keep=keep)
    _within_limits(cluster, hourly, forecast, budget_usd)
    return ReleasePlan(
        run=run,
        model=model,
        revision=revision,
        cluster=cluster,
        workloads=workloads,
        endpoint_name=context.name,
        model_prefix=context.model_prefix,
        custom_resource=render(context),
        slo=slo or Slo(),
        keep=keep,
        ttl_seconds=ttl_seconds,
        hold_failed_seconds=hold_failed_seconds,
        budget_usd=budget_usd,
        hourly_price=hourly,
        price_id=price_id,
        forecast_usd=forecast,
    )


def problems(context: RenderContext, ttl_seconds: int = DEFAULT_TTL) -> Iterator[Problem]:
    """Yield everything that is wrong with a deployment, as far as it can be told without a call."""
    yield from check_rules(context)
    deployment = context.model.deployment
    if deployment.max_deploy_seconds >= ttl_seconds:
        fix = f"must be below the time to live, {ttl_seconds} s"
        yield problem("deployment.max_deploy_seconds", deployment.max_deploy_seconds, fix)
    if deployment.kind != "direct":
        yield from schema_problems(render(context))


def schema_problems(custom_resource: JsonObject) -> Iterator[Problem]:
    """Check a custom resource against the definition shipped here.

    Fields that newer operators have are left to preflight, which asks the cluster.
    """
    schema = schema_of(shipped(custom_resource["kind"]))["properties"]["spec"]
    spec = custom_resource["spec"]
    unknown = {path for path in paths_in(spec, schema) if is_newer(path)}
    yield from check(_without(spec, unknown), schema)


def _without(value: JsonObject, paths: set[str], prefix: str = "") -> JsonObject:
    kept: JsonObject = {}
    for key, item in value.items():
        path = f"{prefix}{key}"
        if path not in paths:
            kept[key] = _without(item, paths, f"{path}.") if isinstance(item, dict) else item
    return kept


def forecast_usd(
    hourly: Decimal, model: ModelSpec, workloads: tuple[WorkloadSpec, ...], ttl_seconds: int, *, keep: bool
) -> Decimal:
    """Return the most that a run is expected to cost: the whole time to live when it keeps its endpoint."""
    levels = [load for workload in workloads for load in workload.loads for _ in workload.arms]
    measuring = sum(load.duration_s or SECONDS_PER_LEVEL for load in levels)
    seconds = model.deployment.max_deploy_seconds + OVERHEAD_SECONDS + measuring
    seconds = float(ttl_seconds) if keep else min(seconds, float(ttl_seconds))
    return (hourly * Decimal(str(seconds)) / 3600).quantize(Decimal("0.01"))


def _price(model: ModelSpec, book: PriceBook, run: RunIdentity) -> tuple[Decimal, str]:
    from include.results.cost import hourly_price

    deployment = model.deployment
    types = [name for name in (deployment.instance_type, *deployment.instance_types) if name]
    if not types:
        types = affinity_types(deployment.node_affinity or {})
    priced = [hourly_price(book, name, run.started_at.date()) for name in types]
    if not priced:
        raise ConfigurationError(
            "PriceUnknown",
            "deployment.node_affinity names no instance type, so the run has no price",
            fix="match node.kubernetes.io/instance-type in it",
        )
    # Which of several types it becomes is known only later: forecast the dearest.
    hourly, price_id = max(priced)
    pods = max(deployment.replicas, 1)
    if deployment.disaggregation:
        pods = deployment.disaggregation.prefill.replicas + deployment.disaggregation.decode.replicas
    return hourly * pods, price_id


def affinity_types(affinity: JsonObject) -> list[str]:
    """Return the instance types that a node affinity names."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if value.get("key") == "node.kubernetes.io/instance-type" and value.get("operator") == "In":
                found.extend(str(name) for name in value.get("values", ()))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(affinity)
    return found


def _within_limits(cluster: ClusterSpec, hourly: Decimal, forecast: Decimal, budget: Decimal | None) -> None:
    if cluster.max_hourly_price is not None and hourly > cluster.max_hourly_price:
        raise ConfigurationError(
            "OverHourlyLimit",
            f"the endpoint costs ${hourly} per hour, cluster {cluster.name!r} allows ${cluster.max_hourly_price}",
            fix="use fewer replicas or a smaller instance type, or raise max_hourly_price on the cluster",
        )
    if budget is not None and forecast > budget:
        raise ConfigurationError(
            "OverBudget",
            f"the forecast is ${forecast} at ${hourly} per hour, the budget ${budget}",
            fix="raise the budget, choose fewer load levels, or a shorter time to live",
        )
