"""### Control arm of the fault matrix

What a release looks like without intents, ownership, proof of absence and reaper. Not for use.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from airflow.sdk import TriggerRule, dag, get_current_context, task

WHERE = ("inference.sagemaker.aws.amazon.com", "v1", "default", "inferenceendpointconfigs")


def _api() -> Any:
    from kubernetes import client, config

    config.load_kube_config(os.environ["KUBECONFIG"])
    return client.CustomObjectsApi()


def _name() -> str:
    run_id = str(get_current_context()["run_id"])
    return f"control-{hashlib.sha256(run_id.encode()).hexdigest()[:10]}"


@dag(schedule=None, catchup=False, tags=["chaos"])  # no retries: Airflow's default
def control_release() -> None:
    """Apply, wait, load, delete."""

    @task
    def apply_endpoint() -> None:
        import json
        from pathlib import Path

        template = json.loads(Path(os.environ["CHAOS_CONTROL_MANIFEST"]).read_text())
        template["metadata"] = {"name": _name(), "namespace": "default"}
        template["spec"]["endpointName"] = _name()
        _api().create_namespaced_custom_object(*WHERE, template)

    @task
    def wait() -> None:
        for _ in range(240):
            status = _api().get_namespaced_custom_object(*WHERE, _name()).get("status") or {}
            if status.get("state") == "DeploymentComplete":
                return
            time.sleep(0.5)
        raise TimeoutError("not ready")

    @task
    def load() -> None:
        time.sleep(4)

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def delete_endpoint() -> None:
        _api().delete_namespaced_custom_object(*WHERE, _name())

    apply_endpoint() >> wait() >> load() >> delete_endpoint().as_teardown()


control_release()
