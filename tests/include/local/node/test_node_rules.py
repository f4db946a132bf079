"""The pure parts of the node and the operator: scheduling, phases, Jobs, fault rules, paths, routing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.local.agent.jobs import plan, pod_of
from include.local.agent.scheduler import preference, quantity, why_not
from include.local.faults import Fault, claim, dump_rules, find, load_rules, new_rule
from include.local.node.environment import expand, host_path
from include.local.node.images import ImageNotFoundError, resolve, split_reference
from include.local.node.router import choose, routing_key
from include.local.node.status import ContainerRecord, phase
from include.local.node.weights import WeightsError, verify_folder
from include.local.operator.validity import problems

NAMES = st.text("abcdefghij", min_size=1, max_size=5)


def pod(**spec):
    return {"metadata": {"uid": "u", "name": "p"}, "spec": {"containers": [{"name": "c"}], **spec}}


def node(labels=None, **spec):
    allocatable = {"cpu": "2", "memory": "1Gi", "pods": "2"}
    return {"metadata": {"name": "n", "labels": labels or {}}, "spec": spec, "status": {"allocatable": allocatable}}


def terms(key: str, operator: str, *values: str):
    expression = {"key": key, "operator": operator, "values": list(values)}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}


@pytest.mark.parametrize(
    ("affinity", "fits"),
    [
        (terms("t", "In", "a", "b"), True),
        (terms("t", "NotIn", "a"), False),
        (terms("absent", "NotIn", "a"), True),
        (terms("t", "Exists"), True),
        (terms("t", "DoesNotExist"), False),
        (terms("n", "Gt", "4"), True),
        (terms("n", "Lt", "4"), False),
        (terms("t", "Unheard"), False),
    ],
)
def test_node_affinity(affinity, fits: bool) -> None:
    assert (why_not(pod(affinity=affinity), node({"t": "a", "n": "5"}), []) is None) == fits


def test_a_pod_keeps_away_from_the_nodes_of_those_that_it_must_not_meet() -> None:
    term = {"labelSelector": {"matchLabels": {"app": "m"}}, "topologyKey": "kubernetes.io/hostname"}
    load = pod(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})
    load["metadata"]["namespace"] = "default"
    server = {**pod(nodeName="n"), "status": {"phase": "Running"}}
    server["metadata"] = {"uid": "s", "name": "s", "namespace": "default", "labels": {"app": "m"}}
    assert "anti-affinity" in str(why_not(load, node(), [server]))
    for change in ({"status": {"phase": "Succeeded"}}, {"spec": {**server["spec"], "nodeName": "other"}}):
        assert why_not(load, node(), [server | change]) is None
    for meta in ({"namespace": "other"}, {"labels": {"app": "x"}}):
        assert why_not(load, node(), [server | {"metadata": server["metadata"] | meta}]) is None


def test_room_taints_and_slots() -> None:
    asks = [{"name": "c", "resources": {"requests": {"cpu": "1500m"}}}]
    placed = {**pod(containers=asks, nodeName="n"), "status": {"phase": "Running"}}
    assert why_not(pod(containers=asks), node(), [placed]) == "Insufficient cpu"
    assert why_not(pod(containers=asks), node(), [{**placed, "status": {"phase": "Succeeded"}}]) is None
    assert why_not(pod(), node(unschedulable=True), []) == "node(s) were unschedulable"
    taint = {"key": "k", "effect": "NoSchedule"}
    assert "untolerated taint {k: }" in str(why_not(pod(), node(taints=[taint]), []))
    assert why_not(pod(tolerations=[{"key": "k"}]), node(taints=[taint]), []) is None
    assert why_not(pod(), node(), [placed, placed]) == "Too many pods"


def test_preferred_instance_types_are_ordered() -> None:
    def term(weight: int, value: str):
        match = {"matchExpressions": [{"key": "t", "operator": "In", "values": [value]}]}
        return {"weight": weight, "preference": match}

    wanted = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term(100, "a"), term(99, "b")]}}
    assert preference(pod(affinity=wanted), node({"t": "a"})) > preference(pod(affinity=wanted), node({"t": "b"})) > 0


@given(st.integers(0, 10**6), st.sampled_from(["m", "", "k", "Ki", "Mi", "Gi"]))
def test_quantity_scales(number: int, suffix: str) -> None:
    factor = {"m": 1, "": 1000, "k": 10**6, "Ki": 1024000, "Mi": 1024000 * 1024, "Gi": 1024000 * 1024**2}[suffix]
    assert quantity(f"{number}{suffix}") * 1000 == number * factor


def record(code: int | None = None, *, waiting: bool = False, last: bool = False) -> ContainerRecord:
    state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
    return ContainerRecord("c", "i", {"waiting": {}} if waiting else state, {"terminated": {}} if last else {})


@pytest.mark.parametrize(
    ("policy", "init", "main", "wanted"),
    [
        ("Always", [], [record()], "Running"),
        ("Always", [], [record(waiting=True)], "Pending"),
        ("Always", [], [record(waiting=True, last=True)], "Running"),
        ("Always", [], [record(0)], "Running"),
        ("Never", [], [record(0), record(0)], "Succeeded"),
        ("Never", [], [record(0), record(2)], "Failed"),
        ("OnFailure", [], [record(2)], "Running"),
        ("Never", [record(1)], [record(waiting=True)], "Failed"),
        ("Always", [record(1)], [record(waiting=True)], "Pending"),
    ],
)
def test_pod_phase(policy: str, init, main, wanted: str) -> None:
    assert phase(policy, init, main) == wanted


def job(**spec):
    return {"metadata": {"name": "j", "namespace": "d", "uid": "u"}, "apiVersion": "batch/v1", "kind": "Job",
            "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}, **spec}}  # fmt: skip


@given(st.integers(1, 6), st.integers(1, 4), st.lists(st.sampled_from(["Succeeded", "Failed", "Running"]), max_size=8))
def test_a_job_never_runs_more_than_it_may(completions: int, parallelism: int, phases: list[str]) -> None:
    made = job(completions=completions, parallelism=parallelism, completionMode="Indexed", backoffLimit=99)
    pods = [{**pod_of(made, i % completions), "status": {"phase": p}} for i, p in enumerate(phases)]
    decided = plan(made, pods, 0)
    if decided.start:
        assert decided.active + len(decided.start) <= parallelism
    assert len(set(decided.start)) == len(decided.start)
    assert not set(decided.start) & set(decided.succeeded)
    assert (decided.finish is not None) == (len(decided.succeeded) == completions)


def test_a_rule_with_times_keeps_its_targets() -> None:
    rule = new_rule("a-*", "oom", {"seconds": "2"}, 1)
    book = {"data": dump_rules([rule])}
    hit = find(load_rules(book), Fault.OOM, "default", "a-1", "uid-1")
    assert hit is not None
    claimed = claim(hit, "uid-1")
    assert claimed is not None
    later = load_rules({"data": dump_rules([claimed])})
    assert find(later, Fault.OOM, "default", "a-2", "uid-2") is None
    again = find(later, Fault.OOM, "default", "a-1", "uid-1")
    assert again is not None
    assert claim(again, "uid-1") is None
    assert find(later, Fault.OOM, "default", "b", "uid-1") is None


@pytest.mark.parametrize(
    "text", ["{", '{"kind": "nonsense"}', '{"kind": "oom", "extra": 1}', '{"kind": "oom", "times": 0}']
)
def test_an_unreadable_rule_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="r1"):
        load_rules({"data": {"r1": text}})


@given(st.dictionaries(NAMES, NAMES), NAMES)
def test_expansion_only_touches_references(values: dict[str, str], name: str) -> None:
    assert expand(f"x$({name})y", values) == (f"x{values[name]}y" if name in values else f"x$({name})y")
    assert expand(f"$$({name})", values) == f"$({name})"


def test_mount_paths_become_folders() -> None:
    mounts = {"/opt/ml": Path("/a"), "/opt/ml/model": Path("/b")}
    assert host_path("/opt/ml/model/x", mounts) == "/b/x"
    assert host_path("--path=/opt/ml/model", mounts) == "--path=/b"
    assert host_path("/opt/mlx", mounts) == "/opt/mlx"


def test_images() -> None:
    assert split_reference("r:5000/a/b:t@sha256:x") == ("r:5000/a/b", "t", "sha256:x")
    found = resolve("hyperpod.local/echo:1")
    assert resolve(f"hyperpod.local/echo@{found.digest}") == found
    for wrong in ("hyperpod.local/echo:absent", f"hyperpod.local/echo@sha256:{'0' * 64}", "vllm/vllm-openai:latest"):
        with pytest.raises(ImageNotFoundError):
            resolve(wrong)


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), NAMES)
def test_losing_a_target_moves_only_its_requests(targets: list[str], key: str) -> None:
    chosen = choose(targets, key, 0)
    others = [target for target in targets if target != chosen]
    for gone in others:
        assert choose([target for target in targets if target != gone], key, 0) == chosen


@given(st.binary(max_size=40))
def test_any_body_has_a_routing_key(body: bytes) -> None:
    for strategy in ("prefixaware", "session", "roundrobin"):
        assert isinstance(routing_key(strategy, {}, body), str)


def staged(folder: Path) -> Path:
    files = folder / "files"
    files.mkdir()
    (files / "a.bin").write_bytes(b"abc")
    entry = {"path": "a.bin", "size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"files": [entry]}))
    return files


def test_a_shared_folder_is_checked_against_its_manifest(tmp_path: Path) -> None:
    files = staged(tmp_path)
    assert verify_folder(files).startswith("sha256:")
    (files / "a.bin").write_bytes(b"abd")
    with pytest.raises(WeightsError, match=r"a\.bin"):
        verify_folder(files)
    (files / "a.bin").write_bytes(b"abc")
    (files / "extra").touch()
    with pytest.raises(WeightsError, match="extra"):
        verify_folder(files)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"instanceType": "ml.a", "nodeAffinity": {"x": 1}}, "exactly one of"),
        ({}, "exactly one of"),
        ({"instanceType": "ml.a", "dnsConfig": {"hostedZoneId": "Z1"}}, "requires spec.tlsConfig"),
        ({"instanceType": "ml.a", "modelSourceConfig": {"modelSourceType": "fsx"}}, "fsxStorage is required"),
    ],
)
def test_cross_field_rules(spec, said: str) -> None:
    source = {"modelSourceType": "s3", "s3Storage": {"bucketName": "b", "region": "r"}}
    item = {"kind": "InferenceEndpointConfig", "spec": {"modelSourceConfig": source, **spec}}
    assert said in problems(item)[0]
