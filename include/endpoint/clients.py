"""The clients that the endpoint stages share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

from include.endpoint.kube import Kube

if TYPE_CHECKING:
    import boto3
    from kubernetes.client import ApiClient


@dataclass
class Clients:
    """Clients of one cluster; made lazily, credentials stay inside.

    :param kube: ``kubernetes.client.ApiClient`` of the cluster.
    :param session: for SageMaker, S3 and the others; ``None``: there is no AWS side.
    """

    kube: ApiClient = field(repr=False)
    session: boto3.Session | None = field(repr=False)
    region: str
    _making: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    @cached_property
    def api(self) -> Kube:
        """Generic Kubernetes client."""
        return Kube(self.kube)

    def _aws(self, service: str) -> Any:
        import boto3
        from botocore.config import Config

        config = Config(
            retries={"mode": "adaptive", "max_attempts": 6}, connect_timeout=5, read_timeout=60, tcp_keepalive=True
        )
        # A client may be used by many threads; a session may not make two at once.
        with self._making:
            session = self.session or boto3.Session(region_name=self.region)
            return session.client(service, region_name=self.region, config=config)

    @cached_property
    def sagemaker(self) -> Any:
        """SageMaker control plane."""
        return self._aws("sagemaker")

    @cached_property
    def runtime(self) -> Any:
        """SageMaker runtime: invocations."""
        return self._aws("sagemaker-runtime")

    @cached_property
    def s3(self) -> Any:
        """S3."""
        return self._aws("s3")

    @cached_property
    def elbv2(self) -> Any:
        """Load balancers."""
        return self._aws("elbv2")

    @cached_property
    def acm(self) -> Any:
        """Certificates."""
        return self._aws("acm")

    @cached_property
    def ecr(self) -> Any:
        """Container images."""
        return self._aws("ecr")
