"""Write-ahead intents: what was about to be made is written down before it is made.

An intent without an outcome is the only trace of an endpoint whose creator died between the call and its answer;
the reaper starts from these. Open intents lie in ``intents/<cluster>/<endpoint>.json`` below the results store,
closed ones in ``intents-closed/``, so that the open ones stay few.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from decimal import Decimal

from include.canonical import canonical_json
from include.catalog.plan import ReleasePlan, RunIdentity
from include.catalog.specs import Spec
from include.endpoint.model import TeardownReport
from include.objects import AlreadyExistsError, Objects

OPEN, CLOSED = "intents", "intents-closed"


class Deletion(Spec):
    """What a teardown saw before it deleted anything; whoever goes on with it proves all of that gone.

    :param seen: plane, kind and name of every object that existed.
    :param balancer_host: of the load balancer, :param certificate_arn: of the operator's certificate; only the
        custom resource named them, and it goes first.
    """

    began_at: dt.datetime
    seen: tuple[tuple[str, str, str], ...] = ()
    balancer_host: str = ""
    certificate_arn: str = ""

    def joined(self, earlier: Deletion | None) -> Deletion:
        """Return this with what an earlier, interrupted teardown knew."""
        if earlier is None:
            return self
        return Deletion(
            began_at=earlier.began_at,
            seen=tuple(dict.fromkeys((*earlier.seen, *self.seen))),
            balancer_host=self.balancer_host or earlier.balancer_host,
            certificate_arn=self.certificate_arn or earlier.certificate_arn,
        )


class Intent(Spec):
    """One endpoint that somebody set out to create.

    :param uid: of the object, once it is known.
    :param deletion: set before the endpoint is deleted.
    """

    cluster: str
    namespace: str
    kind: str
    name: str
    run: RunIdentity
    plan_digest: str
    sagemaker_endpoint: str | None = None
    opened_at: dt.datetime
    expires_at: dt.datetime
    hourly_price: Decimal = Decimal(0)
    accelerators: int = 0
    uid: str | None = None
    deletion: Deletion | None = None
    report: TeardownReport | None = None

    @property
    def owner(self) -> str:
        """Owner label of the run."""
        return self.run.owner


class IntentLog:
    """The intents of a results store.

    :param objects: opened at the cluster's ``results_uri``.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def open(self, plan: ReleasePlan, *, now: dt.datetime | None = None) -> Intent:
        """Record that an endpoint is about to be created; a retry of the same run finds its first record."""
        from include.endpoint.lifecycle import accelerators, sagemaker_name

        opened = now or dt.datetime.now(dt.UTC)
        intent = Intent(
            cluster=plan.cluster.name,
            namespace=plan.cluster.namespace,
            kind=plan.model.deployment.kind,
            name=plan.endpoint_name,
            run=plan.run,
            plan_digest=plan.digest,
            sagemaker_endpoint=sagemaker_name(plan),
            opened_at=opened,
            expires_at=opened + dt.timedelta(seconds=plan.ttl_seconds),
            hourly_price=plan.hourly_price,
            accelerators=accelerators(plan),
        )
        try:
            self._objects.put(_path(OPEN, intent), _bytes(intent), create=True)
        except AlreadyExistsError:
            return self.find(intent.name, intent.cluster) or intent
        return intent

    def created(self, name: str, uid: str) -> None:
        """Add the object's UID to an open intent."""
        intent = self.find(name)
        if intent is not None and intent.uid != uid:
            self._objects.put(_path(OPEN, intent), _bytes(intent.model_copy(update={"uid": uid})))

    def deleting(self, name: str, cluster: str, deletion: Deletion) -> Deletion:
        """Record what is about to be deleted; return it with what an interrupted teardown recorded before."""
        intent = self.find(name, cluster)
        if intent is None:
            return deletion
        joined = deletion.joined(intent.deletion)
        self._objects.put(_path(OPEN, intent), _bytes(intent.model_copy(update={"deletion": joined})))
        return joined

    def closed(self, name: str, report: TeardownReport) -> None:
        """Record that an endpoint is provably gone; without an open intent there is nothing to do."""
        intent = self.find(name)
        if intent is None:
            return
        self._objects.put(_path(CLOSED, intent), _bytes(intent.model_copy(update={"report": report})))
        self._objects.delete(_path(OPEN, intent))

    def unfinished(self, cluster: str | None = None) -> tuple[Intent, ...]:
        """Return the open intents, oldest first; one that cannot be read is told and hides no other."""
        prefix = f"{OPEN}/{cluster}" if cluster else OPEN
        found = [self._readable(item.path) for item in self._objects.list(prefix)]
        return tuple(sorted((intent for intent in found if intent), key=lambda intent: intent.opened_at))

    def find(self, name: str, cluster: str | None = None) -> Intent | None:
        """Return the open intent of an endpoint, ``None`` when there is none."""
        if cluster is not None:
            return self._read(f"{OPEN}/{cluster}/{name}.json")
        tail = f"/{name}.json"
        return next((self._read(item.path) for item in self._objects.list(OPEN) if item.path.endswith(tail)), None)

    def closed_intent(self, name: str, cluster: str) -> Intent | None:
        """Return the record of an endpoint that was torn down, ``None`` when there was none of this name."""
        return self._read(f"{CLOSED}/{cluster}/{name}.json")

    def _readable(self, path: str) -> Intent | None:
        try:
            return self._read(path)
        except ValueError as error:
            said = "%s cannot be read, restore or remove it; its endpoint is still found by label and expiry: %s"
            logging.getLogger(__name__).error(said, path, error)
            return None

    def _read(self, path: str) -> Intent | None:
        data = self._objects.get(path)
        return Intent.model_validate(json.loads(data)) if data else None


def _path(folder: str, intent: Intent) -> str:
    return f"{folder}/{intent.cluster}/{intent.name}.json"


def _bytes(intent: Intent) -> bytes:
    return canonical_json(intent.model_dump(mode="json"))
