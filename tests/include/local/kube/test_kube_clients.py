"""The clients that people really use: kubectl, the Python client, the asyncio client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_asyncio
import pytest
import yaml

from tests.include.local.kube.api import CONFIGS, CORE, MERGE, Api, config_map, deployment, endpoint, pod

KUBECTL = Path(sys.executable).with_name("kubectl")
GROUP, VERSION, PLURAL = "inference.sagemaker.aws.amazon.com", "v1", "inferenceendpointconfigs"


def kubectl(api: Api, *arguments: str, body: Any = None, fails: bool = False) -> str:
    environment = {**os.environ, "KUBECONFIG": str(api.state / "kubeconfig"), "HOME": str(api.state)}
    text = None if body is None else json.dumps(body)
    done = subprocess.run(
        [str(KUBECTL), *arguments], env=environment, input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode != 0) == fails, done.stderr + done.stdout
    return done.stderr if fails else done.stdout


def test_kubectl_apply_get_diff_and_delete(api: Api) -> None:
    body = endpoint("cli")
    assert "created" in kubectl(api, "apply", "-f", "-", body=body)
    assert "unchanged" in kubectl(api, "apply", "-f", "-", body=body)
    body["spec"]["replicas"] = 2
    diff = subprocess.run(
        [str(KUBECTL), "diff", "-f", "-"], input=json.dumps(body), capture_output=True, text=True, timeout=60,
        env={**os.environ, "KUBECONFIG": str(api.state / "kubeconfig"), "HOME": str(api.state)},
    )  # fmt: skip
    assert diff.returncode == 1
    assert "+  replicas: 2" in diff.stdout
    assert "configured" in kubectl(api, "apply", "-f", "-", body=body)
    applied = kubectl(api, "apply", "--server-side", "--force-conflicts", "-f", "-", body=body)
    assert "serverside-applied" in applied
    assert kubectl(api, "get", PLURAL, "cli", "-o", "jsonpath={.spec.replicas}") == "2"
    assert "cli" in kubectl(api, "get", PLURAL)
    assert "deleted" in kubectl(api, "delete", PLURAL, "cli", "--wait=true", "--timeout=20s")


def test_kubectl_reports_a_misspelt_field(api: Api) -> None:
    error = kubectl(api, "apply", "-f", "-", body=endpoint("typo", replcas=2), fails=True)
    assert 'strict decoding error: unknown field "spec.replcas"' in error


def test_kubectl_explain_describe_scale_patch_label_wait(api: Api) -> None:
    api.ok("POST", CONFIGS, endpoint("tool"))
    assert "modelSourceType" in kubectl(api, "explain", f"{PLURAL}.spec.modelSourceConfig")
    kubectl(api, "scale", PLURAL, "tool", "--replicas=3")
    kubectl(api, "label", PLURAL, "tool", "team=a")
    kubectl(api, "annotate", PLURAL, "tool", "note=b")
    kubectl(api, "patch", PLURAL, "tool", "--type=merge", "-p", '{"spec":{"modelVersion":"2"}}')
    status = '{"status":{"state":"DeploymentComplete"}}'
    kubectl(api, "patch", PLURAL, "tool", "--subresource=status", "--type=merge", "-p", status)
    kubectl(api, "wait", PLURAL, "tool", "--for=jsonpath={.status.state}=DeploymentComplete", "--timeout=20s")
    stored = api.get(f"{CONFIGS}/tool")
    assert (stored["spec"]["replicas"], stored["spec"]["modelVersion"]) == (3, "2")
    assert stored["metadata"]["labels"] == {"team": "a"}
    assert "Replicas:" in kubectl(api, "describe", PLURAL, "tool")


def test_kubectl_on_built_in_kinds(api: Api) -> None:
    kubectl(api, "apply", "-f", "-", body=deployment("web"))
    kubectl(api, "set", "image", "deployment/web", "main=example/server:9")
    container = api.get("/apis/apps/v1/namespaces/default/deployments/web")["spec"]["template"]["spec"]["containers"]
    assert container[0]["image"] == "example/server:9"
    api.ok("POST", f"{CORE}/pods", pod("shown"))
    table = kubectl(api, "get", "pods", "shown")
    assert table.split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert "Pending" in table
    assert "deployments" in kubectl(api, "api-resources", "--api-group=apps")
    kubectl(api, "get", "all,events,leases,nodes,crd", "-A")


def _configuration(api: Api) -> Any:
    return kubernetes.config.new_client_from_config(str(api.state / "kubeconfig"))


def test_python_client_typed_round_trip(api: Api) -> None:
    with _configuration(api) as client:
        core, apps = kubernetes.client.CoreV1Api(client), kubernetes.client.AppsV1Api(client)
        made = core.create_namespaced_config_map("default", config_map("typed-client"))
        assert made.metadata.uid
        assert core.delete_namespaced_config_map("typed-client", "default").status == "Success"
        created = apps.create_namespaced_deployment("default", deployment("typed-client"))
        assert created.status.ready_replicas is None
        assert apps.delete_namespaced_deployment("typed-client", "default").status == "Success"
        core.create_namespaced_service("default", {"metadata": {"name": "tc"}, "spec": {"ports": [{"port": 1}]}})
        assert core.delete_namespaced_service("tc", "default").metadata.name == "tc"
        core.create_namespaced_pod("default", pod("typed-client"))
        assert core.delete_namespaced_pod("typed-client", "default").metadata.name == "typed-client"


def test_python_client_refusals_and_watch(api: Api) -> None:
    with _configuration(api) as client:
        custom = kubernetes.client.CustomObjectsApi(client)
        where = (GROUP, VERSION, "default", PLURAL)
        with pytest.raises(kubernetes.client.ApiException) as refused:
            custom.create_namespaced_custom_object(*where, endpoint("py", replcas=1), field_validation="Strict")
        assert refused.value.status == 400
        custom.create_namespaced_custom_object(*where, endpoint("py"), dry_run="All")
        version = custom.create_namespaced_custom_object(*where, endpoint("py"))["metadata"]["resourceVersion"]
        custom.delete_namespaced_custom_object(*where, "py")
        stream = kubernetes.watch.Watch().stream(
            custom.list_namespaced_custom_object, *where, resource_version=version, timeout_seconds=20
        )
        assert next(stream)["type"] == "DELETED"
        expired = kubernetes.watch.Watch().stream(
            custom.list_namespaced_custom_object, *where, resource_version="999999999", timeout_seconds=5
        )
        with pytest.raises(kubernetes.client.ApiException) as gone:
            next(expired)
        assert gone.value.status == 410
        review = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pods"}}}
        answer = kubernetes.client.AuthorizationV1Api(client).create_self_subject_access_review(review)
        assert answer.status.allowed


async def test_asyncio_client_watch_and_lease(api: Api) -> None:
    client = await kubernetes_asyncio.config.new_client_from_config(str(api.state / "kubeconfig"))
    async with client:
        custom = kubernetes_asyncio.client.CustomObjectsApi(client)
        where = (GROUP, VERSION, "default", PLURAL)
        listed = await custom.list_namespaced_custom_object(*where)
        await custom.create_namespaced_custom_object(*where, endpoint("aio"))

        async def first() -> str:
            watch = kubernetes_asyncio.watch.Watch()
            version = listed["metadata"]["resourceVersion"]
            stream = watch.stream(custom.list_namespaced_custom_object, *where, resource_version=version)
            async for event in stream:
                return f"{event['type']} {event['object']['metadata']['name']}"
            return "nothing"

        assert await asyncio.wait_for(first(), 20) == "ADDED aio"
        leases = kubernetes_asyncio.client.CoordinationV1Api(client)
        spec = {"holderIdentity": "a", "leaseDurationSeconds": 15}
        lease = await leases.create_namespaced_lease("default", {"metadata": {"name": "aio"}, "spec": spec})
        lease.spec.holder_identity = "b"
        renewed = await leases.replace_namespaced_lease("aio", "default", lease)
        with pytest.raises(kubernetes_asyncio.client.ApiException) as stale:
            await leases.replace_namespaced_lease("aio", "default", lease)
        assert (renewed.spec.holder_identity, stale.value.status) == ("b", 409)


def test_kubeconfig_is_complete(api: Api) -> None:
    config = yaml.safe_load((api.state / "kubeconfig").read_text())
    assert config["clusters"][0]["cluster"]["server"] == api.url
    assert config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert config["current-context"] == config["contexts"][0]["name"]


def test_every_listed_resource_can_be_listed(api: Api) -> None:
    paths = ["/api/v1"]
    for group in api.get("/apis")["groups"]:
        paths += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
    count = 0
    for path in paths:
        for resource in api.get(path)["resources"]:
            if "list" in resource["verbs"]:
                assert api.get(f"{path}/{resource['name']}")["kind"].endswith("List")
                count += 1
    assert count >= 30
    assert api.send("GET", "/apis/absent.example.com/v1").status_code == 404
    assert api.send("PATCH", CONFIGS, {}, kind=MERGE).status_code == 405
