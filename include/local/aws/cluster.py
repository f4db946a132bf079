"""The HyperPod cluster behind the local Kubernetes API, as SageMaker and EKS describe it.

There is one cluster, ``hyperpod-local`` on the EKS cluster ``local``. Its nodes are read from the Kubernetes API.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any

from include.local.aws import ACCOUNT
from include.local.aws.errors import AwsError
from include.local.aws.kube import Kube
from include.local.aws.pages import page

CLUSTER = "hyperpod-local"
EKS_CLUSTER = "local"
VERSION = "1.33"
ADDON = "amazon-sagemaker-hyperpod-inference"
ADDON_VERSION = "v3.2.0-eksbuild.1"
CREATED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
GROUP_LABEL = "sagemaker.amazonaws.com/instance-group-name"
DEFAULT_GROUP = "local"
Parameters = dict[str, Any]
Handler = Callable[[Parameters], Awaitable[dict[str, Any]]]


class Cluster:
    """``DescribeCluster`` and its kin of SageMaker, and those of EKS."""

    def __init__(self, kube: Kube, region: str) -> None:
        self._kube = kube
        self._arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:cluster/{CLUSTER}"
        self._eks_arn = f"arn:aws:eks:{region}:{ACCOUNT}:cluster/{EKS_CLUSTER}"

    def sagemaker(self) -> dict[str, Handler]:
        """SageMaker's handlers by API name."""
        return {
            "DescribeCluster": self._describe,
            "ListClusters": self._list,
            "ListClusterNodes": self._list_nodes,
            "DescribeClusterNode": self._describe_node,
        }

    def eks(self) -> dict[str, Handler]:
        """EKS's handlers by API name."""
        return {
            "DescribeCluster": self._describe_eks,
            "ListClusters": self._list_eks,
            "DescribeAddon": self._describe_addon,
            "ListAddons": self._list_addons,
        }

    async def _describe(self, parameters: Parameters) -> dict[str, Any]:
        self._check(parameters)
        groups: dict[str, list[dict[str, Any]]] = {}
        for node in await self._nodes():
            groups.setdefault(node["InstanceGroupName"], []).append(node)
        return {
            "ClusterArn": self._arn,
            "ClusterName": CLUSTER,
            "ClusterStatus": "InService",
            "CreationTime": CREATED,
            "NodeRecovery": "Automatic",
            "Orchestrator": {"Eks": {"ClusterArn": self._eks_arn}},
            "InstanceGroups": [
                {
                    "InstanceGroupName": name,
                    "InstanceType": nodes[0]["InstanceType"],
                    "CurrentCount": sum(node["InstanceStatus"]["Status"] == "Running" for node in nodes),
                    "TargetCount": len(nodes),
                    "Status": "InService",
                }
                for name, nodes in groups.items()
            ],
        }

    async def _list(self, parameters: Parameters) -> dict[str, Any]:
        row = {
            "ClusterArn": self._arn,
            "ClusterName": CLUSTER,
            "CreationTime": CREATED,
            "ClusterStatus": "InService",
        }
        return {"ClusterSummaries": [row] if parameters.get("NameContains", "") in CLUSTER else []}

    async def _list_nodes(self, parameters: Parameters) -> dict[str, Any]:
        self._check(parameters)
        wanted = parameters.get("InstanceGroupNameContains", "")
        nodes = [node for node in await self._nodes() if wanted in node["InstanceGroupName"]]
        found, token = page(nodes, parameters, default=10)
        return {"ClusterNodeSummaries": found} | ({"NextToken": token} if token else {})

    async def _describe_node(self, parameters: Parameters) -> dict[str, Any]:
        self._check(parameters)
        for node in await self._nodes():
            if node["InstanceId"] == parameters.get("NodeId"):
                return {"NodeDetails": node}
        raise AwsError("ResourceNotFound", f"Instance {parameters.get('NodeId')} is not in {self._arn}.")

    def _check(self, parameters: Parameters) -> None:
        if parameters.get("ClusterName") not in (CLUSTER, self._arn):
            raise AwsError("ResourceNotFound", f"Cluster {parameters.get('ClusterName')} not found.")

    async def _nodes(self) -> list[dict[str, Any]]:
        return [_node(item) for item in (await self._kube.get("api/v1/nodes"))["items"]]

    async def _describe_eks(self, parameters: Parameters) -> dict[str, Any]:
        self._check_eks(parameters)
        access = self._kube.access()
        authority = base64.b64encode((access.authority or "").encode()).decode()
        return {
            "cluster": {
                "name": EKS_CLUSTER,
                "arn": self._eks_arn,
                "status": "ACTIVE",
                "version": VERSION,
                "createdAt": CREATED,
                "endpoint": access.server,
                "certificateAuthority": {"data": authority},
                "resourcesVpcConfig": {"vpcId": "vpc-0local", "subnetIds": ["subnet-0local"]},
            }
        }

    async def _list_eks(self, _: Parameters) -> dict[str, Any]:
        return {"clusters": [EKS_CLUSTER]}

    async def _list_addons(self, parameters: Parameters) -> dict[str, Any]:
        self._check_eks(parameters)
        return {"addons": [ADDON]}

    async def _describe_addon(self, parameters: Parameters) -> dict[str, Any]:
        self._check_eks(parameters)
        if parameters.get("addonName") != ADDON:
            raise AwsError(
                "ResourceNotFoundException", f"No addon: {parameters.get('addonName')} found in cluster", 404
            )
        addon = {
            "addonName": ADDON, "clusterName": EKS_CLUSTER, "status": "ACTIVE", "addonVersion": ADDON_VERSION,
            "createdAt": CREATED, "modifiedAt": CREATED, "health": {"issues": []},
        }  # fmt: skip
        return {"addon": addon}

    def _check_eks(self, parameters: Parameters) -> None:
        # The path's own names: {name} is the cluster in every route.
        if parameters.get("name") != EKS_CLUSTER:
            raise AwsError("ResourceNotFoundException", f"No cluster found for name: {parameters.get('name')}.", 404)


def _node(item: dict[str, Any]) -> dict[str, Any]:
    labels = item["metadata"].get("labels") or {}
    conditions = (item.get("status") or {}).get("conditions") or ()
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    created = dt.datetime.fromisoformat(item["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
    return {
        "InstanceGroupName": labels.get(GROUP_LABEL, DEFAULT_GROUP),
        "InstanceId": item["metadata"]["name"].removeprefix("hyperpod-"),
        "InstanceType": labels.get(INSTANCE_TYPE_LABEL, "ml.local.cpu"),
        "LaunchTime": created.timestamp(),
        "InstanceStatus": {"Status": "Running" if ready else "Pending"},
    }
