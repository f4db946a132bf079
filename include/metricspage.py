"""A Prometheus page of an endpoint, however it is reached."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True)
class MetricsPage:
    """One page.

    :param headers: asked for before every fetch, since a token may be a new one by then.
    :param context: makes the TLS settings; ``None``: the system's trust.
    :param kind: what serves it; pages of one kind say the same things of different pods. Empty: by port and path.
    """

    url: str
    headers: Callable[[], dict[str, str]] | None = field(default=None, repr=False)
    context: Callable[[], ssl.SSLContext] | None = field(default=None, repr=False)
    kind: str = ""

    @property
    def alike(self) -> str:
        """Kind, or what else tells pages of one kind."""
        parts = urlsplit(self.url)
        return self.kind or f"{parts.port}{parts.path}"
