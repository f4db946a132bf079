"""Where a load goes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from include.catalog.specs import Spec

Protocol = Literal["openai-chat", "openai-completions", "invocations", "sagemaker", "embeddings"]
BodyFormat = Literal["openai-chat", "openai-completions", "tgi", "djl", "embeddings"]


class Target(Spec):
    """One endpoint as a client sees it.

    :param path: below ``base_url``; empty: the protocol's usual one.
    :param model: name in the request body; empty: none is sent.
    :param protocol: ``None``: the workload's.
    :param stream: ``None``: the workload's.
    :param body_format: JSON shape for ``invocations`` and ``sagemaker``.
    :param headers: sent with every request (``Authorization`` too); they go to the generator by a pipe, and no record
        or log holds their values.
    :param endpoint_name: SageMaker endpoint, when ``path`` is empty.
    :param ignore_eos: ask the server not to stop before the stated number of tokens.
    """

    base_url: str = Field(pattern=r"^https?://[^/\s]+.*$")
    path: str = ""
    model: str = ""
    protocol: Protocol | None = None
    stream: bool | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    ca_file: str | None = None
    insecure: bool = False
    client_cert_file: str | None = None
    client_key_file: str | None = None
    body_format: BodyFormat = "openai-chat"
    endpoint_name: str | None = None
    region: str | None = None
    ignore_eos: bool = True
