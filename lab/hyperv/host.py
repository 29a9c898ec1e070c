"""What Hyper-V does when our scripts ask it: the cmdlets' effects on a world, host by host.

Answers have the shape that the scripts' first line stands for (inventory 1, orders 1). Errors are those of Hyper-V's
cmdlets, with a FullyQualifiedErrorId and an HRESULT; their messages are German, for nobody may rely on them.
"""

from __future__ import annotations

import json
import ntpath
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from lab.errors import Forbidden, InUse, NoSuch, WorldError
from lab.hyperv import mirrors
from lab.hyperv.errands import Errands
from lab.hyperv.words import COMMANDS, Thrown, fault_of
from lab.nouns import Machine, Nic, Power, Task, TaskState
from lab.world import World

Told = dict[str, Any]

STATES = {Power.ON: "Running", Power.OFF: "Off", Power.SUSPENDED: "Saved", Power.PAUSED: "Paused"}


class NotHere(Exception):
    """The machine, or ("template") the template is not on this node."""


class StillBusy(Exception):
    """A step that takes its time: its name, and how far it is."""

    def __init__(self, step: str, percent: int | None = None, *, asked: bool | None = None) -> None:
        super().__init__(step)
        self.step = step
        self.percent = percent
        self.asked = asked


@dataclass
class Estate:
    """What all nodes share: the world, files that are no machine's yet, and how long things take (virtual seconds)."""

    world: World
    cluster: str = ""
    copy_s: float = 20.0
    merge_s: float = 10.0
    locked_s: float = 0.0
    """How long a machine's files stay locked after it has gone."""
    files: dict[str, str] = field(default_factory=dict)
    """Path -> disk; "" for a file that is none."""
    copies: dict[str, Task] = field(default_factory=dict)
    """Key of an order -> the scheduled task that copies its disks."""
    locked_until: dict[str, float] = field(default_factory=dict)
    homes: set[str] = field(default_factory=set)
    """Folders of machines in the making, empty ones too."""
    turns: set[tuple[str, str]] = field(default_factory=set)
    """Host and key of each order that a script works on now: a mutex is its host's alone."""
    guard: threading.Lock = field(default_factory=threading.Lock)

    def path_of(self, machine: Machine, disk: str) -> str:
        """Templates were put there by hand, checkpoints make files of their own."""
        paths: dict[str, str] = machine.marks.setdefault("paths", {})
        if disk not in paths:
            storage = self.world.disks[disk].storage.rstrip("\\")
            is_ours = bool(machine.marks.get("home"))
            folder = machine.marks["home"] if is_ours else f"{storage}\\Images"
            ending = f"_{disk}.avhdx" if is_ours or machine.snapshots else ".vhdx"
            number = next(it for it in count() if f"{folder}\\{machine.name}{it or ''}{ending}" not in paths.values())
            paths[disk] = f"{folder}\\{machine.name}{number or ''}{ending}"
        return paths[disk]

    def disk_at(self, path: str) -> str:
        """The disk in that file: a machine's, a checkpoint's, or nobody's yet. Raises `NoSuch`."""
        if disk := self.files.get(path):
            return disk
        for machine in self.world.machines.values():
            frozen = (disk for point in machine.snapshots.values() for disk in point.disks)
            for disk in (*machine.disks, *frozen):
                if self.path_of(machine, disk) == path:
                    return disk
        raise NoSuch(path)

    def home_files(self, key: str) -> list[str]:
        return [path for path in self.files if f"\\{key}\\" in path]

    def litter(self) -> set[str]:
        """All files in machines' own folders, and the scheduled tasks."""
        kept = {
            self.path_of(machine, disk)
            for machine in self.world.machines.values()
            if machine.marks.get("home")
            for disk in machine.disks
        }
        return kept | set(self.files) | self.homes | {f"task:{key}" for key in self.copies}


@dataclass
class HypervHost:
    """One host: what `Get-VM` and the rest do there."""

    estate: Estate
    id: str
    version: str = "10.0.17763"
    is_without_rights_empty: bool = True
    """Without rights Get-VM lists nothing and says nothing; else it fails."""
    tells_changes: bool = True
    """Whether reference points hold what changes are counted from; on some releases they come empty."""
    partners: dict[str, HypervHost] = field(default_factory=dict)
    """Other hosts by their names, with which it keeps replicas."""
    errands: Errands = field(init=False)
    jobs: dict[tuple[str, str], tuple[str, str, str, Task]] = field(default_factory=dict)
    """Machine and installation's tag -> what the service was asked for it last: what, key, name, task."""

    def __post_init__(self) -> None:
        self.errands = Errands(self)

    @property
    def world(self) -> World:
        return self.estate.world

    # --- inventory 1 --------------------------------------------------------------------------------------------------

    def inventory(self, parameters: Told, account: str, *, is_admin: bool) -> Told:
        world = self.world
        with world:
            host = world.hosts[self.id]
            rule = world.faults.take(f"inventory {self.id}", "partial_inventory")
            machines = [self._machine(it) for it in self._mine()] if parameters["with_machines"] and is_admin else []
            return {
                "rights": {"account": account, "admin": is_admin, "hyperv_admin": False},
                "host": {
                    "name": host.name,
                    "vcpus": host.vcpus,
                    "memory_mib": host.memory_mib,
                    "product": "Microsoft Windows Server 2019 Datacenter",
                    "version": self.version,
                },
                "cluster": self._cluster(),
                "machines": machines[1:] if rule else machines,
                "switches": [
                    {"name": it.name, "type": "Private" if it.is_isolated else "External"}
                    for it in world.networks.values()
                ],
                "volumes": [self._volume(it.id) for it in world.storages.values()],
                "faults": [f"a machine: OperationFailed,{COMMANDS}.GetVM"] if rule else [],
            }

    def _mine(self) -> Iterator[Machine]:
        """Get-VM lists only the machines of the node that is asked."""
        return (it for it in self.world.visible() if it.host == self.id)

    def _cluster(self) -> Told | None:
        if not self.estate.cluster:
            return None
        nodes = [{"name": it.name, "state": "Up" if it.is_up else "Down"} for it in self.world.hosts.values()]
        return {"name": self.estate.cluster, "nodes": nodes}

    def _volume(self, id: str) -> Told:
        storage = self.world.storages[id]
        return {
            "path": id,
            "label": storage.name,
            "size_mib": storage.capacity_mib,
            "free_mib": self.world.free_mib(id),
            "shared": id.startswith("C:\\ClusterStorage\\"),
        }

    def _machine(self, it: Machine) -> Told:
        notes = str(it.marks.get("notes", ""))
        may_be_template = it.power is Power.OFF and ('"installation"' not in notes or '"template"' in notes)
        return {
            "id": it.id,
            "name": it.name,
            "state": STATES[it.power],
            "heartbeat": self._heartbeat(it),
            "generation": it.marks.get("generation", 2),
            "vcpus": it.vcpus,
            "memory_mib": it.memory_mib,
            "notes": notes,
            "checkpoints": it.snapshot is not None,
            "disks": [self.estate.path_of(it, disk) for disk in it.disks],
            "disk_mib": [self.world.disks[disk].capacity_mib for disk in it.disks] if may_be_template else [],
            "nics": self._nics(it),
        }

    def switch_of(self, nic: Nic) -> str:
        return self.world.networks[nic.network].name if nic.is_connected else ""

    def _heartbeat(self, it: Machine) -> str:
        if it.power is not Power.ON:
            return ""
        return "OkApplicationsUnknown" if it.guest.is_up and it.guest.has_agent else "NoContact"

    def _nics(self, it: Machine) -> list[Told]:
        addresses = self.world.addresses(it)
        return [
            {
                "switch": self.switch_of(nic),
                "mac": nic.mac.replace(":", "").upper(),
                "addresses": [*addresses, "fe80::1"] if number == 0 and addresses else [],
            }
            for number, nic in enumerate(it.nics)
        ]

    # --- orders 1 -----------------------------------------------------------------------------------------------------

    def orders(self, parameters: Told, *, is_admin: bool, is_over: Callable[[], bool]) -> Told:
        """Raises `Thrown`. `is_over`: PowerShell has been ended; what was not begun is not done."""
        if not is_admin:
            raise Thrown("Deskyard.NoRights")
        answers = []
        for order in parameters["orders"]:
            if is_over():
                break
            answers.append(self._one(parameters, order))
        return {"host": self.world.hosts[self.id].name, "answers": answers}

    def _one(self, parameters: Told, order: Told) -> Told:
        key = str(order["key"])
        if float(parameters["budget_s"]) <= 0:
            return {"key": key, "state": "waiting"}
        turn = (self.id, key)
        with self.estate.guard:
            if turn in self.estate.turns:
                return {"key": key, "state": "running", "step": "another"}
            self.estate.turns.add(turn)
        try:
            with self.world:
                return {"key": key, "state": "done"} | self._carry_out(parameters, order)
        except NotHere as what:
            return {"key": key, "state": "absent"} | ({"what": str(what)} if str(what) else {})
        except StillBusy as step:
            told: Told = {"key": key, "state": "running", "step": step.step, "percent": step.percent}
            return told | ({"asked": step.asked} if step.asked is not None else {})
        except (Thrown, WorldError) as error:
            return {"key": key, "state": "failed", "fault": fault_of(error)}
        finally:
            with self.estate.guard:
                self.estate.turns.discard(turn)

    def _carry_out(self, parameters: Told, order: Told) -> Told:
        acts: Mapping[str, Callable[[Told, Told], Told]] = {
            "clone": self._clone,
            "recycle": self._recycle,
            "delete": self._delete,
            "power": self._power,
            "snapshot": self._snapshot,
            "revert": self._revert,
            "forget": self._forget,
            "resize": self._resize,
            "share": self._share,
            "screen": self._screen,
            "find": self._find,
            "describe": self._describe,
        }
        act = acts.get(str(order["op"]))
        if act is None:
            raise Thrown("Deskyard.UnknownOrder")
        self._require_allowed(str(order["op"]))
        return act(parameters, order)

    def _require_allowed(self, op: str) -> None:
        if op in self.world.forbidden:
            raise Forbidden(op)

    # --- whom an order means

    def here(self, id: str) -> Machine | None:
        machine = self.world.machines.get(id)
        return machine if machine is not None and machine.host == self.id else None

    def find_made(self, installation: str, key: str) -> Machine | None:
        for machine in self._mine():
            mark = mark_of(machine)
            if (mark.get("installation"), mark.get("key")) == (installation, key) or machine.name == f"deskyard-{key}":
                return machine
        return None

    def _meant(self, order: Told) -> Machine:
        machine = self.here(str(order["id"]))
        if machine is None:
            raise NotHere
        mark, stamp = mark_of(machine), order["stamp"] or {}
        if mark.get("stage") == "template":
            raise Thrown("Deskyard.IsTemplate")
        if (mark.get("installation"), mark.get("key")) != (stamp.get("installation"), stamp.get("key")):
            raise Thrown("Deskyard.WrongStamp")
        return machine

    def _master(self, id: str) -> Told | None:
        machine = self.here(id)
        if machine is None:
            return None
        mark = mark_of(machine)
        if mark.get("installation") and mark.get("stage") != "template":
            raise Thrown("Deskyard.TemplateIsDesktop")
        if machine.power is not Power.OFF:
            raise Thrown("Deskyard.TemplateOn")
        if machine.snapshot is not None:
            raise Thrown("Deskyard.TemplateHasCheckpoints")
        if not machine.disks:
            raise Thrown("Deskyard.TemplateHasNoDisk")
        if machine.marks.get("has_tpm"):
            raise Thrown("Deskyard.TemplateHasTpm")
        return {
            "generation": machine.marks.get("generation", 2),
            "vcpus": machine.vcpus,
            "memory_mib": machine.memory_mib,
            "disks": [
                {"path": self.estate.path_of(machine, disk), "bytes": self.world.disks[disk].used_mib << 20}
                for disk in machine.disks
            ],
            "networks": [{"switch": self.switch_of(nic), "vlan": 0} for nic in machine.nics],
            "secure": "On",
            "secure_template": "MicrosoftUEFICertificateAuthority",
        }

    # --- making

    def _clone(self, parameters: Told, order: Told) -> Told:
        key = str(order["key"])
        machine = self.find_made(parameters["installation"], key)
        try:
            if machine is None:
                master = self._master(order["template"]) or order["master"]
                if master is None:
                    raise NotHere
                machine = self._make(parameters, order, master)
            if order["power_on"]:
                self._start(machine)
        except (Thrown, WorldError):
            self.undo(parameters, key)
            raise
        return self._made(machine)

    def _make(self, parameters: Told, order: Told, master: Told) -> Machine:
        world, key = self.world, str(order["key"])
        home, storage = self._home(parameters, order, master, key)
        switches = [str(it["switch"]) for it in order["networks"] or master["networks"]]
        disks = self._disks(order, master, home, storage)
        networks = tuple(self.switch(name) for name in switches if name)
        machine = world.create(
            str(order["name"]),
            vcpus=int(order["vcpus"] or master["vcpus"]),
            memory_mib=int(order["memory_mib"] or master["memory_mib"]),
            host=self.id,
            networks=networks,
        )
        machine.disks = [disk for _, disk in disks]
        machine.marks |= {
            "paths": {disk: path for path, disk in disks},
            "home": home,
            "generation": master["generation"],
            "vlans": [int(it["vlan"]) for it in order["networks"] or master["networks"]],
        }
        for path, _ in disks:
            self.estate.files.pop(path, None)
        if order["seed"]:
            machine.marks["seed"] = order["seed"]
            self.estate.files[f"{home}\\seed.iso"] = ""
        machine.guest.seed = {"instance": key}
        stamp = {"installation": parameters["installation"], "key": key}
        write_mark(machine, stamp, stage="made")
        world.touch(machine)
        return machine

    def _home(self, parameters: Told, order: Told, master: Told, key: str) -> tuple[str, str]:
        """The machine's own folder, and the storage it lies on."""
        if order["storage"]:
            if order["storage"] not in self.world.storages:
                raise Thrown("Deskyard.NoStorage")
            root = ntpath.join(order["storage"], "Deskyard")
        else:
            root = parameters["folder"] or ntpath.join(self.volume_of(str(master["disks"][0]["path"])), "Deskyard")
        return ntpath.join(root, key), self.volume_of(root)

    def volume_of(self, path: str) -> str:
        fitting = [id for id in self.world.storages if path.lower().startswith(id.lower())]
        if not fitting:
            raise Thrown("Deskyard.NoStorage")
        return max(fitting, key=len)

    def switch(self, name: str) -> str:
        found = next((it.id for it in self.world.networks.values() if it.name == name), None)
        if found is None:
            raise Thrown("Deskyard.NoSwitch")
        return found

    def _disks(self, order: Told, master: Told, home: str, storage: str) -> list[tuple[str, str]]:
        """Path and disk of each; made now, or once the copy has ended."""
        sources = [self._disk_at(str(it["path"])) for it in master["disks"]]
        paths = [f"{home}\\disk{number}.vhdx" for number in range(len(sources))]
        if order["linked"]:
            for source, path in zip(sources, paths, strict=True):
                if path not in self.estate.files:
                    self.estate.files[path] = self.world.copy_disk(source, linked=True, storage=storage).id
        elif any(path not in self.estate.files for path in paths):
            self._copy(str(order["key"]), dict(zip(paths, sources, strict=True)), storage)
        self.estate.copies.pop(str(order["key"]), None)
        return [(path, self.estate.files[path]) for path in paths]

    def _copy(self, key: str, wanted: Mapping[str, str], storage: str) -> None:
        """By a scheduled task. Raises `StillBusy` until it has ended."""

        def act() -> None:
            for path, source in wanted.items():
                self.estate.files[path] = self.world.copy_disk(source, linked=False, storage=storage).id

        task = self.estate.copies.get(key)
        if task is None:
            task = self.estate.copies[key] = self.world.start_task("Convert-VHD", key, self.estate.copy_s, act)
        if task.state is TaskState.FAILED and isinstance(task.error, WorldError):
            raise task.error
        if task.state is not TaskState.DONE:
            raise StillBusy("copying", task.percent(self.world.now))

    def _disk_at(self, path: str) -> str:
        for machine in self.world.machines.values():
            for disk in machine.disks:
                if self.estate.path_of(machine, disk) == path:
                    return disk
        raise NoSuch(path)

    def _made(self, machine: Machine) -> Told:
        mark = mark_of(machine)
        return {
            "id": machine.id,
            "name": machine.name,
            "power": STATES[machine.power],
            "disks": [self.estate.path_of(machine, disk) for disk in machine.disks],
            "stamp": {"installation": mark.get("installation"), "key": mark.get("key")},
        }

    def undo(self, parameters: Told, key: str) -> None:
        machine = self.find_made(parameters["installation"], key)
        if machine is not None:
            self._remove(machine)
        self._remove_home(key)

    def _remove(self, machine: Machine) -> None:
        if machine.power is not Power.OFF:
            self.world.power_off(machine.id)
        home = str(machine.marks.get("home", ""))
        self.world.delete(machine.id, keep_disks=not home)
        if home and self.estate.locked_s:
            self.estate.locked_until[ntpath.basename(home)] = self.world.now + self.estate.locked_s
            self.estate.files[f"{home}\\disk0.vhdx"] = ""

    def _remove_home(self, key: str) -> None:
        if task := self.estate.copies.pop(key, None):
            self.world.cancel_task(task.id)
        for path in self.estate.home_files(key):
            disk = self.estate.files.pop(path)
            if disk:
                self.world.drop_disk(disk)

    def _recycle(self, parameters: Told, order: Told) -> Told:
        key = str(order["key"])
        machine = self.find_made(parameters["installation"], key)
        old: Machine | None = None
        if machine is None:
            old = self._meant(order)
            master = self._master(order["template"]) or order["master"]
            if master is None:
                raise NotHere("template")
            if old.power is Power.ON:
                self.world.power_off(old.id)
            shape = {
                "vcpus": old.vcpus,
                "memory_mib": old.memory_mib,
                "networks": [{"switch": self.switch_of(nic), "vlan": 0} for nic in old.nics],
            }
            try:
                machine = self._make(parameters, order | shape, master)
            except (Thrown, WorldError):
                self.undo(parameters, key)
                raise
            for name in ("weight", "reserve", "maximum", "priority"):
                if name in old.marks:
                    machine.marks[name] = old.marks[name]
        elif self.here(str(order["id"])) is not None:
            old = self._meant(order)
        if old is not None:
            self._remove(old)
        stamp = order["stamp"] or {}
        if stamp.get("installation") == parameters["installation"]:
            self._remove_home(str(stamp["key"]))
        if order["power_on"]:
            self._start(machine)
        return self._made(machine)

    def _delete(self, parameters: Told, order: Told) -> Told:
        stamp = order["stamp"] or {}
        is_ours = stamp.get("installation") == parameters["installation"]
        machine: Machine | None = None
        if not order["id"]:
            machine = self.find_made(str(stamp["installation"]), str(stamp["key"]))
        elif self.here(str(order["id"])) is not None:
            machine = self._meant(order)
        was_here = machine is not None
        if machine is not None:
            self._require_no_clones(machine)
            self._remove(machine)
        if is_ours:
            key = str(stamp["key"])
            was_here = was_here or bool(self.estate.home_files(key)) or key in self.estate.copies
            if self.world.now < self.estate.locked_until.get(key, 0.0):
                raise StillBusy("files")
            self._remove_home(key)
        if not was_here:
            raise NotHere
        return {}

    def _require_no_clones(self, machine: Machine) -> None:
        mine = {machine.id}
        for other in self.world.machines.values():
            if other.id in mine:
                continue
            if any(self.world.disks[disk].parent in machine.disks for disk in other.disks):
                raise Thrown("Deskyard.HasClones")

    # --- power

    def _start(self, machine: Machine) -> None:
        self._require_allowed("Start-VM")
        mirrors.require_startable(machine)
        if machine.power is Power.PAUSED:
            self.world.resume(machine.id)
        elif machine.power is not Power.ON:
            if any(self.errands.holds(disk) for disk in machine.disks):
                raise InUse(f"a disk of {machine.name} is open elsewhere")
            machine.is_template = False
            self.world.power_on(machine.id)

    def _power(self, _: Told, order: Told) -> Told:
        machine, action = self._meant(order), str(order["action"])
        if action == "on":
            self._require_no_clones(machine)
            self._start(machine)
        elif action == "off" or (action == "shutdown" and (order["cut"] or machine.power is not Power.ON)):
            if machine.power is not Power.OFF:
                self.world.power_off(machine.id)
        elif action == "shutdown":
            is_heard = bool(order["ask"]) and machine.guest.is_up and machine.guest.has_agent
            if is_heard:
                self.world.shutdown_guest(machine.id)
            raise StillBusy("shutdown", asked=is_heard)
        elif action in ("reboot", "reset"):
            self._restart(machine, order)
        elif action == "suspend":
            if machine.power is Power.OFF:
                raise Thrown("Deskyard.IsOff")
            if machine.power is Power.ON:
                self.world.suspend(machine.id, to_disk=False)
        elif action == "resume":
            if machine.power is Power.OFF:
                raise Thrown("Deskyard.NotSuspended")
            self._start(machine)
        else:
            raise Thrown("Deskyard.UnknownOrder")
        return {"power": STATES[machine.power]}

    def _restart(self, machine: Machine, order: Told) -> None:
        if mark_of(machine).get("restarted") == order["key"]:
            raise Thrown("Deskyard.RestartUnknown")
        if machine.power is not Power.ON:
            raise Thrown("Deskyard.IsOff")
        if order["action"] == "reset":
            self.world.reset(machine.id)
        else:
            self.world.reboot_guest(machine.id, needs_agent=True)
        reverted = mark_of(machine).get("reverted")
        write_mark(machine, order["stamp"], stage="machine", restarted=order["key"], reverted=reverted)

    # --- checkpoints

    def _snapshot(self, _: Told, order: Told) -> Told:
        machine = self._meant(order)
        name = f"{order['name']} [{order['key']}]"
        taken = next((it for it in machine.snapshots.values() if it.name == name), None)
        if taken is None:
            self._require_idle(machine, "snapshot")
            taken = self.world.take_snapshot(machine.id, name)
            machine.marks.setdefault("notes_at", {})[taken.id] = machine.marks.get("notes", "")
        return {"snapshot": taken.id}

    def _require_idle(self, machine: Machine, step: str) -> None:
        if self.world.now < float(machine.marks.get("merging_until", 0.0)):
            raise StillBusy(step)

    def _revert(self, _: Told, order: Told) -> Told:
        machine = self._meant(order)
        if mark_of(machine).get("reverted") == order["key"]:
            return {}
        if order["snapshot"] not in machine.snapshots:
            raise Thrown("Deskyard.NoSnapshot")
        self._require_no_clones(machine)
        self._require_idle(machine, "revert")
        self.world.revert(machine.id, str(order["snapshot"]))
        machine.marks["notes"] = machine.marks.get("notes_at", {}).get(order["snapshot"], "")
        write_mark(machine, order["stamp"], stage="machine", reverted=order["key"])
        return {}

    def _forget(self, _: Told, order: Told) -> Told:
        machine = self._meant(order)
        if order["snapshot"] in machine.snapshots:
            self.world.delete_snapshot(machine.id, str(order["snapshot"]))
            machine.marks["merging_until"] = self.world.now + self.estate.merge_s
        self._require_idle(machine, "merging")
        return {}

    # --- size, share, screen

    def _resize(self, _: Told, order: Told) -> Told:
        machine = self._meant(order)
        vcpus, memory_mib = order["vcpus"] or machine.vcpus, order["memory_mib"] or machine.memory_mib
        if (vcpus, memory_mib) != (machine.vcpus, machine.memory_mib):
            if machine.power is not Power.OFF:
                raise Thrown("Deskyard.IsOn")
            self.world.reconfigure(machine.id, vcpus=vcpus, memory_mib=memory_mib)
        return {}

    def _share(self, _: Told, order: Told) -> Told:
        machine = self._meant(order)
        if not 1 <= order["weight"] <= 10_000 or not 0 <= order["priority"] <= 100:
            raise Thrown(f"InvalidParameter,{COMMANDS}.SetVMProcessor")
        machine.marks |= {name: order[name] for name in ("weight", "reserve", "maximum", "priority")}
        self.world.touch(machine)
        return {}

    def _screen(self, _: Told, order: Told) -> Told:
        machine = self._meant(order)
        if machine.power is not Power.ON:
            raise Thrown("Deskyard.IsOff")
        return {"addresses": [address for nic in self._nics(machine) for address in nic["addresses"]]}

    def _find(self, parameters: Told, order: Told) -> Told:
        machine = self.find_made(parameters["installation"], str(order["key"]))
        if machine is None:
            raise NotHere
        return {"id": machine.id}

    def _describe(self, _: Told, order: Told) -> Told:
        master = self._master(str(order["template"]))
        if master is None:
            raise NotHere
        return {"master": master}


# --- notes -----------------------------------------------------------------------------------------------------------


def mark_of(machine: Machine) -> Told:
    """The line of Notes that begins with `{"deskyard"`."""
    for line in str(machine.marks.get("notes", "")).split("\n"):
        if line.strip().startswith('{"deskyard"'):
            found: Told = json.loads(line)
            return found
    return {}


def write_mark(machine: Machine, stamp: Told | None, **more: object) -> None:
    """Anew, above whatever people wrote."""
    kept = [
        line for line in str(machine.marks.get("notes", "")).split("\n") if line and not line.startswith('{"deskyard"')
    ]
    mark = {"deskyard": 1} | (stamp or {}) | {name: value for name, value in more.items() if value}
    machine.marks["notes"] = "\n".join([json.dumps(mark, separators=(",", ":")), *kept])
