"""SageMaker's models, endpoint configurations and endpoints, kept on disk.

Status follows from timestamps: an endpoint is Creating for ``seconds``, Deleting for ``seconds``; a killed gateway
changes nothing. Error codes and texts are those that clients match: ``ValidationException``, ``Could not find …``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from include.local.aws import ACCOUNT
from include.local.aws.errors import AwsError
from include.local.aws.faults import ApiFaultKind, FaultRules
from include.local.aws.pages import page
from include.local.aws.store import Record, Store

Parameters = dict[str, Any]
Handler = Callable[[Parameters], dict[str, Any]]
MODEL, CONFIG, ENDPOINT = "model", "endpoint configuration", "endpoint"
ARN_KINDS = {MODEL: "model", CONFIG: "endpoint-config", ENDPOINT: "endpoint"}
NAMES = {MODEL: "ModelName", CONFIG: "EndpointConfigName", ENDPOINT: "EndpointName"}
ARNS = {MODEL: "ModelArn", CONFIG: "EndpointConfigArn", ENDPOINT: "EndpointArn"}
SHAPES = {MODEL: "Model", CONFIG: "EndpointConfig", ENDPOINT: "Endpoint"}
PAGE = 10


class Endpoints:
    """Operations on the three, as AWS answers them."""

    def __init__(self, store: Store, faults: FaultRules, region: str, seconds: float) -> None:
        self._store = store
        self._faults = faults
        self._region = region
        self._seconds = seconds

    def handlers(self) -> dict[str, Handler]:
        """Handlers by API name."""
        found: dict[str, Handler] = {
            "CreateModel": lambda p: self._create(MODEL, p),
            "CreateEndpointConfig": lambda p: self._create(CONFIG, p),
            "CreateEndpoint": self._create_endpoint,
            "UpdateEndpoint": self._update_endpoint,
            "DescribeModel": lambda p: self._public(self._get(MODEL, p)),
            "DescribeEndpointConfig": lambda p: self._public(self._get(CONFIG, p)),
            "DescribeEndpoint": self._describe_endpoint,
            "DeleteModel": lambda p: self._delete(MODEL, p),
            "DeleteEndpointConfig": lambda p: self._delete(CONFIG, p),
            "DeleteEndpoint": self._delete_endpoint,
            "ListModels": lambda p: self._list(MODEL, p),
            "ListEndpointConfigs": lambda p: self._list(CONFIG, p),
            "ListEndpoints": lambda p: self._list(ENDPOINT, p),
            "AddTags": self._add_tags,
            "DeleteTags": self._delete_tags,
            "ListTags": lambda p: {"Tags": self._by_arn(p)["_tags"]},
        }
        return found

    def status(self, name: str) -> str | None:
        """Status of an endpoint now, ``None`` when there is none."""
        self._forget_deleted()
        record = self._store.table(ENDPOINT).get(name)
        return self._status(record) if record else None

    def _arn(self, kind: str, name: str) -> str:
        return f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:{ARN_KINDS[kind]}/{name.lower()}"

    def _get(self, kind: str, parameters: Parameters) -> Record:
        self._forget_deleted()
        name = _required(parameters, NAMES[kind])
        record = self._store.table(kind).get(name)
        if record is None:
            raise AwsError("ValidationException", f'Could not find {kind} "{self._arn(kind, name)}".')
        return record

    def _create(self, kind: str, parameters: Parameters) -> dict[str, Any]:
        self._forget_deleted()
        name = _required(parameters, NAMES[kind])
        arn = self._arn(kind, name)
        if name in self._store.table(kind):
            raise AwsError("ValidationException", f'Cannot create already existing {kind} "{arn}".')
        members = {key: value for key, value in parameters.items() if key != "Tags"}
        now = time.time()
        record = members | {ARNS[kind]: arn, "CreationTime": now, "_tags": list(parameters.get("Tags") or [])}
        with self._store.saving():
            self._store.table(kind)[name] = record
        return {ARNS[kind]: arn}

    def _create_endpoint(self, parameters: Parameters) -> dict[str, Any]:
        config = {"EndpointConfigName": _required(parameters, "EndpointConfigName")}
        self._get(CONFIG, config)
        answer = self._create(ENDPOINT, parameters)
        rule = self._faults.effect(
            "sagemaker", "CreateEndpoint", ApiFaultKind.ENDPOINT_FAILED, ApiFaultKind.ENDPOINT_STUCK
        )
        with self._store.saving():
            record = self._store.table(ENDPOINT)[parameters["EndpointName"]]
            record["_changed"] = record["CreationTime"]
            if rule is not None:
                stuck = rule.kind == ApiFaultKind.ENDPOINT_STUCK
                record["_end"] = "Creating" if stuck else "Failed"
                record["_reason"] = rule.params.get("reason", "The model container did not pass its health check.")
        return answer

    def _update_endpoint(self, parameters: Parameters) -> dict[str, Any]:
        record = self._get(ENDPOINT, parameters)
        self._get(CONFIG, parameters)
        if self._status(record) != "InService":
            raise AwsError("ValidationException", f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')
        with self._store.saving():
            record |= {
                "EndpointConfigName": parameters["EndpointConfigName"],
                "_changed": time.time(),
                "_now": "Updating",
            }
        return {"EndpointArn": record["EndpointArn"]}

    def _status(self, record: Record) -> str:
        if "_deleted" in record:
            return "Deleting"
        if time.time() - record["_changed"] < self._seconds:
            return str(record.get("_now", "Creating"))
        return str(record.get("_end", "InService"))

    def _describe_endpoint(self, parameters: Parameters) -> dict[str, Any]:
        record = self._get(ENDPOINT, parameters)
        status = self._status(record)
        answer = self._public(record) | {"EndpointStatus": status, "LastModifiedTime": self._modified(record)}
        if status == "Failed":
            answer["FailureReason"] = record["_reason"]
        config = self._store.table(CONFIG).get(record["EndpointConfigName"], {})
        answer["ProductionVariants"] = [
            {
                "VariantName": variant["VariantName"],
                "CurrentWeight": variant.get("InitialVariantWeight", 1.0),
                "DesiredWeight": variant.get("InitialVariantWeight", 1.0),
                "CurrentInstanceCount": variant.get("InitialInstanceCount", 1),
                "DesiredInstanceCount": variant.get("InitialInstanceCount", 1),
            }
            for variant in config.get("ProductionVariants") or ()
        ]
        return answer

    def _modified(self, record: Record) -> float:
        done = record["_changed"] + self._seconds
        return float(record.get("_deleted", done if done < time.time() else record["_changed"]))

    def _delete(self, kind: str, parameters: Parameters) -> dict[str, Any]:
        self._get(kind, parameters)
        with self._store.saving():
            del self._store.table(kind)[parameters[NAMES[kind]]]
        return {}

    def _delete_endpoint(self, parameters: Parameters) -> dict[str, Any]:
        record = self._get(ENDPOINT, parameters)
        with self._store.saving():
            record.setdefault("_deleted", time.time())
        return {}

    def _forget_deleted(self) -> None:
        table = self._store.table(ENDPOINT)
        past = time.time() - self._seconds
        gone = [name for name, record in table.items() if record.get("_deleted", past + 1) <= past]
        if gone:
            with self._store.saving():
                for name in gone:
                    del table[name]

    def _list(self, kind: str, parameters: Parameters) -> dict[str, Any]:
        self._forget_deleted()
        rows = [self._row(kind, record) for record in self._store.table(kind).values()]
        wanted, text = parameters.get("StatusEquals"), parameters.get("NameContains", "")
        rows = [row for row in rows if text in row[NAMES[kind]] and wanted in (None, row.get("EndpointStatus"))]
        by_name = parameters.get("SortBy") == "Name"
        newest_first = parameters.get("SortOrder", "Descending") == "Descending"
        rows.sort(key=lambda row: row[NAMES[kind]] if by_name else row["CreationTime"], reverse=newest_first)
        found, token = page(rows, parameters, default=PAGE)
        return {f"{SHAPES[kind]}s": found} | ({"NextToken": token} if token else {})

    def _row(self, kind: str, record: Record) -> dict[str, Any]:
        row = {name: record[name] for name in (NAMES[kind], ARNS[kind], "CreationTime")}
        if kind == ENDPOINT:
            row |= {"EndpointStatus": self._status(record), "LastModifiedTime": self._modified(record)}
        return row

    def _by_arn(self, parameters: Parameters) -> Record:
        self._forget_deleted()
        arn = _required(parameters, "ResourceArn")
        for kind in (MODEL, CONFIG, ENDPOINT):
            for record in self._store.table(kind).values():
                if record[ARNS[kind]] == arn.lower():
                    return record
        raise AwsError("ValidationException", f'Could not find resource "{arn}".')

    def _add_tags(self, parameters: Parameters) -> dict[str, Any]:
        record = self._by_arn(parameters)
        tags = {tag["Key"]: tag["Value"] for tag in [*record["_tags"], *parameters.get("Tags", ())]}
        with self._store.saving():
            record["_tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
        return {"Tags": record["_tags"]}

    def _delete_tags(self, parameters: Parameters) -> dict[str, Any]:
        record = self._by_arn(parameters)
        gone = set(parameters.get("TagKeys") or ())
        with self._store.saving():
            record["_tags"] = [tag for tag in record["_tags"] if tag["Key"] not in gone]
        return {}

    @staticmethod
    def _public(record: Record) -> dict[str, Any]:
        return {key: value for key, value in record.items() if not key.startswith("_")}


def _required(parameters: Parameters, name: str) -> str:
    value = parameters.get(name)
    if not value:
        raise AwsError("ValidationException", f"{name}: a value is required")
    return str(value)
