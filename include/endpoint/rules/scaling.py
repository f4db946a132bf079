"""Autoscaling by KEDA."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from include.catalog.serving import Autoscaling, CloudWatchTrigger, PrometheusTrigger
from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

SUB_MINUTE_PERIODS = (1, 5, 10, 30)


def autoscaling(context: RenderContext) -> Iterator[Problem]:
    """Check the pods', the router's and the pools' scaling."""
    deployment = context.model.deployment
    pools = deployment.disaggregation
    parts: dict[str, Autoscaling | None] = {
        "deployment.autoscaling": deployment.autoscaling,
        "deployment.router_autoscaling": deployment.router_autoscaling,
        "deployment.disaggregation.prefill_autoscaling": pools.prefill_autoscaling if pools else None,
        "deployment.disaggregation.decode_autoscaling": pools.decode_autoscaling if pools else None,
    }
    for field, part in parts.items():
        if part is not None:
            yield from _one(field, part)


def _one(field: str, part: Autoscaling) -> Iterator[Problem]:
    if not part.cloudwatch and not part.prometheus:
        yield problem(field, "no trigger", "add a cloudwatch or a prometheus trigger")
    low = 1 if part.min_replica_count is None else part.min_replica_count
    high = 5 if part.max_replica_count is None else part.max_replica_count
    if low > high:
        yield problem(f"{field}.min_replica_count", low, f"must not exceed max_replica_count = {high}")
    if high == 0:
        yield problem(f"{field}.max_replica_count", 0, "must be at least 1")
    if low == 0:
        yield from _from_zero(field, part)
    yield from _triggers(field, part)


def _from_zero(field: str, part: Autoscaling) -> Iterator[Problem]:
    # With no pods there are no pod metrics: something outside must wake the endpoint up.
    outside = [trigger for trigger in part.cloudwatch if trigger.namespace.startswith("AWS/")]
    if not outside:
        yield problem(
            f"{field}.min_replica_count",
            0,
            "waking up from zero needs a CloudWatch trigger outside the pods, such as AWS/SageMaker Invocations",
        )


def _triggers(field: str, part: Autoscaling) -> Iterator[Problem]:
    seen: set[str] = set()
    sorts: tuple[tuple[str, Sequence[CloudWatchTrigger | PrometheusTrigger]], ...] = (
        ("cloudwatch", part.cloudwatch),
        ("prometheus", part.prometheus),
    )
    for sort, triggers in sorts:
        for index, trigger in enumerate(triggers):
            where = f"{field}.{sort}[{index}]"
            if trigger.target_value <= 0:
                yield problem(f"{where}.target_value", trigger.target_value, "must be greater than 0")
            if trigger.name in seen:
                yield problem(f"{where}.name", trigger.name, "must be unique among the triggers")
            seen |= {trigger.name} if trigger.name else set()
            period = getattr(trigger, "metric_collection_period", None)
            if period is not None and not _legal_period(period):
                yield problem(
                    f"{where}.metric_collection_period", period, "CloudWatch takes 1, 5, 10, 30 or a multiple of 60"
                )


def _legal_period(seconds: int) -> bool:
    return seconds in SUB_MINUTE_PERIODS or (seconds > 0 and seconds % 60 == 0)


RULES = (autoscaling,)
