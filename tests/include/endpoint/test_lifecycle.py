"""Create, adopt, hold, delete, reap, lease: nothing leaks, nothing foreign is touched, whatever the wire does."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from typing import Any

import pytest

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.lease import EndpointLease
from include.endpoint.lifecycle import create_endpoint, hold, mark_kept, promote, release_hold
from include.endpoint.model import EndpointRef
from include.endpoint.reaper import find_orphans, reap
from include.endpoint.resources import DEPLOYMENTS, ENDPOINT_CONFIGS, LEASES, SERVICES, VOLUMES
from include.endpoint.teardown import teardown
from include.errors import ConfigurationError, PipelineError
from include.staging.model import StagedModel
from tests.include.endpoint.builders import cluster, model, plan, run
from tests.include.endpoint.configurations import SCALING

NOW = dt.datetime.now(dt.UTC)
STAGED = StagedModel(
    name="tiny",
    revision="r",
    uri="s3://m",
    manifest_uri="s3://m/manifest.json",
    manifest_digest="sha256:ab",
    files=1,
    total_bytes=1,
)
LOCAL = cluster(namespace="default")


def new_plan(run_id: str | None = None, **options: Any) -> ReleasePlan:
    identity = run(run_id or f"test__{uuid.uuid4().hex}", started_at=dt.datetime.now(dt.UTC))
    return plan(options.pop("spec", None) or model("tiny"), LOCAL, identity=identity, **options)


def live(clients: Clients, ref: EndpointRef) -> dict[str, Any] | None:
    return clients.api.get(ENDPOINT_CONFIGS, ref.name, ref.namespace)


def annotate(clients: Clients, name: str, **fields: Any) -> None:
    clients.api.patch(ENDPOINT_CONFIGS, name, {"metadata": fields}, "default")


def test_creation_is_announced_marked_and_adopted_by_a_retry(clients: Clients, intents: IntentLog) -> None:
    planned = new_plan()
    ref = create_endpoint(planned, STAGED, clients, intents)
    item = live(clients, ref)
    assert item is not None
    assert item["metadata"]["uid"] == ref.uid
    marks = item["metadata"]["annotations"]
    assert marks[names.PLAN_DIGEST] == planned.digest
    assert marks[names.MANIFEST_DIGEST] == "sha256:ab"
    assert names.parse_time(marks[names.EXPIRES_AT]) == ref.expires_at.replace(microsecond=0)
    assert [intent.uid for intent in intents.unfinished("test")] == [ref.uid]
    again = create_endpoint(planned, STAGED, clients, intents)
    assert (again.uid, again.adopted) == (ref.uid, True)
    report = teardown(ref, clients, intents, plan=planned, patience_s=10)
    assert report.absent
    assert live(clients, ref) is None
    assert intents.unfinished("test") == ()
    assert teardown(ref, clients, intents, plan=planned, patience_s=10).absent, "a second teardown is fine"


LOST = {"action": "reset", "after": True}
FLAKES = [
    {"action": "reset"},
    LOST,
    {"action": "status", "code": 500},
    {"action": "status", "code": 401},
    {"action": "status", "code": 429, "retry_after": 0},
]


@pytest.mark.parametrize("action", FLAKES, ids=["reset", "answer lost", "500", "401", "429"])
def test_a_flake_makes_exactly_one_endpoint_and_deletes_it(
    clients: Clients, intents: IntentLog, fault: Any, action: dict[str, Any]
) -> None:
    fault(match={"verb": "create", "resource": "inferenceendpointconfigs"}, **action)
    ref = create_endpoint(new_plan(), None, clients, intents)
    owned = clients.api.list(ENDPOINT_CONFIGS, "default", labels=f"{names.OWNER}={ref.owner}")
    assert [item["metadata"]["uid"] for item in owned] == [ref.uid]
    fault(match={"verb": "delete", "resource": "inferenceendpointconfigs"}, **action)
    assert teardown(ref, clients, intents, patience_s=10).absent


def test_a_name_that_somebody_else_owns_is_not_touched(clients: Clients, intents: IntentLog) -> None:
    planned = new_plan()
    ref = create_endpoint(planned, None, clients, intents)
    annotate(clients, ref.name, labels={names.OWNER: "run-other"})
    with pytest.raises(ConfigurationError, match="NameTaken"):
        create_endpoint(planned, None, clients, intents)
    with pytest.raises(ConfigurationError, match="NotOurs"):
        teardown(ref, clients, intents, patience_s=5)
    assert live(clients, ref) is not None


def test_another_specification_under_the_same_name_is_refused(clients: Clients, intents: IntentLog) -> None:
    planned = new_plan("same")
    ref = create_endpoint(planned, None, clients, intents)
    changed = planned.model_copy(
        update={
            "custom_resource": {**planned.custom_resource, "spec": {**planned.custom_resource["spec"], "replicas": 2}}
        }
    )
    with pytest.raises(ConfigurationError, match="SpecChanged"):
        create_endpoint(changed, None, clients, intents)
    teardown(ref, clients, intents, patience_s=5)


def test_protected_held_and_replaced_endpoints_stay(clients: Clients, intents: IntentLog) -> None:
    planned = new_plan()
    ref = create_endpoint(planned, None, clients, intents)
    annotate(clients, ref.name, labels={names.PROTECTED: "true"})
    with pytest.raises(ConfigurationError, match="Protected"):
        teardown(ref, clients, intents, patience_s=5)
    annotate(clients, ref.name, labels={names.PROTECTED: None})
    hold(ref, clients, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    assert teardown(ref, clients, intents, patience_s=5).kept
    assert live(clients, ref) is not None
    release_hold(ref, clients)
    assert teardown(ref, clients, intents, patience_s=10).absent
    newer = create_endpoint(planned, None, clients, intents)
    assert newer.uid != ref.uid
    report = teardown(ref, clients, intents, patience_s=5)
    assert report.detail["replaced_by"] == newer.uid
    assert live(clients, newer) is not None, "the old reference must never delete the new endpoint"
    teardown(newer, clients, intents, patience_s=10)


def test_a_stuck_finalizer_is_told_and_never_stripped(clients: Clients, intents: IntentLog) -> None:
    ref = create_endpoint(new_plan(), None, clients, intents)
    annotate(clients, ref.name, finalizers=["inference.sagemaker.aws.amazon.com/finalizer"])
    with pytest.raises(PipelineError) as caught:
        teardown(ref, clients, intents, patience_s=1)
    assert caught.value.reason == "StillThere"
    assert "inference.sagemaker.aws.amazon.com/finalizer" in caught.value.message
    assert "operator is not running" in caught.value.message
    assert caught.value.retryable
    item = live(clients, ref)
    assert item is not None
    assert item["metadata"]["finalizers"]
    assert len(intents.unfinished("test")) == 1, "the reaper must still know of it"
    annotate(clients, ref.name, finalizers=None)
    assert teardown(ref, clients, intents, patience_s=10).absent


def test_a_teardown_that_died_is_gone_on_with_and_forgets_nothing(clients: Clients, intents: IntentLog) -> None:
    ref = create_endpoint(new_plan(), None, clients, intents)
    annotate(clients, ref.name, finalizers=["inference.sagemaker.aws.amazon.com/finalizer"])
    with pytest.raises(PipelineError, match="StillThere"):
        teardown(ref, clients, intents, patience_s=1)
    annotate(clients, ref.name, finalizers=None)
    assert live(clients, ref) is None
    report = teardown(ref, clients, intents, patience_s=10)
    assert ("kubernetes", ref.kind, ref.name) in {(item.plane, item.kind, item.name) for item in report.objects}
    assert report.seconds >= 1


def register(clients: Clients, name: str, tags: dict[str, str]) -> None:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    role = "arn:aws:iam::123456789012:role/r"
    clients.sagemaker.create_model(ModelName=name, ExecutionRoleArn=role, PrimaryContainer={"Image": "i"}, Tags=listed)
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InstanceType": "ml.m5.xlarge",
        "InitialInstanceCount": 1,
        "InitialVariantWeight": 1,
    }
    clients.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant], Tags=listed)
    clients.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=listed)


def unregister(clients: Clients, name: str) -> None:
    clients.sagemaker.delete_endpoint(EndpointName=name)
    clients.sagemaker.delete_endpoint_config(EndpointConfigName=name)
    clients.sagemaker.delete_model(ModelName=name)


def test_what_the_operator_left_on_sagemaker_is_swept_and_nothing_else(clients: Clients, intents: IntentLog) -> None:
    ref = create_endpoint(new_plan(), None, clients, intents)
    register(clients, ref.name, dict([names.OPERATOR_TAG]))
    foreign = f"foreign-{uuid.uuid4().hex[:8]}"
    register(clients, foreign, dict([names.OPERATOR_TAG]))
    report = teardown(ref, clients, intents, patience_s=20)
    swept = {(item.plane, item.kind) for item in report.objects}
    assert {("sagemaker", "Endpoint"), ("sagemaker", "EndpointConfig"), ("sagemaker", "Model")} <= swept
    assert all(item.absent for item in report.objects)
    assert clients.sagemaker.describe_endpoint(EndpointName=foreign)["EndpointStatus"] == "InService"
    unregister(clients, foreign)


def test_a_sagemaker_endpoint_that_the_operator_did_not_make_is_refused(clients: Clients, intents: IntentLog) -> None:
    ref = create_endpoint(new_plan(), None, clients, intents)
    register(clients, ref.name, {"CreatedBy": "a person"})
    with pytest.raises(ConfigurationError, match="CreatedBy=HyperPodInference"):
        teardown(ref, clients, intents, patience_s=5)
    assert clients.sagemaker.describe_model(ModelName=ref.name)
    unregister(clients, ref.name)


def orphans(
    clients: Clients, intents: IntentLog, *, over: bool = False, now: dt.datetime | None = None
) -> dict[str, str]:
    moment = now or dt.datetime.now(dt.UTC)
    found = find_orphans(LOCAL, clients, intents, run_is_over=lambda _dag, _run: over, now=moment)
    return {orphan.ref.name: orphan.why for orphan in found}


def test_the_reaper_finds_what_a_crash_left_and_spares_the_rest(clients: Clients, intents: IntentLog) -> None:
    refs = {
        name: create_endpoint(new_plan(), None, clients, intents) for name in ("active", "held", "kept", "protected")
    }
    hold(refs["held"], clients, dt.datetime.now(dt.UTC) + dt.timedelta(hours=9))
    mark_kept(refs["kept"], clients, results_uri="s3://r")
    annotate(clients, refs["protected"].name, labels={names.PROTECTED: "true"})
    assert not {ref.name for ref in refs.values()} & set(orphans(clients, intents))
    over = orphans(clients, intents, over=True)
    assert {name for name, ref in refs.items() if ref.name in over} == {"active"}
    late = dt.datetime.now(dt.UTC) + dt.timedelta(hours=5)
    expired = orphans(clients, intents, now=late)
    assert {name for name, ref in refs.items() if ref.name in expired} == {"active", "kept"}
    assert "expired" in expired[refs["kept"].name]
    annotate(clients, refs["protected"].name, labels={names.PROTECTED: None})
    release_hold(refs["held"], clients)
    reports = reap(LOCAL, clients, intents, run_is_over=lambda _dag, _run: True, now=late, patience_s=10)
    assert {report.endpoint for report in reports} >= {ref.name for ref in refs.values()}
    assert orphans(clients, intents, over=True, now=late) == {}


def test_an_orphan_that_does_not_go_keeps_no_other_from_going(clients: Clients, intents: IntentLog) -> None:
    stuck, *others = [create_endpoint(new_plan(), None, clients, intents) for _ in range(3)]
    annotate(clients, stuck.name, finalizers=["inference.sagemaker.aws.amazon.com/finalizer"])
    ends: list[PipelineError] = []

    def reap_all() -> None:
        try:
            reap(LOCAL, clients, intents, run_is_over=lambda _dag, _run: True, patience_s=30)
        except PipelineError as error:
            ends.append(error)

    reaper = threading.Thread(target=reap_all)
    reaper.start()
    while reaper.is_alive() and any(live(clients, ref) for ref in others):
        reaper.join(0.1)
    assert reaper.is_alive(), "the others go while the stuck one is still waited for"
    annotate(clients, stuck.name, finalizers=None)
    reaper.join(30)
    assert ends == []
    assert live(clients, stuck) is None


def test_an_intent_whose_creator_died_is_followed_up_even_without_a_uid(clients: Clients, intents: IntentLog) -> None:
    planned = new_plan()
    intents.open(planned)
    late = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)
    assert planned.endpoint_name not in orphans(clients, intents, over=True), "the creator may be at it right now"
    assert planned.endpoint_name in orphans(clients, intents, over=True, now=late)
    ref = create_endpoint(planned, None, clients, IntentLog(intents._objects))
    reports = reap(LOCAL, clients, intents, run_is_over=lambda _dag, _run: True, now=late, patience_s=10)
    assert planned.endpoint_name in {report.endpoint for report in reports}
    assert live(clients, ref) is None
    assert intents.unfinished("test") == ()


def test_sagemaker_objects_that_appear_after_the_teardown_are_reaped(clients: Clients, intents: IntentLog) -> None:
    ref = create_endpoint(new_plan(), None, clients, intents)
    teardown(ref, clients, intents, patience_s=10)
    register(clients, ref.name, dict([names.OPERATOR_TAG]))
    late = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)
    assert "outlived" in orphans(clients, intents, now=late)[ref.name]
    reap(LOCAL, clients, intents, run_is_over=lambda _dag, _run: False, now=late, patience_s=20)
    assert ref.name not in orphans(clients, intents, now=late)


def test_a_direct_deployment_has_its_parts_and_takes_them_along(clients: Clients, intents: IntentLog) -> None:
    spec = model("tiny", kind="direct", sagemaker_endpoint=False)
    planned = new_plan(spec=spec)
    ref = create_endpoint(planned, STAGED, clients, intents)
    assert clients.api.get(SERVICES, names.service_name(ref.name), "default") is not None
    assert create_endpoint(planned, STAGED, clients, intents).adopted
    report = teardown(ref, clients, intents, plan=planned, patience_s=20)
    assert report.absent
    assert clients.api.get(DEPLOYMENTS, ref.name, "default") is None
    assert clients.api.get(VOLUMES, f"default-{ref.name}-model") is None


def test_promotion_switches_autoscaling_on(clients: Clients, intents: IntentLog) -> None:
    planned = new_plan(spec=model("tiny", autoscaling=SCALING))
    ref = create_endpoint(planned, None, clients, intents)
    item = live(clients, ref)
    assert item is not None
    assert "autoScalingSpec" not in item["spec"]
    assert promote(ref, planned, clients)
    item = live(clients, ref)
    assert item is not None
    assert item["spec"]["autoScalingSpec"]["maxReplicaCount"] == 4
    teardown(ref, clients, intents, patience_s=10)


def test_a_lease_is_exclusive_and_given_back(clients: Clients) -> None:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    with EndpointLease(clients, "default", name, "first", 3) as first:
        assert "first" in first.lease_id
        with (
            pytest.raises(PipelineError, match="EndpointBusy"),
            EndpointLease(clients, "default", name, "second", 3, wait_s=1),
        ):
            pass
        assert not first.lost
    assert clients.api.get(LEASES, name, "default") is None


def test_a_dead_holder_s_lease_is_taken_over_only_after_its_time(clients: Clients) -> None:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    dead = EndpointLease(clients, "default", name, "dead", 1)
    dead._acquire()
    with EndpointLease(clients, "default", name, "heir", 1, wait_s=20) as heir:
        assert heir.lease_id != dead.lease_id
        assert not dead._is_ours(clients.api.get(LEASES, name, "default") or {})


def test_a_stolen_lease_is_noticed(clients: Clients) -> None:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    with EndpointLease(clients, "default", name, "victim", 1) as lease:
        item = clients.api.get(LEASES, name, "default")
        assert item is not None
        clients.api.patch(LEASES, name, {"spec": {"holderIdentity": "thief"}}, "default")
        assert wait(lambda: lease.lost)
    stolen = clients.api.get(LEASES, name, "default")
    assert stolen is not None, "the thief's lease is not ours to delete"


def wait(check: Any, seconds: float = 10) -> bool:
    ticks = threading.Event()
    for _ in range(int(seconds / 0.05)):
        if check():
            return True
        ticks.wait(0.05)
    return False
