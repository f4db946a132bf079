"""The load balancer's certificate chains to the CA that the operator wrote to S3."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from include.endpoint.model import Check
from include.endpoint.validation.subject import Subject, verdict

TIMEOUT_S = 10.0


def certificate_chain(subject: Subject) -> Iterator[Check]:
    """Verify the TLS chain and the host name; nothing to do without TLS."""
    invocation = subject.asker.invocation
    parts = urlsplit(invocation.base_url)
    if parts.scheme != "https" or invocation.way != "alb":
        return
    name, host = "TLS chain", parts.hostname or ""
    fix = "the certificate is not the one that the operator wrote to S3: do not trust this endpoint"
    context = ssl.create_default_context(cafile=invocation.ca_file)
    try:
        with (
            socket.create_connection((host, parts.port or 443), TIMEOUT_S) as raw,
            context.wrap_socket(raw, server_hostname=host) as secured,
        ):
            peer = secured.getpeercert() or {}
    except (OSError, ssl.SSLError) as error:
        yield verdict(name, False, f"a certificate for {host} by the CA from S3", error, fix)
        return
    yield verdict(name, True, f"a certificate for {host}", f"valid until {peer.get('notAfter', 'unknown')}")
