"""Machines brought up from recovery points: disks through libvirt's own streams, then a definition.

    land      1. what an unfinished attempt left is removed; a finished machine is found by uuid and stamp
              2. the whole machine is decided: chipset, firmware, buses, cards (`hardware`)
    open      a volume for each disk, filled by a stream in the connection itself, so over every transport
    finish    the definition, with our stamp, last: a machine that stands has whole disks

A disk is written as the qcow2 image that it will be (`disks.qcow2`), in one go. The other way, a raw volume that the
host then converts, is slower, takes the room twice, and is not safe: libvirt looks at what is in a raw volume when it
refreshes its pool, which it does after every upload. A guest that writes a qcow2 header with a backing file on its disk
would have the host read any file of its own into it (tried on libvirt 9.0).

A stream on a dead line ends by keepalive, 20 s after the last word (`client`): each disk has a connection of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import libvirt

from connectors.base import MachineRef, Order
from connectors.errors import (
    CapacityExhausted,
    CertificateRejected,
    Conflict,
    ConnectorError,
    CredentialsRejected,
    NotFound,
    Unsupported,
)
from connectors.kvm import faults, hardware, machines, mapping, names, screens, volumes
from connectors.kvm.client import Endpoint
from connectors.kvm.work import Domain, Work
from connectors.replication import LandingWish
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused
from disks.qcow2 import CLUSTER, Qcow2

T = TypeVar("T")

FILES = ("dir", "fs", "netfs")
"""Storage pools whose volumes are files, as an image must be."""
OPEN_S = 30.0
"""How long a connection for a disk may take."""
LARGEST = 512 << 10
"""Bytes sent at once: twice as fast as 64 KiB or 1 MiB (libvirt 9.0, on one machine)."""


class Working(Protocol):
    """How calls are made for a key by a deadline, on a connection of their own. Raises what connectors raise."""

    def __call__(self, key: str, deadline: float, doing: str, call: Callable[[Work[Order]], T]) -> T: ...


def land(work: Work[Order], wish: LandingWish, working: Working, endpoint: Endpoint) -> KvmLanding:
    """Raises `NotFound`, `Conflict` (the name is taken, or the uuid is somebody else's), `Unsupported`, `Busy`."""
    names.require_usable(wish.name)
    if wish.host and wish.host != work.host_id:
        raise NotFound(f"Host {wish.host} is not behind {work.settings.endpoint}: there is {work.host_id} alone.")
    if _finished(work) is not None:
        return KvmLanding(wish, None, "", working, endpoint)
    volumes.remove(work, names.uuid_of(wish.key))
    machines.require_free_name(work, wish.name, names.uuid_of(wish.key))
    work.begin("Looking at storage and networks")
    pool = _pool(work, wish.storage)
    networks = [volumes.find_network(work, network) if network else "" for network in wish.networks]
    machine = hardware.decide(wish.configuration, _offers(work), networks, wish.booted_on)
    landing = KvmLanding(wish, machine, pool, working, endpoint)
    landing.note(_choose_macs(work, machine)[1])
    return landing


def clear(work: Work[Order]) -> None:
    """A finished machine and its disks are left alone. Raises `Conflict` for somebody else's, `Busy`."""
    if _finished(work) is None:
        volumes.remove(work, names.uuid_of(work.order.key))


def _finished(work: Work[Order]) -> Domain | None:
    """The machine that a landing of this key has made. Raises `Conflict` if what has its uuid is not ours."""
    work.begin("Looking for the machine")
    uuid = names.uuid_of(work.order.key)
    domain = work.find(uuid)
    if domain is None:
        return None
    if mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)).stamp != work.stamp:
        raise Conflict(
            f"A machine with the uuid of this landing, {uuid}, exists and is not ours. Nothing was done to it."
        )
    return domain


def _pool(work: Work[Order], named: str) -> str:
    """Uuid of the storage pool."""
    pool = volumes.find_pool(work, named)
    if not pool.isActive():
        raise Conflict(f"Storage pool {pool.name()!r} on {work.settings.endpoint} is not active. Start it first.")
    if mapping.pool_type(pool.XMLDesc()) not in FILES:
        raise Unsupported(
            f"Storage pool {pool.name()!r} keeps no files, and disks of landed machines are files. Choose another one."
        )
    return str(pool.UUIDString())


def _offers(work: Work[Order]) -> dict[str, hardware.Offer]:
    """What the host has, by chipset."""
    offers = {}
    for chipset in (hardware.MODERN, hardware.OLD):
        try:
            told = work.connection.getDomainCapabilities(None, "x86_64", chipset, work.settings.acceleration)
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_NO_SUPPORT):
                raise
        else:
            offers[chipset] = hardware.read_offer(told)
    return offers


def _choose_macs(work: Work[Order], machine: hardware.Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    work.begin("Looking at the host's network cards")
    uuid = names.uuid_of(work.order.key)
    taken = frozenset(nic.mac for other in _definitions(work) if other.uuid != uuid for nic in other.nics)
    return hardware.choose_macs(machine, work.order.key, taken)


def _definitions(work: Work[Order]) -> list[mapping.Domain]:
    found = []
    for domain in work.connection.listAllDomains():
        try:
            found.append(mapping.read_domain(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
    return found


class KvmLanding:
    """A machine in the making."""

    def __init__(
        self, wish: LandingWish, machine: hardware.Machine | None, pool: str, working: Working, endpoint: Endpoint
    ) -> None:
        """`machine` is None for one that stands already."""
        self._wish = wish
        self._machine = machine
        self._pool = pool
        self._working = working
        self._endpoint = endpoint
        self._warnings = list(machine.warnings) if machine is not None else []
        self._sinks: dict[str, VolumeSink] = {}
        """By the disk's target; the last one that was opened for it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self._warnings)

    def note(self, warnings: tuple[str, ...]) -> None:
        self._warnings += [warning for warning in warnings if warning not in self._warnings]

    @property
    def is_done(self) -> bool:
        return self._machine is None

    def open(self, disk: str) -> VolumeSink:
        """Raises `NotFound`, and what a sink raises."""
        if self._machine is None:
            raise Conflict(f"Machine {self._wish.name!r} stands already. Nothing is written to its disks.")
        placed = next((one for one in self._machine.disks if one.name == disk), None)
        if placed is None:
            raise NotFound(f"The recovery point of {self._wish.name!r} holds no disk {disk!r}.")
        if placed.target in self._sinks:
            self._sinks[placed.target].abandon()
        # Its own name at each attempt: what a mover that froze wakes up to write never meets what another one wrote.
        uuid, attempt = names.uuid_of(self._wish.key), uuid4().hex[:8]
        name = names.volume_name(uuid, self._wish.key, f"{placed.target}-{attempt}", "qcow2")
        sink = self._sinks[placed.target] = VolumeSink(self._endpoint, self._pool, name, placed.size)
        return sink

    def finish(self, deadline: float) -> MachineRef:
        """Raises `Conflict` if a disk is not whole, the name is taken, or the uuid is somebody else's."""
        return self._working(self._wish.key, deadline, "making the machine", self._finish)

    def _finish(self, work: Work[Order]) -> MachineRef:
        ref = MachineRef(names.uuid_of(self._wish.key), work.stamp)
        if _finished(work) is None:
            self._define(work)
        return ref

    def _define(self, work: Work[Order]) -> None:
        machine = self._machine
        if machine is None:
            raise NotFound(f"Machine {self._wish.name!r} was there and is gone. Bring it up again.")
        machines.require_free_name(work, self._wish.name, names.uuid_of(self._wish.key))
        disks = tuple(mapping.NewDisk(disk.target, self._path(work, disk)) for disk in machine.disks)
        macs, warnings = _choose_macs(work, machine)
        self.note(warnings)
        plan = mapping.Blueprint(
            name=self._wish.name,
            uuid=names.uuid_of(self._wish.key),
            stamp=work.stamp,
            disks=disks,
            macs=macs,
            virt_type=work.settings.acceleration,
            screen_password=screens.new_password(),
            screen_listen=work.settings.screen_listen,
        )
        work.begin("Defining the machine")
        work.usage.forget()
        work.connection.defineXML(mapping.clone_xml(hardware.skeleton_xml(machine), plan))

    def _path(self, work: Work[Order], disk: hardware.PlacedDisk) -> str:
        """Of a whole disk that is still there: another attempt, which begins by removing them, may have come."""
        sink = self._sinks.get(disk.target)
        pool = work.connection.storagePoolLookupByUUIDString(self._pool)
        volume = volumes.find_volume(pool, sink.name) if sink is not None and sink.is_whole else None
        if volume is None:
            raise Conflict(
                f"Disk {disk.name} of {self._wish.name!r} is not there in whole. Bring the machine up again."
            )
        return str(volume.path())

    def close(self) -> None:
        """Sinks hold connections of their own: those that were not ended are abandoned."""
        for sink in self._sinks.values():
            sink.abandon()


class VolumeSink:
    """A new qcow2 volume, filled by an upload from front to back.

    `abandon` removes the volume; where the line is dead it cannot, and `clear` does.
    """

    def __init__(self, endpoint: Endpoint, pool: str, name: str, size: int) -> None:
        """Raises `SinkLost`, `SinkRefused`, `OutOfSpace`."""
        self.name = name
        self.is_whole = False
        self._endpoint = endpoint
        self._image = Qcow2(size)
        self._line = ExitStack()
        self._volume: volumes.Volume = None
        self._stream: Any = None
        try:
            self._open(pool)
        except (libvirt.libvirtError, ConnectorError) as error:
            self.abandon()
            raise self._problem(error) from error

    def _open(self, pool: str) -> None:
        line = self._endpoint.line(time.monotonic() + OPEN_S)
        connection = self._line.enter_context(line.using())
        # libvirt has QEMU make an empty image, of which the header stays until ours takes its place: so libvirt never
        # sees anything but a qcow2 volume there.
        storage = connection.storagePoolLookupByUUIDString(pool)
        self._volume = storage.createXML(mapping.copy_xml(self.name, self._image.size))
        self._stream = connection.newStream()
        self._volume.upload(self._stream, CLUSTER, 0)

    def write(self, offset: int, data: bytes) -> None:
        for piece in self._image.write(offset, data):
            self._send(piece)

    def zero(self, offset: int, length: int) -> None:
        """Nothing to do: offsets rise, and a new image is zeros where nothing was written."""

    def commit(self) -> None:
        for piece in self._image.finish():
            self._send(piece)
        try:
            self._open_stream().finish()
            self._stream = self._volume.connect().newStream()
            self._volume.upload(self._stream, 0, CLUSTER)
            self._send(self._image.header())
            self._stream.finish()
            self._stream = None
            self._settle()
        except libvirt.libvirtError as error:
            raise self._problem(error) from error
        self.is_whole = True
        self._line.close()

    def _settle(self) -> None:
        """libvirt has no word for a flush. But of a qcow2 volume that is to be given a size, even the one it has, QEMU
        writes the header and waits until all of the file has reached the disk (qemu-img resize: fdatasync); and it
        fails for what is no image.

        libvirt refuses that for a file that takes more room than its disk's size, which it does when hardly a cluster
        is zeros: what is in such a file is as safe as the host's own writing back makes it.
        """
        size, taken = (int(value) for value in self._volume.info()[1:])
        if size != self._image.size:
            raise SinkLost(f"Volume {self.name} is not the image that was sent. It has to be written anew.")
        if taken <= size:
            self._volume.resize(size)

    def _open_stream(self) -> Any:
        if self._stream is None:
            raise ValueError("this copy has ended")
        return self._stream

    def _send(self, data: bytes) -> None:
        stream = self._open_stream()
        rest = data
        try:
            while rest:
                rest = rest[stream.send(rest[:LARGEST] if len(rest) > LARGEST else rest) :]
        except libvirt.libvirtError as error:
            raise self._problem(error) from error

    def abandon(self) -> None:
        if self.is_whole:
            return
        stream, self._stream = self._stream, None
        volume, self._volume = self._volume, None
        with suppress(libvirt.libvirtError):
            if stream is not None:
                stream.abort()
        with suppress(libvirt.libvirtError):
            if volume is not None:
                volumes.delete_volume(volume)
        del stream, volume
        self._line.close()

    def _problem(self, error: libvirt.libvirtError | ConnectorError) -> DiskError:
        where = f"volume {self.name} on {self._endpoint.name}"
        kind = faults.kind_of(error) if isinstance(error, libvirt.libvirtError) else type(error)
        if issubclass(kind, CapacityExhausted):
            return OutOfSpace(f"No room for {where}. Make room in its storage pool or choose another one.")
        if issubclass(kind, CredentialsRejected | CertificateRejected | Unsupported):
            return SinkRefused(f"Cannot write {where}: {faults.ADVICE[kind]}")
        return SinkLost(f"Cannot write {where}: it is not reached any more, or not there. It is begun anew.")
