"""One collection, as a shell runs it: who is asked what is in use, what goes, and from where else it goes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from include.catalog.specs import ClusterSpec
from include.errors import ConfigurationError
from include.objects import Objects
from include.results.store import ResultsStore
from include.staging.collect import Decision, Retention, Revision, Staged, decide, delete, list_staged
from include.staging.context import StagingContext
from include.staging.delivery import Place, delivered_to, discard
from include.staging.target import Target
from include.staging.uploads import keeps_versions
from include.staging.usage import used_by_endpoints, used_by_records, used_by_runs

# No stager works on one upload for longer.
LONGEST_STAGING = dt.timedelta(days=1)


@dataclass(frozen=True)
class Collection:
    """A store, and the clusters that serve from it.

    :param clusters: every one whose ``models_uri`` meets the store.
    :param kube: returns an ``ApiClient`` of a cluster's API; ``None``: no cluster is asked what it serves.
    """

    models_uri: str
    context: StagingContext
    clusters: tuple[ClusterSpec, ...]
    kube: Callable[[ClusterSpec], Any] | None

    def run(self, retention: Retention, name: str | None, *, yes: bool) -> Iterator[str]:
        """Yield a line for each revision and a sum; delete when told to.

        :raises ConfigurationError: nobody can be asked what is served from here.
        """
        staged = list_staged(self.models_uri, self.context, name)
        decisions = decide(staged, retention, self.in_use(dt.datetime.now(dt.UTC)), dt.datetime.now(dt.UTC))
        copies = delivered_to(self.models_uri, self.context)
        for decision in decisions:
            places = copies.get(decision.staged.key, [])
            yield _line(decision, places)
            if decision.delete and yes:
                yield from self._delete(decision.staged, places)
            elif yes and _abandoned(decision.staged, retention):
                # A repair that was killed: nothing asks for its parts, as the revision counts as staged.
                Target.open(self.models_uri, *decision.staged.key, self.context).sweep_uploads()
                yield "       its unfinished uploads are gone"
        doomed = [decision.staged for decision in decisions if decision.delete]
        done = "deleted" if yes else "would be deleted; add --yes"
        size = sum(one.size + one.uploads.bytes for one in doomed)
        yield f"{len(doomed)} of {len(staged)} revisions, {size} bytes {done}"
        if doomed and keeps_versions(self.models_uri, self.context):
            yield "the bucket keeps versions: those bytes stay in it until its lifecycle rule expires old versions"

    def in_use(self, now: dt.datetime) -> set[Revision]:
        """Return the revisions that a cluster serves, a run is about to serve, or a last good record names.

        :raises ConfigurationError: no cluster of the catalog serves from this store.
        """
        if self.kube is not None and not self.clusters:
            raise ConfigurationError(
                "StoreOfNoCluster",
                f"no cluster of the catalog has models_uri {self.models_uri}: nobody can say what is served from it",
                fix="name the store by --cluster, or say --without-cluster when nothing is served from it",
            )
        found: set[Revision] = set()
        for cluster in self.clusters:
            found |= used_by_records(ResultsStore.open(cluster.results_uri).records())
            found |= used_by_runs(Objects.open(cluster.results_uri), now)
            if self.kube is not None:
                found |= used_by_endpoints(self.kube(cluster))
        return found

    def _delete(self, staged: Staged, systems: list[str]) -> Iterator[str]:
        """Delete a revision's copies on file systems, then its objects."""
        for system_id in systems:
            place = self._place(system_id)
            if place is None or self.kube is None:
                yield f"       its copy on {system_id} stays: no cluster asked here delivers to that file system"
                continue
            cluster, where = place
            context = replace(self.context, kube=self.kube(cluster))
            discard(Target.open(self.models_uri, staged.name, staged.revision, context), where)
            yield f"       its copy on {system_id} is gone"
        delete(self.models_uri, staged, self.context)

    def _place(self, system_id: str) -> tuple[ClusterSpec, Place] | None:
        for cluster in self.clusters:
            if cluster.fsx_file_system_id == system_id and cluster.fsx_delivery is not None:
                return cluster, Place(cluster.fsx_delivery, system_id, cluster.namespace)
        return None


def _abandoned(staged: Staged, retention: Retention) -> bool:
    newest = staged.uploads.newest
    return newest is not None and dt.datetime.now(dt.UTC) - newest >= max(retention.age, LONGEST_STAGING)


def _line(decision: Decision, systems: list[str]) -> str:
    one = decision.staged
    parts = f", {one.uploads.bytes} bytes in unfinished uploads" if one.uploads.newest else ""
    copies = f", on {', '.join(systems)}" if systems else ""
    verb = "delete" if decision.delete else "keep  "
    return f"{verb} {one.name}/{one.revision} {one.size} bytes, {one.objects} objects{parts}{copies}: {decision.reason}"


def kubes(of: Callable[[ClusterSpec], Any]) -> Callable[[ClusterSpec], Any]:
    """Make each cluster's client once."""
    made: dict[str, Any] = {}

    def get(cluster: ClusterSpec) -> Any:
        if cluster.name not in made:
            made[cluster.name] = of(cluster)
        return made[cluster.name]

    return get
