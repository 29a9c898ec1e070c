"""Files of disks on datastores: how a disk is laid out, and the door `/folder` by which a datastore's files are read.

A disk that hangs from nothing is a descriptor and one flat extent, which holds its bytes as they are. One that hangs
from another is a descriptor and a sparse delta, which holds what was written since and nothing else: whoever reads that
file alone has not read the disk (vSphere Web Services API reference, VirtualMachineFileLayoutEx). The file that a
machine which is on writes to is locked.

The door: `GET /folder/PATH?dcPath=DATACENTER&dsName=DATASTORE` with the session's cookie or HTTP Basic, also of a part
of a file ("Datastore File Access", vSphere Web Services SDK Programming Guide).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.errors import NoSuch
from lab.esxi.wire import long, vim
from lab.http import Dropped, Request, Response
from lab.nouns import Machine, Power

if TYPE_CHECKING:
    from lab.esxi.server import EsxiServer
    from lab.esxi.things import Things

PIECE = 1024 * 1024
_PLAIN = {"Content-Type": "application/octet-stream"}
_RANGE = re.compile(r"bytes=(\d+)-(\d*)$")
Layout = vim.vm.FileLayoutEx


def extent_of(things: Things, disk: str) -> str:
    """The file that holds bytes of the disk."""
    stem = things.file_of(disk).removesuffix(".vmdk")
    return f"{stem}-delta.vmdk" if things.world.disks[disk].parent else f"{stem}-flat.vmdk"


def chain_of(things: Things, disk: str) -> list[str]:
    """The disks that it consists of, the lowest first."""
    found = [disk]
    while (parent := things.world.disks[found[0]].parent) and parent in things.world.disks:
        found.insert(0, parent)
    return found


def layout(things: Things, machine: Machine) -> Any:
    """Which files the machine's disks, and those of its snapshots, consist of."""
    things.name_files(machine)
    keys: dict[str, int] = {}
    found: list[Any] = []

    def key_of(name: str, kind: str, size: int) -> int:
        if name not in keys:
            keys[name] = len(keys)
            found.append(Layout.FileInfo(key=keys[name], name=name, type=kind, size=long(size)))
        return keys[name]

    def told(disks: Any) -> list[Any]:
        listed = []
        for index, disk in enumerate(disks):
            units = []
            for part in chain_of(things, disk):
                capacity = things.world.disks[part].capacity
                descriptor = key_of(things.file_of(part), "diskDescriptor", 512)
                extent = key_of(extent_of(things, part), "diskExtent", capacity)
                units.append(Layout.DiskUnit(fileKey=[descriptor, extent]))
            listed.append(Layout.DiskLayout(key=2000 + index, chain=units))
        return listed

    disks = told(machine.disks)
    snapshots = []
    for point in machine.snapshots.values():
        data = key_of(f"{things.home(machine)}/{point.id[:8]}.vmsn", "snapshotData", 30_000)
        snapshots.append(
            Layout.SnapshotLayout(
                key=vim.vm.Snapshot(f"snapshot-{point.id}"), dataKey=data, memoryKey=-1, disk=told(point.disks)
            )
        )
    return Layout(file=found, disk=disks, snapshot=snapshots, timestamp=datetime.now(UTC))


class Folder:
    """The door `/folder`."""

    def __init__(self, server: EsxiServer) -> None:
        self._server = server
        self.gives_parts = True
        """Whether it understands `Range`."""

    def handle(self, request: Request) -> Response:
        server = self._server
        with server.world:
            if not self._is_known(request):
                return Response(401, b"", {"WWW-Authenticate": 'Basic realm="VMware HTTP server"'})
            if "Datastore.Browse" in server.world.forbidden:
                return Response(403, b"", _PLAIN)
            things = server.things
            center = "ha-datacenter" if server.is_esxi else things.datacenter_name
            name = f"[{request.query.get('dsName')}] {request.path.removeprefix('/folder/')}"
            if request.query.get("dcPath") != center:
                return Response(404, b"", _PLAIN)
            disk = self._disk_of(name)
            if disk is None:
                return Response(404, b"", _PLAIN)
            if self._is_locked(disk):
                return Response(500, b"Unable to access the file: locked", _PLAIN)
            if name == things.file_of(disk):
                return Response(200, f"# Disk DescriptorFile\n# {extent_of(things, disk)}\n".encode(), _PLAIN)
            if things.world.disks[disk].parent:
                return Response(200, self._delta(disk), _PLAIN)
            size = things.world.disks[disk].capacity
        return self._flat(disk, size, request)

    def _is_known(self, request: Request) -> bool:
        server = self._server
        told = request.headers.get("Authorization") or ""
        if told.startswith("Basic "):
            return base64.b64decode(told.removeprefix("Basic ")).decode() == f"{server.user}:{server.password}"
        return server.session_of(request) is not None

    def _disk_of(self, name: str) -> str | None:
        things = self._server.things
        for disk in things.world.disks:
            if name in (things.file_of(disk), extent_of(things, disk)):
                return disk
        return None

    def _is_locked(self, disk: str) -> bool:
        machines = self._server.world.machines.values()
        return any(disk in one.disks and one.power is not Power.OFF for one in machines)

    def _delta(self, disk: str) -> bytes:
        """Not a VMDK to the letter: a header, and what was written since, without the places where it belongs."""
        world = self._server.world
        areas = world.allocated(disk, world.disks[disk].parent)
        return b"COWD".ljust(512, b"\0") + b"".join(world.read(disk, area.offset, area.length) for area in areas)

    def _flat(self, disk: str, size: int, request: Request) -> Response:
        found = _RANGE.match(request.headers.get("Range") or "") if self.gives_parts else None
        if found is None:
            return Response(200, headers=_PLAIN, pieces=self._bytes(disk, 0, size), length=size)
        first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if first > last:
            return Response(416, b"", _PLAIN | {"Content-Range": f"bytes */{size}"})
        headers = _PLAIN | {"Content-Range": f"bytes {first}-{last}/{size}"}
        return Response(206, headers=headers, pieces=self._bytes(disk, first, last + 1), length=last + 1 - first)

    def _bytes(self, disk: str, start: int, stop: int) -> Iterator[bytes]:
        for at in range(start, stop, PIECE):
            try:
                yield self._server.world.read(disk, at, min(PIECE, stop - at))
            except NoSuch:
                raise Dropped from None
