"""The address and the credentials in a kubeconfig, and plain JSON calls with them."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True)
class KubeAccess:
    """How to reach an API server.

    :param authority: PEM text of its certificate authority; ``None`` for plain HTTP.
    """

    server: str
    token: str = field(repr=False)
    authority: str | None = None

    @classmethod
    def read(cls, kubeconfig: Path) -> KubeAccess:
        """Return the first cluster and user of a kubeconfig.

        :raises OSError: when there is no file; ValueError when it is not a kubeconfig with a token.
        """
        try:
            config = yaml.safe_load(kubeconfig.read_text())
            cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
            data = cluster.get("certificate-authority-data")
            pem = base64.b64decode(data).decode() if data else None
            return cls(cluster["server"], user["token"], pem)
        except (yaml.YAMLError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"{kubeconfig} is not a kubeconfig with a token: {error!r}") from error

    @property
    def headers(self) -> dict[str, str]:
        """Headers that authenticate."""
        return {"Authorization": f"Bearer {self.token}"}

    def tls(self) -> ssl.SSLContext | None:
        """Context that trusts the authority; ``None`` for plain HTTP."""
        return ssl.create_default_context(cadata=self.authority) if self.authority else None

    def call(self, method: str, path: str, body: Any = None, *, timeout: float = 5) -> Any:
        """Send one request; return the JSON answer (text when it is not JSON).

        :raises urllib.error.HTTPError: for a status of 400 and above; ``OSError`` when it cannot be reached.
        """
        kind = MERGE_PATCH if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 (the kubeconfig's own address)
            f"{self.server}/{path}", data, {**self.headers, "Content-Type": kind}, method=method
        )
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        context = self.tls()
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as answer:
            text = answer.read().decode()
        try:
            return json.loads(text)
        except ValueError:
            return text
