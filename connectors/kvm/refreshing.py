"""Machines that stand by: their disks brought from one recovery point to a later one by what differs alone.

    refresh   1. the machine is ours, off, and its disks are as we left them
              2. overlays over its disks that a dead attempt left are removed
    open      an overlay, filled by a stream like a landing's disk: the disk itself is not touched
    finish    QEMU commits the overlays into the disks; then they go

Until `finish` the machine is what it was, whatever becomes of this process. From then on QEMU has the disks open, in a
domain of its own that never runs a guest and ends with our connection; what dies there leaves disks of which nobody
knows what is in them, and their mark tells it: the machine is brought up anew.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import libvirt

from connectors.base import MachineRef, Order
from connectors.errors import Busy, Conflict, NotFound, Unsupported
from connectors.kvm import mapping, names, volumes
from connectors.kvm.client import Endpoint
from connectors.kvm.images import VolumeSink
from connectors.kvm.landing import Working
from connectors.kvm.work import Domain, Work
from connectors.replication import Bookmark, RefreshWish

SUFFIX = "refresh"
POLL_S = 0.1
TARGET = "vd{}"


def mark(work: Work[Order], machine: MachineRef) -> Bookmark:
    """When each disk was written last. Raises `NotFound`, `Conflict`."""
    _, seen = work.ours(machine)
    return Bookmark({disk.target: _state(work, disk) for disk in _disks(seen)})


def refresh(work: Work[Order], wish: RefreshWish, working: Working, endpoint: Endpoint) -> KvmRefreshing:
    """Raises `NotFound`, `Conflict` if it runs or somebody else has written on it, `Unsupported` if it has to be
    brought up anew."""
    work.begin("Looking at the machine")
    domain, seen = work.ours(wish.machine)
    if domain.isActive():
        raise Conflict(f"Machine {seen.name!r} runs. Nothing is written on its disks: switch it off first.")
    disks = _disks(seen)
    drives = wish.configuration.disks
    if len(disks) != len(drives):
        raise Unsupported(f"Machine {seen.name!r} has {len(disks)} disks, and the recovery point {len(drives)}.")
    _remove_overlays(work, wish.machine.id)
    for disk, drive in zip(disks, drives, strict=True):
        if wish.mark.data.get(disk.target) != _state(work, disk):
            raise Conflict(f"Disk {disk.target} of {seen.name!r} was written to by somebody else.")
        if (size := int(volumes.volume_of(work, disk).info()[1])) > drive.size:
            raise Unsupported(f"Disk {drive.name} has shrunk from {size} to {drive.size} bytes.")
    bases = {drive.name: disk for disk, drive in zip(disks, drives, strict=True)}
    sizes = {drive.name: drive.size for drive in drives}
    return KvmRefreshing(wish, bases, sizes, _pools(work, disks), working, endpoint)


def _disks(seen: mapping.Domain) -> list[mapping.Disk]:
    return [disk for disk in seen.disks if disk.is_written]


def _state(work: Work[Order], disk: mapping.Disk) -> str:
    return mapping.volume_state(volumes.volume_of(work, disk).XMLDesc())


def _pools(work: Work[Order], disks: list[mapping.Disk]) -> dict[str, str]:
    """Target -> uuid of the storage pool in which the disk lies."""
    return {disk.target: volumes.volume_of(work, disk).storagePoolLookupByVolume().UUIDString() for disk in disks}


def _remove_overlays(work: Work[Order], machine: str) -> None:
    for volume in volumes.made_for(work, machine):
        if volume.name().endswith(f".{SUFFIX}"):
            work.begin("Removing what an earlier attempt left")
            volumes.delete_volume(volume)


class KvmRefreshing:
    """A machine that is being brought to a later point."""

    def __init__(
        self,
        wish: RefreshWish,
        bases: dict[str, mapping.Disk],
        sizes: dict[str, int],
        pools: dict[str, str],
        working: Working,
        endpoint: Endpoint,
    ) -> None:
        self._wish, self._bases, self._sizes, self._pools = wish, bases, sizes, pools
        self._working, self._endpoint = working, endpoint
        self._sinks: dict[str, VolumeSink] = {}

    def open(self, disk: str) -> VolumeSink:
        """What is not written stays as the machine has it. Raises `NotFound`, and what a sink raises."""
        base = self._bases.get(disk)
        if base is None:
            raise NotFound(f"The recovery point holds no disk {disk!r}.")
        if disk in self._sinks:
            self._sinks[disk].abandon()
        # Its own name at each attempt, as a landing's disks have.
        attempt = f"{base.target}-{uuid4().hex[:8]}"
        name = names.volume_name(self._wish.machine.id, self._wish.key, attempt, SUFFIX)
        sink = VolumeSink(self._endpoint, self._pools[base.target], name, self._sizes[disk], base.path)
        self._sinks[disk] = sink
        return sink

    def finish(self, deadline: float) -> None:
        """Raises `Conflict` if a disk is not whole or the machine was started; `Busy` if there was no time to begin."""
        self._working(self._wish.key, deadline, "bringing the disks up to date", self._finish)

    def _finish(self, work: Work[Order]) -> None:
        domain, seen = work.ours(self._wish.machine)
        if domain.isActive():
            raise Conflict(f"Machine {seen.name!r} was started meanwhile. Nothing was written on its disks.")
        overlays = {
            TARGET.format(chr(ord("a") + number)): self._path(work, name) for number, name in enumerate(self._bases)
        }
        work.begin("Writing what has changed")
        work.usage.forget()
        uuid = str(uuid4())
        wanted = mapping.writer_xml(
            name=f"{names.PREFIX}{SUFFIX}-{uuid}",
            uuid=uuid,
            stamp=work.stamp,
            virt_type=work.settings.acceleration,
            images=overlays,
        )
        # It ends with this connection, so that no mover that dies leaves it behind.
        flags = libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
        writer = work.connection.createXML(wanted, flags)
        try:
            for target in overlays:
                _commit(writer, target, work.deadline)
        finally:
            _end(writer)
        _remove_overlays(work, self._wish.machine.id)

    def _path(self, work: Work[Order], disk: str) -> str:
        sink = self._sinks.get(disk)
        pool = work.connection.storagePoolLookupByUUIDString(self._pools[self._bases[disk].target])
        volume = volumes.find_volume(pool, sink.name) if sink is not None and sink.is_whole else None
        if volume is None:
            raise Conflict(f"The changes of disk {disk} are not there in whole. They are written again.")
        return str(volume.path())

    def close(self) -> None:
        """Sinks hold connections of their own: those that were not ended are abandoned."""
        for sink in self._sinks.values():
            sink.abandon()


def _commit(writer: Domain, target: str, deadline: float) -> None:
    """The overlay's bytes go into the disk below it. Raises `Busy` when it takes too long: it is begun anew."""
    # Shallow: into the image just below, whatever that one may lie over.
    flags = libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | libvirt.VIR_DOMAIN_BLOCK_COMMIT_SHALLOW
    writer.blockCommit(target, None, None, 0, flags)
    while not _is_level(writer, target):
        if time.monotonic() > deadline:
            raise Busy("Writing the changes took too long. The machine is brought up anew.")
        time.sleep(POLL_S)
    writer.blockJobAbort(target, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def _is_level(writer: Domain, target: str) -> bool:
    """Whether the disk below has all of it. libvirt says so in the definition once QEMU has."""
    for disk in mapping.parse(writer.XMLDesc()).iterfind("devices/disk"):
        named, mirror = disk.find("target"), disk.find("mirror")
        if named is not None and named.get("dev") == target:
            return mirror is not None and mirror.get("ready") == "yes"
    raise Busy("The disk is gone that was being written. The machine is brought up anew.")


def _end(writer: Any) -> None:
    """QEMU ends by itself and so writes all that it has in memory."""
    with suppress(libvirt.libvirtError):
        writer.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_GRACEFUL)
