"""What every task of every Dag has, in one place."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import CronTriggerTimetable

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "ml-platform",
    "retries": 1,
    "retry_delay": dt.timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": dt.timedelta(minutes=2),
    "execution_timeout": dt.timedelta(hours=1),
}
# Only for Dags that may run the moment they are unpaused; all others follow ``only_at``.
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def only_at(cron: str) -> CronTriggerTimetable:
    """Make a schedule (UTC) whose first run is the next tick of ``cron``.

    A plain cron string also runs the last tick if the Dag is unpaused within a tenth of the interval after it
    (``CronTriggerTimetable._calc_first_run``): whoever unpauses the nightly benchmark at four in the morning must not
    start a night then.
    """
    return CronTriggerTimetable(cron, timezone="UTC", run_immediately=dt.timedelta(0))
