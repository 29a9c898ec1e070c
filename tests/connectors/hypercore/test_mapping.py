"""HyperCore's records <-> our data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Agent, Power, Stamp
from connectors.hypercore import mapping
from connectors.hypercore.mapping import MIB, Marks

TEXT = st.text(max_size=40)


def record(**changes: Any) -> dict[str, Any]:
    return {
        "uuid": "vm-1", "name": "desk", "state": "RUNNING", "mem": 2048 * MIB, "numVCPU": 2, "nodeUUID": "n-1",
        "tags": "office,deskyard-i-a,deskyard-k-b", "guestAgentState": "UNAVAILABLE", "bootDevices": ["d-0"],
        "blockDevs": [
            {"uuid": "d-1", "type": "NVRAM", "capacity": 540_672, "slot": -1},
            {"uuid": "cd", "type": "IDE_CDROM", "capacity": 0, "slot": 0},
            {"uuid": "d-0", "type": "VIRTIO_DISK", "capacity": 20 * 1024 * MIB, "slot": 0, "cacheMode": "NONE"},
        ],
        "netDevs": [{"uuid": "n-0", "type": "VIRTIO", "vlan": 20, "ipv4Addresses": []}],
    } | changes  # fmt: skip


def test_a_machine_is_read() -> None:
    vm = mapping.read_vm(record())
    assert [disk.id for disk in vm.disks] == ["d-0", "d-1"], "no CD-ROM, and memories last"
    assert vm.nics[0].vlan == 20
    machine = mapping.machine_of(vm)
    assert (machine.id, machine.name, machine.power, machine.memory_mib) == ("vm-1", "desk", Power.ON, 2048)
    assert machine.stamp == Stamp("a", "b")
    assert machine.agent is Agent.SILENT


@pytest.mark.parametrize(
    ("state", "power"),
    [
        ("RUNNING", Power.ON),
        ("BLOCKED", Power.ON),
        ("PAUSED", Power.SUSPENDED),
        ("SHUTOFF", Power.OFF),
        ("SHUTDOWN", Power.OFF),
        ("CRASHED", Power.UNKNOWN),
        ("", Power.UNKNOWN),
    ],
)
def test_each_state_is_a_power(state: str, power: Power) -> None:
    assert mapping.read_vm(record(state=state)).power is power


def test_an_agent_that_told_an_address_has_answered() -> None:
    nics = [{"uuid": "n", "ipv4Addresses": ["169.254.3.3", "127.0.0.1", "10.1.2.3/24", "junk", "10.1.2.3"]}]
    machine = mapping.machine_of(mapping.read_vm(record(netDevs=nics)))
    assert machine.addresses == ("10.1.2.3",)
    assert machine.agent is Agent.ANSWERING
    off = mapping.machine_of(mapping.read_vm(record(netDevs=nics, state="SHUTOFF")))
    assert (off.addresses, off.agent) == ((), Agent.SILENT)


@pytest.mark.parametrize("missing", ["blockDevs", "netDevs", "tags", "mem", "bootDevices", "guestAgentState", "state"])
def test_what_is_missing_is_no_reason_to_fail(missing: str) -> None:
    for value in ({missing: None}, {}):
        given_record = {name: field for name, field in record().items() if name != missing} | value
        assert mapping.read_vm(given_record).id == "vm-1"


def test_a_record_without_id_is_none() -> None:
    with pytest.raises((KeyError, ValueError)):
        mapping.read_vm({"name": "x"})


def test_a_task_is_told_as_text_or_as_a_record() -> None:
    assert mapping.read_vm(record(latestTaskTag="77")).task == "77"
    vm = mapping.read_vm(record(latestTaskTag={"taskTag": "78", "state": "RUNNING"}))
    assert (vm.task, vm.has_task) == ("78", True)
    assert not mapping.read_vm(record(latestTaskTag={"taskTag": "78", "state": "COMPLETE"})).has_task


@given(installation=TEXT.filter(bool), key=TEXT.filter(bool), disks=st.lists(TEXT.filter(bool), max_size=3))
def test_marks_survive_being_written_as_tags(installation: str, key: str, disks: list[str]) -> None:
    marks = Marks(
        others=("office", "2nd floor"), stamp=Stamp(installation, key), is_template=True, exchanging=key,
        old_disks=tuple(disks), was_on=True, exchanged=key, restarted=installation,
    )  # fmt: skip
    assert mapping.read_marks(marks.text) == marks
    assert marks.text.startswith("office,2nd floor,")


@given(st.one_of(TEXT, st.none()))
def test_any_tags_can_be_read(tags: str | None) -> None:
    read = mapping.read_marks(tags)
    assert mapping.read_marks(read.text) == read


def test_half_a_stamp_is_none() -> None:
    assert mapping.read_marks("deskyard-i-a").stamp is None
    assert mapping.read_marks("deskyard-k-a").stamp is None


@pytest.mark.parametrize(
    ("text", "parameters", "filled"),
    [
        ("Unable to start %@: no memory on %@", ["desk", "n-1"], "Unable to start desk: no memory on n-1"),
        ("%2$@ cannot take %1$@", ["desk", "n-1"], "n-1 cannot take desk"),
        ("No parameter %@", [], "No parameter %@"),
        ("100% of %@", ["it"], "100% of it"),
        (None, None, ""),
    ],
)
def test_placeholders_are_filled_in(text: object, parameters: object, filled: str) -> None:
    assert mapping.filled(text, parameters) == filled


@pytest.mark.parametrize(("state", "way", "failed"), [
    ("QUEUED", True, False), ("RUNNING", True, False), ("COMPLETE", False, False), ("ERROR", False, True),
    ("UNINITIALIZED", False, True), ("SOMETHING NEW", False, False),
])  # fmt: skip
def test_each_state_of_a_task_is_known(state: str, way: bool, failed: bool) -> None:
    task = mapping.read_task({"taskTag": "1", "state": state, "progressPercent": 300})
    assert (task.is_under_way, task.has_failed, task.percent) == (way, failed, 100)


def test_a_snapshots_disks_are_those_of_the_machine_at_the_time() -> None:
    """`deviceSnapshots` has no types and sizes (field notes, "Snapshots")."""
    snapshot = mapping.read_snapshot(
        {
            "uuid": "s",
            "domainUUID": "vm-1",
            "label": "x",
            "deviceSnapshots": [{"uuid": "d-0", "serialNumber": 2}],
            "domain": {"blockDevs": record()["blockDevs"], "bootDevices": ["d-0"]},
        }
    )
    assert [disk.id for disk in snapshot.disks] == ["d-0", "d-1"]
    assert snapshot.boot == ("d-0",)


def test_a_boot_order_follows_the_source_device_by_device() -> None:
    two = [
        {"uuid": f"{who}{slot}", "type": "VIRTIO_DISK", "slot": slot, "capacity": 1} for who in "ab" for slot in (0, 1)
    ]
    source = mapping.read_vm(record(blockDevs=two[:2], bootDevices=["a1", "cd"]))
    copy = mapping.read_vm(record(blockDevs=two[2:], bootDevices=[]))
    assert mapping.boot_order(copy, source) == ("b1",)
    assert mapping.boot_order(copy, None) == ("b0", "b1")


@pytest.mark.parametrize(("network", "vlan"), [
    ("vlan-0", 0), ("vlan-20", 20), ("20", None), ("vlan-x", None), ("vlan-", None), ("", None), ("vlan-٣", None),
])  # fmt: skip
def test_networks_are_vlans(network: str, vlan: int | None) -> None:
    assert mapping.vlan_of(network) == vlan


def test_active_conditions_come_worst_first() -> None:
    records: list[dict[str, Any]] = [
        {"name": "a", "value": False, "severity": "CRITICAL", "description": "not now"},
        {"name": "b", "value": True, "severity": "WARNING", "description": "A fan is slow."},
        {"name": "c", "value": True, "severity": "CRITICAL", "description": "Tier full"},
        {"name": "d", "value": "true"},
        {"name": "e", "value": True},
    ]
    assert mapping.active_conditions(records) == ("Tier full", "A fan is slow", "e")


@pytest.mark.parametrize(("status", "updating"), [
    (None, False),
    ({}, True),
    ({"prepareStatus": {"state": "COMPLETE"}}, True),
    ({"updateStatus": {"masterState": "COMPLETE"}}, True),
    ({"prepareStatus": {"state": "COMPLETE"}, "updateStatus": {"masterState": "IN PROGRESS"}}, True),
    ({"prepareStatus": {"state": "COMPLETE"}, "updateStatus": {"masterState": "COMPLETE"}}, False),
])  # fmt: skip
def test_a_cluster_is_idle_only_if_both_states_say_so(status: dict[str, Any] | None, updating: bool) -> None:
    assert mapping.is_updating(status) is updating


def test_a_disk_is_copied_with_its_identity() -> None:
    disk = mapping.read_vm(record()).disks[0]
    body: Any = mapping.disk_from_snapshot(disk, "s", "vm-2")
    assert body["options"] == {"regenerateDiskID": False}
    assert body["snapUUID"] == "s"
    assert body["template"]["capacity"] == disk.capacity
    assert body["template"]["type"] == "VIRTIO_DISK"


def test_a_hosts_memory_is_bytes_and_online_is_not_enough() -> None:
    node = {"uuid": "n", "lanIP": "10.0.0.1", "memSize": 64 * 1024 * MIB, "numThreads": 16, "networkStatus": "ONLINE"}
    host = mapping.host_of(node)
    assert (host.name, host.memory_mib, host.vcpus, host.is_up) == ("10.0.0.1", 65_536, 16, True)
    for field in ("virtualizationOnline", "allowRunningVMs"):
        assert not mapping.host_of(node | {field: False}).is_up
    assert not mapping.host_of(node | {"networkStatus": "OFFLINE"}).is_up


def test_drives_that_take_no_part_hold_nothing() -> None:
    drives = [
        {"capacityBytes": 100 * MIB, "usedBytes": 30 * MIB, "currentDisposition": "IN"},
        {"capacityBytes": 100 * MIB, "usedBytes": 50 * MIB, "currentDisposition": "OUT"},
    ]
    cluster = mapping.read_cluster([{"uuid": "c", "clusterName": "hc3", "icosVersion": "9"}])
    storage = mapping.storage_of(cluster, [{"drives": drives}])
    assert (storage.capacity_mib, storage.free_mib) == (100, 70)
    assert mapping.storage_of(cluster, [{"drives": drives, "capacity": 80 * MIB}]).free_mib == 50
