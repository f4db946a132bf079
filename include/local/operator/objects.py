"""The objects that the operator makes for an endpoint. Pure."""

from __future__ import annotations

from typing import Any

from include.local.controller.resources import Object, owner_reference
from include.local.operator import pods
from include.local.operator.source import claim_of, volume_of

SYSTEM = "hyperpod-inference-system"
ROLE = "arn:aws:iam::123456789012:role/SageMakerHyperPodInference-local"
MANIFEST_DIGEST = "hyperpod-pipelines/manifest-digest"
ROUTER_IMAGE = "hyperpod.local/router:1"
ROUTER_PORT = 8000


def sagemaker_name(item: Object) -> str:
    """Name of the SageMaker endpoint; empty: none is made."""
    spec = item["spec"]
    if item["kind"] == "JumpStartModel":
        return str((spec.get("sageMakerEndpoint") or {}).get("name") or "")
    return str(spec.get("endpointName") or "")


def is_routed(item: Object) -> bool:
    """True with intelligent routing."""
    return bool((item["spec"].get("intelligentRoutingSpec") or {}).get("enabled"))


def replicas(item: Object) -> int:
    """Replicas asked for."""
    return int(item["spec"].get("replicas", 1))


def ingress_key(item: Object) -> tuple[str, str]:
    """Namespace and name of the Ingress; with intelligent routing it lives in the operator's namespace."""
    meta = item["metadata"]
    if is_routed(item):
        return SYSTEM, f"alb-{meta['name']}-{meta['namespace']}"
    return str(meta["namespace"]), f"alb-{meta['name']}"


def _meta(item: Object, name: str, namespace: str | None = None, **more: Any) -> Object:
    own = item["metadata"]["namespace"]
    return {
        "name": name,
        "namespace": namespace or own,
        "labels": {"app": name} | more.pop("labels", {}),
        # Owners work only inside a namespace; what lies elsewhere is deleted by name.
        "ownerReferences": [owner_reference(item)] if (namespace or own) == own else [],
    } | more


def volumes(item: Object) -> tuple[Object, Object] | None:
    """PersistentVolume and PersistentVolumeClaim of the model's source; ``None`` for a source that has none."""
    csi = volume_of(item, (item["metadata"].get("annotations") or {}).get(MANIFEST_DIGEST, ""))
    if csi is None:
        return None
    meta = item["metadata"]
    persistent = f"{meta['namespace']}-{meta['name']}-model"
    size = {"storage": "1200Gi"}
    return (
        {
            # No owner: a cluster-scoped object must not name a namespaced one; the deletion chain removes it.
            "metadata": {"name": persistent},
            "spec": {"capacity": size, "accessModes": ["ReadOnlyMany"], "csi": csi},
        },
        {
            "metadata": _meta(item, claim_of(meta["name"])),
            "spec": {
                "accessModes": ["ReadOnlyMany"],
                "storageClassName": "",
                "volumeName": persistent,
                "resources": {"requests": size},
            },
        },
    )


def deployments(item: Object) -> list[Object]:
    """The Deployments: one named like the endpoint, or a prefill and a decode one; and the router."""
    disaggregated = item["spec"].get("pdSpec")
    if not disaggregated:
        made = [_deployment(item, item["metadata"]["name"], replicas(item), pods.template(item))]
    else:
        made = []
        for role, part in (("prefill", "prefillSpec"), ("decode", "decodingSpec")):
            wanted = disaggregated[part]
            template = pods.template(item, role=role, part=wanted)
            count = int(wanted.get("replicas") or 1)
            made.append(_deployment(item, f"{role}-{item['metadata']['name']}", count, template))
    return made


def _deployment(item: Object, name: str, count: int, template: Object) -> Object:
    labels = dict(template["metadata"]["labels"])
    return {
        "metadata": _meta(item, name, labels=labels),
        "spec": {"replicas": count, "selector": {"matchLabels": labels}, "template": template},
    }


def router(item: Object) -> list[tuple[str, Object]]:
    """The router's Deployment and Service (``(kind, object)``), empty without intelligent routing."""
    if not is_routed(item):
        return []
    meta = item["metadata"]
    name = f"{meta['name']}-{meta['namespace']}-router"
    strategy = item["spec"]["intelligentRoutingSpec"].get("routingStrategy", "prefixaware")
    container = {
        "name": "router-container",
        "image": ROUTER_IMAGE,
        "args": ["--strategy", strategy, "--service", f"{meta['namespace']}/{meta['name']}-routing-service"],
        "ports": [{"containerPort": ROUTER_PORT, "name": "http"}],
        "readinessProbe": {"httpGet": {"path": "/router/ready", "port": ROUTER_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    port = {"name": "http", "port": 80, "targetPort": ROUTER_PORT, "protocol": "TCP"}
    return [
        (
            "Deployment",
            {
                "metadata": _meta(item, name, SYSTEM),
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
            },
        ),
        (
            "Service",
            {
                "metadata": _meta(item, f"{meta['name']}-{meta['namespace']}-routing-service", SYSTEM),
                "spec": {"type": "ClusterIP", "selector": labels, "ports": [port]},
            },
        ),
    ]


def service(item: Object) -> Object:
    """The routing Service: port 443, plain HTTP."""
    name = item["metadata"]["name"]
    port = {"name": "http", "port": 443, "targetPort": pods.port_of(item), "protocol": "TCP"}
    labels = {"app": name}
    return {
        "metadata": _meta(item, f"{name}-routing-service"),
        "spec": {"type": "ClusterIP", "selector": labels, "ports": [port]},
    }


def ingress(item: Object) -> Object:
    """The Ingress of the load balancer."""
    namespace, name = ingress_key(item)
    meta = item["metadata"]
    target = {"name": f"{meta['name']}-routing-service", "port": {"number": 443}}
    if is_routed(item):
        target = {"name": f"{meta['name']}-{meta['namespace']}-routing-service", "port": {"number": 80}}
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": target}}
    balancer = item["spec"].get("loadBalancer") or {}
    annotations = {
        "hyperpod-local/endpoint": f"{meta['namespace']}/{meta['name']}",
        "alb.ingress.kubernetes.io/scheme": "internal",
        "alb.ingress.kubernetes.io/listen-ports": '[{"HTTPS": 443}]',
        "alb.ingress.kubernetes.io/healthcheck-path": str(balancer.get("healthCheckPath", "/ping")),
        "alb.ingress.kubernetes.io/target-group-attributes": "load_balancing.algorithm.type="
        + str(balancer.get("routingAlgorithm", "least_outstanding_requests")),
    }
    tls = [{"secretName": f"{meta['name']}-tls"}]
    return {
        "metadata": _meta(item, name, namespace, annotations=annotations),
        "spec": {"ingressClassName": "alb", "tls": tls, "rules": [{"http": {"paths": [path]}}]},
    }


def scaled_object(item: Object) -> Object | None:
    """KEDA's ScaledObject, when autoscaling is asked for."""
    wanted = item["spec"].get("autoScalingSpec")
    if not wanted:
        return None
    name = f"{item['metadata']['name']}-scaled-object"
    triggers = []
    for field, kind in (("cloudWatchTrigger", "aws-cloudwatch"), ("prometheusTrigger", "prometheus")):
        for given in [wanted.get(field), *(wanted.get(f"{field}List") or [])]:
            if given:
                label = given.get("name") or f"{name}-{'cloudwatch' if 'cloud' in field else 'prometheus'}-trigger"
                triggers.append({"type": kind, "name": label, "metadata": {k: str(v) for k, v in given.items()}})
    stable = {
        "scaleUp": {"stabilizationWindowSeconds": wanted.get("scaleUpStabilizationTime", 0)},
        "scaleDown": {"stabilizationWindowSeconds": wanted.get("scaleDownStabilizationTime", 300)},
    }
    return {
        "metadata": _meta(item, name),
        "spec": {
            "scaleTargetRef": {"name": item["metadata"]["name"]},
            "minReplicaCount": wanted.get("minReplicaCount", 1),
            "maxReplicaCount": wanted.get("maxReplicaCount", 5),
            "pollingInterval": wanted.get("pollingInterval", 30),
            "cooldownPeriod": wanted.get("cooldownPeriod", 300),
            "initialCooldownPeriod": wanted.get("initialCooldownPeriod", 300),
            "advanced": {"horizontalPodAutoscalerConfig": {"name": f"keda-hpa-{name}", "behavior": stable}},
            "triggers": triggers,
        },
    }


def workload(item: Object) -> Object | None:
    """Kueue's Workload, when the custom resource names a queue."""
    queue = (item["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    if not queue:
        return None
    name = f"deployment-{item['metadata']['name']}"
    return {"metadata": _meta(item, name), "spec": {"queueName": queue, "podSets": [{"count": replicas(item)}]}}


def registration(item: Object, host: str, bucket: str, keys: list[str]) -> Object:
    """The SageMakerEndpointRegistration, named like the SageMaker endpoint.

    :param host: host name of the load balancer; ``bucket`` and ``keys``: where its CA lies.
    """
    name, spec = sagemaker_name(item), item["spec"]
    return {
        "metadata": _meta(item, name),
        "spec": {
            "name": name,
            "imageUri": pods.image_of(item),
            "instanceType": pods.instance_type_of(item),
            "loadBalancerHostName": host,
            "restApiId": "local",
            "executionRole": (spec.get("server") or {}).get("executionRole") or ROLE,
            "invocationEndpoint": spec.get("invocationEndpoint", "invocations"),
            "tags": [{"name": "CreatedBy", "value": "HyperPodInference"}, *(spec.get("tags") or [])],
            "eksClusterDetails": {
                "arn": "arn:aws:eks:us-west-2:123456789012:cluster/local",
                "name": "local",
                "vpcId": "vpc-0local",
                "clusterSecurityGroupId": "sg-0local",
                "securityGroupIds": ["sg-0local"],
                "subnetIds": ["subnet-0local"],
            },
            "tlsConfig": {"tlsCertificateOutputS3Bucket": bucket, "tlsCertificateS3Keys": keys},
        },
    }
