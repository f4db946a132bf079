"""What the local node agent offers: nodes, their capacity and labels, timings."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from include.catalog.specs import Spec

CONFIG_FILE = "nodes.json"
ACCELERATOR = "hyperpod.local/accelerator"
HEALTH_LABEL = "sagemaker.amazonaws.com/node-health-status"
DEEP_CHECK_LABEL = "sagemaker.amazonaws.com/deep-health-check-status"
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"


class NodeSpec(Spec):
    """One node; a process on it is not limited, ``allocatable`` is what the scheduler counts."""

    name: str = "hyperpod-i-local00000000001"
    instance_type: str = "ml.local.cpu"
    allocatable: dict[str, str] = Field(
        default_factory=lambda: {
            "cpu": "16",
            "memory": "64Gi",
            "ephemeral-storage": "100Gi",
            "pods": "20",
            ACCELERATOR: "2",
        }
    )
    labels: dict[str, str] = Field(default_factory=dict)

    def all_labels(self) -> dict[str, str]:
        """Labels that the node registers with."""
        return {
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": "local-1a",
            "sagemaker.amazonaws.com/compute-type": "hyperpod",
            INSTANCE_TYPE_LABEL: self.instance_type,
            HEALTH_LABEL: "Schedulable",
            DEEP_CHECK_LABEL: "Passed",
        } | self.labels


class NodeConfig(Spec):
    """The agent's settings.

    :param back_off_seconds: first delay of CrashLoopBackOff and ImagePullBackOff; a real kubelet's is 10.
    :param back_off_limit_seconds: longest delay; a real kubelet's is 300.
    """

    nodes: tuple[NodeSpec, ...] = Field((NodeSpec(),), min_length=1)
    back_off_seconds: float = Field(2.0, gt=0)
    back_off_limit_seconds: float = Field(60.0, gt=0)
    heartbeat_seconds: float = Field(5.0, gt=0)


def load_config(state: Path) -> NodeConfig:
    """Read ``<state>/nodes.json``; the default is one CPU node with two make-believe accelerators.

    :raises pydantic.ValidationError: for an unknown or wrong field.
    """
    path = state / CONFIG_FILE
    return NodeConfig.model_validate(json.loads(path.read_text())) if path.exists() else NodeConfig()
