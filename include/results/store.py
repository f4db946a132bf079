"""The results store: one JSON per result, one Parquet of requests beside it, in partitions by date and model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from include.catalog.specs import Spec
from include.errors import IntegrityError
from include.objects import AlreadyExistsError, Objects
from include.results.paths import safe_segment
from include.results.pending import note
from include.results.schema import SCHEMA_VERSION, BenchmarkResult, RunRecord
from include.results.schemas import to_json

R = TypeVar("R", bound=Spec)


@dataclass(frozen=True)
class ResultsStore:
    """Results on S3 or in a folder; append-only: a result that is there is never replaced.

    ``results/date=…/model=…/<id>.json`` is the truth, ``<run>/results/<id>.json`` points from the run to it, and
    ``index/`` (see :mod:`include.results.index`) can be rebuilt from both.
    """

    objects: Objects

    @classmethod
    def open(cls, uri: str, session: Any = None) -> ResultsStore:
        """Open the store at a cluster's ``results_uri``."""
        return cls(Objects.open(uri, session=session))

    def put_result(self, result: BenchmarkResult, requests: Path | None) -> BenchmarkResult:
        """Keep a result and its requests; return it with ``requests_uri`` set.

        A second put of the same ``result_id`` keeps and returns the first. Requests go first and carry their
        digest in the name, so that no writer can change what another's result points to.

        :raises IntegrityError: the result does not fit the published schema; nothing is written.
        """
        folder = _partition(result)
        name = safe_segment(result.result_id)
        path = f"{folder}/{name}.json"
        if self.objects.head(path) is not None:
            return self._load(path)
        if requests is not None:
            content = f"{folder}/{name}.{_short_digest(requests)}.requests.parquet"
            result = result.model_copy(update={"requests_uri": self.objects.url(content)})
        data = to_json("benchmark_result", result)
        if requests is not None:
            self.objects.put_file(content, requests)
        note(self.objects, "results", path)
        self.objects.put(f"{result.run.path}/results/{name}.json", json.dumps({"path": path}).encode())
        try:
            self.objects.put(path, data, create=True)
        except AlreadyExistsError:
            return self._load(path)
        return result

    def put_record(self, record: RunRecord) -> str:
        """Keep a run's record, also of a run that was skipped before it began; return its URI.

        :raises IntegrityError: the record does not fit the published schema.
        """
        path = f"{record.run.path}/record.json"
        data = to_json("run_record", record)
        note(self.objects, "runs", path)
        self.objects.put(path, data)
        return self.objects.url(path)

    def results(self, *, date: str | None = None, model: str | None = None) -> Iterator[BenchmarkResult]:
        """Yield results, oldest date first; narrowed by partition.

        :param date: ``YYYY-MM-DD`` of the run's start.
        """
        wanted = None if model is None else f"/model={safe_segment(model)}/"
        for path in sorted(self.result_paths(date)):
            if wanted is None or wanted in path:
                yield self._load(path)

    def result_paths(self, date: str | None = None) -> Iterator[str]:
        """Yield the path of every result, or of one date's."""
        prefix = f"results/date={date}" if date else "results"
        return (info.path for info in self.objects.list(prefix) if info.path.endswith(".json"))

    def record_paths(self) -> Iterator[str]:
        """Yield the path of every run's record."""
        paths = (info.path for info in self.objects.list("runs"))
        # The record stage has an outcome of that name too.
        return (path for path in paths if path.endswith("/record.json") and not path.endswith("/stages/record.json"))

    def of_run(self, run_path: str) -> list[BenchmarkResult]:
        """Return the results of one run, in the order they were measured."""
        found = []
        for info in self.objects.list(f"{run_path}/results"):
            data = self.objects.get(info.path)
            path = str(json.loads(data)["path"]) if data else ""
            if path and self.objects.head(path) is not None:
                found.append(self._load(path))
        return sorted(found, key=lambda result: result.started_at)

    def records(self) -> Iterator[RunRecord]:
        """Yield the record of every run, failed and skipped ones included."""
        for path in sorted(self.record_paths()):
            record = self.record(path)
            if record is not None:
                yield record

    def record(self, path: str) -> RunRecord | None:
        """Return the record at a path, ``None`` when there is none."""
        data = self.objects.get(path)
        return None if data is None else parse(RunRecord, data, self.objects.url(path))

    def result(self, path: str) -> BenchmarkResult:
        """Return the result at a path.

        :raises FileNotFoundError: there is none.
        """
        return self._load(path)

    def put_report(self, path: str, html: str) -> str:
        """Keep a run's HTML report; return its URI."""
        name = f"{path}/report.html"
        self.objects.put(name, html.encode())
        return self.objects.url(name)

    def _load(self, path: str) -> BenchmarkResult:
        data = self.objects.get(path)
        if data is None:
            raise FileNotFoundError(self.objects.url(path))
        return parse(BenchmarkResult, data, self.objects.url(path))


def parse(kind: type[R], data: bytes, where: str) -> R:
    """Return a stored file's content.

    :raises IntegrityError: naming file, field and problem: cut short, not of this schema, or of a newer one.
    """
    try:
        content = json.loads(data)
        version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else SCHEMA_VERSION
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise IntegrityError(
                "SchemaTooNew",
                f"{where}: schema_version {version}; this code reads up to {SCHEMA_VERSION}",
                fix="update the pipelines before reading this store",
            )
        return kind.model_validate(content)
    except (ValueError, ValidationError) as error:
        raise IntegrityError(
            "ResultInvalid", f"{where}: {error}", fix="restore the file from a backup, or move it away"
        ) from error


def _partition(result: BenchmarkResult) -> str:
    return f"results/date={result.run.started_at:%Y-%m-%d}/model={safe_segment(result.provenance.model)}"


def _short_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
