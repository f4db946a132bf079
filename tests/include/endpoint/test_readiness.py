"""The table of readiness, row by row, and the split of a cold start."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.endpoint import assemble
from include.endpoint.coldstart import split
from include.endpoint.facts import Facts, ProbeFacts, QueueFacts, RegistrationFacts, SageMakerFacts, TargetFacts
from include.endpoint.readiness import evaluate
from tests.include.endpoint.builders import START, condition, container, event, pod, serving_facts, starting_facts

SOON = START + dt.timedelta(seconds=60)
OK = ProbeFacts(True, SOON, 200, seconds=0.5)


def resource(**fields: object) -> Facts:
    base = serving_facts()
    return dataclasses.replace(base, resource=dataclasses.replace(base.resource, **fields))


ROWS: list[tuple[str, Facts, str, str, str]] = [
    ("no status yet", resource(state="", deployment_state=""), "pending", "operator", "not looked at it"),
    ("an older generation", resource(generation=2), "pending", "operator", "generation 1 of 2"),
    ("queued", starting_facts(queue=QueueFacts(True), queued_by="q"), "pending", "queue", "q"),
    ("no Deployment", starting_facts(workloads=()), "pending", "operator", "no Deployment"),
    ("no pod", starting_facts(), "pending", "schedule", "0 of 1"),
    ("pod without a node", starting_facts(pod(node="")), "pending", "schedule", "waits for a node"),
    (
        "image",
        starting_facts(pod(containers=(container(waiting_reason="ContainerCreating"),))),
        "pending",
        "image",
        "ContainerCreating",
    ),
    (
        "weights",
        starting_facts(pod(containers=(container("prefetch", init=True, started_at=START),))),
        "pending",
        "weights",
        "prefetch",
    ),
    ("load", starting_facts(pod(containers=(container(started_at=START),))), "pending", "load", "loads the model"),
    ("pods ready, state not", resource(state="DeploymentInProgress"), "pending", "operator", "DeploymentInProgress"),
    ("an unknown state", resource(state="DeploymentPolishing"), "pending", "operator", "does not know"),
    ("registering", serving_facts(sagemaker=SageMakerFacts(True, "Creating")), "pending", "registration", "Creating"),
    ("not registered yet", serving_facts(sagemaker=SageMakerFacts(False)), "pending", "registration", "does not exist"),
    (
        "SageMaker cannot be asked",
        serving_facts(sagemaker=None, registration=RegistrationFacts(True, "CreationInProgress", created_at=START)),
        "pending",
        "registration",
        "CreationInProgress",
    ),
    (
        "targets",
        serving_facts(targets=TargetFacts(2, 1, ("Elb.InitialHealthChecking",))),
        "pending",
        "load balancer",
        "1 of 2",
    ),
    ("no targets", serving_facts(targets=TargetFacts(0, 0)), "pending", "load balancer", "0 of 0"),
    ("probe missing", serving_facts(), "pending", "first completion", "asking"),
    (
        "probe refused",
        serving_facts(probe=ProbeFacts(False, SOON, 500, "HTTP 500: boom")),
        "pending",
        "first completion",
        "boom",
    ),
    ("targets not asked", serving_facts(probe=OK, targets=TargetFacts(skipped="no ARN")), "ready", "ready", "1 pod(s)"),
    ("ready", serving_facts(probe=OK), "ready", "ready", "0.50 s"),
    (
        "ready without SageMaker",
        serving_facts(probe=OK, wants_registration=False, sagemaker=None, registration=None),
        "ready",
        "ready",
        "serving",
    ),
    ("direct", serving_facts(probe=OK, kind="direct", wants_registration=False), "ready", "ready", "serving"),
]


@pytest.mark.parametrize(("facts", "state", "phase", "said"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row(facts: Facts, state: str, phase: str, said: str) -> None:
    verdict = evaluate(facts, SOON)
    assert (verdict.state, verdict.phase) == (state, phase), verdict
    assert said in verdict.message
    assert "\n" not in verdict.line


def test_complete_is_not_ready_before_every_replica_is() -> None:
    some = dataclasses.replace(serving_facts().workloads[0], replicas=2)
    assert evaluate(serving_facts(workloads=(some,), probe=OK), SOON).state == "pending"


@given(
    state=st.text(max_size=30),
    deployment=st.text(max_size=30),
    registration=st.text(max_size=30),
    sagemaker=st.text(max_size=30),
)
def test_unknown_words_never_raise_and_never_count_as_ready(
    state: str, deployment: str, registration: str, sagemaker: str
) -> None:
    base = resource(state=state, deployment_state=deployment, registration_state=registration)
    facts = dataclasses.replace(base, sagemaker=SageMakerFacts(True, sagemaker), probe=OK)
    verdict = evaluate(facts, SOON)
    if state != "DeploymentComplete" or sagemaker != "InService":
        assert verdict.state != "ready"


@given(
    status=st.dictionaries(
        st.sampled_from(["state", "conditions", "deploymentStatus", "endpoints", "tlsCertificate"]), st.none()
    )
)
def test_empty_statuses_are_read(status: dict[str, None]) -> None:
    item = {"metadata": {"name": "x", "uid": "u"}, "status": status}
    assert assemble.resource_facts(item).exists
    assert assemble.pod_facts(item).name == "x"
    assert assemble.workload_facts(item).ready == 0


def test_a_cold_start_is_split_at_what_was_observed_and_sums_up() -> None:
    at = {
        name: START + dt.timedelta(seconds=s)
        for name, s in {"scheduled": 5, "pulled": 65, "main": 95, "ready": 155, "service": 215, "probe": 220}.items()
    }
    ready = pod(
        phase="Running",
        ready=True,
        scheduled_at=at["scheduled"],
        ready_at=at["ready"],
        containers=(container(started_at=at["main"]),),
    )
    facts = serving_facts(
        pods=(ready,),
        events=(event("Pulled", "Successfully pulled image", at=at["pulled"], type="Normal"),),
        sagemaker=SageMakerFacts(True, "InService", in_service_at=at["service"]),
        probe=ProbeFacts(True, at["probe"], 200, seconds=2.0),
    )
    cold = split(facts)
    assert (cold.schedule, cold.image, cold.weights, cold.load, cold.register_endpoint) == (5, 60, 30, 60, 60)
    assert cold.first_completion == 7
    assert cold.total == 222


@given(st.lists(st.floats(0, 500), min_size=4, max_size=4))
def test_phases_always_sum_to_the_total(seconds: list[float]) -> None:
    scheduled, main, ready, end = (START + dt.timedelta(seconds=s) for s in seconds)
    facts = serving_facts(
        pods=(pod(ready=True, scheduled_at=scheduled, ready_at=ready, containers=(container(started_at=main),)),),
        registration=RegistrationFacts(True, "CreationCompleted", conditions=(condition("CreationCompleted"),)),
        probe=ProbeFacts(True, end, 200, seconds=0.1),
    )
    cold = split(facts)
    parts = cold.schedule + cold.image + cold.weights + cold.load + cold.register_endpoint + cold.first_completion
    assert parts == pytest.approx(cold.total, abs=0.01)
    assert min(cold.model_dump().values()) >= 0
