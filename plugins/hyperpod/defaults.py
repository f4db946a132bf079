"""What every task of every Dag has, in one place."""

from __future__ import annotations

import datetime as dt
from typing import Any

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "ml-platform",
    "retries": 1,
    "retry_delay": dt.timedelta(seconds=5),
    "retry_exponential_backoff": True,
    "max_retry_delay": dt.timedelta(minutes=2),
    "execution_timeout": dt.timedelta(hours=1),
}
# Only for Dags that may run the moment they are unpaused. Without a start date, Airflow waits for the next tick of the
# schedule: whoever unpauses the nightly benchmark at noon must not start a night then.
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
