"""Nothing acknowledged is lost when the server is killed, and nothing goes backwards."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import requests

from tests.include.local.kube.api import CONFIGS, CORE, MERGE, config_map, endpoint

MAPS = f"{CORE}/configmaps"
ROUNDS = int(os.environ.get("KUBE_KILL_ROUNDS", "2"))


def test_a_kill_loses_no_acknowledged_write(own_api) -> None:
    api = own_api()
    acknowledged: dict[str, str] = {}
    versions = [0]
    for round_number in range(ROUNDS):
        killer = threading.Timer(0.3, api.kill)
        killer.start()
        try:
            for index in range(100_000):
                name = f"r{round_number}-{index}"
                meta = api.ok("POST", MAPS, config_map(name))["metadata"]
                acknowledged[name] = meta["uid"]
                versions.append(int(meta["resourceVersion"]))
        except (requests.RequestException, OSError):
            pass
        killer.join()
        api.start()
        stored = {item["metadata"]["name"]: item["metadata"]["uid"] for item in api.get(MAPS)["items"]}
        assert acknowledged.items() <= stored.items()
    assert len(acknowledged) > ROUNDS
    last = api.ok("POST", MAPS, config_map("last"))["metadata"]
    assert int(last["resourceVersion"]) > max(versions)
    assert versions == sorted(set(versions))


def test_a_watch_goes_on_after_a_kill(own_api) -> None:
    api = own_api()
    version = api.ok("POST", MAPS, config_map("before"))["metadata"]["resourceVersion"]
    api.ok("PATCH", f"{MAPS}/before", {"data": {"a": "2"}}, kind=MERGE)
    api.kill()
    api.start()
    api.ok("DELETE", f"{MAPS}/before")
    api.watch(MAPS, resourceVersion=version).wait(("MODIFIED", "before"), ("DELETED", "before"))


def test_expired_history_stays_expired_after_a_kill(own_api) -> None:
    api = own_api()
    version = api.get(MAPS)["metadata"]["resourceVersion"]
    api.ok("POST", MAPS, config_map("x"))
    api.ok("POST", "/_local/compact")
    api.kill()
    api.start()
    assert api.watch(MAPS, resourceVersion=version).status == 410


def test_an_interrupted_deletion_is_finished(own_api) -> None:
    api = own_api()
    owner = api.ok("POST", MAPS, config_map("owner"))["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    names = [f"child-{index}" for index in range(20)]
    for name in names:
        api.ok("POST", MAPS, config_map(name, ownerReferences=[reference]))
    api.ok("DELETE", f"{MAPS}/owner")
    api.kill()
    api.start()
    for name in names:
        api.gone(f"{MAPS}/{name}")


def test_definitions_users_and_status_survive(own_api) -> None:
    api = own_api(tls=True)
    token = api.user("somebody")
    api.ok("POST", CONFIGS, endpoint("kept"))
    kept = api.ok("PATCH", f"{CONFIGS}/kept/status", {"status": {"state": "DeploymentComplete"}}, kind=MERGE)
    certificate = (api.state / "server.crt").read_bytes()
    assert api.stop() == 0
    api.start()
    assert api.get(f"{CONFIGS}/kept") == kept
    assert api.send("GET", CONFIGS, token=token).status_code == 403
    assert (api.state / "server.crt").read_bytes() == certificate


def test_secrets_on_disk_are_for_the_owner_only(own_api) -> None:
    api = own_api(tls=True)
    for name in ("tokens.csv", "server.key", "kubeconfig"):
        assert (Path(api.state) / name).stat().st_mode & 0o077 == 0
