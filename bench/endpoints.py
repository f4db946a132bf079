"""Many small endpoints on a local HyperPod of their own: what the lifecycle bench and its tests stand on."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.canonical import digest
from include.catalog.loader import load_catalog
from include.catalog.plan import ReleasePlan, RunIdentity
from include.catalog.specs import ModelSpec
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.lifecycle import create_endpoint
from include.endpoint.model import EndpointRef
from include.endpoint.planning import make_plan
from include.local.faultcontrol import FaultControl
from include.local.node.config import CONFIG_FILE, NodeConfig, NodeSpec
from include.local.supervisor import LocalHyperPod
from include.objects import Objects
from include.staging.model import StagedModel

REVISION = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = b"w"


@dataclass(frozen=True)
class Workbench:
    """A running local cluster and what is needed to make endpoints on it."""

    stack: LocalHyperPod
    clients: Clients
    intents: IntentLog

    @property
    def faults(self) -> FaultControl:
        """The scripted faults."""
        return FaultControl(self.stack.layout)

    def plan(self, name: str, *, queue: str | None = None, source: dict[str, Any] | None = None,
             **deployment: Any) -> ReleasePlan:  # fmt: skip
        """Return a plan for an endpoint that serves a container without a model."""
        catalog = load_catalog()
        base = {
            "engine": "echo", "image": "hyperpod.local/echo:1", "instance_type": "ml.local.cpu",
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}, "max_deploy_seconds": 3600,
            "sagemaker_endpoint": False,
        }  # fmt: skip
        model = ModelSpec.model_validate(
            {"name": name, "source": source or {"type": "folder", "path": "/none"}, "deployment": base | deployment}
        )
        cluster = catalog.cluster("local").model_copy(update={"queue_name": queue})
        run = RunIdentity(dag_id="bench", run_id=uuid.uuid4().hex, started_at=dt.datetime.now(dt.UTC))
        workload = catalog.workload("probe")
        return make_plan(run, model, cluster, (workload,), REVISION, price_book=catalog.prices)

    def create(self, plan: ReleasePlan, *, corrupt: bool = False) -> EndpointRef:
        """Put one byte of weights where the plan expects them, and create the endpoint."""
        sha256 = hashlib.sha256(b"other" if corrupt else WEIGHTS).hexdigest()
        manifest = {"files": [{"path": "m.bin", "size": 1, "sha256": sha256}]}
        uri = f"{plan.cluster.models_uri}/{plan.model_prefix}"
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.clients.s3.put_object(Bucket=bucket, Key=f"{prefix}/files/m.bin", Body=WEIGHTS)
        self.clients.s3.put_object(Bucket=bucket, Key=f"{prefix}/manifest.json", Body=json.dumps(manifest).encode())
        staged = StagedModel(
            name=plan.model.name, revision=REVISION, uri=uri, files=1, total_bytes=1,
            manifest_uri=f"{uri}/manifest.json", manifest_digest=digest(manifest),
        )  # fmt: skip
        return create_endpoint(plan, staged, self.clients, self.intents)


@contextmanager
def workbench(state: Path) -> Iterator[Workbench]:
    """Start a fresh local HyperPod below ``state``, with room for hundreds; ends it and its pods on leaving."""
    import boto3
    from kubernetes import config

    shutil.rmtree(state, ignore_errors=True)
    (state / "node").mkdir(parents=True)
    room = NodeSpec().allocatable | {"pods": "500", "cpu": "64"}
    (state / "node" / CONFIG_FILE).write_text(NodeConfig(nodes=(NodeSpec(allocatable=room),)).model_dump_json())
    with LocalHyperPod(state) as stack:
        before = dict(os.environ)
        os.environ.update(stack.environment())
        try:
            api = config.new_client_from_config(stack.environment()["KUBECONFIG"])
            clients = Clients(kube=api, session=boto3.Session(), region="us-west-2")
            yield Workbench(stack, clients, IntentLog(Objects.open(str(state / "results"))))
        finally:
            os.environ.clear()
            os.environ.update(before)
