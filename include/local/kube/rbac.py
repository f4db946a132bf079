"""What a user may do: evaluation of the stored roles and bindings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from include.local.kube.errors import ApiError, forbidden
from include.local.kube.selectors import matches_selector
from include.local.kube.store import Store
from include.local.kube.users import AUTHENTICATED, User

Object = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"
_OPEN_PATHS = ("/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz")
_SELF_REVIEWS = frozenset({"selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"})


@dataclass(frozen=True)
class Attributes:
    """One thing that somebody wants to do; ``path`` is set for requests that are not about a resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def full_resource(self) -> str:
        """The resource as rules name it: ``pods/log``."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True)
class Rules:
    """The RBAC objects of a store."""

    store: Store

    def allows(self, user: User, wanted: Attributes) -> bool:
        """Return whether the user may do it."""
        if user.is_master or (wanted.resource in _SELF_REVIEWS and wanted.verb == "create"):
            return True
        if wanted.path and wanted.verb == "get" and wanted.path.startswith(_OPEN_PATHS):
            return True
        return any(_covers(rule, wanted) for rule in self.rules_for(user, wanted.namespace))

    def rules_for(self, user: User, namespace: str) -> Iterator[Object]:
        """Yield every rule that applies to the user, cluster-wide and in a namespace."""
        for binding in self.store.records(f"{_GROUP}/clusterrolebindings"):
            if _binds(binding.object, user):
                yield from self._role(binding.object["roleRef"], "")
        if not namespace:
            return
        for binding in self.store.records(f"{_GROUP}/rolebindings", namespace):
            if _binds(binding.object, user):
                yield from self._role(binding.object["roleRef"], namespace)

    def _role(self, reference: Object, namespace: str) -> Iterator[Object]:
        if reference["kind"] == "Role":
            record = self.store.get(f"{_GROUP}/roles", namespace, reference["name"])
        else:
            record = self.store.get(f"{_GROUP}/clusterroles", "", reference["name"])
        if record is None:
            return
        yield from record.object.get("rules") or ()
        for selector in (record.object.get("aggregationRule") or {}).get("clusterRoleSelectors", ()):
            for other in self.store.records(f"{_GROUP}/clusterroles"):
                if other is not record and matches_selector(selector, other.object["metadata"].get("labels", {})):
                    yield from other.object.get("rules") or ()

    def require(self, user: User, wanted: Attributes) -> None:
        """Refuse what no rule allows.

        :raises ApiError: 403 with the sentence of a Kubernetes API server.
        """
        if self.allows(user, wanted):
            return
        if wanted.path:
            why = f'forbidden: User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
            raise ApiError(403, "Forbidden", why, {})
        scope = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
        why = (
            f'User "{user.name}" cannot {wanted.verb} resource "{wanted.full_resource}" '
            f'in API group "{wanted.group}" {scope}'
        )
        raise forbidden(wanted.name, wanted.resource, wanted.group, why)


def _binds(binding: Object, user: User) -> bool:
    groups = {*user.groups, AUTHENTICATED}
    for subject in binding.get("subjects") or ():
        if subject["kind"] == "User" and subject["name"] == user.name:
            return True
        if subject["kind"] == "Group" and subject["name"] in groups:
            return True
        account = f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}"
        if subject["kind"] == "ServiceAccount" and account == user.name:
            return True
    return False


def _covers(rule: Object, wanted: Attributes) -> bool:
    if not _any(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(_path_matches(pattern, wanted.path) for pattern in rule.get("nonResourceURLs") or ())
    if not _any(rule.get("apiGroups"), wanted.group):
        return False
    resources = rule.get("resources") or ()
    if not _any(resources, wanted.full_resource) and f"*/{wanted.subresource}" not in resources:
        return False
    names = rule.get("resourceNames")
    return not names or (bool(wanted.name) and wanted.name in names)


def _any(values: Any, wanted: str) -> bool:
    return bool(values) and ("*" in values or wanted in values)


def _path_matches(pattern: str, path: str) -> bool:
    return pattern == path or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def review_access(rules: Rules, user: User, body: Object) -> Object:
    """Answer a SelfSubjectAccessReview."""
    spec = body.get("spec") or {}
    if "resourceAttributes" in spec:
        asked = spec["resourceAttributes"]
        wanted = Attributes(
            verb=asked.get("verb", ""),
            group=asked.get("group", ""),
            resource=asked.get("resource", ""),
            subresource=asked.get("subresource", ""),
            namespace=asked.get("namespace", ""),
            name=asked.get("name", ""),
        )
    else:
        asked = spec.get("nonResourceAttributes") or {}
        wanted = Attributes(verb=asked.get("verb", ""), path=asked.get("path", ""))
    allowed = rules.allows(user, wanted)
    status = {"allowed": allowed} | ({"reason": "RBAC: allowed"} if allowed else {})
    return {**body, "metadata": {"creationTimestamp": None}, "status": status}


def review_rules(rules: Rules, user: User, body: Object) -> Object:
    """Answer a SelfSubjectRulesReview."""
    namespace = (body.get("spec") or {}).get("namespace", "default")
    found = list(rules.rules_for(user, namespace))
    if user.is_master:
        found.append({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
    status = {
        "resourceRules": [rule for rule in found if "resources" in rule],
        "nonResourceRules": [rule for rule in found if "nonResourceURLs" in rule],
        "incomplete": False,
    }
    return {**body, "metadata": {"creationTimestamp": None}, "status": status}


def review_self(user: User, body: Object) -> Object:
    """Answer a SelfSubjectReview."""
    info = {"username": user.name, "groups": [*user.groups, AUTHENTICATED]}
    return {**body, "metadata": {"creationTimestamp": None}, "status": {"userInfo": info}}
