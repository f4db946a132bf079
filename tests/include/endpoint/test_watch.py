"""Waiting endpoints share one watch; the story is told once a change, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from include.endpoint import names, namespaceview
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.lifecycle import create_endpoint
from include.endpoint.model import EndpointRef
from include.endpoint.readiness import Limits, Readiness
from include.endpoint.resources import DEPLOYMENTS, ENDPOINT_CONFIGS, EVENTS, PODS
from include.endpoint.teardown import teardown
from include.endpoint.watch import wait_until_gone, wait_until_ready
from tests.include.endpoint.builders import cluster, model, plan, run
from tests.include.endpoint.conftest import set_status
from tests.include.local.stack import Stack

LOCAL = cluster(namespace="default")


def made(clients: Clients, intents: IntentLog, **options: Any) -> tuple[EndpointRef, Any]:
    identity = run(f"test__{uuid.uuid4().hex}", started_at=dt.datetime.now(dt.UTC))
    planned = plan(model("tiny", sagemaker_endpoint=False, **options), LOCAL, identity=identity)
    return create_endpoint(planned, None, clients, intents), planned


def make_pod(clients: Clients, ref: EndpointRef, status: dict[str, Any]) -> str:
    name = f"{ref.name}-{uuid.uuid4().hex[:5]}"
    container = {"name": ref.name, "image": "repo/vllm:1"}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": ref.name}},
        "spec": {"containers": [container]},
    }
    clients.api.create(PODS, body, "default")
    set_status(clients, PODS, name, status)
    return name


def make_deployment(clients: Clients, ref: EndpointRef, ready: int) -> None:
    template = {"metadata": {"labels": {"app": ref.name}}, "spec": {"containers": [{"name": "m", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": ref.name}}, "template": template}
    if clients.api.get(DEPLOYMENTS, ref.name, "default") is None:
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": ref.name}, "spec": spec}
        clients.api.create(DEPLOYMENTS, body, "default")
    set_status(
        clients,
        DEPLOYMENTS,
        ref.name,
        {"replicas": 1, "updatedReplicas": 1, "readyReplicas": ready, "observedGeneration": 1},
    )


def operator_says(clients: Clients, ref: EndpointRef, state: str) -> None:
    status = {
        "state": state,
        "observedGeneration": 1,
        "deploymentStatus": {
            "name": ref.name,
            "lastUpdated": "2026-11-23T00:00:00Z",
            "deploymentObjectOverallState": state,
        },
    }
    set_status(clients, ENDPOINT_CONFIGS, ref.name, status)


async def follow(
    ref: EndpointRef, planned: Any, clients: Clients, heard: list[Readiness], seconds: float = 30
) -> Readiness:
    async for step in wait_until_ready(ref, planned, clients, timeout_seconds=seconds, limits=Limits(image_pull_s=1)):
        heard.append(step)
    return heard[-1]


async def until(check: Callable[[], bool], seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110
            await asyncio.sleep(0.02)  # a check of a condition, with a deadline


async def act(call: Callable[..., Any], *arguments: Any) -> None:
    await asyncio.to_thread(call, *arguments)


def failing(clients: Clients, ref: EndpointRef) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}
    states = [
        {"name": ref.name, "ready": False, "restartCount": 0, "image": "repo/vllm:1", "imageID": "", "state": waiting}
    ]
    make_pod(clients, ref, {"phase": "Pending", "containerStatuses": states})


async def test_the_story_is_told_once_a_change_and_ends_with_the_cause(clients: Clients, intents: IntentLog) -> None:
    ref, planned = await asyncio.to_thread(made, clients, intents)
    heard: list[Readiness] = []
    waiting = asyncio.create_task(follow(ref, planned, clients, heard))
    await until(lambda: len(heard) == 1)
    assert heard[0].phase == "operator"
    await act(operator_says, clients, ref, "DeploymentInProgress")
    await act(make_deployment, clients, ref, 0)
    await until(lambda: heard[-1].phase == "schedule")
    await act(failing, clients, ref)
    end = await waiting
    assert (end.state, end.reason, end.row) == ("failed", "ErrImagePull", "image-pull")
    lines = [step.line for step in heard]
    assert len(lines) == len(set(lines))
    await asyncio.to_thread(teardown_all, ref, clients, intents)


def teardown_all(ref: EndpointRef, clients: Clients, intents: IntentLog) -> None:
    for resource in (PODS, DEPLOYMENTS):
        for item in clients.api.list(resource, "default"):
            if item["metadata"]["name"].startswith(ref.name):
                clients.api.delete(resource, item["metadata"]["name"], "default", uid=item["metadata"]["uid"])
    teardown(ref, clients, intents, patience_s=20)


Cut = Callable[[Stack, Any], None]
CUTS: dict[str, Cut] = {
    "watches end": lambda servers, _: requests.post(servers.url("_local/cut-watches"), timeout=5).raise_for_status(),
    "history is lost": lambda servers, _: (
        requests.post(servers.url("_local/compact"), timeout=5).raise_for_status(),
        requests.post(servers.url("_local/cut-watches"), timeout=5).raise_for_status(),
    ),
    "resets": lambda servers, fault: (
        fault(match={"verb": "watch"}, action="reset", times=4),
        requests.post(servers.url("_local/cut-watches"), timeout=5).raise_for_status(),
    ),
    "500": lambda servers, fault: (
        fault(match={"verb": "list"}, action="status", code=500, times=3),
        fault(match={"verb": "watch"}, action="expire", times=6),
        requests.post(servers.url("_local/cut-watches"), timeout=5).raise_for_status(),
    ),
    "expired credentials": lambda servers, fault: (
        fault(match={"verb": "watch"}, action="status", code=401, times=6),
        requests.post(servers.url("_local/cut-watches"), timeout=5).raise_for_status(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("cut", CUTS)
async def test_a_broken_watch_misses_nothing(
    servers: Stack, clients: Clients, intents: IntentLog, fault: Any, cut: str
) -> None:
    ref, planned = await asyncio.to_thread(made, clients, intents)
    heard: list[Readiness] = []
    waiting = asyncio.create_task(follow(ref, planned, clients, heard))
    await until(lambda: len(heard) == 1)
    await act(CUTS[cut], servers, fault)
    await act(operator_says, clients, ref, "DeploymentInProgress")
    await act(make_deployment, clients, ref, 0)
    await act(failing, clients, ref)
    end = await waiting
    assert (end.state, end.row) == ("failed", "image-pull")
    await asyncio.to_thread(teardown_all, ref, clients, intents)


async def test_an_endpoint_that_is_deleted_while_it_is_waited_for_fails_at_once(
    clients: Clients, intents: IntentLog
) -> None:
    ref, planned = await asyncio.to_thread(made, clients, intents)
    heard: list[Readiness] = []
    waiting = asyncio.create_task(follow(ref, planned, clients, heard))
    await until(lambda: len(heard) == 1)
    await asyncio.to_thread(teardown, ref, clients, intents)
    end = await waiting
    assert end.reason in ("EndpointDeleted", "EndpointDeleting")


async def test_time_up_says_what_it_waited_for_and_cancelling_closes_the_watch(
    clients: Clients, intents: IntentLog
) -> None:
    ref, planned = await asyncio.to_thread(made, clients, intents)
    heard: list[Readiness] = []
    end = await follow(ref, planned, clients, heard, seconds=1)
    assert end.reason == "NotReadyInTime"
    assert "operator" in end.message
    waiting = asyncio.create_task(follow(ref, planned, clients, []))
    await until(lambda: bool(namespaceview._views))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: not namespaceview._views)
    await asyncio.to_thread(teardown_all, ref, clients, intents)


async def test_many_waiters_share_one_list_and_watch_per_resource(clients: Clients, intents: IntentLog) -> None:
    pairs = [await asyncio.to_thread(made, clients, intents) for _ in range(12)]
    heard: list[list[Readiness]] = [[] for _ in pairs]
    waiting = [asyncio.create_task(follow(ref, planned, clients, heard[i])) for i, (ref, planned) in enumerate(pairs)]
    await until(lambda: all(heard))
    assert len(namespaceview._views) == 1
    view = next(iter(namespaceview._views.values()))
    assert view.users == len(pairs)
    assert view.relists == len(namespaceview.WATCHED)
    await act(operator_says, clients, pairs[3][0], "DeploymentFailed")
    end = await waiting[3]
    assert end.state == "failed"
    assert all(len(story) == 1 for i, story in enumerate(heard) if i != 3), "others must not hear of it"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for ref, _ in pairs:
        await asyncio.to_thread(teardown_all, ref, clients, intents)


async def test_an_object_that_the_watch_has_not_shown_yet_is_not_taken_for_deleted(
    servers: Stack, clients: Clients, intents: IntentLog, fault: Any
) -> None:
    first, plan_of_first = await asyncio.to_thread(made, clients, intents)
    heard: list[Readiness] = []
    waiting = [asyncio.create_task(follow(first, plan_of_first, clients, heard))]
    await until(lambda: bool(heard))
    # From here on, the shared watch is blind.
    await act(lambda: fault(match={"verb": "watch"}, action="hang", seconds=15, times=-1))
    await act(lambda: requests.post(servers.url("_local/cut-watches"), timeout=5))
    second, plan_of_second = await asyncio.to_thread(made, clients, intents)
    told: list[Readiness] = []
    waiting.append(asyncio.create_task(follow(second, plan_of_second, clients, told)))
    await until(lambda: bool(told))
    assert (told[0].state, told[0].phase) == ("pending", "operator")
    await act(lambda: requests.delete(servers.url("_local/faults"), timeout=5))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for ref in (first, second):
        await asyncio.to_thread(teardown_all, ref, clients, intents)


async def test_without_the_right_to_watch_the_answer_is_a_configuration_error(
    servers: Stack, clients: Clients, intents: IntentLog, fault: Any
) -> None:
    ref, planned = await asyncio.to_thread(made, clients, intents)
    await act(lambda: fault(match={"verb": "list", "resource": "pods"}, action="status", code=403, times=-1))
    end = await follow(ref, planned, clients, [], seconds=20)
    assert end.reason == "AccessDenied"
    assert "rbac.yaml" in end.fix
    await act(lambda: requests.delete(servers.url("_local/faults"), timeout=5))
    await asyncio.to_thread(teardown_all, ref, clients, intents)


async def test_events_reach_the_waiter_of_their_pod_only(clients: Clients, intents: IntentLog) -> None:
    ref, planned = await asyncio.to_thread(made, clients, intents)
    heard: list[Readiness] = []
    waiting = asyncio.create_task(follow(ref, planned, clients, heard))
    await until(lambda: len(heard) == 1)
    await act(operator_says, clients, ref, "DeploymentInProgress")
    await act(make_deployment, clients, ref, 0)
    pod = await asyncio.to_thread(make_pod, clients, ref, {"phase": "Pending"})
    now = names.format_time(dt.datetime.now(dt.UTC))
    body = {
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": f"{pod}.1"}, "type": "Warning",
        "reason": "FailedMount", "message": "s3://b/files/w has sha256 a, the manifest says b",
        "involvedObject": {"kind": "Pod", "name": pod, "namespace": "default"},
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
    }  # fmt: skip
    await act(clients.api.create, EVENTS, body, "default")
    end = await waiting
    assert end.row == "weights-corrupt"
    assert any("manifest says b" in line for line in end.evidence)
    await asyncio.to_thread(teardown_all, ref, clients, intents)


def uid_of(clients: Clients, pod: str) -> str:
    item = clients.api.get(PODS, pod, "default")
    assert item is not None
    return str(item["metadata"]["uid"])


async def test_gone_means_that_the_pods_are_gone_too(clients: Clients, intents: IntentLog) -> None:
    ref, _ = await asyncio.to_thread(made, clients, intents)
    pod = await asyncio.to_thread(make_pod, clients, ref, {"phase": "Running"})
    waiting = asyncio.create_task(wait_until_gone(ref, clients, timeout_seconds=30))
    await act(lambda: clients.api.delete(ENDPOINT_CONFIGS, ref.name, "default", uid=ref.uid))
    assert not await wait_until_gone(ref, clients, timeout_seconds=1)
    assert not waiting.done()
    await act(lambda: clients.api.delete(PODS, pod, "default", uid=uid_of(clients, pod)))
    assert await waiting
    await asyncio.to_thread(teardown_all, ref, clients, intents)
