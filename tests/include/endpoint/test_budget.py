"""A run over its budget stops between two load levels."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from include.endpoint.budget import check_budget
from include.endpoint.model import EndpointRef
from include.errors import ConfigurationError
from tests.include.endpoint.builders import START, plan


def endpoint(hourly: str) -> EndpointRef:
    planned = plan()
    return EndpointRef(
        cluster=planned.cluster.name,
        namespace="default",
        name="ep",
        uid="u",
        kind="InferenceEndpointConfig",
        owner=planned.run.owner,
        spec_digest="sha256:0",
        created_at=START,
        expires_at=START + dt.timedelta(hours=4),
        hourly_price=Decimal(hourly),
    )


def test_the_budget_stops_the_run_with_what_was_spent_and_without_one_nothing_does() -> None:
    two_hours = START + dt.timedelta(hours=2)
    check_budget(plan(), endpoint("98.32"), two_hours)
    limited = plan(budget_usd=Decimal(20))
    check_budget(limited, endpoint("10.00"), two_hours)
    with pytest.raises(ConfigurationError, match=r"\$20\.02.*budget is \$20") as caught:
        check_budget(limited, endpoint("10.01"), two_hours)
    assert caught.value.reason == "BudgetExceeded"
    assert not caught.value.retryable
