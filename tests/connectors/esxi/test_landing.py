"""Machines brought up from recovery points: bytes, hardware, networks; what is left of landings that do not end."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.base import MachineRef, PowerAction, SetPower, Stamp
from connectors.errors import CapacityExhausted, Conflict, ConnectorError, NotFound, Unsupported
from connectors.esxi.connector import EsxiConnector
from connectors.replication import Landing, LandingWish, Lands
from disks.base import Sink
from disks.copying import copy
from disks.errors import DiskError, OutOfSpace, SinkLost
from disks.vault.points import Configuration, Drive, Nic
from lab.nouns import Power
from tests.connectors import templates
from tests.connectors.contract import OURS, do, listing, new_key, soon
from tests.connectors.esxi.points import MIB, advance, machine_with, noise, now, release, saved, take
from tests.connectors.esxi.worlds import EsxiWorld, stamp_of

MAC = "52:54:00:12:34:56"
POINT = Configuration(
    vcpus=2, memory_mib=2048, firmware="bios", nics=(Nic("vmxnet3", MAC, "VM Network"),),
    disks=(Drive("scsi0:0", "pvscsi", 8 * MIB),),
)  # fmt: skip


def land(connector: EsxiConnector, configuration: Configuration = POINT, **wish: Any) -> Landing:
    told = {"key": new_key(), "name": "landed", "storage": "datastore-11", "networks": ("network-13",)} | wish
    return connector.land(LandingWish(configuration=configuration, **told), soon(30))


def fill(landing: Landing, configuration: Configuration = POINT, seed: int = 1) -> list[bytes]:
    """Every disk begins and ends with noise; all of each."""
    written = []
    for number, disk in enumerate(configuration.disks):
        sink = landing.open(disk.name)
        data = noise(100_000, seed + number)
        sink.write(0, data)
        sink.write(disk.size - 512, data[:512])
        sink.commit()
        written.append(data + bytes(disk.size - 512 - len(data)) + data[:512])
    return written


def landed(connector: EsxiConnector, configuration: Configuration = POINT, **wish: Any) -> MachineRef:
    landing = land(connector, configuration, **wish)
    fill(landing, configuration)
    made = landing.finish(soon(30))
    landing.close()
    return made


def nothing_is_left(world: EsxiWorld, workdir: Path) -> bool:
    return not world.machines() and not world.litter() and not list(workdir.glob("*.vmdk"))


# --- a machine -------------------------------------------------------------------------------------------------------


def test_a_machine_comes_back_byte_for_byte_and_is_read_again(world: EsxiWorld, tmp_path: Path) -> None:
    connector, source = world.connector(), machine_with(world, 16, 8)
    assert isinstance(connector, Lands)
    before = [now(world, source, disk) for disk in range(2)]
    point = take(connector, source)
    key = new_key()
    landing = land(connector, point.configuration, key=key)
    for disk in point.configuration.disks:
        opened, sink = point.open(disk.name), landing.open(disk.name)
        copy(opened, sink)
        sink.commit()
        opened.close()
    seen_before = listing(connector)
    listed = {one.name for one in seen_before.machines} | {one.name for one in seen_before.templates}
    assert listed == {"golden", "work"}, "it exists from finish on"
    made = landing.finish(soon(30))
    landing.close()
    release(connector, source)
    assert made.stamp == Stamp(OURS, key)
    assert [now(world, made, disk) for disk in range(2)] == before
    machine = world.machine(made.id)
    assert (machine.name, machine.power, machine.vcpus, machine.memory_mib) == ("landed", Power.OFF, 3, 3072)
    assert stamp_of(machine) == made.stamp
    seen = next(one for one in listing(connector).machines if one.name == "landed")
    assert (seen.id, seen.stamp) == (made.id, made.stamp)
    again = take(connector, made)
    assert [disk.size for disk in again.configuration.disks] == [16 * MIB, 8 * MIB]
    assert [saved(again.open(disk.name), tmp_path / disk.name) for disk in again.configuration.disks] == before
    release(connector, made)
    do(world, connector, SetPower(key=new_key(), machine=made, action=PowerAction.ON))
    world.clock.advance(60)
    with world.world:
        assert world.machine(made.id).guest.is_up
    assert not list(tmp_path.glob("*.vmdk"))


def test_twice_under_one_key_is_one_machine(world: EsxiWorld) -> None:
    key = new_key()
    made = landed(world.connector(), key=key)
    landing = land(world.connector(), key=key)
    assert landing.is_done
    with pytest.raises(Conflict, match="stands already"):
        landing.open("scsi0:0")
    assert [landing.finish(soon()), landing.finish(soon())] == [made, made]
    landing.close()
    world.connector().clear(key, soon())
    assert list(world.machines().values()) == [made.stamp], "a finished one is left alone"


def test_firmware_cards_and_places_are_kept_where_vsphere_has_them(vcenter: EsxiWorld) -> None:
    wished = dataclasses.replace(
        POINT,
        firmware="uefi",
        secure_boot=True,
        nics=(Nic("e1000", MAC, "a"), Nic("virtio", "52:54:00:12:34:57", "b"), Nic("vmxnet3", "", "c")),
        disks=(
            Drive("a", "lsilogic", 8 * MIB), Drive("b", "lsilogic", 9 * MIB), Drive("c", "sata", 10 * MIB),
            Drive("d", "virtio", 11 * MIB),
        ),
    )  # fmt: skip
    connector = vcenter.connector()
    landing = land(connector, wished, networks=("dvportgroup-14", "", "network-13"), host="host-10")
    told = " ".join(landing.warnings)
    assert "not known to boot on pvscsi" in told
    assert "Network card 2 is a new one for the system, e1000e" in told
    fill(landing, wished)
    machine = vcenter.machine(landing.finish(soon(30)).id)
    landing.close()
    marks = machine.marks
    assert (marks["firmware"], marks["secure"], machine.host) == ("efi", True, "host-10")
    kinds = [tuple(one) for one in marks["hung"]]
    assert kinds[:2] == [("VirtualLsiLogicController", 0, 0), ("VirtualLsiLogicController", 0, 1)]
    assert kinds[2:] == [("VirtualAHCIController", 0, 0), ("VirtualAHCIController", 0, 1)]
    assert list(marks["cards"].values()) == ["VirtualE1000", "VirtualE1000e", "VirtualVmxnet3"]
    assert [(nic.network, nic.is_connected) for nic in machine.nics] == [
        ("dvportgroup-14", True), ("dvportgroup-14", False), ("network-13", True),
    ]  # fmt: skip
    assert [nic.mac for nic in machine.nics[:2]] == [MAC, "52:54:00:12:34:57"]


def test_a_card_that_nobody_wished_a_network_for_is_not_connected(world: EsxiWorld) -> None:
    (nic,) = world.machine(landed(world.connector(), networks=("",)).id).nics
    assert not nic.is_connected


def test_a_hardware_address_that_another_machine_has_is_not_given_twice(world: EsxiWorld) -> None:
    connector = world.connector()
    first = landed(connector)
    landing = land(connector, name="second")
    assert MAC in " ".join(landing.warnings)
    fill(landing)
    second = landing.finish(soon(30))
    landing.close()
    assert world.machine(first.id).nics[0].mac == MAC != world.machine(second.id).nics[0].mac


def test_a_disk_of_broken_kib_is_made_a_little_larger(vcenter: EsxiWorld) -> None:
    wished = dataclasses.replace(POINT, disks=(Drive("vda", "ide", 8 * MIB + 512),))
    connector = vcenter.connector()
    landing = land(connector, wished)
    (written,) = fill(landing, wished)
    made = landing.finish(soon(30))
    landing.close()
    assert now(vcenter, made) == written + bytes(512)


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "kind", "words"),
    [
        ({"storage": "datastore-99"}, NotFound, "Storage datastore-99 is not on"),
        ({"networks": ("network-99",)}, NotFound, "Network network-99 is not on"),
        ({"host": "host-99"}, NotFound, "Host host-99 is not"),
        ({"host": "resgroup-99"}, NotFound, "resgroup-99 is not"),
        ({"networks": ("network-13", "network-13")}, Unsupported, "2 networks were named"),
        ({"name": " "}, Unsupported, "name is empty"),
        ({"configuration": dataclasses.replace(POINT, disks=())}, Unsupported, "holds no disk"),
    ],
    ids=["storage", "network", "host", "pool", "networks", "name", "no disk"],
)
def test_what_cannot_be_is_said_in_words(
    wish: dict[str, Any], kind: type[ConnectorError], words: str, world: EsxiWorld, tmp_path: Path
) -> None:
    if "host" in wish and world.is_esxi:
        words = "is not behind"
    with pytest.raises(kind, match=words):
        land(world.connector(), **wish)
    assert nothing_is_left(world, tmp_path)


def test_a_name_that_is_taken_is_a_conflict_at_once(world: EsxiWorld) -> None:
    machine = machine_with(world, name="landed")
    with pytest.raises(Conflict, match="already has a machine named 'landed'"):
        land(world.connector())
    assert list(world.machines()) == [machine.id]


def test_a_machine_of_somebody_else_with_that_uuid_is_not_touched(world: EsxiWorld) -> None:
    connector, key = world.connector(), new_key()
    with world.world as within:
        within.create("theirs", disks_mib=(8,), id=key)
    for call in (lambda: land(connector, key=key), lambda: connector.clear(key, soon())):
        with pytest.raises(Conflict, match="is not ours"):
            call()
    assert list(world.machines()) == [key]


def test_a_full_storage_is_told_before_and_while_disks_are_sent(world: EsxiWorld, tmp_path: Path) -> None:
    connector, key = world.connector(), new_key()
    with world.world as within:
        within.fill("datastore-11")
    with pytest.raises(CapacityExhausted):
        land(connector, key=key)
    with world.world as within:
        within.drain("datastore-11")
    landing = land(connector, key=key)
    with world.world as within:
        within.fill("datastore-11")
    sink = landing.open("scsi0:0")
    for at in range(4):
        sink.write(at * MIB, noise(MIB, at))
    with pytest.raises(OutOfSpace, match="No room for disk"):
        sink.commit()
    sink.abandon()
    landing.close()
    connector.clear(key, soon(30))
    assert nothing_is_left(world, tmp_path)


# --- what is left ----------------------------------------------------------------------------------------------------


def half(landing: Landing) -> Sink:
    sink = landing.open("scsi0:0")
    sink.write(0, noise(MIB))
    return sink


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "status"])
def test_a_disk_whose_sending_breaks_off_can_be_begun_anew(fault: str, world: EsxiWorld, tmp_path: Path) -> None:
    connector, key = world.connector(), new_key()
    landing = land(connector, key=key)
    sink = half(landing)
    world.faults.add(fault, "^POST /nfc")
    with pytest.raises(SinkLost) as lost:
        sink.commit()
    assert lost.value.retry
    sink.abandon()
    with pytest.raises(Conflict, match="not there in whole"):
        landing.finish(soon())
    landing.close()
    connector.clear(key, soon(30))
    assert nothing_is_left(world, tmp_path)
    landed(connector, key=key)
    assert len(world.machines()) == 1


def test_a_session_that_ends_takes_the_import_with_it(world: EsxiWorld, tmp_path: Path) -> None:
    connector, key = world.connector(), new_key()
    landing = land(connector, key=key)
    sink = half(landing)
    world.server.expire_sessions()
    with pytest.raises(DiskError) as lost:
        sink.commit()
    assert lost.value.retry
    with pytest.raises(NotFound, match="vSphere ended the import"):
        landing.finish(soon())
    landing.close()
    connector.clear(key, soon(30))
    assert nothing_is_left(world, tmp_path)


def test_what_a_dead_mover_was_making_goes_by_itself_or_is_cleared(world: EsxiWorld, tmp_path: Path) -> None:
    key = new_key()
    world.server.leases.timeout_s = 60.0
    landing = land(world.connector(), key=key)
    half(landing).abandon()
    landing._lease.let_go()  # type: ignore[attr-defined]  # nobody tells any more
    assert len(world.machines()) == 1
    world.connector().clear(key, soon(30))
    assert nothing_is_left(world, tmp_path)


def test_an_attempt_that_was_never_ended_is_replaced_by_the_next(world: EsxiWorld) -> None:
    key = new_key()
    world.server.leases.timeout_s = 60.0
    first = land(world.connector(), key=key)
    first._lease.let_go()  # type: ignore[attr-defined]
    world.server.leases.timeout_s = 300.0
    landed(world.connector(), key=key)
    assert len(world.machines()) == 1


def test_a_landing_that_is_closed_before_its_end_is_given_up(world: EsxiWorld, tmp_path: Path) -> None:
    landing = land(world.connector())
    half(landing).abandon()
    landing.close()
    assert nothing_is_left(world, tmp_path)


@pytest.mark.parametrize("method", ["HttpNfcLeaseComplete", "ReconfigVM_Task"])
@pytest.mark.parametrize("fault", ["drop_before", "drop_after"])
def test_finishing_goes_on_where_an_answer_was_lost(method: str, fault: str, world: EsxiWorld) -> None:
    connector, key = world.connector(), new_key()
    landing = land(connector, key=key)
    (written,) = fill(landing)
    world.faults.add(fault, f"^{method}$")
    with pytest.raises(ConnectorError):
        landing.finish(soon())
    made = landing.finish(soon(30))
    landing.close()
    assert world.machines() == {made.id: Stamp(OURS, key)}
    assert now(world, made) == written


def test_a_machine_that_has_its_disks_and_no_name_yet_is_cleared(world: EsxiWorld, tmp_path: Path) -> None:
    connector, key = world.connector(), new_key()
    landing = land(connector, key=key)
    fill(landing)
    world.faults.add("task_fails", "^VirtualMachine.reconfigure$")
    with pytest.raises(ConnectorError):
        landing.finish(soon())
    landing.close()
    assert len(world.machines()) == 1
    world.connector().clear(key, soon(30))
    assert nothing_is_left(world, tmp_path)


def test_an_import_is_kept_alive_however_long_its_disks_take(vcenter: EsxiWorld) -> None:
    connector = vcenter.connector()
    vcenter.clock.speed = 1.0
    vcenter.server.leases.timeout_s = 1.0
    vcenter.world.task_s["VirtualMachine.reconfigure"] = 0.0
    landing = land(connector)
    sink = half(landing)
    give_up_at = time.monotonic() + 20
    while not any(len(lease.told) > 8 for lease in vcenter.server.leases.there.values()):  # longer than one lasts
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    sink.commit()
    made = landing.finish(soon(30))
    landing.close()
    assert now(vcenter, made)[:MIB] == noise(MIB)


def test_a_call_keeps_its_deadline_though_vsphere_hangs(vcenter: EsxiWorld) -> None:
    vcenter.faults.add("hang", "^ImportVApp$")
    began = time.monotonic()
    with pytest.raises(ConnectorError):
        vcenter.connector().land(
            LandingWish(key=new_key(), name="landed", configuration=POINT, storage="datastore-11"), began + 2
        )
    assert time.monotonic() - began < 4


def test_sending_goes_on_in_slices_and_is_given_up_when_nobody_wants_it(vcenter: EsxiWorld, tmp_path: Path) -> None:
    connector, key = vcenter.connector(), new_key()
    landing = land(connector, key=key)
    sink = half(landing)
    assert advance(sink).startswith("Compresses disk scsi0:0")
    sink.abandon()
    sink = half(landing)
    said = set()
    while words := advance(sink):
        said.add(words)
    assert "Sends disk scsi0:0: 100 %" in said
    sink.commit()
    made = landing.finish(soon(30))
    landing.close()
    assert now(vcenter, made)[:MIB] == noise(MIB)
    give_up_at = time.monotonic() + 20
    while list(tmp_path.glob("*landing-*")):  # QEMU was at the first one still
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


# --- a template ------------------------------------------------------------------------------------------------------


def test_a_landed_template_is_listed_cloned_from_and_kept(world: EsxiWorld) -> None:
    connector, key = world.connector(), new_key()
    landing = land(connector, key=key, is_template=True)
    holds = fill(landing)
    made = landing.finish(soon(30))
    landing.close()
    assert made.stamp is None
    assert world.machine(made.id).is_template is not world.is_esxi
    templates.prove(world, connector, made, key, holds, lambda machine: [now(world, machine)])
    again = land(world.connector(), key=key, is_template=True)
    assert again.is_done
    assert again.finish(soon()) == made
    again.close()
    world.connector().clear(key, soon())
    assert world.machine(made.id).name == "landed", "a finished one is left alone"


def test_a_template_that_was_named_and_not_yet_marked_is_marked_by_the_next_attempt(vcenter: EsxiWorld) -> None:
    connector, key = vcenter.connector(), new_key()
    landing = land(connector, key=key, is_template=True)
    fill(landing)
    vcenter.faults.add("drop_before", "^CreateSnapshot_Task$")
    with pytest.raises(ConnectorError):
        landing.finish(soon())
    landing.close()
    again = land(vcenter.connector(), key=key, is_template=True)
    assert again.is_done
    machine = vcenter.machine(again.finish(soon(30)).id)
    assert machine.is_template
    assert [point.name for point in machine.snapshots.values()] == ["deskyard-base"]


def test_an_account_that_may_mark_no_template_makes_one_all_the_same_and_says_so(vcenter: EsxiWorld) -> None:
    connector, key = vcenter.connector(), new_key()
    vcenter.world.forbidden.add("VirtualMachine.Provisioning.MarkAsTemplate")
    landing = land(connector, key=key, is_template=True)
    holds = fill(landing)
    made = landing.finish(soon(30))
    assert "lacks the right to mark one" in " ".join(landing.warnings)
    landing.close()
    templates.prove(vcenter, connector, made, key, holds, lambda machine: [now(vcenter, machine)])
