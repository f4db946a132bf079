"""The SageMaker side of an endpoint: model, endpoint configuration, endpoint, as the operator makes them."""

from __future__ import annotations

from typing import Any

ROLE = "arn:aws:iam::123456789012:role/SageMakerHyperPodInference-local"
TAG = {"Key": "CreatedBy", "Value": "HyperPodInference"}


class SageMakerPlane:
    """Blocking calls; run in a thread."""

    def __init__(self) -> None:
        import boto3

        self._client = boto3.client("sagemaker")

    def create(self, name: str, image: str, tags: list[dict[str, str]]) -> dict[str, str]:
        """Make what is missing of the three; return their ARNs."""
        everything = [TAG, *({"Key": tag["name"], "Value": tag["value"]} for tag in tags)]
        container = {"Image": image}
        variant = {"VariantName": "AllTraffic", "ModelName": name, "InitialInstanceCount": 1}
        self._once(
            self._client.create_model,
            ModelName=name,
            PrimaryContainer=container,
            ExecutionRoleArn=ROLE,
            Tags=everything,
        )
        self._once(
            self._client.create_endpoint_config,
            EndpointConfigName=name,
            ProductionVariants=[{**variant, "InstanceType": "ml.m5.large"}],
            Tags=everything,
        )
        self._once(self._client.create_endpoint, EndpointName=name, EndpointConfigName=name, Tags=everything)
        return {
            "endpointArn": self._client.describe_endpoint(EndpointName=name)["EndpointArn"],
            "configArn": self._client.describe_endpoint_config(EndpointConfigName=name)["EndpointConfigArn"],
            "modelArn": self._client.describe_model(ModelName=name)["ModelArn"],
        }

    def delete(self, name: str) -> None:
        """Delete the three; what is gone already is fine."""
        self._gone_is_fine(self._client.delete_endpoint, EndpointName=name)
        self._gone_is_fine(self._client.delete_endpoint_config, EndpointConfigName=name)
        self._gone_is_fine(self._client.delete_model, ModelName=name)

    def _once(self, call: Any, **arguments: Any) -> None:
        from botocore.exceptions import ClientError

        try:
            call(**arguments)
        except ClientError as error:
            if "already" not in str(error).lower():
                raise

    def _gone_is_fine(self, call: Any, **arguments: Any) -> None:
        from botocore.exceptions import ClientError

        try:
            call(**arguments)
        except ClientError as error:
            if "could not find" not in str(error).lower():
                raise
