"""Registers this package with Airflow; the only module that Airflow executes when it scans for plugins."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class HyperPodPlugin(AirflowPlugin):
    """HyperPod inference pipelines."""

    name = "hyperpod"
