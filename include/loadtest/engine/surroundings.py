"""What a run finds around it before it begins: addresses, certificates, data sets, somebody who reads its events."""

from __future__ import annotations

import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import msgspec

from include.loadtest.engine.prompts import Entry
from include.loadtest.job import Endpoint, Job


class RunFailedError(Exception):
    """The load could not begin; the text says why."""

    def __init__(self, reason: str, message: str, evidence: list[str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.evidence = evidence or []


def resolve(endpoint: Endpoint) -> list[str]:
    """Return the addresses of the endpoint's host, looked up once.

    :raises RunFailedError: there are none.
    """
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RunFailedError("UnknownHost", f"{endpoint.host}: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return the TLS settings: system trust plus ``ca_file``, client certificate, or no check at all.

    :raises RunFailedError: a certificate file cannot be read.
    """
    if not endpoint.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=endpoint.ca_file)
        if endpoint.client_cert_file:
            # Without a password the library would ask the terminal for one.
            context.load_cert_chain(endpoint.client_cert_file, endpoint.client_key_file, password="")
    except (OSError, ssl.SSLError) as error:
        raise RunFailedError("BadCertificateFile", f"{endpoint.ca_file}: {error}") from error
    if endpoint.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def read_datasets(job: Job) -> dict[int, list[Entry]]:
    """Return the entries of each data set prompt kind, by its place."""
    found = {}
    for place, kind in enumerate(job.prompts):
        if kind.kind == "dataset":
            if not kind.dataset:
                raise RunFailedError("EmptyDataset", f"prompts[{place}] is a data set and names none")
            lines = Path(kind.dataset).read_bytes().splitlines()
            found[place] = [msgspec.json.decode(line, type=Entry) for line in lines if line]
            if not found[place]:
                raise RunFailedError("EmptyDataset", f"{kind.dataset} has no entries")
    return found


def print_event(event: dict[str, Any]) -> None:
    """Write one progress event; a reader that has gone away does not matter."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()
    except (BrokenPipeError, ValueError):
        return
