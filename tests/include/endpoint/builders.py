"""Small plans, references and facts to start from."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

from include.catalog.plan import ReleasePlan, RunIdentity
from include.catalog.specs import ClusterSpec, LoadSpec, ModelSpec, Price, PriceBook, WorkloadSpec
from include.endpoint.facts import (
    Condition,
    ContainerFacts,
    EventFacts,
    Facts,
    PodFacts,
    RegistrationFacts,
    ResourceFacts,
    SageMakerFacts,
    WorkloadFacts,
)
from include.endpoint.planning import make_plan

START = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PRICES = PriceBook(
    id="test",
    prices=tuple(
        Price(instance_type=name, hourly_usd=price, since="2026-01-01")
        for name, price in {
            "ml.g5.2xlarge": "1.5",
            "ml.g6e.2xlarge": "2.8",
            "ml.p5.48xlarge": "98.32",
            "ml.local.cpu": "0",
        }.items()
    ),
)
SMOKE = WorkloadSpec(name="smoke", loads=(LoadSpec(mode="closed", concurrency=1, requests=4),))


def run(run_id: str = "manual__1", started_at: dt.datetime = START) -> RunIdentity:
    return RunIdentity(dag_id="release_model", run_id=run_id, started_at=started_at)


def cluster(**fields: Any) -> ClusterSpec:
    base = {
        "name": "test",
        "namespace": "hyperpod-ns-ml",
        "models_uri": "s3://models/prefix",
        "results_uri": "s3://results/prefix",
        "tls_output_uri": "s3://hyperpod-tls-test/certs",
        "fsx_file_system_id": "fs-0123456789abcdef0",
    }
    return ClusterSpec.model_validate(base | fields)


def model(name: str = "qwen3-8b", source: dict[str, Any] | None = None, **deployment: Any) -> ModelSpec:
    base = {"image": "repo/vllm:1", "instance_type": "ml.g6e.2xlarge"}
    if deployment.get("kind") == "JumpStartModel":
        base = {"instance_type": "ml.g5.2xlarge"}
        source = source or {"type": "jumpstart", "model_id": "meta-llama-8b", "model_version": "2.3.0"}
    source = source or {"type": "huggingface", "repo": "Qwen/Qwen3-8B"}
    fields = {key: value for key, value in (base | deployment).items() if value is not None}
    return ModelSpec.model_validate({"name": name, "source": source, "deployment": fields})


def plan(
    spec: ModelSpec | None = None,
    on: ClusterSpec | None = None,
    *,
    workloads: tuple[WorkloadSpec, ...] = (SMOKE,),
    **options: Any,
) -> ReleasePlan:
    identity = options.pop("identity", None) or run()
    return make_plan(
        identity,
        spec or model(),
        on or cluster(),
        workloads,
        COMMIT,
        price_book=options.pop("prices", PRICES),
        **options,
    )


def container(name: str = "main", **fields: Any) -> ContainerFacts:
    return ContainerFacts(
        **({"name": name, "init": False, "ready": False, "restarts": 0, "image": "repo/vllm:1"} | fields)
    )


def pod(name: str = "ep-1", **fields: Any) -> PodFacts:
    base = {"name": name, "uid": "p1", "phase": "Pending", "node": "hyperpod-i-1", "created_at": START}
    return PodFacts(**(base | fields))


def event(reason: str, message: str, at: dt.datetime = START, **fields: Any) -> EventFacts:
    base = {"kind": "Pod", "name": "ep-1", "type": "Warning", "first_at": at, "last_at": at}
    return EventFacts(reason=reason, message=message, **(base | fields))


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> Condition:
    return Condition(kind, status, reason, message, START)


def serving_facts(**fields: Any) -> Facts:
    """Everything up, except that no completion was asked for yet."""
    ready = pod(
        phase="Running",
        ready=True,
        ready_at=START + dt.timedelta(seconds=40),
        scheduled_at=START + dt.timedelta(seconds=1),
        containers=(container(ready=True, started_at=START + dt.timedelta(seconds=10)),),
    )
    base = Facts(
        name="ep",
        namespace="default",
        kind="InferenceEndpointConfig",
        uid="u1",
        at=START + dt.timedelta(seconds=60),
        created_at=START,
        wants_registration=True,
        instance_type="ml.g5.2xlarge",
        image="repo/vllm:1",
        resource=ResourceFacts(
            exists=True,
            uid="u1",
            generation=1,
            observed_generation=1,
            state="DeploymentComplete",
            deployment_state="DeploymentComplete",
            registration_state="CreationCompleted",
        ),
        workloads=(WorkloadFacts("ep", 1, 1, 1, 1, 1, 1),),
        pods=(ready,),
        registration=RegistrationFacts(True, "CreationCompleted", created_at=START),
        sagemaker=SageMakerFacts(True, "InService"),
    )
    return dataclasses.replace(base, **fields)


def starting_facts(*pods: PodFacts, **fields: Any) -> Facts:
    """A deployment in progress."""
    resource = ResourceFacts(exists=True, uid="u1", generation=1, observed_generation=1, state="DeploymentInProgress")
    base = {
        "resource": resource,
        "workloads": (WorkloadFacts("ep", 1, 0, 0, 1, 1, 1),),
        "pods": pods,
        "registration": RegistrationFacts(False),
        "sagemaker": None,
    }
    return serving_facts(**(base | fields))
