"""Create, update, patch, apply: conflicts, isolation, no-ops, what only the server may set."""

from __future__ import annotations

from typing import Any

import pytest

from tests.include.local.kube.api import (
    APPLY,
    CONFIGS,
    CORE,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    Api,
    config_map,
    deployment,
    endpoint,
    pod,
)  # fmt: skip

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = f"{CORE}/configmaps"


def test_server_sets_identity_and_clients_cannot(api: Api) -> None:
    forged = {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9}
    body = endpoint("identity")
    body["metadata"] |= forged
    meta = api.ok("POST", CONFIGS, body)["metadata"]
    assert meta["uid"] != "mine"
    assert meta["creationTimestamp"] > "2020"
    assert meta["generation"] == 1
    renamed = api.send("PATCH", f"{CONFIGS}/identity", {"metadata": {"uid": "other"}}, kind=MERGE)
    assert renamed.status_code == 409 or renamed.json()["code"] == 422
    assert api.send("POST", CONFIGS, endpoint("identity")).json()["reason"] == "AlreadyExists"


def test_generate_name_and_missing_namespace(api: Api) -> None:
    body = config_map("")
    body["metadata"] = {"generateName": "job-"}
    names = {api.ok("POST", MAPS, body)["metadata"]["name"] for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("job-") for name in names)
    missing = api.send("POST", "/api/v1/namespaces/absent/configmaps", config_map("x"))
    assert (missing.status_code, missing.json()["message"]) == (404, 'namespaces "absent" not found')


def test_put_needs_the_latest_version(api: Api) -> None:
    first = api.ok("POST", MAPS, config_map("put"))
    second = api.ok("PUT", f"{MAPS}/put", {**first, "data": {"a": "2"}})
    assert int(second["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    stale = api.send("PUT", f"{MAPS}/put", {**first, "data": {"a": "3"}})
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    assert "the object has been modified" in stale.json()["message"]
    assert api.send("PUT", f"{MAPS}/none", {**first, "metadata": {"name": "none"}}).status_code == 404


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        (MERGE, {"data": {"a": "1"}}),
        (MERGE, {}),
        (JSON_PATCH, [{"op": "test", "path": "/data/a", "value": "1"}]),
        (STRATEGIC, {"data": {"a": "1"}}),
    ],
)
def test_a_patch_without_effect_is_no_event_and_no_version(api: Api, kind: str, patch: Any) -> None:
    name = f"noop-{abs(hash((kind, str(patch))))}"
    before = api.ok("POST", MAPS, config_map(name))
    watch = api.watch(
        MAPS, fieldSelector=f"metadata.name={name}", resourceVersion=before["metadata"]["resourceVersion"]
    )
    assert api.ok("PATCH", f"{MAPS}/{name}", patch, kind=kind)["metadata"] == before["metadata"]
    api.ok("DELETE", f"{MAPS}/{name}")
    watch.wait(("DELETED", name))


def test_dry_run_changes_nothing(api: Api) -> None:
    api.ok("POST", MAPS, config_map("dry"), dryRun="All")
    assert not api.exists(f"{MAPS}/dry")
    made = api.ok("POST", MAPS, config_map("dry"))
    api.ok("PATCH", f"{MAPS}/dry", {"data": {"a": "2"}}, kind=MERGE, dryRun="All")
    api.ok("DELETE", f"{MAPS}/dry", dryRun="All")
    assert api.get(f"{MAPS}/dry") == made
    assert api.send("POST", MAPS, config_map("dry2"), dryRun="Some").status_code == 400


def test_generation_counts_spec_changes_only(api: Api) -> None:
    path = f"{CONFIGS}/generation"
    api.ok("POST", CONFIGS, endpoint("generation"))
    labelled = api.ok("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, kind=MERGE)
    assert labelled["metadata"]["generation"] == 1
    changed = api.ok("PATCH", path, {"spec": {"replicas": 3}}, kind=MERGE)
    assert changed["metadata"]["generation"] == 2


def test_json_patch_failures(api: Api) -> None:
    api.ok("POST", MAPS, config_map("jsonpatch"))
    path = f"{MAPS}/jsonpatch"
    failed = [{"op": "test", "path": "/data/a", "value": "x"}, {"op": "remove", "path": "/data/a"}]
    assert api.send("PATCH", path, failed, kind=JSON_PATCH).status_code == 422
    assert api.send("PATCH", path, [{"op": "remove", "path": "/data/zz"}], kind=JSON_PATCH).status_code == 422
    assert api.send("PATCH", path, [{"op": "burn", "path": "/data"}], kind=JSON_PATCH).status_code == 400
    assert api.send("PATCH", path, {"op": "remove"}, kind=JSON_PATCH).status_code == 400
    assert api.get(path)["data"] == {"a": "1"}


def test_strategic_patch_merges_lists_by_name_and_not_for_custom_kinds(api: Api) -> None:
    api.ok("POST", DEPLOYMENTS, deployment("strategic"))
    containers = [{"name": "main", "image": "example/server:2"}, {"name": "side", "image": "example/side:1"}]
    patch = {"spec": {"template": {"spec": {"containers": containers}}}}
    changed = api.ok("PATCH", f"{DEPLOYMENTS}/strategic", patch, kind=STRATEGIC)
    found = {item["name"]: item for item in changed["spec"]["template"]["spec"]["containers"]}
    assert found["main"]["image"] == "example/server:2"
    assert found["main"]["ports"][0]["containerPort"] == 8000
    assert set(found) == {"main", "side"}
    patch["spec"]["template"]["spec"]["containers"] = [{"name": "side", "$patch": "delete"}]
    changed = api.ok("PATCH", f"{DEPLOYMENTS}/strategic", patch, kind=STRATEGIC)
    assert [item["name"] for item in changed["spec"]["template"]["spec"]["containers"]] == ["main"]
    api.ok("POST", CONFIGS, endpoint("strategic"))
    assert api.send("PATCH", f"{CONFIGS}/strategic", {}, kind=STRATEGIC).status_code == 415


def test_apply_owns_removes_and_conflicts(api: Api) -> None:
    path = f"{MAPS}/applied"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}}
    assert api.send("PATCH", path, body, kind=APPLY).status_code == 400
    created = api.send("PATCH", path, {**body, "data": {"a": "1", "b": "1"}}, kind=APPLY, fieldManager="one")
    assert created.status_code == 201
    again = api.send("PATCH", path, {**body, "data": {"a": "1", "b": "1"}}, kind=APPLY, fieldManager="one")
    assert (again.status_code, again.json()["metadata"]) == (200, created.json()["metadata"])
    clash = api.send("PATCH", path, {**body, "data": {"a": "2"}}, kind=APPLY, fieldManager="two")
    assert clash.status_code == 409
    assert clash.json()["details"]["causes"][0]["field"] == ".data.a"
    shared = api.ok("PATCH", path, {**body, "data": {"a": "1"}}, kind=APPLY, fieldManager="two")
    assert shared["data"] == {"a": "1", "b": "1"}
    fewer = api.ok("PATCH", path, {**body, "data": {}}, kind=APPLY, fieldManager="one")
    assert fewer["data"] == {"a": "1"}, "b was only ours, a is still applied by two"
    forced = {**body, "data": {"a": "9"}}
    assert api.ok("PATCH", path, forced, kind=APPLY, fieldManager="one", force="true")["data"] == {"a": "9"}
    managers = {entry["manager"]: entry for entry in api.get(path)["metadata"]["managedFields"]}
    assert "f:a" in managers["one"]["fieldsV1"]["f:data"]
    assert "two" not in managers or "f:a" not in managers["two"]["fieldsV1"].get("f:data", {})


def test_an_update_takes_fields_from_an_apply(api: Api) -> None:
    path = f"{DEPLOYMENTS}/taken"
    body = deployment("taken")
    api.ok("PATCH", path, body, kind=APPLY, fieldManager="helm")
    api.ok("PATCH", path, {"spec": {"replicas": 5}}, kind=MERGE, fieldManager="autoscaler")
    clash = api.send("PATCH", path, body, kind=APPLY, fieldManager="helm")
    assert clash.status_code == 409
    assert ".spec.replicas" in clash.json()["message"]
    del body["spec"]["replicas"]
    assert api.ok("PATCH", path, body, kind=APPLY, fieldManager="helm")["spec"]["replicas"] == 5


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (DEPLOYMENTS, deployment("st"), {}),
        (f"{CORE}/pods", pod("st"), {"phase": "Pending", "qosClass": "BestEffort"}),
        (f"{CORE}/services", {"metadata": {"name": "st"}, "spec": {"ports": [{"port": 80}]}}, {"loadBalancer": {}}),
        (f"{CORE}/persistentvolumeclaims", {"metadata": {"name": "st"}, "spec": {}}, {"phase": "Pending"}),
        ("/api/v1/namespaces", {"metadata": {"name": "st"}}, {"phase": "Active"}),
    ],
)
def test_built_in_kinds_always_have_a_status(api: Api, path: str, body: Any, status: Any) -> None:
    assert (
        api.ok("POST", path, {**body, "status": {"phase": "Running"}} if "pods" in path else body)["status"] == status
    )


def test_built_in_kinds_are_typed(api: Api) -> None:
    wrong = deployment("typed")
    wrong["spec"]["replicas"] = "two"
    assert api.send("POST", DEPLOYMENTS, wrong).status_code == 400
    unknown = deployment("typed")
    unknown["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    answer = api.send("POST", DEPLOYMENTS, unknown, fieldValidation="Strict")
    assert 'unknown field "spec.template.spec.containers[0].imagee"' in answer.json()["message"]
    selector = deployment("typed")
    selector["spec"]["selector"]["matchLabels"] = {"app": "other"}
    assert api.send("POST", DEPLOYMENTS, selector).status_code == 422
    del selector["spec"]["selector"]
    assert api.send("POST", DEPLOYMENTS, selector).status_code == 422
    api.ok("POST", DEPLOYMENTS, deployment("typed"))
    change = {"spec": {"selector": {"matchLabels": {"app": "typed", "more": "x"}}}}
    assert api.send("PATCH", f"{DEPLOYMENTS}/typed", change, kind=MERGE).status_code == 422


def test_immutable_and_secret_data(api: Api) -> None:
    body = {"metadata": {"name": "sealed"}, "stringData": {"token": "abc"}, "immutable": True}
    made = api.ok("POST", f"{CORE}/secrets", body)
    assert (made["data"], made["type"]) == ({"token": "YWJj"}, "Opaque")
    assert "stringData" not in made
    change = {"data": {"token": "eA=="}}
    assert api.send("PATCH", f"{CORE}/secrets/sealed", change, kind=MERGE).status_code == 422
    bad = {"metadata": {"name": "bad"}, "data": {"token": "***"}}
    assert api.send("POST", f"{CORE}/secrets", bad).status_code == 422


@pytest.mark.parametrize(
    ("meta", "field"),
    [
        ({"name": "UPPER"}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"name": "ok", "labels": {"a b": "c"}}, "metadata.labels"),
        ({"name": "ok", "labels": {"a": "x" * 64}}, "metadata.labels"),
        ({"name": "ok", "annotations": {"big": "x" * 300_000}}, "metadata.annotations"),
        ({}, "metadata.name"),
    ],
)
def test_bad_metadata_is_refused(api: Api, meta: Any, field: str) -> None:
    answer = api.send("POST", MAPS, {"metadata": meta})
    assert answer.status_code == 422
    assert answer.json()["details"]["causes"][0]["field"] == field


def test_bodies_that_cannot_be_understood(api: Api) -> None:
    assert api.send("POST", MAPS, b"{").status_code == 400
    assert api.send("POST", MAPS, b"[]").status_code == 400
    protobuf = api.send("POST", MAPS, b"k8s\x00abc", kind="application/vnd.kubernetes.protobuf")
    assert (protobuf.status_code, protobuf.json()["reason"]) == (415, "UnsupportedMediaType")
    assert api.send("POST", MAPS, b"{}", kind="text/plain").status_code == 415
    assert api.send("PATCH", f"{MAPS}/x", b"{}", kind="application/json").status_code == 415
    assert api.send("POST", MAPS, b" " * (4 << 20)).status_code == 413
    yaml_body = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-yaml}\n"
    assert api.send("POST", MAPS, yaml_body, kind="application/yaml").status_code == 201
    only_protobuf = {"Accept": "application/vnd.kubernetes.protobuf"}
    assert api.send("GET", MAPS, headers=only_protobuf).status_code == 406


def test_lease_takes_optimistic_concurrency(api: Api) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
    made = api.ok("POST", leases, {"metadata": {"name": "one"}, "spec": spec})
    renewed = {**made, "spec": {**spec, "renewTime": "2026-01-01T00:00:05.000000Z"}}
    api.ok("PUT", f"{leases}/one", renewed)
    assert api.send("PUT", f"{leases}/one", {**renewed, "spec": {**spec, "holderIdentity": "b"}}).status_code == 409
    bad = {**spec, "renewTime": "yesterday"}
    assert api.send("POST", leases, {"metadata": {"name": "two"}, "spec": bad}).status_code in (400, 422)
