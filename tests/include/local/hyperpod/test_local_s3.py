"""The S3 server refuses what S3 refuses, and forgets nothing when it is killed."""

from __future__ import annotations

import base64

import pytest
from botocore.exceptions import ClientError

from include.local.supervisor import LocalHyperPod
from tests.include.local.hyperpod.conftest import Client

pytestmark = pytest.mark.local
BUCKET = "hyperpod-models"


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def test_the_buckets_exist(client: Client) -> None:
    found = {bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]}
    assert found >= {"hyperpod-models", "hyperpod-results", "hyperpod-tls-local"}


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC64NVME"])
def test_a_wrong_checksum_is_refused(client: Client, algorithm: str) -> None:
    wrong = base64.b64encode(bytes(32 if algorithm == "SHA256" else 8)).decode()
    with pytest.raises(ClientError) as caught:
        client("s3").put_object(Bucket=BUCKET, Key="wrong", Body=b"data", **{f"Checksum{algorithm}": wrong})
    assert code(caught) in ("BadDigest", "XAmzContentChecksumMismatch")
    assert "Contents" not in client("s3").list_objects_v2(Bucket=BUCKET, Prefix="wrong")


def test_a_conditional_write_happens_once(client: Client) -> None:
    s3 = client("s3")
    s3.delete_object(Bucket=BUCKET, Key="once")
    s3.put_object(Bucket=BUCKET, Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket=BUCKET, Key="once", Body=b"second", IfNoneMatch="*")
    assert code(caught) == "PreconditionFailed"
    assert s3.get_object(Bucket=BUCKET, Key="once")["Body"].read() == b"first"


def test_wrong_credentials_are_refused(client: Client) -> None:
    with pytest.raises(ClientError) as caught:
        client("s3", aws_secret_access_key="wrong").list_objects_v2(Bucket=BUCKET)
    assert code(caught) == "SignatureDoesNotMatch"


def test_acknowledged_objects_survive_a_kill(hyperpod: LocalHyperPod, client: Client) -> None:
    bodies = {f"kept/{number}": bytes([number]) * 100_000 for number in range(20)}
    for key, body in bodies.items():
        client("s3").put_object(Bucket=BUCKET, Key=key, Body=body)
    hyperpod.restart("s3")
    found = {key: client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in bodies}
    assert found == bodies
