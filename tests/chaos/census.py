"""Everything that exists: on the Kubernetes plane, on the AWS plane, and as processes; and what must be left alone."""

from __future__ import annotations

import contextlib
import time
import urllib.error
from dataclasses import dataclass
from typing import Any

import psutil

from include.endpoint import names
from include.local.demo import Stack
from include.local.kubeaccess import KubeAccess
from tests.include.local.stack import endpoint

# Kubernetes' own diary, and what stands for the faults themselves.
NOT_COUNTED = ("Event", "ConfigMap hyperpod-inference-system/hyperpod-local-faults")
IEC = f"apis/{names.API_VERSION}/namespaces/default/inferenceendpointconfigs"
LEASES = "apis/coordination.k8s.io/v1/namespaces/default/leases"
BUCKET = "hyperpod-models"
FOREIGN, PROTECTED = "smollm2-135m-20261101-foreign", "smollm2-135m-20261101-protected"


def aws(stack: Stack, service: str) -> Any:
    """Return a client of the local AWS."""
    import boto3

    environment = stack.hyperpod.environment()
    url = environment["AWS_ENDPOINT_URL_S3"] if service == "s3" else stack.hyperpod.layout.url("aws")
    return boto3.client(
        service,
        endpoint_url=url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )


def kube(stack: Stack) -> KubeAccess:
    """Return an administrator's access to the local cluster."""
    return KubeAccess.read(stack.hyperpod.layout.kubeconfig)


def census(stack: Stack) -> dict[str, str]:
    """Return everything that exists: what it is → its UID (empty where there is none)."""
    return {**_kubernetes(kube(stack)), **_aws(stack), **_processes(stack)}


def _kubernetes(api: KubeAccess) -> dict[str, str]:
    found: dict[str, str] = {}
    groups = [group["preferredVersion"]["groupVersion"] for group in api.call("GET", "apis")["groups"]]
    for path in ("api/v1", *(f"apis/{group}" for group in groups)):
        for resource in api.call("GET", path)["resources"]:
            if "/" in resource["name"] or "list" not in resource["verbs"]:
                continue
            for item in api.call("GET", f"{path}/{resource['name']}", timeout=20)["items"]:
                meta = item["metadata"]
                where = "/".join(part for part in (meta.get("namespace"), meta["name"]) if part)
                found[f"{resource['kind']} {where}"] = str(meta.get("uid", ""))
    return {what: uid for what, uid in found.items() if not what.startswith(NOT_COUNTED)}


def _aws(stack: Stack) -> dict[str, str]:
    sagemaker, acm, s3 = (aws(stack, service) for service in ("sagemaker", "acm", "s3"))
    found: dict[str, str] = {}
    for kind, operation in (("Endpoint", "endpoints"), ("EndpointConfig", "endpoint_configs"), ("Model", "models")):
        for page in sagemaker.get_paginator(f"list_{operation}").paginate():
            for item in page[f"{kind}s"]:
                found[f"sagemaker {kind} {item[f'{kind}Name']}"] = str(item["CreationTime"])
    for page in acm.get_paginator("list_certificates").paginate():
        for item in page["CertificateSummaryList"]:
            found[f"certificate {item['CertificateArn']}"] = ""
    for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
        found[f"multipart upload {upload['Key']}"] = upload["UploadId"]
    return found


def _processes(stack: Stack) -> dict[str, str]:
    state, found = str(stack.hyperpod.layout.state), {}
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or ())
        if "include.local.modelserver" in command and state in command:
            found[f"model process {process.pid}"] = str(process.pid)
    return found


@dataclass
class Bait:
    """Objects of somebody else that look like ours, and one of ours that is protected and long expired."""

    uids: dict[str, str]

    @classmethod
    def lay(cls, stack: Stack) -> Bait:
        """Make them, anew if a killed session left some."""
        bait = cls({})
        bait.remove(stack)
        api = kube(stack)
        past = {names.EXPIRES_AT: "2026-01-01T00:00:00Z"}
        ours = {names.MANAGED_BY: names.MANAGER, names.OWNER: "somebody-elses-run"}
        notes = {FOREIGN: ({}, past), PROTECTED: (ours, {**past, names.PROTECTED: "true"})}
        for name, (labels, marks) in notes.items():
            item = endpoint(name, sagemaker=name == FOREIGN)
            item["metadata"] |= {"labels": labels, "annotations": marks}
            api.call("POST", IEC, item)
        lease = {"metadata": {"name": FOREIGN}, "spec": {"holderIdentity": "somebody-else"}}
        api.call("POST", LEASES, lease)
        role = "arn:aws:iam::123456789012:role/somebody-else"
        aws(stack, "sagemaker").create_model(ModelName=FOREIGN, ExecutionRoleArn=role)
        aws(stack, "s3").create_multipart_upload(Bucket=BUCKET, Key=f"{FOREIGN}/upload.bin")
        return bait

    def remove(self, stack: Stack) -> None:
        """Delete the baits: the local cluster outlives the campaign."""
        from botocore.exceptions import ClientError

        api, s3 = kube(stack), aws(stack, "s3")
        for path in (f"{IEC}/{FOREIGN}", f"{IEC}/{PROTECTED}", f"{LEASES}/{FOREIGN}"):
            with contextlib.suppress(urllib.error.HTTPError):
                api.call("DELETE", path)
        with contextlib.suppress(ClientError):
            aws(stack, "sagemaker").delete_model(ModelName=FOREIGN)
        for upload in s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ()):
            if upload["Key"].startswith(FOREIGN):
                s3.abort_multipart_upload(Bucket=BUCKET, Key=upload["Key"], UploadId=upload["UploadId"])
        deadline = time.monotonic() + 30
        while any(item["metadata"]["name"] in (FOREIGN, PROTECTED) for item in api.call("GET", IEC)["items"]):
            if time.monotonic() > deadline:
                raise TimeoutError("the baits of the last campaign do not go")
            time.sleep(0.2)

    def settle(self, stack: Stack) -> None:
        """Remember everything that exists by now as somebody else's."""
        self.uids = census(stack)

    def harmed(self, now: dict[str, str]) -> list[str]:
        """Return what is gone or was replaced; pods and their processes may come and go."""
        lasting = {what: uid for what, uid in self.uids.items() if not what.startswith(("Pod ", "model process "))}
        return sorted(what for what, uid in lasting.items() if now.get(what) != uid)

    def leaked(self, now: dict[str, str]) -> list[str]:
        """Return what exists that did not exist before, without what belongs to the baits."""
        new = [what for what in now if what not in self.uids]
        return sorted(what for what in new if FOREIGN not in what and PROTECTED not in what)
