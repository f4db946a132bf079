"""Names, labels and tags: what Kubernetes and SageMaker accept."""

from __future__ import annotations

import re
from collections.abc import Iterator

from include.endpoint import names
from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

DNS_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
LABEL_VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
LABEL_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
MAX_TAGS, MAX_TAG_KEY, MAX_TAG_VALUE = 50, 128, 256


def derived_names(context: RenderContext) -> Iterator[Problem]:
    """The names that the operator derives must stay DNS labels of 63 characters."""
    name, namespace = context.name, context.cluster.namespace
    if not DNS_LABEL.match(namespace) or len(namespace) > names.MAX_LABEL:
        yield problem("cluster.namespace", namespace, "must be a DNS label: a-z, 0-9 and -, at most 63 characters")
        return
    if not DNS_LABEL.match(name) or len(name) > 40:
        yield problem("endpoint name", name, "must be a DNS label of at most 40 characters")
        return
    longest = names.service_name(name)
    if context.model.deployment.routing:
        longest = max(names.router_service_name(name, namespace), longest, key=len)
    if len(longest) > names.MAX_LABEL:
        over = len(longest) - names.MAX_LABEL
        fix = f"the operator would name an object {longest!r}, {over} character(s) too long: use a shorter namespace"
        yield problem("cluster.namespace", namespace, fix)


def labels_and_annotations(context: RenderContext) -> Iterator[Problem]:
    """Labels must be well-formed, and ours are not for writing by hand."""
    deployment = context.model.deployment
    governed = {
        "cluster.queue_name": context.cluster.queue_name,
        "deployment.priority_class": deployment.priority_class,
    }
    for field, value in governed.items():
        if value and (not LABEL_VALUE.match(value) or len(value) > names.MAX_LABEL):
            yield problem(field, value, "must be a label value: letters, digits, -_. and at most 63 characters")
    for field, items in (("labels", deployment.labels), ("annotations", deployment.annotations)):
        for key, value in items.items():
            where = f"deployment.{field}.{key}"
            if not LABEL_KEY.match(key):
                yield problem(where, key, "must be [prefix/]name, the name at most 63 characters")
            elif (key.startswith(f"{names.PREFIX}/") and key != names.PROTECTED) or key == names.MANAGED_BY:
                yield problem(where, value, "this key belongs to the pipeline; remove it")
            elif field == "labels" and (not LABEL_VALUE.match(value) or len(value) > names.MAX_LABEL):
                yield problem(where, value, "must be a label value of at most 63 characters")


def tags(context: RenderContext) -> Iterator[Problem]:
    """SageMaker's limits on tags, and the tags that the operator sets itself."""
    written = context.model.deployment.tags
    if len(written) > MAX_TAGS:
        yield problem("deployment.tags", len(written), f"SageMaker takes at most {MAX_TAGS} tags")
    for key, value in written.items():
        where = f"deployment.tags.{key}"
        if key.lower().startswith("aws:") or key == names.OPERATOR_TAG[0]:
            yield problem(where, key, "this key is reserved; use another")
        if not 0 < len(key) <= MAX_TAG_KEY:
            yield problem(where, key, f"a tag key has 1 to {MAX_TAG_KEY} characters")
        if len(value) > MAX_TAG_VALUE:
            yield problem(where, value, f"a tag value has at most {MAX_TAG_VALUE} characters")


RULES = (derived_names, labels_and_annotations, tags)
