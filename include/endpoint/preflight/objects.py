"""Preflight checks of what the plan names: the object itself, secrets, image, stores."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from include.catalog.plan import ReleasePlan
from include.catalog.serving import ConfigMapRef, SecretRef
from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.crds import schema_of
from include.endpoint.lifecycle import main_object, sagemaker_name
from include.endpoint.model import Check
from include.endpoint.preflight.cluster import failed, passed, skipped
from include.endpoint.resources import (
    CONFIG_MAPS,
    DEFINITIONS,
    ENDPOINT_KINDS,
    SECRETS,
)
from include.endpoint.schema import check
from include.errors import PipelineError

ECR = re.compile(r"^(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?::([^@]+))?(?:@(sha256:.+))?$")


def name_free(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The name is free, or already ours from an earlier try; on SageMaker it is free or will be adopted with it."""
    name, where = "name free", f"{plan.cluster.namespace}/{plan.endpoint_name}"
    existing = clients.api.get(ENDPOINT_KINDS[plan.model.deployment.kind], plan.endpoint_name, plan.cluster.namespace)
    owner = names.label(existing, names.OWNER) if existing else ""
    if existing is not None and owner != plan.run.owner:
        yield failed(name, where, f"exists, owner {owner or 'unknown'}", "delete it if it is yours")
        return
    left = sagemaker_name(plan)
    if existing is None and left is not None and clients.session is not None:
        from include.endpoint.awsfacts import sagemaker_facts

        found = sagemaker_facts(left, clients)
        if found is not None and found.exists:
            # The operator would silently attach the new endpoint to the old SageMaker objects.
            fix = f"delete SageMaker endpoint {left} with its config and model (or let reap_endpoints do it)"
            yield failed(name, f"no SageMaker endpoint {left}", f"exists: {found.status}", fix)
            return
    yield passed(name, where if existing is None else f"{where} is this run's own")


def dry_run(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The API accepts the object (server-side dry run, strict), by the definition that this cluster serves."""
    kind = plan.model.deployment.kind
    resource, body = ENDPOINT_KINDS[kind], main_object(plan, None, expires_at=dt.datetime.now(dt.UTC))
    if kind != "direct":
        yield from _served_schema(plan, clients)
    name = "dry run"
    try:
        clients.api.create(resource, body, plan.cluster.namespace, dry_run=True)
    except LookupError:
        yield failed(name, plan.cluster.namespace, "namespace or resource does not exist", "create the namespace")
    except PipelineError as error:
        if error.reason == "AlreadyExists":
            yield passed(name, "exists already")
        else:
            lines = "; ".join(error.evidence) or error.message
            yield failed(name, "accepted", lines, error.fix)
    else:
        yield passed(name, "accepted")


def _served_schema(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    resource, name = ENDPOINT_KINDS[plan.model.deployment.kind], "definition knows every field"
    definition = clients.api.get(DEFINITIONS, f"{resource.plural}.{resource.group}")
    if definition is None:
        return
    try:
        schema = schema_of(definition, resource.version)["properties"]["spec"]
    except KeyError:
        yield failed(name, resource.api_version, "not served", "upgrade the operator")
        return
    found = check(plan.custom_resource["spec"], schema)
    if found:
        fix = "the operator on this cluster does not have these fields: upgrade it, or remove them"
        yield failed(name, "no problem", "; ".join(str(item) for item in found), fix)
    else:
        yield passed(name, f"{len(plan.custom_resource['spec'])} fields of spec")


def secrets_exist(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """Secrets and config maps that the pod names exist and have the key; values are not looked at."""
    deployment = plan.model.deployment
    wanted: list[tuple[str, str, str]] = []
    references = [*deployment.env.values(), deployment.huggingface and deployment.huggingface.token]
    for value in references:
        if isinstance(value, SecretRef) and not value.optional:
            wanted.append(("Secret", value.secret, value.key))
        if isinstance(value, ConfigMapRef) and not value.optional:
            wanted.append(("ConfigMap", value.config_map, value.key))
    for kind, name, key in dict.fromkeys(wanted):
        resource = SECRETS if kind == "Secret" else CONFIG_MAPS
        item = clients.api.get(resource, name, plan.cluster.namespace)
        label = f"{kind} {name}"
        if item is None or key not in (item.get("data") or {}):
            observed = "no such object" if item is None else "it has no such key"
            fix = f"create it: kubectl -n {plan.cluster.namespace} create {kind.lower()} generic {name}"
            yield failed(label, f"key {key}", observed, fix if kind == "Secret" else "create it with that key")
        else:
            yield passed(label, f"has key {key}")


def image_exists(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """An image in ECR exists; other registries are left to the nodes."""
    image, name = plan.model.deployment.image, "image exists"
    if not image:
        return
    matched = ECR.match(image)
    if matched is None or clients.session is None:
        yield skipped(name, f"{image} is not in ECR: the nodes will tell")
        return
    account, region, repository, tag, digest = matched.groups()
    if region != plan.cluster.region:
        yield skipped(name, f"{image} is in region {region}, the cluster in {plan.cluster.region}")
        return
    from botocore.exceptions import BotoCoreError, ClientError

    wanted = {"imageDigest": digest} if digest else {"imageTag": tag or "latest"}
    try:
        clients.ecr.describe_images(registryId=account, repositoryName=repository, imageIds=[wanted])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("ImageNotFoundException", "RepositoryNotFoundException"):
            yield failed(name, image, code, "correct the image's repository and tag")
        else:
            yield skipped(name, f"{image}: {code} (public and other accounts' registries cannot be asked)")
    except BotoCoreError as error:
        yield skipped(name, f"{image}: {error}")
    else:
        yield passed(name, image)


def stores_reachable(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The buckets for models and certificates exist and this identity reaches them."""
    from botocore.exceptions import BotoCoreError, ClientError

    uris = {"models_uri": plan.cluster.models_uri}
    tls = plan.model.deployment.tls
    output = (tls.output_uri if tls else None) or plan.cluster.tls_output_uri
    if output and plan.model.deployment.kind != "direct":
        uris["tls_output_uri"] = output
    for field, uri in uris.items():
        bucket = urlsplit(uri).netloc
        try:
            clients.s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            fix = "create the bucket" if code in ("404", "NoSuchBucket") else "let this identity read it (deploy/iam)"
            yield failed(f"bucket of {field}", bucket, code, fix)
        except BotoCoreError as error:
            yield failed(f"bucket of {field}", bucket, str(error), "check credentials and region of the AWS connection")
        else:
            yield passed(f"bucket of {field}", bucket)
