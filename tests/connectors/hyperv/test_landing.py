"""Machines brought up on Hyper-V hosts of the lab from recovery points: their bytes, their shape, what is left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from connectors.base import DeleteMachine, MachineRef, Power, PowerAction, SetPower, Stamp
from connectors.errors import Busy, CapacityExhausted, Conflict, HostDown, NotFound, Unreachable, Unsupported
from connectors.hyperv.connector import HypervConnector
from connectors.hyperv.landing import HostDisk
from connectors.replication import Landing, LandingWish, Lands
from disks.copying import copy
from disks.errors import OutOfSpace, SinkLost
from disks.raw import RawSource
from disks.vault.points import Configuration, Drive, Nic
from tests.connectors import templates
from tests.connectors.contract import OURS, do, finish, listing, new_key, soon
from tests.connectors.hyperv.replicating import (
    MIB,
    checkpoints,
    errands,
    is_same,
    noise,
    nothing_is_left,
    now,
    running,
    saved,
    take,
)
from tests.connectors.hyperv.worlds import HypervWorld

UEFI = Configuration(
    vcpus=2,
    memory_mib=2048,
    firmware="uefi",
    nics=(Nic("synthetic", "00:50:56:aa:bb:02", "VM Network"),),
    disks=(Drive("disk-0", "scsi", 24 * MIB),),
)


def wish(key: str = "", **changed: object) -> LandingWish:
    values: dict[str, object] = {"name": "landed", "configuration": UEFI, "storage": "D:\\", "networks": ("Office",)}
    return LandingWish(key=key or new_key(), **(values | changed))  # type: ignore[arg-type]


def disk_file(folder: Path, size: int = 24 * MIB, seed: int = 7) -> Path:
    """Something here and there, up to the last bytes."""
    path = folder / f"from-{size}-{seed}.raw"
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in ((0, b"boot" * 300), (size // 3, noise(300_000, seed)), (size - 512, b"the end " * 64)):
            file.seek(offset)
            file.write(data)
    return path


def pour(landing: Landing, name: str, raw: Path) -> None:
    source, sink = RawSource(raw), landing.open(name)
    try:
        copy(source, sink)
        sink.commit()
    except BaseException:
        sink.abandon()
        raise
    finally:
        source.close()


def landed(connector: HypervConnector, wanted: LandingWish, *raws: Path) -> tuple[MachineRef, Sequence[str]]:
    landing = connector.land(wanted, soon())
    for drive, raw in zip(wanted.configuration.disks, raws, strict=True):
        pour(landing, drive.name, raw)
    made = landing.finish(soon())
    landing.close()
    return made, landing.warnings


def hasty(connector: HypervConnector) -> HypervConnector:
    """One that gives up sooner."""
    connector.builder = dataclasses.replace(connector.builder, silence_s=1.0)
    return connector


def nothing_remains(world: HypervWorld) -> None:
    assert world.litter() == set()
    assert world.machines() == {}
    assert errands(world) == 0
    assert images(world) == []
    with world.world as there:
        held = {disk for it in there.machines.values() for disk in it.disks}
        assert set(there.disks) == held


def images(world: HypervWorld) -> list[str]:
    return sorted(file.name for file in world.workdir.iterdir() if "landing" in file.name)


# --- the machine -----------------------------------------------------------------------------------------------------


def test_a_landed_machine_holds_the_same_bytes_starts_and_answers(world: HypervWorld, tmp_path: Path) -> None:
    connector, raw = world.connector(), disk_file(tmp_path)
    assert isinstance(connector, Lands)
    wanted = wish()
    made, warnings = landed(connector, wanted, raw)
    assert warnings == ()
    assert is_same(now(world, made), raw.read_bytes())
    assert made.stamp == Stamp(OURS, wanted.key)
    assert world.machines() == {made.id: made.stamp}
    (seen,) = [it for it in listing(connector).machines if it.id == made.id]
    assert (seen.name, seen.power, seen.vcpus, seen.memory_mib, seen.stamp) == (
        "landed",
        Power.OFF,
        2,
        2048,
        made.stamp,
    )
    assert world.machine(made.id).nics[0].mac == "00:50:56:aa:bb:02"
    assert (images(world), errands(world)) == ([], 0)
    do(world, connector, SetPower(key=new_key(), machine=made, action=PowerAction.ON))
    world.world.clock.advance(10)
    (seen,) = [it for it in listing(connector).machines if it.id == made.id]
    assert seen.addresses
    do(world, connector, SetPower(key=new_key(), machine=made, action=PowerAction.OFF))
    do(world, connector, DeleteMachine(key=new_key(), machine=made))
    nothing_remains(world)


def test_what_was_landed_is_read_again_as_it_was(world: HypervWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), running(world, sizes_mib=(24, 8))
    then = [now(world, machine, disk) for disk in (0, 1)]
    point = take(connector, machine)
    landing = connector.land(wish(configuration=point.configuration), soon())
    for drive in point.configuration.disks:
        source, sink = point.open(drive.name), landing.open(drive.name)
        copy(source, sink)
        sink.commit()
    made = landing.finish(soon())
    point.close()
    landing.close()
    connector.release(machine, (), soon())
    again = take(connector, made)
    assert again.configuration.disks == point.configuration.disks
    for disk, drive in enumerate(again.configuration.disks):
        assert is_same(saved(again.open(drive.name), tmp_path / "again.raw")[0], then[disk])
    again.close()
    connector.release(made, (), soon())
    nothing_is_left(world, made)
    nothing_is_left(world, machine)


def test_twice_under_one_key_is_one_machine(world: HypervWorld, tmp_path: Path) -> None:
    raw, wanted = disk_file(tmp_path), wish()
    first, _ = landed(world.connector(), wanted, raw)
    again = world.connector().land(wanted, soon())
    assert again.is_done
    assert again.finish(soon()) == first
    with pytest.raises(Conflict, match="stands already"):
        again.open("disk-0")
    again.close()
    assert len(world.machines()) == 1
    assert is_same(now(world, first), raw.read_bytes())


def test_a_finish_whose_answer_is_lost_makes_one_machine(world: HypervWorld, tmp_path: Path) -> None:
    connector, wanted = world.connector(), wish()
    landing = connector.land(wanted, soon())
    pour(landing, "disk-0", disk_file(tmp_path))
    world.faults.add("drop_after", "Receive landing")
    with pytest.raises(Unreachable):
        landing.finish(soon())
    made = landing.finish(soon())
    landing.close()
    assert list(world.machines()) == [made.id]


def test_a_machine_with_bios_starts_from_ide_and_has_generation_1(world: HypervWorld, tmp_path: Path) -> None:
    drives = tuple(Drive(f"disk-{number}", "sata", 2 * MIB) for number in range(5))
    configuration = dataclasses.replace(UEFI, firmware="bios", disks=drives, nics=())
    raws = [disk_file(tmp_path, 2 * MIB, number) for number in range(5)]
    made, warnings = landed(world.connector(), wish(configuration=configuration, networks=()), *raws)
    marks = world.machine(made.id).marks
    assert marks["generation"] == 1
    assert marks["slots"] == ["ide-0-0", "ide-0-1", "ide-1-1", "scsi-0-0", "scsi-0-1"]
    assert [now(world, made, disk) for disk in range(5)] == [raw.read_bytes() for raw in raws]
    assert len(warnings) == 1
    assert "no more room on IDE" in warnings[0]


def test_what_cannot_be_kept_is_told(world: HypervWorld, tmp_path: Path) -> None:
    with world.world as there:
        taken = there.create("other").nics[0].mac
    configuration = dataclasses.replace(
        UEFI,
        memory_mib=2047,
        secure_boot=True,
        nics=(Nic("e1000", taken, ""), Nic("e1000", "", "")),
        disks=(Drive("vda", "virtio", 24 * MIB),),
    )
    made, warnings = landed(world.connector(), wish(configuration=configuration), disk_file(tmp_path))
    told = "\n".join(warnings)
    for words in ("Secure boot is off", "2048 MiB", f"{taken} is in use", "not known to boot", "it was e1000"):
        assert words in told
    assert len(warnings) == 6
    machine = world.machine(made.id)
    assert (machine.memory_mib, [nic.is_connected for nic in machine.nics]) == (2048, [True, False])
    assert machine.nics[0].mac != taken


def test_networks_may_be_vlans_or_nothing(world: HypervWorld, tmp_path: Path) -> None:
    connector = world.connector(vlans="Office: 20, 30")
    configuration = dataclasses.replace(UEFI, nics=UEFI.nics * 3)
    made, _ = landed(
        connector, wish(configuration=configuration, networks=("Office#30", "", "Lab")), disk_file(tmp_path)
    )
    machine = world.machine(made.id)
    assert [(nic.network, nic.is_connected) for nic in machine.nics] == [
        ("Office", True),
        ("Office", False),
        ("Lab", True),
    ]
    assert machine.marks["vlans"] == [30, 0, 0]
    point = take(connector, made)
    assert [nic.network for nic in point.configuration.nics] == ["Office#30", "", "Lab"]
    point.close()
    connector.release(made, (), soon())


# --- what it cannot do -----------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_in_words(world: HypervWorld) -> None:
    connector = world.connector()
    with pytest.raises(NotFound, match=r"no volume 'Z:\\\\' on HV1"):
        connector.land(wish(storage="Z:\\"), soon())
    with pytest.raises(NotFound, match="no network 'Basement' on host HV1"):
        connector.land(wish(networks=("Basement",)), soon())
    with pytest.raises(NotFound, match="no host 'HV9'"):
        connector.land(wish(host="HV9"), soon())
    with pytest.raises(CapacityExhausted, match="has 99 processors"):
        connector.land(wish(configuration=dataclasses.replace(UEFI, vcpus=99)), soon())
    with pytest.raises(Unsupported, match="holds no disk"):
        connector.land(wish(configuration=dataclasses.replace(UEFI, disks=())), soon())
    landing = connector.land(wish(), soon())
    with pytest.raises(NotFound, match="holds no disk 'disk-9'"):
        landing.open("disk-9")
    landing.close()


def test_a_machine_is_not_made_of_half_its_disks(world: HypervWorld) -> None:
    connector, wanted = world.connector(), wish()
    landing = connector.land(wanted, soon())
    with pytest.raises(Conflict, match="not there any more"):
        landing.finish(soon())
    landing.close()
    assert world.machines() == {}
    connector.clear(wanted.key, soon())
    nothing_remains(world)


def test_a_full_volume_is_told_and_nothing_is_left(world: HypervWorld, tmp_path: Path) -> None:
    connector, wanted = world.connector(), wish()
    landing = connector.land(wanted, soon())
    with world.world as there:
        there.fill("D:\\", leaving_mib=1)
    raw = tmp_path / "full.raw"
    raw.write_bytes(noise(24 * MIB, 5))
    with pytest.raises(OutOfSpace, match="No room for disk disk-0 on host HV1"):
        pour(landing, "disk-0", raw)
    landing.close()
    connector.clear(wanted.key, soon())
    nothing_remains(world)


# --- when things break -----------------------------------------------------------------------------------------------


def test_a_line_that_breaks_while_the_host_fetches_is_taken_up_again(world: HypervWorld, tmp_path: Path) -> None:
    raw = tmp_path / "noise.raw"
    raw.write_bytes(noise(24 * MIB, 9))
    rule = world.faults.add("drop_before", "pull", count=3, skip=3)
    made, _ = landed(world.connector(), wish(), raw)
    assert rule.struck == 3
    assert is_same(now(world, made), raw.read_bytes())


def test_the_host_fetches_while_the_image_is_written_and_a_slow_one_is_waited_for(
    world: HypervWorld, tmp_path: Path
) -> None:
    connector, raw = world.connector(), tmp_path / "noise.raw"
    raw.write_bytes(noise(64 * MIB, 9))
    # Blocks of 8 MiB: what QEMU chooses for disks of this size.
    connector.builder = dataclasses.replace(connector.builder, behind=8 * MIB, ahead=12 * MIB)
    landing = connector.land(wish(configuration=sized(64)), soon())
    source, opened = RawSource(raw), landing.open("disk-0")
    assert isinstance(opened, HostDisk)
    sink: HostDisk = opened
    most = 0

    class Watched:
        def write(self, offset: int, data: bytes) -> None:
            nonlocal most
            sink.write(offset, data)
            most = max(most, sink.gifts.waiting)

        def zero(self, offset: int, length: int) -> None:
            sink.zero(offset, length)

        def commit(self) -> None:
            sink.commit()

        def abandon(self) -> None:
            sink.abandon()

    copy(source, Watched())
    source.close()
    assert most <= 20 * MIB
    assert sink.gifts.waiting <= 20 * MIB + 8 * MIB
    sink.commit()
    made = landing.finish(soon())
    landing.close()
    assert is_same(now(world, made), raw.read_bytes())


def sized(mib: int) -> Configuration:
    return dataclasses.replace(UEFI, disks=(Drive("disk-0", "scsi", mib * MIB),))


def test_a_byte_that_changes_on_its_way_is_seen(world: HypervWorld, tmp_path: Path) -> None:
    connector, wanted = world.connector(), wish()
    landing = connector.land(wanted, soon())
    world.faults.add("truncate", "pull", skip=1)
    with pytest.raises(SinkLost, match="is not what the mover sent"):
        pour(landing, "disk-0", disk_file(tmp_path))
    pour(landing, "disk-0", disk_file(tmp_path))
    made = landing.finish(soon())
    landing.close()
    assert is_same(now(world, made), disk_file(tmp_path).read_bytes())


def test_a_host_whose_last_word_is_lost_is_asked(world: HypervWorld, tmp_path: Path) -> None:
    connector = hasty(world.connector())
    rule = world.faults.add("drop_after", "pull", count=-1)
    made, _ = landed(connector, wish(), disk_file(tmp_path))
    assert rule.struck == 1
    assert is_same(now(world, made), disk_file(tmp_path).read_bytes())


@pytest.mark.parametrize("kind", ["task_fails", "drop_before"])
def test_a_transfer_that_fails_is_told_and_clearing_leaves_nothing(
    world: HypervWorld, tmp_path: Path, kind: str
) -> None:
    connector, wanted = hasty(world.connector()), wish()
    landing = connector.land(wanted, soon())
    world.faults.add(kind, "pull", count=-1)
    with pytest.raises(SinkLost, match="Writing disk disk-0 on host HV1 broke off") as lost:
        pour(landing, "disk-0", disk_file(tmp_path))
    assert lost.value.retry
    landing.close()
    world.faults.clear()
    for _ in range(2):
        world.connector().clear(wanted.key, soon())
        nothing_remains(world)


def test_a_copy_that_is_abandoned_leaves_no_image_here(world: HypervWorld, tmp_path: Path) -> None:
    connector, wanted = world.connector(), wish()
    landing = connector.land(wanted, soon())
    sink = landing.open("disk-0")
    sink.write(0, b"x" * 4096)
    assert images(world)
    (errand,) = world.server.host.errands.known.values()
    sink.abandon()
    sink.abandon()
    assert errand.ended.wait(30)  # the host is told
    landing.close()
    assert images(world) == []
    connector.clear(wanted.key, soon())
    nothing_remains(world)


def test_after_a_crash_another_attempt_begins_anew(world: HypervWorld, tmp_path: Path) -> None:
    """One disk was whole on the host, another half written here, when the mover died."""
    drives = tuple(Drive(f"disk-{number}", "scsi", 2 * MIB) for number in range(2))
    wanted = wish(configuration=dataclasses.replace(UEFI, disks=drives))
    old, new = (disk_file(tmp_path, 2 * MIB, seed) for seed in (1, 2))
    dead = world.connector().land(wanted, soon())
    pour(dead, "disk-0", old)
    half = dead.open("disk-1")
    half.write(0, b"half" * 128)
    made, _ = landed(world.connector(), wanted, new, new)
    assert [now(world, made, disk) for disk in (0, 1)] == [new.read_bytes()] * 2
    assert (len(world.machines()), images(world), world.litter()) == (
        1,
        [],
        {f"D:\\Deskyard\\{wanted.key}\\disk{number}.vhdx" for number in range(2)},
    )
    with pytest.raises(SinkLost):
        pour(dead, "disk-1", old)
    assert [now(world, made, disk) for disk in (0, 1)] == [new.read_bytes()] * 2
    half.abandon()
    dead.close()


def test_a_mover_that_wakes_up_after_the_clearing_brings_nothing_back(world: HypervWorld, tmp_path: Path) -> None:
    connector, wanted = world.connector(), wish()
    frozen = connector.land(wanted, soon())
    world.connector().clear(wanted.key, soon())
    with pytest.raises(SinkLost):
        pour(frozen, "disk-0", disk_file(tmp_path))
    with pytest.raises(Conflict):
        frozen.finish(soon())
    frozen.close()
    nothing_remains(world)


def test_clearing_leaves_a_finished_machine_and_somebody_elses_alone(world: HypervWorld, tmp_path: Path) -> None:
    raw, wanted = disk_file(tmp_path), wish()
    mine, _ = landed(world.connector(), wanted, raw)
    world.connector(installation="somebody-else").clear(wanted.key, soon())
    world.connector().clear(wanted.key, soon())
    assert list(world.machines()) == [mine.id]
    assert is_same(now(world, mine), raw.read_bytes())


def test_a_host_that_hangs_costs_no_more_than_the_deadline(world: HypervWorld) -> None:
    connector = world.connector()
    connector.clear(new_key(), soon())
    world.faults.add("hang", "Receive landing")
    began_at = time.monotonic()
    with pytest.raises((Busy, Unreachable)):
        connector.land(wish(), time.monotonic() + 1.5)
    assert time.monotonic() < began_at + 6


def test_bytes_of_disks_do_not_go_over_winrm(world: HypervWorld, tmp_path: Path) -> None:
    raw = tmp_path / "noise.raw"
    raw.write_bytes(noise(24 * MIB, 9))
    landed(world.connector(), wish(), raw)
    assert sum(len(seen.body) for seen in world.server.requests) < 300_000


# --- clusters --------------------------------------------------------------------------------------------------------


def test_on_a_cluster_the_freest_node_or_the_wished_one_makes_it(cluster: HypervWorld, tmp_path: Path) -> None:
    raw = disk_file(tmp_path, 2 * MIB)
    volume = "C:\\ClusterStorage\\Volume1"
    configuration = dataclasses.replace(UEFI, disks=(Drive("disk-0", "scsi", 2 * MIB),))
    running(cluster, host="HV1", sizes_mib=(8,))
    running(cluster, host="HV2", sizes_mib=(8,))
    free, _ = landed(cluster.connector(), wish(configuration=configuration, storage=volume), raw)
    assert cluster.machine(free.id).host == "HV3"
    wanted = wish(configuration=configuration, storage=volume, host="hv2")
    chosen, _ = landed(cluster.connector(), wanted, raw)
    assert cluster.machine(chosen.id).host == "HV2"
    again = cluster.connector().land(dataclasses.replace(wanted, host=None), soon())
    assert again.is_done
    assert again.finish(soon()) == chosen
    assert finish(cluster, cluster.connector(), DeleteMachine(key=new_key(), machine=chosen)).error is None


def test_what_an_attempt_left_on_another_node_goes_too(cluster: HypervWorld, tmp_path: Path) -> None:
    raw = disk_file(tmp_path, 2 * MIB)
    configuration = dataclasses.replace(UEFI, disks=(Drive("disk-0", "scsi", 2 * MIB),))
    wanted = wish(configuration=configuration, storage="C:\\ClusterStorage\\Volume1", host="HV1")
    dead = cluster.connector().land(wanted, soon())
    pour(dead, "disk-0", raw)
    dead.close()
    assert errands(cluster) == 1
    made, _ = landed(cluster.connector(), dataclasses.replace(wanted, host="HV2"), raw)
    assert (list(cluster.machines()), errands(cluster)) == ([made.id], 0)


def test_a_node_that_does_not_answer_may_have_the_machine_already(cluster: HypervWorld) -> None:
    cluster.servers[2].cut_off()
    wanted = wish(storage="C:\\ClusterStorage\\Volume1")
    with pytest.raises(HostDown):
        cluster.connector().land(wanted, soon())
    with pytest.raises(HostDown):
        cluster.connector().clear(wanted.key, soon())
    assert not cluster.estate.homes


# --- a template ------------------------------------------------------------------------------------------------------


def test_a_landed_template_is_listed_cloned_from_and_kept(world: HypervWorld, tmp_path: Path) -> None:
    connector, raw, wanted = world.connector(), disk_file(tmp_path), wish(is_template=True)
    made, _ = landed(connector, wanted, raw)
    assert made.id not in {it.id for it in listing(connector).machines}
    templates.prove(world, connector, made, wanted.key, [raw.read_bytes()], lambda machine: [now(world, machine)])
    again = world.connector().land(wanted, soon())
    assert again.is_done
    assert again.finish(soon()) == made
    again.close()
    world.connector().clear(wanted.key, soon())
    assert is_same(now(world, made), raw.read_bytes())


def test_a_landed_template_is_read_as_it_stands(world: HypervWorld, tmp_path: Path) -> None:
    """A checkpoint of it would be merged into the disk that its clones hang from."""
    connector, raw = world.connector(), disk_file(tmp_path)
    made, _ = landed(connector, wish(is_template=True), raw)
    point = take(connector, made)
    assert checkpoints(world, made) == []
    assert is_same(saved(point.open("scsi-0-0"), tmp_path / "read.raw")[0], raw.read_bytes())
    point.close()
    connector.release(made, (), soon())
    nothing_is_left(world, made)
