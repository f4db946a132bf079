"""What a request asks for: service, operation and parameters, in any of AWS's wire protocols."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from include.local.aws.errors import AwsError

SCOPE = re.compile(r"Credential=([^/\s,]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request")
INVOKE = re.compile(r"^/endpoints/([^/]+)/invocations(-response-stream)?$")
RPC = re.compile(r"^/service/([^/]+)/operation/([^/]+)$")

CLIENT_NAMES = {"monitoring": "cloudwatch", "elasticloadbalancing": "elbv2"}  # by signing name


@dataclass(frozen=True)
class Credential:
    """Credential scope of a signed request."""

    access_key: str
    day: str
    region: str
    service: str


@dataclass(frozen=True)
class Call:
    """One API call.

    :param service: the name of the service's client (``sagemaker-runtime``, not its signing name).
    :param operation: API name, such as ``DescribeEndpoint``; empty when it cannot be told.
    :param protocol: ``json``, ``rest-json``, ``query`` or ``cbor``.
    :param parameters: members of the JSON body, form or path; empty for cbor.
    """

    service: str
    operation: str
    protocol: str
    region: str
    parameters: dict[str, Any]


def credential_of(authorization: str, query: dict[str, str]) -> Credential | None:
    """Return the scope of a signed header or a presigned URL, ``None`` for an unsigned request."""
    text = authorization
    if not text and "X-Amz-Credential" in query:
        text = f"Credential={query['X-Amz-Credential']}"
    found = SCOPE.search(text)
    return Credential(*found.groups()) if found else None


def parse(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, scope: Credential | None
) -> Call:
    """Return the call in a request; ``headers`` has lower-case names, an unsigned request no service.

    :raises AwsError: SerializationException when the body is not what its protocol says.
    """
    scope = scope or Credential("", "", "", "")
    service = CLIENT_NAMES.get(scope.service, scope.service)
    target = headers.get("x-amz-target")
    if target:
        return Call(service, target.rpartition(".")[2], "json", scope.region, _json(body))
    rpc = RPC.match(path)
    if rpc:
        return Call(service, rpc[2], "cbor", scope.region, {})
    form = dict(parse_qsl(body.decode("utf-8", "replace"))) if _is_form(headers) else {}
    if "Action" in form or "Action" in query:
        parameters: dict[str, Any] = {**query, **form}
        return Call(service, parameters["Action"], "query", scope.region, parameters)
    invoke = INVOKE.match(path)
    if invoke:
        operation = "InvokeEndpointWithResponseStream" if invoke[2] else "InvokeEndpoint"
        name = {"EndpointName": unquote(invoke[1])}
        return Call("sagemaker-runtime", operation, "rest-json", scope.region, name)
    operation, from_path = _rest_operation(scope.service, method, path)
    return Call(service, operation, "rest-json", scope.region, {**query, **from_path})


def _is_form(headers: dict[str, str]) -> bool:
    return headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


def _json(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body or b"{}")
    except ValueError as error:
        raise AwsError("SerializationException", f"the body is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise AwsError("SerializationException", "the body is not a JSON object")
    return parsed


def _rest_operation(service: str, method: str, path: str) -> tuple[str, dict[str, str]]:
    for verb, pattern, operation in _rest_routes(service):
        found = pattern.match(path)
        if verb == method and found:
            return operation, {name: unquote(value) for name, value in found.groupdict().items()}
    return "", {}


@cache
def _rest_routes(service: str) -> tuple[tuple[str, re.Pattern[str], str], ...]:
    """Routes of a REST service from botocore's own model; none for a service that it does not know."""
    from botocore.exceptions import DataNotFoundError, UnknownServiceError
    from botocore.loaders import Loader

    try:
        model = Loader().load_service_model(service, "service-2")
    except (DataNotFoundError, UnknownServiceError):
        return ()
    routes = []
    for name, operation in model["operations"].items():
        uri = operation["http"]["requestUri"].split("?")[0]
        pattern = re.sub(r"\\{(\w+)(\\\+)?\\}", r"(?P<\1>[^/]+)", re.escape(uri))
        routes.append((operation["http"]["method"], re.compile(f"^{pattern}$"), name))
    return tuple(routes)
