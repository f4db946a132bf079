"""Add, list and clear scripted faults from outside: those of the cluster and those of the AWS APIs."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from include.errors import ConfigurationError
from include.local.aws.faults import ApiFault, ApiFaultKind
from include.local.faults import CONFIG_MAP, NAMESPACE, Fault, Rule, dump_rules, load_rules, new_rule
from include.local.kubeaccess import KubeAccess
from include.local.services import Layout

MAPS = f"api/v1/namespaces/{NAMESPACE}/configmaps"


@dataclass(frozen=True)
class FaultControl:
    """The faults of one running stack."""

    layout: Layout

    def add_cluster(self, kind: str, match: str, params: dict[str, str], times: int | None) -> Rule:
        """Put a fault of pods or endpoints in force."""
        rule = new_rule(match, kind, params, times)
        data = dump_rules([rule])
        if self._config_map() is None:
            self._kube.call("POST", MAPS, {"metadata": {"name": CONFIG_MAP}, "data": data})
        else:
            self._kube.call("PATCH", f"{MAPS}/{CONFIG_MAP}", {"data": data})
        return rule

    def add_api(self, fault: ApiFault) -> ApiFault:
        """Put a fault of the AWS APIs in force."""
        self._gateway("POST", fault.model_dump(mode="json"))
        return fault

    def cluster(self) -> tuple[Rule, ...]:
        """Faults of pods and endpoints."""
        return load_rules(self._config_map())

    def api(self) -> list[dict[str, Any]]:
        """Faults of the AWS APIs."""
        return list(self._gateway("GET"))

    def clear(self, rule_id: str | None = None) -> int:
        """Lift one fault, or all; return how many.

        :raises ConfigurationError: when there is no fault with that id.
        """
        count = self.clear_cluster(rule_id) + self.clear_api(rule_id)
        if rule_id and not count:
            raise ConfigurationError("UnknownFault", f"there is no fault {rule_id!r}", fix="see `fault list`")
        return count

    def clear_cluster(self, rule_id: str | None = None) -> int:
        """Lift one fault of pods or endpoints, or all; return how many."""
        # By key and unparsed: a rule that nobody can read must be possible to lift.
        names = [name for name in (self._config_map() or {}).get("data") or {} if rule_id in (None, name)]
        if names:
            self._kube.call("PATCH", f"{MAPS}/{CONFIG_MAP}", {"data": dict.fromkeys(names)})
        return len(names)

    def clear_api(self, rule_id: str | None = None) -> int:
        """Lift one fault of the AWS APIs, or all; return how many."""
        rules = self.api()
        kept = [rule for rule in rules if rule_id not in (None, rule["id"])]
        if len(kept) < len(rules):
            self._gateway("PUT", kept)
        return len(rules) - len(kept)

    @property
    def _kube(self) -> KubeAccess:
        return KubeAccess.read(self.layout.kubeconfig)

    def _config_map(self) -> dict[str, Any] | None:
        try:
            return dict(self._kube.call("GET", f"{MAPS}/{CONFIG_MAP}"))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _gateway(self, method: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"{self.layout.url('aws')}/_local/faults", data, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=10) as answer:
            return json.loads(answer.read())


def lift_faults(layout: Layout, keeper: str) -> int:
    """Lift the faults that ``kube`` or ``aws`` still holds from an earlier session; return how many."""
    control = FaultControl(layout)
    return control.clear_cluster() if keeper == "kube" else control.clear_api()


def kinds() -> tuple[str, ...]:
    """Every kind of fault, those of the AWS APIs last."""
    return tuple(str(kind) for kind in (*Fault, *ApiFaultKind))


def is_api_kind(kind: str) -> bool:
    """True for a fault of the AWS APIs."""
    return kind in set(ApiFaultKind)
