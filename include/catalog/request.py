"""What a person or a schedule asks for: the trigger form's fields, checked together."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, ValidationError

from include.catalog.specs import Slo, Spec
from include.errors import ConfigurationError

SLO_FIELDS = ("ttft_ms", "tpot_ms", "e2e_ms", "error_rate")


class ReleaseRequest(Spec):
    """One release or one nightly cell, as asked for.

    :param after_benchmark: ``tear-down``, or ``keep`` until ``ttl_hours`` have passed.
    :param hold_failed_hours: keep the endpoint of a failed run so long for debugging; it costs money meanwhile.
    :param cell: empty for a release, else the cell's name in its night.
    :param plan_of: folder of an earlier run below the results store; its model, revision, cluster, workloads and SLO
        are taken instead of the catalog's.
    :param mix_from, mix: another such run, and the factors of its plan (comma between) that replace those of
        ``plan_of``; see :mod:`include.catalog.mixing`.
    :param capacity_until: wait so long for accelerators; ``None``: do not wait.
    """

    model: str
    revision: str | None = None
    cluster: str = "local"
    workloads: tuple[str, ...] = Field(("smoke",), min_length=1)
    after_benchmark: Literal["tear-down", "keep"] = "tear-down"
    ttl_hours: float = Field(4.0, gt=0, le=168)
    hold_failed_hours: float = Field(0.0, ge=0, le=72)
    slo: Slo = Slo()
    budget_usd: Decimal | None = Field(None, ge=0)
    cell: str = ""
    plan_of: str = Field("", pattern=r"^(runs/[A-Za-z0-9_.=+-]+/[A-Za-z0-9_.=+/-]+)?$")
    mix_from: str = Field("", pattern=r"^(runs/[A-Za-z0-9_.=+-]+/[A-Za-z0-9_.=+/-]+)?$")
    mix: str = Field("", pattern=r"^[a-z0-9_,]*$")
    capacity_until: dt.datetime | None = None

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> ReleaseRequest:
        """Build a request from flat fields (``slo_ttft_ms`` …); empty values mean not asked.

        :raises ConfigurationError: naming every bad field, its value and what is wrong.
        """
        given = {key: value for key, value in fields.items() if value not in (None, "", [], ())}
        slo = {name: given.pop(f"slo_{name}") for name in SLO_FIELDS if f"slo_{name}" in given}
        if slo:
            given["slo"] = {**dict(given.get("slo") or {}), **slo}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            lines = tuple(
                f"{'.'.join(str(part) for part in item['loc'])} = {item.get('input')!r}: {item['msg']}"
                for item in error.errors(include_url=False)
            )
            raise ConfigurationError(
                "RequestInvalid", "; ".join(lines), fix="correct these fields in the trigger form", evidence=lines
            ) from error
