"""SigV4 for SageMaker's runtime, by botocore's own signer; each request is signed as it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.loadtest.engine.bodies import Shape
from include.loadtest.job import Job

if TYPE_CHECKING:
    from include.loadtest.engine.dispatch import Render

SERVICE = "sagemaker"


def signed_renderer(job: Job) -> Render:
    """Return a function that makes a signed request (head and body) from a body and a request id.

    :raises ValueError: the job carries no credentials.
    """
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    endpoint, given = job.endpoint, job.credentials
    if given is None:
        raise ValueError("requests to SageMaker need credentials")
    signer = SigV4Auth(Credentials(given.access_key, given.secret_key, given.token), SERVICE, endpoint.region)
    url = f"{'https' if endpoint.tls else 'http'}://{endpoint.host_header}{endpoint.path}"
    shape = Shape(endpoint)

    def render(body: bytes, request_id: str) -> bytes:
        request = AWSRequest(method="POST", url=url, data=body, headers={"content-type": "application/json"})
        signer.add_auth(request)
        names = ("X-Amz-Date", "X-Amz-Security-Token", "Authorization")
        lines = [f"{name}: {request.headers[name]}" for name in names if name in request.headers]
        return shape.request(body, request_id, extra=("\r\n".join(lines) + "\r\n").encode("latin-1"))

    return render
