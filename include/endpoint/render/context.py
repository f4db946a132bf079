"""What rendering needs to know besides the model."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from include.catalog.plan import RunIdentity
from include.catalog.specs import ClusterSpec, JsonObject, ModelSpec
from include.endpoint import names

STAGED_FILES = "files"


@dataclass(frozen=True)
class RenderContext:
    """One endpoint to render.

    :param model_prefix: ``<name>/<revision>`` below the cluster's ``models_uri``.
    :param benchmarking: leave autoscaling out, so that the number of replicas is what was asked.
    """

    name: str
    model: ModelSpec
    cluster: ClusterSpec
    run: RunIdentity
    model_prefix: str
    revision: str
    benchmarking: bool = True

    @property
    def bucket(self) -> str:
        """Bucket of the staged models."""
        return urlsplit(self.cluster.models_uri).netloc

    @property
    def location(self) -> str:
        """Key prefix (S3) or path (file system) of the staged revision's files."""
        written = self.model.deployment.model_location
        if written is not None:
            return written
        root = urlsplit(self.cluster.models_uri).path.strip("/")
        return "/".join(part for part in (root, self.model_prefix, STAGED_FILES) if part)

    def labels(self) -> dict[str, str]:
        """Labels of ownership and task governance; the person's own never replace them."""
        deployment = self.model.deployment
        governed = {names.QUEUE_NAME: self.cluster.queue_name, names.PRIORITY_CLASS: deployment.priority_class}
        return {
            **deployment.labels,
            **{key: value for key, value in governed.items() if value},
            names.MANAGED_BY: names.MANAGER,
            names.OWNER: self.run.owner,
        }

    def metadata(self) -> JsonObject:
        """Metadata of the endpoint's main object; what depends on the plan is added at creation."""
        annotations = {
            **self.model.deployment.annotations,
            names.DAG_ID: self.run.dag_id,
            names.RUN_ID: self.run.run_id,
            names.CELL: self.run.cell,
        }
        return {
            "name": self.name,
            "namespace": self.cluster.namespace,
            "labels": self.labels(),
            "annotations": annotations,
        }
