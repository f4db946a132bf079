"""The gateway's view of the local Kubernetes API: plain GETs with the kubeconfig's token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from include.local.aws.errors import AwsError
from include.local.kubeaccess import KubeAccess


class Kube:
    """Reads what the operator made."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def access(self) -> KubeAccess:
        """Return the API's address and credentials.

        :raises AwsError: ServiceUnavailable when there is no kubeconfig yet.
        """
        try:
            return KubeAccess.read(self._kubeconfig)
        except (OSError, ValueError) as error:
            raise AwsError("ServiceUnavailable", "the local Kubernetes API has not been started", 503) from error

    async def get(self, path: str) -> dict[str, Any]:
        """Return an object or a list.

        :raises AwsError: ServiceUnavailable when the API does not answer.
        """
        access = self.access()
        timeout, tls = aiohttp.ClientTimeout(total=10), access.tls() or True
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=access.headers) as session,
                session.get(f"{access.server}/{path}", ssl=tls) as got,
            ):
                if got.status >= 400:
                    raise AwsError("ServiceUnavailable", f"Kubernetes API: {got.status} for {path}", 503)
                return dict(await got.json())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AwsError("ServiceUnavailable", f"Kubernetes API: {error!r}", 503) from error
