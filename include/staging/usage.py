"""Which staged revisions are in use: by live endpoints, by runs on their way, by the last good record of each model."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from include.endpoint.kubeerrors import translate
from include.objects import Objects
from include.staging.collect import Revision

# A run that has no record after so long is dead: nights wait a day for room, endpoints live for hours.
UNFINISHED = dt.timedelta(days=7)
GROUP, VERSION = "inference.sagemaker.aws.amazon.com", "v1"


def used_by_endpoints(kube: Any) -> set[Revision]:
    """Return the revisions that any endpoint of the cluster serves, in all namespaces.

    :param kube: ``kubernetes.client.ApiClient``.
    """
    from kubernetes.client import CoreV1Api, CustomObjectsApi

    resources = _asked(
        lambda: CustomObjectsApi(kube).list_cluster_custom_object(GROUP, VERSION, "inferenceendpointconfigs")["items"],
        [],
    )
    locations = [str((item["spec"].get("modelSourceConfig") or {}).get("modelLocation") or "") for item in resources]
    # A deployment without the operator mounts its prefix as a volume.
    for volume in _asked(lambda: CoreV1Api(kube).list_persistent_volume().items, []):
        options = volume.spec.mount_options or []
        attributes = (volume.spec.csi.volume_attributes if volume.spec.csi else None) or {}
        locations += [part for option in options for part in option.replace("=", " ").split()]
        locations += [str(value) for value in attributes.values()]
    return set(revisions_in(locations))


def _asked(call: Callable[[], Any], absent: Any) -> Any:
    """Ask the API; a resource type that the cluster does not know has no objects.

    :raises PipelineError: it does not answer or refuses: what is in use must be known.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        return call()
    except (ApiException, HTTPError, OSError) as error:
        refusal = translate(error, "asking which revisions are served")
        if refusal.status == 404:
            return absent
        raise refusal.error from error


def used_by_records(records: Iterable[Any]) -> set[Revision]:
    """Return the last revision of each model that a successful run recorded (``RunRecord``)."""
    newest: dict[str, Any] = {}
    for record in records:
        name = str(record.model.get("name") or "")
        if record.state != "success" or not name or not record.model.get("revision"):
            continue
        if name not in newest or newest[name].ended_at < record.ended_at:
            newest[name] = record
    return {(name, str(record.model["revision"])) for name, record in newest.items()}


def used_by_runs(results: Objects, now: dt.datetime) -> set[Revision]:
    """Return the revisions that runs without a record planned: they may be about to serve them.

    :param results: rooted at a cluster's ``results_uri``.
    """
    paths = {info.path for info in results.list("runs")}
    found: set[Revision] = set()
    for path in (path for path in paths if path.endswith("/plan.json")):
        if f"{path.removesuffix('plan.json')}record.json" in paths:
            continue
        # Not read as a plan of ours: one that another release wrote counts too.
        with suppress(ValueError, KeyError, TypeError):
            plan = json.loads(results.get(path) or b"")
            if now - dt.datetime.fromisoformat(plan["run"]["started_at"]) < UNFINISHED:
                found.add((str(plan["model"]["name"]), str(plan["revision"])))
    return found


def revisions_in(locations: Iterable[str]) -> Iterable[Revision]:
    """Yield name and revision of the paths that point at staged files (``…/<name>/<revision>/files``)."""
    for location in locations:
        parts = [part for part in location.strip("/").split("/") if part]
        if len(parts) >= 3 and parts[-1] == "files":
            yield parts[-3], parts[-2]
