"""Where the load of one level comes from: the worker's processes or pods, decided by the rate asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from include.catalog.specs import ClusterSpec, LoadEngine, LoadSpec, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.planning import check_load, processes_for

OURS = "ours"


@dataclass(frozen=True)
class Place:
    """Where one level's generators run.

    :param pods: 0: processes of the worker.
    :param image: of the pods.
    :param install: another project's engine; ``None``: ours.
    :param managed: SageMaker runs it.
    """

    engine: str
    pods: int
    image: str = ""
    install: LoadEngine | None = None
    managed: bool = False

    @property
    def text(self) -> str:
        """For a log."""
        where = "by SageMaker" if self.managed else f"{self.pods} pods" if self.pods else "in the worker"
        return f"{self.engine}, {where}"

    @property
    def away(self) -> bool:
        """True when the task can wait for it in the triggerer."""
        return self.managed or self.pods > 0


def place_of(workload: WorkloadSpec, load: LoadSpec, cluster: ClusterSpec) -> Place:
    """Decide from what the plan says and nothing else, so that every try decides alike.

    :raises ConfigurationError: the engine is not installed, or the load needs more pods than the cluster allows.
    """
    check_load(load)
    if workload.engine != OURS:
        return _foreign(workload, cluster)
    pods = cluster.load_pods
    needed = processes_for(load, workload.prompts)
    if pods is None or needed <= pods.worker_processes or _needs_files(workload, load):
        return Place(OURS, 0)
    if needed > pods.max_pods:
        raise ConfigurationError(
            "LoadTooLarge",
            f"load {load.label} of workload {workload.name} needs {needed} load pods, cluster {cluster.name} allows "
            f"{pods.max_pods}",
            fix="Raise load_pods.max_pods of the cluster, or lower the level.",
        )
    return Place(OURS, needed, pods.image)


def places(workloads: tuple[WorkloadSpec, ...], cluster: ClusterSpec) -> Iterator[str]:
    """Yield one line per level: where its load will come from.

    :raises ConfigurationError: see :func:`place_of`.
    """
    for workload in workloads:
        for load in workload.loads:
            yield f"load of {workload.name} {load.label}: {place_of(workload, load, cluster).text}"


def _foreign(workload: WorkloadSpec, cluster: ClusterSpec) -> Place:
    from include.loadtest.foreign import sagemaker_jobs
    from include.loadtest.foreign.base import refuse
    from include.loadtest.foreign.registry import engine

    install = cluster.load_engines.get(workload.engine)
    if workload.engine == sagemaker_jobs.NAME:
        if install is None or not install.role_arn or not cluster.results_uri.startswith("s3://"):
            raise ConfigurationError(
                "EngineNotInstalled",
                f"workload {workload.name} wants {workload.engine}, which needs a role and results in S3",
                fix=f"Set load_engines.{workload.engine}.role_arn and an s3:// results_uri in the cluster's file.",
            )
        for load in workload.loads:
            sagemaker_jobs.parameters_of(workload, load, install.parameters)
        return Place(workload.engine, 0, install=install, managed=True)
    if install is None or not (install.venv or install.image):
        raise ConfigurationError(
            "EngineNotInstalled",
            f"workload {workload.name} wants engine {workload.engine}, cluster {cluster.name} does not say where it is",
            fix=f"Set load_engines.{workload.engine}.venv or .image in the cluster's file.",
        )
    for load in workload.loads:
        refuse(workload.engine, workload, load, engine(workload.engine).capabilities)
    return Place(workload.engine, 1 if install.image else 0, install.image or "", install)


def _needs_files(workload: WorkloadSpec, load: LoadSpec) -> bool:
    """Data sets and traces are files of the worker: pods do not have them."""
    return load.trace is not None or any(prompt.dataset for prompt in workload.prompts)
