"""A world of hosts, storage, networks, machines and their guests, in virtual time. It knows no maker.

Time passes lazily: `with world:` takes the world's lock and first carries out whatever has come due (guests that have
booted, tasks that have ended), so thousands of machines cost nothing while nobody looks. All methods want that lock,
except `read`, which takes it for a moment only.
The same seed gives the same ids, names, addresses and boot times.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

from lab.clock import Clock
from lab.contents import GRAIN, Area, Contents, Token, image_layer, seeded_layer
from lab.errors import (
    GuestSilent,
    HostDown,
    InUse,
    Misfit,
    NoSuch,
    OutOfMemory,
    OutOfStorage,
    TaskBroke,
    WrongState,
)
from lab.faults import Faults
from lab.nouns import Disk, Guest, Host, Machine, Network, Nic, Power, Snapshot, Storage, Task, TaskState

LINKED_DISK_MIB = 64
"""What a fresh linked clone takes of its storage."""
MIB = 1024 * 1024
SECTOR = 512
SHUTDOWN_S = 3.0
"""How long a guest takes to go down when asked."""


class World:
    """One platform's things. `guest_network` is a part of 127.64.0.0/10 that no other world uses.

    What is on the disks lies in `folder`; without one, in a temporary folder that goes with the world.
    """

    def __init__(
        self,
        name: str = "world",
        seed: int = 1,
        clock: Clock | None = None,
        *,
        folder: Path | None = None,
        guest_network: str = "127.64.0.0/16",
        boot_s: tuple[float, float] = (8.0, 20.0),
    ) -> None:
        self.name = name
        self.clock = clock or Clock()
        self.faults = Faults()
        self.random = random.Random(f"{seed} {name}")
        self.boot_s = boot_s
        """Guests take between these to come up."""
        self.hosts: dict[str, Host] = {}
        self.storages: dict[str, Storage] = {}
        self.networks: dict[str, Network] = {}
        self.machines: dict[str, Machine] = {}
        self.disks: dict[str, Disk] = {}
        self.contents = Contents(folder)
        self.tasks: dict[str, Task] = {}
        self.task_s: dict[str, float] = {}
        """Kind of task -> how long it takes here, whatever its platform thinks."""
        self.hidden: set[str] = set()
        """Folders that the account may not see; what is filed there is not listed either."""
        self.forbidden: set[str] = set()
        """Verbs that the account may not use, in the platform's own words."""
        self._lock = threading.RLock()
        self._depth = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._numbers = count(1)
        self._network = IPv4Network(guest_network)
        self._by_address: dict[str, str] = {}
        self.sequence = 0
        """Counts changes of machines, gone ones included."""
        self._changed: dict[str, int] = {}

    # --- time ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> World:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._settle()
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()

    @property
    def now(self) -> float:
        return self.clock.now()

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Have it done when so much time has passed."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), act))

    def _settle(self) -> None:
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()

    def number_from(self, first: int) -> None:
        """Machines made from now on bear numbers from this one on."""
        self._numbers = count(first)

    # --- names and ids ------------------------------------------------------------------------------------------------

    def new_id(self) -> str:
        """A UUID, the same in every run."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def new_mac(self) -> str:
        return "52:54:" + ":".join(f"{self.random.randrange(256):02x}" for _ in range(4))

    # --- setting up ---------------------------------------------------------------------------------------------------

    def add_host(self, name: str, vcpus: int = 32, memory_mib: int = 131_072, id: str = "") -> Host:
        host = Host(id or self.new_id(), name, vcpus, memory_mib)
        self.hosts[host.id] = host
        return host

    def add_storage(self, name: str, capacity_mib: int = 4_000_000, id: str = "") -> Storage:
        storage = Storage(id or self.new_id(), name, capacity_mib)
        self.storages[storage.id] = storage
        return storage

    def add_network(self, name: str, vlan: int = 0, *, is_isolated: bool = False, id: str = "") -> Network:
        network = Network(id or self.new_id(), name, vlan, is_isolated)
        self.networks[network.id] = network
        return network

    def add_template(
        self, name: str, *, vcpus: int = 2, memory_mib: int = 2_048, disk_mib: int = 20_480, folder: str = ""
    ) -> Machine:
        """A golden image: a machine that is off, on the first storage and network. Its disk holds something."""
        machine = self.create(name, vcpus=vcpus, memory_mib=memory_mib, disks_mib=(disk_mib,), folder=folder)
        self.seed_disk(machine.disks[0])
        machine.is_template = True
        return machine

    # --- machines -----------------------------------------------------------------------------------------------------

    def machine(self, id: str) -> Machine:
        """Raises `NoSuch`, also for what the account may not see."""
        machine = self.machines.get(id)
        if machine is None or machine.folder in self.hidden:
            raise NoSuch(id)
        return machine

    def visible(self) -> Iterator[Machine]:
        """All machines that the account may see, templates too."""
        return (machine for machine in self.machines.values() if machine.folder not in self.hidden)

    def create(
        self,
        name: str,
        *,
        vcpus: int = 1,
        memory_mib: int = 1_024,
        disks_mib: tuple[int, ...] = (),
        disks: tuple[str, ...] = (),
        host: str | None = None,
        storage: str | None = None,
        networks: tuple[str, ...] | None = None,
        folder: str = "",
        id: str = "",
    ) -> Machine:
        """A new machine, off, with these disks and behind them empty ones. `networks` None: one NIC on the first.

        Raises `InUse`, `NoSuch` for a disk that it cannot have, `OutOfStorage`.
        """
        storage = storage or next(iter(self.storages))
        machine = self._new(name, host, vcpus, memory_mib, folder, id)
        for disk_id in disks:
            self._require_loose(disk_id)
        machine.disks = list(disks)
        for size in disks_mib:
            disk = self.new_disk(storage, size, used_mib=max(1, size // 10))
            machine.disks.append(disk.id)
        wanted = networks if networks is not None else tuple(self.networks)[:1]
        machine.nics = [self.new_nic(network) for network in wanted]
        return self._enter(machine)

    def clone(
        self,
        source: str,
        *,
        name: str,
        linked: bool = True,
        host: str | None = None,
        storage: str | None = None,
        vcpus: int | None = None,
        memory_mib: int | None = None,
        networks: tuple[str, ...] | None = None,
        folder: str | None = None,
        id: str = "",
        snapshot: str | None = None,
    ) -> Machine:
        """A new machine with disks like the source's (or one of its snapshots'), off. Raises `OutOfStorage`."""
        original = self.machine(source)
        point = original.snapshots[snapshot] if snapshot else None
        disks = point.disks if point else tuple(original.disks)
        self._require_room(disks, linked, storage)
        machine = self._new(
            name,
            host,
            vcpus or original.vcpus,
            memory_mib or original.memory_mib,
            original.folder if folder is None else folder,
            id,
        )
        machine.disks = [self.copy_disk(disk, linked=linked, storage=storage).id for disk in disks]
        wanted = networks if networks is not None else tuple(nic.network for nic in original.nics)
        machine.nics = [self.new_nic(network) for network in wanted]
        return self._enter(machine)

    def delete(self, id: str, *, keep_disks: bool = False) -> None:
        """Raises `InUse` if a linked clone hangs from one of its disks, `WrongState` while it is on."""
        machine = self.machine(id)
        if machine.power is not Power.OFF:
            raise WrongState(f"{machine.name} is {machine.power}")
        own = set(machine.disks) | {disk for point in machine.snapshots.values() for disk in point.disks}
        own |= {parent for disk in own for parent in self._chain(disk) if self._is_ours(parent, machine)}
        if not keep_disks:
            for disk in self.disks.values():
                if disk.parent in own and disk.id not in own:
                    raise InUse(f"a disk hangs from {machine.name}")
            for disk_id in own:
                self.erase_disk(disk_id)
        self._by_address.pop(machine.guest.address, None)
        del self.machines[id]
        self.touch_id(id)

    def reconfigure(self, id: str, *, vcpus: int | None = None, memory_mib: int | None = None) -> None:
        """Raises `WrongState` while it is on."""
        machine = self.machine(id)
        if machine.power is not Power.OFF:
            raise WrongState(f"{machine.name} is {machine.power}")
        machine.vcpus = vcpus or machine.vcpus
        machine.memory_mib = memory_mib or machine.memory_mib
        self.touch(machine)

    def touch(self, machine: Machine) -> None:
        """It has changed."""
        machine.version += 1
        self.touch_id(machine.id)

    def touch_id(self, id: str) -> None:
        self.sequence += 1
        self._changed[id] = self.sequence

    def changes_since(self, sequence: int) -> list[str]:
        """Ids of machines that have changed or gone since, oldest change first."""
        found = [(at, id) for id, at in self._changed.items() if at > sequence]
        return [id for _, id in sorted(found)]

    # --- disks --------------------------------------------------------------------------------------------------------

    def new_disk(
        self,
        storage: str,
        capacity_mib: int = 0,
        *,
        capacity: int | None = None,
        used_mib: int = 1,
        parent: str | None = None,
    ) -> Disk:
        """An empty disk of so many MiB, or of exactly so many bytes. Raises `OutOfStorage`, `NoSuch`, `Misfit`."""
        size = capacity_mib * MIB if capacity is None else capacity
        if size <= 0 or size % SECTOR:
            raise Misfit(f"a disk of {size} bytes: it must be whole sectors of {SECTOR}")
        if storage not in self.storages:
            raise NoSuch(f"storage {storage}")
        if used_mib > self.free_mib(storage):
            raise OutOfStorage(self.storages[storage].name)
        disk = Disk(self.new_id(), storage, size, used_mib, parent)
        self.disks[disk.id] = disk
        return disk

    def copy_disk(self, source: str, *, linked: bool, storage: str | None = None, used_mib: int | None = None) -> Disk:
        """A disk that hangs from the source (which must not be written any more), or a full copy.

        Neither copies a byte: both go on from what the source holds now. A copy takes as much room as all that is in
        the source, unless it is said to take less.
        """
        original = self.disks[source]
        used = LINKED_DISK_MIB if linked else used_mib
        if used is None:
            used = sum(self.disks[part].used_mib for part in (source, *self._chain(source)))
        disk = self.new_disk(
            storage or original.storage, capacity=original.capacity, used_mib=used, parent=source if linked else None
        )
        self.contents.share(original, disk)
        return disk

    def resize_disk(self, id: str, capacity: int) -> None:
        """To so many bytes; what is new is zero. Raises `NoSuch`, `Misfit` for a smaller size or a broken sector."""
        disk = self._within(id, 0, 0)
        if capacity < disk.capacity or capacity % SECTOR:
            raise Misfit(f"disk {id} of {disk.capacity} bytes cannot have {capacity}")
        disk.capacity = capacity

    def attach_disk(self, machine: str, disk: str) -> None:
        """As its last. Raises `NoSuch`, `InUse` if another machine or a snapshot has it, or a disk hangs from it."""
        self._require_loose(disk)
        found = self.machine(machine)
        found.disks.append(disk)
        self.touch(found)

    def detach_disk(self, machine: str, disk: str) -> None:
        """It stays, and is nobody's. Raises `NoSuch`."""
        found = self.machine(machine)
        if disk not in found.disks:
            raise NoSuch(f"disk {disk} of {found.name}")
        found.disks.remove(disk)
        self.touch(found)

    def drop_disk(self, id: str) -> None:
        """Raises `InUse` if another disk hangs from it."""
        if any(disk.parent == id for disk in self.disks.values()):
            raise InUse(f"a disk hangs from {id}")
        self.erase_disk(id)

    def erase_disk(self, id: str) -> None:
        """Whatever hangs from it; that keeps its bytes. Does nothing if there is none."""
        if disk := self.disks.pop(id, None):
            self.contents.drop(disk, self.disks)

    def free_mib(self, storage: str) -> int:
        there = self.storages[storage]
        used = sum(disk.used_mib for disk in self.disks.values() if disk.storage == storage)
        return max(0, there.capacity_mib - there.ballast_mib - used)

    def _require_loose(self, disk: str) -> None:
        if disk not in self.disks:
            raise NoSuch(f"disk {disk}")
        held = (part for it in self.machines.values() for point in it.snapshots.values() for part in point.disks)
        if any(disk in it.disks for it in self.machines.values()) or disk in held or any(self._children(disk)):
            raise InUse(f"something has or hangs from disk {disk}")

    def _chain(self, disk: str) -> Iterator[str]:
        at = self.disks.get(disk)
        while at and at.parent and (above := self.disks.get(at.parent)):
            yield above.id
            at = above

    def _is_ours(self, disk: str, machine: Machine) -> bool:
        """Whether a parent disk belongs to this machine alone: nobody else has it as a disk or a snapshot of it."""
        for other in self.machines.values():
            points = (part for point in other.snapshots.values() for part in point.disks)
            if other is not machine and (disk in other.disks or disk in points):
                return False
        mine = set(machine.disks) | {part for point in machine.snapshots.values() for part in point.disks}
        return all(child.id in mine or self._is_ours(child.id, machine) for child in self._children(disk))

    def _children(self, disk: str) -> Iterator[Disk]:
        return (child for child in self.disks.values() if child.parent == disk)

    def _require_room(self, disks: tuple[str, ...], linked: bool, storage: str | None) -> None:
        wanted: dict[str, int] = {}
        for disk in disks:
            size = LINKED_DISK_MIB if linked else self.disks[disk].used_mib
            target = storage or self.disks[disk].storage
            wanted[target] = wanted.get(target, 0) + size
        for target, size in wanted.items():
            if target not in self.storages:
                raise NoSuch(f"storage {target}")
            if size > self.free_mib(target):
                raise OutOfStorage(self.storages[target].name)

    # --- what is on the disks -----------------------------------------------------------------------------------------

    def read(self, disk: str, offset: int, length: int) -> bytes:
        """Those bytes as they are now. May be called without the lock, which it does not hold while it reads.

        Raises `NoSuch` (also if the disk goes meanwhile), `Misfit`.
        """
        with self:
            reading = self.contents.reading(self._within(disk, offset, length), offset, length)
        with reading:
            data = reading.read()
        with self:
            self._within(disk, offset, length)
        return data

    def write(self, disk: str, offset: int, data: bytes) -> None:
        """What a guest or an import wrote. Raises `NoSuch`, `Misfit`, `OutOfStorage`: nothing of it is written then.

        The disk takes more room once it holds more than it was reckoned with.
        """
        there = self._within(disk, offset, len(data))
        held, missing = self.contents.missing(there, offset, len(data))
        wanted_mib = -(-(held + missing) * GRAIN // MIB)
        if missing and wanted_mib > there.used_mib:
            if wanted_mib - there.used_mib > self.free_mib(there.storage):
                raise OutOfStorage(self.storages[there.storage].name)
            there.used_mib = wanted_mib
        self.contents.write(there, offset, data)

    def zero(self, disk: str, offset: int, length: int) -> None:
        """From now on that is zero, which takes no room. Raises `NoSuch`, `Misfit`."""
        self.contents.zero(self._within(disk, offset, length), offset, length)

    def fill_disk(self, disk: str, image: Path) -> None:
        """From now on it holds what that raw image holds, and zeros behind it; nothing is copied.

        The image must stay as it is. Raises `NoSuch`, `Misfit` if it is larger than the disk.
        """
        there = self._within(disk, 0, 0)
        layer, size = image_layer(image)
        self._within(disk, 0, size)
        self.contents.show(there, layer)

    def seed_disk(self, disk: str) -> None:
        """From now on it holds a few MiB that look like something: the same for disks of the same id and size."""
        there = self._within(disk, 0, 0)
        self.contents.show(there, seeded_layer(f"{self.name} {disk}", there.capacity))

    def allocated(self, disk: str, since: str | None = None) -> list[Area]:
        """Where it is not known to be zero; with another disk, where it is not known to hold the same as that one.

        Whole grains of 64 KiB, in their order; none touches the next. Raises `NoSuch`.
        """
        there = self._within(disk, 0, 0)
        return self.contents.differing(there, self._within(since, 0, 0)) if since else self.contents.allocated(there)

    def change_token(self, disk: str) -> Token:
        """This moment in the disk's history. Snapshots pass the history on to the disk that the machine goes on with;
        copies and disks that were reverted to begin another one. Raises `NoSuch`.
        """
        return self.contents.token(self._within(disk, 0, 0))

    def changed(self, disk: str, since: Token) -> list[Area]:
        """Where it was written after that moment: whole grains, in their order. Raises `NoSuch`, `UnknownToken`."""
        return self.contents.changed(self._within(disk, 0, 0), since)

    def forget_changes(self, disk: str) -> None:
        """All its tokens are unknown from now on."""
        self.contents.forget(self._within(disk, 0, 0).id)

    def scribble(self, machine: str, seed: str, *, times: int, every_s: float = 1.0, disk: int = 0) -> None:
        """Have the guest write 1 to 4 KiB somewhere on a disk every so often, as long as it is up then.

        The same seed writes the same on disks of the same size.
        """
        self._scribble(machine, random.Random(seed), times, self.now, every_s, disk)

    def _scribble(self, machine: str, chance: random.Random, times: int, now: float, every_s: float, disk: int) -> None:
        if times <= 0 or machine not in self.machines:
            return

        def write() -> None:
            data, place = chance.randbytes(chance.randrange(1, 9) * SECTOR), chance.random()
            there = self.machines.get(machine)
            if there and there.guest.is_up and disk < len(there.disks):
                sectors = self.disks[there.disks[disk]].capacity // SECTOR - len(data) // SECTOR
                self.write(there.disks[disk], int(place * sectors) * SECTOR, data)
            self._scribble(machine, chance, times - 1, now + every_s, every_s, disk)

        heapq.heappush(self._due, (now + every_s, next(self._order), write))

    def _within(self, disk: str, offset: int, length: int) -> Disk:
        there = self.disks.get(disk)
        if there is None:
            raise NoSuch(f"disk {disk}")
        if offset < 0 or length < 0 or offset + length > there.capacity:
            raise Misfit(f"disk {disk} has {there.capacity} bytes, not {length} at {offset}")
        return there

    # --- networks -----------------------------------------------------------------------------------------------------

    def new_nic(self, network: str) -> Nic:
        if network not in self.networks:
            raise NoSuch(f"network {network}")
        return Nic(self.new_id(), network, self.new_mac())

    # --- power --------------------------------------------------------------------------------------------------------

    def power_on(self, id: str) -> None:
        """Raises `WrongState` if it is on already, `OutOfMemory`, `HostDown`."""
        machine = self.machine(id)
        if machine.is_template or machine.power not in (Power.OFF, Power.SUSPENDED):
            raise WrongState(f"{machine.name} is {'a template' if machine.is_template else machine.power}")
        self._require_host(machine)
        was_off = machine.power is Power.OFF
        machine.power = Power.ON
        if was_off:
            self._boot(machine)
        else:
            self._up(machine)
        self.touch(machine)

    def power_off(self, id: str) -> None:
        """The plug is pulled. Raises `WrongState` if it is off."""
        machine = self.machine(id)
        if machine.power is Power.OFF:
            raise WrongState(f"{machine.name} is off")
        self._off(machine)

    def reset(self, id: str) -> None:
        machine = self.machine(id)
        self._require_power(machine, Power.ON)
        self._boot(machine)
        self.touch(machine)

    def suspend(self, id: str, *, to_disk: bool = True) -> None:
        machine = self.machine(id)
        self._require_power(machine, Power.ON)
        machine.power = Power.SUSPENDED if to_disk else Power.PAUSED
        machine.guest.is_up = False
        self.touch(machine)

    def resume(self, id: str) -> None:
        """Goes on where it was. Raises `WrongState`, `OutOfMemory`, `HostDown`."""
        machine = self.machine(id)
        self._require_power(machine, Power.SUSPENDED, Power.PAUSED)
        self._require_host(machine)
        machine.power = Power.ON
        self._up(machine)
        self.touch(machine)

    def shutdown_guest(self, id: str, *, needs_agent: bool = False) -> None:
        """The guest is asked to shut down, and may not hear. Raises `WrongState`, `GuestSilent`."""
        machine = self.machine(id)
        self._require_power(machine, Power.ON)
        if needs_agent and not (machine.guest.is_up and machine.guest.has_agent):
            raise GuestSilent(machine.name)
        if machine.guest.is_up and not machine.guest.ignores_shutdown:
            boots = machine.guest.boots
            self.after(SHUTDOWN_S, lambda: self._went_down(machine, boots))

    def reboot_guest(self, id: str, *, needs_agent: bool = False) -> None:
        machine = self.machine(id)
        self._require_power(machine, Power.ON)
        if needs_agent and not (machine.guest.is_up and machine.guest.has_agent):
            raise GuestSilent(machine.name)
        if machine.guest.is_up and not machine.guest.ignores_shutdown:
            self._boot(machine)
            self.touch(machine)

    def _went_down(self, machine: Machine, boots: int) -> None:
        if machine.id in self.machines and machine.power is Power.ON and machine.guest.boots == boots:
            self._off(machine)

    def _off(self, machine: Machine) -> None:
        machine.power = Power.OFF
        machine.guest.is_up = False
        self.touch(machine)

    def _boot(self, machine: Machine) -> None:
        guest = machine.guest
        guest.is_up = False
        guest.boots += 1
        guest.typed = ""
        boots = guest.boots
        self.after(guest.boots_s, lambda: self._booted(machine, boots))

    def _booted(self, machine: Machine, boots: int) -> None:
        if machine.id in self.machines and machine.power is Power.ON and machine.guest.boots == boots:
            self._up(machine)
            self.touch(machine)

    def _up(self, machine: Machine) -> None:
        guest = machine.guest
        guest.is_up = True
        guest.hostname = guest.seed.get("hostname") or guest.hostname or machine.name
        if machine.nics and not guest.address:
            guest.address = str(self._network[machine.number + 1])
        if guest.address:
            self._by_address[guest.address] = machine.id

    def settle_guest(self, machine: Machine) -> None:
        """After a restart of the world: a guest that was up is up, one that was booting begins again."""
        if machine.guest.is_up:
            self._up(machine)
        else:
            self._boot(machine)

    def addresses(self, machine: Machine) -> tuple[str, ...]:
        """What the guest's agent tells of itself: nothing while it is down, or has no agent."""
        guest = machine.guest
        return (guest.address,) if guest.is_up and guest.has_agent and guest.address else ()

    def at_address(self, address: str) -> Machine | None:
        """The machine whose guest is up at this address."""
        machine = self.machines.get(self._by_address.get(address, ""))
        return machine if machine and machine.guest.is_up else None

    def used_memory_mib(self, host: str) -> int:
        """What the running machines of a host have."""
        return sum(
            machine.memory_mib
            for machine in self.machines.values()
            if machine.host == host and machine.power in (Power.ON, Power.PAUSED)
        )

    def _require_power(self, machine: Machine, *powers: Power) -> None:
        if machine.power not in powers:
            raise WrongState(f"{machine.name} is {machine.power}")

    def _require_host(self, machine: Machine) -> None:
        host = self.hosts[machine.host]
        if not host.is_up:
            raise HostDown(host.name)
        if machine.power is not Power.PAUSED and self.used_memory_mib(host.id) + machine.memory_mib > host.memory_mib:
            raise OutOfMemory(host.name)

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def take_snapshot(self, id: str, name: str, description: str = "") -> Snapshot:
        """The disks stand still; the machine goes on on new ones that hang from them."""
        machine = self.machine(id)
        point = Snapshot(
            self.new_id(), name, self.now, machine.snapshot, tuple(machine.disks), machine.vcpus, machine.memory_mib,
            Power.OFF, description,
        )  # fmt: skip
        machine.disks = [self.copy_disk(disk, linked=True).id for disk in point.disks]
        for before, after in zip(point.disks, machine.disks, strict=True):
            self.contents.hand_on(before, after)
        machine.snapshots[point.id] = point
        machine.snapshot = point.id
        self.touch(machine)
        return point

    def revert(self, id: str, snapshot: str) -> None:
        """Back to how it was: disks, processors, memory; off."""
        machine = self.machine(id)
        point = machine.snapshots.get(snapshot)
        if point is None:
            raise NoSuch(f"snapshot {snapshot}")
        old = list(machine.disks)
        machine.disks = [self.copy_disk(disk, linked=True).id for disk in point.disks]
        for disk in old:
            if not any(self._children(disk)):
                self.erase_disk(disk)
        machine.vcpus, machine.memory_mib, machine.snapshot = point.vcpus, point.memory_mib, point.id
        if machine.power is not Power.OFF:
            self._off(machine)
        self.touch(machine)

    def delete_snapshot(self, id: str, snapshot: str) -> None:
        """What hangs from it stays as it is. Raises `NoSuch`, `InUse` if a clone hangs from it."""
        machine = self.machine(id)
        point = machine.snapshots.get(snapshot)
        if point is None:
            raise NoSuch(f"snapshot {snapshot}")
        mine = set(machine.disks) | {disk for other in machine.snapshots.values() for disk in other.disks}
        for disk in point.disks:
            if any(child.id not in mine for child in self._children(disk)):
                raise InUse(f"a clone hangs from {point.name}")
        for disk in point.disks:
            self._merge(disk)
        for other in machine.snapshots.values():
            if other.parent == snapshot:
                other.parent = point.parent
        if machine.snapshot == snapshot:
            machine.snapshot = point.parent
        del machine.snapshots[snapshot]
        self.touch(machine)

    def _merge(self, disk: str) -> None:
        """What the disk takes goes to those that hang from it; what it holds they share anyway."""
        gone = self.disks[disk]
        for child in list(self._children(disk)):
            child.used_mib += gone.used_mib
            child.parent = gone.parent
        self.erase_disk(disk)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def start_task(
        self, kind: str, subject: str, seconds: float, act: Callable[[], Any], *, after: Task | None = None
    ) -> Task:
        """Have `act` done in so many seconds; what it returns is the result, a `WorldError` it raises the error.

        With `after` it waits, queued, until that task has ended.
        """
        task = Task(self.new_id(), kind, subject, act, self.task_s.get(kind, seconds), self.now)
        self.tasks[task.id] = task
        if machine := self.machines.get(subject):
            machine.tasks += 1
        if after is not None and after.ended_at is None:
            waiting: list[Task] = after.marks.setdefault("waiting", [])
            waiting.append(task)
        else:
            self._begin(task)
        return task

    def cancel_task(self, id: str) -> None:
        """Nothing of it is done. A task that has ended stays as it is."""
        task = self.tasks[id]
        if task.ended_at is None:
            self._end(task, TaskState.CANCELLED)

    def _begin(self, task: Task) -> None:
        task.state, task.started_at = TaskState.RUNNING, self.now
        if self.faults.take(task.kind, "task_hangs"):
            return
        if self.faults.take(task.kind, "task_fails"):
            self.after(task.seconds / 2, lambda: self._break(task))
        elif task.seconds <= 0:
            self._do(task)
        else:
            self.after(task.seconds, lambda: self._do(task))

    def _break(self, task: Task) -> None:
        if task.ended_at is None:
            task.error = TaskBroke(f"{task.kind} broke off")
            self._end(task, TaskState.FAILED)

    def _do(self, task: Task) -> None:
        if task.ended_at is not None:
            return
        try:
            task.result = task.act()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the task's error, as on a real platform
            task.error = error
            self._end(task, TaskState.FAILED)
        else:
            self._end(task, TaskState.DONE)

    def _end(self, task: Task, state: TaskState) -> None:
        task.state, task.ended_at = state, self.now
        if machine := self.machines.get(task.subject):
            machine.tasks = max(0, machine.tasks - 1)
            self.touch(machine)
        for waiting in task.marks.pop("waiting", ()):
            self._begin(waiting)

    # --- rights -------------------------------------------------------------------------------------------------------

    def hide(self, *folders: str) -> None:
        """From now on the account may see all but these folders; what vanished or came to light has changed."""
        before, self.hidden = self.hidden, set(folders)
        for machine in self.machines.values():
            if machine.folder in before ^ self.hidden:
                self.touch_id(machine.id)

    # --- disasters ----------------------------------------------------------------------------------------------------

    def kill_host(self, id: str) -> None:
        """The host dies, and all that ran on it is off."""
        self.hosts[id].is_up = False
        for machine in self.machines.values():
            if machine.host == id and machine.power is not Power.OFF:
                self._off(machine)

    def revive_host(self, id: str) -> None:
        self.hosts[id].is_up = True

    def fill(self, storage: str, leaving_mib: int = 0) -> None:
        """Something else takes the storage's room."""
        there = self.storages[storage]
        there.ballast_mib += max(0, self.free_mib(storage) - leaving_mib)

    def drain(self, storage: str) -> None:
        """What filled the storage has gone."""
        self.storages[storage].ballast_mib = 0

    # --- inside -------------------------------------------------------------------------------------------------------

    def _new(self, name: str, host: str | None, vcpus: int, memory_mib: int, folder: str, id: str) -> Machine:
        where = host or self._freest()
        if where not in self.hosts:
            raise NoSuch(f"host {where}")
        if not self.hosts[where].is_up:
            raise HostDown(self.hosts[where].name)
        return Machine(
            id=id or self.new_id(), number=next(self._numbers), name=name, host=where, vcpus=vcpus,
            memory_mib=memory_mib, power=Power.OFF, guest=Guest(boots_s=self.random.uniform(*self.boot_s)),
            folder=folder, created_at=self.now,
        )  # fmt: skip

    def _enter(self, machine: Machine) -> Machine:
        self.machines[machine.id] = machine
        self.touch_id(machine.id)
        return machine

    def _freest(self) -> str:
        up = [host for host in self.hosts.values() if host.is_up]
        if not up:
            raise HostDown("every host")
        load: dict[str, int] = {}
        for machine in self.machines.values():
            load[machine.host] = load.get(machine.host, 0) + machine.memory_mib
        return max(up, key=lambda host: host.memory_mib - load.get(host.id, 0)).id
