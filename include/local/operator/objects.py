"""The objects that the operator makes for an endpoint. Pure."""

from __future__ import annotations

from typing import Any

from include.local.controller.resources import Object, owner_reference


def model_name_of(item: Object) -> str:
    """Name of the SageMaker endpoint; empty: none is made."""
    spec = item["spec"]
    if item["kind"] == "JumpStartModel":
        return str((spec.get("sageMakerEndpoint") or {}).get("name") or "")
    return str(spec.get("endpointName") or "")


def volumes(item: Object) -> tuple[Object, Object]:
    """PersistentVolume and PersistentVolumeClaim of the model's source."""
    meta, source = item["metadata"], item["spec"]["modelSourceConfig"]
    name, namespace = f"{meta['name']}-model", meta["namespace"]
    location = source.get("modelLocation", "")
    if source["modelSourceType"] == "fsx":
        csi = {"driver": "fsx.csi.aws.com", "volumeHandle": source["fsxStorage"]["fileSystemId"]}
        csi["volumeAttributes"] = {"prefix": location}
    else:
        bucket = (source.get("s3Storage") or {}).get("bucketName", "")
        csi = {"driver": "s3.csi.aws.com", "volumeHandle": f"{namespace}-{name}"}
        csi["volumeAttributes"] = {"bucketName": bucket, "prefix": location}
    owners = [owner_reference(item)]
    persistent = {
        "metadata": {"name": f"{namespace}-{name}", "ownerReferences": owners},
        "spec": {"capacity": {"storage": "1200Gi"}, "accessModes": ["ReadOnlyMany"], "csi": csi},
    }
    claim = {
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
        "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": "", "volumeName": f"{namespace}-{name}",
            "resources": {"requests": {"storage": "1200Gi"}},
        },
    }  # fmt: skip
    return persistent, claim


def deployment(item: Object) -> Object:
    """The Deployment that serves the model; its name, label and container are the endpoint's name."""
    meta, spec, worker = item["metadata"], item["spec"], item["spec"]["worker"]
    port = worker["modelInvocationPort"]
    mount = worker["modelVolumeMount"]
    health = (spec.get("loadBalancer") or {}).get("healthCheckPath", "/ping")
    probes = worker.get("probes") or {}
    container: dict[str, Any] = {
        "name": meta["name"],
        "image": worker["image"],
        "ports": [{"containerPort": port["containerPort"], "name": port.get("name", "http")}],
        "resources": worker.get("resources") or {},
        "env": worker.get("environmentVariables") or [],
        "volumeMounts": [{"name": mount["name"], "mountPath": mount.get("mountPath", "/opt/ml/model")}],
        "readinessProbe": probes.get("readinessProbe")
        or {"httpGet": {"path": health, "port": port["containerPort"]}, "periodSeconds": 1},
    }
    for name in ("args", "command", "workingDir"):
        if worker.get(name):
            container[name] = worker[name]
    labels = {"app": meta["name"]}
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": [{"name": mount["name"], "persistentVolumeClaim": {"claimName": f"{meta['name']}-model"}}],
    }
    instance = spec.get("instanceType") or next(iter(spec.get("instanceTypes") or ()), None)
    if instance:
        pod["nodeSelector"] = {"node.kubernetes.io/instance-type": instance}
    return {
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "labels": labels,
            "ownerReferences": [owner_reference(item)],
        },
        "spec": {
            "replicas": spec.get("replicas", 1),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }  # fmt: skip


def service(item: Object) -> Object:
    """The routing Service: port 443, plain HTTP."""
    meta = item["metadata"]
    port = item["spec"]["worker"]["modelInvocationPort"]["containerPort"]
    return {
        "metadata": {
            "name": f"{meta['name']}-routing-service", "namespace": meta["namespace"],
            "ownerReferences": [owner_reference(item)],
        },
        "spec": {
            "type": "ClusterIP", "selector": {"app": meta["name"]},
            "ports": [{"name": "http", "port": 443, "targetPort": port, "protocol": "TCP"}],
        },
    }  # fmt: skip


def ingress(item: Object) -> Object:
    """The Ingress; with intelligent routing it lives in the operator's namespace."""
    meta = item["metadata"]
    routed = bool((item["spec"].get("intelligentRoutingSpec") or {}).get("enabled"))
    name = f"alb-{meta['name']}-{meta['namespace']}" if routed else f"alb-{meta['name']}"
    backend = {"service": {"name": f"{meta['name']}-routing-service", "port": {"number": 443}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    return {
        "metadata": {
            "name": name, "namespace": "hyperpod-inference-system" if routed else meta["namespace"],
            "ownerReferences": [owner_reference(item)],
        },
        "spec": {"ingressClassName": "alb", "rules": [{"http": {"paths": [path]}}]},
    }  # fmt: skip


def host_name(item: Object) -> str:
    """Host name of the load balancer."""
    return f"internal-{item['metadata']['name']}.us-west-2.elb.amazonaws.com"


def registration(item: Object, name: str) -> Object:
    """The SageMakerEndpointRegistration."""
    meta = item["metadata"]
    return {
        "metadata": {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner_reference(item)]},
        "spec": {
            "name": name,
            "imageUri": item["spec"]["worker"]["image"],
            "instanceType": item["spec"].get("instanceType") or "ml.local.cpu",
            "loadBalancerHostName": host_name(item),
            "restApiId": "local",
            "executionRole": "arn:aws:iam::123456789012:role/SageMakerHyperPodInference-local",
            "invocationEndpoint": item["spec"].get("invocationEndpoint", "invocations"),
            "eksClusterDetails": {
                "arn": "arn:aws:eks:us-west-2:123456789012:cluster/local", "name": "local", "vpcId": "vpc-0local",
                "clusterSecurityGroupId": "sg-0local", "securityGroupIds": ["sg-0local"],
                "subnetIds": ["subnet-0local"],
            },
            "tlsConfig": {
                "tlsCertificateOutputS3Bucket": "hyperpod-tls-local", "tlsCertificateS3Keys": ["certs/ca.pem"],
            },
        },
    }  # fmt: skip
