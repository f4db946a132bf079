"""The model's container: arguments, environment, volume, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator

from include.catalog.serving import SecretRef
from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

# [registry[:port]/]path[:tag][@digest]; distribution's reference grammar, without its limits on each part.
IMAGE = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9._/-]*(:[0-9]+/[a-zA-Z0-9._/-]+)?(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
                   r"(@sha256:[0-9a-f]{64})?$")  # fmt: skip
SECRET_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")
SECRET_KEY = re.compile(r"^[-._a-zA-Z0-9]{1,253}$")
VOLUME_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
ENV_NAME = re.compile(r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")
DEFAULT_MOUNT = "/opt/ml/model"
SECRET_LIKE = re.compile(r"(^|_)(TOKEN|PASSWORD|SECRET|SECRET_KEY|API_KEY)$")


def served_name(context: RenderContext) -> Iterator[Problem]:
    """The name that requests carry is the name that the server was started with."""
    deployment = context.model.deployment
    for index, argument in enumerate(deployment.args):
        key, _, inline = argument.partition("=")
        if key != "--served-model-name":
            continue
        given = inline or (deployment.args[index + 1] if index + 1 < len(deployment.args) else "")
        expected = deployment.served_model_name
        if expected is None:
            yield problem("deployment.served_model_name", "absent", f"set it to {given!r}, as in args")
        elif given != expected:
            yield problem("deployment.served_model_name", expected, f"args start the server as {given!r}")


def image(context: RenderContext) -> Iterator[Problem]:
    """The image is a reference that a node can pull; the schema takes any text."""
    written = context.model.deployment.image
    if written and not IMAGE.match(written):
        yield problem("deployment.image", written, "must be [registry/]name[:tag][@sha256:…]")


def volume(context: RenderContext) -> Iterator[Problem]:
    """The operator makes a pod of them: what Kubernetes refuses there never becomes ready."""
    deployment = context.model.deployment
    name, mounted, directory = deployment.volume.name, deployment.volume.mount_path, deployment.working_dir
    if not VOLUME_NAME.match(name):
        yield problem("deployment.volume.name", name, "must be a DNS label: a-z, 0-9 and -, at most 63 characters")
    if mounted == "/" or ".." in mounted.split("/") or ":" in mounted:
        yield problem("deployment.volume.mount_path", mounted, "must be a folder of its own, without .. and :")
    if directory and not directory.startswith("/"):
        yield problem("deployment.working_dir", directory, "must be an absolute path")
    location = deployment.model_location
    rooted = deployment.model_source in ("s3", "fsx") and (location or "").startswith("/")
    if location and (rooted or ".." in location.split("/")):
        yield problem(
            "deployment.model_location", location, "must be a path inside the store, without .. or a leading /"
        )


def mount_path(context: RenderContext) -> Iterator[Problem]:
    """Arguments that name the default mount path need it."""
    deployment = context.model.deployment
    mounted = deployment.volume.mount_path
    if not mounted.startswith("/"):
        yield problem("deployment.volume.mount_path", mounted, "must be an absolute path")
    if mounted == DEFAULT_MOUNT:
        return
    for index, argument in enumerate(deployment.args):
        if DEFAULT_MOUNT in argument and mounted not in argument:
            fix = f"the weights are at {mounted} (deployment.volume.mount_path)"
            yield problem(f"deployment.args[{index}]", argument, fix)


def environment(context: RenderContext) -> Iterator[Problem]:
    """Names are legal, and secrets come from a Secret."""
    for name, value in context.model.deployment.env.items():
        if not ENV_NAME.match(name):
            yield problem(f"deployment.env.{name}", name, "must be a legal environment variable name")
        if isinstance(value, SecretRef):
            for part, text, legal in (("secret", value.secret, SECRET_NAME), ("key", value.key, SECRET_KEY)):
                if not legal.match(text):
                    yield problem(f"deployment.env.{name}.{part}", text, f"is no {part} of a Kubernetes Secret")
        if isinstance(value, str) and value and SECRET_LIKE.search(name):
            fix = "do not write secrets here: use {secret: <name>, key: <key>}"
            yield problem(f"deployment.env.{name}", "***", fix)


def paths(context: RenderContext) -> Iterator[Problem]:
    """Health path absolute; invocation path relative to host and port."""
    deployment = context.model.deployment
    if not deployment.health_path.startswith("/") or any(mark.isspace() for mark in deployment.health_path):
        yield problem("deployment.health_path", deployment.health_path, "must start with / and hold no spaces")
    written = deployment.invocation_path
    if written.startswith("/") or "://" in written or not written:
        yield problem("deployment.invocation_path", written, "must be the path after host:port, without a leading /")


def request_limits(context: RenderContext) -> Iterator[Problem]:
    """Request limits live in the metrics sidecar."""
    deployment = context.model.deployment
    limits, metrics = deployment.request_limits, deployment.metrics
    if limits is None:
        return
    if metrics is not None and metrics.enabled is False:
        yield problem("deployment.metrics.enabled", False, "request_limits need the metrics sidecar; set it to true")
    if limits.max_concurrent_requests is None:
        yield problem(
            "deployment.request_limits.max_concurrent_requests", "absent", "set how many requests may run at once"
        )


def init_containers(context: RenderContext) -> Iterator[Problem]:
    """Init containers have names of their own."""
    options = context.model.deployment.kubernetes
    seen = {context.name}
    for index, item in enumerate(options.init_containers if options else ()):
        name = str(item.get("name", ""))
        if name in seen:
            yield problem(f"deployment.kubernetes.init_containers[{index}].name", name, "must be unique in the pod")
        seen.add(name)


RULES = (served_name, image, volume, mount_path, environment, paths, request_limits, init_containers)
