"""A Job is made, watched and deleted through an API that may fail now and then; what its pod waits for is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.endpoint.kubeerrors import translate
from include.errors import FailureClass, PipelineError
from include.staging.podwait import Waiting, waits_for

if TYPE_CHECKING:
    from include.staging.pvcjob import ClaimJob

POLL_SECONDS = 1.0
LAST_LINES = 5


class ApiLostError(PipelineError):
    """The Kubernetes API failed every call for longer than a Job puts up with."""


@dataclass
class JobWatch:
    """One Job's life, seen from outside.

    :param kube: ``kubernetes.client.ApiClient``.
    :param say: gets what its pod waits for, and the end of its log.
    :param waiting: what its pod waits for now.
    :param exit_code: of its newest pod, once it ended.
    """

    kube: Any
    job: ClaimJob
    say: Callable[[str], None]
    waiting: Waiting | None = None
    exit_code: int | None = None
    _since: float = 0.0
    _said: str = ""

    @property
    def _name(self) -> tuple[str, str]:
        return self.job.name, self.job.namespace

    def create(self) -> None:
        """Make the Job; one of that name that is there is adopted."""
        from kubernetes.client import BatchV1Api

        body = self.job.manifest()
        self._ask("creating", lambda: BatchV1Api(self.kube).create_namespaced_job(self.job.namespace, body), 409)

    def delete(self) -> None:
        """Delete the Job and its pods; gone already is fine."""
        from kubernetes.client import BatchV1Api, V1DeleteOptions

        options = V1DeleteOptions(propagation_policy="Background")
        self._ask("deleting", lambda: BatchV1Api(self.kube).delete_namespaced_job(*self._name, body=options), 404)

    def until_end(self) -> str:
        """Wait for the Job's end; return ``Complete``, or why it failed.

        :raises PipelineError: its pod waits for what will not come, the Job vanished, or the API is lost.
        """
        from kubernetes.client import BatchV1Api

        deadline = time.monotonic() + self.job.deadline_seconds + 60
        while time.monotonic() < deadline:
            found = self._ask("reading", lambda: BatchV1Api(self.kube).read_namespaced_job(*self._name), 404)
            if found is None:
                raise PipelineError(
                    "JobGone",
                    f"Job {self.job.namespace}/{self.job.name} was deleted before its end",
                    fix="run the stage again",
                    failure_class=FailureClass.TRANSIENT,
                )
            for condition in found.status.conditions or ():
                if condition.type in ("Complete", "Failed") and condition.status == "True":
                    return condition.type if condition.type == "Complete" else str(condition.reason)
            self._look()
            time.sleep(POLL_SECONDS)
        return "DeadlineExceeded"

    def log(self, lines: int | None = None) -> str:
        """Return the newest pod's log, or its last lines; empty when there is none."""
        from kubernetes.client import CoreV1Api

        pod = self._pod()
        if pod is None:
            return ""
        states = [status.state.terminated for status in pod.status.container_statuses or () if status.state]
        self.exit_code = next((state.exit_code for state in states if state), None)
        # The client would return the text of a bytes object.
        more: dict[str, Any] = {"_preload_content": False} | ({"tail_lines": lines} if lines else {})
        raw = self._ask(
            "reading the log of",
            lambda: CoreV1Api(self.kube).read_namespaced_pod_log(pod.metadata.name, self.job.namespace, **more),
            400, 403, 404, 500,
        )  # fmt: skip
        return "" if raw is None else str(raw.data.decode(errors="replace"))

    def _pod(self) -> Any:
        """Return the newest pod, ``None`` when there is none."""
        from kubernetes.client import CoreV1Api

        found = self._ask(
            "listing the pods of",
            lambda: CoreV1Api(self.kube).list_namespaced_pod(
                self.job.namespace, label_selector=f"job-name={self.job.name}"
            ),
        )
        return max(found.items, key=lambda item: str(item.metadata.creation_timestamp), default=None)

    def _look(self) -> None:
        """Say what is new; give up on a pod that waits in vain."""
        pod = self._pod()
        waiting = None if pod is None else waits_for(pod, self._events(pod))
        if waiting is None or self.waiting is None or waiting.reason != self.waiting.reason:
            self._since = time.monotonic()
        self.waiting = waiting
        if waiting is None:
            self._tell((self.log(LAST_LINES).strip().splitlines() or [""])[-1])
            return
        self._tell(f"its pod waits: {waiting.said}")
        waited = time.monotonic() - self._since
        if waiting.patience is not None and waited >= waiting.patience * self.job.patience_seconds:
            raise gave_up(self.job, waiting)

    def _events(self, pod: Any) -> list[Any]:
        """Return a pod's events while it has not started, the newest last."""
        from kubernetes.client import CoreV1Api

        if pod.status.phase != "Pending":
            return []
        found = self._ask(
            "listing the events of",
            lambda: CoreV1Api(self.kube).list_namespaced_event(
                self.job.namespace, field_selector=f"involvedObject.name={pod.metadata.name}"
            ),
            403,
        )
        return sorted(found.items if found else (), key=lambda event: str(event.last_timestamp or event.event_time))

    def _tell(self, text: str) -> None:
        if text != self._said:
            self.say(text)
            self._said = text

    def _ask(self, doing: str, call: Callable[[], Any], *fine: int) -> Any:
        """Call the API; wait and ask again while it fails.

        :param fine: HTTP statuses for which there is no answer, and no error either.
        :raises ApiLostError: it failed for ``outage_seconds``.
        :raises PipelineError: it refused.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        what, began = f"{doing} Job {self.job.namespace}/{self.job.name}", time.monotonic()
        while True:
            try:
                return call()
            except (ApiException, HTTPError, OSError) as error:
                refusal = translate(error, what)
                if refusal.status in fine:
                    return None
                if not refusal.retry_call:
                    raise refusal.error from error
                if time.monotonic() - began >= self.job.outage_seconds:
                    raise ApiLostError(
                        refusal.error.reason,
                        refusal.error.message,
                        fix="the Job goes on; a retry finds it",
                        failure_class=FailureClass.TRANSIENT,
                    ) from error
            time.sleep(POLL_SECONDS)


def gave_up(job: ClaimJob, waiting: Waiting) -> PipelineError:
    """Return the error for a pod that waited for what did not come."""
    return PipelineError(
        waiting.reason,
        f"Job {job.namespace}/{job.name} on claim {job.claim} cannot start: {waiting.said}",
        fix=waiting.fix,
        failure_class=waiting.failure_class,
    )
