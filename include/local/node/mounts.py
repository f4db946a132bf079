"""Volumes of a pod as folders of this machine: S3 and FSx claims, secrets, config maps, scratch space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.local.controller.resources import Object
from include.local.node.environment import config_map_data, secret_data
from include.local.node.weights import WeightsError, fetch, verify_folder

S3_DRIVER = "s3.csi.aws.com"
FSX_DRIVER = "fsx.csi.aws.com"
Look = Callable[[str, str, str], Object | None]


class MountError(Exception):
    """A volume cannot be mounted now.

    :param integrity: its bytes are not the ones that were staged.
    """

    def __init__(self, message: str, *, integrity: bool = False) -> None:
        super().__init__(message)
        self.integrity = integrity


@dataclass(frozen=True)
class Mounted:
    """A volume's folder; ``manifest_digest`` is set when it holds verified staged weights."""

    folder: Path
    manifest_digest: str = ""


@dataclass(frozen=True)
class Mounter:
    """Mounts volumes; blocking, for a thread.

    :param look: returns an object by informer name (secrets, configmaps, claims, volumes), namespace and name.
    :param fsx: ``<fsx>/<file system id>`` stands for a file system.
    """

    look: Look
    fsx: Path

    def mount(self, volume: Object, namespace: str, target: Path) -> Mounted:
        """Make one volume available.

        :raises MountError: naming the volume; for wrong bytes also the file.
        """
        try:
            return self._mount(volume, namespace, target)
        except WeightsError as error:
            text = f'MountVolume.SetUp failed for volume "{volume["name"]}": {error}'
            raise MountError(text, integrity=error.integrity) from error
        except (OSError, KeyError, MountError) as error:
            text = f'MountVolume.SetUp failed for volume "{volume["name"]}": {error}'
            raise MountError(text) from error

    def _mount(self, volume: Object, namespace: str, target: Path) -> Mounted:
        if volume.get("persistentVolumeClaim"):
            return self._claim(namespace, volume["persistentVolumeClaim"]["claimName"], target)
        if volume.get("secret"):
            secret = volume["secret"]
            found = self._needed("secrets", namespace, secret["secretName"])
            return _write(target, secret_data(found), secret.get("items"))
        if volume.get("configMap"):
            wanted = volume["configMap"]
            found = self._needed("configmaps", namespace, wanted["name"])
            return _write(target, config_map_data(found), wanted.get("items"))
        if volume.get("hostPath"):
            return _link(target, Path(volume["hostPath"]["path"]))
        if any(kind in volume for kind in ("emptyDir", "projected", "downwardAPI")):
            target.mkdir(parents=True, exist_ok=True)
            return Mounted(target)
        raise MountError(f"no volume plugin matched {sorted(volume.keys() - {'name'})}")

    def _needed(self, kind: str, namespace: str, name: str) -> Object:
        found = self.look(kind, namespace, name)
        if found is None:
            named = {"claims": "persistentvolumeclaim"}.get(kind, kind.removesuffix("s"))
            raise MountError(f'{named} "{name}" not found')
        return found

    def _claim(self, namespace: str, name: str, target: Path) -> Mounted:
        claim = self._needed("claims", namespace, name)
        persistent = self._needed("volumes", "", claim["spec"].get("volumeName") or "")
        spec: dict[str, Any] = persistent["spec"]
        if spec.get("hostPath"):
            return _link(target, Path(spec["hostPath"]["path"]))
        csi = spec.get("csi") or {}
        attributes = csi.get("volumeAttributes") or {}
        prefix = attributes.get("prefix") or _option(spec.get("mountOptions") or [], "prefix")
        if csi.get("driver") == FSX_DRIVER:
            shared = (self.fsx / Path(str(csi["volumeHandle"])).name).resolve()
            folder = (shared / prefix.strip("/")).resolve()
            if not folder.is_relative_to(shared):
                raise MountError(f"{prefix!r} leaves the file system")
            return Mounted(_link(target, folder).folder, verify_folder(folder))
        if csi.get("driver") == S3_DRIVER:
            target.mkdir(parents=True, exist_ok=True)
            expected = attributes.get("manifestDigest", "")
            fetched = fetch(f"s3://{attributes['bucketName']}", prefix, target, expected_digest=expected)
            return Mounted(target, fetched.manifest_digest)
        raise MountError(f"driver name {csi.get('driver')} not found in the list of registered CSI drivers")


def _option(options: list[str], name: str) -> str:
    """Value of a mountpoint-s3 option: ``prefix a/b`` or ``prefix=a/b``, with or without dashes."""
    for option in options:
        key, _, value = option.strip().lstrip("-").replace("=", " ", 1).partition(" ")
        if key == name:
            return value.strip()
    return ""


def _link(target: Path, folder: Path) -> Mounted:
    folder.mkdir(parents=True, exist_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    target.symlink_to(folder, target_is_directory=True)
    return Mounted(target)


def _write(target: Path, values: dict[str, str], items: list[Object] | None) -> Mounted:
    target.mkdir(parents=True, exist_ok=True)
    target.chmod(0o700)
    names = {item["key"]: item["path"] for item in items or []} or {key: key for key in values}
    for key, path in names.items():
        if key not in values:
            raise MountError(f"references non-existent key: {key}")
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(values[key])
    return Mounted(target)
