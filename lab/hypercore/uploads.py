"""Virtual disks: images that were uploaded, to be attached to machines (vendor's field notes, "Virtual disks").

An upload is one request with all bytes in it, its length told beforehand. The record bears the name
`uploading-NAME`, then `converting-NAME`, then NAME; there is no other state. The task that the answer names covers the
receiving alone (v1). Attaching copies: the virtual disk stays. Deleting names no task, and for about a second the disk
still shows (the vendor's Ansible collection, plugins/modules/virtual_disk.py). One that was broken off stays as
`uploading-NAME` (the collection's tests).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lab.errors import WorldError
from lab.hypercore.devices import DISKS, Device, copy_bytes, disk_size, extra_of, free_slot, sync_disks
from lab.hypercore.images import FORMATS, import_image
from lab.hypercore.refused import Refused, mapping, require_known

if TYPE_CHECKING:
    from lab.hypercore.cluster import Cluster

UPLOADING, CONVERTING = "uploading-", "converting-"
SIGNATURE = 440
"""Where the master boot record has the disk's signature."""


@dataclass(slots=True)
class VirtualDisk:
    """An image on the cluster."""

    uuid: str
    name: str
    disk: str = ""
    """The world's, with what was in the image."""
    is_ready: bool = False


def upload(cluster: Cluster, query: Mapping[str, str], length: str | None, content: BinaryIO) -> dict[str, str]:
    """PUT /VirtualDisk/upload?filename=NAME&filesize=N."""
    cluster.require_role("VM Create/Edit")
    name = query.get("filename", "")
    if Path(name).suffix.lower() not in FORMATS:
        raise Refused(400, "File type is invalid")
    if length is None or not length == query.get("filesize") == str(os.fstat(content.fileno()).st_size):
        raise Refused(400, "Content-Length does not match filesize")
    created = cluster.world.new_id()
    found = cluster.virtual_disks[created] = VirtualDisk(created, UPLOADING + name)
    problem: WorldError | None = None
    try:
        found.disk = import_image(cluster.world, next(iter(cluster.world.storages)), name, Path(content.name))
    except WorldError as error:
        problem = error

    def act() -> None:
        if problem is not None:
            cluster.virtual_disks.pop(created, None)
            raise problem
        found.name = CONVERTING + name
        cluster.world.after(cluster.converting_s, lambda: _converted(found, name))

    return cluster.begin("Upload", "Upload virtual disk %@", [name], act, created=created, is_beside=True)


def _converted(found: VirtualDisk, name: str) -> None:
    found.name, found.is_ready = name, True


def broken_off(cluster: Cluster, query: Mapping[str, str]) -> None:
    """The connection ended in the middle of an upload."""
    created = cluster.world.new_id()
    cluster.virtual_disks[created] = VirtualDisk(created, UPLOADING + query.get("filename", ""))


def attach(cluster: Cluster, id: str, body: Mapping[str, Any]) -> dict[str, str]:
    """POST /VirtualDisk/{id}/attach."""
    cluster.require_role("VM Create/Edit")
    cluster.require_tier()
    source = cluster.virtual_disks.get(id)
    if source is None:
        raise Refused(404, "VirtualDisk not found")
    require_known(body, {"options", "template"})
    options, wanted = body.get("options") or {}, mapping(body, "template")
    require_known(options, {"regenerateDiskID", "readOnly"})
    require_known(
        wanted,
        {"virDomainUUID", "type", "slot", "cacheMode", "capacity", "disableSnapshotting", "tieringPriorityFactor"},
    )
    if wanted.get("type") not in DISKS or wanted.get("capacity") is None:
        raise Refused(400, "template.type and template.capacity are required")
    if not source.is_ready:
        raise Refused(400, "VirtualDisk is not ready")
    machine = cluster.machine(str(wanted.get("virDomainUUID")))
    cluster.require_place(machine, wanted)
    created, is_regenerated = cluster.world.new_id(), bool(options.get("regenerateDiskID", True))

    def act() -> None:
        world, extra = cluster.world, extra_of(cluster.world, machine)
        kind = str(wanted["type"])
        slot = int(wanted["slot"]) if wanted.get("slot") is not None else free_slot(extra.devices, kind)
        held = world.disks[source.disk].capacity
        capacity = max(int(wanted["capacity"]), held)
        device = Device(created, kind, capacity, str(wanted.get("cacheMode") or "NONE"), slot, disk=source.disk)
        device.disk = copy_bytes(world, device)
        if disk_size(capacity) > held:
            world.resize_disk(device.disk, disk_size(capacity))
        if is_regenerated:
            device.has_new_identity = True
            world.write(device.disk, SIGNATURE, world.random.randbytes(4))
        extra.devices.append(device)
        sync_disks(machine, extra)

    return cluster.begin("Attach", "Attach virtual disk %@", [source.name], act, on=machine, created=created)


def delete(cluster: Cluster, id: str) -> dict[str, str]:
    """DELETE /VirtualDisk/{id}."""
    cluster.require_role("VM Create/Edit")
    if id not in cluster.virtual_disks:
        raise Refused(404, "VirtualDisk not found")
    cluster.world.after(1.0, lambda: _gone(cluster, id))
    return {"taskTag": "", "createdUUID": ""}


def _gone(cluster: Cluster, id: str) -> None:
    gone = cluster.virtual_disks.pop(id, None)
    if gone is not None and gone.disk:
        cluster.world.erase_disk(gone.disk)


def record(cluster: Cluster, found: VirtualDisk) -> dict[str, Any]:
    capacity = cluster.world.disks[found.disk].capacity if found.is_ready else 0
    return {
        "uuid": found.uuid, "name": found.name, "blockSize": 1048576, "capacityBytes": capacity,
        "totalAllocationBytes": 0, "replicationFactor": 2,
    }  # fmt: skip
