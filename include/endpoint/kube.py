"""A thin, generic Kubernetes client: plain dictionaries in and out, strict writes, patient with flakes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.endpoint.kubeerrors import translate
from include.endpoint.resources import ACCESS_REVIEWS, PODS, Resource

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

log = logging.getLogger(__name__)

Object = dict[str, Any]
PAGE = 250
CONNECT_S, READ_S = 5.0, 30.0
MERGE_PATCH = "application/merge-patch+json"


class Kube:
    """Requests against one API server.

    :param api: any ``kubernetes.client.ApiClient``: kubeconfig, in-cluster or EKS token.
    :param patience_s: how long flakes (connection errors, 429, 5xx, 401 of an expired token) are retried.
    """

    def __init__(self, api: ApiClient, *, patience_s: float = 30.0) -> None:
        from kubernetes.dynamic import DynamicClient

        # Discovery would cost a request per API group; every path is known here.
        self._client = DynamicClient(api, discoverer=lambda *_: None)
        self._patience_s = patience_s

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """Return an object, ``None`` when there is none."""
        try:
            return self._json("GET", resource.path(namespace, name))
        except LookupError:
            return None

    def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Return every object of a collection, all pages; a resource that is not served has none.

        :param namespace: empty: all namespaces.
        """
        return list(self._pages(resource, namespace, labels, fields))

    def _pages(self, resource: Resource, namespace: str, labels: str, fields: str) -> Iterator[Object]:
        more: str | None = None
        while True:
            query: list[tuple[str, Any]] = [("limit", PAGE)]
            query += [("labelSelector", labels)] if labels else []
            query += [("fieldSelector", fields)] if fields else []
            query += [("continue", more)] if more else []
            try:
                page = self._json("GET", resource.path(namespace), query)
            except LookupError:
                return
            for item in page.get("items") or []:
                # Items of a list carry neither; whoever reads one alone needs them.
                yield {"apiVersion": resource.api_version, "kind": resource.kind, **item}
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return

    def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str = "", *, dry_run: bool = False
    ) -> Object:
        """Create an object; unknown fields are refused by the server.

        :raises PipelineError: reason ``AlreadyExists`` when the name is taken.
        """
        query = [("fieldValidation", "Strict")] + ([("dryRun", "All")] if dry_run else [])
        return self._json("POST", resource.path(namespace), query, dict(body))

    def replace(self, resource: Resource, body: Mapping[str, Any], namespace: str = "") -> Object:
        """Replace an object whose ``resourceVersion`` is still the one in ``body``.

        :raises PipelineError: reason ``Conflict`` when it is not.
        """
        return self._json("PUT", resource.path(namespace, body["metadata"]["name"]), body=dict(body))

    def patch(self, resource: Resource, name: str, body: Mapping[str, Any], namespace: str = "") -> Object:
        """Apply a JSON merge patch; with a ``uid`` in its metadata it meets only that object."""
        path = resource.path(namespace, name)
        return self._json("PATCH", path, [("fieldValidation", "Strict")], dict(body), content_type=MERGE_PATCH)

    def delete(self, resource: Resource, name: str, namespace: str = "", *, uid: str) -> bool:
        """Ask to delete exactly the object with this UID; ``False`` when the name has no object.

        :raises PipelineError: reason ``Conflict`` when another object has the name now.
        """
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            self._json("DELETE", resource.path(namespace, name), body=body)
        except LookupError:
            return False
        return True

    def log(
        self, name: str, namespace: str, container: str, *, lines: int = 40, previous: bool = False
    ) -> tuple[str, ...]:
        """Return the last lines of a container's log, nothing when it has none (yet)."""
        query = [("container", container), ("tailLines", lines), ("previous", str(previous).lower())]
        from include.errors import PipelineError

        try:
            text = self._send("GET", PODS.path(namespace, name, "log"), query).decode("utf-8", "replace")
        except (LookupError, PipelineError):
            return ()
        return tuple(line for line in text.splitlines() if line.strip())

    def allowed(self, verb: str, resource: Resource, namespace: str = "", subresource: str = "") -> tuple[bool, str]:
        """Ask whether this identity may do something; return the answer and the server's reason."""
        attributes = {
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": subresource,
            "namespace": namespace,
        }
        body = {
            "apiVersion": ACCESS_REVIEWS.api_version,
            "kind": ACCESS_REVIEWS.kind,
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        status = self._json("POST", ACCESS_REVIEWS.path(), body=body).get("status") or {}
        return bool(status.get("allowed")), str(status.get("reason") or "")

    def raw(self, path: str) -> bytes:
        """Return the body of a plain GET, such as ``/version``."""
        return self._send("GET", path)

    def _json(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, Any]] = (),
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = self._send(method, path, query, body, content_type)
        return json.loads(data) if data else {}

    def _send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, Any]] = (),
        body: Object | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        def once() -> bytes:
            answer = self._client.request(
                method,
                path,
                body=body,
                serialize=False,
                query_params=list(query),
                header_params={"Accept": "application/json, */*"},
                content_type=content_type,
                _request_timeout=(CONNECT_S, READ_S),
            )
            return bytes(answer.data)

        return patiently(once, doing=f"{method} {path}", seconds=self._patience_s)


def patiently(call: Callable[[], bytes], *, doing: str, seconds: float) -> bytes:
    """Call until it succeeds, fails for good, or flakes have lasted ``seconds``.

    :raises LookupError: 404.
    :raises PipelineError: everything else, in words.
    """
    from kubernetes.client.exceptions import ApiException
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential
    from urllib3.exceptions import HTTPError

    retrying = Retrying(
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.2, max=3),
        retry=retry_if_exception(lambda error: translate(error, doing).retry_call),
        reraise=True,
        before_sleep=lambda state: log.debug(
            "%s: retrying after %r", doing, state.outcome and state.outcome.exception()
        ),
    )
    try:
        return retrying(call)
    except (ApiException, HTTPError, OSError) as error:
        failure = translate(error, doing)
        if failure.status == 404:
            raise LookupError(doing) from error
        raise failure.error from error
