"""Disk images, made and taken apart by qemu-img: what an export writes and what an upload brings."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.errors import Misfit
from lab.world import World

CLUSTER = "2M"
"""An appliance's exports have clusters of 2 MiB (scale-backup's README)."""
PIECE = 1024 * 1024
FORMATS = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vhd": "vpc", ".vhdx": "vhdx", ".img": "raw"}
"""By the ending of an upload's name (vendor's field notes, "Virtual disks")."""


@contextmanager
def exported(world: World, disk: str, *, is_compressed: bool) -> Iterator[Path]:
    """A qcow2 image of what the disk holds now."""
    with tempfile.TemporaryDirectory(prefix="lab-export-") as folder:
        raw, image = Path(folder) / "raw", Path(folder) / "image"
        with raw.open("wb") as file:
            file.truncate(world.disks[disk].capacity)
            for area in world.allocated(disk):
                for at in range(area.offset, area.offset + area.length, PIECE):
                    file.seek(at)
                    file.write(world.read(disk, at, min(PIECE, area.offset + area.length - at)))
        options = ["-c"] if is_compressed else []
        _qemu_img("convert", *options, "-f", "raw", "-O", "qcow2", "-o", f"cluster_size={CLUSTER}", raw, image)
        raw.unlink()
        yield image


def import_image(world: World, storage: str, name: str, image: Path) -> str:
    """A new disk that holds what is in the image. Raises `Misfit` for what is no image, `OutOfStorage`."""
    kind = FORMATS[Path(name).suffix.lower()]
    with tempfile.TemporaryDirectory(prefix="lab-upload-") as folder:
        raw = Path(folder) / "raw"
        told = json.loads(_qemu_img("info", "--output=json", "-f", kind, image))
        if told.get("backing-filename"):
            raise Misfit("File type is invalid")
        _qemu_img("convert", "-f", kind, "-O", "raw", image, raw)
        # One that does not end with a sector has room for a whole one.
        disk = world.new_disk(storage, capacity=max(512, -(-raw.stat().st_size // 512) * 512)).id
        try:
            for at, data in _pieces(raw):
                world.write(disk, at, data)
        except BaseException:
            world.drop_disk(disk)
            raise
    return disk


def _pieces(raw: Path) -> Iterator[tuple[int, bytes]]:
    """What is not a hole."""
    with raw.open("rb") as file:
        size, at = raw.stat().st_size, 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return  # ENXIO: no data any more
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for place in range(start, at, PIECE):
                yield place, os.pread(file.fileno(), min(PIECE, at - place), place)


def _qemu_img(*arguments: str | Path) -> str:
    done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Misfit("File type is invalid")
    return done.stdout
