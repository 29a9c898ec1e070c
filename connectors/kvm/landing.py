"""Machines brought up from recovery points: disks through libvirt's own streams, then a definition.

    land      1. what an unfinished attempt left is removed; a finished machine is found by uuid and stamp
              2. the whole machine is decided: chipset, firmware, buses, cards (`hardware`)
    open      a volume for each disk, filled over every transport
    finish    the definition, with our stamp, last: a machine that stands has whole disks; a template is marked as one

A disk is written as the qcow2 image that it will be (`disks.qcow2`), in one go. The other way, a raw volume that the
host then converts, is slower, takes the room twice, and is not safe: libvirt looks at what is in a raw volume when it
refreshes its pool, which it does after every upload. A guest that writes a qcow2 header with a backing file on its disk
would have the host read any file of its own into it (tried on libvirt 9.0).

How the image gets there stands in `images`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar
from uuid import uuid4

import libvirt

from connectors.base import MachineRef, Order
from connectors.errors import Conflict, NotFound, Unsupported
from connectors.kvm import hardware, machines, mapping, names, screens, volumes
from connectors.kvm.client import Endpoint
from connectors.kvm.images import VolumeSink
from connectors.kvm.work import Domain, Work
from connectors.replication import LandingWish

T = TypeVar("T")

FILES = ("dir", "fs", "netfs")
"""Storage pools whose volumes are files, as an image must be."""


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
            role=mapping.Role.TEMPLATE if self._wish.is_template else mapping.Role.MACHINE,
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
