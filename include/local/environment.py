"""The environment of every process that talks to the local HyperPod: addresses, throw-away keys, connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from include.local.s3 import ACCESS_KEY, REGION, SECRET_KEY


def local_environment(state: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Return the variables for the local HyperPod below ``state``.

    :param ports: ``s3``, ``aws`` and ``kube``.
    """
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
