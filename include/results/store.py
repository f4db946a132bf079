"""The results store: one JSON per result, one Parquet of requests beside it, in partitions by date and model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from include.errors import IntegrityError
from include.objects import AlreadyExistsError, Objects
from include.results.schema import BenchmarkResult, RunRecord

R = TypeVar("R", BenchmarkResult, RunRecord)


@dataclass(frozen=True)
class ResultsStore:
    """Results on S3 or in a folder; append-only: a result that is there is never replaced."""

    objects: Objects

    @classmethod
    def open(cls, uri: str, session: Any = None) -> ResultsStore:
        """Open the store at a cluster's ``results_uri``."""
        return cls(Objects.open(uri, session=session))

    def put_result(self, result: BenchmarkResult, requests: Path | None) -> BenchmarkResult:
        """Keep a result and its requests; return it with ``requests_uri`` set.

        A second put of the same ``result_id`` keeps and returns the first.
        """
        folder = _partition(result)
        if requests is not None:
            path = f"{folder}/{result.result_id}.requests.parquet"
            self.objects.put_file(path, requests)
            result = result.model_copy(update={"requests_uri": self.objects.url(path)})
        path = f"{folder}/{result.result_id}.json"
        try:
            self.objects.put(path, result.model_dump_json(indent=1).encode(), create=True)
        except AlreadyExistsError:
            return self._load(path)
        return result

    def results(self, *, date: str | None = None, model: str | None = None) -> Iterator[BenchmarkResult]:
        """Yield results, oldest date first; narrowed by partition.

        :param date: ``YYYY-MM-DD`` of the run's start.
        """
        prefix = f"results/date={date}" if date else "results"
        for info in sorted(self.objects.list(prefix), key=lambda item: item.path):
            if info.path.endswith(".json") and (model is None or f"/model={model}/" in info.path):
                yield self._load(info.path)

    def of_run(self, run_path: str) -> list[BenchmarkResult]:
        """Return the results of one run, in the order they were measured."""
        found = [result for result in self.results() if result.run.path == run_path]
        return sorted(found, key=lambda result: result.started_at)

    def records(self) -> Iterator[RunRecord]:
        """Yield the record of every run, failed and skipped ones included."""
        for info in sorted(self.objects.list("runs"), key=lambda item: item.path):
            if info.path.endswith("/record.json"):
                data = self.objects.get(info.path)
                if data is not None:
                    yield _parse(RunRecord, data, self.objects.url(info.path))

    def put_report(self, path: str, html: str) -> str:
        """Keep a run's HTML report; return its URI."""
        name = f"{path}/report.html"
        self.objects.put(name, html.encode())
        return self.objects.url(name)

    def _load(self, path: str) -> BenchmarkResult:
        data = self.objects.get(path)
        if data is None:
            raise FileNotFoundError(self.objects.url(path))
        return _parse(BenchmarkResult, data, self.objects.url(path))


def _partition(result: BenchmarkResult) -> str:
    return f"results/date={result.run.started_at:%Y-%m-%d}/model={result.provenance.model}"


def _parse(kind: type[R], data: bytes, where: str) -> R:
    try:
        return kind.model_validate(json.loads(data))
    except (ValueError, ValidationError) as error:
        raise IntegrityError(
            "ResultInvalid", f"{where}: {error}", fix="restore the file from a backup, or move it away"
        ) from error
