"""An exclusive lease on an endpoint while it is measured (coordination.k8s.io/v1)."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from types import TracebackType
from typing import Any

from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.kube import Kube
from include.endpoint.resources import LEASES
from include.errors import FailureClass, PipelineError

log = logging.getLogger(__name__)

POLL_S = 0.5
BEATS_PER_DURATION = 3


class EndpointLease:
    """Hold an endpoint exclusively; a heartbeat thread renews the lease.

    Another holder's lease is taken over only after it was seen unchanged for its whole duration, by this
    machine's own clock: clocks of two machines are never compared.

    :param holder: unique for each try of each run.
    :param duration_s: after so many seconds without a heartbeat others may take it.
    :param wait_s: how long to wait for another holder.
    """

    def __init__(
        self,
        clients: Clients,
        namespace: str,
        name: str,
        holder: str,
        duration_s: float = 15,
        *,
        wait_s: float = 600,
    ) -> None:
        self.namespace, self.name, self.holder = namespace, name, holder
        self.duration_s, self.wait_s = duration_s, wait_s
        self._api = Kube(clients.kube, patience_s=duration_s / BEATS_PER_DURATION)
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None
        self._transitions = 0
        self._uid = ""
        self._continued = False
        self._handed_on = False

    @property
    def lease_id(self) -> str:
        """``<uid>/<transitions>/<holder>``: names this holding of the lease and no other."""
        return f"{self._uid}/{self._transitions}/{self.holder}"

    @property
    def lost(self) -> bool:
        """True when the lease was not ours for a moment: the measurement was not exclusive."""
        return self._lost.is_set()

    def hand_on(self) -> None:
        """Leave the lease as it is on exit: another process goes on holding it, under the same holder's name."""
        self._handed_on = True

    def continues(self, lease_id: str) -> bool:
        """True when this holding took over from the one with that id, which had the same holder's name.

        Whoever holds the lease in between deletes it or leaves another name in it.
        """
        return self._continued and lease_id.partition("/")[0] == self._uid

    def __enter__(self) -> EndpointLease:
        """Take the lease, waiting for another holder to finish or to die."""
        self._acquire()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{self.name}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if not self.lost and not self._handed_on:
            self._release()

    def _acquire(self) -> None:
        deadline = time.monotonic() + self.wait_s
        seen, since = "", time.monotonic()
        while True:
            current = self._api.get(LEASES, self.name, self.namespace)
            if current is None:
                if self._create():
                    return
                continue
            if _mark(current) != seen:
                seen, since = _mark(current), time.monotonic()
            if self._free(current, time.monotonic() - since) and self._take(current):
                self._continued = (current.get("spec") or {}).get("holderIdentity") == self.holder
                return
            if time.monotonic() > deadline:
                holder = current["spec"].get("holderIdentity")
                raise PipelineError(
                    "EndpointBusy",
                    f"lease {self.namespace}/{self.name} is held by {holder} for {self.wait_s:.0f} s",
                    fix="wait for the other measurement, or find out why it does not end",
                    failure_class=FailureClass.CAPACITY,
                )
            self._stop.wait(POLL_S)

    def _free(self, current: dict[str, Any], unchanged_s: float) -> bool:
        spec = current.get("spec") or {}
        if not spec.get("holderIdentity") or spec["holderIdentity"] == self.holder:
            return True
        return unchanged_s > float(spec.get("leaseDurationSeconds") or self.duration_s)

    def _spec(self, transitions: int) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(int(self.duration_s), 1),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _create(self) -> bool:
        body = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {names.MANAGED_BY: names.MANAGER},
            },
            "spec": self._spec(0),
        }
        try:
            self._hold(self._api.create(LEASES, body, self.namespace))
        except PipelineError as error:
            if error.reason != "AlreadyExists":
                raise
            return False
        return True

    def _take(self, current: dict[str, Any]) -> bool:
        transitions = int((current.get("spec") or {}).get("leaseTransitions") or 0) + 1
        try:
            self._hold(self._api.replace(LEASES, {**current, "spec": self._spec(transitions)}, self.namespace))
        except (PipelineError, LookupError) as error:
            if isinstance(error, PipelineError) and error.reason != "Conflict":
                raise
            return False
        return True

    def _hold(self, stored: dict[str, Any]) -> None:
        self._uid = stored["metadata"]["uid"]
        self._transitions = int(stored["spec"].get("leaseTransitions") or 0)

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(self.duration_s / BEATS_PER_DURATION):
            try:
                current = self._api.get(LEASES, self.name, self.namespace)
                if current is None or not self._is_ours(current):
                    self._lost.set()
                    return
                spec = {**current["spec"], "renewTime": self._spec(0)["renewTime"]}
                self._api.replace(LEASES, {**current, "spec": spec}, self.namespace)
                renewed = time.monotonic()
            except (PipelineError, LookupError) as error:
                log.warning("lease %s/%s: heartbeat failed: %s", self.namespace, self.name, error)
            if time.monotonic() - renewed > self.duration_s:
                self._lost.set()

    def _is_ours(self, current: dict[str, Any]) -> bool:
        spec = current.get("spec") or {}
        same = spec.get("holderIdentity") == self.holder and current["metadata"]["uid"] == self._uid
        return same and int(spec.get("leaseTransitions") or 0) == self._transitions

    def _release(self) -> None:
        try:
            current = self._api.get(LEASES, self.name, self.namespace)
            if current is not None and self._is_ours(current):
                self._api.delete(LEASES, self.name, self.namespace, uid=self._uid)
        except PipelineError as error:
            log.warning("lease %s/%s is left to expire: %s", self.namespace, self.name, error)


def _mark(lease: dict[str, Any]) -> str:
    return str(lease["metadata"].get("resourceVersion", ""))
