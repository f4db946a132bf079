"""TLS of an endpoint: certificate in a Secret, CA in S3, certificate in ACM."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from include.local.controller.clock import stamp, utcnow
from include.local.controller.resources import SECRETS, Object, owner_reference
from include.local.faults import Fault
from include.local.operator.aws import AwsFailureError
from include.local.operator.certificates import from_secret, issue
from include.local.operator.world import World

DEFAULT_BUCKET = "hyperpod-tls-local"
ARN = "hyperpod-local/acm-arn"


@dataclass(frozen=True)
class Tls:
    """Where an endpoint's CA lies, and its part of the status."""

    bucket: str
    key: str
    status: Object


def secret_name(item: Object) -> str:
    """Name of the Secret with the load balancer's certificate."""
    return f"{item['metadata']['name']}-tls"


def location(item: Object) -> tuple[str, str]:
    """Return bucket and key of the CA."""
    uri = (item["spec"].get("tlsConfig") or {}).get("tlsCertificateOutputS3Uri") or f"s3://{DEFAULT_BUCKET}"
    parts = urlsplit(uri)
    meta = item["metadata"]
    folder = parts.path.strip("/")
    name = f"{meta['namespace']}/{meta['name']}/ca.pem"
    return parts.netloc, f"{folder}/{name}" if folder else name


async def provide(world: World, item: Object, host: str) -> Tls:
    """Make what is missing of the certificate's objects.

    :raises AwsFailureError: when the bucket cannot be written.
    """
    bucket, key = location(item)
    if rule := await world.fault(item, Fault.TLS_BUCKET):
        default = f"TLS bucket s3://{bucket} is not writable: AccessDenied when calling the PutObject operation"
        raise AwsFailureError(rule.text("message", default))
    namespace = item["metadata"]["namespace"]
    secret = await world.api.get(SECRETS, namespace, secret_name(item))
    if secret is None:
        certificate = await asyncio.to_thread(issue, item["metadata"]["name"], utcnow())
        made = certificate.secret(namespace, secret_name(item), owner_reference(item))
        secret = await world.api.create(SECRETS, made)
    certificate = from_secret(secret)
    arn = (secret["metadata"].get("annotations") or {}).get(ARN)
    if arn is None:
        await asyncio.to_thread(world.aws.publish, bucket, key, certificate)
        custom = (item["spec"].get("tlsConfig") or {}).get("customCertificateConfig") or {}
        arn = custom.get("acmArn") or await asyncio.to_thread(
            world.aws.import_certificate, certificate, item["metadata"]["name"]
        )
        await world.api.patch(SECRETS, namespace, secret_name(item), {"metadata": {"annotations": {ARN: arn}}})
    health = "Expiring" if await world.fault(item, Fault.CERT_EXPIRING) else "Valid"
    if health == "Expiring":
        await world.events.warning(item, "CertificateExpiring", f"Certificate {arn} expires soon")
    status = {
        "certificateARN": arn,
        "certificateName": secret_name(item),
        "certificateDomainNames": [host],
        "certificateHealth": health,
        "importedCertificates": [arn],
        "issuerName": f"{item['metadata']['name']} CA",
        "lastCertExpiryTime": stamp(certificate.expires),
        "tlsCertificateOutputS3Bucket": bucket,
        "tlsCertificateS3Keys": [key],
    }
    return Tls(bucket, key, status)


async def remove(world: World, item: Object) -> None:
    """Delete certificate and Secret; the CA object in S3 stays, as the operator leaves it."""
    namespace = item["metadata"]["namespace"]
    secret = await world.api.get(SECRETS, namespace, secret_name(item))
    if secret is None:
        return
    arn = (secret["metadata"].get("annotations") or {}).get(ARN)
    custom = (item["spec"].get("tlsConfig") or {}).get("customCertificateConfig") or {}
    if arn and arn != custom.get("acmArn"):
        await asyncio.to_thread(world.aws.delete_certificate, arn)
    await world.api.delete(SECRETS, namespace, secret_name(item))
