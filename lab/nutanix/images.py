"""Images of Prism Central's image service, as the vendor SDK ntnx_vmm_py_client 4.3.2 has them.

An image is made from a disk of a machine (not from a recovery point: the API has no such source), or from an object
that was uploaded before. What was uploaded may be of any format: it is told by its first bytes, and becomes a flat
disk. What is downloaded is flat, and as large as the disk (packer-plugin-nutanix issue 207).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.errors import Misfit, NoSuch, OutOfStorage
from lab.nutanix import views
from lab.nutanix.views import Json
from lab.world import SECTOR, World

IMAGE_REL = "vmm:content:image"
PIECE = 1024 * 1024
SECONDS = {"CreateImage": 3.0, "DeleteImage": 0.8}


@dataclass(slots=True)
class Image:
    id: str
    name: str
    kind: str
    description: str
    disk: str
    """The world's disk that holds it."""
    created_at: float


class Images:
    """All that there are."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.images: dict[str, Image] = {}

    def from_disk(self, wanted: Mapping[str, Any], disk: str) -> Image:
        """What is on the disk now. Raises `NoSuch`, `OutOfStorage`."""
        if disk not in self._world.disks:
            raise NoSuch(f"disk {disk}")
        return self._enter(wanted, self._world.copy_disk(disk, linked=False, used_mib=1).id)

    def from_file(self, wanted: Mapping[str, Any], path: Path) -> Image:
        """What is in that file, of whatever format. Raises `Misfit` for one that cannot be read, `OutOfStorage`."""
        with tempfile.TemporaryDirectory(prefix="lab-image-") as folder:
            flat = Path(folder) / "flat"
            try:
                told = _qemu_img("info", "--output=json", str(path))
                _qemu_img("convert", "-f", json.loads(told)["format"], "-O", "raw", str(path), str(flat))
            except subprocess.CalledProcessError as error:
                raise Misfit(f"The image cannot be read: {error.stderr.strip()}") from error
            return self._enter(wanted, self._fill(flat))

    def _fill(self, flat: Path) -> str:
        """A new disk with what is in the flat file."""
        world = self._world
        size = -(-flat.stat().st_size // SECTOR) * SECTOR
        disk = world.new_disk(next(iter(world.storages)), capacity=max(size, SECTOR)).id
        try:
            with flat.open("rb") as file:
                for at, length in _areas(file.fileno(), flat.stat().st_size):
                    file.seek(at)
                    for start in range(at, at + length, PIECE):
                        world.write(disk, start, file.read(min(PIECE, at + length - start)))
        except OutOfStorage:
            world.erase_disk(disk)
            raise
        return disk

    def _enter(self, wanted: Mapping[str, Any], disk: str) -> Image:
        image = Image(
            self._world.new_id(), str(wanted["name"]), str(wanted["type"]), str(wanted.get("description") or ""), disk,
            self._world.now,
        )  # fmt: skip
        self.images[image.id] = image
        return image

    def drop(self, id: str) -> None:
        if image := self.images.pop(id, None):
            self._world.erase_disk(image.disk)

    def read(self, image: Image, offset: int) -> Iterator[bytes]:
        """From there to the end. Called without the world's lock; an image that is deleted meanwhile ends it early."""
        size = self._world.disks[image.disk].capacity
        try:
            for at in range(offset, size, PIECE):
                yield self._world.read(image.disk, at, min(PIECE, size - at))
        except NoSuch:
            return

    def size(self, image: Image) -> int:
        return self._world.disks[image.disk].capacity

    def view(self, image: Image) -> Json:
        return {
            "$objectType": "vmm.v4.content.Image",
            "$reserved": views.STAMP,
            "extId": image.id,
            "name": image.name,
            "description": image.description,
            "type": image.kind,
            "sizeBytes": self.size(image),
            "clusterLocationExtIds": [views.cluster_id(self._world)],
            "createTime": views.time_of(image.created_at),
            "lastUpdateTime": views.time_of(image.created_at),
            "ownerExtId": "00000000-0000-0000-0000-000000000000",
            "ownerName": "admin",
        }

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(image) for image in self.images.values()]

    def load(self, told: list[dict[str, Any]]) -> None:
        self.images = {one["id"]: Image(**one) for one in told}


def _qemu_img(*arguments: str) -> str:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _areas(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the file holds anything."""
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            return
        at = os.lseek(file, start, os.SEEK_HOLE)
        yield start, at - start
