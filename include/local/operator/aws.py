"""The AWS side of an endpoint, as the operator calls it: SageMaker objects, the CA in S3, the ACM certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from include.local.operator.certificates import Certificate
from include.local.operator.objects import ROLE

TAG = ("CreatedBy", "HyperPodInference")
VARIANT = {"VariantName": "AllTraffic", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}


class AwsFailureError(Exception):
    """AWS refused; the message is what the operator writes into a condition."""


@dataclass(frozen=True)
class SageMakerEndpoint:
    """The three ARNs and what DescribeEndpoint says."""

    arns: dict[str, str]
    status: str
    failure: str = ""


@dataclass
class Aws:
    """Blocking calls; run in a thread."""

    _clients: dict[str, Any] = field(default_factory=dict)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            import boto3
            from botocore.config import Config

            settings = Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=30)
            self._clients[service] = boto3.client(service, config=settings)
        return self._clients[service]

    def warm(self) -> None:
        """Make the clients before they are needed: loading their service models takes a second or two."""
        for service in ("sagemaker", "s3", "acm"):
            self._client(service)

    def register(self, name: str, image: str, tags: list[dict[str, str]]) -> SageMakerEndpoint:
        """Make what is missing of model, configuration and endpoint; return how the endpoint stands.

        What already exists under these names is taken as it is, as the operator is known to do.
        """
        client = self._client("sagemaker")
        labels = [{"Key": TAG[0], "Value": TAG[1]}, *({"Key": t["name"], "Value": t["value"]} for t in tags)]
        model = {"ModelName": name, "PrimaryContainer": {"Image": image}, "ExecutionRoleArn": ROLE}
        _once(client.create_model, Tags=labels, **model)
        variants = [{**VARIANT, "ModelName": name}]
        _once(client.create_endpoint_config, EndpointConfigName=name, ProductionVariants=variants, Tags=labels)
        _once(client.create_endpoint, EndpointName=name, EndpointConfigName=name, Tags=labels)
        found = client.describe_endpoint(EndpointName=name)
        arns = {
            "endpointArn": found["EndpointArn"],
            "configArn": client.describe_endpoint_config(EndpointConfigName=name)["EndpointConfigArn"],
            "modelArn": client.describe_model(ModelName=name)["ModelArn"],
        }
        return SageMakerEndpoint(arns, found["EndpointStatus"], found.get("FailureReason", ""))

    def unregister(self, name: str) -> bool:
        """Delete endpoint, configuration and model; true once all three are gone."""
        client = self._client("sagemaker")
        if _found(client.describe_endpoint, EndpointName=name) is not None:
            _gone_is_fine(client.delete_endpoint, EndpointName=name)
            if _found(client.describe_endpoint, EndpointName=name) is not None:
                return False
        _gone_is_fine(client.delete_endpoint_config, EndpointConfigName=name)
        _gone_is_fine(client.delete_model, ModelName=name)
        return True

    def publish(self, bucket: str, key: str, certificate: Certificate) -> None:
        """Write the CA to S3, making the default bucket when there is none.

        :raises AwsFailureError: when it cannot be written.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = self._client("s3")
        try:
            try:
                client.put_object(Bucket=bucket, Key=key, Body=certificate.ca)
            except client.exceptions.NoSuchBucket:
                region = client.meta.region_name
                client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
                client.put_object(Bucket=bucket, Key=key, Body=certificate.ca)
        except (ClientError, BotoCoreError) as error:
            raise AwsFailureError(f"TLS bucket s3://{bucket} is not writable: {error}") from error

    def import_certificate(self, certificate: Certificate, name: str) -> str:
        """Import into ACM; return the ARN."""
        client = self._client("acm")
        made = client.import_certificate(
            Certificate=certificate.certificate,
            PrivateKey=certificate.key,
            CertificateChain=certificate.ca,
            Tags=[{"Key": TAG[0], "Value": TAG[1]}, {"Key": "Name", "Value": name}],
        )
        return str(made["CertificateArn"])

    def delete_certificate(self, arn: str) -> None:
        """Delete an imported certificate."""
        _gone_is_fine(self._client("acm").delete_certificate, CertificateArn=arn)


def _once(call: Any, **arguments: Any) -> None:
    from botocore.exceptions import ClientError

    try:
        call(**arguments)
    except ClientError as error:
        if "already" not in str(error).lower():
            raise


def _found(call: Any, **arguments: Any) -> Any:
    from botocore.exceptions import ClientError

    try:
        return call(**arguments)
    except ClientError as error:
        if "could not find" not in str(error).lower():
            raise
        return None


def _gone_is_fine(call: Any, **arguments: Any) -> None:
    from botocore.exceptions import ClientError

    try:
        call(**arguments)
    except ClientError as error:
        text = str(error).lower()
        if "could not find" not in text and "notfound" not in text:
            raise
