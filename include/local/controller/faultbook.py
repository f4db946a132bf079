"""The fault rules as a running controller sees them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from include.local.controller.api import Api, ApiError
from include.local.controller.informer import Informer
from include.local.controller.resources import CONFIG_MAPS, Object
from include.local.faults import CONFIG_MAP, NAMESPACE, Fault, Rule, claim, dump_rules, find, load_rules

logger = logging.getLogger(__name__)
CLAIM_ATTEMPTS = 20


class FaultBook:
    """Rules from an informer on the ConfigMaps of the system namespace."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.informer = Informer(api, CONFIG_MAPS, NAMESPACE)

    def listen(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` whenever the rules change."""

        def on_change(item: Object) -> None:
            if item["metadata"]["name"] == CONFIG_MAP:
                changed()

        self.informer.listen(on_change)

    def rules(self) -> tuple[Rule, ...]:
        """All rules; an unreadable book counts as empty and is logged."""
        try:
            return load_rules(self.informer.get(NAMESPACE, CONFIG_MAP))
        except ValueError as error:
            logger.error("%s", error)
            return ()

    def any(self, kind: Fault) -> bool:
        """True when a rule of this kind exists, whatever it matches."""
        return any(rule.kind == kind for rule in self.rules())

    async def active(self, kind: Fault, namespace: str, name: str, uid: str) -> Rule | None:
        """Return the rule that hits a target now, after writing down that it did."""
        rule = find(self.rules(), kind, namespace, name, uid)
        if rule is None or claim(rule, uid) is None:
            return rule
        return await self._claim(kind, namespace, name, uid)

    async def _claim(self, kind: Fault, namespace: str, name: str, uid: str) -> Rule | None:
        for _ in range(CLAIM_ATTEMPTS):
            book = await self._api.get(CONFIG_MAPS, NAMESPACE, CONFIG_MAP)
            rule = find(load_rules(book), kind, namespace, name, uid)
            claimed = claim(rule, uid) if rule else None
            if book is None or claimed is None:
                return rule
            version = {"resourceVersion": book["metadata"]["resourceVersion"]}
            change = {"metadata": version, "data": dump_rules([claimed])}
            try:
                await self._api.patch(CONFIG_MAPS, NAMESPACE, CONFIG_MAP, change)
            except ApiError as error:
                if error.status == 409:
                    continue
                raise
            return claimed
        raise ApiError(409, "Conflict", f"could not claim fault {kind} for {namespace}/{name}")
