"""A reference server per module, a short way to run a load against it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from include.catalog.specs import LoadSpec, PromptSpec, Slo, WorkloadSpec
from include.loadtest.api import LoadOutcome, Target, run_load
from include.loadtest.reference.process import ReferenceServer

Run = Callable[..., LoadOutcome]


@pytest.fixture(scope="module")
def server() -> Iterator[ReferenceServer]:
    with ReferenceServer() as process:
        yield process


@pytest.fixture
def run(server: ReferenceServer, tmp_path: Path) -> Run:
    return runner(server.url, tmp_path)


def runner(url: str, folder: Path, **target: Any) -> Run:
    """Return a function that runs one load level; keywords of the load, prompt and workload by name."""

    def go(
        *,
        load: dict[str, Any],
        prompt: dict[str, Any] | None = None,
        slo: Slo | None = None,
        arm: str = "cold",
        salt: str | None = None,
        run_args: dict[str, Any] | None = None,
        target_args: dict[str, Any] | None = None,
        **workload: Any,
    ) -> LoadOutcome:
        given = {"mode": "closed" if "concurrency" in load and "rate" not in load else "open", **load}
        spec = LoadSpec.model_validate({"ramp_s": 0.0, **given})
        prompts = (PromptSpec.model_validate({"input_tokens": 8, "output_tokens": 8, **(prompt or {})}),)
        values = {"name": "test", "prompts": prompts, "loads": (spec,), "warmup_requests": 0, **workload}
        return run_load(
            Target(base_url=url, model="reference", **{**target, **(target_args or {})}),
            WorkloadSpec.model_validate(values),
            spec,
            out_dir=folder / secrets.token_hex(4),
            salt=salt or secrets.token_hex(4),
            slo=slo,
            arm=arm,
            **(run_args or {}),
        )

    return go


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return PEM files of a self-signed certificate for localhost and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    return str(folder / "cert.pem"), str(folder / "key.pem")
