"""The Job controller: completions (indexed too), parallelism, back-off limit, deadline, time to live."""

from __future__ import annotations

from dataclasses import dataclass

from include.local.agent.pods_of import collect_strays, from_template, owned, phase_of
from include.local.controller.api import Api
from include.local.controller.clock import seconds_since, stamp
from include.local.controller.informer import Informer
from include.local.controller.recorder import Recorder
from include.local.controller.resources import JOBS, PODS, Key, Object, is_deleting, key_of

INDEX = "batch.kubernetes.io/job-completion-index"
DEFAULT_BACKOFF_LIMIT = 6
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Plan:
    """What to do with a Job now.

    :param finish: ``(Complete | Failed, reason, message)`` once it has ended.
    :param start: completion indexes of the pods to make.
    :param again: seconds after which its deadline must be looked at.
    """

    active: int
    succeeded: tuple[int, ...]
    failed: int
    start: tuple[int, ...] = ()
    finish: tuple[str, str, str] | None = None
    again: float | None = None


def plan(job: Object, pods: list[Object], age: float) -> Plan:
    """Decide from a Job and its pods. Pure.

    :param age: seconds since the Job started.
    """
    spec = job["spec"]
    indexed = spec.get("completionMode") == "Indexed"
    completions = int(spec.get("completions") or spec.get("parallelism") or 1)
    wanted = min(int(spec.get("parallelism", 1)), completions)
    won = [pod for pod in pods if phase_of(pod) == "Succeeded"]
    active = [pod for pod in pods if phase_of(pod) not in ENDED and not is_deleting(pod)]
    failed = sum(phase_of(pod) == "Failed" for pod in pods) + _restarts(active)
    done = sorted({index_of(pod) for pod in won}) if indexed else list(range(len(won)))
    found = Plan(len(active), tuple(done), failed)
    limit, deadline = int(spec.get("backoffLimit", DEFAULT_BACKOFF_LIMIT)), spec.get("activeDeadlineSeconds")
    if len(done) >= completions:
        return _replace(found, finish=("Complete", "CompletionsReached", "Reached expected number of succeeded pods"))
    if failed > limit:
        text = "Job has reached the specified backoff limit"
        return _replace(found, finish=("Failed", "BackoffLimitExceeded", text))
    if deadline is not None and age >= float(deadline):
        text = "Job was active longer than specified deadline"
        return _replace(found, finish=("Failed", "DeadlineExceeded", text))
    again = None if deadline is None else float(deadline) - age
    if spec.get("suspend"):
        return _replace(found, again=again)
    busy = {index_of(pod) for pod in active}
    room = max(0, min(wanted, completions - len(done)) - len(active))
    free = [index for index in range(completions) if index not in busy and index not in done]
    return _replace(found, start=tuple(free[:room]), again=again)


def _replace(found: Plan, **changes: object) -> Plan:
    import dataclasses

    return dataclasses.replace(found, **changes)  # type: ignore[arg-type]


def index_of(pod: Object) -> int:
    """Completion index of a Job's pod."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))


def _restarts(pods: list[Object]) -> int:
    """Restarts in place (restartPolicy OnFailure) count against the limit as failed pods do."""
    statuses = [s for pod in pods for s in (pod.get("status") or {}).get("containerStatuses") or ()]
    return sum(int(status.get("restartCount") or 0) for status in statuses)


def pod_of(job: Object, index: int) -> Object:
    """Return the pod that runs one completion."""
    name = job["metadata"]["name"]
    labels = {"job-name": name, "batch.kubernetes.io/job-name": name}
    labels["batch.kubernetes.io/controller-uid"] = job["metadata"]["uid"]
    pod = from_template(job, job["spec"]["template"], labels)
    spec = {"restartPolicy": "Never", **pod["spec"]}
    # A Job without indexes has them here too: they tell which completion a pod stands for.
    pod["metadata"]["annotations"][INDEX] = str(index)
    if job["spec"].get("completionMode") == "Indexed":
        env = [{"name": "JOB_COMPLETION_INDEX", "value": str(index)}]
        spec["containers"] = [{**c, "env": [*(c.get("env") or ()), *env]} for c in spec["containers"]]
        pod["metadata"]["generateName"] = f"{name}-{index}-"
        pod["metadata"]["labels"][INDEX] = str(index)
    return pod | {"spec": spec}


class Jobs:
    """Reconciles Jobs."""

    def __init__(self, api: Api, jobs: Informer, pods: Informer) -> None:
        self._api = api
        self._jobs = jobs
        self._pods = pods
        self._events = Recorder(api, "job-controller")
        self._made: dict[str, set[str]] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Bring one Job a step further."""
        job = self._jobs.get(*key)
        if job is None:
            await collect_strays(self._api, self._pods, JOBS, key)
        if job is None or is_deleting(job):
            return None
        status = job.get("status") or {}
        if any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in status.get("conditions") or ()):
            return await self._expire(job)
        pods = await self._current(job)
        started = str(status.get("startTime") or stamp())
        decided = plan(job, pods, seconds_since(started))
        for index in decided.start:
            pod = await self._api.create(PODS, pod_of(job, index))
            self._made.setdefault(job["metadata"]["uid"], set()).add(pod["metadata"]["name"])
            await self._events.normal(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        await self._report(job, decided, started, pods)
        return 0.2 if decided.start or decided.finish else decided.again

    async def _current(self, job: Object) -> list[Object]:
        """The Job's pods; what was just made and the watch has not told of yet is asked for."""
        pods = owned(self._pods, job)
        known = {pod["metadata"]["name"] for pod in pods}
        made = self._made.get(job["metadata"]["uid"], set())
        for name in sorted(made - known):
            found = await self._api.get(PODS, job["metadata"]["namespace"], name)
            if found is not None:
                pods.append(found)
            else:
                made.discard(name)
        made -= known
        return pods

    async def _report(self, job: Object, decided: Plan, started: str, pods: list[Object]) -> None:
        wanted: Object = {
            "startTime": started,
            "active": decided.active + len(decided.start),
            "succeeded": len(decided.succeeded),
            "failed": decided.failed,
            "ready": 0,
        }
        if job["spec"].get("completionMode") == "Indexed":
            wanted["completedIndexes"] = ",".join(map(str, decided.succeeded))
        if decided.finish is not None:
            kind, reason, message = decided.finish
            now = stamp()
            condition = {"type": kind, "status": "True", "reason": reason, "message": message}
            wanted["conditions"] = [{**condition, "lastProbeTime": now, "lastTransitionTime": now}]
            wanted["active"] = 0
            if kind == "Complete":
                wanted["completionTime"] = now
            for pod in pods:
                if phase_of(pod) not in ENDED:
                    await self._api.delete(PODS, *key_of(pod), uid=pod["metadata"]["uid"])
        status = job.get("status") or {}
        if {name: status.get(name) for name in wanted} != wanted:
            await self._api.patch(JOBS, *key_of(job), {"status": wanted}, subresource="status")
            if decided.finish is not None:
                record = self._events.normal if decided.finish[0] == "Complete" else self._events.warning
                await record(job, "Completed" if decided.finish[0] == "Complete" else decided.finish[1], message)

    async def _expire(self, job: Object) -> float | None:
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        left = float(ttl) - seconds_since(job["status"]["conditions"][-1]["lastTransitionTime"])
        if left > 0:
            return left
        await self._api.delete(JOBS, *key_of(job), uid=job["metadata"]["uid"])
        return None
