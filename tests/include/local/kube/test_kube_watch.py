"""Lists and watches: selectors, pages, replay, bookmarks, 410, transitions."""

from __future__ import annotations

import pytest

from tests.include.local.kube.api import CORE, MERGE, Api, config_map, pod, wait_for

MAPS = f"{CORE}/configmaps"


@pytest.fixture(scope="module", autouse=True)
def content(api: Api) -> None:
    api.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "listed"}})
    for index in range(5):
        labels = {"tier": "even" if index % 2 == 0 else "odd", "n": str(index)}
        api.ok("POST", "/api/v1/namespaces/listed/configmaps", config_map(f"m{index}", labels=labels))


LISTED = "/api/v1/namespaces/listed/configmaps"


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("tier=even", "m0 m2 m4"),
        ("tier==odd", "m1 m3"),
        ("tier!=even", "m1 m3"),
        ("n in (1,2),tier=even", "m2"),
        ("n notin (0,1,2,3)", "m4"),
        ("!n", ""),
        ("n", "m0 m1 m2 m3 m4"),
        ("n>2", "m3 m4"),
        ("n<1", "m0"),
    ],
)
def test_label_selectors(api: Api, selector: str, names: str) -> None:
    found = api.get(LISTED, labelSelector=selector)["items"]
    assert [item["metadata"]["name"] for item in found] == names.split()


def test_field_selectors(api: Api) -> None:
    assert len(api.get(LISTED, fieldSelector="metadata.name=m1")["items"]) == 1
    assert len(api.get(LISTED, fieldSelector="metadata.name!=m1")["items"]) == 4
    refused = api.send("GET", LISTED, fieldSelector="data.a=1")
    assert (refused.status_code, refused.json()["message"]) == (400, "field label not supported: data.a")
    assert api.send("GET", LISTED, labelSelector="a=(").status_code == 400


def test_pages_show_one_snapshot(api: Api) -> None:
    first = api.get(LISTED, limit=2)
    assert first["metadata"]["remainingItemCount"] == 3
    api.ok("POST", LISTED, config_map("m9"))
    api.ok("DELETE", f"{LISTED}/m3")
    names, page = [item["metadata"]["name"] for item in first["items"]], first
    while page["metadata"].get("continue"):
        page = api.get(LISTED, limit=2, **{"continue": page["metadata"]["continue"]})
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == ["m0", "m1", "m2", "m3", "m4"]
    api.ok("DELETE", f"{LISTED}/m9")
    api.ok("POST", LISTED, config_map("m3", labels={"tier": "odd", "n": "3"}))
    assert api.send("GET", LISTED, limit=2, **{"continue": "nonsense"}).status_code == 400


def test_list_kinds_and_versions(api: Api) -> None:
    listed = api.get(LISTED)
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    future = int(listed["metadata"]["resourceVersion"]) + 10_000
    assert api.send("GET", LISTED, resourceVersion=future).status_code == 504
    assert api.send("GET", LISTED, resourceVersion="abc").status_code == 400


def test_watch_replays_from_a_version(api: Api) -> None:
    version = api.get(MAPS)["metadata"]["resourceVersion"]
    api.ok("POST", MAPS, config_map("replay"))
    api.ok("PATCH", f"{MAPS}/replay", {"data": {"a": "2"}}, kind=MERGE)
    api.ok("DELETE", f"{MAPS}/replay")
    watch = api.watch(MAPS, resourceVersion=version)
    events = watch.wait(("ADDED", "replay"), ("MODIFIED", "replay"), ("DELETED", "replay"))
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)


def test_watch_with_a_selector_sees_objects_come_and_go(api: Api) -> None:
    version = api.get(MAPS)["metadata"]["resourceVersion"]
    watch = api.watch(MAPS, labelSelector="on=yes", resourceVersion=version)
    api.ok("POST", MAPS, config_map("toggle"))
    for value in ("yes", "no", "yes"):
        api.ok("PATCH", f"{MAPS}/toggle", {"metadata": {"labels": {"on": value}}}, kind=MERGE)
    api.ok("DELETE", f"{MAPS}/toggle")
    watch.wait(("ADDED", "toggle"), ("DELETED", "toggle"), ("ADDED", "toggle"), ("DELETED", "toggle"))


def test_initial_events_end_with_a_bookmark(api: Api) -> None:
    options = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    watch = api.watch(LISTED, **options)
    wait_for("the bookmark", lambda: any(event["type"] == "BOOKMARK" for event in watch.events))
    assert [event["type"] for event in watch.events] == ["ADDED"] * 5 + ["BOOKMARK"]
    meta = watch.events[-1]["object"]["metadata"]
    assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert api.send("GET", LISTED, watch="true", sendInitialEvents="true").status_code == 400


def test_watch_without_version_starts_with_what_exists(api: Api) -> None:
    watch = api.watch(LISTED, timeoutSeconds=1)
    assert watch.ended.wait(20)
    assert {kind for kind, _ in watch.seen()} == {"ADDED"}
    assert len(watch.events) == 5


def test_expired_and_future_versions_get_410(own_api) -> None:
    api = own_api()
    old = api.get(MAPS)["metadata"]["resourceVersion"]
    first = api.get("/api/v1/namespaces", limit=1)
    api.ok("POST", MAPS, config_map("later"))
    api.ok("POST", "/_local/compact")
    expired = api.watch(MAPS, resourceVersion=old)
    assert expired.status == 410
    wait_for("the answer", lambda: expired.events)
    assert expired.events[0]["reason"] == "Expired"
    gone = api.send("GET", "/api/v1/namespaces", limit=1, **{"continue": first["metadata"]["continue"]})
    assert gone.status_code == 410
    assert api.watch(MAPS, resourceVersion="99999999").status == 410
    current = api.get(MAPS)["metadata"]["resourceVersion"]
    assert api.watch(MAPS, resourceVersion=current, timeoutSeconds=1).status == 200


def test_history_is_bounded(own_api) -> None:
    api = own_api("--history", "5")
    version = api.ok("POST", MAPS, config_map("busy"))["metadata"]["resourceVersion"]
    for index in range(8):
        api.ok("PATCH", f"{MAPS}/busy", {"data": {"a": f"v{index}"}}, kind=MERGE)
    assert api.watch(MAPS, resourceVersion=version).status == 410


def test_many_watches_all_hear_of_a_change(own_api) -> None:
    api = own_api()
    version = api.get(MAPS)["metadata"]["resourceVersion"]
    watches = [api.watch(MAPS, resourceVersion=version) for _ in range(60)]
    api.ok("POST", MAPS, config_map("shout"))
    for watch in watches:
        watch.wait(("ADDED", "shout"))
    assert api.ok("POST", "/_local/cut-watches")["cut"] == 60
    for watch in watches:
        assert watch.ended.wait(20)


def test_pods_by_phase_and_node(api: Api) -> None:
    api.ok("POST", f"{CORE}/pods", pod("phased", nodeName="n1"))
    api.ok("PATCH", f"{CORE}/pods/phased/status", {"status": {"phase": "Running"}}, kind=MERGE)
    for selector, count in (("status.phase=Running,spec.nodeName=n1", 1), ("status.phase=Failed,spec.nodeName=n1", 0)):
        assert len(api.get("/api/v1/pods", fieldSelector=selector)["items"]) == count
    api.ok("DELETE", f"{CORE}/pods/phased", gracePeriodSeconds=0)
