"""The shipped rights are exactly those that the code uses: the calls are read from its source."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
import yaml

from include.endpoint import manifests, resources
from include.endpoint.access import REQUIRED
from include.endpoint.resources import ENDPOINT_KINDS, Resource

PACKAGE = Path(manifests.__file__).parent
VERBS = {"get": "get", "list": "list", "create": "create", "replace": "update", "patch": "patch", "delete": "delete"}
SERVICES = {
    "sagemaker": "sagemaker",
    "runtime": "sagemaker",
    "elbv2": "elasticloadbalancing",
    "acm": "acm",
    "ecr": "ecr",
    "s3": "s3",
}
S3_ACTIONS = {"GetObject": "GetObject", "HeadBucket": "ListBucket"}


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def api_calls() -> dict[str, set[str]]:
    """Resource constant → verbs, from calls like ``clients.api.get(PODS, …)``."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees():
        if path.name == "kube.py":
            continue
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            owner, first = ast.unparse(node.func.value), node.args[0]
            if node.func.attr in VERBS and (owner.endswith(("api", "_api", "kube")) or owner == "Kube"):
                named = [n.id for n in ast.walk(first) if isinstance(n, ast.Name) and n.id.isupper()]
                for name in named or ["dynamic"]:
                    found[name].add(VERBS[node.func.attr])
    return found


def granted() -> dict[Resource, set[str]]:
    found: dict[Resource, set[str]] = defaultdict(set)
    for access in REQUIRED:
        if not access.subresource:
            found[access.resource] |= set(access.verbs)
    return found


def test_every_kubernetes_call_in_the_code_is_granted() -> None:
    calls = api_calls()
    assert "PODS" in calls
    missing = []
    for name, verbs in calls.items():
        targets = list(ENDPOINT_KINDS.values()) if name == "ENDPOINT_KINDS" else []
        known = getattr(resources, name, None)
        targets += [known] if isinstance(known, Resource) else []
        for target in targets:
            if target.kind == "SelfSubjectAccessReview":
                continue  # everybody may ask about himself
            missing += [f"{verb} {target.plural}" for verb in verbs - granted()[target]]
    assert missing == []


def test_nothing_is_granted_that_no_resource_of_the_code_needs() -> None:
    used = {name for _, tree in trees() for name in constants(tree)}
    used |= {"JOBS"} if verbs_elsewhere("job") else set()
    unused = [access.resource.kind for access in REQUIRED if constant_of(access.resource) not in used]
    assert unused == []
    for access in REQUIRED:
        assert "*" not in access.verbs
        if access.resource.kind in ("Secret", "ConfigMap"):
            assert access.verbs in (("get",), ("create", "delete")), "no listing: a name must be known"
        if access.where != "own":
            writes = {"create", "patch", "update", "delete"} & set(access.verbs)
            assert not writes or access.resource is resources.VOLUMES


def elsewhere(pattern: str) -> list[tuple[str, ...]]:
    """Matches in the code outside the endpoint's package; the local cluster is no part of what is deployed."""
    root = PACKAGE.parents[1]
    files = [*(root / "include").rglob("*.py"), *(root / "plugins").rglob("*.py")]
    text = "\n".join(path.read_text() for path in files if "local" not in path.parts)
    return re.findall(pattern, text)


def verbs_elsewhere(kind: str) -> set[str]:
    names = {"read": "get"}
    return {names.get(verb, verb) for verb, _ in elsewhere(rf"(\w+?)_namespaced_{kind}(_status)?\(")}


def test_jobs_that_deliver_weights_or_make_load_are_granted_exactly() -> None:
    assert granted()[resources.JOBS] == verbs_elsewhere("job")
    assert granted()[resources.SECRETS] == {"get"} | verbs_elsewhere("secret")
    assert verbs_elsewhere("pod") <= granted()[resources.PODS]


@pytest.mark.parametrize("service", ["eks", "fsx", "cloudwatch"])
def test_calls_of_hooks_and_staging_are_allowed_exactly(service: str) -> None:
    called = {name for name, _ in elsewhere(rf'client\("{service}"[^)]*\)\.(\w+)(\()')}
    assert {"".join(part.title() for part in name.split("_")) for name in called} == manifests.iam_actions()[service]


def constants(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id.isupper():
            yield node.id


def constant_of(resource: Resource) -> str:
    return next(name for name, value in vars(resources).items() if value is resource)


def aws_calls() -> Iterator[tuple[str, str]]:
    """Service and operation of every boto3 call in the package."""
    loader = botocore.session.get_session()
    operations: dict[str, tuple[str, str]] = {}
    for attribute, service in (
        ("sagemaker", "sagemaker"),
        ("runtime", "sagemaker-runtime"),
        ("elbv2", "elbv2"),
        ("acm", "acm"),
        ("ecr", "ecr"),
        ("s3", "s3"),
    ):
        for name in loader.get_service_model(service).operation_names:
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
            operations.setdefault(snake, (attribute, name))
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in operations:
                owner = ast.unparse(node.value)
                if owner.endswith((".sagemaker", ".runtime", ".elbv2", ".acm", ".ecr", ".s3")) or owner in (
                    "client",
                    "runtime",
                ):
                    yield operations[node.attr]
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in operations:
                yield operations[node.value]


def test_every_aws_call_in_the_code_is_allowed_and_no_other() -> None:
    allowed = manifests.iam_actions()
    called: dict[str, set[str]] = defaultdict(set)
    for attribute, name in aws_calls():
        called[SERVICES[attribute]].add(S3_ACTIONS.get(name, name) if attribute == "s3" else name)
    assert called["sagemaker"] == allowed["sagemaker"]
    assert called["elasticloadbalancing"] == allowed["elasticloadbalancing"]
    assert called["acm"] == allowed["acm"]
    assert called["ecr"] == allowed["ecr"]
    assert called["s3"] <= allowed["s3"]
    assert not any("*" in action for actions in allowed.values() for action in actions)


def test_deletion_needs_the_operator_s_tag() -> None:
    for statement in manifests.iam()["Statement"]:
        if any(action.startswith("sagemaker:Delete") for action in statement["Action"]):
            assert statement["Condition"]["StringEquals"] == {"aws:ResourceTag/CreatedBy": "HyperPodInference"}


def test_the_shipped_files_are_the_generated_ones() -> None:
    for path, text in manifests.texts().items():
        assert path.read_text() == text, f"run python -m include.endpoint.manifests: {path} is out of date"
    kinds = [item["kind"] for item in yaml.safe_load_all(manifests.RBAC_FILE.read_text())]
    assert kinds.count("RoleBinding") == 2
    assert kinds.count("ClusterRoleBinding") == 1
