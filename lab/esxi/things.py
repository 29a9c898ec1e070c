"""The world as vSphere shows it: managed objects with their properties, in VMware's own types."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lab.esxi import files
from lab.esxi.wire import array, long, property_type, vim, vmodl, wsdl_name
from lab.nouns import Machine, Power, Task, TaskState
from lab.world import World

if TYPE_CHECKING:
    from lab.esxi.leases import Leases
    from lab.esxi.tracking import Tracking

POWER = {
    Power.ON: "poweredOn", Power.OFF: "poweredOff", Power.SUSPENDED: "suspended", Power.PAUSED: "poweredOn",
}  # fmt: skip
CORE_MHZ = 2_600
CONTROLLER, DISK, NIC = 1000, 2000, 4000
"""First keys of a machine's devices (as vSphere gives them)."""
_FIRST_KEY = {"VirtualAHCIController": 15000, "VirtualNVMEController": 31000}

_PATH = re.compile(r'([A-Za-z0-9_]+)(?:\["?([^\]"]*)"?\])?(?:\.|$)')


class NoProperty(Exception):
    """The type has no such property."""


class Things:
    """All objects of one endpoint. Wants the world's lock."""

    def __init__(self, world: World, *, is_esxi: bool) -> None:
        self.world = world
        self.is_esxi = is_esxi
        self._by_number: dict[int, str] = {}
        """A machine's number -> its id; filled when somebody asks for one that is not there."""
        self.files: dict[str, str] = {}
        """Disk -> "[datastore] folder/name.vmdk"."""
        self.folders: set[str] = set()
        """Made by hand: "[datastore] folder"."""
        self.root, self.datacenter, self.vm_folder, self.host_folder = (
            ("ha-folder-root", "ha-datacenter", "ha-folder-vm", "ha-folder-host")
            if is_esxi
            else ("group-d1", "datacenter-2", "group-v3", "group-h4")
        )
        self.store_folder = "ha-folder-datastore" if is_esxi else "group-s5"
        self.datacenter_name = "ha-datacenter" if is_esxi else "Lab"
        self.leases: Leases | None = None
        self.tracking: Tracking | None = None
        self.compute, self.pool = ("ha-compute-res", "ha-root-pool") if is_esxi else ("domain-c7", "resgroup-8")
        for machine in world.machines.values():
            self.files |= machine.marks.get("files", {})

    # --- ids ----------------------------------------------------------------------------------------------------------

    def vm_id(self, machine: Machine) -> str:
        return str(machine.number) if self.is_esxi else f"vm-{machine.number}"

    def vm(self, machine: Machine) -> Any:
        return vim.VirtualMachine(self.vm_id(machine))

    def machine(self, id: str) -> Machine | None:
        number = id if self.is_esxi else id.removeprefix("vm-")
        if not number.isdigit():
            return None
        machines, wanted = self.world.machines, int(number)
        found = machines.get(self._by_number.get(wanted, ""))
        if found is None or found.number != wanted:
            self._by_number = {one.number: one.id for one in machines.values()}
            found = machines.get(self._by_number.get(wanted, ""))
        return found if found is not None and found.folder not in self.world.hidden else None

    def folder_id(self, machine: Machine) -> str:
        return self.vm_folder if self.is_esxi or not machine.folder else f"group-v-{machine.folder}"

    def folder_named(self, id: str) -> str:
        return "" if id == self.vm_folder else id.removeprefix("group-v-")

    def in_folder(self, id: str) -> list[Machine]:
        return [one for one in self.world.visible() if self.folder_id(one) == id]

    def owner_of(self, snapshot: str) -> tuple[Machine, str] | None:
        """The machine that has the snapshot of this vSphere id, and the world's id of it."""
        id = snapshot.removeprefix("snapshot-")
        return next(((one, id) for one in self.world.visible() if id in one.snapshots), None)

    def store_named(self, name: str) -> str:
        return next((one.id for one in self.world.storages.values() if one.name == name), "")

    # --- files --------------------------------------------------------------------------------------------------------

    def home(self, machine: Machine) -> str:
        """ "[datastore] folder" of a machine."""
        if home := machine.marks.get("home"):
            return str(home)
        store = self.world.disks[machine.disks[0]].storage if machine.disks else next(iter(self.world.storages))
        machine.marks["home"] = f"[{self.world.storages[store].name}] {machine.name}"
        return str(machine.marks["home"])

    def name_files(self, machine: Machine) -> None:
        """Each disk without a name gets one: files keep their names, whatever becomes of the machine."""
        for disk in (*machine.disks, *(part for point in machine.snapshots.values() for part in point.disks)):
            if disk not in self.files and disk in self.world.disks:
                self.files[disk] = f"{self.home(machine)}/{disk[:13]}.vmdk"
        mine = {*machine.disks, *(part for point in machine.snapshots.values() for part in point.disks)}
        machine.marks["files"] = {disk: self.files[disk] for disk in mine if disk in self.files}

    def file_of(self, disk: str) -> str:
        if disk not in self.files:
            for machine in self.world.machines.values():
                if disk in machine.disks or any(disk in point.disks for point in machine.snapshots.values()):
                    self.name_files(machine)
        return self.files.get(disk, f"[{self.world.storages[self.world.disks[disk].storage].name}] lost/{disk}.vmdk")

    def disk_at(self, file: str) -> str | None:
        for machine in self.world.machines.values():
            self.name_files(machine)
        return next((disk for disk, name in self.files.items() if name == file and disk in self.world.disks), None)

    def disks_under(self, folder: str) -> list[str]:
        return [disk for disk, name in self.files.items() if name.startswith(f"{folder}/") and disk in self.world.disks]

    # --- all of a kind ------------------------------------------------------------------------------------------------

    def all(self) -> Iterator[Any]:
        """Every object that a container view of the root can hold."""
        yield vim.Datacenter(self.datacenter)
        for folder in self.vm_folders():
            yield vim.Folder(folder)
        yield vim.Folder(self.host_folder)
        yield vim.Folder(self.store_folder)
        yield vim.ComputeResource(self.compute) if self.is_esxi else vim.ClusterComputeResource(self.compute)
        yield vim.ResourcePool(self.pool)
        for host in self.world.hosts:
            yield vim.HostSystem(host)
        for storage in self.world.storages:
            yield vim.Datastore(storage)
        for network in self.world.networks:
            yield self.network(network)
        for machine in self.world.visible():
            yield self.vm(machine)

    def vm_folders(self) -> list[str]:
        named = {one.folder for one in self.world.machines.values() if one.folder} - self.world.hidden
        return [self.vm_folder, *([] if self.is_esxi else [f"group-v-{name}" for name in sorted(named)])]

    def network(self, id: str) -> Any:
        return vim.dvs.DistributedVirtualPortgroup(id) if id.startswith("dvportgroup") else vim.Network(id)

    # --- properties ---------------------------------------------------------------------------------------------------

    def exists(self, thing: Any) -> bool:
        kind, id = wsdl_name(type(thing)), thing._moId
        if kind == "VirtualMachine":
            return self.machine(id) is not None
        if kind == "Task":
            return id.removeprefix("task-") in self.world.tasks
        if kind == "VirtualMachineSnapshot":
            return self.owner_of(id) is not None
        if kind == "HttpNfcLease":
            return self.leases is not None and id in self.leases.there
        if kind in ("TaskManager", "DistributedVirtualSwitch"):
            return True
        return any(other._moId == id for other in self.all()) or id == self.root

    def value(self, thing: Any, path: str, parts: dict[str, Any] | None = None) -> Any:
        """None if it is unset. `parts` keeps what was made for paths of the same thing that begin alike: a whole
        `config` for each of its leaves would be most of a listing's time. Raises `NoProperty`."""
        parts = {} if parts is None else parts
        steps = [(found[1], found[2]) for found in _PATH.finditer(path)]
        if not steps:
            raise NoProperty(path)
        try:
            wanted = property_type(type(thing), steps[0][0])
        except AttributeError:
            raise NoProperty(path) from None
        source = self._sources().get(wsdl_name(type(thing)))
        first = steps[0][0]
        if first not in parts:
            parts[first] = _typed(source(thing, first) if source else None, wanted)
        value = _element(parts[first], steps[0][1])
        for name, key in steps[1:]:
            if value is None:
                _require_known(wanted, path)
                return None
            try:
                value = _element(_typed(getattr(value, name), value._GetPropertyInfo(name).type), key)
            except AttributeError:
                raise NoProperty(path) from None
        return None if isinstance(value, list) and not value else value

    def _sources(self) -> dict[str, Callable[[Any, str], Any]]:
        return {
            "VirtualMachine": self._machine_value, "HostSystem": self._host_value, "Datastore": self._store_value,
            "Network": self._network_value, "DistributedVirtualPortgroup": self._network_value,
            "DistributedVirtualSwitch": lambda thing, name: {"uuid": "50 2e 11 22"}.get(name),
            "Folder": self._folder_value, "Datacenter": self._datacenter_value,
            "ClusterComputeResource": self._compute_value, "ComputeResource": self._compute_value,
            "ResourcePool": lambda thing, name: {"name": "Resources"}.get(name),
            "Task": self._task_value, "TaskManager": self._task_manager_value,
            "VirtualMachineSnapshot": self._snapshot_value,
            "HttpNfcLease": lambda thing, name: self.leases.value(thing, name) if self.leases else None,
        }  # fmt: skip

    def _folder_value(self, thing: Any, name: str) -> Any:
        id = thing._moId
        if name == "childEntity":
            return array("vim.ManagedEntity", [self.vm(one) for one in self.in_folder(id)])
        if name == "parent":
            if id == self.root:
                return None
            is_top = id in (self.vm_folder, self.host_folder, self.store_folder)
            return vim.Datacenter(self.datacenter) if is_top else vim.Folder(self.vm_folder)
        named = {
            self.root: "Datacenters", self.vm_folder: "vm", self.host_folder: "host", self.store_folder: "datastore",
        }  # fmt: skip
        return named.get(id, self.folder_named(id)) if name == "name" else None

    def _datacenter_value(self, thing: Any, name: str) -> Any:
        stores = [vim.Datastore(id) for id in self.world.storages]
        return {
            "name": self.datacenter_name, "datastore": stores, "vmFolder": vim.Folder(self.vm_folder),
            "parent": vim.Folder(self.root),
        }.get(name)  # fmt: skip

    def _compute_value(self, thing: Any, name: str) -> Any:
        return {
            "name": "cluster", "resourcePool": vim.ResourcePool(self.pool), "parent": vim.Folder(self.host_folder),
        }.get(name)  # fmt: skip

    def _network_value(self, thing: Any, name: str) -> Any:
        network = self.world.networks[thing._moId]
        if name == "config":
            setting = vim.dvs.VmwareDistributedVirtualSwitch.VmwarePortConfigPolicy(
                vlan=vim.dvs.VmwareDistributedVirtualSwitch.VlanIdSpec(inherited=False, vlanId=network.vlan)
            )
            return vim.dvs.DistributedVirtualPortgroup.ConfigInfo(
                key=network.id, name=network.name, numPorts=8, type="earlyBinding", defaultPortConfig=setting,
                distributedVirtualSwitch=vim.DistributedVirtualSwitch("dvs-15"),
            )  # fmt: skip
        return {"name": network.name, "key": network.id}.get(name)

    def _store_value(self, thing: Any, name: str) -> Any:
        store = self.world.storages[thing._moId]
        if name == "summary":
            return vim.Datastore.Summary(
                datastore=thing, name=store.name, url=f"ds:///{store.id}/", capacity=long(store.capacity_mib * 2**20),
                freeSpace=long(self.world.free_mib(store.id) * 2**20), accessible=True, multipleHostAccess=True,
                type="VMFS", maintenanceMode="normal",
            )  # fmt: skip
        if name == "host":
            return [
                vim.Datastore.HostMount(
                    key=vim.HostSystem(host), mountInfo=vim.host.MountInfo(accessMode="readWrite", accessible=one.is_up)
                )
                for host, one in self.world.hosts.items()
            ]
        return {"name": store.name, "parent": vim.Folder(self.store_folder)}.get(name)

    def _host_value(self, thing: Any, name: str) -> Any:
        host = self.world.hosts[thing._moId]
        if name == "summary":
            hardware = vim.host.Summary.HardwareSummary(
                vendor="Lab", model="Lab", uuid=host.id, memorySize=long(host.memory_mib * 2**20), cpuModel="Lab",
                cpuMhz=CORE_MHZ, numCpuPkgs=1, numCpuCores=host.vcpus, numCpuThreads=host.vcpus, numNics=2, numHBAs=1,
            )  # fmt: skip
            return vim.host.Summary(host=thing, hardware=hardware, rebootRequired=False)
        if name == "runtime":
            return vim.host.RuntimeInfo(
                connectionState="connected" if host.is_up else "notResponding", powerState="poweredOn",
                inMaintenanceMode=bool(host.marks.get("maintenance")),
            )  # fmt: skip
        if name == "parent":
            return vim.ComputeResource(self.compute) if self.is_esxi else vim.ClusterComputeResource(self.compute)
        if name == "network":
            return [self.network(network) for network in self.world.networks]
        return host.name if name == "name" else None

    # --- machines -----------------------------------------------------------------------------------------------------

    def _machine_value(self, thing: Any, name: str) -> Any:
        machine = self.machine(thing._moId)
        if machine is None:
            return None
        parts: dict[str, Callable[[], Any]] = {
            "name": lambda: escaped(machine.name),
            "config": lambda: None if machine.marks.get("inaccessible") else self.config(machine),
            "summary": lambda: self._summary(machine),
            "runtime": lambda: self._runtime(machine),
            "guest": lambda: self._guest(machine),
            "guestHeartbeatStatus": lambda: machine.marks.get("heartbeat", "green" if machine.guest.is_up else "gray"),
            "snapshot": lambda: self._snapshots(machine),
            "parent": lambda: vim.Folder(self.folder_id(machine)),
            "layoutEx": lambda: files.layout(self, machine),
            "capability": lambda: self._capability(),
            "recentTask": lambda: self._tasks_of(machine),
            "resourcePool": lambda: None if machine.is_template else vim.ResourcePool(self.pool),
            "datastore": lambda: [
                vim.Datastore(id) for id in dict.fromkeys(self.world.disks[disk].storage for disk in machine.disks)
            ],
        }
        return parts[name]() if name in parts else None

    def _capability(self) -> Any:
        return vim.vm.Capability(changeTrackingSupported=self.tracking is not None and self.tracking.is_supported)

    def _tasks_of(self, machine: Machine) -> list[Any]:
        recent = [task for task in self.world.tasks.values() if task.subject == machine.id]
        return [vim.Task(f"task-{task.id}") for task in recent[-10:]]

    def _runtime(self, machine: Machine) -> Any:
        return vim.vm.RuntimeInfo(
            consolidationNeeded=bool(machine.marks.get("unmerged")),
            host=vim.HostSystem(machine.host), powerState=POWER[machine.power], maxCpuUsage=0,
            connectionState="inaccessible" if machine.marks.get("inaccessible") else "connected",
        )  # fmt: skip

    def _summary(self, machine: Machine) -> Any:
        return vim.vm.Summary(
            config=vim.vm.Summary.ConfigSummary(
                name=escaped(machine.name), template=machine.is_template, vmPathName=f"{self.home(machine)}/x.vmx",
                numCpu=machine.vcpus, memorySizeMB=machine.memory_mib,
            )
        )  # fmt: skip

    def config(
        self,
        machine: Machine,
        disks: tuple[str, ...] | None = None,
        marks: dict[str, Any] | None = None,
        point: str | None = None,
    ) -> Any:
        """Its ConfigInfo, or the one of a snapshot."""
        marks = machine.marks if marks is None else marks
        home = self.home(machine)
        vmx = machine.marks.get("vmx") or f"{home}/{machine.name}.vmx"
        return vim.vm.ConfigInfo(
            changeVersion=str(machine.version), modified=datetime.now(UTC), name=escaped(machine.name),
            guestFullName="Debian GNU/Linux 12", guestId=machine.marks.get("guestId", "debian12_64Guest"),
            version=machine.marks.get("version", "vmx-19"), uuid=machine.id, instanceUuid=machine.id,
            template=machine.is_template, firmware=machine.marks.get("firmware", "efi"),
            files=vim.vm.FileInfo(vmPathName=vmx),
            hardware=vim.vm.VirtualHardware(
                numCPU=machine.vcpus, memoryMB=machine.memory_mib, device=self.devices(machine, disks, point)
            ),
            changeTrackingEnabled=bool(machine.marks.get("cbt")),
            bootOptions=vim.vm.BootOptions(efiSecureBootEnabled=bool(machine.marks.get("secure"))),
            cpuAllocation=_allocation(marks.get("cpu"), 1000 * machine.vcpus),
            memoryAllocation=_allocation(marks.get("memory"), 10 * machine.memory_mib),
            cpuHotAddEnabled=bool(marks.get("hot")), memoryHotAddEnabled=bool(marks.get("hot")),
            extraConfig=[
                vim.option.OptionValue(key=key, value=value) for key, value in marks.get("extraConfig", {}).items()
            ],
        )  # fmt: skip

    def hung(self, machine: Machine) -> list[tuple[str, int, int]]:
        """What each disk hangs on: controller, bus, unit."""
        told = [(str(kind), int(bus), int(unit)) for kind, bus, unit in machine.marks.get("hung", ())]
        return told or [("ParaVirtualSCSIController", 0, unit) for unit in range(len(machine.disks))]

    def devices(self, machine: Machine, disks: tuple[str, ...] | None = None, point: str | None = None) -> list[Any]:
        if any(disk not in self.files for disk in machine.disks):
            self.name_files(machine)
        found: list[Any] = [vim.vm.device.VirtualIDEController(key=200 + bus, busNumber=bus) for bus in range(2)]
        hung, keys = self.hung(machine), {("VirtualIDEController", bus): 200 + bus for bus in range(2)}
        for kind, bus, _ in hung or [("ParaVirtualSCSIController", 0, 0)]:
            if (kind, bus) not in keys:
                keys[kind, bus] = _FIRST_KEY.get(kind, CONTROLLER) + bus
                made = getattr(vim.vm.device, kind)(key=keys[kind, bus], busNumber=bus)
                if hasattr(made, "sharedBus"):
                    made.sharedBus = "noSharing"
                found.append(made)
        for index, disk in enumerate(machine.disks if disks is None else disks):
            kind, bus, unit = hung[index]
            capacity = self.world.disks[disk].capacity
            backing = self._backing(disk, machine.marks.get("modes", {}).get(str(index)))
            if self.tracking is not None:
                backing.changeId = self.tracking.change_id(machine, disk, point)
            found.append(
                vim.vm.device.VirtualDisk(
                    key=DISK + index, controllerKey=keys[kind, bus], unitNumber=unit,
                    capacityInKB=long(capacity // 1024), capacityInBytes=long(capacity), backing=backing,
                )
            )  # fmt: skip
        for index, nic in enumerate(machine.nics):
            card = machine.marks.get("cards", {}).get(str(index), "VirtualVmxnet3")
            found.append(
                getattr(vim.vm.device, card)(
                    key=NIC + index, macAddress=nic.mac, addressType="assigned", backing=self.socket(nic.network),
                    connectable=vim.vm.device.VirtualDevice.ConnectInfo(
                        startConnected=nic.is_connected, connected=nic.is_connected, allowGuestControl=True
                    ),
                )
            )  # fmt: skip
        return found

    def _backing(self, disk: str, mode: str | None = None) -> Any:
        there = self.world.disks[disk]
        backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
            fileName=self.file_of(disk), datastore=vim.Datastore(there.storage), diskMode=mode or "persistent",
            thinProvisioned=True, uuid=disk,
        )  # fmt: skip
        if there.parent:
            backing.parent = self._backing(there.parent)
        return backing

    def socket(self, network: str) -> Any:
        card = vim.vm.device.VirtualEthernetCard
        if network.startswith("dvportgroup"):
            port = vim.dvs.PortConnection(switchUuid="50 2e 11 22", portgroupKey=network)
            return card.DistributedVirtualPortBackingInfo(port=port)
        return card.NetworkBackingInfo(deviceName=self.world.networks[network].name, network=vim.Network(network))

    def network_of(self, backing: Any) -> str:
        """The network that a card is plugged into."""
        if hasattr(backing, "port"):
            return str(backing.port.portgroupKey)
        if backing.network is not None:
            return str(backing.network._moId)
        return next((one.id for one in self.world.networks.values() if one.name == backing.deviceName), "")

    def _guest(self, machine: Machine) -> Any:
        guest = machine.guest
        answers = guest.is_up and guest.has_agent
        told = self.world.addresses(machine)
        net = [
            vim.vm.GuestInfo.NicInfo(
                network=self.world.networks[nic.network].name, macAddress=nic.mac, connected=True,
                deviceConfigId=NIC + index, ipAddress=list(told) if index == 0 else [],
            )
            for index, nic in enumerate(machine.nics)
        ]  # fmt: skip
        return vim.vm.GuestInfo(
            toolsRunningStatus="guestToolsRunning" if answers else "guestToolsNotRunning",
            toolsVersionStatus2="guestToolsCurrent" if guest.has_agent else "guestToolsNotInstalled",
            ipAddress=told[0] if told else None, hostName=guest.hostname if answers else None,
            net=net if answers else [], guestState="running" if answers else "notRunning",
        )  # fmt: skip

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def _snapshots(self, machine: Machine) -> Any:
        tree = self._tree(machine, None)
        if not tree:
            return None
        current = vim.vm.Snapshot(f"snapshot-{machine.snapshot}") if machine.snapshot else None
        return vim.vm.SnapshotInfo(currentSnapshot=current, rootSnapshotList=tree)

    def _tree(self, machine: Machine, parent: str | None) -> list[Any]:
        return [
            vim.vm.SnapshotTree(
                snapshot=vim.vm.Snapshot(f"snapshot-{point.id}"), vm=self.vm(machine), name=escaped(point.name),
                description=point.description, id=number, createTime=datetime.now(UTC), state="poweredOff",
                quiesced=False, childSnapshotList=self._tree(machine, point.id), replaySupported=False,
            )
            for number, point in enumerate(machine.snapshots.values(), 1)
            if point.parent == parent and point.id not in machine.marks.get("unmerged", ())
        ]  # fmt: skip

    def _snapshot_value(self, thing: Any, name: str) -> Any:
        found = self.owner_of(thing._moId)
        if found is None or name != "config":
            return None
        machine, id = found
        return self.config(machine, machine.snapshots[id].disks, machine.marks.get("points", {}).get(id, {}), id)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _task_manager_value(self, thing: Any, name: str) -> Any:
        recent = list(self.world.tasks.values())[-50:]
        return [vim.Task(f"task-{task.id}") for task in recent] if name == "recentTask" else None

    def _task_value(self, thing: Any, name: str) -> Any:
        task = self.world.tasks.get(thing._moId.removeprefix("task-"))
        return self.task_info(task) if task is not None and name == "info" else None

    def task_info(self, task: Task) -> Any:
        info = vim.TaskInfo(
            key=f"task-{task.id}", task=vim.Task(f"task-{task.id}"), descriptionId=task.kind, cancelled=False,
            cancelable=True, reason=vim.TaskReasonUser(userName="lab"), queueTime=datetime.now(UTC), eventChainId=1,
            state={
                TaskState.QUEUED: "queued", TaskState.RUNNING: "running", TaskState.DONE: "success",
                TaskState.FAILED: "error", TaskState.CANCELLED: "error",
            }[task.state],
        )  # fmt: skip
        if task.state is TaskState.RUNNING:
            info.progress = task.percent(self.world.now)
        if task.state is TaskState.DONE and task.result is not None:
            info.result = task.result
        if task.state is TaskState.CANCELLED:
            info.error = vmodl.fault.RequestCanceled(msg="The task was canceled by a user.")
        if task.error is not None:
            is_said = isinstance(task.error, vmodl.MethodFault)
            info.error = task.error if is_said else vmodl.fault.SystemError(reason=str(task.error))
        return info


def escaped(name: str) -> str:
    """vSphere shows these three letters of a name so."""
    return name.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")


def unescaped(name: str) -> str:
    for plain, shown in (("\\", "%5c"), ("/", "%2f"), ("%", "%25")):
        name = name.replace(shown, plain).replace(shown.upper(), plain)
    return name


def _typed(value: Any, kind: Any) -> Any:
    """Lists go over the wire by the type of what is in them."""
    return kind(value) if isinstance(value, list) and issubclass(kind, list) else value


def _element(value: Any, key: str | None) -> Any:
    if not key or value is None:
        return value
    return next((one for one in value if str(getattr(one, "key", "")) == key), None)


def _require_known(kind: Any, path: str) -> None:
    """An unset parent hides no spelling mistake: the type is asked. Raises `NoProperty`."""
    for name, key in [(found[1], found[2]) for found in _PATH.finditer(path)][1:]:
        try:
            kind = kind._GetPropertyInfo(name).type
        except AttributeError:
            raise NoProperty(path) from None
        if key and issubclass(kind, list):
            kind = kind.Item


def _allocation(mark: dict[str, Any] | None, normal: int) -> Any:
    mark = mark or {}
    level = mark.get("level", "normal")
    shares = {"normal": normal, "low": normal // 2, "high": normal * 2}.get(level, mark.get("shares", normal))
    return vim.ResourceAllocationInfo(
        reservation=long(mark.get("reservation", 0)), limit=long(mark.get("limit", -1)), expandableReservation=False,
        shares=vim.SharesInfo(level=level, shares=shares),
    )  # fmt: skip
