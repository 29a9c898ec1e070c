"""Machines brought up from recovery points: an import, into which each disk is sent as a streamOptimized VMDK.

land      1. what an unfinished attempt left is removed; a finished machine is found by uuid and stamp
          2. an import is begun: vSphere makes the machine, under a name of ours and without a stamp, and gives a lease
open      a scratch image, which the commit sends
finish    the lease is completed; then, in one step, the machine gets its name and its stamp; a template gets another
          mark, and where there is a vCenter the snapshot that linked clones hang from and the rank of a template

Until then the machine bears a mark of its landing, and listings leave it out. A lease that nobody holds any more ends
by itself, and vSphere removes what it was of.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar
from uuid import uuid4

from connectors.base import MachineRef
from connectors.errors import Busy, CapacityExhausted, Conflict, ConnectorError, NotFound
from connectors.esxi import faults, hardware, mapping, names, soap, standalone, vcenter
from connectors.esxi.api import vim
from connectors.esxi.client import Client
from connectors.esxi.errands import IN_THE_WAY, Errand
from connectors.esxi.faults import VimFault
from connectors.esxi.leases import Lease
from connectors.esxi.reading import images
from connectors.esxi.transfer import send
from connectors.esxi.work import VM, Vm
from connectors.replication import LandingWish
from disks.base import Sink
from disks.errors import DiskError, OutOfSpace, SinkLost

T = TypeVar("T")

STORE_PATHS = ("name", "summary.accessible", "summary.maintenanceMode", "host")
COMPRESSED_S = 0.2
"""How often it is looked whether an image is compressed."""
HOST_PATHS = ("name", "parent", "runtime.connectionState", "runtime.inMaintenanceMode")


class Errands(Protocol):
    """How something is done for a key by a deadline. Raises what connectors raise."""

    def __call__(self, doing: str, key: str, deadline: float, call: Callable[[Errand], T]) -> T: ...


def land(errand: Errand, wish: LandingWish, errands: Errands, workdir: Path) -> EsxiLanding:
    """Raises `NotFound`, `Conflict` (the name is taken, or the uuid is somebody else's), `CapacityExhausted`,
    `Unsupported`, `Busy`, `VimFault`."""
    images()
    names.require_usable(wish.name)
    if _finished(errand) is not None:
        return EsxiLanding(wish, errand.client, errands, workdir)
    clear(errand)
    errand.begin("Looking at storage, hosts and networks")
    store, mounts = _store(errand, wish.storage)
    place = _place(errand, wish, store, mounts)
    _require_free_name(errand, wish.name, place.folder)
    sockets = [vcenter.socket(errand, network) if network else None for network in wish.networks]
    taken = _taken_macs(errand) if any(hardware.usable_mac(nic.mac) for nic in wish.configuration.nics) else frozenset()
    found = hardware.decide(wish.configuration, wish.networks, wish.booted_on, taken)
    spare = _spare_socket(errand, place.host, sockets) if found.nics else mapping.Socket("", "")
    spec = hardware.config_spec(
        found, name=names.landing(wish.key), uuid=names.uuid_of(wish.key), store=store, sockets=sockets, spare=spare,
        marks={mapping.LANDING: _mark(errand)},
    )  # fmt: skip
    pool = errand.object(vim.ResourcePool, place.pool)
    lease = Lease.begin(
        errand,
        "Making room for the machine",
        lambda: pool.ImportVApp(
            spec=vim.vm.VmImportSpec(configSpec=spec),
            folder=vim.Folder(place.folder),
            host=vim.HostSystem(place.host) if place.host else None,
        ),
    )
    return EsxiLanding(wish, errand.client, errands, workdir, found, lease)


def clear(errand: Errand) -> None:
    """Nothing of an unfinished landing stays; a finished machine does. Raises `Conflict`, `Busy`, `VimFault`."""
    while True:
        errand.begin("Looking for what an earlier attempt left")
        vm = errand.find(names.uuid_of(errand.order.key))
        if vm is None or _is_ours(errand, vm):
            return
        if vm.mark(mapping.LANDING) != _mark(errand):
            raise Conflict(
                f"A machine with the uuid of this landing, {names.uuid_of(errand.order.key)}, exists and is not ours. "
                "Nothing was done to it."
            )
        try:
            errand.carry_out("Removing what an earlier attempt left", errand.vm(vm).Destroy)
        except VimFault as fault:
            if not fault.is_a(*IN_THE_WAY, "ManagedObjectNotFound"):
                raise
            errand.pause()


def _mark(errand: Errand) -> str:
    return f"{errand.stamp.installation} {errand.order.key}"


def _finished(errand: Errand) -> Vm | None:
    """The machine that a landing of this key has made."""
    errand.begin("Looking for the machine")
    vm = errand.find(names.uuid_of(errand.order.key))
    if vm is None:
        return errand.find_stamped(errand.stamp)
    return vm if _is_ours(errand, vm) else None


def _is_ours(errand: Errand, vm: Vm) -> bool:
    """Whether the landing of this key has finished it, as a machine or as a template."""
    return vm.stamp == errand.stamp or vm.mark(mapping.TEMPLATE) == _mark(errand)


# --- where it is to be -----------------------------------------------------------------------------------------------


class _Place:
    def __init__(self, pool: str, host: str, folder: str) -> None:
        self.pool, self.host, self.folder = pool, host, folder


def _store(errand: Errand, storage: str) -> tuple[str, list[str]]:
    """The datastore's name, and the hosts that see it."""
    seen = errand.client.object_seen("Datastore", storage, STORE_PATHS, errand.deadline)
    if seen is None or not seen.values:
        raise NotFound(f"Storage {storage} is not on {errand.endpoint}.")
    if not mapping.storage(seen).is_up:
        raise NotFound(f"Storage {names.from_wire(seen.text('name'))!r} on {errand.endpoint} is not available now.")
    mounts = [soap.text(mount, "key") for mount in seen.values.get("host", ())]
    return names.from_wire(seen.text("name")), mounts


def _place(errand: Errand, wish: LandingWish, store: str, mounts: Sequence[str]) -> _Place:
    """Raises `NotFound`, `Busy`."""
    if not errand.service.is_vcenter:
        standalone.require_host(errand, wish.host)
        return _Place(standalone.POOL, standalone.HOST, standalone.FOLDER)
    if wish.host and not wish.host.startswith("host-"):
        pool, host = vcenter.target(errand, wish.host, is_wish=True)
        return _Place(pool, host, _folder(errand, "Datastore", wish.storage))
    if wish.host and wish.host not in mounts:
        raise NotFound(f"Host {wish.host} is not on {errand.endpoint}, or does not see the storage {store!r}.")
    hosts = errand.client.objects("HostSystem", [wish.host] if wish.host else mounts, HOST_PATHS, errand.deadline)
    up = sorted(id for id, host in hosts.items() if mapping.host(host).is_up)
    if not up:
        raise Busy(f"No host of {errand.endpoint} that sees the storage {store!r} is up. It is tried again.")
    host = wish.host or up[int(names.uuid_of(wish.key)[:8], 16) % len(up)]
    pool, _ = vcenter.target(errand, host, is_wish=True)
    return _Place(pool, host, _folder(errand, "Datastore", wish.storage))


def _folder(errand: Errand, kind: str, id: str) -> str:
    """The folder for machines of the datacenter that this object is in. Raises `NotFound`."""
    while kind and kind != "Datacenter":
        seen = errand.client.object_seen(kind, id, ("parent",), errand.deadline)
        parent = seen.values.get("parent") if seen else None
        kind, id = (parent.get("type") or "", parent.text or "") if parent is not None else ("", "")
    seen = errand.client.object_seen(kind, id, ("vmFolder",), errand.deadline) if kind else None
    if seen is None or not seen.text("vmFolder"):
        raise NotFound(
            f"The datacenter of the storage on {errand.endpoint} cannot be seen. Check the account's rights."
        )
    return seen.text("vmFolder")


def _require_free_name(errand: Errand, name: str, folder: str) -> None:
    index = errand.manager(vim.SearchIndex, "searchIndex")
    if index.FindChild(entity=vim.Folder(folder), name=names.to_wire(name)) is not None:
        raise Conflict(f"Endpoint {errand.endpoint} already has a machine named {name!r}. Choose another name.")


def _spare_socket(errand: Errand, host: str, sockets: Sequence[mapping.Socket | None]) -> mapping.Socket:
    """Any network at all, for a card that is not connected. Raises `NotFound`."""
    if socket := next((one for one in sockets if one is not None), None):
        return socket
    seen = errand.client.object_seen("HostSystem", host, ("network",), errand.deadline) if host else None
    for network in soap.references(seen.values.get("network")) if seen else ():
        with suppress(NotFound):
            return vcenter.socket(errand, network)
    raise NotFound(
        f"No network of {errand.endpoint} can be seen, and a network card needs one even if it is not connected."
    )


def _taken_macs(errand: Errand) -> frozenset[str]:
    paths = ("config.hardware.device",)
    found: set[str] = set()
    view = errand.manager(vim.view.ViewManager, "viewManager").CreateContainerView(
        container=vim.Folder(errand.service.id("rootFolder")), type=[vim.VirtualMachine], recursive=True
    )
    try:
        for page in errand.client.read([(VM, paths)], errand.deadline, view=view._moId):
            for seen in page:
                devices = mapping.devices(seen.values.get("config.hardware.device"))
                found |= {nic.mac.lower() for nic in devices.nics}
        return frozenset(found)
    finally:
        with suppress(VimFault):
            errand.object(vim.view.ContainerView, view._moId).DestroyView()


# --- a machine in the making -----------------------------------------------------------------------------------------


class EsxiLanding:
    """Without hardware and lease: one that stands already."""

    def __init__(
        self,
        wish: LandingWish,
        client: Client,
        errands: Errands,
        workdir: Path,
        found: hardware.Hardware | None = None,
        lease: Lease | None = None,
    ) -> None:
        self._wish, self._client, self._errands, self._workdir = wish, client, errands, workdir
        self._found, self._lease = found, lease
        self._sinks: dict[str, SentDisk] = {}
        self._is_completed = False
        self._warnings: list[str] = []

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*(self._found.warnings if self._found is not None else ()), *self._warnings)

    @property
    def is_done(self) -> bool:
        return self._lease is None

    def open(self, disk: str) -> Sink:
        """Raises `NotFound`, `Conflict`, and what a sink raises."""
        if self._lease is None or self._found is None:
            raise Conflict(f"Machine {self._wish.name!r} stands already. Nothing is written to its disks.")
        placed = next((one for one in self._found.disks if one.name == disk), None)
        if placed is None:
            raise NotFound(f"The recovery point of {self._wish.name!r} holds no disk {disk!r}.")
        self._workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        sink = self._sinks[disk] = SentDisk(self._client, self._lease, placed, self._workdir)
        return sink

    def finish(self, deadline: float) -> MachineRef:
        """Raises `Conflict` if a disk is not whole or the name is taken, `NotFound` if the machine is gone, `Busy`."""
        return self._errands("making the machine", self._wish.key, deadline, self._finish)

    def _finish(self, errand: Errand) -> MachineRef:
        lease = self._lease
        if lease is None:
            vm = _finished(errand)
            if vm is None:
                raise NotFound(f"Machine {self._wish.name!r} was there and is gone. Bring it up again.")
            return self._ranked(errand, vm)
        vm = errand.look(lease.entity)
        if vm is None:
            raise NotFound(
                f"What was made of {self._wish.name!r} is gone: vSphere ended the import. Bring it up again."
            )
        if not _is_ours(errand, vm):
            self._complete(errand, lease)
            self._name(errand, vm)
        return self._ranked(errand, vm)

    def _ranked(self, errand: Errand, vm: Vm) -> MachineRef:
        """What was made; a template once it is one."""
        if not self._wish.is_template:
            return MachineRef(vm.uuid, errand.stamp)
        if errand.service.is_vcenter:
            self._make_template(errand, vm)
        return MachineRef(vm.uuid)

    def _make_template(self, errand: Errand, vm: Vm) -> None:
        """vSphere takes no snapshot of a template, and no linked clone of one that has none: so that comes first."""
        fresh = errand.look(vm.moid, ("snapshot",))
        if fresh is None:
            raise NotFound(f"What was made of {self._wish.name!r} is gone. Bring it up again.")
        if fresh.is_template:
            return
        if not mapping.current_point(fresh.snapshot):
            errand.carry_out("Taking the template's snapshot", lambda: errand.vm(vm).CreateSnapshot(**vcenter.BASE))
        errand.begin("Marking the template")
        try:
            errand.vm(vm).MarkAsTemplate()
        except VimFault as fault:
            if not fault.is_a("NoPermission"):
                raise
            # It serves all the same, as one that is off and bears no stamp.
            self._warnings.append(
                f"vCenter does not know {self._wish.name!r} as a template: the account lacks the right to mark one. "
                "Do not switch it on while machines hang from it."
            )

    def _complete(self, errand: Errand, lease: Lease) -> None:
        if self._is_completed:
            return
        for disk in self._wish.configuration.disks:
            if disk.name not in self._sinks or not self._sinks[disk.name].is_whole:
                raise Conflict(
                    f"Disk {disk.name} of {self._wish.name!r} is not there in whole. Bring the machine up again."
                )
        errand.begin("Ending the import")
        try:
            lease.complete(errand.deadline)
        except VimFault as fault:
            # The answer to an earlier call may have been lost: an import that failed has no machine any more.
            if errand.look(lease.entity) is None:
                raise
            if not fault.is_a("InvalidState", "ManagedObjectNotFound"):
                raise
        self._is_completed = True

    def _name(self, errand: Errand, vm: Vm) -> None:
        """Name and stamp, or a template's mark, in one step."""
        ours = {mapping.TEMPLATE: _mark(errand)} if self._wish.is_template else mapping.stamp_options(errand.stamp)
        marks = mapping.options(ours | {mapping.LANDING: ""})
        spec = vim.vm.ConfigSpec(name=names.to_wire(self._wish.name), extraConfig=marks)
        while True:
            try:
                errand.carry_out("Naming the machine", lambda: errand.vm(vm).Reconfigure(spec=spec))
            except VimFault as fault:
                if not fault.is_a(*IN_THE_WAY):
                    raise
                errand.pause()
            else:
                return

    def close(self) -> None:
        """An import that was not finished cannot be gone on with: it is given up."""
        if self._lease is not None and not self._is_completed:
            self._lease.abort()


class SentDisk:
    """A scratch image that its commit sends. Until then it takes its room in the working folder; twice, meanwhile."""

    def __init__(self, client: Client, lease: Lease, placed: hardware.PlacedDisk, workdir: Path) -> None:
        """Raises `SinkRefused`, `OutOfSpace`."""
        kinds = images()
        self.is_whole = False
        self._client, self._lease, self._placed = client, lease, placed
        self._path = workdir / f"landing-{uuid4().hex}.vmdk"
        self._image: Sink = kinds.ImageSink(self._path, kinds.Format.VMDK_STREAM, placed.size)
        self._compressing: threading.Thread | None = None
        self._problem: DiskError | None = None
        self._is_abandoned = False
        self._sending = self._send()

    def write(self, offset: int, data: bytes) -> None:
        self._image.write(offset, data)

    def zero(self, offset: int, length: int) -> None:
        self._image.zero(offset, length)

    def advance(self, until: float) -> str:
        """Goes on with the sending (`disks.base.Slow`). Raises what a commit raises."""
        for words in self._sending:
            if time.monotonic() >= until:
                return words
        return ""

    def commit(self) -> None:
        self.advance(float("inf"))
        if not self.is_whole:
            raise SinkLost(f"Disk {self._placed.name} was not sent. It is begun anew.")

    def _send(self) -> Generator[str, None, None]:
        """What it is at, in words, step by step."""
        name = self._placed.name
        try:
            self._compressing = threading.Thread(target=self._compress, name="vsphere-image", daemon=True)
            self._compressing.start()
            while self._compressing.is_alive():
                self._compressing.join(COMPRESSED_S)
                yield f"Compresses disk {name}"
            if self._problem is not None:
                raise self._problem
            size = max(1, self._path.stat().st_size)
            for so_far in send(self._client, self._path, self._lease.url_of(self._placed.device)):
                self._lease.percent = 100 * so_far // size
                yield f"Sends disk {name}: {self._lease.percent} %"
            self.is_whole = True
        except DiskError as error:
            raise self._better(error) from None
        except ConnectorError as error:
            raise SinkLost(error.message) from None
        finally:
            self._remove()

    def _compress(self) -> None:
        """In a thread of its own: QEMU says nothing until it is done."""
        try:
            self._image.commit()
        except DiskError as error:
            self._problem = error
        finally:
            if self._is_abandoned:
                self._remove()

    def _better(self, error: DiskError) -> DiskError:
        """The lease knows why a transfer broke off."""
        why = self._lease.why_ended() if isinstance(error, SinkLost) else None
        if why is None:
            return error
        if issubclass(faults.kind_of(why), CapacityExhausted):
            return OutOfSpace(
                f"No room for disk {self._placed.name} on {self._client.settings.endpoint}. Make room in its datastore "
                "or choose another one."
            )
        return SinkLost(f"vSphere ended the import while disk {self._placed.name} was sent ({why}). It is begun anew.")

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()

    def abandon(self) -> None:
        """An image that is just being compressed goes as soon as QEMU is done with it."""
        self._is_abandoned = True
        self._sending.close()
        if self._compressing is None:
            self._image.abandon()
        self._remove()
