"""The gateway's view of the local Kubernetes API: plain GETs with the kubeconfig's token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import yaml

from include.local.aws.errors import AwsError


class Kube:
    """Reads what the operator made."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    def cluster(self) -> dict[str, Any]:
        """Return the ``cluster`` entry of the kubeconfig.

        :raises AwsError: ServiceUnavailable when there is no kubeconfig yet.
        """
        return dict(self._read()["clusters"][0]["cluster"])

    async def get(self, path: str) -> dict[str, Any]:
        """Return an object or a list.

        :raises AwsError: ServiceUnavailable when the API does not answer.
        """
        config = self._read()
        url = f"{config['clusters'][0]['cluster']['server']}/{path}"
        headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=headers) as got:
                if got.status >= 400:
                    raise AwsError("ServiceUnavailable", f"Kubernetes API: {got.status} for {path}", 503)
                return dict(await got.json())
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AwsError("ServiceUnavailable", f"Kubernetes API: {error!r}", 503) from error

    def _read(self) -> dict[str, Any]:
        try:
            return dict(yaml.safe_load(self._kubeconfig.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise AwsError("ServiceUnavailable", "the local Kubernetes API has not been started", 503) from error
