"""Split the time from creation to the first completion into its phases."""

from __future__ import annotations

import datetime as dt

from include.endpoint.facts import EventFacts, Facts, PodFacts
from include.endpoint.model import ColdStart


def split(facts: Facts) -> ColdStart:
    """Return the cold start's phases in seconds; they sum to the total.

    Boundaries come from pods' conditions, container states, events and the registration. One that is missing
    is 0 seconds long and its time counts in the next phase; the slowest pod counts, since all must be ready.
    Kubernetes' own times have whole seconds.
    """
    start, end = facts.created_at, _end(facts)
    pod = max(facts.pods, key=_ready_time, default=None)
    marks = [
        ("schedule", pod and pod.scheduled_at),
        ("image", pod and _pulled_at(facts, pod)),
        ("weights", pod and _main_started_at(pod)),
        ("load", pod and pod.ready_at),
        ("register_endpoint", _registered_at(facts)),
    ]
    seconds: dict[str, float] = {}
    reached = start
    for phase, moment in marks:
        moment = min(max(moment, reached), end) if moment else reached
        seconds[phase] = round((moment - reached).total_seconds(), 3)
        reached = moment
    total = round((end - start).total_seconds(), 3)
    rest = round(total - sum(seconds.values()), 3)
    return ColdStart(total=max(total, 0.0), first_completion=max(rest, 0.0), **seconds)


def _end(facts: Facts) -> dt.datetime:
    probe = facts.probe
    end = probe.at + dt.timedelta(seconds=probe.seconds) if probe is not None else facts.at
    return max(end, facts.created_at)


def _ready_time(pod: PodFacts) -> dt.datetime:
    return pod.ready_at or dt.datetime.min.replace(tzinfo=dt.UTC)


def _pulled_at(facts: Facts, pod: PodFacts) -> dt.datetime | None:
    """When the last image was there; an init container's start says so too."""
    events = [event for event in facts.events if event.kind == "Pod" and event.name == pod.name]
    pulled = _last(events, ("Pulled",))
    begun = min((item.started_at for item in pod.containers if item.init and item.started_at), default=None)
    return pulled or begun


def _main_started_at(pod: PodFacts) -> dt.datetime | None:
    return max((item.started_at for item in pod.containers if not item.init and item.started_at), default=None)


def _registered_at(facts: Facts) -> dt.datetime | None:
    if facts.sagemaker is not None and facts.sagemaker.in_service_at is not None:
        return facts.sagemaker.in_service_at
    if facts.registration is None:
        return None
    done = [item.since for item in facts.registration.conditions if item.type == "CreationCompleted" and item.since]
    return max(done, default=None)


def _last(events: list[EventFacts], reasons: tuple[str, ...]) -> dt.datetime | None:
    return max((event.last_at for event in events if event.reason in reasons and event.last_at), default=None)
