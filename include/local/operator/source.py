"""Where an endpoint's weights come from, as a CSI volume."""

from __future__ import annotations

from include.local.controller.resources import Object

HUB_BUCKET = "jumpstart-local"


def claim_of(name: str) -> str:
    """Name of an endpoint's PersistentVolumeClaim."""
    return f"{name}-model"


def volume_of(item: Object, manifest_digest: str) -> Object | None:
    """Return the CSI part of the model's PersistentVolume; ``None`` when the source is no shared store.

    :param manifest_digest: digest that the node must find in the staged manifest; empty: not asked.
    """
    handle = f"{item['metadata']['namespace']}-{item['metadata']['name']}"
    if item["kind"] == "JumpStartModel":
        model = item["spec"]["model"]
        prefix = f"{model['modelId']}/{model.get('modelVersion') or 'latest'}/files"
        return _s3(handle, HUB_BUCKET, prefix, "")
    source = item["spec"]["modelSourceConfig"]
    location = str(source.get("modelLocation") or "").strip("/")
    if source["modelSourceType"] == "s3":
        return _s3(handle, source["s3Storage"]["bucketName"], location, manifest_digest)
    if source["modelSourceType"] == "fsx":
        storage = source["fsxStorage"]
        attributes = {
            "prefix": location,
            "dnsname": storage.get("dnsName", ""),
            "mountname": storage.get("mountName", ""),
        }
        return {"driver": "fsx.csi.aws.com", "volumeHandle": storage["fileSystemId"], "volumeAttributes": attributes}
    return None


def _s3(handle: str, bucket: str, prefix: str, manifest_digest: str) -> Object:
    attributes = {"bucketName": bucket, "prefix": prefix, "authenticationSource": "driver"}
    if manifest_digest:
        attributes["manifestDigest"] = manifest_digest
    return {"driver": "s3.csi.aws.com", "volumeHandle": handle, "volumeAttributes": attributes}
