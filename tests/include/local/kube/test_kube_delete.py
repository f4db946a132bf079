"""Deletion: answers per kind, preconditions, finalizers, owners, namespaces, grace."""

from __future__ import annotations

from typing import Any

import pytest

from tests.include.local.kube.api import (
    CONFIGS,
    CORE,
    MERGE,
    Api,
    config_map,
    deployment,
    endpoint,
    pod,
    wait_for,
)  # fmt: skip

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MAPS = f"{CORE}/configmaps"


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        (f"{CORE}/services", {"metadata": {"name": "d"}, "spec": {"ports": [{"port": 80}]}}, "Service"),
        (f"{CORE}/serviceaccounts", {"metadata": {"name": "d"}}, "ServiceAccount"),
        (f"{CORE}/pods", pod("d"), "Pod"),
        (MAPS, config_map("d"), "Status"),
        (DEPLOYMENTS, deployment("d"), "Status"),
        (CONFIGS, endpoint("d"), "Status"),
    ],
)
def test_delete_answers_with_the_object_or_a_status(api: Api, path: str, body: Any, kind: str) -> None:
    made = api.ok("POST", path, body)
    answer = api.ok("DELETE", f"{path}/d")
    assert answer["kind"] == kind
    if kind == "Status":
        assert answer["details"]["uid"] == made["metadata"]["uid"]
    assert not api.exists(f"{path}/d")
    assert api.send("DELETE", f"{path}/d").status_code == 404


def test_preconditions_protect_a_successor(api: Api) -> None:
    made = api.ok("POST", MAPS, config_map("guarded"))["metadata"]
    for wrong in ({"uid": "another"}, {"resourceVersion": "1"}):
        refused = api.send("DELETE", f"{MAPS}/guarded", {"preconditions": wrong})
        assert (refused.status_code, refused.json()["reason"]) == (409, "Conflict")
        assert "Precondition failed" in refused.json()["message"]
    right = {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}
    api.ok("DELETE", f"{MAPS}/guarded", {"preconditions": right})


def test_finalizer_holds_an_object(api: Api) -> None:
    body = endpoint("held")
    body["metadata"]["finalizers"] = ["example.com/cleanup"]
    api.ok("POST", CONFIGS, body)
    answer = api.ok("DELETE", f"{CONFIGS}/held")
    assert answer["kind"] == "InferenceEndpointConfig"
    held = api.get(f"{CONFIGS}/held")["metadata"]
    assert held["deletionTimestamp"]
    assert held["generation"] == 2
    again = api.ok("DELETE", f"{CONFIGS}/held")
    assert again["metadata"]["resourceVersion"] == held["resourceVersion"]
    more = {"metadata": {"finalizers": ["example.com/cleanup", "example.com/more"]}}
    assert api.send("PATCH", f"{CONFIGS}/held", more, kind=MERGE).status_code == 422
    undelete = api.ok("PATCH", f"{CONFIGS}/held", {"metadata": {"deletionTimestamp": None}}, kind=MERGE)
    assert undelete["metadata"]["deletionTimestamp"] == held["deletionTimestamp"]
    watch = api.watch(CONFIGS, resourceVersion=held["resourceVersion"])
    api.ok("PATCH", f"{CONFIGS}/held", {"metadata": {"finalizers": None}}, kind=MERGE)
    assert not api.exists(f"{CONFIGS}/held")
    watch.wait(("DELETED", "held"))


def _family(api: Api, name: str) -> None:
    owner = api.ok("POST", MAPS, config_map(name))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": owner["metadata"]["uid"],
                 "blockOwnerDeletion": True}  # fmt: skip
    child = api.ok("POST", MAPS, config_map(f"{name}-child", ownerReferences=[reference]))
    reference = {**reference, "name": f"{name}-child", "uid": child["metadata"]["uid"]}
    api.ok("POST", MAPS, config_map(f"{name}-grandchild", ownerReferences=[reference]))


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_dependents_go_with_their_owner(api: Api, policy: str) -> None:
    name = policy.lower()
    _family(api, name)
    api.ok("DELETE", f"{MAPS}/{name}", {"propagationPolicy": policy})
    for suffix in ("", "-child", "-grandchild"):
        api.gone(f"{MAPS}/{name}{suffix}")


def test_foreground_waits_for_dependents(api: Api) -> None:
    _family(api, "patient")
    api.ok("PATCH", f"{MAPS}/patient-child", {"metadata": {"finalizers": ["example.com/x"]}}, kind=MERGE)
    api.ok("DELETE", f"{MAPS}/patient", propagationPolicy="Foreground")
    wait_for("child asked", lambda: api.get(f"{MAPS}/patient-child")["metadata"].get("deletionTimestamp"))
    assert api.exists(f"{MAPS}/patient")
    api.ok("PATCH", f"{MAPS}/patient-child", {"metadata": {"finalizers": None}}, kind=MERGE)
    api.gone(f"{MAPS}/patient")
    api.gone(f"{MAPS}/patient-child")


def test_orphans_stay(api: Api) -> None:
    _family(api, "orphaned")
    api.ok("DELETE", f"{MAPS}/orphaned", {"propagationPolicy": "Orphan"})
    api.gone(f"{MAPS}/orphaned")
    assert "ownerReferences" not in api.get(f"{MAPS}/orphaned-child")["metadata"]
    assert api.exists(f"{MAPS}/orphaned-grandchild")


def test_an_owner_of_another_uid_does_not_count(api: Api) -> None:
    api.ok("POST", MAPS, config_map("parent"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "parent", "uid": "an-earlier-one"}
    api.ok("POST", MAPS, config_map("stray", ownerReferences=[reference]))
    api.gone(f"{MAPS}/stray")
    assert api.exists(f"{MAPS}/parent")


def test_namespace_takes_its_content_along(api: Api) -> None:
    api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "doomed"}})
    inside = "/api/v1/namespaces/doomed/configmaps"
    api.ok("POST", inside, config_map("free"))
    api.ok("POST", inside, config_map("held", finalizers=["example.com/x"]))
    answer = api.ok("DELETE", "/api/v1/namespaces/doomed")
    assert answer["status"]["phase"] == "Terminating"
    api.gone(f"{inside}/free")
    refused = api.send("POST", inside, config_map("late"))
    assert refused.status_code == 403
    assert "because it is being terminated" in refused.json()["message"]
    assert api.exists("/api/v1/namespaces/doomed")
    api.ok("PATCH", f"{inside}/held", {"metadata": {"finalizers": None}}, kind=MERGE)
    api.gone("/api/v1/namespaces/doomed")


def test_running_pod_waits_for_its_kubelet(api: Api) -> None:
    api.ok("POST", f"{CORE}/pods", pod("graceful", nodeName="n1"))
    first = api.ok("DELETE", f"{CORE}/pods/graceful")
    assert first["metadata"]["deletionGracePeriodSeconds"] == 30
    shorter = api.ok("DELETE", f"{CORE}/pods/graceful", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    api.ok("PATCH", f"{CORE}/pods/graceful/status", {"status": {"phase": "Running"}}, kind=MERGE)
    assert api.exists(f"{CORE}/pods/graceful")
    api.ok("DELETE", f"{CORE}/pods/graceful", {"gracePeriodSeconds": 0})
    assert not api.exists(f"{CORE}/pods/graceful")


def test_delete_collection_by_label(api: Api) -> None:
    for name, label in (("c1", "x"), ("c2", "x"), ("c3", "y")):
        api.ok("POST", MAPS, config_map(name, labels={"sweep": label}))
    api.ok("DELETE", MAPS, labelSelector="sweep=x")
    found = api.get(MAPS, labelSelector="sweep")["items"]
    assert [item["metadata"]["name"] for item in found] == ["c3"]


def test_job_pods_are_orphaned_unless_asked_otherwise(api: Api) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b:1"}]}}
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    job = api.ok("POST", jobs, {"metadata": {"name": "j"}, "spec": {"template": template}})
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": job["metadata"]["uid"]}
    body = pod("j-pod")
    body["metadata"]["ownerReferences"] = [reference]
    api.ok("POST", f"{CORE}/pods", body)
    api.ok("DELETE", f"{jobs}/j")
    api.gone(f"{jobs}/j")
    assert "ownerReferences" not in api.get(f"{CORE}/pods/j-pod")["metadata"]
    bad = {"metadata": {"name": "k"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}}
    assert api.send("POST", jobs, bad).status_code == 422
