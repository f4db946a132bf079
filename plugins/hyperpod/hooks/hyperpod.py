"""Clients of one HyperPod cluster from Airflow connections."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

if TYPE_CHECKING:
    from include.catalog.specs import ClusterSpec, ModelSpec
    from include.endpoint.clients import Clients
    from include.staging.context import StagingContext


class HyperPodHook(BaseHook):
    """Kubernetes and AWS clients of one cluster.

    :param cluster: the catalog's description of the cluster; names both connections.
    """

    def __init__(self, cluster: ClusterSpec, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    @cached_property
    def session(self) -> Any:
        """``boto3.Session`` of the cluster's AWS connection; the ambient one when there is none."""
        if self.cluster.aws_conn_id is None:
            import boto3

            return boto3.Session(region_name=self.cluster.region)
        return _session(self.cluster.aws_conn_id, self.cluster.region)

    @cached_property
    def kube(self) -> Any:
        """``kubernetes.client.ApiClient`` of the cluster's API."""
        if self.cluster.eks_cluster:
            from include.endpoint.eks import eks_api_client

            return eks_api_client(self.session, self.cluster.eks_cluster, self.cluster.region)
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

        return KubernetesHook(conn_id=self.cluster.kubernetes_conn_id).get_conn()

    def clients(self) -> Clients:
        """Return the clients that the domain works with."""
        from include.endpoint.clients import Clients

        return Clients(kube=self.kube, session=self.session, region=self.cluster.region)

    def staging_of(self, model: ModelSpec) -> StagingContext:
        """Return what staging a model needs, with the credentials of its source."""
        context = self.staging(getattr(model.source, "token_conn_id", None))
        source = model.source
        if source.type != "s3" or source.aws_conn_id is None:
            return context
        return replace(context, source_session=_session(source.aws_conn_id, source.region or self.cluster.region))

    def staging(self, token_conn_id: str | None = None) -> StagingContext:
        """Return what staging needs; the Hub token is read here and goes nowhere else."""
        from include.staging.context import StagingContext

        token = BaseHook.get_connection(token_conn_id).password if token_conn_id else None
        bucket = self.cluster.models_bucket
        return StagingContext(
            session=self.session,
            region=self.cluster.region,
            hf_token=token,
            expected_bucket_owner=bucket.owner,
            kms_key=bucket.kms_key,
            storage_class=bucket.storage_class,
            tags=bucket.tags,
            reading=lambda progress: self.log.info("reading %s", progress),
        )


def _session(conn_id: str, region: str) -> Any:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    hook: Any = AwsGenericHook(aws_conn_id=conn_id, region_name=region)
    return hook.get_session()
