"""What the host shows: a complete listing in bulk, or what libvirt's events say has changed.

Cost: one call for all domains, one for their states, one for their leases per network, and one XML per domain (libvirt
has no bulk call for it). The guest's own agent is asked only where a lease does not tell the address, and only while
time is left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import libvirt

from connectors.base import Agent, Host, Inventory, Machine, Network, Power, Storage, Template
from connectors.kvm import faults, held, machines, mapping, power, snapshots
from connectors.kvm.client import Line
from connectors.kvm.work import OutOfTime

AGENT_ANSWER_S = 2
"""How long a guest's agent may take; libvirt's own limit is for ever."""

_GONE = (
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_NO_NETWORK,
    libvirt.VIR_ERR_NO_STORAGE_POOL,
    libvirt.VIR_ERR_NO_STORAGE_VOL,
)


class Agents:
    """Which guests' agents have answered since they appeared, and which were asked in vain: kept between readings."""

    HUNG_S = 30.0
    """How long one that did not answer is left in peace: a few of them must not use up every reading's time."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._hung_until: dict[str, float] = {}

    def has_answered(self, uuid: str) -> bool:
        return uuid in self._answered

    def is_hung(self, uuid: str) -> bool:
        return self._hung_until.get(uuid, 0.0) > time.monotonic()

    def note(self, uuid: str, *, answered: bool) -> None:
        self.forget(uuid)
        if answered:
            self._answered.add(uuid)
        else:
            self._hung_until[uuid] = time.monotonic() + self.HUNG_S

    def forget(self, uuid: str) -> None:
        """Its channel is closed or its machine off: what comes up next is another agent."""
        self._answered.discard(uuid)
        self._hung_until.pop(uuid, None)


class Changes:
    """Which machines libvirt's events named since when. Events arrive on the event loop's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counter = 0
        self._changed: dict[str, int] = {}
        self._unsettled: dict[str, float] = {}

    def note(self, uuid: str) -> None:
        with self._lock:
            self._counter += 1
            self._changed[uuid] = self._counter

    @property
    def counter(self) -> int:
        with self._lock:
            return self._counter

    def since(self, counter: int) -> set[str]:
        """Machines named after that count, and those whose address no event will announce."""
        with self._lock:
            now = time.monotonic()
            self._unsettled = {uuid: until for uuid, until in self._unsettled.items() if until > now}
            return {uuid for uuid, at in self._changed.items() if at > counter} | set(self._unsettled)

    def watch(self, machine: Machine) -> None:
        """libvirt tells when an agent appears but not when a guest gets an address: look again until it has one."""
        with self._lock:
            if machine.power is Power.ON and not machine.addresses:
                self._unsettled.setdefault(machine.id, time.monotonic() + UNSETTLED_S)
            else:
                self._unsettled.pop(machine.id, None)


UNSETTLED_S = 600.0

_EVENTS = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
    libvirt.VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
)


def listen(connection: Any, changes: Changes) -> list[int]:
    """Have every change of a machine noted; returns what to hand to `deafen`. Events the driver lacks are left out."""
    registered = []
    for event in _EVENTS:
        try:
            registered.append(connection.domainEventRegisterAny(None, event, _note, changes))
        except libvirt.libvirtError as error:
            if error.get_error_code() not in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_INVALID_ARG):
                raise
    return registered


def refresh_pools(line: Line) -> None:
    """Have every active pool counted again; one that cannot be, as a disk is being written to it, is left for later."""
    with line.using() as connection:
        for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
            with suppress(libvirt.libvirtError):
                pool.refresh(0)


def _note(_connection: Any, domain: Any, *details: Any) -> None:
    changes = details[-1]
    changes.note(domain.UUIDString())


@dataclass
class Reading:
    """One look at the host, and what went wrong with single things during it."""

    connection: Any
    host_id: str
    deadline: float
    agents: Agents
    changes: Changes
    ask_until: float
    """Guests are asked until then; afterwards an open channel must do."""
    faults: list[str] = field(default_factory=list)
    leases: dict[str, list[str]] = field(default_factory=dict)
    """MAC -> addresses."""
    replicated: set[str] | None = None
    """Machines with checkpoints, if all were listed in one call."""

    # --- complete ---

    def complete(self) -> Inventory:
        began_at = datetime.now(UTC)
        hosts = (self._host(),)
        networks = tuple(net for one in self.connection.listAllNetworks() if (net := self._network(one)))
        storages = tuple(storage for pool in self.connection.listAllStoragePools() if (storage := self._storage(pool)))
        domains = self.connection.listAllDomains()
        states = self._states()
        saved = self._listed(libvirt.VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE)
        self.replicated = self._listed(libvirt.VIR_CONNECT_LIST_DOMAINS_HAS_CHECKPOINT)
        self.leases = self._leases()
        found: list[Machine] = []
        templates: list[Template] = []
        for domain in domains:
            try:
                self._check_time()
            except OutOfTime:
                self.faults.append(f"time ran out after {len(found)} of {len(domains)} machines")
                break
            read = self._read(domain, states, saved)
            if read is not None:
                found.extend(read[0])
                templates.extend(read[1])
        return Inventory(
            began_at=began_at, complete=not self.faults, hosts=hosts, networks=networks, storages=storages,
            machines=tuple(found), templates=tuple(templates), partial="; ".join(self.faults),
        )  # fmt: skip

    # --- incremental ---

    def changed(self, uuids: Iterable[str]) -> Inventory:
        began_at = datetime.now(UTC)
        found: list[Machine] = []
        templates: list[Template] = []
        gone: list[str] = []
        uuids = sorted(uuids)
        self.connection.numOfDomains()  # "nothing changed" is only said by a host that answers
        self.leases = self._leases() if uuids else {}
        for uuid in uuids:
            self._check_time()
            domain = self._lookup(uuid)
            read = self._read(domain, None, None) if domain is not None else None
            if read is None:
                gone.append(uuid)
            else:
                found.extend(read[0])
                templates.extend(read[1])
        return Inventory(
            began_at=began_at, complete=False, machines=tuple(found), templates=tuple(templates), gone=tuple(gone),
            partial="; ".join(self.faults),
        )  # fmt: skip

    def _lookup(self, uuid: str) -> Any | None:
        try:
            return self.connection.lookupByUUIDString(uuid)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _check_time(self) -> None:
        if time.monotonic() >= self.deadline:
            raise OutOfTime

    # --- the parts ---

    def _host(self) -> Host:
        _, memory_mib, vcpus, *_ = self.connection.getInfo()
        return Host(
            id=self.host_id,
            name=self.connection.getHostname(),
            vcpus=int(vcpus),
            memory_mib=self._memory_mib(memory_mib),
        )

    def _memory_mib(self, told_mib: int) -> int:
        """`virNodeGetInfo` counts NUMA cells, whose sum falls short of the memory where some of it was added later."""
        try:
            stats = self.connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return int(told_mib)
            raise
        return max(int(told_mib), int(stats.get("total", 0)) // 1024)

    def _network(self, network: Any) -> Network | None:
        """libvirt forwards nothing from or to a network without a `<forward>`:
        https://libvirt.org/formatnetwork.html#connectivity"""
        try:
            mode = mapping.forward_mode(network.XMLDesc())
            return Network(id=network.UUIDString(), name=network.name(), kind=mode or "isolated", is_isolated=not mode)
        except libvirt.libvirtError as error:
            self._forgive(error, "a network")
            return None

    def _storage(self, pool: Any) -> Storage | None:
        try:
            state, capacity, _, available = pool.info()
        except libvirt.libvirtError as error:
            self._forgive(error, "a storage pool")
            return None
        return Storage(
            id=pool.UUIDString(), name=pool.name(), capacity_mib=int(capacity) // 2**20, free_mib=int(available) //
            2**20, is_up=state == libvirt.VIR_STORAGE_POOL_RUNNING,
        )  # fmt: skip

    def _states(self) -> dict[str, int] | None:
        """Domain uuid -> state, in one call; None where the driver has no such call."""
        try:
            stats = self.connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE)
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_SUPPORT:
                return None
            raise
        return {domain.UUIDString(): int(values["state.state"]) for domain, values in stats if "state.state" in values}

    def _listed(self, flag: int) -> set[str]:
        return {domain.UUIDString() for domain in self.connection.listAllDomains(flag)}

    def _leases(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for network in self.connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE):
            try:
                for lease in network.DHCPLeases():
                    found.setdefault((lease["mac"] or "").lower(), []).append(lease["ipaddr"])
            except libvirt.libvirtError as error:
                if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                    self._forgive(error, "the leases of a network")
        return found

    def _forgive(self, error: libvirt.libvirtError, what: str) -> None:
        """Something that vanished between list and look is no fault; another error makes the reading partial."""
        if error.get_error_code() in _GONE:
            return
        if faults.kind_of(error).loses_endpoint:
            raise error
        self.faults.append(f"{what} could not be read ({error})")

    def _read(
        self, domain: Any, states: Mapping[str, int] | None, saved: set[str] | None
    ) -> tuple[list[Machine], list[Template]] | None:
        """The domain as machine, as template, or as both; None if it is gone."""
        try:
            uuid = domain.UUIDString()
            seen = mapping.read_domain(domain.XMLDesc())
            state = states.get(uuid) if states is not None else None
            if state is None:
                state = domain.state()[0]
            has_saved = uuid in saved if saved is not None else bool(domain.hasManagedSaveImage())
            is_off = seen.is_marked_held and held.is_held(domain)
            return self._sort(domain, seen, Power.OFF if is_off else power.power_of(state, has_saved))
        except libvirt.libvirtError as error:
            self._forgive(error, f"machine {domain.name()!r}")
            return None if error.get_error_code() in _GONE else ([], [])

    def _sort(self, domain: Any, seen: mapping.Domain, seen_power: Power) -> tuple[list[Machine], list[Template]]:
        if seen.role is mapping.Role.PROBE:
            return [], []
        is_off = seen_power is Power.OFF
        is_template = seen.role is mapping.Role.TEMPLATE
        templates = [self._template(seen, is_off)] if is_template or (seen.stamp is None and is_off) else []
        return ([] if is_template else [self._machine(domain, seen, seen_power)]), templates

    def _template(self, seen: mapping.Domain, is_off: bool) -> Template:
        cannot = machines.cannot_clone(seen) or ("" if is_off else "It is switched on.")
        storage, disk_mib = "", 0
        for disk in seen.disks:
            if disk.is_written and disk.path:
                place = self._place(disk.path)
                if place is None:
                    cannot = cannot or f"Disk {disk.path} lies in no active storage pool."
                else:
                    storage, disk_mib = storage or place[0], disk_mib + place[1]
        return Template(
            id=seen.uuid, name=seen.name, storage=storage, vcpus=seen.vcpus, memory_mib=seen.memory_mib,
            disk_mib=disk_mib, cannot=cannot, stamp=seen.stamp,
        )  # fmt: skip

    def _place(self, path: str) -> tuple[str, int] | None:
        """Storage and size of a template's disk."""
        try:
            volume = self.connection.storageVolLookupByPath(path)
            return volume.storagePoolLookupByVolume().UUIDString(), int(volume.info()[1]) // 2**20
        except libvirt.libvirtError as error:
            if error.get_error_code() in _GONE:
                return None
            raise

    def _machine(self, domain: Any, seen: mapping.Domain, seen_power: Power) -> Machine:
        agent, addresses = self._guest(domain, seen, seen_power)
        machine = Machine(
            id=seen.uuid, name=seen.name, power=seen_power, vcpus=seen.vcpus, memory_mib=seen.memory_mib,
            host=self.host_id, stamp=seen.stamp, agent=agent, addresses=addresses, cannot=self._cannot(domain, seen),
        )  # fmt: skip
        self.changes.watch(machine)
        return machine

    def _guest(self, domain: Any, seen: mapping.Domain, seen_power: Power) -> tuple[Agent, tuple[str, ...]]:
        addresses = mapping.guest_addresses(address for nic in seen.nics for address in self.leases.get(nic.mac, ()))
        if seen_power is not Power.ON or seen.agent_channel != "connected":
            self.agents.forget(seen.uuid)
            agent = Agent.SILENT if seen.agent_channel else Agent.ABSENT
            return agent, addresses if seen_power is Power.ON else ()
        if self.agents.is_hung(seen.uuid):
            return Agent.SILENT, addresses
        if (addresses and self.agents.has_answered(seen.uuid)) or time.monotonic() > self.ask_until:
            return Agent.ANSWERING, addresses
        told = self._ask_agent(domain)
        self.agents.note(seen.uuid, answered=told is not None)
        if told is None:
            return Agent.SILENT, addresses
        return Agent.ANSWERING, mapping.guest_addresses([*told, *addresses])

    def _ask_agent(self, domain: Any) -> list[str] | None:
        """Addresses from the guest itself: that it answers at all is the proof that the agent lives. None: it does
        not."""
        try:
            domain.agentSetResponseTimeout(AGENT_ANSWER_S, 0)
            interfaces = domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, 0)
        except libvirt.libvirtError as error:
            if error.get_error_code() in _AGENT_SILENT:
                return None
            raise
        return [
            address["addr"]
            for interface in interfaces.values()
            for address in interface["addrs"] or ()
        ]  # fmt: skip

    def _cannot(self, domain: Any, seen: mapping.Domain) -> dict[str, str]:
        cannot = {}
        if seen.uuid in self.replicated if self.replicated is not None else snapshots.checkpoints(domain):
            cannot.update(dict.fromkeys(("TakeSnapshot", "RevertSnapshot"), snapshots.REPLICATED))
        if not any(graphics.kind == "vnc" for graphics in seen.graphics):
            cannot["OpenScreen"] = "It has no VNC screen."
        return cannot


_AGENT_SILENT = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_AGENT_UNSYNCED,
    libvirt.VIR_ERR_OPERATION_INVALID,  # it was switched off meanwhile
    libvirt.VIR_ERR_OPERATION_TIMEOUT,
    libvirt.VIR_ERR_NO_SUPPORT,
)
