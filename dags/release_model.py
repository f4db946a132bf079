"""### Release a model to a HyperPod endpoint

Takes one model from its weights to a measured endpoint, and gives the GPUs back.

| task | what it does | spends |
|---|---|---|
| `plan` | pins the revision, renders the custom resource, forecasts the cost | nothing |
| `preflight` | API, CRD, rights, capacity, instance type, name | nothing |
| `stage` | weights to S3, verified; nothing moves when they are there | storage |
| `create_endpoint` | applies the custom resource; adopts its own on a retry | GPUs |
| `wait_until_ready` | waits in the triggerer; fails early with the cause | GPUs |
| `validate` | health, model identity, a streamed completion, live = asked | GPUs |
| `benchmark` | every workload and load level, holding the endpoint's lease | GPUs |
| `record` | JSON, Parquet, HTML report and an asset event | nothing |
| `teardown` | deletes, and proves absence on both planes | nothing |
| `conclude` | red when any stage failed, with the sentence why | nothing |

Trigger it with the form, or let `refresh_models` start it through the asset `hyperpod/candidates`.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from hyperpod.assets import CANDIDATES
from hyperpod.defaults import DEFAULT_ARGS
from hyperpod.task_groups.release import release_stages


def _number(title: str, maximum: float | None = None) -> Param:
    limits = {"maximum": maximum} if maximum else {}
    return Param(None, type=["null", "number"], exclusiveMinimum=0, title=title, section="SLO", **limits)


PARAMS = {
    "model": Param(
        "smollm2-135m",
        type="string",
        minLength=1,
        examples=["smollm2-135m", "smollm2-135m-long"],
        description_md="Name of a file in `include/catalog/models`",
    ),
    "revision": Param(None, type=["null", "string"], description_md="Empty: what the source has now"),
    "cluster": Param("local", type="string", minLength=1, examples=["local"]),
    "workloads": Param(
        ["smoke"],
        type="array",
        items={"type": "string"},
        minItems=1,
        uniqueItems=True,
        examples=["smoke", "chat", "rag", "shared-prefix"],
    ),
    "after_benchmark": Param("tear-down", type="string", enum=["tear-down", "keep"], title="After the benchmark"),
    "ttl_hours": Param(4, type="number", exclusiveMinimum=0, maximum=168, title="Delete at the latest after (hours)"),
    "hold_failed_hours": Param(
        0, type="number", minimum=0, maximum=72, title="When it fails, hold the endpoint for debugging (hours)"
    ),
    "budget_usd": Param(None, type=["null", "number"], minimum=0, title="Budget, USD"),
    "slo_ttft_ms": _number("TTFT at most, ms"),
    "slo_tpot_ms": _number("TPOT at most, ms"),
    "slo_e2e_ms": _number("End to end at most, ms"),
    "slo_error_rate": Param(None, type=["null", "number"], minimum=0, maximum=1, title="Error rate", section="SLO"),
}


@dag(
    schedule=[CANDIDATES],
    catchup=False,
    max_active_runs=4,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["hyperpod", "release"],
    doc_md=__doc__,
)
def release_model() -> None:
    """Release one model."""
    release_stages()


release_model()
