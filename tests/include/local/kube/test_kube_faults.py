"""Injected faults do what they say, as often as they say."""

from __future__ import annotations

import pytest
import requests

from tests.include.local.kube.api import CORE, Api, config_map

MAPS = f"{CORE}/configmaps"


@pytest.fixture(autouse=True)
def clean(api: Api):
    yield
    api.ok("DELETE", "/_local/faults")


@pytest.mark.parametrize(("code", "reason"), [(500, "InternalError"), (409, "Conflict"), (401, "Unauthorized")])
def test_status_for_n_times(api: Api, code: int, reason: str) -> None:
    api.faults({"match": {"verb": "list", "resource": "configmaps"}, "action": "status", "code": code, "times": 2})
    answers = [api.send("GET", MAPS) for _ in range(3)]
    assert [item.status_code for item in answers] == [code, code, 200]
    assert answers[0].json()["reason"] == reason
    assert api.get("/_local/faults")["faults"][0]["fired"] == 2


def test_too_many_requests_says_when_to_come_back(api: Api) -> None:
    api.faults({"action": "status", "code": 429, "retry_after": 3, "match": {"resource": "pods"}})
    answer = api.send("GET", f"{CORE}/pods")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
    assert answer.json()["details"]["retryAfterSeconds"] == 3


def test_reset_before_and_after_the_write(api: Api) -> None:
    api.faults({"match": {"verb": "create"}, "action": "reset"})
    with pytest.raises(requests.ConnectionError):
        api.send("POST", MAPS, config_map("before"))
    assert not api.exists(f"{MAPS}/before")
    api.faults({"match": {"verb": "create"}, "action": "reset", "after": True})
    with pytest.raises(requests.ConnectionError):
        api.send("POST", MAPS, config_map("after"))
    assert api.exists(f"{MAPS}/after"), "the write happened, only its answer was lost"


def test_hang_skip_and_globs(api: Api) -> None:
    rule = {"match": {"name": "ha*", "verb": "get"}, "action": "hang", "seconds": 0.2, "skip": 1}
    api.ok("POST", MAPS, config_map("hang"))
    api.faults(rule)
    assert api.send("GET", f"{MAPS}/hang").status_code == 200
    with pytest.raises(requests.ConnectionError):
        api.send("GET", f"{MAPS}/hang")
    assert api.send("GET", f"{MAPS}/hang").status_code == 200


def test_expired_watch_is_an_error_event(api: Api) -> None:
    api.faults({"match": {"verb": "watch"}, "action": "expire"})
    watch = api.watch(MAPS)
    assert watch.ended.wait(20)
    assert watch.status == 200
    assert (watch.events[0]["type"], watch.events[0]["object"]["code"]) == ("ERROR", 410)


@pytest.mark.parametrize(
    "rule", [{}, {"action": "burn"}, {"action": "status", "code": 200}, {"action": "reset", "x": 1}]
)
def test_malformed_rules_are_refused(api: Api, rule: dict) -> None:
    assert api.send("PUT", "/_local/faults", [rule]).status_code == 400
    assert api.get("/_local/faults")["faults"] == []
