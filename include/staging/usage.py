"""Which staged revisions are in use: by live endpoints, and by the last good record of each model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from include.staging.collect import Revision

GROUP, VERSION = "inference.sagemaker.aws.amazon.com", "v1"


def used_by_endpoints(kube: Any) -> set[Revision]:
    """Return the revisions that any endpoint of the cluster serves, in all namespaces.

    :param kube: ``kubernetes.client.ApiClient``.
    """
    from kubernetes.client import CoreV1Api, CustomObjectsApi

    resources = CustomObjectsApi(kube).list_cluster_custom_object(GROUP, VERSION, "inferenceendpointconfigs")["items"]
    locations = [str((item["spec"].get("modelSourceConfig") or {}).get("modelLocation") or "") for item in resources]
    # A deployment without the operator mounts its prefix as a volume.
    for volume in CoreV1Api(kube).list_persistent_volume().items:
        options = volume.spec.mount_options or []
        attributes = (volume.spec.csi.volume_attributes if volume.spec.csi else None) or {}
        locations += [part for option in options for part in option.replace("=", " ").split()]
        locations += [str(value) for value in attributes.values()]
    return set(revisions_in(locations))


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


def revisions_in(locations: Iterable[str]) -> Iterable[Revision]:
    """Yield name and revision of the paths that point at staged files (``…/<name>/<revision>/files``)."""
    for location in locations:
        parts = [part for part in location.strip("/").split("/") if part]
        if len(parts) >= 3 and parts[-1] == "files":
            yield parts[-3], parts[-2]
