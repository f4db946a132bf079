"""Registers this package with Airflow; the only module that Airflow executes when it scans for plugins."""

from __future__ import annotations

import sys
from typing import Any

from airflow.plugins_manager import AirflowPlugin


def _apps() -> list[dict[str, Any]]:
    """The page's app, in the api-server only: every other component scans plugins too, and serves nothing."""
    if "airflow.api_fastapi.app" not in sys.modules:
        return []
    from hyperpod.ui.app import PREFIX, create_app

    return [{"app": create_app(), "url_prefix": PREFIX, "name": "HyperPod benchmarks"}]


class HyperPodPlugin(AirflowPlugin):
    """HyperPod inference pipelines."""

    name = "hyperpod"
    fastapi_apps: list[dict[str, Any]] = _apps()
    external_views: list[dict[str, Any]] = [  # noqa: RUF012
        {
            "name": "Benchmarks",
            "href": "hyperpod/verdicts",
            "destination": "nav",
            "category": "browse",
            "url_route": "benchmarks",
        }
    ]
