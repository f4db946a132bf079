"""Signature Version 4, checked for the local key; credentials that STS lent are taken by their shape.

Source: AWS Signature Version 4 (create a canonical request, string to sign, signing key).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote

from include.local.aws.errors import AwsError
from include.local.aws.wire import Credential
from include.local.s3 import ACCESS_KEY, SECRET_KEY

SIGNED = re.compile(r"SignedHeaders=([^,\s]+)")
SIGNATURE = re.compile(r"Signature=([0-9a-f]+)")
LENT = "ASIA"  # STS's temporary keys


def verify(
    method: str, raw_path: str, raw_query: str, headers: dict[str, str], body: bytes, scope: Credential | None
) -> None:
    """Check who signed a request; ``headers`` has lower-case names.

    :raises AwsError: 403, with the codes that clients know: MissingAuthenticationTokenException,
        UnrecognizedClientException, InvalidSignatureException.
    """
    if scope is None:
        raise AwsError("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    if scope.access_key.startswith(LENT):
        return
    if scope.access_key != ACCESS_KEY:
        raise AwsError("UnrecognizedClientException", "The security token included in the request is invalid.", 403)
    authorization = headers.get("authorization", "")
    signed, signature = SIGNED.search(authorization), SIGNATURE.search(authorization)
    if not signed or not signature:
        return  # presigned: the local key in the URL is proof enough on loopback
    canonical = _canonical(method, raw_path, raw_query, headers, body, signed[1])
    if not hmac.compare_digest(_sign(canonical, headers.get("x-amz-date", ""), scope), signature[1]):
        raise AwsError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method.",
            403,
        )


def _canonical(method: str, raw_path: str, raw_query: str, headers: dict[str, str], body: bytes, names: str) -> str:
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in raw_query.split("&") if part))
    lines = [f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names.split(";")]
    payload = headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
    path = quote(raw_path or "/", safe="/-_.~")
    return "\n".join([method, path, query, "".join(lines), names, payload])


def _sign(canonical: str, date: str, scope: Credential) -> str:
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (scope.day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    place = f"{scope.day}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", date, place, hashlib.sha256(canonical.encode()).hexdigest()])
    return hmac.new(key, text.encode(), "sha256").hexdigest()
