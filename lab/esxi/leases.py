"""Leases by which whole disks leave and come in (vSphere Web Services API reference, HttpNfcLease).

A lease shows addresses, one a disk, under which a streamOptimized VMDK is fetched or put without any other sign-in. It
begins a moment after it was asked for. Whoever holds it must tell how far it is, or it ends after `timeout_s`; what an
import had made by then is removed. While it lasts, what it is of cannot be changed otherwise: vSphere disables those
methods. A vCenter's addresses lead to a host, whose certificate is another one than the vCenter's: the lease tells its
thumbprint. A stand-alone host says "*" for itself.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lab.certificates import Certificate
from lab.errors import NoSuch, OutOfStorage, WorldError
from lab.esxi.wire import long, vim, vmodl
from lab.http import Dropped, LabServer, Request, Response
from lab.nouns import Machine

if TYPE_CHECKING:
    from lab.esxi.collector import Session
    from lab.esxi.server import EsxiServer

TIMEOUT_S = 300
BEGINS_S = 1.0
PIECE = 64 * 1024
HOST_ADDRESS = "127.0.0.5"
"""Where a vCenter's host gives disks out and takes them in."""
_NFC = {"Content-Type": "application/x-vnd.vmware-streamVmdk"}
State = vim.HttpNfcLease.State


@dataclass(slots=True)
class Lease:
    id: str
    ticket: str
    """What its addresses bear: it is all that is asked for there."""
    session: str
    machine: str
    """The world's id of the machine."""
    is_import: bool
    disks: dict[str, tuple[str, str]]
    """Name in the address -> disk, device ("ParaVirtualSCSIController0:0")."""
    snapshot: str = ""
    timeout_s: float = TIMEOUT_S
    state: Any = State.initializing
    error: Any = None
    heard_at: float = 0.0
    sent: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Name in the address -> bytes and SHA-1 of what went out."""
    told: list[int] = field(default_factory=list)
    """What progress was told."""


class Leases:
    """All leases of one endpoint. Wants the world's lock but for what is said to do without."""

    def __init__(self, server: EsxiServer) -> None:
        self._server = server
        self.timeout_s: float = TIMEOUT_S
        self.there: dict[str, Lease] = {}
        self.flowing = threading.Event()
        """Cleared: disks that are being fetched stand still after their first bytes."""
        self.flowing.set()
        self.told_thumbprint = ""
        """Instead of the right one."""
        self.stops_early = False
        """Whether what goes out ends before its end, as if that were all of it."""
        self.tells_manifest = True
        self._host: HostDoor | None = None
        self._number = 0

    def close(self) -> None:
        """Without the lock."""
        self.flowing.set()
        if self._host is not None:
            self._host.stop()

    @property
    def host(self) -> HostDoor:
        """The host of a vCenter; stands from the first lease on, and goes and comes back with the endpoint."""
        if self._host is None:
            self._host = HostDoor(self._server.world, HOST_ADDRESS, leases=self)
        self._host.come_back()
        return self._host

    # --- a lease's life ---

    def begin(self, session: Session, machine: Machine, disks: list[str], snapshot: str, *, is_import: bool) -> Any:
        self._number += 1
        hung = self._server.things.hung(machine)
        listed = {
            f"disk-{index}.vmdk": (disk, f"{hung[index][0]}{hung[index][1]}:{hung[index][2]}")
            for index, disk in enumerate(disks)
        }
        id = f"session[{session.key[:8]}]lease-{self._number}"
        lease = Lease(
            id,
            self._server.world.new_id(),
            session.key,
            machine.id,
            is_import,
            listed,
            snapshot,
            self.timeout_s,
            heard_at=self._server.world.now,
        )
        self.there[id] = lease
        machine.marks["leased"] = id
        self._server.world.after(BEGINS_S, lambda: self._ready(lease))
        self._server.world.after(self.timeout_s, lambda: self._look(lease))
        return vim.HttpNfcLease(id)

    def _ready(self, lease: Lease) -> None:
        if lease.state == State.initializing:
            lease.state, lease.heard_at = State.ready, self._server.world.now

    def _look(self, lease: Lease) -> None:
        """Whether anybody was heard of it."""
        if lease.state not in (State.initializing, State.ready):
            return
        left = lease.heard_at + lease.timeout_s - self._server.world.now
        if left > 0:
            self._server.world.after(left, lambda: self._look(lease))
        else:
            self.end(lease, vim.fault.Timedout())

    def end(self, lease: Lease, error: Any) -> None:
        """It failed: an import leaves nothing."""
        if lease.state in (State.done, State.error):
            return
        lease.state, lease.error = State.error, error
        machine = self._server.world.machines.get(lease.machine)
        if machine is None:
            return
        machine.marks.pop("leased", None)
        if lease.is_import:
            self._server.world.delete(machine.id)

    def end_of_session(self, session: str) -> None:
        for lease in [one for one in self.there.values() if one.session == session]:
            self.end(lease, vmodl.fault.RequestCanceled())
            del self.there[lease.id]

    def value(self, thing: Any, name: str) -> Any:
        """A property of a lease."""
        lease = self.there[thing._moId]
        match name:
            case "state":
                return lease.state
            case "error":
                return lease.error
            case "initializeProgress":
                return 100 if lease.state != State.initializing else 50
            case "info" if lease.state == State.ready:
                return self._info(lease)
        return None

    def _info(self, lease: Lease) -> Any:
        things, world = self._server.things, self._server.world
        machine = world.machines[lease.machine]
        urls = [
            vim.HttpNfcLease.DeviceUrl(
                key=f"/{things.vm_id(machine)}/{device}", importKey=f"/{machine.name}/{device}", disk=True,
                url=self._url(lease, name), sslThumbprint=self._thumbprint(),
                targetId=name if not lease.is_import else None,
                fileSize=long(world.disks[disk].capacity // 2),
            )
            for name, (disk, device) in lease.disks.items()
        ]  # fmt: skip
        if not lease.is_import:
            urls.insert(
                0,
                vim.HttpNfcLease.DeviceUrl(
                    key=f"/{things.vm_id(machine)}/nvram", importKey=f"/{machine.name}/nvram", disk=False,
                    url=self._url(lease, "x.nvram"), sslThumbprint=self._thumbprint(), targetId="x.nvram",
                ),
            )  # fmt: skip
        total = sum(world.disks[disk].capacity for disk, _ in lease.disks.values())
        return vim.HttpNfcLease.Info(
            lease=vim.HttpNfcLease(lease.id), entity=things.vm(machine), deviceUrl=urls,
            totalDiskCapacityInKB=long(total // 1024), leaseTimeout=int(lease.timeout_s) or 1,
        )  # fmt: skip

    def _url(self, lease: Lease, name: str) -> str:
        if self._server.is_esxi:
            return f"https://*/nfc/{lease.ticket}/{name}"
        return f"{self.host.url}/nfc/{lease.ticket}/{name}"

    def _thumbprint(self) -> str:
        return "" if self._server.is_esxi else self.told_thumbprint or thumbprint(self.host.certificate)

    # --- what is asked of one ---

    def _of(self, session: Session, this: Any) -> Lease:
        lease = self.there.get(this._moId)
        if lease is None or lease.session != session.key:
            raise vmodl.fault.ManagedObjectNotFound(obj=this)
        if lease.state != State.ready:
            raise lease.error or vim.fault.InvalidState()
        return lease

    def _do_HttpNfcLeaseProgress(self, session: Session, this: Any, percent: int) -> None:
        lease = self._of(session, this)
        lease.heard_at = self._server.world.now
        lease.told.append(percent)

    def _do_HttpNfcLeaseGetManifest(self, session: Session, this: Any) -> Any:
        lease = self._of(session, this)
        if not self.tells_manifest:
            raise vmodl.fault.NotSupported()
        machine = self._server.things.vm_id(self._server.world.machines[lease.machine])
        return [
            vim.HttpNfcLease.ManifestEntry(
                key=f"/{machine}/{lease.disks[name][1]}", sha1=digest, size=long(size), disk=True,
                capacity=long(self._server.world.disks[lease.disks[name][0]].capacity),
            )
            for name, (size, digest) in lease.sent.items()
        ]  # fmt: skip

    def _do_HttpNfcLeaseComplete(self, session: Session, this: Any) -> None:
        lease = self._of(session, this)
        lease.state = State.done
        machine = self._server.world.machines[lease.machine]
        machine.marks.pop("leased", None)
        self._server.world.touch(machine)

    def _do_HttpNfcLeaseAbort(self, session: Session, this: Any, fault: Any) -> None:
        self.end(self._of(session, this), fault or vmodl.fault.RequestCanceled())

    def _do_ExportSnapshot(self, session: Session, this: Any) -> Any:
        machine, point = self._server._pointed(this)
        return self.begin(session, machine, list(machine.snapshots[point].disks), point, is_import=False)

    def _do_ExportVm(self, session: Session, this: Any) -> Any:
        machine = self._server._here(this)
        self._server.require_off(machine)
        return self.begin(session, machine, list(machine.disks), "", is_import=False)

    def _do_ImportVApp(self, session: Session, this: Any, spec: Any, folder: Any, host: Any) -> Any:
        server = self._server
        if this._moId != server.things.pool:
            raise vmodl.fault.ManagedObjectNotFound(obj=this)
        if folder is None or (folder._moId != server.things.vm_folder and not server.things.folder_named(folder._moId)):
            raise vmodl.fault.InvalidArgument(invalidProperty="folder")
        try:
            machine = server.made(spec.configSpec, folder._moId, host)
        except WorldError as error:
            raise server.fault_of(error) from None
        return self.begin(session, machine, list(machine.disks), "", is_import=True)

    # --- bytes: without the lock ---

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        return tempfile.NamedTemporaryFile(suffix=".vmdk") if method in ("PUT", "POST") else None  # type: ignore[return-value]

    def handle(self, request: Request) -> Response:
        _, _, ticket, name = [*request.path.split("/", 3), "", "", ""][:4]
        with self._server.world:
            lease = next((one for one in self.there.values() if one.ticket == ticket), None)
            if lease is None or lease.state != State.ready or name not in lease.disks:
                return Response(404, b"", {"Content-Type": "text/plain"})
            disk = lease.disks[name][0]
        if request.file is not None and lease.is_import:
            return self._take_in(lease, name, disk, request.file)
        if request.method == "GET" and not lease.is_import:
            return Response(200, headers=_NFC, pieces=self._give_out(lease, name, disk))
        return Response(405, b"", {"Content-Type": "text/plain"})

    def _give_out(self, lease: Lease, name: str, disk: str) -> Iterator[bytes]:
        size, digest = 0, hashlib.sha1(usedforsecurity=False)
        with tempfile.TemporaryDirectory(prefix="lab-nfc-") as folder:
            image = self._image(disk, Path(folder))
            image_size = image.stat().st_size
            with image.open("rb") as file:
                while piece := file.read(PIECE):
                    with self._server.world:
                        if lease.state != State.ready:
                            raise Dropped
                        size += len(piece)
                        digest.update(piece)
                        lease.sent[name] = (size, digest.hexdigest())
                    yield piece
                    self.flowing.wait()
                    if self.stops_early:
                        break
        if self.stops_early:
            with self._server.world:
                lease.sent[name] = (image_size, digest.hexdigest())

    def _image(self, disk: str, folder: Path) -> Path:
        world = self._server.world
        raw, image = folder / "disk.raw", folder / "disk.vmdk"
        with world:
            areas, size = world.allocated(disk), world.disks[disk].capacity
        try:
            with raw.open("wb") as file:
                file.truncate(size)
                for area in areas:
                    for at in range(area.offset, area.offset + area.length, 2**20):
                        file.seek(at)
                        file.write(world.read(disk, at, min(2**20, area.offset + area.length - at)))
        except NoSuch:
            raise Dropped from None
        _qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", str(raw), str(image))
        raw.unlink()
        return image

    def _take_in(self, lease: Lease, name: str, disk: str, file: BinaryIO) -> Response:
        world = self._server.world
        with tempfile.TemporaryDirectory(prefix="lab-nfc-") as folder:
            raw = Path(folder) / "disk.raw"
            try:
                _qemu_img("convert", "-f", "vmdk", "-O", "raw", file.name, str(raw))
                self._fill(disk, raw)
            except (OutOfStorage, NoSuch, subprocess.CalledProcessError) as error:
                with world:
                    self.end(lease, _why(error, name))
                return Response(500, b"", {"Content-Type": "text/plain"})
        return Response(200, b"", {"Content-Type": "text/plain"})

    def _fill(self, disk: str, raw: Path) -> None:
        world = self._server.world
        with raw.open("rb") as file:
            size, at = os.fstat(file.fileno()).st_size, 0
            while at < size:
                try:
                    at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                except OSError:
                    return
                end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    data = os.pread(file.fileno(), min(2**20, end - at), at)
                    with world:
                        world.write(disk, at, data)
                    at += len(data)


class HostDoor(LabServer):
    """The host of a vCenter that gives disks out and takes them in."""

    server_header = "VMware ESXi"

    def __init__(self, world: Any, address: str, *, leases: Leases) -> None:
        super().__init__(world, address)
        self._leases = leases

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        return self._leases.place_for(method, path)

    def handle(self, request: Request) -> Response:
        if request.path.startswith("/nfc/"):
            return self._leases.handle(request)
        return Response(404, b"", {"Content-Type": "text/plain"})


def thumbprint(certificate: Certificate | None) -> str:
    """SHA-1, as vSphere tells it."""
    if certificate is None:
        return ""
    digest = hashlib.sha1(ssl.PEM_cert_to_DER_cert(certificate.pem), usedforsecurity=False).hexdigest().upper()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _why(error: Exception, name: str) -> Any:
    if isinstance(error, OutOfStorage):
        return vim.fault.NoDiskSpace(file=name, datastore=str(error))
    return vmodl.fault.SystemError(reason=f"{name} is no disk")


def _qemu_img(*arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)
