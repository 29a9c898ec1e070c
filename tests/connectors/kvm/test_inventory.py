"""What a host shows: guests that answer, listings that are whole, and changes told by events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from connectors.base import Agent, Cursor, Inventory, Machine, MachineRef, Power, PowerAction, SetPower
from connectors.errors import Unreachable
from connectors.kvm.connector import KvmConnector
from connectors.kvm.inventory import Agents
from tests.connectors.contract import clone, do, listing, made, new_key, ref, soon
from tests.connectors.kvm.worlds import LibvirtWorld
from tests.support.guests import run_in_guest, wait_for_agent
from tests.support.kvm_hosts import KvmHost


def shown(inventory: Inventory, machine: str) -> Machine:
    return next(found for found in inventory.machines if found.id == machine)


def follow(
    connector: KvmConnector,
    cursor: Cursor | None,
    machine: str,
    is_enough: Callable[[Machine], bool],
    limit_s: float = 90,
) -> tuple[list[Machine], Cursor | None]:
    """What incremental readings tell of a machine until it is enough, and where they ended."""
    told, until = list[Machine](), time.monotonic() + limit_s
    while not (told and is_enough(told[-1])):
        assert time.monotonic() < until, f"{told[-1:]}"
        time.sleep(0.2)
        inventory = connector.inventory(cursor, soon())
        assert not inventory.complete, "the cursor is honoured"
        cursor = inventory.cursor
        told += [found for found in inventory.machines if found.id == machine]
    return told, cursor


def is_settled(seen: Machine) -> bool:
    return bool(seen.addresses) and seen.agent is Agent.ANSWERING


def test_a_network_without_a_way_out_is_kept_apart(world: LibvirtWorld) -> None:
    world.conn.networkDefineXML("<network><name>exams</name><bridge name='exams0'/></network>")
    try:
        shown_networks = {net.name: (net.kind, net.is_isolated) for net in listing(world.connector()).networks}
    finally:
        world.conn.networkLookupByName("exams").undefine()
    assert shown_networks == {"default": ("nat", False), "exams": ("isolated", True)}


def test_a_guest_is_followed_from_silence_to_an_address(real: LibvirtWorld) -> None:
    connector = real.connector()
    machine = ref(real, made(real, connector, clone(real)))
    watcher = real.connector()
    cursor = listing(watcher).cursor
    do(real, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))
    told, cursor = follow(watcher, cursor, machine.id, is_settled)
    assert told[0].agent is Agent.SILENT, "power proves nothing"
    assert told[-1].agent is Agent.ANSWERING
    assert told[-1].addresses[0].startswith("192.168.122.")
    do(real, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.OFF))
    told, cursor = follow(watcher, cursor, machine.id, lambda seen: seen.power is Power.OFF)
    assert told[-1].agent is Agent.SILENT
    assert not told[-1].addresses


def test_an_agent_that_hangs_is_silent_though_its_channel_is_open(real: LibvirtWorld) -> None:
    machine = made(real, real.connector(), clone(real, power_on=True)).machine_id
    domain = real.conn.lookupByUUIDString(machine)
    wait_for_agent(domain)
    run_in_guest(domain, "/bin/sh", "-c", "(sleep 0.3; killall -STOP qemu-ga) >/dev/null 2>&1 &")
    time.sleep(1.5)
    began = time.monotonic()
    seen = shown(real.connector().inventory(None, soon(20)), machine)
    assert seen.agent is Agent.SILENT
    assert time.monotonic() - began < 8, "a guest that does not answer holds up the listing for seconds, not for ever"


def test_a_hung_agent_is_not_asked_again_at_every_reading() -> None:
    agents = Agents()
    agents.note("a", answered=False)
    assert agents.is_hung("a")
    agents.forget("a")
    assert not agents.is_hung("a"), "a new boot is a new agent"
    agents.note("a", answered=False)
    agents.note("a", answered=True)
    assert agents.has_answered("a")
    assert not agents.is_hung("a")


def test_a_host_its_networks_and_storages_are_shown(real: LibvirtWorld, host: KvmHost) -> None:
    inventory = listing(real.connector())
    assert inventory.hosts[0].id == f"00000000-0000-4000-8000-{host._slot:012d}"
    assert inventory.hosts[0].memory_mib > 1000
    assert [network.name for network in inventory.networks] == ["default"]
    small = next(storage for storage in inventory.storages if storage.name == "small")
    assert small.capacity_mib == 16
    assert small.is_up
    template = next(found for found in inventory.templates if found.id == real.template)
    assert (template.disk_mib, template.memory_mib, template.cannot) == (64, 128, "")
    assert template.storage in {storage.id for storage in inventory.storages}


def test_a_stopped_pool_is_shown_as_down(real: LibvirtWorld, host: KvmHost) -> None:
    pool = real.conn.storagePoolLookupByName(host.small_pool_name)
    pool.destroy()
    try:
        storages = {storage.name: storage.is_up for storage in listing(real.connector()).storages}
    finally:
        pool.create()
    assert storages == {"default": True, "small": False}


def test_free_storage_is_counted_again_as_disks_grow(real: LibvirtWorld, host: KvmHost) -> None:
    before = {storage.name: storage.free_mib for storage in listing(real.connector()).storages}
    host.run("dd", "if=/dev/zero", "of=/var/lib/libvirt/small/growth", "bs=1M", "count=8")
    try:
        after = {storage.name: storage.free_mib for storage in listing(real.connector()).storages}
    finally:
        host.run("rm", "/var/lib/libvirt/small/growth")
    assert before["small"] - after["small"] == 8


def test_a_storage_that_hangs_does_not_hold_up_the_listing(
    world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, calls = threading.Event(), list[int]()

    def hang(self: Any, flags: int = 0) -> int:
        calls.append(flags)
        gate.wait(20)
        return 0

    monkeypatch.setattr(libvirt.virStoragePool, "refresh", hang)
    monkeypatch.setattr("connectors.kvm.connector.REFRESH_WAIT_S", 0.1)
    monkeypatch.setattr("connectors.kvm.connector.REFRESH_EVERY_S", 0.0)
    connector = world.connector()
    try:
        for _ in range(3):
            assert connector.inventory(None, soon(5)).complete
    finally:
        gate.set()
    assert len(calls) == 1, "one look at a time"


def test_an_unstamped_machine_that_is_on_is_no_template(real: LibvirtWorld) -> None:
    domain = real.conn.lookupByUUIDString(real.template)
    domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    try:
        assert real.template not in {found.id for found in listing(real.connector()).templates}
    finally:
        domain.destroy()


def test_after_a_restart_of_the_daemon_an_old_cursor_gives_a_complete_listing(
    real: LibvirtWorld, host: KvmHost
) -> None:
    connector = real.connector()
    cursor = listing(connector).cursor
    host.kill_libvirtd()
    with pytest.raises(Unreachable):
        connector.inventory(cursor, soon(3))
    host.start_libvirtd()
    real.reconnect()
    assert connector.inventory(cursor, soon(20)).complete


# --- on libvirt's test driver ----------------------------------------------------------------------------------------


def test_a_machine_made_by_hand_is_shown_without_a_stamp(world: LibvirtWorld) -> None:
    world.conn.defineXML(
        "<domain type='test'><name>by hand</name><memory>1024</memory><os><type>hvm</type></os></domain>"
    )
    inventory = listing(world.connector())
    machine = next(found for found in inventory.machines if found.name == "by hand")
    assert machine.stamp is None
    assert machine.agent is Agent.ABSENT
    assert machine.cannot["OpenScreen"]
    template = next(found for found in inventory.templates if found.name == "by hand")
    assert template.cannot == "It has no disk."


def test_a_marked_template_is_no_machine_even_when_it_is_on(world: LibvirtWorld) -> None:
    domain = world.conn.lookupByUUIDString(world.template)
    mark = "<machine role='template'/>"
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, mark, "deskyard", "urn:deskyard:machine:1", 2)
    domain.create()
    inventory = listing(world.connector())
    domain.destroy()
    assert world.template not in {found.id for found in inventory.machines}
    assert next(found for found in inventory.templates if found.id == world.template).cannot == "It is switched on."


class Faulty:
    """A domain that answers one call with an error, everything else as it is."""

    def __init__(self, domain: Any, code: int) -> None:
        self._domain = domain
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def XMLDesc(self, *_: int) -> str:
        error = libvirt.libvirtError("it does not work")
        error.err = (self._code, libvirt.VIR_FROM_QEMU, "it does not work", 2, None, None, None, 0, 0)
        raise error


def list_with(world: LibvirtWorld, connector: KvmConnector, code: int, monkeypatch: pytest.MonkeyPatch) -> Inventory:
    """A listing in which one machine's XML cannot be had."""
    bad = made(world, connector, clone(world)).machine_id
    real_list = libvirt.virConnect.listAllDomains

    def listed(self: Any, flags: int = 0) -> list[Any]:
        return [Faulty(domain, code) if domain.UUIDString() == bad else domain for domain in real_list(self, flags)]

    monkeypatch.setattr(libvirt.virConnect, "listAllDomains", listed)
    inventory = connector.inventory(None, soon())
    assert bad not in {found.id for found in inventory.machines}
    return inventory


def test_one_unreadable_machine_makes_the_listing_partial(world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = world.connector()
    good = made(world, connector, clone(world)).machine_id
    inventory = list_with(world, connector, libvirt.VIR_ERR_INTERNAL_ERROR, monkeypatch)
    assert not inventory.complete, "an absence in it must not be believed"
    assert "desk-" in inventory.partial
    assert good in {found.id for found in inventory.machines}


def test_a_machine_that_vanishes_while_it_is_read_is_left_out(
    world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory = list_with(world, world.connector(), libvirt.VIR_ERR_NO_DOMAIN, monkeypatch)
    assert inventory.complete


def test_a_listing_that_runs_out_of_time_is_partial_and_has_no_cursor(
    world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = world.connector()
    for _ in range(3):
        made(world, connector, clone(world))
    slow = libvirt.virDomain.XMLDesc

    def after_a_while(self: Any, flags: int = 0) -> str:
        time.sleep(0.3)
        return str(slow(self, flags))

    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", after_a_while)
    inventory = connector.inventory(None, soon(1))
    assert not inventory.complete
    assert "time ran out" in inventory.partial
    assert inventory.cursor is None


def test_a_thousand_machines_are_listed(world: LibvirtWorld) -> None:
    xml = world.conn.lookupByUUIDString(world.template).XMLDesc()
    uuid, name = f"<uuid>{world.template}</uuid>", "<name>golden</name>"
    for number in range(1000):
        world.conn.defineXML(xml.replace(uuid, "").replace(name, f"<name>desk-{number}</name>"))
    inventory = world.connector().inventory(None, soon(30))
    assert inventory.complete
    assert len(inventory.machines) == 1001


def test_what_changed_is_read_and_nothing_else(world: LibvirtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    actor, watcher = world.connector(), world.connector()
    machines = [ref(world, made(world, actor, clone(world))) for _ in range(3)]
    cursor = listing(watcher).cursor
    read = list[str]()
    original = libvirt.virDomain.XMLDesc

    def counted(self: Any, flags: int = 0) -> str:
        read.append(self.name())
        return str(original(self, flags))

    _switch(world, actor, machines[0])
    monkeypatch.setattr(libvirt.virDomain, "XMLDesc", counted)
    until, told = time.monotonic() + 5, list[str]()
    while not told:
        assert time.monotonic() < until
        inventory = watcher.inventory(cursor, soon())
        told = [found.id for found in inventory.machines]
    assert told == [machines[0].id]
    assert set(read) == {world.names()[machines[0].id]}


def _switch(world: LibvirtWorld, connector: KvmConnector, machine: MachineRef) -> None:
    do(world, connector, SetPower(key=new_key(), machine=machine, action=PowerAction.ON))


def test_a_closed_connector_leaves_no_registration_behind(world: LibvirtWorld) -> None:
    """libvirt never frees a connection that still has one: each inventory session would leave a client at the host."""
    connector = world.connector()
    listing(connector)
    line = connector._endpoint.line(soon())
    connector.close()
    until = time.monotonic() + 5
    while line.is_alive or line._all:
        assert time.monotonic() < until
        time.sleep(0.01)
