"""Which clusters of the catalog serve from a store, and the way to each one's Kubernetes API from a shell."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from include.catalog.specs import ClusterSpec
from include.errors import ConfigurationError
from include.staging.target import bucket_and_prefix


def sharing(clusters: Iterable[ClusterSpec], models_uri: str) -> tuple[ClusterSpec, ...]:
    """Return the clusters whose ``models_uri`` is this place, lies in it, or holds it."""
    return tuple(one for one in clusters if _overlap(one.models_uri, models_uri))


def _overlap(one: str, other: str) -> bool:
    (bucket, first), (same, second) = bucket_and_prefix(one), bucket_and_prefix(other)
    short, long = sorted((f"{first}/".lstrip("/"), f"{second}/".lstrip("/")), key=len)
    return bucket == same and long.startswith(short)


def contexts_of(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``CLUSTER=CONTEXT`` pairs.

    :raises ConfigurationError: one is none.
    """
    for pair in pairs:
        if not all(pair.partition("=")):
            raise ConfigurationError(
                "ContextInvalid", f"--kube-context {pair!r} is no CLUSTER=CONTEXT", fix="write CLUSTER=CONTEXT"
            )
    return dict(pair.split("=", 1) for pair in pairs)


def kube_of(cluster: ClusterSpec, contexts: Mapping[str, str], among: Sequence[ClusterSpec] = ()) -> Any:
    """Return an ``ApiClient`` of a cluster's own API.

    An EKS cluster is found by its name, with the AWS credentials of the environment. For another one the kubeconfig's
    current context is taken, which can stand for one cluster only.

    :param contexts: kubeconfig context by cluster; goes first.
    :param among: the clusters that are asked together.
    :raises ConfigurationError: there is no access, or it is not clear to which cluster the kubeconfig leads.
    """
    if cluster.name in contexts:
        return _from_kubeconfig(contexts[cluster.name])
    if cluster.eks_cluster:
        return _from_eks(cluster)
    unclear = [one.name for one in among if not one.eks_cluster and one.name not in contexts]
    if len(unclear) > 1:
        raise ConfigurationError(
            "ClusterUnclear",
            f"clusters {', '.join(unclear)} share {cluster.models_uri}; the kubeconfig's context is only one of them",
            fix="name the others' contexts: --kube-context CLUSTER=CONTEXT",
        )
    return _from_kubeconfig(None)


def _from_eks(cluster: ClusterSpec) -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from include.endpoint.eks import eks_api_client

    try:
        return eks_api_client(boto3.Session(), str(cluster.eks_cluster), cluster.region)
    except (BotoCoreError, ClientError) as error:
        raise ConfigurationError(
            "NoCluster",
            f"cluster {cluster.name!r}: eks_cluster = {cluster.eks_cluster!r} cannot be asked for: {error}",
            fix=f"use credentials that may eks:DescribeCluster, or --kube-context {cluster.name}=CONTEXT",
        ) from error


def _from_kubeconfig(context: str | None) -> Any:
    from kubernetes import client, config
    from kubernetes.config import ConfigException

    path = os.environ.get("KUBECONFIG")
    try:
        if path or context:
            return config.new_client_from_config(path, context=context)
        config.load_config()
    except (ConfigException, OSError) as error:
        raise ConfigurationError(
            "NoCluster", f"no access to the cluster: {error}", fix="set KUBECONFIG (collect: or --without-cluster)"
        ) from error
    return client.ApiClient()
