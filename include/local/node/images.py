"""The images that the local node can run: each is a module of this repository."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """A runnable image.

    :param entrypoint: argv that the container's ``args`` follow.
    :param digest: ``sha256:<hex>`` of the sources it runs; stands for the image's manifest digest.
    """

    repository: str
    entrypoint: tuple[str, ...]
    digest: str
    size: int

    @property
    def image_id(self) -> str:
        """``<repository>@sha256:<hex>``, as a container status reports it."""
        return f"{self.repository}@{self.digest}"


REGISTRY = "hyperpod.local"
MODULES = {
    f"{REGISTRY}/llama-cpp": "include.local.modelserver",
    f"{REGISTRY}/stager": "include.staging",
    f"{REGISTRY}/loadtest": "include.loadtest",
    f"{REGISTRY}/router": "include.local.node.router",
    f"{REGISTRY}/hf-model-downloader": "include.local.node.hfdownload",
    f"{REGISTRY}/echo": "include.local.node.echo",
}


class ImageNotFoundError(Exception):
    """No registry that the local node knows has this image."""


def split_reference(reference: str) -> tuple[str, str, str]:
    """Return ``(repository, tag, digest)``; the absent ones are empty."""
    name, _, digest = reference.partition("@")
    head, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return head + slash + last, tag, digest


def resolve(reference: str) -> Image:
    """Return the image that a reference names.

    :raises ImageNotFoundError: for an unknown repository, the tag ``absent``, or a digest that is not the one
        of the sources.
    """
    repository, tag, digest = split_reference(reference)
    module = MODULES.get(repository)
    if module is None or find_spec(module) is None or tag == "absent":
        raise ImageNotFoundError(f'failed to resolve reference "{reference}": {reference}: not found')
    found, size = _digest_of(module)
    if digest and digest != found:
        raise ImageNotFoundError(f'failed to resolve reference "{reference}": manifest {digest}: not found')
    return Image(repository, (sys.executable, "-m", module), found, size)


def _digest_of(module: str) -> tuple[str, int]:
    spec = find_spec(module)
    origin = Path(str(spec.origin if spec else ""))
    sources = sorted(origin.parent.glob("*.py")) if origin.name == "__init__.py" else [origin]
    sha, size = hashlib.sha256(), 0
    for source in sources:
        data = source.read_bytes()
        sha.update(source.name.encode() + b"\0" + data)
        size += len(data)
    return f"sha256:{sha.hexdigest()}", size
