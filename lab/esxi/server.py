"""The endpoint: sessions, rights, and each call carried out in the world, as vCenter or as a stand-alone ESXi host.

What is as on the real ones, each by its page of the vSphere Web Services API reference: tasks that take time, names
that are unique in a folder, links only to a snapshot, faults by power state and for want of room. What is not: no
clusters beyond one, no storage policies, no events, no performance counters.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, BinaryIO

from lab import errors
from lab.esxi import wire
from lab.esxi.collector import Session, View, Watcher
from lab.esxi.files import Folder
from lab.esxi.leases import Leases
from lab.esxi.things import CORE_MHZ, Things, unescaped
from lab.esxi.tracking import Tracking
from lab.esxi.wire import Call, vim, vmodl
from lab.http import LabServer, Request, Response
from lab.nouns import Machine, Power
from lab.world import World

COOKIE = "vmware_soap_session"
LINK = "createNewChildDiskBacking"
XML = {"Content-Type": "text/xml; charset=utf-8"}

SECONDS = {
    "VirtualMachine.clone": 6.0, "VirtualDiskManager.copyVirtualDisk": 20.0, "VirtualMachine.powerOn": 2.0,
    "VirtualMachine.destroy": 2.0, "VirtualMachine.suspend": 4.0, "Folder.createVm": 2.0,
}  # fmt: skip
"""How long tasks take; all others `OTHER_S`."""
OTHER_S = 1.0

PRIVILEGES = {
    "CloneVM_Task": "VirtualMachine.Provisioning.Clone", "CreateVM_Task": "VirtualMachine.Inventory.Create",
    "PowerOnVM_Task": "VirtualMachine.Interact.PowerOn", "PowerOffVM_Task": "VirtualMachine.Interact.PowerOff",
    "ShutdownGuest": "VirtualMachine.Interact.PowerOff", "ResetVM_Task": "VirtualMachine.Interact.Reset",
    "RebootGuest": "VirtualMachine.Interact.Reset", "SuspendVM_Task": "VirtualMachine.Interact.Suspend",
    "Destroy_Task": "VirtualMachine.Inventory.Delete", "UnregisterVM": "VirtualMachine.Inventory.Unregister",
    "ReconfigVM_Task": "VirtualMachine.Config.Settings", "Rename_Task": "VirtualMachine.Config.Rename",
    "CreateSnapshot_Task": "VirtualMachine.State.CreateSnapshot",
    "RevertToSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",
    "RemoveSnapshot_Task": "VirtualMachine.State.RemoveSnapshot",
    "ImportVApp": "VApp.Import", "ExportSnapshot": "VApp.Export", "ExportVm": "VApp.Export",
    "QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
    "MarkAsTemplate": "VirtualMachine.Provisioning.MarkAsTemplate",
}  # fmt: skip
ONLY_VCENTER = {"CloneVM_Task", "MarkAsTemplate", "InstantClone_Task"}


class EsxiServer(LabServer):
    """A vCenter, or with `is_esxi` a stand-alone host."""

    server_header = "VMware rhttpproxy"

    def __init__(
        self,
        world: World,
        address: str = "127.0.0.2",
        port: int = 0,
        *,
        user: str = "administrator@vsphere.local",
        password: str = "",
        is_esxi: bool = False,
        tls: bool = True,
        certificate_folder: Path | None = None,
    ) -> None:
        super().__init__(world, address, port, tls=tls, certificate_folder=certificate_folder)
        self.user, self.password, self.is_esxi = user, password, is_esxi
        self.knows_keyed_paths = True
        """Whether `config.extraConfig["key"]` is understood."""
        self.reserves_names = True
        """Whether a name is taken from the moment a clone begins, or only once it is made."""
        self.unreadable: set[str] = set()
        """Ids of objects whose properties the account may not read."""
        self.page = 0
        """At most so many objects in an answer, if not 0."""
        self.quiesces = True
        """Whether guests hold still when they are asked to."""
        self.leaves_deltas = False
        """Whether a snapshot that is removed leaves its disks behind, as when somebody reads them meanwhile."""
        self.logins = 0
        with world:
            self.things = Things(world, is_esxi=is_esxi)
        self.things.leases = self.leases = Leases(self)
        self.things.tracking = self.tracking = Tracking(self)
        self.folder = Folder(self)
        self._sessions: dict[str, Session] = {}
        self._reserved: dict[tuple[str, str], str] = {}
        """(folder, name) -> the clone that will have it."""
        self._busy: dict[str, str] = {}
        """Machine -> the task that has it to itself."""

    # --- requests -----------------------------------------------------------------------------------------------------

    def label(self, request: Request) -> str:
        return wire.method_of(request.body) or f"{request.method} {request.path}"

    def expire_sessions(self) -> None:
        with self.world:
            for key in self._sessions:
                self.leases.end_of_session(key)
            self._sessions.clear()

    def cut_off(self) -> None:
        self.leases.close()
        super().cut_off()

    def place_for(self, method: str, path: str) -> BinaryIO | None:
        return self.leases.place_for(method, path) if path.startswith("/nfc/") else None

    def handle(self, request: Request) -> Response:
        if request.path.startswith("/folder/") and request.method in ("GET", "HEAD"):
            return self.folder.handle(request)
        if request.path.startswith("/nfc/") and self.is_esxi:
            return self.leases.handle(request)
        if request.path.rstrip("/") != "/sdk":
            return Response(404, b"", {"Content-Type": "text/html"})
        headers = dict(XML)
        try:
            call = wire.read(request.body)
            with self.world:
                result = self._carry_out(call, request, headers)
                return Response(200, wire.answer(call, result), headers)
        except wire.BadRequest as error:
            return _refused(vmodl.fault.InvalidRequest(), str(error))
        except vmodl.MethodFault as fault:
            return _refused(fault, f"{type(fault).__name__.rpartition('.')[2]} in the lab")

    def _carry_out(self, call: Call, request: Request, headers: dict[str, str]) -> Any:
        session = self.session_of(request)
        if call.method in ("RetrieveServiceContent", "CurrentTime", "Login"):
            return self._login(call, headers) if call.method == "Login" else self._content()
        if session is None:
            raise vim.fault.NotAuthenticated(object=call.this, privilegeId="System.View")
        self._require_right(call)
        if self.is_esxi and call.method in ONLY_VCENTER:
            raise vmodl.fault.NotSupported()
        doers = (self, self.leases, self.tracking)
        carry_out = next((found for one in doers if (found := getattr(one, f"_do_{call.method}", None))), None)
        if carry_out is None:
            raise vmodl.fault.MethodNotFound(receiver=call.this, method=call.method)
        try:
            return carry_out(session, call.this, **call.arguments)
        except errors.WorldError as error:
            raise self.fault_of(error) from None

    def session_of(self, request: Request) -> Session | None:
        morsel = SimpleCookie(request.headers.get("Cookie") or "").get(COOKIE)
        return self._sessions.get(morsel.value) if morsel else None

    def _login(self, call: Call, headers: dict[str, str]) -> Any:
        self.logins += 1
        told = (call.arguments["userName"], call.arguments["password"])
        if not all(
            secrets.compare_digest(str(a).encode(), b.encode())
            for a, b in zip(told, (self.user, self.password), strict=True)
        ):
            raise vim.fault.InvalidLogin()
        session = Session(secrets.token_hex(20))
        self._sessions[session.key] = session
        headers["Set-Cookie"] = f'{COOKIE}="{session.key}"; Path=/; HttpOnly; Secure; SameSite=Strict'
        return None

    def _require_right(self, call: Call) -> None:
        wanted = PRIVILEGES.get(call.method, "")
        if wanted in self.world.forbidden:
            raise vim.fault.NoPermission(object=call.this, privilegeId=wanted)

    def _hidden(self, thing: Any) -> bool:
        if thing._moId in self.unreadable:
            return True
        machine = self.things.machine(thing._moId) if isinstance(thing, vim.VirtualMachine) else None
        return machine is not None and self.faults.take(machine.name, "partial_inventory") is not None

    def fault_of(self, error: Exception) -> Any:
        """A fault of the world in vSphere's words."""
        match error:
            case vmodl.MethodFault():
                return error
            case errors.OutOfStorage():
                return vim.fault.NoDiskSpace(datastore=str(error), file="")
            case errors.OutOfMemory():
                return vim.fault.InsufficientMemoryResourcesFault(unreserved=wire.long(0), requested=wire.long(1))
            case errors.HostDown():
                return vim.fault.HostNotConnected()
            case errors.WrongState():
                return vim.fault.InvalidPowerState(existingState="poweredOn")
            case errors.InUse():
                return vim.fault.ResourceInUse(type="VirtualDisk", name=str(error))
            case errors.GuestSilent():
                return vim.fault.ToolsUnavailable()
            case errors.NoSuch():
                return vim.fault.NotFound()
            case _:
                return vmodl.fault.SystemError(reason=str(error))

    # --- service, rights, views, properties --------------------------------------------------------------------------

    def _content(self) -> Any:
        def ref(kind: str, vcenter: str, esxi: str = "") -> Any:
            managers = {
                "SessionManager": vim.SessionManager, "PropertyCollector": vmodl.query.PropertyCollector,
                "ViewManager": vim.view.ViewManager, "SearchIndex": vim.SearchIndex, "TaskManager": vim.TaskManager,
                "AuthorizationManager": vim.AuthorizationManager, "FileManager": vim.FileManager,
                "VirtualDiskManager": vim.VirtualDiskManager, "OptionManager": vim.option.OptionManager,
            }  # fmt: skip
            return managers[kind](esxi or f"ha-{kind.lower()}" if self.is_esxi else vcenter)

        return vim.ServiceInstanceContent(
            rootFolder=vim.Folder(self.things.root),
            propertyCollector=ref("PropertyCollector", "propertyCollector"),
            viewManager=ref("ViewManager", "ViewManager"),
            sessionManager=ref("SessionManager", "SessionManager"),
            authorizationManager=ref("AuthorizationManager", "AuthorizationManager"),
            searchIndex=ref("SearchIndex", "SearchIndex"),
            taskManager=ref("TaskManager", "TaskManager"),
            fileManager=ref("FileManager", "FileManager"),
            virtualDiskManager=ref("VirtualDiskManager", "virtualDiskManager"),
            about=vim.AboutInfo(
                name="VMware ESXi (lab)" if self.is_esxi else "VMware vCenter Server (lab)", vendor="lab",
                fullName="lab", version="8.0.3", build="1", osType="linux", productLineId="vpx", apiVersion="8.0.3.0",
                apiType="HostAgent" if self.is_esxi else "VirtualCenter",
            ),
        )  # fmt: skip

    def _do_Logout(self, session: Session, this: Any) -> None:
        self._sessions.pop(session.key, None)
        self.leases.end_of_session(session.key)

    def _do_HasPrivilegeOnEntities(
        self, session: Session, this: Any, entity: list[Any], sessionId: str, privId: list[str] | None
    ) -> Any:
        availability = [
            vim.AuthorizationManager.PrivilegeAvailability(privId=one, isGranted=one not in self.world.forbidden)
            for one in privId or ()
        ]
        return [vim.AuthorizationManager.EntityPrivilege(entity=one, privAvailability=availability) for one in entity]

    def _do_CreateContainerView(
        self, session: Session, this: Any, container: Any, type: list[Any] | None, recursive: bool
    ) -> Any:
        id = f"session[{session.key[:8]}]{next(session.numbers)}"
        session.views[id] = View(list(type or ()) or [vim.ManagedEntity])
        return vim.view.ContainerView(id)

    def _do_DestroyView(self, session: Session, this: Any) -> None:
        session.views.pop(this._moId, None)

    def _do_RetrievePropertiesEx(self, session: Session, this: Any, specSet: list[Any], options: Any) -> Any:
        self._require_paths(specSet)
        return session.retrieve(self.things, specSet, self._size(options.maxObjects), self._hidden)

    def _do_ContinueRetrievePropertiesEx(self, session: Session, this: Any, token: str) -> Any:
        return session.go_on(self.things, token, self._hidden)

    def _size(self, wanted: int | None) -> int:
        return min(wanted or self.page, self.page) if self.page else (wanted or 0)

    def _require_paths(self, spec_set: list[Any]) -> None:
        if self.knows_keyed_paths:
            return
        for path in (path for spec in spec_set for props in spec.propSet for path in props.pathSet):
            if "[" in path:
                raise vmodl.query.InvalidProperty(name=path)

    def _do_CreatePropertyCollector(self, session: Session, this: Any) -> Any:
        id = f"session[{session.key[:8]}]{next(session.numbers)}"
        session.watchers[id] = Watcher(session)
        return vmodl.query.PropertyCollector(id)

    def _do_CreateFilter(self, session: Session, this: Any, spec: Any, partialUpdates: bool) -> Any:
        self._require_paths([spec])
        session.chosen(self.things, spec.objectSet)
        session.watchers[this._moId].spec = spec
        return vmodl.query.PropertyCollector.Filter(f"{this._moId}-filter")

    def _do_WaitForUpdatesEx(self, session: Session, this: Any, version: str | None, options: Any) -> Any:
        watcher = session.watchers.get(this._moId)
        if watcher is None or watcher.spec is None:
            raise vmodl.fault.ManagedObjectNotFound(obj=this)
        size = self._size(options.maxObjectUpdates if options else None)
        return watcher.wait(self.things, version or "", size, self._hidden)

    def _do_FindByUuid(
        self, session: Session, this: Any, datacenter: Any, uuid: str, vmSearch: bool, instanceUuid: bool | None
    ) -> Any:
        machine = self.world.machines.get(uuid.lower())
        return self.things.vm(machine) if machine and machine.folder not in self.world.hidden else None

    def _do_FindChild(self, session: Session, this: Any, entity: Any, name: str) -> Any:
        found = (one for one in self.things.in_folder(entity._moId) if one.name == unescaped(name))
        machine = next(found, None)
        return self.things.vm(machine) if machine else None

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _task(self, kind: str, subject: str, act: Callable[[], Any], *, holds: bool = True) -> Any:
        """With `holds` nothing else may be done to the machine meanwhile."""
        machine = self.world.machines.get(subject)
        if holds and machine is not None and machine.marks.get("leased"):
            raise vim.fault.MethodDisabled(source="HttpNfcLease")
        if holds and (there := self.world.tasks.get(self._busy.get(subject, ""))) and there.ended_at is None:
            raise vim.fault.TaskInProgress(task=vim.Task(f"task-{there.id}"))

        def do() -> Any:
            try:
                return act()
            except errors.WorldError as error:
                raise self.fault_of(error) from None

        task = self.world.start_task(kind, subject, SECONDS.get(kind, OTHER_S), do)
        if holds:
            self._busy[subject] = task.id
        return vim.Task(f"task-{task.id}")

    def _do_CancelTask(self, session: Session, this: Any) -> None:
        self.world.cancel_task(this._moId.removeprefix("task-"))

    def _here(self, this: Any) -> Machine:
        machine = self.things.machine(this._moId)
        if machine is None:
            raise vmodl.fault.ManagedObjectNotFound(obj=this)
        return machine

    # --- power --------------------------------------------------------------------------------------------------------

    def require_off(self, machine: Machine) -> None:
        if machine.power is not Power.OFF:
            raise vim.fault.InvalidPowerState(requestedState="poweredOff", existingState="poweredOn")

    def _power(self, this: Any, kind: str, allowed: tuple[Power, ...], wanted: str, act: Callable[[str], None]) -> Any:
        machine = self._here(this)
        if machine.is_template:
            raise vmodl.fault.NotSupported()

        def do() -> None:
            if machine.power not in allowed:
                existing = {Power.ON: "poweredOn", Power.SUSPENDED: "suspended"}.get(machine.power, "poweredOff")
                raise vim.fault.InvalidPowerState(requestedState=wanted, existingState=existing)
            act(machine.id)

        return self._task(kind, machine.id, do)

    def _do_PowerOnVM_Task(self, session: Session, this: Any, host: Any) -> Any:
        allowed = (Power.OFF, Power.SUSPENDED)

        def act(id: str) -> None:
            self.world.power_on(id)
            machine = self.world.machines[id]
            self.tracking.opened(machine, had_snapshots=bool(machine.snapshots))

        return self._power(this, "VirtualMachine.powerOn", allowed, "poweredOn", act)

    def _do_PowerOffVM_Task(self, session: Session, this: Any) -> Any:
        allowed = (Power.ON, Power.SUSPENDED)
        return self._power(this, "VirtualMachine.powerOff", allowed, "poweredOff", self.world.power_off)

    def _do_SuspendVM_Task(self, session: Session, this: Any) -> Any:
        return self._power(this, "VirtualMachine.suspend", (Power.ON,), "suspended", self.world.suspend)

    def _do_ResetVM_Task(self, session: Session, this: Any) -> Any:
        return self._power(this, "VirtualMachine.reset", (Power.ON,), "poweredOn", self.world.reset)

    def _do_ShutdownGuest(self, session: Session, this: Any) -> None:
        self.world.shutdown_guest(self._here(this).id, needs_agent=True)

    def _do_RebootGuest(self, session: Session, this: Any) -> None:
        self.world.reboot_guest(self._here(this).id, needs_agent=True)

    # --- making machines ----------------------------------------------------------------------------------------------

    def _do_MarkAsTemplate(self, session: Session, this: Any) -> None:
        machine = self._here(this)
        if machine.is_template:
            raise vmodl.fault.NotSupported()
        self.require_off(machine)
        machine.is_template = True
        self.world.touch(machine)

    def _do_CloneVM_Task(self, session: Session, this: Any, folder: Any, name: str, spec: Any) -> Any:
        source, name = self._here(this), unescaped(name)
        if not self.things.folder_named(folder._moId) and folder._moId != self.things.vm_folder:
            raise vmodl.fault.ManagedObjectNotFound(obj=folder)
        if not 0 < len(name) <= 80:
            raise vim.fault.InvalidName(name=name)
        if source.is_template and spec.location.pool is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="spec.location.pool")
        is_link = spec.location.diskMoveType == LINK
        if is_link and spec.snapshot is None:
            raise vmodl.fault.InvalidArgument(invalidProperty="spec.snapshot")
        snapshot = spec.snapshot._moId.removeprefix("snapshot-") if spec.snapshot else None
        if snapshot and snapshot not in source.snapshots:
            raise vmodl.fault.ManagedObjectNotFound(obj=spec.snapshot)
        place = (folder._moId, name)
        holder = self.world.tasks.get(self._reserved.get(place, ""))
        is_taken = holder is not None and holder.ended_at is None

        def do() -> Any:
            self._require_free(place, is_taken)
            return self.things.vm(self._cloned(source, place, spec, is_link=is_link, snapshot=snapshot))

        task = self._task("VirtualMachine.clone", source.id, do, holds=False)
        if self.reserves_names and not is_taken:
            self._reserved[place] = task._moId.removeprefix("task-")
        return task

    def _require_free(self, place: tuple[str, str], is_taken: bool) -> None:
        folder, name = place
        holder = next((one for one in self.things.in_folder(folder) if one.name == name), None)
        if holder is not None or is_taken:
            thing = self.things.vm(holder) if holder else vim.VirtualMachine("vm-0")
            raise vim.fault.DuplicateName(name=name, object=thing)

    def _cloned(
        self, source: Machine, place: tuple[str, str], spec: Any, *, is_link: bool, snapshot: str | None
    ) -> Machine:
        config, location = spec.config, spec.location
        wanted = str(config.instanceUuid or "").lower() if config else ""
        if wanted in self.world.machines:
            wanted = ""  # vCenter gives another one where uuids would be double
        machine = self.world.clone(
            source.id,
            name=place[1],
            linked=is_link,
            host=location.host._moId if location.host else None,
            storage=location.datastore._moId if location.datastore else None,
            vcpus=config.numCPUs if config else None,
            memory_mib=config.memoryMB if config else None,
            folder=self.things.folder_named(place[0]),
            id=wanted,
            snapshot=snapshot,
        )
        machine.marks["extraConfig"] = dict(source.marks.get("extraConfig", {}))
        self.things.name_files(machine)
        if config:
            self._configure(machine, config)
        self._seed(machine, spec.customization)
        return machine

    def _seed(self, machine: Machine, customization: Any) -> None:
        told = machine.marks.get("extraConfig", {})
        seed = machine.guest.seed
        if metadata := told.get("guestinfo.metadata"):
            document = json.loads(base64.b64decode(metadata))
            seed["hostname"], seed["instance"] = document["local-hostname"], document["instance-id"]
            seed["user_data"] = base64.b64decode(told.get("guestinfo.userdata", "")).decode()
        if customization is not None:
            seed["answer_file"] = str(customization.identity.value)

    def _do_CreateVM_Task(self, session: Session, this: Any, config: Any, pool: Any, host: Any) -> Any:
        name = unescaped(config.name)

        def do() -> Any:
            self._require_free((this._moId, name), False)
            store, folder = _split(config.files.vmPathName)
            if store not in {one.name for one in self.world.storages.values()}:
                raise vim.fault.InvalidDatastorePath(datastorePath=config.files.vmPathName)
            if any(one.marks.get("vmx") == config.files.vmPathName for one in self.world.machines.values()):
                raise vim.fault.AlreadyExists(name=config.files.vmPathName)
            disks = [
                self._disk_for(change.device.backing, change)
                for change in config.deviceChange
                if isinstance(change.device, vim.vm.device.VirtualDisk)
            ]
            machine = self._entered(config, this._moId, host, disks)
            machine.marks |= {"home": f"[{store}] {folder}", "vmx": config.files.vmPathName}
            return self._shaped(machine, config)

        return self._task("Folder.createVm", "", do, holds=False)

    def made(self, config: Any, folder: str, host: Any) -> Machine:
        """A machine of an import: its disks are new, in a folder that bears its name."""
        name = unescaped(config.name)
        self._require_free((folder, name), False)
        store = self.things.store_named(_split(f"{config.files.vmPathName} /")[0].removesuffix("]"))
        if not store:
            raise vim.fault.InvalidDatastorePath(datastorePath=config.files.vmPathName)
        wanted = [one.device for one in config.deviceChange if isinstance(one.device, vim.vm.device.VirtualDisk)]
        disks = [
            self.world.new_disk(store, capacity=device.capacityInBytes or device.capacityInKB * 1024).id
            for device in wanted
        ]
        try:
            machine = self._entered(config, folder, host, disks)
            self._shaped(machine, config)
        except vmodl.MethodFault:
            for disk in disks:
                self.world.erase_disk(disk)
            raise
        return machine

    def _entered(self, config: Any, folder: str, host: Any, disks: list[str]) -> Machine:
        cards = [one.device for one in config.deviceChange if isinstance(one.device, vim.vm.device.VirtualEthernetCard)]
        for card in cards:
            self._network_for(card)
        machine = self.world.create(
            unescaped(config.name), vcpus=config.numCPUs, memory_mib=int(config.memoryMB), networks=(),
            host=host._moId if host else None, folder=self.things.folder_named(folder),
            id=str(config.instanceUuid or "").lower() if config.instanceUuid not in self.world.machines else "",
        )  # fmt: skip
        machine.disks = disks
        return machine

    def _shaped(self, machine: Machine, config: Any) -> Any:
        for mark in ("guestId", "version", "firmware"):
            machine.marks[mark] = getattr(config, mark) or machine.marks.get(mark, "")
        machine.marks["firmware"] = machine.marks["firmware"] or "bios"
        machine.marks["secure"] = bool(config.bootOptions and config.bootOptions.efiSecureBootEnabled)
        machine.marks["hung"] = self._hung(config)
        self.things.name_files(machine)
        self._configure(machine, config)
        self._seed(machine, None)
        return self.things.vm(machine)

    def _hung(self, config: Any) -> list[list[Any]]:
        """What the new machine's disks hang on. IDE controllers are there anyway."""
        there = {200: ("VirtualIDEController", 0), 201: ("VirtualIDEController", 1)}
        for change in config.deviceChange:
            if isinstance(change.device, vim.vm.device.VirtualController):
                there[change.device.key] = (wire.wsdl_name(type(change.device)), int(change.device.busNumber))
        hung = []
        for index, change in enumerate(config.deviceChange):
            if isinstance(change.device, vim.vm.device.VirtualDisk):
                if change.device.controllerKey not in there:
                    raise vim.fault.InvalidDeviceSpec(property="controllerKey", deviceIndex=index)
                hung.append([*there[change.device.controllerKey], int(change.device.unitNumber)])
        if len({tuple(one) for one in hung}) < len(hung):
            raise vim.fault.InvalidDeviceSpec(property="unitNumber", deviceIndex=0)
        return hung

    def _disk_for(self, backing: Any, change: Any) -> str:
        """The disk of a machine that is being made: new (perhaps hanging from a parent), or one that lies there."""
        there = self.things.disk_at(backing.fileName)
        if change.fileOperation != "create":
            if there is None:
                raise vim.fault.FileNotFound(file=backing.fileName)
            return there
        if there is not None:
            raise vim.fault.FileAlreadyExists(file=backing.fileName)
        parent = self.things.disk_at(backing.parent.fileName) if backing.parent else None
        if backing.parent and parent is None:
            raise vim.fault.FileNotFound(file=backing.parent.fileName)
        store = self.things.store_named(_split(backing.fileName)[0])
        if parent:
            disk = self.world.copy_disk(parent, linked=True, storage=store)
        else:
            disk = self.world.new_disk(
                store, capacity=change.device.capacityInBytes or change.device.capacityInKB * 1024
            )
        self.things.files[disk.id] = backing.fileName
        return disk.id

    # --- changing machines --------------------------------------------------------------------------------------------

    def _do_ReconfigVM_Task(self, session: Session, this: Any, spec: Any) -> Any:
        machine = self._here(this)

        def do() -> None:
            if machine.power is not Power.OFF and (spec.numCPUs or spec.memoryMB) and not machine.marks.get("hot"):
                raise vim.fault.InvalidPowerState(requestedState="poweredOff", existingState="poweredOn")
            machine.vcpus = spec.numCPUs or machine.vcpus
            machine.memory_mib = int(spec.memoryMB or machine.memory_mib)
            if spec.name and unescaped(spec.name) != machine.name:
                self._require_free((self.things.folder_id(machine), unescaped(spec.name)), False)
                machine.name = unescaped(spec.name)
            self.tracking.configure(machine, spec.changeTrackingEnabled)
            self._configure(machine, spec)
            self.world.touch(machine)

        return self._task("VirtualMachine.reconfigure", machine.id, do)

    def _configure(self, machine: Machine, spec: Any) -> None:
        entries = machine.marks.setdefault("extraConfig", {})
        for option in spec.extraConfig:
            if option.value == "":
                entries.pop(option.key, None)
            else:
                entries[option.key] = option.value
        for field, mark in (("cpuAllocation", "cpu"), ("memoryAllocation", "memory")):
            if (wanted := getattr(spec, field)) is not None:
                self._require_share(machine, mark, wanted)
                machine.marks[mark] = {
                    "level": str(wanted.shares.level), "shares": int(wanted.shares.shares),
                    "reservation": int(wanted.reservation or 0), "limit": int(wanted.limit or -1),
                }  # fmt: skip
        cards = [change for change in spec.deviceChange if isinstance(change.device, vim.vm.device.VirtualEthernetCard)]
        for change in cards:
            network = self._network_for(change.device)
            if change.operation == "edit":
                machine.nics[change.device.key - 4000].network = network
                continue
            nic = self.world.new_nic(network)
            if change.device.addressType in ("manual", "assigned"):
                nic.mac = change.device.macAddress
            nic.is_connected = change.device.connectable is None or change.device.connectable.startConnected
            kind = wire.wsdl_name(type(change.device))
            machine.marks.setdefault("cards", {})[str(len(machine.nics))] = kind
            machine.nics.append(nic)

    def _network_for(self, card: Any) -> str:
        network = self.things.network_of(card.backing)
        if network not in self.world.networks:
            raise vim.fault.InvalidDeviceBacking(property="backing", deviceIndex=0)
        return network

    def _require_share(self, machine: Machine, mark: str, wanted: Any) -> None:
        host = self.world.hosts[machine.host]
        room = host.vcpus * CORE_MHZ if mark == "cpu" else host.memory_mib
        if int(wanted.reservation or 0) > room:
            raise vim.fault.InsufficientCpuResourcesFault(unreserved=wire.long(room), requested=wanted.reservation)

    def _do_Rename_Task(self, session: Session, this: Any, newName: str) -> Any:
        machine = self._here(this)

        def do() -> None:
            self._require_free((self.things.folder_id(machine), unescaped(newName)), False)
            machine.name = unescaped(newName)
            self.world.touch(machine)

        return self._task("VirtualMachine.rename", machine.id, do)

    def _do_Destroy_Task(self, session: Session, this: Any) -> Any:
        machine = self._here(this)

        def do() -> None:
            if machine.power is not Power.OFF:
                raise vim.fault.InvalidPowerState(requestedState="poweredOff", existingState="poweredOn")
            self.world.delete(machine.id)

        return self._task("VirtualMachine.destroy", machine.id, do)

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def _do_CreateSnapshot_Task(
        self, session: Session, this: Any, name: str, description: str | None, memory: bool, quiesce: bool
    ) -> Any:
        machine = self._here(this)
        if machine.is_template:
            raise vmodl.fault.NotSupported()

        def do() -> Any:
            if quiesce and not memory and machine.power is Power.ON and not self.quiesces:
                raise vim.fault.ApplicationQuiesceFault()
            self.things.name_files(machine)
            had_snapshots = bool(machine.snapshots)
            point = self.world.take_snapshot(machine.id, unescaped(name), description or "")
            kept: dict[str, Any] = {key: machine.marks[key] for key in ("cpu", "memory") if key in machine.marks}
            kept["extraConfig"] = dict(machine.marks.get("extraConfig", {}))
            kept |= {"cbt": machine.marks.get("cbt"), "quiesced": quiesce}
            machine.marks.setdefault("points", {})[point.id] = kept
            self.tracking.opened(machine, had_snapshots=had_snapshots)
            self.things.name_files(machine)
            return vim.vm.Snapshot(f"snapshot-{point.id}")

        return self._task("VirtualMachine.createSnapshot", machine.id, do)

    def _pointed(self, this: Any) -> tuple[Machine, str]:
        found = self.things.owner_of(this._moId)
        if found is None:
            raise vmodl.fault.ManagedObjectNotFound(obj=this)
        return found

    def _do_RevertToSnapshot_Task(self, session: Session, this: Any, host: Any, suppressPowerOn: bool | None) -> Any:
        machine, point = self._pointed(this)

        def do() -> None:
            self.world.revert(machine.id, point)
            kept = machine.marks.get("points", {}).get(point, {})
            machine.marks |= {key: dict(kept[key]) for key in ("cpu", "memory", "extraConfig") if key in kept}
            self.things.name_files(machine)

        return self._task("VirtualMachine.revertToSnapshot", machine.id, do)

    def _do_RemoveSnapshot_Task(
        self, session: Session, this: Any, removeChildren: bool, consolidate: bool | None
    ) -> Any:
        machine, point = self._pointed(this)

        def do() -> None:
            if self.leaves_deltas:
                machine.marks.setdefault("unmerged", []).append(point)
                self.world.touch(machine)
                return
            self.world.delete_snapshot(machine.id, point)
            self.tracking.opened(machine, had_snapshots=bool(machine.snapshots))

        return self._task("VirtualMachine.removeSnapshot", machine.id, do)

    def _do_ConsolidateVMDisks_Task(self, session: Session, this: Any) -> Any:
        machine = self._here(this)

        def do() -> None:
            for point in machine.marks.pop("unmerged", ()):
                self.world.delete_snapshot(machine.id, point)

        return self._task("VirtualMachine.consolidateDisks", machine.id, do)

    # --- files, for stand-alone hosts ---------------------------------------------------------------------------------

    def _do_UnregisterVM(self, session: Session, this: Any) -> None:
        machine = self._here(this)
        if machine.power is not Power.OFF:
            raise vim.fault.InvalidPowerState(requestedState="poweredOff", existingState="poweredOn")
        self.things.name_files(machine)
        self.things.folders.add(self.things.home(machine))
        self.world.delete(machine.id, keep_disks=True)

    def _do_MakeDirectory(
        self, session: Session, this: Any, name: str, datacenter: Any, createParentDirectories: bool | None
    ) -> None:
        if name in self.things.folders or self.things.disks_under(name):
            raise vim.fault.FileAlreadyExists(file=name)
        if not self.things.store_named(_split(name + "/")[0]):
            raise vim.fault.InvalidDatastorePath(datastorePath=name)
        self.things.folders.add(name)

    def _do_DeleteDatastoreFile_Task(self, session: Session, this: Any, name: str, datacenter: Any) -> Any:
        def do() -> None:
            disks = self.things.disks_under(name)
            if name not in self.things.folders and not disks:
                raise vim.fault.FileNotFound(file=name)
            for disk in disks:
                self.world.erase_disk(disk)
                self.things.files.pop(disk, None)
            self.things.folders.discard(name)

        return self._task("FileManager.deleteFile", "", do, holds=False)

    def _do_CopyVirtualDisk_Task(
        self,
        session: Session,
        this: Any,
        sourceName: str,
        sourceDatacenter: Any,
        destName: str,
        destDatacenter: Any,
        destSpec: Any,
        force: bool | None,
    ) -> Any:
        source = self.things.disk_at(sourceName)
        if source is None:
            raise vim.fault.FileNotFound(file=sourceName)

        def do() -> None:
            store, folder = _split(destName)
            if f"[{store}] {folder}" not in self.things.folders:
                raise vim.fault.FileNotFound(file=destName)
            if self.things.disk_at(destName):
                raise vim.fault.FileAlreadyExists(file=destName)
            disk = self.world.copy_disk(source, linked=False, storage=self.things.store_named(store))
            self.things.files[disk.id] = destName

        return self._task("VirtualDiskManager.copyVirtualDisk", "", do, holds=False)


def _split(file: str) -> tuple[str, str]:
    """Datastore and folder of "[datastore] folder/name"."""
    store, _, path = file.partition("] ")
    return store.removeprefix("["), path.rpartition("/")[0]


def _refused(fault: Any, words: str) -> Response:
    return Response(500, wire.fault(fault, words), dict(XML))
