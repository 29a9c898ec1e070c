"""The lab's vCenter, asked by pyvmomi as its maker ships it: a client that is none of ours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pyVmomi

from lab import platform
from lab.clock import Clock
from lab.esxi.server import EsxiServer
from lab.world import World

published: Any = pyVmomi
vim, vmodl = published.vim, published.vmodl
USER, PASSWORD = "someone", "pass & word"


class Site:
    """A server, and pyvmomi signed in to it."""

    def __init__(self, *, is_esxi: bool) -> None:
        self.clock = Clock(0.0)
        self.world = World("w", 3, self.clock)
        with self.world:
            self.world.add_host("one", id="ha-host" if is_esxi else "host-9")
            self.world.add_storage("fast", id="datastore-11")
            self.world.add_network("VM Network", id="network-13")
            self.golden = self.world.add_template("golden")
            self.golden.is_template = False
        self.server = EsxiServer(self.world, user=USER, password=PASSWORD, is_esxi=is_esxi)
        self.server.start()
        assert self.server.certificate is not None
        context = ssl.create_default_context(cadata=self.server.certificate.pem)
        self.stub: Any = published.SoapAdapter.SoapStubAdapter(
            host=self.server.address, port=self.server.port, path="/sdk", version="vim.version.version11",
            sslContext=context,
        )  # fmt: skip
        self.content: Any = vim.ServiceInstance("ServiceInstance", self.stub).RetrieveContent()

    def sign_in(self) -> None:
        self.content.sessionManager.Login(USER, PASSWORD)

    def machine(self, number: int = 1) -> Any:
        return vim.VirtualMachine(str(number) if self.server.is_esxi else f"vm-{number}", self.stub)

    def read(self, thing: Any, *paths: str) -> dict[str, Any]:
        collector = vmodl.query.PropertyCollector
        spec = collector.FilterSpec(
            propSet=[collector.PropertySpec(type=type(thing), pathSet=list(paths))],
            objectSet=[collector.ObjectSpec(obj=thing)],
        )
        result = self.content.propertyCollector.RetrievePropertiesEx([spec], collector.RetrieveOptions())
        return {one.name: one.val for one in result.objects[0].propSet}

    def finish(self, task: Any) -> Any:
        """The task's info once its time has come."""
        self.clock.advance(60)
        return self.read(task, "info")["info"]

    def folder(self) -> Any:
        return vim.Folder(self.server.things.vm_folder, self.stub)

    def clone_spec(self, **location: Any) -> Any:
        place = vim.vm.RelocateSpec(pool=vim.ResourcePool(self.server.things.pool), **location)
        return vim.vm.CloneSpec(location=place, powerOn=False, template=False)


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site(is_esxi=False)
    made.sign_in()
    yield made
    made.stub.DropConnections()
    made.server.stop()


@pytest.fixture
def alone() -> Iterator[Site]:
    made = Site(is_esxi=True)
    made.sign_in()
    yield made
    made.stub.DropConnections()
    made.server.stop()


def test_nobody_is_served_who_has_not_signed_in() -> None:
    made = Site(is_esxi=False)
    with pytest.raises(vim.fault.NotAuthenticated):
        made.machine().PowerOn()
    with pytest.raises(vim.fault.InvalidLogin):
        made.content.sessionManager.Login(USER, "wrong")
    made.stub.DropConnections()
    made.server.stop()


def test_a_signed_in_client_sees_what_there_is(site: Site) -> None:
    assert site.content.about.apiType == "VirtualCenter"
    told = site.read(site.machine(), "name", "config.hardware.numCPU", "runtime.powerState", "config.instanceUuid")
    assert told == {
        "name": "golden", "config.hardware.numCPU": 2, "runtime.powerState": "poweredOff",
        "config.instanceUuid": site.golden.id,
    }  # fmt: skip


def test_a_property_that_no_type_has_is_refused(site: Site) -> None:
    for path in ("bogus", "config.bogus", "guest.bogus"):
        with pytest.raises(vmodl.query.InvalidProperty):
            site.read(site.machine(), path)


def test_what_is_gone_spoils_the_whole_call(site: Site) -> None:
    with pytest.raises(vmodl.fault.ManagedObjectNotFound):
        site.read(site.machine(99), "name")


def test_a_task_takes_its_time_and_tells_how_far_it_is(site: Site) -> None:
    task = site.machine().Clone(folder=site.folder(), name="c", spec=site.clone_spec())
    site.clock.advance(3)
    info = site.read(task, "info")["info"]
    assert (info.state, info.progress) == ("running", 50)
    assert site.finish(task).state == "success"


def test_a_task_can_be_cancelled_and_nothing_is_done(site: Site) -> None:
    task = site.machine().Clone(folder=site.folder(), name="c", spec=site.clone_spec())
    task.CancelTask()
    info = site.finish(task)
    assert info.state == "error"
    assert isinstance(info.error, vmodl.fault.RequestCanceled)
    assert len(site.world.machines) == 1


def test_a_task_that_is_told_to_fails_at_half_its_time(site: Site) -> None:
    site.server.faults.add("task_fails", "clone")
    info = site.finish(site.machine().Clone(folder=site.folder(), name="c", spec=site.clone_spec()))
    assert info.state == "error"
    assert len(site.world.machines) == 1


def test_a_link_is_made_of_a_snapshot_alone_and_hangs_from_it(site: Site) -> None:
    spec = site.clone_spec(diskMoveType="createNewChildDiskBacking")
    with pytest.raises(vmodl.fault.InvalidArgument):
        site.machine().Clone(folder=site.folder(), name="c", spec=spec)
    taken = site.finish(site.machine().CreateSnapshot(name="s", memory=False, quiesce=False))
    spec.snapshot = taken.result
    site.finish(site.machine().Clone(folder=site.folder(), name="c", spec=spec))
    devices = site.read(site.machine(2), "config.hardware.device")["config.hardware.device"]
    disk = next(one for one in devices if isinstance(one, vim.vm.device.VirtualDisk))
    assert disk.backing.parent.fileName.startswith("[fast] golden/")


def test_a_name_is_unique_in_its_folder(site: Site) -> None:
    first = site.machine().Clone(folder=site.folder(), name="c", spec=site.clone_spec())
    second = site.machine().Clone(folder=site.folder(), name="c", spec=site.clone_spec())
    assert site.finish(first).state == "success"
    assert isinstance(site.finish(second).error, vim.fault.DuplicateName)


def test_a_stand_alone_host_has_no_clones_and_no_templates(alone: Site) -> None:
    assert alone.content.about.apiType == "HostAgent"
    with pytest.raises(vmodl.fault.NotSupported):
        alone.machine().Clone(folder=alone.folder(), name="c", spec=alone.clone_spec())


def test_rights_are_enforced(site: Site) -> None:
    site.world.forbidden.add("VirtualMachine.Interact.PowerOn")
    with pytest.raises(vim.fault.NoPermission) as told:
        site.machine().PowerOn()
    assert told.value.privilegeId == "VirtualMachine.Interact.PowerOn"


def test_what_may_not_be_read_is_missing_with_its_reason(site: Site) -> None:
    site.server.unreadable.add("vm-1")
    collector = vmodl.query.PropertyCollector
    spec = collector.FilterSpec(
        propSet=[collector.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        objectSet=[collector.ObjectSpec(obj=site.machine())],
    )
    (content,) = site.content.propertyCollector.RetrievePropertiesEx([spec], collector.RetrieveOptions()).objects
    assert not content.propSet
    assert isinstance(content.missingSet[0].fault, vim.fault.NoPermission)


def test_want_of_room_is_a_fault(site: Site) -> None:
    site.world.fill("datastore-11")
    info = site.finish(site.machine().Clone(folder=site.folder(), name="c", spec=site.clone_spec()))
    assert isinstance(info.error, vim.fault.NoDiskSpace)
    site.world.hosts["host-9"].memory_mib = 16
    info = site.finish(site.machine().PowerOn())
    assert isinstance(info.error, vim.fault.InsufficientResourcesFault)


def test_a_machine_has_one_task_at_a_time(site: Site) -> None:
    site.machine().PowerOn()
    with pytest.raises(vim.fault.TaskInProgress):
        site.machine().Destroy()


def test_power_states_are_kept(site: Site) -> None:
    assert isinstance(site.finish(site.machine().PowerOff()).error, vim.fault.InvalidPowerState)
    site.finish(site.machine().PowerOn())
    assert site.read(site.machine(), "runtime.powerState") == {"runtime.powerState": "poweredOn"}
    assert isinstance(site.finish(site.machine().Destroy()).error, vim.fault.InvalidPowerState)


def test_a_guest_without_tools_cannot_be_asked(site: Site) -> None:
    site.golden.guest.has_agent = False
    site.finish(site.machine().PowerOn())
    with pytest.raises(vim.fault.ToolsUnavailable):
        site.machine().ShutdownGuest()


def test_a_revert_brings_back_size_and_configuration(site: Site) -> None:
    def configure(**change: Any) -> None:
        site.finish(site.machine().Reconfigure(spec=vim.vm.ConfigSpec(**change)))

    configure(extraConfig=[vim.option.OptionValue(key="a", value="1")])
    snapshot = site.finish(site.machine().CreateSnapshot(name="s", memory=False, quiesce=False)).result
    configure(numCPUs=8, extraConfig=[vim.option.OptionValue(key="a", value="2")])
    site.finish(vim.vm.Snapshot(snapshot._moId, site.stub).Revert())
    told = site.read(site.machine(), "config.hardware.numCPU", 'config.extraConfig["a"]')
    assert told["config.hardware.numCPU"] == 2
    assert told['config.extraConfig["a"]'].value == "1"


def test_updates_come_as_enter_modify_and_leave_in_parts(site: Site) -> None:
    with site.world:
        for number in range(4):
            site.world.create(f"m{number}")
    collector = site.content.propertyCollector.CreatePropertyCollector()
    view = site.content.viewManager.CreateContainerView(site.content.rootFolder, [vim.VirtualMachine], True)
    kinds = vmodl.query.PropertyCollector
    spec = kinds.FilterSpec(
        propSet=[kinds.PropertySpec(type=vim.VirtualMachine, pathSet=["name"])],
        objectSet=[
            kinds.ObjectSpec(
                obj=view, skip=True,
                selectSet=[kinds.TraversalSpec(name="v", type=vim.view.ContainerView, path="view", skip=False)],
            )
        ],
    )  # fmt: skip
    collector.CreateFilter(spec, False)
    options = kinds.WaitOptions(maxWaitSeconds=0, maxObjectUpdates=3)
    first = collector.WaitForUpdatesEx("", options)
    assert (len(first.filterSet[0].objectSet), first.truncated) == (3, True)
    second = collector.WaitForUpdatesEx(first.version, options)
    assert (len(second.filterSet[0].objectSet), second.truncated) == (2, None)
    assert collector.WaitForUpdatesEx(second.version, options) is None
    with site.world:
        site.world.touch(site.golden)
        site.world.delete(next(one.id for one in site.world.machines.values() if one.name == "m0"))
    third = collector.WaitForUpdatesEx(second.version, options)
    assert {update.kind for update in third.filterSet[0].objectSet} == {"modify", "leave"}
    with pytest.raises(vmodl.query.InvalidCollectorVersion):
        collector.WaitForUpdatesEx("no such version", options)


def test_it_stands_up_and_is_there_again_after_a_restart(tmp_path: Path) -> None:
    at = platform.site("esxi", tmp_path, Clock(1.0), screens_port=5999)
    first = platform.stand_up(at)
    first.start()
    with first.world:
        machine = first.world.clone(first.registration.template, name="kept")
        server = first.servers[0]
        assert isinstance(server, EsxiServer)
        server.things.name_files(machine)
        file = server.things.file_of(machine.disks[0])
    at.save(first)
    first.stop()
    second = platform.stand_up(platform.site("esxi", tmp_path, Clock(1.0), screens_port=5999))
    assert second.registration == first.registration
    server = second.servers[0]
    assert isinstance(server, EsxiServer)
    with second.world:
        assert server.things.file_of(second.world.machines[machine.id].disks[0]) == file
    second.stop()
