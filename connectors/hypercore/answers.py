"""Answer files for Sysprep: a CD with `Unattend.xml`, which Windows looks for at its first boot.

HyperCore itself hands guests cloud-init data alone, but it takes ISO images in three steps (vendor's field notes, "ISO
images"): create, upload, declare ready. An image bears the machine's id and the order's key in its name, so each step
is found done by whoever goes on, and the images of a machine go with it: an answer file may hold a password.
"""

from __future__ import annotations

import io

import pycdlib

from connectors.hypercore import mapping
from connectors.hypercore.client import segment
from connectors.hypercore.mapping import Image, Vm
from connectors.hypercore.work import O, Started, Work


def settle(work: Work[O], vm: Vm, answer_file: str) -> None:
    """Bring it about that the machine's drive holds this answer file, or none of ours if it is empty.

    Raises as `change` does while there is something left to do.
    """
    if not answer_file and not vm.drives:  # no drive, so never an answer file
        return
    wanted = f"{mapping.image_prefix(vm.id)}{work.order.key}.iso" if answer_file else ""
    there = _images_of(work, vm.id)
    if answer_file:
        image = _require_ready(work, vm, next((image for image in there if image.name == wanted), None), answer_file)
        _insert(work, vm, image, there)
    for old in there:
        if old.name != wanted:
            for drive in vm.drives:
                if drive.path and drive.path == old.path:
                    _swap(work, vm, drive.id, "", "")
            work.change("Removing the answer file", "DELETE", f"/ISO/{segment(old.id)}", on=vm)


def drop(work: Work[O], machine: str) -> None:
    """Delete what was made for a machine that is gone. Raises as `change` does while there is something left."""
    for image in _images_of(work, machine):
        work.change("Removing the answer file", "DELETE", f"/ISO/{segment(image.id)}")


def _images_of(work: Work[O], machine: str) -> list[Image]:
    return [image for image in work.view.images() if image.name.startswith(mapping.image_prefix(machine))]


def _require_ready(work: Work[O], vm: Vm, image: Image | None, answer_file: str) -> Image:
    content = answer_iso(answer_file)
    if image is None:
        name = f"{mapping.image_prefix(vm.id)}{work.order.key}.iso"
        work.change(
            "Writing the answer file", "POST", "/ISO", {"name": name, "size": len(content), "readyForInsert": False}
        )
        raise AssertionError("a change always raises")
    if not image.is_ready and not work.receipt.get("uploaded"):
        try:
            work.change("Writing the answer file", "PUT", f"/ISO/{segment(image.id)}/data", content)
        except Started:
            work.receipt["uploaded"] = True
            raise
    if not image.is_ready:
        work.change("Writing the answer file", "PATCH", f"/ISO/{segment(image.id)}", {"readyForInsert": True})
    return image


def _insert(work: Work[O], vm: Vm, image: Image, ours: list[Image]) -> None:
    """Into a drive that is empty or holds an older one of ours; else into a new one."""
    if any(drive.path == image.path for drive in vm.drives):
        return
    replaceable = {"", *(old.path for old in ours)}
    free = next((drive for drive in vm.drives if drive.path in replaceable), None)
    if free is not None:
        _swap(work, vm, free.id, image.path, image.name)
    drive = {"virDomainUUID": vm.id, "type": "IDE_CDROM", "capacity": 0, "cacheMode": "NONE", "path": image.path}
    work.change("Inserting the answer file", "POST", "/VirDomainBlockDevice", drive, on=vm)


def _swap(work: Work[O], vm: Vm, drive: str, path: str, name: str) -> None:
    """Both are needed: a path alone fails the task."""
    body = {"path": path, "name": name}
    work.change("Changing the disc", "PATCH", f"/VirDomainBlockDevice/{segment(drive)}", body, on=vm)


def answer_iso(answer_file: str) -> bytes:
    """An ISO 9660 image, with Joliet names for Windows."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, vol_ident="ANSWERS")
    try:
        content = answer_file.encode()
        image.add_fp(io.BytesIO(content), len(content), "/UNATTEND.XML;1", joliet_path="/Unattend.xml")
        written = io.BytesIO()
        image.write_fp(written)
        return written.getvalue()
    finally:
        image.close()
