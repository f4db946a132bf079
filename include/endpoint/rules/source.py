"""Where the weights come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from include.catalog.specs import HuggingFaceSource
from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

COMMIT = re.compile(r"^[0-9a-f]{40}$")
FILE_SYSTEM = re.compile(r"^fs-[0-9a-f]{8,40}$")


def storage_matches(context: RenderContext) -> Iterator[Problem]:
    """Options of one store are of no use with another."""
    deployment = context.model.deployment
    for option, value, source in (
        ("fsx", deployment.fsx, "fsx"),
        ("huggingface", deployment.huggingface, "huggingface"),
    ):
        if value is not None and deployment.model_source != source:
            fix = f"only for model_source {source}; remove it or change model_source"
            yield problem(f"deployment.{option}", "present", fix)
    if deployment.model_source == "huggingface" and deployment.model_location is not None:
        yield problem(
            "deployment.model_location", deployment.model_location, "a Hugging Face model has none; remove it"
        )


def file_system(context: RenderContext) -> Iterator[Problem]:
    """An FSx source needs a file system, from the model or the cluster."""
    deployment = context.model.deployment
    if deployment.model_source != "fsx":
        return
    written = deployment.fsx.file_system_id if deployment.fsx else None
    used = written or context.cluster.fsx_file_system_id
    if used is None:
        yield problem("deployment.fsx.file_system_id", "absent", "set it, or fsx_file_system_id on the cluster")
    elif not FILE_SYSTEM.match(used):
        yield problem("deployment.fsx.file_system_id", used, "must look like fs-0123456789abcdef0")


def pinned_commit(context: RenderContext) -> Iterator[Problem]:
    """Pods that download a repository themselves must all get the same commit."""
    deployment = context.model.deployment
    if deployment.model_source != "huggingface" or deployment.kind != "InferenceEndpointConfig":
        return
    hub = deployment.huggingface
    own = isinstance(context.model.source, HuggingFaceSource)
    if not own and not (hub and hub.model_id):
        yield problem("deployment.huggingface.model_id", "absent", "set it, or use a huggingface source")
    commit = (hub and hub.commit_sha) or (context.revision if own else "")
    if not COMMIT.match(commit):
        yield problem("deployment.huggingface.commit_sha", commit or "absent", "pin the commit: 40 hexadecimal digits")


def kubernetes_volume(context: RenderContext) -> Iterator[Problem]:
    """A Kubernetes volume source names a volume of the pod (inferred from the schema)."""
    deployment = context.model.deployment
    if deployment.kind == "JumpStartModel":
        return
    volumes = deployment.kubernetes.volumes if deployment.kubernetes else ()
    volume_names = [str(volume.get("name")) for volume in volumes]
    mounted = deployment.volume.name
    if deployment.model_source == "kubernetesVolume" and mounted not in volume_names:
        fix = f"add a volume named {mounted!r}, the name in deployment.volume"
        yield problem("deployment.kubernetes.volumes", volume_names, fix)
    if deployment.model_source != "kubernetesVolume" and mounted in volume_names:
        yield problem("deployment.kubernetes.volumes", mounted, "this name is the model volume's; rename the other one")


def staged_in_s3(context: RenderContext) -> Iterator[Problem]:
    """The operator mounts a bucket: the store must be one."""
    parts = urlsplit(context.cluster.models_uri)
    if parts.scheme != "s3" or not parts.netloc:
        yield problem("cluster.models_uri", context.cluster.models_uri, "must be s3://bucket[/prefix]")


RULES = (storage_matches, file_system, pinned_commit, kubernetes_volume, staged_in_s3)
