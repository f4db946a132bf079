"""Which results may be compared: equal keys, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from include.canonical import canonical_json, digest
from include.results.schema import BenchmarkResult

FIELDS = (
    "model", "workload", "workload_digest", "load", "arm", "cluster", "instance_type", "accelerators", "replicas",
    "parallelism", "dtype", "engine", "harness", "harness_version",
)  # fmt: skip


@dataclass(frozen=True)
class SeriesKey:
    """What must be equal for two results to be compared.

    The engine's name belongs to it, its version does not: a new version is a change to judge, not another series.
    Nor does the SLO: it bends goodput only, which :mod:`include.results.series` cuts where the SLO changes.
    """

    values: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, result: BenchmarkResult) -> SeriesKey:
        """Return a result's key."""
        p = result.provenance
        found: dict[str, Any] = {
            "model": p.model,
            "workload": result.workload,
            "workload_digest": result.workload_digest,
            "load": result.load,
            "arm": result.arm,
            "cluster": p.cluster,
            "instance_type": p.instance_type,
            "accelerators": p.accelerators,
            "replicas": p.replicas,
            "parallelism": canonical_json(p.parallelism).decode(),
            "dtype": p.dtype,
            "engine": p.engine,
            "harness": p.harness,
            "harness_version": p.harness_version,
        }
        return cls(tuple((name, str(found[name])) for name in FIELDS))

    @property
    def id(self) -> str:
        """16 hex digits; equal for equal keys."""
        return digest(list(self.values)).removeprefix("sha256:")[:16]

    def as_dict(self) -> dict[str, str]:
        """Field and value."""
        return dict(self.values)


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[str, ...]:
    """Return why two results may not be compared, one ``field: a != b`` each; empty when they may."""
    return tuple(
        f"{name}: {one.get(name, '')!r} != {other.get(name, '')!r}"
        for name in FIELDS
        if one.get(name, "") != other.get(name, "")
    )
