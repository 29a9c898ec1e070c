"""Machines brought up on a simulated cluster from recovery points: their disks, and what is left of those that were
not finished."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from connectors.base import MachineRef, Stamp
from connectors.errors import CapacityExhausted, Conflict, ConnectorError, NotFound, Unreachable, Unsupported
from connectors.hypercore import hardware
from connectors.hypercore.connector import HyperCoreConnector
from connectors.hypercore.landing import image_prefix
from connectors.replication import Landing, LandingWish, Lands, PointWish
from disks.base import Sink, Slow
from disks.copying import copy
from disks.errors import DiskError, OutOfSpace, SinkLost, SinkRefused
from disks.raw import RawSource
from disks.vault.points import Configuration, Drive, Nic
from lab.hypercore import uploads
from lab.hypercore.devices import MIB, extra_of
from lab.nouns import Machine, Power
from tests.connectors import templates
from tests.connectors.contract import OURS, THEIRS, listing, new_key, soon
from tests.connectors.hypercore.worlds import HyperCoreWorld

SIZE = 16 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """What is to be on the disks: something at both ends and in the middle, else nothing."""
    path = tmp_path / "point.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for at in (0, 7 * MIB + 512, SIZE - 4096):
            file.seek(at)
            file.write(bytes(range(256)) * 16)
    return path


def wish(world: HyperCoreWorld, *drives: Drive, **how: Any) -> LandingWish:
    configuration = Configuration(
        vcpus=how.pop("vcpus", 2),
        memory_mib=1024,
        firmware=how.pop("firmware", "bios"),
        secure_boot=how.pop("secure_boot", False),
        nics=how.pop("nics", ()),
        disks=drives or (Drive("disk", "virtio", SIZE),),
    )
    told: dict[str, Any] = {"key": new_key(), "name": "landed", "storage": world.cluster.id, **how}
    return LandingWish(configuration=configuration, **told)


def fill(sink: Sink, content: Path) -> None:
    source = RawSource(content)
    try:
        copy(source, sink)
        sink.commit()
    except BaseException:
        sink.abandon()
        raise
    finally:
        source.close()


def landed(connector: HyperCoreConnector, wanted: LandingWish, content: Path) -> MachineRef:
    landing = connector.land(wanted, soon())
    if not landing.is_done:
        for drive in wanted.configuration.disks:
            fill(landing.open(drive.name), content)
    try:
        return landing.finish(soon())
    finally:
        landing.close()


def nothing_is_left(world: HyperCoreWorld, tmp_path: Path, machines: int = 0) -> None:
    world.clock.advance(10)
    with world.lab:
        assert len(world.lab.machines) == 1 + machines
        assert world.cluster.virtual_disks == {}
        held = {device.disk for one in world.lab.machines.values() for device in extra_of(world.lab, one).devices}
        assert set(world.lab.disks) == held
    assert not list(tmp_path.glob("hypercore-disks-*"))


def is_up(world: HyperCoreWorld, machine: str) -> bool:
    until = time.monotonic() + 5
    while time.monotonic() < until:
        with world.lab:
            if world.found(machine).guest.is_up:
                return True
        world.clock.advance(1)
    return False


# --- the machine -----------------------------------------------------------------------------------------------------


def test_a_landed_machine_has_the_disks_byte_for_byte_and_starts(
    world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    connector = world.connector()
    assert isinstance(connector, Lands)
    nics = (Nic("virtio", "52:54:00:00:00:01", "LAN"), Nic("e1000", "52:54:00:00:00:02", "x"))
    wanted = wish(world, Drive("a", "virtio", SIZE), Drive("b", "scsi", SIZE), nics=nics, networks=("vlan-20", ""))
    reference = landed(connector, wanted, disk)
    assert reference.stamp == Stamp(OURS, wanted.key)
    assert world.machines() == {reference.id: Stamp(OURS, wanted.key)}
    assert world.content(reference.id, 0) == world.content(reference.id, 1) == disk.read_bytes()
    machine = world.found(reference.id)
    assert (machine.name, machine.power, machine.vcpus, machine.memory_mib) == ("landed", Power.OFF, 2, 1024)
    assert [device.type for device in devices(world, machine)] == ["VIRTIO_DISK", "SCSI_DISK"]
    with world.lab:
        assert [(nic.mac, world.lab.networks[nic.network].vlan, nic.is_connected) for nic in machine.nics] == [
            ("52:54:00:00:00:01", 20, True), ("52:54:00:00:00:02", 0, False),
        ]  # fmt: skip
    nothing_is_left(world, tmp_path, machines=1)
    with world.lab:
        world.cluster.action([{"virDomainUUID": machine.id, "actionType": "START"}])
    assert is_up(world, machine.id)


def devices(world: HyperCoreWorld, machine: Machine) -> list[Any]:
    with world.lab:
        return extra_of(world.lab, machine).devices


def test_one_byte_that_differs_is_noticed(world: HyperCoreWorld, disk: Path) -> None:
    reference = landed(world.connector(), wish(world), disk)
    with disk.open("r+b") as file:
        file.seek(7 * MIB + 600)
        file.write(b"!")
    assert world.content(reference.id) != disk.read_bytes()


def test_what_landed_can_be_read_again_and_is_the_same(sharing: HyperCoreWorld, disk: Path) -> None:
    connector = sharing.connector()
    wanted = wish(
        sharing, Drive("a", "ide", SIZE), nics=(Nic("virtio", "52:54:00:00:00:01", ""),), networks=("vlan-0",)
    )
    machine = landed(connector, wanted, disk)
    point = connector.take_point(PointWish(machine=machine, key=new_key()), soon())
    assert point.configuration.disks == (Drive("ide0", "ide", SIZE),)
    assert point.configuration.vcpus == 2
    source = point.open("ide0")
    assert source.size == SIZE
    again = dataclasses.replace(wish(sharing, *point.configuration.disks), name="again")
    landing = connector.land(again, soon())
    sink = landing.open("ide0")
    copy(source, sink)
    sink.commit()
    source.close()
    assert sharing.content(landing.finish(soon()).id) == disk.read_bytes()
    connector.release(machine, (), soon())


def test_a_machine_with_uefi_has_a_place_for_its_variables(world: HyperCoreWorld, disk: Path) -> None:
    wanted = wish(world, firmware="uefi", secure_boot=True)
    landing = world.connector().land(wanted, soon())
    assert any("Secure Boot" in warning for warning in landing.warnings)
    fill(landing.open("disk"), disk)
    machine = world.found(landing.finish(soon()).id)
    assert extra_of(world.lab, machine).machine_type_keyword == "uefi"
    assert [device.type for device in devices(world, machine)] == ["NVRAM", "VIRTIO_DISK"]


def test_a_wished_node_is_preferred(world: HyperCoreWorld, disk: Path) -> None:
    node = list(world.lab.hosts)[1]
    machine = world.found(landed(world.connector(), wish(world, host=node), disk).id)
    assert extra_of(world.lab, machine).affinity["preferredNodeUUID"] == node


def test_a_network_card_keeps_its_address_where_nobody_else_has_it(world: HyperCoreWorld, disk: Path) -> None:
    taken = world.machine().nics[0].mac
    wanted = wish(world, nics=(Nic("virtio", taken.upper(), ""),), networks=("vlan-20",))
    landing = world.connector().land(wanted, soon())
    fill(landing.open("disk"), disk)
    machine = world.found(landing.finish(soon()).id)
    assert machine.nics[0].mac != taken
    assert landing.warnings == (f"Network card 1 has another address than before: a machine here has {taken} already.",)


def test_disks_hang_where_the_system_boots(world: HyperCoreWorld) -> None:
    def kinds(*buses: str, booted_on: tuple[str, ...] = ()) -> list[tuple[str, int]]:
        drives = [Drive(str(place), bus, SIZE) for place, bus in enumerate(buses)]
        return [(one.type, one.slot) for one in hardware.decide(wish(world, *drives, booted_on=booted_on)).disks]

    assert kinds("virtio", "VIRTIO_DISK") == [("VIRTIO_DISK", 0), ("VIRTIO_DISK", 1)]
    assert kinds("pvscsi", "virtio-scsi", "SCSI") == [("SCSI_DISK", 0), ("SCSI_DISK", 1), ("SCSI_DISK", 2)]
    assert kinds("IDE_DISK", "nvme", "sata") == [("IDE_DISK", 0), ("IDE_DISK", 1), ("IDE_DISK", 2)]
    assert kinds("nvme", booted_on=("virtio",)) == [("VIRTIO_DISK", 0)]
    assert kinds(*["ide"] * 5) == [
        ("IDE_DISK", 0),
        ("IDE_DISK", 1),
        ("IDE_DISK", 2),
        ("IDE_DISK", 3),
        ("VIRTIO_DISK", 0),
    ]


def test_what_could_not_be_kept_is_said_in_sentences(world: HyperCoreWorld) -> None:
    nics = (Nic("vmxnet3", "", ""), Nic("VIRTIO", "", ""), Nic("RTL8139", "", ""))
    found = hardware.decide(wish(world, *[Drive(str(n), "nvme", SIZE) for n in range(5)], nics=nics))
    assert [nic.type for nic in found.nics] == ["INTEL_E1000", "VIRTIO", "RTL8139"]
    assert [warning.split(":")[0] for warning in found.warnings] == [
        "The disks hang on IDE", "Disk 4 hangs on VIRTIO", "Network card 1 is an Intel E1000",
    ]  # fmt: skip


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_in_words(world: HyperCoreWorld, disk: Path, tmp_path: Path) -> None:
    connector = world.connector()
    with pytest.raises(NotFound, match="no storage nowhere"):
        connector.land(wish(world, storage="nowhere"), soon())
    with pytest.raises(NotFound, match="no network 'blue'"):
        connector.land(wish(world, nics=(Nic("virtio", "", ""),), networks=("blue",)), soon())
    with pytest.raises(NotFound, match="no node nowhere"):
        connector.land(wish(world, host="nowhere"), soon())
    with pytest.raises(Conflict, match="already has a machine named 'golden'"):
        connector.land(wish(world, name="golden"), soon())
    wanted = wish(world)
    diskless = dataclasses.replace(wanted, configuration=dataclasses.replace(wanted.configuration, disks=()))
    with pytest.raises(Unsupported, match="holds no disk"):
        connector.land(diskless, soon())
    with pytest.raises(NotFound, match="holds no disk 'other'"):
        connector.land(wish(world), soon()).open("other")
    nothing_is_left(world, tmp_path)


def test_a_full_tier_is_told_before_anything_is_sent(world: HyperCoreWorld) -> None:
    world.cluster.tier_percent = 95
    with pytest.raises(CapacityExhausted, match="95% full"):
        world.connector().land(wish(world), soon())


def test_a_full_storage_is_told_and_nothing_is_left(world: HyperCoreWorld, disk: Path, tmp_path: Path) -> None:
    wanted, connector = wish(world), world.connector()
    with world.lab:
        world.lab.fill(next(iter(world.lab.storages)))
    landing = connector.land(wanted, soon())
    with pytest.raises(OutOfSpace, match="no room"):
        fill(landing.open("disk"), disk)
    connector.clear(wanted.key, soon())
    nothing_is_left(world, tmp_path)


def test_a_storage_that_is_full_once_the_disks_are_attached_is_told_too(
    world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted, connector = wish(world), world.connector()
    landing = connector.land(wanted, soon())
    fill(landing.open("disk"), disk)
    with world.lab:
        world.lab.fill(next(iter(world.lab.storages)))
    with pytest.raises(CapacityExhausted):
        landing.finish(soon())
    connector.clear(wanted.key, soon())
    nothing_is_left(world, tmp_path)


# --- once, and what is left ------------------------------------------------------------------------------------------


def test_landing_twice_under_one_key_makes_one_machine(world: HyperCoreWorld, disk: Path, tmp_path: Path) -> None:
    wanted = wish(world)
    first = landed(world.connector(), wanted, disk)
    again = world.connector().land(wanted, soon())
    assert again.is_done
    with pytest.raises(Conflict, match="stands already"):
        again.open("disk")
    assert again.finish(soon()) == again.finish(soon()) == first
    world.connector().clear(wanted.key, soon())
    assert list(world.machines()) == [first.id]
    nothing_is_left(world, tmp_path, machines=1)


@pytest.mark.parametrize("commits", [False, True])
def test_a_landing_that_nobody_goes_on_with_is_cleared_by_another_object(
    commits: bool, world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted = wish(world, Drive("a", "virtio", SIZE), Drive("b", "virtio", SIZE))
    landing = world.connector().land(wanted, soon())
    fill(landing.open("a"), disk)
    unfinished = landing.open("b")
    unfinished.write(0, b"half")
    with pytest.raises(Conflict, match="Disk b"):
        landing.finish(soon())
    if not commits:
        unfinished.abandon()
        unfinished.abandon()
    else:
        unfinished.commit()
    for _ in range(2):
        world.connector().clear(wanted.key, soon())
    nothing_is_left(world, tmp_path)


CALLS = (
    r"^POST /rest/v1/VirDomain ",
    r"^POST /rest/v1/VirtualDisk/.+/attach",
    r"^POST /rest/v1/VirDomainNetDevice",
    r"^PATCH /rest/v1/VirDomain/",
    r"^DELETE /rest/v1/VirtualDisk/",
)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("goes_on", [True, False])
def test_a_finish_whose_answer_is_lost_is_finished_or_cleared(
    call: str, goes_on: bool, world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted = wish(world, nics=(Nic("virtio", "", ""),), networks=("vlan-20",))
    connector = world.connector()
    landing = connector.land(wanted, soon())
    fill(landing.open("disk"), disk)
    world.faults.add("drop_after", call)
    with pytest.raises(Unreachable):
        landing.finish(soon())
    is_made = call.startswith(("^PATCH", "^DELETE"))
    if goes_on:
        reference = landing.finish(soon())
        assert world.machines() == {reference.id: Stamp(OURS, wanted.key)}
        assert world.content(reference.id) == disk.read_bytes()
    else:
        connector.clear(wanted.key, soon())
    nothing_is_left(world, tmp_path, machines=1 if goes_on or is_made else 0)


def test_a_second_attempt_begins_anew_and_the_first_one_makes_nothing_of_it(
    world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted = wish(world)
    first = world.connector().land(wanted, soon())
    fill(first.open("disk"), disk)
    second = world.connector().land(wanted, soon())
    assert world.cluster.virtual_disks == {}
    fill(second.open("disk"), disk)
    with pytest.raises(Conflict, match="not there in whole"):
        first.finish(soon())
    second.finish(soon())
    nothing_is_left(world, tmp_path, machines=1)


def test_what_is_in_the_making_is_in_no_inventory_and_nobodys_machine(world: HyperCoreWorld, disk: Path) -> None:
    wanted, connector = wish(world), world.connector()
    landing = connector.land(wanted, soon())
    fill(landing.open("disk"), disk)
    world.faults.add("drop_before", r"^POST /rest/v1/VirtualDisk/.+/attach")
    with pytest.raises(Unreachable):
        landing.finish(soon())
    assert len(world.lab.machines) == 2
    found = listing(connector)
    assert [template.name for template in found.templates] == ["golden"]
    assert not found.machines
    connector.clear(wanted.key, soon())


def test_what_another_installation_makes_is_left_alone(world: HyperCoreWorld, disk: Path) -> None:
    wanted = wish(world)
    theirs = world.connector(THEIRS).land(wanted, soon())
    fill(theirs.open("disk"), disk)
    ours = world.connector().land(wanted, soon())
    fill(ours.open("disk"), disk)
    world.connector().clear(wanted.key, soon())
    (kept,) = world.cluster.virtual_disks.values()
    assert kept.name.startswith(image_prefix(THEIRS, wanted.key))
    reference = theirs.finish(soon())
    world.connector().clear(wanted.key, soon())
    assert world.machines() == {reference.id: Stamp(THEIRS, wanted.key)}


# --- the wire --------------------------------------------------------------------------------------------------------


def test_an_upload_says_how_far_it_is(world: HyperCoreWorld, disk: Path) -> None:
    world.cluster.converting_s = 20.0
    landing = world.connector().land(wish(world), soon())
    sink, source, said = landing.open("disk"), RawSource(disk), []
    copy(source, sink)
    source.close()
    assert isinstance(sink, Slow)
    while step := sink.advance(time.monotonic() + 0.1):
        said.append(step)
    assert said[-1] == "HyperCore takes the uploaded disk apart"
    sink.commit()
    assert landing.finish(soon())


def test_an_upload_that_breaks_off_is_tried_again_and_leaves_nothing(
    world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted, connector = wish(world), world.connector()
    landing = connector.land(wanted, soon())
    world.cluster.breaks_uploads = 1
    with pytest.raises(SinkLost) as lost:
        fill(landing.open("disk"), disk)
    assert lost.value.retry
    # One whose mover died with it, so that nobody abandoned it:
    uploads.broken_off(world.cluster, {"filename": f"{image_prefix(OURS, wanted.key)}0-dead.qcow2"})
    connector.clear(wanted.key, soon())
    nothing_is_left(world, tmp_path)
    landed(connector, wanted, disk)


@pytest.mark.parametrize("fault", ["drop_before", "drop_after", "truncate"])
def test_an_upload_without_an_answer_is_lost_and_leaves_nothing(
    fault: str, world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted, connector = wish(world), world.connector()
    landing = connector.land(wanted, soon())
    world.faults.add(fault, "^PUT ")
    with pytest.raises(SinkLost):
        fill(landing.open("disk"), disk)
    connector.clear(wanted.key, soon())
    nothing_is_left(world, tmp_path)


def test_an_upload_whose_task_fails_is_lost_and_leaves_nothing(
    world: HyperCoreWorld, disk: Path, tmp_path: Path
) -> None:
    wanted, connector = wish(world), world.connector()
    world.faults.add("task_fails", "^Upload$")
    landing = connector.land(wanted, soon())
    with pytest.raises(SinkLost, match="uploading a disk failed"):
        fill(landing.open("disk"), disk)
    connector.clear(wanted.key, soon())
    nothing_is_left(world, tmp_path)


def test_a_disk_that_was_taken_away_meanwhile_is_no_whole_one(world: HyperCoreWorld, disk: Path) -> None:
    world.cluster.converting_s = 1_000.0
    sink = world.connector().land(wish(world), soon()).open("disk")
    assert isinstance(sink, Slow)
    while sink.advance(time.monotonic() + 0.5) != "HyperCore takes the uploaded disk apart":
        pass
    world.cluster.virtual_disks.clear()
    with pytest.raises(SinkLost, match="did not keep"):
        sink.commit()
    sink.abandon()


def test_a_session_that_ends_in_between_is_begun_anew(world: HyperCoreWorld, disk: Path, tmp_path: Path) -> None:
    for call in (
        "GET .*/Cluster",
        "PUT",
        "GET .*/VirtualDisk",
        "POST .*/VirDomain ",
        "POST .*/attach",
        "PATCH",
        "DELETE",
    ):
        world.faults.add("session_expires", call)
    wanted, connector = wish(world), world.connector()
    reference = landed(connector, wanted, disk)
    assert world.content(reference.id) == disk.read_bytes()
    nothing_is_left(world, tmp_path, machines=1)


def test_a_node_that_is_away_is_gone_round(world: HyperCoreWorld, disk: Path) -> None:
    connector = world.connector()
    connector.check(soon())
    world.nodes[0].cut_off()
    assert world.content(landed(connector, wish(world), disk).id) == disk.read_bytes()


def test_a_rights_role_that_is_missing_is_told_and_not_tried_again(world: HyperCoreWorld, disk: Path) -> None:
    landing: Landing = world.connector().land(wish(world), soon())
    world.cluster.roles = {"Read"}
    with pytest.raises(SinkRefused, match="roles do not allow"):
        fill(landing.open("disk"), disk)


def test_no_secret_is_in_anything_that_is_said(world: HyperCoreWorld, disk: Path) -> None:
    said = []
    for fault in ("drop_before", "status"):
        world.faults.add(fault, "^PUT ", status=500)
        landing = world.connector().land(wish(world, name=fault), soon())
        try:
            fill(landing.open("disk"), disk)
        except (DiskError, ConnectorError) as error:
            said += [str(error), repr(error), repr(landing)]
    assert said
    assert not [secret for secret in world.secrets if secret in "".join(said)]


# --- a template ------------------------------------------------------------------------------------------------------


def test_a_landed_template_is_listed_cloned_from_and_kept(world: HyperCoreWorld, disk: Path) -> None:
    connector, wanted = world.connector(), wish(world, is_template=True)
    made = landed(connector, wanted, disk)
    assert made.id not in {one.id for one in listing(connector).machines}
    holds = [disk.read_bytes()]
    templates.prove(world, connector, made, wanted.key, holds, lambda machine: [world.content(machine.id)])
    assert landed(world.connector(), wanted, disk) == made
    world.connector().clear(wanted.key, soon())
    assert world.content(made.id) == disk.read_bytes(), "a finished one is left alone"
