"""A HyperCore cluster: what all its nodes share, and what each call does to it.

Calls raise `Refused` with an HTTP status and words. Changes are tasks: checked at once, done when their time has come.
All methods want the world's lock.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pycdlib

from lab.errors import HostDown, NoSuch, OutOfMemory, OutOfStorage, WorldError, WrongState
from lab.hypercore.devices import (
    CACHE_MODES,
    DISKS,
    MIB,
    NIC_TYPES,
    SINGLES,
    TYPES,
    Device,
    Extra,
    Iso,
    Point,
    copy_bytes,
    disk_size,
    extra_of,
    free_slot,
    sync_disks,
)
from lab.hypercore.refused import Body, Refused, mapping, require_known
from lab.hypercore.uploads import VirtualDisk
from lab.nouns import Machine, Nic, Power, Task
from lab.world import World

ALL_ROLES = ("Admin", "Backup", "Cluster Settings", "Cluster Shutdown", "Read", "VM Create/Edit", "VM Delete",
             "VM Power Controls")  # fmt: skip
NEVER = 1e12
"""When a guest boots that finds nothing to boot from."""


class Cluster:
    """One cluster over one world."""

    def __init__(
        self, world: World, *, name: str = "hc3", user: str = "deskyard", password: str = "of-the-lab",  # noqa: S107
        version: str = "9.6.27.225000",
    ) -> None:  # fmt: skip
        self.world = world
        self.id = world.new_id()
        self.name = name
        self.user = user
        self.password = password
        self.version = version
        self.roles: set[str] = {"Admin"}
        """Of the account."""
        self.user_id = world.new_id()
        self.points: dict[str, Point] = {}
        self.isos: dict[str, Iso] = {}
        self.virtual_disks: dict[str, VirtualDisk] = {}
        self.tags: dict[str, str] = {}
        """Task tag -> id of the world's task."""
        self.task_s: dict[str, float] = {"Clone": 2.0, "Snapshot": 1.0, "Export": 4.0, "Upload": 1.0}
        """How long tasks of a kind take; others take `usual_s`."""
        self.usual_s = 0.5
        self.converting_s = 1.0
        """How long an uploaded image is converted after its task has ended."""
        self.breaks_uploads = 0
        """So many of the next uploads break off in the middle."""
        self.lag_s = 0.4
        """How long a power state takes to show after its task has ended."""
        self.is_strict = True
        """Whether every change that comes while a task runs is answered 500, not only some."""
        self.loses_boot = True
        """Whether clones come with an empty boot order, as those of cloud images do."""
        self.marks_source = True
        """Whether a clone's task shows as the source's latest; whether it does on an appliance is not known."""
        self.shows_early = False
        """Whether a clone is listed before its task has ended; not known either."""
        self.has_replication = True
        """Whether the API knows replication at all."""
        self.cut_from: set[str] = set()
        """Names of other clusters to which the connection is down."""
        self.keeps_snapshots = False
        """Whether a deleted machine's snapshots stay behind; not known either."""
        self.tier_percent = 40
        """How full the SSD tier is: beyond 90 nothing is cloned, created or snapshotted."""
        self.update_status: dict[str, Any] | None = None
        """What /update/update_status.json says; None: 404, as on a cluster that was never updated."""
        self._arriving: set[str] = set()
        self._early = 0

    @property
    def has_v2(self) -> bool:
        return _numbers(self.version) >= (9, 7, 1)

    @property
    def has_labels(self) -> bool:
        return _numbers(self.version) >= (9, 7)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def running(self) -> Task | None:
        """A task that is under way and keeps others waiting."""
        return next((task for task in self._under_way() if not task.marks.get("is_beside")), None)

    def beside(self) -> list[Task]:
        """Tasks that are under way beside all others, oldest first."""
        return [task for task in self._under_way() if task.marks.get("is_beside")]

    def _under_way(self) -> list[Task]:
        tasks = (self.world.tasks[id] for id in self.tags.values())
        return [task for task in tasks if task.ended_at is None]

    def begin(
        self, kind: str, words: str, parameters: list[str], act: Callable[[], Any], *, on: Machine | None = None,
        created: str = "", is_beside: bool = False, after: Task | None = None,
    ) -> dict[str, str]:  # fmt: skip
        """Start the change; the answer of every POST, PATCH and DELETE. `is_beside`: others are taken meanwhile."""
        seconds = self.task_s.get(kind.split()[0], self.usual_s)
        task = self.world.start_task(kind, on.id if on else "", seconds, act, after=after)
        tag = str(1000 + len(self.tags))
        self.tags[tag] = task.id
        task.marks |= {
            "tag": tag, "words": words, "parameters": parameters, "created": created, "is_beside": is_beside
        }  # fmt: skip
        if on is not None:
            extra_of(self.world, on).latest = task.id
        return {"taskTag": tag, "createdUUID": created}

    def require_quiet(self) -> None:
        """A change that comes while a task runs is answered 500 at times."""
        if self.running() is None:
            return
        self._early += 1
        if self.is_strict or self._early % 3 == 1:
            raise Refused(500, "An internal error occurred")

    def require_role(self, role: str) -> None:
        if not self.roles & {role, "Admin"}:
            raise Refused(403, f"User does not have the {role} role")

    def require_tier(self) -> None:
        if self.tier_percent > 90:
            raise Refused(400, "Bad Request")

    # --- machines -----------------------------------------------------------------------------------------------------

    def listed(self) -> list[Machine]:
        if not self.roles & {"Read", "Admin"}:
            return []
        return [machine for machine in self.world.visible() if machine.id not in self._arriving]

    def machine(self, id: str) -> Machine:
        with suppress(NoSuch):
            machine = self.world.machine(id)
            if machine.id not in self._arriving:
                return machine
        raise Refused(404, "VirDomain not found")

    def create(self, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        self.require_tier()
        require_known(body, {"dom", "options"})
        dom, options = mapping(body, "dom"), body.get("options") or {}
        require_known(
            dom,
            {"name", "description", "mem", "numVCPU", "tags", "operatingSystem", "cloudInitData", "blockDevs",
             "netDevs", "state", "bootDevices", "machineType", "affinityStrategy", "snapshotScheduleUUID"},
        )  # fmt: skip
        require_known(options, {"attachGuestToolsISO", "machineTypeKeyword"})
        _decoded(dom.get("cloudInitData"))
        id = self.world.new_id()

        def act() -> None:
            machine = self.world.create(
                str(dom.get("name") or ""), vcpus=int(dom.get("numVCPU") or 1),
                memory_mib=int(dom.get("mem") or 4 * 1024 * MIB) // MIB, networks=(), id=id,
            )  # fmt: skip
            extra = extra_of(self.world, machine)
            extra.tags, extra.description = str(dom.get("tags") or ""), str(dom.get("description") or "")
            extra.machine_type_keyword = str(options.get("machineTypeKeyword") or "bios")
            for wanted in dom.get("blockDevs") or ():
                extra.devices.append(self._new_device(extra, wanted))
            for wanted in dom.get("netDevs") or ():
                self._add_nic(machine, extra, wanted)
            self._seed(machine, extra, dom)
            sync_disks(machine, extra)

        return self.begin("Create", "Create VM %@", [str(dom.get("name") or "")], act, created=id)

    def clone(self, id: str, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        source = self.machine(id)
        self.require_tier()
        require_known(body, {"template", "snapUUID"})
        wanted = body.get("template") or {}
        require_known(
            wanted,
            {"name", "description", "tags", "cloudInitData", "netDevs", "mem", "numVCPU", "operatingSystem", "smbios"},
        )
        _decoded(wanted.get("cloudInitData"))
        point = self.point(str(body["snapUUID"])) if body.get("snapUUID") else None
        if point is not None and point.domain != id:
            raise Refused(400, "Snapshot does not belong to this VirDomain")
        new = self.world.new_id()
        if self.shows_early:
            self._copy_machine(source, new, wanted, point)
            act: Callable[[], Any] = lambda: None  # noqa: E731
        else:
            act = lambda: self._copy_machine(self.world.machine(id), new, wanted, point)  # noqa: E731
        answer = self.begin(
            "Clone", "Clone VM %@", [source.name], act, on=source if self.marks_source else None, created=new
        )
        if self.shows_early:
            extra_of(self.world, self.world.machines[new]).latest = self.tags[answer["taskTag"]]
        return answer

    def _copy_machine(self, source: Machine, id: str, wanted: Body, point: Point | None) -> None:
        """Carried: description, tags, size, devices, NICs. Reset: MACs, labels, runnable. `smbios` is dropped."""
        theirs = extra_of(self.world, source)
        machine = self.world.create(
            str(wanted.get("name") or source.name), vcpus=int(wanted.get("numVCPU") or source.vcpus),
            memory_mib=int(wanted.get("mem") or source.memory_mib * MIB) // MIB, networks=(), folder=source.folder,
            id=id,
        )  # fmt: skip
        extra = extra_of(self.world, machine)
        extra.tags = str(wanted.get("tags", theirs.tags))
        extra.description = str(wanted.get("description", theirs.description))
        extra.machine_type, extra.machine_type_keyword = theirs.machine_type, theirs.machine_type_keyword
        extra.operating_system = theirs.operating_system
        extra.cloud_init = dict(theirs.cloud_init)
        same: dict[str, str] = {}
        try:
            for device in point.devices if point else theirs.devices:
                copy = replace(device, uuid=self.world.new_id(), disk=copy_bytes(self.world, device), name="", serial=1)
                extra.devices.append(copy)
                same[device.uuid] = copy.uuid
        except WorldError:
            sync_disks(machine, extra)
            self.world.delete(id)
            raise
        boot = point.boot if point else theirs.boot
        extra.boot = [] if self.loses_boot else [same[device] for device in boot if device in same]
        if wanted.get("netDevs") is not None:
            for nic in wanted["netDevs"]:
                self._add_nic(machine, extra, nic)
        else:
            for old in source.nics:
                nic_type = theirs.nic_types.get(old.id, "VIRTIO")
                self._add_nic(machine, extra, {"type": nic_type, "vlan": self.world.networks[old.network].vlan})
        self._seed(machine, extra, wanted)
        sync_disks(machine, extra)

    def _seed(self, machine: Machine, extra: Extra, wanted: Body) -> None:
        """Cloud-init data, which the guest reads at its next boot."""
        if not isinstance(data := wanted.get("cloudInitData"), Mapping):
            return
        extra.cloud_init = {"userData": str(data.get("userData") or ""), "metaData": str(data.get("metaData") or "")}
        user_data, meta_data = _decoded(data)
        seed = {"user_data": user_data, "meta_data": meta_data}
        with suppress(ValueError, AttributeError):
            told = json.loads(meta_data or "{}")
            seed |= {"hostname": str(told.get("local-hostname", "")), "instance": str(told.get("instance-id", ""))}
        machine.guest.seed = seed

    def update(self, id: str, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        machine = self.machine(id)
        newer = {"runnable", "labels"} if self.has_labels else set()
        require_known(
            body,
            {"name", "description", "tags", "mem", "numVCPU", "bootDevices", "operatingSystem", "affinityStrategy",
             "cloudInitData", "snapshotScheduleUUID", "blockDevs", "netDevs", "uuid", "state"} | newer,
        )  # fmt: skip
        _decoded(body.get("cloudInitData"))
        resizes = ("mem" in body and int(body["mem"]) != machine.memory_mib * MIB) or (
            "numVCPU" in body and int(body["numVCPU"]) != machine.vcpus
        )
        if resizes and machine.power is not Power.OFF:
            raise Refused(400, "VirDomain must be shut off")
        devices = {device.uuid for device in extra_of(self.world, machine).devices}
        if unknown := set(body.get("bootDevices") or ()) - devices:
            raise Refused(400, f"Unknown boot device {min(unknown)}")

        def act() -> None:
            extra = extra_of(self.world, machine)
            machine.name = str(body.get("name", machine.name))
            extra.tags = str(body.get("tags", extra.tags))
            extra.description = str(body.get("description", extra.description))
            extra.operating_system = str(body.get("operatingSystem", extra.operating_system))
            extra.boot = list(body.get("bootDevices", extra.boot))
            extra.affinity = dict(body.get("affinityStrategy", extra.affinity))
            extra.labels = dict(body.get("labels", extra.labels))
            machine.memory_mib = int(body.get("mem", machine.memory_mib * MIB)) // MIB
            machine.vcpus = int(body.get("numVCPU", machine.vcpus))
            if "runnable" in body:
                machine.is_template = not body["runnable"]
            self._seed(machine, extra, body)
            self.world.touch(machine)

        return self.begin("Update", "Update VM %@", [machine.name], act, on=machine)

    def delete(self, id: str) -> dict[str, str]:
        self.require_role("VM Delete")
        machine = self.machine(id)
        if machine.power is not Power.OFF:
            raise Refused(400, "VirDomain must be shut off")
        if any(task.subject == id for task in self.beside()):
            raise Refused(400, "VirDomain is being exported")

        def act() -> None:
            sync_disks(machine, extra_of(self.world, machine))
            self.world.delete(id)
            for point in [point for point in self.points.values() if point.domain == id]:
                if not self.keeps_snapshots:
                    self._drop_point(point)

        return self.begin("Delete", "Delete VM %@", [machine.name], act, on=machine)

    # --- power --------------------------------------------------------------------------------------------------------

    def action(self, body: Any) -> dict[str, str]:
        self.require_role("VM Power Controls")
        if not isinstance(body, list) or not body:
            raise Refused(400, "Expected a list")
        wanted = body[0]
        require_known(wanted, {"virDomainUUID", "actionType", "cause", "nodeUUID"})
        machine = self.machine(str(wanted.get("virDomainUUID")))
        kind = str(wanted.get("actionType"))
        acts: dict[str, Callable[[Machine], None]] = {
            "START": self._start, "STOP": self._stop, "SHUTDOWN": self._shut_down, "REBOOT": self._reboot,
            "RESET": self._reset, "PAUSE": self._pause, "NMI": lambda machine: None,
            "LIVEMIGRATE": lambda machine: self._migrate(machine, str(wanted.get("nodeUUID"))),
        }  # fmt: skip
        if kind not in acts:
            raise Refused(400, f"Invalid actionType {kind}")
        if kind in ("RESET", "REBOOT", "PAUSE", "NMI", "LIVEMIGRATE") and machine.power is not Power.ON:
            raise Refused(500, "An internal error occurred")
        return self.begin(f"Action {kind}", f"{kind} VM %@", [machine.name], lambda: acts[kind](machine), on=machine)

    def _start(self, machine: Machine) -> None:
        if machine.power is Power.ON:
            return
        if machine.is_template or extra_of(self.world, machine).replica_of:
            raise WrongState(f"{machine.name} cannot be started")
        self._place(machine)
        host = self.world.hosts[machine.host]
        free = host.memory_mib - self.world.used_memory_mib(host.id)
        if machine.power is Power.OFF and machine.memory_mib > free:
            raise OutOfMemory(host.name)
        self._later(machine, self._started)

    def _place(self, machine: Machine) -> None:
        """Where it is wanted, else where it was, else where most memory is free."""
        preferred = str(extra_of(self.world, machine).affinity.get("preferredNodeUUID") or "")
        up = [host for host in self.world.hosts.values() if host.is_up]
        if not up:
            raise HostDown("every node")
        roomy = max(up, key=lambda host: host.memory_mib - self.world.used_memory_mib(host.id))
        wanted = next((host for host in up if host.id in (preferred, machine.host)), roomy)
        for host in up:
            if host.id == preferred:
                wanted = host
        free = wanted.memory_mib - self.world.used_memory_mib(wanted.id)
        machine.host = (wanted if free >= machine.memory_mib else roomy).id

    def _started(self, machine: Machine) -> None:
        if machine.power is Power.OFF:
            extra = extra_of(self.world, machine)
            first = next((device for device in extra.devices if extra.boot[:1] == [device.uuid]), None)
            can_boot = first is not None and first.type in DISKS and not first.has_new_identity
            machine.guest.boots_s = extra.boots_s if can_boot else NEVER
            machine.guest.seed.pop("answer_file", None)
            for disc in self._discs(extra):
                machine.guest.seed |= answers_on(disc)
            self.world.power_on(machine.id)
        elif machine.power is not Power.ON:
            self.world.resume(machine.id)

    def _stop(self, machine: Machine) -> None:
        self._later(machine, lambda there: self.world.power_off(there.id))

    def _shut_down(self, machine: Machine) -> None:
        if machine.power is Power.ON:
            self.world.shutdown_guest(machine.id)

    def _reboot(self, machine: Machine) -> None:
        self.world.reboot_guest(machine.id)

    def _reset(self, machine: Machine) -> None:
        self.world.reset(machine.id)

    def _pause(self, machine: Machine) -> None:
        self._later(machine, lambda there: self.world.suspend(there.id, to_disk=False))

    def _migrate(self, machine: Machine, node: str) -> None:
        if node not in self.world.hosts or not self.world.hosts[node].is_up:
            raise HostDown(node)
        machine.host = node

    def _later(self, machine: Machine, act: Callable[[Machine], None]) -> None:
        """The task has ended, and a little later the state changes."""

        def late() -> None:
            with suppress(WorldError):
                act(self.world.machine(machine.id))

        self.world.after(self.lag_s, late)

    # --- block devices ------------------------------------------------------------------------------------------------

    def device(self, id: str) -> tuple[Machine, Device]:
        for machine in self.listed():
            for device in extra_of(self.world, machine).devices:
                if device.uuid == id:
                    return machine, device
        raise Refused(404, "VirDomainBlockDevice not found")

    def _new_device(self, extra: Extra, wanted: Body) -> Device:
        kind = str(wanted.get("type"))
        slot = int(wanted["slot"]) if wanted.get("slot") is not None else free_slot(extra.devices, kind)
        capacity = int(wanted.get("capacity") or 0)
        device = Device(
            self.world.new_id(), kind, capacity, str(wanted.get("cacheMode") or "NONE"), slot,
            path=str(wanted.get("path") or ""),
        )  # fmt: skip
        if kind in DISKS + SINGLES:
            storage = next(iter(self.world.storages))
            device.disk = self.world.new_disk(storage, capacity=disk_size(capacity)).id
        return device

    def require_place(self, machine: Machine, wanted: Body) -> None:
        kind, devices = str(wanted.get("type")), extra_of(self.world, machine).devices
        if kind not in TYPES:
            raise Refused(400, f"Invalid type {kind}")
        if wanted.get("cacheMode") not in (None, *CACHE_MODES):
            raise Refused(400, "Invalid cacheMode")
        if kind in SINGLES and any(device.type == kind for device in devices):
            raise Refused(400, f"VirDomain already has a device of type {kind}")
        if kind.startswith("IDE") and sum(device.type.startswith("IDE") for device in devices) >= 4:
            raise Refused(400, "No free IDE slot")

    def add_device(self, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        require_known(
            body,
            {"virDomainUUID", "type", "capacity", "cacheMode", "slot", "path", "name", "readOnly",
             "disableSnapshotting", "tieringPriorityFactor"},
        )  # fmt: skip
        machine = self.machine(str(body.get("virDomainUUID")))
        self.require_place(machine, body)
        device: list[Device] = []
        created = self.world.new_id()

        def act() -> None:
            extra = extra_of(self.world, machine)
            device.append(replace(self._new_device(extra, body), uuid=created))
            extra.devices += device
            sync_disks(machine, extra)

        return self.begin("AddDisk", "Create block device for VM %@", [machine.name], act, on=machine, created=created)

    def clone_device(self, id: str, body: Body) -> dict[str, str]:
        """Out of a snapshot, into a machine; the shape that 9.7.3 enforces. The live device may be gone."""
        self.require_role("VM Create/Edit")
        self.require_tier()
        require_known(body, {"options", "snapUUID", "template"})
        options, wanted = body.get("options") or {}, mapping(body, "template")
        require_known(options, {"regenerateDiskID"})
        require_known(wanted, {"virDomainUUID", "type", "capacity", "cacheMode", "slot", "name"})
        point = self.point(str(body.get("snapUUID")))
        source = next((device for device in point.devices if device.uuid == id), None)
        if source is None:
            raise Refused(404, "VirDomainBlockDevice not found")
        if not wanted.get("type") or wanted.get("capacity") is None:
            raise Refused(400, "template.type and template.capacity are required")
        machine = self.machine(str(wanted.get("virDomainUUID")))
        self.require_place(machine, wanted)
        created = self.world.new_id()

        def act() -> None:
            extra = extra_of(self.world, machine)
            kind = str(wanted["type"])
            slot = int(wanted["slot"]) if wanted.get("slot") is not None else free_slot(extra.devices, kind)
            copy = Device(created, kind, int(wanted["capacity"]), str(wanted.get("cacheMode") or "NONE"), slot)
            copy.disk = copy_bytes(self.world, source)
            copy.has_new_identity = bool(options.get("regenerateDiskID", True))
            extra.devices.append(copy)
            sync_disks(machine, extra)

        return self.begin("CloneDisk", "Clone block device to VM %@", [machine.name], act, on=machine, created=created)

    def update_device(self, id: str, body: Body, *, is_v2: bool) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        machine, device = self.device(id)
        known = {"type", "capacity", "cacheMode", "slot", "path", "name", "readOnly", "disableSnapshotting",
                 "tieringPriorityFactor"}  # fmt: skip
        require_known(body, known if is_v2 else known | {"virDomainUUID", "uuid"})

        def act() -> None:
            if device.type == "IDE_CDROM" and ("path" in body) != ("name" in body):
                raise WrongState("a disc is changed by path and name")
            if "name" in body and self.has_labels:  # ignored in silence on 9.6
                device.name = str(body["name"])
            device.cache_mode = str(body.get("cacheMode", device.cache_mode))
            device.path = str(body.get("path", device.path))
            device.slot = int(body.get("slot", device.slot))
            device.capacity = int(body.get("capacity", device.capacity))
            if device.disk and disk_size(device.capacity) > self.world.disks[device.disk].capacity:
                self.world.resize_disk(device.disk, disk_size(device.capacity))

        return self.begin("UpdateDisk", "Update block device of VM %@", [machine.name], act, on=machine)

    def delete_device(self, id: str) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        machine, device = self.device(id)

        def act() -> None:
            extra = extra_of(self.world, machine)
            extra.devices = [other for other in extra.devices if other is not device]
            extra.boot = [other for other in extra.boot if other != id]
            if device.disk:
                self.world.drop_disk(device.disk)
            sync_disks(machine, extra)

        return self.begin("DeleteDisk", "Delete block device of VM %@", [machine.name], act, on=machine)

    # --- NICs ---------------------------------------------------------------------------------------------------------

    def nic(self, id: str) -> tuple[Machine, Nic]:
        for machine in self.listed():
            for nic in machine.nics:
                if nic.id == id:
                    return machine, nic
        raise Refused(404, "VirDomainNetDevice not found")

    def _network(self, vlan: int) -> str:
        """NICs have VLAN numbers; the world has networks."""
        found = next((network.id for network in self.world.networks.values() if network.vlan == vlan), "")
        return found or self.world.add_network(f"VLAN {vlan}", vlan).id

    def _add_nic(self, machine: Machine, extra: Extra, wanted: Body, id: str = "") -> None:
        nic = self.world.new_nic(self._network(int(wanted.get("vlan") or 0)))
        nic.id = id or nic.id
        nic.mac = str(wanted.get("macAddress") or nic.mac)
        nic.is_connected = bool(wanted.get("connected", True))
        extra.nic_types[nic.id] = str(wanted.get("type") or "VIRTIO")
        machine.nics.append(nic)

    def add_nic(self, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        require_known(body, {"virDomainUUID", "type", "vlan", "connected", "macAddress"})
        machine = self.machine(str(body.get("virDomainUUID")))
        _require_nic(body)
        created = self.world.new_id()

        def act() -> None:
            self._add_nic(machine, extra_of(self.world, machine), body, created)

        return self.begin("AddNic", "Create network device for VM %@", [machine.name], act, on=machine, created=created)

    def update_nic(self, id: str, body: Body, *, is_v2: bool) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        machine, nic = self.nic(id)
        known = {"type", "vlan", "connected", "macAddress"}
        require_known(body, known if is_v2 else known | {"virDomainUUID", "uuid"})
        _require_nic(body)

        def act() -> None:
            if "vlan" in body:
                nic.network = self._network(int(body["vlan"]))
            nic.mac = str(body.get("macAddress", nic.mac))
            nic.is_connected = bool(body.get("connected", nic.is_connected))

        return self.begin("UpdateNic", "Update network device of VM %@", [machine.name], act, on=machine)

    def delete_nic(self, id: str) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        machine, nic = self.nic(id)
        return self.begin(
            "DeleteNic", "Delete network device of VM %@", [machine.name], lambda: machine.nics.remove(nic), on=machine
        )

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def point(self, id: str) -> Point:
        if id not in self.points:
            raise Refused(404, "VirDomainSnapshot not found")
        return self.points[id]

    def snapshot(self, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        newer = {"attemptQuiesce"} if self.has_labels else set()
        require_known(body, {"domainUUID", "label", "type", "replication", "localRetainUntilTimestamp"} | newer)
        machine = self.machine(str(body.get("domainUUID")))
        self.require_tier()
        created = self.world.new_id()

        def act() -> None:
            extra = extra_of(self.world, machine)
            frozen: list[Device] = []
            try:
                for device in extra.devices:
                    frozen.append(replace(device, disk=copy_bytes(self.world, device)))
            except OutOfStorage:
                for device in frozen:
                    self.world.drop_disk(device.disk)
                raise
            serials = {device.uuid: device.serial for device in extra.devices}
            for device in extra.devices:
                device.serial += 1
            self.points[created] = Point(
                created, machine.id, str(body.get("label") or ""), str(body.get("type") or "USER"),
                bool(body.get("replication", True)), self.world.now, frozen, list(extra.boot), serials,
            )  # fmt: skip

        return self.begin("Snapshot", "Snapshot VM %@", [machine.name], act, on=machine, created=created)

    def delete_snapshot(self, id: str) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        point = self.point(id)
        machine = self.world.machines.get(point.domain)
        return self.begin(
            "DeleteSnapshot", "Delete snapshot %@", [point.label], lambda: self._drop_point(point), on=machine
        )

    def _drop_point(self, point: Point) -> None:
        for device in point.devices:
            if device.disk:
                self.world.erase_disk(device.disk)
        self.points.pop(point.uuid, None)

    # --- ISO images ---------------------------------------------------------------------------------------------------

    def iso(self, id: str) -> Iso:
        if id not in self.isos:
            raise Refused(404, "ISO not found")
        return self.isos[id]

    def add_iso(self, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        require_known(body, {"name", "size", "readyForInsert"})
        name = str(body.get("name") or "")
        if not name.endswith(".iso") or any(iso.name == name for iso in self.isos.values()):
            raise Refused(400, "Invalid name")
        created = self.world.new_id()

        def act() -> None:
            self.isos[created] = Iso(created, name, int(body.get("size") or 0))

        return self.begin("AddIso", "Create ISO %@", [name], act, created=created)

    def fill_iso(self, id: str, content: bytes) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        iso = self.iso(id)
        if len(content) != iso.size:
            raise Refused(400, "Size does not match")

        def act() -> None:
            iso.content = content

        return self.begin("UploadIso", "Upload ISO %@", [iso.name], act)

    def update_iso(self, id: str, body: Body) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        iso = self.iso(id)
        require_known(body, {"name", "readyForInsert"})

        def act() -> None:
            iso.is_ready = bool(body.get("readyForInsert", iso.is_ready)) and bool(iso.content)

        return self.begin("UpdateIso", "Update ISO %@", [iso.name], act)

    def mounts(self, iso: Iso) -> int:
        machines = self.world.machines.values()
        return sum(device.path == iso.path for one in machines for device in extra_of(self.world, one).devices)

    def delete_iso(self, id: str) -> dict[str, str]:
        self.require_role("VM Create/Edit")
        iso = self.iso(id)
        if self.mounts(iso):
            raise Refused(400, "ISO is in use")
        return self.begin("DeleteIso", "Delete ISO %@", [iso.name], lambda: self.isos.pop(id))

    def _discs(self, extra: Extra) -> list[bytes]:
        """What the guest finds in its drives."""
        paths = {device.path for device in extra.devices if device.type == "IDE_CDROM"}
        return [iso.content for iso in self.isos.values() if iso.path in paths and iso.is_ready]

    # --- setting up ---------------------------------------------------------------------------------------------------

    def add_template(self, name: str, *, disk_mib: int = 20_480, memory_mib: int = 2_048, vlan: int = 0) -> Machine:
        """A machine that is off; from 9.7 on also marked as not runnable."""
        network = self._network(vlan)
        machine = self.world.create(name, vcpus=2, memory_mib=memory_mib, disks_mib=(disk_mib,), networks=(network,))
        self.world.seed_disk(machine.disks[0])
        machine.is_template = self.has_labels
        extra_of(self.world, machine)
        return machine


def answers_on(disc: bytes) -> dict[str, str]:
    """The answer file that Windows finds at the root of a disc, if there is one."""
    image, found = pycdlib.PyCdlib(), io.BytesIO()
    image.open_fp(io.BytesIO(disc))
    try:
        image.get_file_from_iso_fp(found, joliet_path="/Unattend.xml")
    except pycdlib.pycdlibexception.PyCdlibException:
        return {}
    finally:
        image.close()
    return {"answer_file": found.getvalue().decode()}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _decoded(data: Any) -> tuple[str, str]:
    """User data and meta data in plain text. Raises `Refused`."""
    if not isinstance(data, Mapping):
        return "", ""
    try:
        return (
            base64.b64decode(str(data.get("userData") or ""), validate=True).decode(),
            base64.b64decode(str(data.get("metaData") or ""), validate=True).decode(),
        )
    except ValueError:
        raise Refused(400, "cloudInitData is not base64") from None


def _require_nic(body: Body) -> None:
    if body.get("type") not in (None, *NIC_TYPES):
        raise Refused(400, "Invalid type")
    if not 0 <= int(body.get("vlan") or 0) <= 4094:
        raise Refused(400, "Invalid vlan")
