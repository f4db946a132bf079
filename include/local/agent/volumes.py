"""A pod's volumes as folders of this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from include.local.controller.informer import Informer
from include.local.controller.resources import Object
from include.local.node.weights import WeightsError, fetch

S3_DRIVER = "s3.csi.aws.com"
FSX_DRIVER = "fsx.csi.aws.com"


class MountError(Exception):
    """A volume cannot be made available; the message says which and why."""


class Volumes:
    """Makes volumes available below a pod's folder.

    :param fsx: folder that stands for the FSx file systems: ``<fsx>/<file system id>``.
    """

    def __init__(self, claims: Informer, persistent: Informer, fsx: Path) -> None:
        self._claims = claims
        self._persistent = persistent
        self._fsx = fsx

    async def mount(self, pod: Object, folder: Path) -> dict[str, Path]:
        """Return the folder of each of the pod's volumes, by volume name.

        :raises MountError: naming the volume; for wrong bytes also the file.
        """
        mounted: dict[str, Path] = {}
        for volume in pod["spec"].get("volumes") or ():
            target = folder / "volumes" / volume["name"]
            claim = volume.get("persistentVolumeClaim")
            if claim:
                target = await self._claimed(pod, volume["name"], claim["claimName"], target)
            target.mkdir(parents=True, exist_ok=True)
            mounted[volume["name"]] = target
        return mounted

    async def _claimed(self, pod: Object, volume: str, claim: str, target: Path) -> Path:
        namespace = pod["metadata"]["namespace"]
        bound = self._claims.get(namespace, claim)
        name = (bound or {}).get("spec", {}).get("volumeName", "")
        persistent = self._persistent.get("", name)
        if persistent is None:
            raise MountError(f'MountVolume.SetUp failed for volume "{volume}": claim "{claim}" is not bound')
        csi: dict[str, Any] = persistent["spec"].get("csi") or {}
        attributes = csi.get("volumeAttributes") or {}
        prefix = attributes.get("prefix", "")
        if csi.get("driver") == FSX_DRIVER:
            return self._fsx / str(csi["volumeHandle"]) / str(prefix).strip("/")
        if csi.get("driver") != S3_DRIVER:
            raise MountError(f'MountVolume.SetUp failed for volume "{volume}": unknown driver {csi.get("driver")}')
        try:
            await asyncio.to_thread(fetch, f"s3://{attributes['bucketName']}", prefix, target)
        except (WeightsError, OSError, KeyError) as error:
            raise MountError(f'MountVolume.SetUp failed for volume "{volume}": {error}') from error
        return target
