"""The lab's disks as vSphere gives them out and takes them in, asked by pyvmomi and plain HTTP: none of it is ours."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pyVmomi

from tests.lab.esxi.test_server import Site

published: Any = pyVmomi
vim, vmodl = published.vim, published.vmodl
MIB = 1 << 20


class Copies(Site):
    """A machine with a disk of 8 MiB that is on, and a way to its files."""

    def __init__(self) -> None:
        super().__init__(is_esxi=False)
        self.sign_in()
        with self.world as world:
            self.work = world.create("work", disks_mib=(8,))
            world.write(self.work.disks[0], 0, b"below" * 1000)
            world.power_on(self.work.id)
        self.vm = self.machine(self.work.number)

    def snapshot(self) -> Any:
        info = self.finish(self.vm.CreateSnapshot("s", "", False, False))
        return vim.vm.Snapshot(info.result._moId, self.stub)

    def get(self, path: str, **headers: str) -> httpx.Response:
        assert self.server.certificate is not None
        context = ssl.create_default_context(cadata=self.server.certificate.pem)
        with httpx.Client(verify=context, trust_env=False) as client:
            told = {"Cookie": self.stub.cookie.partition(";")[0]} | headers
            query = {"dcPath": "Lab", "dsName": "fast"}
            return client.get(f"{self.server.url}/folder/{path}", params=query, headers=told)

    def file(self, disk: str) -> str:
        return self.server.things.file_of(disk).partition("] ")[2].removesuffix(".vmdk")

    def ready(self, lease: Any) -> Any:
        self.clock.advance(2)
        told = self.read(lease, "state", "info")
        assert told["state"] == "ready"
        return told["info"]


@pytest.fixture
def copies() -> Iterator[Copies]:
    made = Copies()
    yield made
    made.stub.DropConnections()
    made.server.stop()


def test_a_reader_of_the_uppermost_file_alone_has_not_read_the_disk(copies: Copies) -> None:
    copies.snapshot()
    with copies.world as world:
        below, above = world.disks[copies.work.disks[0]].parent, copies.work.disks[0]
        assert below is not None
        world.write(above, MIB, b"above" * 1000)
        names = copies.file(below), copies.file(above)
        world.power_off(copies.work.id)
        real = world.read(above, 0, 8 * MIB)
    delta = copies.get(f"{names[1]}-delta.vmdk").content
    assert b"above" in delta
    assert delta[: 8 * MIB] != real
    assert b"below" not in delta
    assert copies.get(f"{names[1]}-flat.vmdk").status_code == 404
    flat = copies.get(f"{names[0]}-flat.vmdk").content
    assert flat[:MIB] == real[:MIB]
    assert flat != real


def test_parts_are_given_to_whoever_is_signed_in_and_of_no_file_that_is_being_written(copies: Copies) -> None:
    name = copies.file(copies.work.disks[0])
    assert copies.get(f"{name}-flat.vmdk").status_code == 500, "locked"
    copies.snapshot()
    part = copies.get(f"{name}-flat.vmdk", Range="bytes=5-14")
    assert (part.status_code, part.content) == (206, b"belowbelow")
    assert part.headers["Content-Range"] == f"bytes 5-14/{8 * MIB}"
    assert copies.get(f"{name}-flat.vmdk", Range=f"bytes={8 * MIB}-").status_code == 416
    assert copies.get(f"{name}-flat.vmdk", Cookie="vmware_soap_session=none").status_code == 401


def test_tracking_begins_with_the_second_snapshot_after_it_was_switched_on(copies: Copies) -> None:
    def change_id(snapshot: Any) -> str | None:
        devices = copies.read(snapshot, "config.hardware.device")["config.hardware.device"]
        told: str | None = next(one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)).backing.changeId
        return told

    copies.finish(copies.vm.Reconfigure(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    first = copies.snapshot()
    assert change_id(first) is None
    copies.finish(first.Remove(False))
    second = copies.snapshot()
    since = change_id(second)
    assert since
    with copies.world as world:
        world.write(copies.work.disks[0], 3 * MIB, b"x")
    third = copies.snapshot()
    areas = copies.vm.QueryChangedDiskAreas(third, 2000, 0, since)
    assert [(area.start, area.length) for area in areas.changedArea] == [(3 * MIB, 65536)]
    assert (areas.startOffset, areas.length) == (0, 8 * MIB)
    with pytest.raises(vim.fault.FileFault):
        copies.vm.QueryChangedDiskAreas(third, 2000, 0, f"another{since}")


def test_a_machine_that_has_snapshots_does_not_begin_to_track(copies: Copies) -> None:
    copies.snapshot()
    copies.finish(copies.vm.Reconfigure(vim.vm.ConfigSpec(changeTrackingEnabled=True)))
    copies.snapshot()
    with pytest.raises(vim.fault.FileFault):
        copies.vm.QueryChangedDiskAreas(copies.snapshot(), 2000, 0, "*")


def test_a_lease_that_nobody_tells_of_ends_and_what_it_holds_is_disabled_until_then(copies: Copies) -> None:
    snapshot = copies.snapshot()
    lease = snapshot.ExportSnapshot()
    copies.ready(lease)
    with pytest.raises(vim.fault.MethodDisabled):
        snapshot.Remove(False)
    for _ in range(3):
        copies.clock.advance(200)
        lease.Progress(10)
    copies.clock.advance(301)
    assert copies.read(lease, "state")["state"] == "error"
    copies.finish(snapshot.Remove(False))


def test_an_import_that_ends_before_it_is_complete_leaves_no_machine(copies: Copies) -> None:
    disk = vim.vm.device.VirtualDisk(
        key=-1, controllerKey=-2, unitNumber=0, capacityInKB=8192,
        backing=vim.vm.device.VirtualDisk.FlatVer2BackingInfo(fileName="", diskMode="persistent"),
    )  # fmt: skip
    changes = [
        vim.vm.device.VirtualDeviceSpec(
            operation="add", device=vim.vm.device.VirtualLsiLogicController(key=-2, busNumber=0, sharedBus="noSharing")
        ),
        vim.vm.device.VirtualDeviceSpec(operation="add", fileOperation="create", device=disk),
    ]
    spec = vim.vm.ConfigSpec(
        name="new", numCPUs=1, memoryMB=64, files=vim.vm.FileInfo(vmPathName="[fast]"), deviceChange=changes
    )
    pool = vim.ResourcePool("resgroup-8", copies.stub)
    lease = pool.ImportVApp(vim.vm.VmImportSpec(configSpec=spec), vim.Folder("group-v3"), None)
    info = copies.ready(lease)
    (url,) = info.deviceUrl
    assert url.key.endswith("/VirtualLsiLogicController0:0")
    assert "new" in {machine.name for machine in copies.world.machines.values()}
    copies.clock.advance(301)
    with copies.world as world:
        assert "new" not in {machine.name for machine in world.machines.values()}


def test_a_whole_disk_goes_out_under_its_address_alone(copies: Copies, tmp_path: Path) -> None:
    lease = copies.snapshot().ExportSnapshot()
    info = copies.ready(lease)
    url = next(one for one in info.deviceUrl if one.disk)
    host = copies.server.leases.host
    assert host.certificate is not None
    assert host.certificate.sha256 != getattr(copies.server.certificate, "sha256", "")
    context = ssl.create_default_context(cadata=host.certificate.pem)
    with httpx.Client(verify=context, trust_env=False) as client:
        answer = client.get(url.url)
    assert answer.content[:4] == b"KDMV"
    assert "Content-Length" not in answer.headers
    lease.Complete()
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(url.url).status_code == 404


def test_the_host_behind_a_vcenter_goes_and_comes_back_with_it(copies: Copies) -> None:
    door = copies.server.leases.host

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((door.address, door.port)) == 0

    assert listens()
    copies.server.cut_off()
    assert not listens()
    copies.server.come_back()
    assert copies.server.leases.host is door
    assert listens()
