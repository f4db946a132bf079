"""A deployment without the operator: Deployment, Service and the volume of the staged weights."""

from __future__ import annotations

from include.catalog.specs import JsonObject
from include.endpoint import names
from include.endpoint.render.context import RenderContext
from include.endpoint.render.endpointconfig import environment, resources
from include.endpoint.render.parts import compact

SERVICE_PORT = 443  # as the operator's Service, so that every caller finds both in the same place
CAPACITY = "1200Gi"  # required by the API, ignored by both CSI drivers for static volumes


def direct_objects(context: RenderContext) -> list[JsonObject]:
    """Render the objects; the first is the Deployment, which owns the namespaced others."""
    objects = [_deployment(context), _service(context)]
    if context.model.deployment.model_source in ("s3", "fsx"):
        objects += [_volume(context), _claim(context)]
    return objects


def volume_name(name: str) -> str:
    """Name of the persistent volume and of its claim."""
    return f"{name}-model"


def _plain_metadata(context: RenderContext, name: str) -> JsonObject:
    return {"name": name, "namespace": context.cluster.namespace, "labels": context.labels()}


def _deployment(context: RenderContext) -> JsonObject:
    spec = context.model.deployment
    selector = {"app": context.name}
    pod = compact(
        containers=[_container(context)],
        initContainers=list(spec.kubernetes.init_containers) if spec.kubernetes else None,
        volumes=_volumes(context),
        nodeSelector={"node.kubernetes.io/instance-type": spec.instance_type} if spec.instance_type else None,
        affinity=_affinity(context),
        schedulerName=spec.kubernetes.scheduler_name if spec.kubernetes else None,
        serviceAccountName=spec.kubernetes.service_account_name if spec.kubernetes else None,
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": context.metadata(),
        "spec": {
            "replicas": spec.replicas,
            "selector": {"matchLabels": selector},
            "progressDeadlineSeconds": spec.max_deploy_seconds,
            "template": {"metadata": {"labels": context.labels() | selector}, "spec": pod},
        },
    }


def _container(context: RenderContext) -> JsonObject:
    spec = context.model.deployment
    probes = spec.probes.rendered() if spec.probes else {}
    default = {"httpGet": {"path": spec.health_path, "port": spec.port}, "periodSeconds": 5}
    return compact(
        name=context.name,
        image=spec.image,
        command=list(spec.command),
        args=list(spec.args),
        workingDir=spec.working_dir,
        env=environment(spec.env),
        ports=[{"containerPort": spec.port, "name": spec.port_name or "http"}],
        resources=resources(spec.resources, spec.resource_claims),
        volumeMounts=[_mount(context)],
        **({"readinessProbe": default} | probes),
    )


def _mount(context: RenderContext) -> JsonObject:
    spec = context.model.deployment
    # The S3 volume is the prefix itself; a file system is mounted whole.
    inside = context.location if spec.model_source == "fsx" else None
    return compact(name=spec.volume.name, mountPath=spec.volume.mount_path, readOnly=True, subPath=inside)


def _volumes(context: RenderContext) -> list[JsonObject]:
    spec = context.model.deployment
    own = [dict(item) for item in spec.kubernetes.volumes] if spec.kubernetes else []
    if spec.model_source not in ("s3", "fsx"):
        return own
    claim = {"claimName": volume_name(context.name), "readOnly": True}
    return [{"name": spec.volume.name, "persistentVolumeClaim": claim}, *own]


def _affinity(context: RenderContext) -> JsonObject | None:
    spec = context.model.deployment
    if spec.node_affinity:
        return {"nodeAffinity": spec.node_affinity}
    if not spec.instance_types:
        return None
    term = {
        "key": "node.kubernetes.io/instance-type",
        "operator": "In",
        "values": list(spec.instance_types),
    }
    terms = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _service(context: RenderContext) -> JsonObject:
    port = {"name": "http", "port": SERVICE_PORT, "targetPort": context.model.deployment.port}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _plain_metadata(context, names.service_name(context.name)),
        "spec": {"type": "ClusterIP", "selector": {"app": context.name}, "ports": [port]},
    }


def _volume(context: RenderContext) -> JsonObject:
    spec = context.model.deployment
    metadata = _plain_metadata(context, volume_name(f"{context.cluster.namespace}-{context.name}"))
    del metadata["namespace"]
    if spec.model_source == "s3":
        csi: JsonObject = {
            "driver": "s3.csi.aws.com",
            "volumeHandle": context.name,
            "volumeAttributes": {"bucketName": context.bucket},
        }
        options = [f"prefix {context.location.rstrip('/')}/", f"region {context.cluster.region}", "read-only"]
    else:
        fsx = spec.fsx.rendered() if spec.fsx else {}
        file_system = fsx.get("fileSystemId") or context.cluster.fsx_file_system_id
        csi = {
            "driver": "fsx.csi.aws.com",
            "volumeHandle": file_system,
            "volumeAttributes": compact(dnsname=fsx.get("dnsName"), mountname=fsx.get("mountName")),
        }
        options = ["flock"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata,
        "spec": {
            "capacity": {"storage": CAPACITY},
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "mountOptions": options,
            "csi": csi,
            "claimRef": {"namespace": context.cluster.namespace, "name": volume_name(context.name)},
        },
    }


def _claim(context: RenderContext) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _plain_metadata(context, volume_name(context.name)),
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": volume_name(f"{context.cluster.namespace}-{context.name}"),
            "resources": {"requests": {"storage": CAPACITY}},
        },
    }
