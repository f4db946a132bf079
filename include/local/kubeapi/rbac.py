"""Who may do what: the stored roles and bindings, evaluated as Kubernetes does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from include.local.kubeapi.store import Store

GROUP = "rbac.authorization.k8s.io"


def allowed(store: Store, user: str, groups: tuple[str, ...], verb: str, attributes: dict[str, str]) -> bool:
    """True when a rule bound to the user or one of the groups grants ``verb`` on the resource.

    :param attributes: ``group``, ``resource`` (with ``/subresource``), ``namespace``, ``name``.
    """
    if "system:masters" in groups:
        return True
    return any(_grants(rule, verb, attributes) for rule in _rules(store, user, groups, attributes["namespace"]))


def _rules(store: Store, user: str, groups: tuple[str, ...], namespace: str) -> Iterator[dict[str, Any]]:
    for plural, where in ((f"clusterrolebindings.{GROUP}", ""), (f"rolebindings.{GROUP}", namespace)):
        for (resource, binding_namespace, _), binding in store.objects.items():
            if resource != plural or (where and binding_namespace != where):
                continue
            if any(_is(subject, user, groups) for subject in binding.get("subjects") or ()):
                reference = binding["roleRef"]
                cluster_wide = reference["kind"] == "ClusterRole"
                key = (
                    f"{'clusterroles' if cluster_wide else 'roles'}.{GROUP}",
                    "" if cluster_wide else binding_namespace,
                    reference["name"],
                )
                yield from store.objects.get(key, {}).get("rules") or ()


def _is(subject: dict[str, Any], user: str, groups: tuple[str, ...]) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}"
    return bool(subject["name"] == user) if subject["kind"] == "User" else subject["name"] in groups


def _grants(rule: dict[str, Any], verb: str, attributes: dict[str, str]) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        _in(verb, rule.get("verbs"))
        and _in(attributes["group"], rule.get("apiGroups"))
        and _in(attributes["resource"], rule.get("resources"))
        and (not names or attributes["name"] in names)
    )


def _in(value: str, allowed_values: Any) -> bool:
    return "*" in (allowed_values or ()) or value in (allowed_values or ())
