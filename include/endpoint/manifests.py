"""Least-privilege manifests from what the code says that it needs; ``python -m include.endpoint.manifests``."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from include.endpoint import names
from include.endpoint.access import REQUIRED, Access
from include.objects import PROJECT_ROOT

NAMESPACE = "hyperpod-ns-ml"
GROUP = "hyperpod-inference-pipelines"
RBAC_FILE = PROJECT_ROOT / "deploy" / "kubernetes" / "rbac.yaml"
IAM_FILE = PROJECT_ROOT / "deploy" / "iam" / "pipeline-policy.json"

# Calls to SageMaker, load balancers, certificates and registries that the endpoint stages make.
SAGEMAKER_OWN = (
    "DescribeEndpoint", "DescribeEndpointConfig", "DescribeModel", "DeleteEndpoint", "DeleteEndpointConfig",
    "DeleteModel", "ListTags", "InvokeEndpoint", "InvokeEndpointWithResponseStream",
)  # fmt: skip
SAGEMAKER_LISTS = ("ListEndpoints", "ListEndpointConfigs", "ListModels")
READ_ONLY = (
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "acm:DescribeCertificate",
    "ecr:DescribeImages",
)
# For clusters that are reached by `eks_cluster`, and for weights that are brought to FSx by import.
REACH = ("eks:DescribeCluster",)
DELIVER = (
    "fsx:DescribeFileSystems", "fsx:CreateDataRepositoryAssociation", "fsx:DescribeDataRepositoryAssociations",
    "fsx:CreateDataRepositoryTask", "fsx:DescribeDataRepositoryTasks", "cloudwatch:GetMetricStatistics",
)  # fmt: skip
DELETES = ("DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel")


def rbac() -> list[dict[str, Any]]:
    """Return Roles, ClusterRole and their bindings to the group of the pipeline's identity."""
    places = {
        "own": ("Role", NAMESPACE, GROUP),
        "operator": ("Role", names.OPERATOR_NAMESPACE, f"{GROUP}-reader"),
        "cluster": ("ClusterRole", "", GROUP),
    }
    manifests = []
    for where, (kind, namespace, name) in places.items():
        rules = [_rule(access) for access in REQUIRED if access.where == where]
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        api = "rbac.authorization.k8s.io/v1"
        manifests.append({"apiVersion": api, "kind": kind, "metadata": metadata, "rules": rules})
        manifests.append(
            {
                "apiVersion": api,
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP}],
            }
        )
    return manifests


def _rule(access: Access) -> dict[str, Any]:
    tail = f"/{access.subresource}" if access.subresource else ""
    return {
        "apiGroups": [access.resource.group],
        "resources": [access.resource.plural + tail],
        "verbs": list(access.verbs),
    }


def iam() -> dict[str, Any]:
    """Return the IAM policy: deletion only of what the operator made, data only in the named buckets."""
    own = [f"arn:aws:sagemaker:REGION:ACCOUNT:{kind}/*" for kind in ("endpoint", "endpoint-config", "model")]
    tag = {"StringEquals": {f"aws:ResourceTag/{names.OPERATOR_TAG[0]}": names.OPERATOR_TAG[1]}}
    reads = [f"sagemaker:{name}" for name in SAGEMAKER_OWN if name not in DELETES]
    statements: list[dict[str, Any]] = [
        {"Sid": "LookAtEndpoints", "Effect": "Allow", "Action": reads, "Resource": own},
        {
            "Sid": "DeleteWhatTheOperatorLeft",
            "Effect": "Allow",
            "Action": [f"sagemaker:{name}" for name in DELETES],
            "Resource": own,
            "Condition": tag,
        },
        {
            "Sid": "FindWhatIsLeft",
            "Effect": "Allow",
            "Action": [f"sagemaker:{name}" for name in SAGEMAKER_LISTS],
            "Resource": "*",
        },
        {"Sid": "LookAtNetworkAndImages", "Effect": "Allow", "Action": list(READ_ONLY), "Resource": "*"},
        {"Sid": "ReachTheCluster", "Effect": "Allow", "Action": list(REACH), "Resource": "*"},
        {"Sid": "BringWeightsToFsx", "Effect": "Allow", "Action": list(DELIVER), "Resource": "*"},
        {
            "Sid": "Buckets",
            "Effect": "Allow",
            "Action": ["s3:ListBucket", "s3:ListBucketMultipartUploads"],
            "Resource": [f"arn:aws:s3:::{name}" for name in ("MODELS_BUCKET", "RESULTS_BUCKET", "TLS_BUCKET")],
        },
        {
            "Sid": "ModelsAndResults",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": ["arn:aws:s3:::MODELS_BUCKET/*", "arn:aws:s3:::RESULTS_BUCKET/*"],
        },
        {
            "Sid": "Certificates",
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": ["arn:aws:s3:::TLS_BUCKET/*"],
        },
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def iam_actions() -> dict[str, set[str]]:
    """Return the allowed actions by service."""
    found: dict[str, set[str]] = defaultdict(set)
    for statement in iam()["Statement"]:
        for action in statement["Action"]:
            service, _, name = action.partition(":")
            found[service].add(name)
    return found


def texts() -> dict[Path, str]:
    """Return the content of each shipped file."""
    header = (
        "# What the pipeline's Kubernetes identity may do. Generated by python -m include.endpoint.manifests.\n"
        f"# Put your namespace in place of {NAMESPACE} and map the identity to the group {GROUP}.\n"
    )
    return {
        RBAC_FILE: header + yaml.safe_dump_all(rbac(), sort_keys=False, width=110),
        IAM_FILE: json.dumps(iam(), indent=2) + "\n",
    }


def main() -> int:
    """Write the files below ``deploy/``."""
    for path, text in texts().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
