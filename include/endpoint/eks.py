"""Kubernetes clients of an EKS cluster: address and CA from EKS, bearer token presigned by STS."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Any

TOKEN_PREFIX = "k8s-aws-v1."  # noqa: S105 (a public prefix, not a secret)
TOKEN_SECONDS = 60


def eks_token(session: Any, cluster: str, region: str) -> str:
    """Return a bearer token for the cluster, valid for about 15 minutes: a presigned GetCallerIdentity."""
    client = session.client("sts", region_name=region)
    client.meta.events.register(
        "before-sign.sts.GetCallerIdentity",
        lambda request, **_: request.headers.add_header("x-k8s-aws-id", cluster),
    )
    url = client.generate_presigned_url("get_caller_identity", ExpiresIn=TOKEN_SECONDS, HttpMethod="GET")
    return TOKEN_PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def eks_api_client(session: Any, cluster: str, region: str) -> Any:
    """Return an ``ApiClient`` that makes a new token for every request that needs one."""
    from kubernetes import client

    described = session.client("eks", region_name=region).describe_cluster(name=cluster)["cluster"]
    configuration = client.Configuration()
    configuration.host = described["endpoint"]
    configuration.ssl_ca_cert = _ca_file(described["certificateAuthority"]["data"])

    def refresh(config: Any) -> None:
        config.api_key["authorization"] = f"Bearer {eks_token(session, cluster, region)}"

    configuration.refresh_api_key_hook = refresh
    refresh(configuration)
    return client.ApiClient(configuration)


def _ca_file(data: str) -> str:
    with tempfile.NamedTemporaryFile("wb", suffix=".pem", delete=False) as file:
        file.write(base64.b64decode(data))
    return str(Path(file.name))
