"""Who may do what: tokens, roles, bindings, reviews."""

from __future__ import annotations

import pytest
import requests

from tests.include.local.kube.api import CONFIGS, CORE, MERGE, Api, config_map

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def may(api: Api, token: str, verb: str, resource: str, *, group: str = "", namespace: str = "default", **more: str):
    attributes = {"verb": verb, "resource": resource, "group": group, "namespace": namespace, **more}
    body = {"spec": {"resourceAttributes": attributes}}
    return api.ok("POST", REVIEWS, body, token=token)["status"]["allowed"]


def bind(api: Api, name: str, rules: list, subject: dict, namespace: str = "default") -> None:
    base = f"{RBAC}/namespaces/{namespace}"
    api.ok("POST", f"{base}/roles", {"metadata": {"name": name}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    api.ok("POST", f"{base}/rolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})


def test_no_or_a_wrong_token_is_401(api: Api) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic YTpi"}):
        answer = requests.get(api.url + CORE + "/pods", headers=headers, verify=str(api.state / "ca.crt"), timeout=5)
        assert (answer.status_code, answer.json()["reason"]) == (401, "Unauthorized")
    assert requests.get(api.url + "/readyz", verify=str(api.state / "ca.crt"), timeout=5).text == "ok"


def test_a_role_grants_exactly_its_rules(api: Api) -> None:
    token = api.user("runner", "team")
    refused = api.send("GET", f"{CORE}/configmaps", token=token)
    assert refused.status_code == 403
    assert refused.json()["message"] == (
        'configmaps is forbidden: User "runner" cannot list resource "configmaps" in API group "" '
        'in the namespace "default"'
    )
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["hf-token"]},
    ]
    bind(api, "runner", rules, {"kind": "User", "name": "runner"})
    api.ok("POST", f"{CORE}/configmaps", config_map("granted"), token=token)
    assert api.send("DELETE", f"{CORE}/configmaps/granted", token=token).status_code == 403
    assert api.send("GET", f"{CORE}/configmaps", token=token, watch="true", timeoutSeconds=1).status_code == 403
    assert api.send("GET", "/api/v1/namespaces/kube-system/configmaps", token=token).status_code == 403
    answers = [
        may(api, token, "create", "configmaps"),
        may(api, token, "delete", "configmaps"),
        may(api, token, "get", "pods"),
        may(api, token, "get", "pods", subresource="log"),
        may(api, token, "get", "secrets"),
        may(api, token, "get", "secrets", name="hf-token"),
        may(api, token, "create", "configmaps", namespace="kube-system"),
    ]
    assert answers == [True, False, False, True, False, True, False]


def test_group_and_cluster_roles(api: Api) -> None:
    token = api.user("reader", "auditors")
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    api.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "audit"}, "rules": rules})
    binding = {
        "metadata": {"name": "audit"},
        "roleRef": {"kind": "ClusterRole", "name": "audit"},
        "subjects": [{"kind": "Group", "name": "auditors"}],
    }
    api.ok("POST", f"{RBAC}/clusterrolebindings", binding)
    assert api.send("GET", CONFIGS, token=token).status_code == 200
    assert may(api, token, "list", "nodes", namespace="")
    assert not may(api, token, "create", "inferenceendpointconfigs", group="inference.sagemaker.aws.amazon.com")
    change = {"roleRef": {"kind": "ClusterRole", "name": "cluster-admin"}}
    path = f"{RBAC}/clusterrolebindings/audit"
    assert api.send("PATCH", path, change, kind=MERGE).status_code == 422


def test_status_is_a_right_of_its_own(api: Api) -> None:
    token = api.user("editor")
    rules = [{"apiGroups": ["inference.sagemaker.aws.amazon.com"], "resources": ["*"], "verbs": ["get"]}]
    rules += [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}]
    bind(api, "editor", rules, {"kind": "User", "name": "editor"})
    path = "/apis/apps/v1/namespaces/default/deployments/none"
    assert api.send("PATCH", path, {}, kind=MERGE, token=token).status_code == 404
    assert api.send("PATCH", f"{path}/status", {}, kind=MERGE, token=token).status_code == 403


def test_only_administrators_use_the_test_knobs(api: Api) -> None:
    token = api.user("nosy")
    for method, knob in (("PUT", "faults"), ("POST", "compact"), ("POST", "users"), ("GET", "state")):
        assert api.send(method, f"/_local/{knob}", [], token=token).status_code == 403
    assert api.send("GET", "/_local/nothing").status_code == 404


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_plain_http_trusts_local_tools_and_no_web_page(own_api, headers: dict[str, str]) -> None:
    api = own_api(tls=False)
    assert requests.get(api.url + CORE + "/pods", timeout=5).status_code == 200
    assert requests.get(api.url + CORE + "/pods", headers=headers, timeout=5).status_code == 401
    wrong = {"Authorization": "Bearer nonsense"}
    assert requests.get(api.url + CORE + "/pods", headers=wrong, timeout=5).status_code == 401
