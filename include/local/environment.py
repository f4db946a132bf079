"""The environment of every process that talks to the local HyperPod: addresses, throw-away keys, connections."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from include.local.s3 import ACCESS_KEY, REGION, SECRET_KEY
from include.local.state import DEFAULT_STATE, read_state

# A person's own AWS access must not leak into the stack, nor win over the throw-away keys.
FOREIGN = (
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)  # fmt: skip


def local_environment(state: Path = DEFAULT_STATE, ports: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return the variables for the local HyperPod below ``state``.

    :param ports: ``s3``, ``aws`` and ``kube``; ``None``: as the running stack recorded them.
    :raises include.errors.PipelineError: reason NotRunning, when nothing is recorded.
    """
    ports = read_state(state).ports if ports is None else ports
    kubeconfig = state / "kubeconfig"
    aws = {
        "conn_type": "aws",
        "login": ACCESS_KEY,
        "password": SECRET_KEY,
        "extra": {
            "region_name": REGION,
            "endpoint_url": f"http://127.0.0.1:{ports['aws']}",
            "service_config": {"s3": {"endpoint_url": f"http://127.0.0.1:{ports['s3']}"}},
        },
    }
    kubernetes = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(kubeconfig)}}
    return {
        "KUBECONFIG": str(kubeconfig),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['aws']}",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{ports['s3']}",
        "AIRFLOW_CONN_HYPERPOD_LOCAL_AWS": json.dumps(aws),
        "AIRFLOW_CONN_HYPERPOD_LOCAL_KUBERNETES": json.dumps(kubernetes),
        "HYPERPOD_LOCAL_STATE": str(state),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def process_environment(state: Path, ports: Mapping[str, int], base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a whole environment: ``base`` without a person's own AWS access, and the variables above."""
    kept = {name: value for name, value in base.items() if name not in FOREIGN}
    return kept | local_environment(state, ports)
