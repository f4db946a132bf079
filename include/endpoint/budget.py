"""What an endpoint has cost so far, against what its run may cost."""

from __future__ import annotations

import datetime as dt

from include.catalog.plan import ReleasePlan
from include.endpoint.model import EndpointRef
from include.errors import ConfigurationError


def check_budget(plan: ReleasePlan, ref: EndpointRef, now: dt.datetime) -> None:
    """Stop a run that has spent its budget; the teardown follows.

    :raises ConfigurationError: reason BudgetExceeded, with what was spent.
    """
    from include.results.cost import cost_usd

    if plan.budget_usd is None:
        return
    spent = cost_usd(ref.hourly_price, (now - ref.created_at).total_seconds())
    if spent > plan.budget_usd:
        raise ConfigurationError(
            "BudgetExceeded",
            f"{ref.name} has cost ${spent:.4f}, the budget is ${plan.budget_usd:.4f}",
            fix="raise the budget or use fewer load levels; what was measured is kept, and it is torn down now",
        )
