"""A plan is what was decided: it survives its trip, an upgrade of the code, and no change of its content."""

from __future__ import annotations

import json

import pytest

from include.catalog.plan import ReleasePlan
from tests.include.endpoint.builders import plan


def test_a_plan_comes_back_as_it_was() -> None:
    sent = json.loads(json.dumps(plan().to_xcom()))
    assert ReleasePlan.from_xcom(sent) == plan()


def test_a_plan_of_an_older_release_is_read_after_an_upgrade_that_added_fields() -> None:
    older = json.loads(json.dumps(plan().to_xcom()))
    del older["hold_failed_seconds"], older["keep"], older["model"]["deployment"]["request_limits"]
    assert ReleasePlan.from_xcom(older).digest == older["digest"]


def test_a_plan_that_was_changed_on_its_way_is_refused() -> None:
    sent = plan().to_xcom()
    sent["ttl_seconds"] = 7 * 24 * 3600
    with pytest.raises(ValueError, match="does not match its content"):
        ReleasePlan.from_xcom(sent)
