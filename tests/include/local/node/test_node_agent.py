"""Pods as processes: phases, probes, restarts, Jobs, logs, and what survives the agent's death."""

from __future__ import annotations

import os
import signal

import psutil
import requests

from tests.include.local.stack import Stack, wait_for

PODS = "api/v1/namespaces/default/pods"
DEPLOYMENTS = "apis/apps/v1/namespaces/default/deployments"
JOBS = "apis/batch/v1/namespaces/default/jobs"
PROBE = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}


def container(name: str = "main", **more):
    return {
        "name": name, "image": "hyperpod.local/echo:1", "ports": [{"containerPort": 8080}], "readinessProbe": PROBE,
    } | more  # fmt: skip


def deployment(name: str, *containers, **pod):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": list(containers or [container()]), **pod}}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def job(name: str, *args: str, **spec):
    main = {"name": "main", "image": "hyperpod.local/echo:1", "args": list(args)}
    template = {"spec": {"restartPolicy": "Never", "containers": [main]}}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"template": template, **spec}}


def ready_pod(stack: Stack, name: str):
    def check():
        for pod in stack.pods(name):
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions") or ()}
            if conditions.get("Ready") == "True":
                return pod
        return None

    return wait_for(f"{name} ready", check)


def status_of(stack: Stack, name: str) -> dict:
    pods = stack.pods(name)
    return (pods[0].get("status") or {}) if pods else {}


def container_of(stack: Stack, name: str) -> dict:
    return next(iter(status_of(stack, name).get("containerStatuses") or ()), {})


def facts(pod) -> dict:
    port = pod["metadata"]["annotations"]["hyperpod-local/port.8080"]
    return dict(requests.get(f"http://127.0.0.1:{port}/", timeout=5).json())


def waiting_reason(stack: Stack, name: str) -> str:
    return ((container_of(stack, name).get("state") or {}).get("waiting") or {}).get("reason", "")


def remove(stack: Stack, path: str, name: str) -> None:
    stack.send("DELETE", f"{path}/{name}", {"propagationPolicy": "Background"})
    wait_for("no pods", lambda: not stack.pods(name))


def test_environment_volumes_and_arguments(stack: Stack) -> None:
    stack.send("POST", "api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}, "data": {"k": "djE="}})
    stack.send("POST", "api/v1/namespaces/default/configmaps", {"metadata": {"name": "c"}, "data": {"f.txt": "x"}})
    env = [
        {"name": "FROM_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BOTH", "value": "$(FROM_KEY)-$(POD)-$$x-$(NOPE)"},
    ]
    mounts = [{"name": "conf", "mountPath": "/opt/ml/model"}]
    spec = container(env=env, args=["--path", "/opt/ml/model/f.txt", "$(FROM_KEY)"], volumeMounts=mounts)
    stack.send("POST", DEPLOYMENTS, deployment("env", spec, volumes=[{"name": "conf", "configMap": {"name": "c"}}]))
    pod = ready_pod(stack, "env")
    seen = facts(pod)
    name = pod["metadata"]["name"]
    assert seen["env"]["BOTH"] == f"v1-{name}-$x-$(NOPE)"
    assert seen["files"] == ["f.txt"]
    assert seen["args"][1].endswith("volumes/conf/f.txt")
    assert seen["args"][2] == "v1"
    remove(stack, DEPLOYMENTS, "env")


def test_missing_secret_is_a_config_error(stack: Stack) -> None:
    env = [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "k"}}}]
    stack.send("POST", DEPLOYMENTS, deployment("nosecret", container(env=env)))
    wait_for("config error", lambda: waiting_reason(stack, "nosecret") == "CreateContainerConfigError")
    remove(stack, DEPLOYMENTS, "nosecret")


def test_unknown_image_backs_off(stack: Stack) -> None:
    stack.send("POST", DEPLOYMENTS, deployment("noimage", container(image="vllm/vllm-openai:v0.19.1")))
    wait_for("back-off", lambda: waiting_reason(stack, "noimage") == "ImagePullBackOff")
    wait_for("events", lambda: stack.reasons("noimage-") >= {"Pulling", "Failed", "BackOff"})
    remove(stack, DEPLOYMENTS, "noimage")


def test_unschedulable_pod_says_why(stack: Stack) -> None:
    big = container(resources={"limits": {"nvidia.com/gpu": "1"}})
    stack.send("POST", DEPLOYMENTS, deployment("nogpu", big))

    def message() -> str:
        conditions = status_of(stack, "nogpu").get("conditions") or [{}]
        return str(conditions[0].get("message", ""))

    found = wait_for("unschedulable", message)
    assert found == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    wait_for("event", lambda: "FailedScheduling" in stack.reasons("nogpu-"))
    remove(stack, DEPLOYMENTS, "nogpu")


def test_crash_loop_keeps_the_last_state_and_the_previous_log(stack: Stack) -> None:
    rule = stack.fault("crash", "crash-loop", exit_code="3", log="no weights here")
    stack.send("POST", DEPLOYMENTS, deployment("crash"))
    wait_for("crash loop", lambda: waiting_reason(stack, "crash") == "CrashLoopBackOff")
    assert container_of(stack, "crash")["lastState"]["terminated"]["exitCode"] == 3
    pod = stack.pods("crash")[0]["metadata"]["name"]
    log = requests.get(stack.url(f"{PODS}/{pod}/log?previous=true"), timeout=5)
    assert log.text == "no weights here\n"
    stack.clear_fault(rule)
    ready_pod(stack, "crash")
    remove(stack, DEPLOYMENTS, "crash")


def test_out_of_memory_is_told_as_such(stack: Stack) -> None:
    rule = stack.fault("oomed", "oom")
    stack.send("POST", DEPLOYMENTS, deployment("oomed"))

    def ended() -> dict:
        found = container_of(stack, "oomed")
        return {**(found.get("lastState") or {}), **(found.get("state") or {})}.get("terminated") or {}

    assert wait_for("oom", lambda: ended().get("reason") == "OOMKilled" and ended())["exitCode"] == 137
    stack.clear_fault(rule)
    remove(stack, DEPLOYMENTS, "oomed")


def test_fault_with_times_hits_once_even_after_a_restart(stack: Stack) -> None:
    rule = stack.fault("once-*", "not-ready", times=1)
    stack.send("POST", DEPLOYMENTS, deployment("once-a"))
    wait_for("unhealthy", lambda: "Unhealthy" in stack.reasons("once-a"))
    stack.kill("node")
    stack.start("node")
    stack.send("POST", DEPLOYMENTS, deployment("once-b"))
    ready_pod(stack, "once-b")
    assert not container_of(stack, "once-a")["ready"]
    stack.clear_fault(rule)
    ready_pod(stack, "once-a")
    remove(stack, DEPLOYMENTS, "once-a")
    remove(stack, DEPLOYMENTS, "once-b")


def test_killed_agent_adopts_its_processes(stack: Stack) -> None:
    stack.send("POST", DEPLOYMENTS, deployment("adopt"))
    pod = ready_pod(stack, "adopt")
    before = facts(pod)["pid"]
    stack.kill("node")
    assert facts(pod)["pid"] == before
    stack.start("node")
    os.kill(before, signal.SIGKILL)

    def restarted():
        found = container_of(stack, "adopt")
        return found.get("restartCount") == 1 and found.get("ready") and found

    found = wait_for("noticed by the new agent", restarted)
    assert found["lastState"]["terminated"]["exitCode"] == 137
    assert facts(stack.pods("adopt")[0])["pid"] != before
    remove(stack, DEPLOYMENTS, "adopt")


def test_pod_deleted_while_the_agent_is_dead_leaves_no_process(stack: Stack) -> None:
    stack.send("POST", DEPLOYMENTS, deployment("orphan"))
    pid = facts(ready_pod(stack, "orphan"))["pid"]
    stack.kill("node")
    stack.send("DELETE", f"{DEPLOYMENTS}/orphan", {})
    for pod in stack.pods("orphan"):
        stack.send("DELETE", f"{PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
    wait_for("pod gone", lambda: not stack.pods("orphan"))
    stack.start("node")
    wait_for("process gone", lambda: not psutil.pid_exists(pid))


def test_liveness_failure_restarts(stack: Stack) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    stack.send("POST", DEPLOYMENTS, deployment("sick", container(livenessProbe=probe)))
    wait_for("restart", lambda: container_of(stack, "sick").get("restartCount", 0) >= 1)
    assert {"Unhealthy", "Killing"} <= stack.reasons("sick-")
    remove(stack, DEPLOYMENTS, "sick")


def test_init_container_gates_the_main_one(stack: Stack) -> None:
    init = [{"name": "prepare", "image": "hyperpod.local/echo:1", "args": ["--exit", "4"]}]
    stack.send("POST", DEPLOYMENTS, deployment("gated", initContainers=init))

    def init_status() -> dict:
        return next(iter(status_of(stack, "gated").get("initContainerStatuses") or ()), {})

    wait_for("init crash loop", lambda: init_status().get("restartCount", 0) >= 1)
    assert status_of(stack, "gated")["phase"] == "Pending"
    assert waiting_reason(stack, "gated") == "PodInitializing"
    remove(stack, DEPLOYMENTS, "gated")


def condition(stack: Stack, name: str) -> dict:
    found = (stack.get(f"{JOBS}/{name}") or {}).get("status") or {}
    return next(iter(found.get("conditions") or ()), {})


def test_indexed_job_completes(stack: Stack) -> None:
    stack.send("POST", JOBS, job("indexed", "--exit", "0", completions=3, parallelism=2, completionMode="Indexed"))
    assert wait_for("complete", lambda: condition(stack, "indexed"))["type"] == "Complete"
    status = stack.get(f"{JOBS}/indexed")["status"]
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0,1,2")
    remove(stack, JOBS, "indexed")


def test_failing_job_stops_at_its_back_off_limit(stack: Stack) -> None:
    stack.send("POST", JOBS, job("failing", "--exit", "7", backoffLimit=1))
    found = wait_for("failed", lambda: condition(stack, "failing"))
    assert (found["type"], found["reason"]) == ("Failed", "BackoffLimitExceeded")
    assert len(stack.pods("failing")) == 2
    remove(stack, JOBS, "failing")


def test_job_deadline_ends_its_process_and_ttl_its_object(stack: Stack) -> None:
    made = job("late", "--sleep", "60", activeDeadlineSeconds=1, ttlSecondsAfterFinished=1)
    stack.send("POST", JOBS, made)
    assert wait_for("deadline", lambda: condition(stack, "late"))["reason"] == "DeadlineExceeded"
    wait_for("expired", lambda: stack.get(f"{JOBS}/late") is None and not stack.pods("late"))


def test_lost_node_comes_back_and_the_pod_is_replaced(stack: Stack) -> None:
    rule = stack.fault("lost", "node-lost", times=1, back="1")
    stack.send("POST", DEPLOYMENTS, deployment("lost"))
    wait_for("evicted", lambda: "TaintManagerEviction" in stack.reasons("lost-"))

    def health() -> str:
        return str(stack.items("api/v1/nodes")[0]["metadata"]["labels"]["sagemaker.amazonaws.com/node-health-status"])

    wait_for("node lost", lambda: health() == "UnschedulablePendingReplacement")
    wait_for("node back", lambda: health() == "Schedulable")
    ready_pod(stack, "lost")
    stack.clear_fault(rule)
    remove(stack, DEPLOYMENTS, "lost")
