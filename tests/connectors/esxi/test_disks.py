"""Points of machines, read by parts of flat files or whole by a lease: what is in them, and what stays behind."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.base import MachineRef, Stage, Stamp
from connectors.errors import Busy, Conflict, NotFound, PlatformFault, Unsupported
from connectors.esxi import disks, names
from connectors.replication import Bookmark, Consistency, PointWish, Replicates
from disks.copying import copy
from disks.errors import DiskError, SourceLost, SourceRefused
from disks.vault.folder import FolderStore
from disks.vault.points import Drive, Origin, RecoveryPoint
from disks.vault.vault import Vault
from tests.connectors.contract import OURS, clone, finish, made, new_key, ref, soon, submit
from tests.connectors.esxi.points import (
    MIB,
    advance,
    laid_over,
    machine_with,
    noise,
    now,
    power_off,
    release,
    saved,
    snapshots,
    take,
    there,
    write,
)
from tests.connectors.esxi.worlds import EsxiWorld

DISK = "scsi0:0"


def kept(bookmark: Bookmark | None) -> list[Bookmark]:
    assert bookmark is not None
    return [bookmark]


def theirs(world: EsxiWorld, machine: MachineRef, name: str = "theirs") -> None:
    """A snapshot that somebody else takes."""
    with world.world as within:
        within.take_snapshot(machine.id, name, "before the update")


def until(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


# --- bytes -----------------------------------------------------------------------------------------------------------


def test_a_point_stays_what_the_disk_was_though_the_machine_writes_on(world: EsxiWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), machine_with(world)
    assert isinstance(connector, Replicates)
    before = now(world, machine)
    point = take(connector, machine)
    write(world, machine, 0, noise(300_000, 99))
    assert now(world, machine) != before
    copied = saved(point.open(DISK), tmp_path / "copy.raw")
    assert copied == before
    assert bytes([copied[40] ^ 1]).join([copied[:40], copied[41:]]) != before, "one bit is seen"
    assert not [seen for seen in world.methods() if seen == "ExportSnapshot"], "it was read by parts"
    release(connector, machine)
    assert snapshots(world, machine) == []
    assert now(world, machine)[:300_000] == noise(300_000, 99), "the machine keeps what it wrote"


def test_five_points_in_a_vault_are_each_what_the_disk_was_and_cost_what_changed(
    vcenter: EsxiWorld, tmp_path: Path
) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter, 64)
    (tmp_path / "vault").mkdir()
    vault = Vault.create(FolderStore(tmp_path / "vault"))
    base: RecoveryPoint | None = None
    bookmark: Bookmark | None = None
    points: list[tuple[RecoveryPoint, bytes]] = []
    for number in range(5):
        write(vcenter, machine, number * 11 * MIB + 123, noise(512 << 10, number))
        before = now(vcenter, machine)
        point = take(connector, machine, bookmark)
        assert (point.whole == "") == (number > 0), point.whole
        write(vcenter, machine, 3 * MIB, noise(4096, 50 + number))  # goes into the next one
        run = vault.begin(OURS, machine.id, base)
        sink, source = run.disk(DISK, 64 * MIB), point.open(DISK)
        moved = copy(source, sink).moved
        source.close()
        sink.commit()
        assert number == 0 or moved < 2 * MIB, moved
        base = run.commit(
            origin=Origin(machine.id, point.name), configuration=point.configuration, read_at=point.taken_at
        )
        points.append((base, before))
        bookmark = point.bookmark
        release(connector, machine, kept(bookmark))
    for number, (point_then, before) in enumerate(points):
        assert saved(vault.open_disk(point_then, DISK), tmp_path / f"{number}.raw") == before


def test_a_second_point_without_writes_between_names_next_to_nothing(world: EsxiWorld) -> None:
    connector, machine = world.connector(), machine_with(world)
    first = take(connector, machine)
    release(connector, machine, kept(first.bookmark))
    source = take(connector, machine, first.bookmark).open(DISK)
    assert sum(extent.length for extent in source.extents()) < source.size * 0.02
    source.close()


def test_areas_that_vsphere_tells_page_by_page_are_all_read(vcenter: EsxiWorld) -> None:
    vcenter.server.tracking.page = 1
    connector, machine = vcenter.connector(), machine_with(vcenter)
    base = bytearray(now(vcenter, machine))
    first = take(connector, machine)
    for place in (0, 5, 9, 15):
        write(vcenter, machine, place * MIB + 5, noise(3000, place))
    second = take(connector, machine, first.bookmark)
    moved = laid_over(second.open(DISK), base)
    assert bytes(base) == now(vcenter, machine)
    assert moved.moved < MIB
    laid = bytearray(noise(16 * MIB))
    laid_over(take(connector, machine).open(DISK), laid)
    assert bytes(laid) == now(vcenter, machine), "what is not in use is named as zeros"


def test_a_linked_clone_is_read_whole_with_all_that_it_hangs_from(world: EsxiWorld, tmp_path: Path) -> None:
    connector = world.connector()
    machine = ref(world, made(world, connector, clone(world, linked=True)))
    with world.world as within:
        size = within.disks[within.machines[machine.id].disks[0]].capacity
    write(world, machine, 5, noise(100_000))
    before = take(connector, machine)
    write(world, machine, 5, noise(100_000, 2))
    assert "vSphere gives such disks whole only" in before.whole
    assert before.bookmark is None
    source = before.open(DISK)
    assert source.size == size
    assert source.read(5, 100_000) == noise(100_000)
    with world.world as within:
        for area in within.allocated(within.machines[machine.id].disks[0]):
            if area.offset >= MIB:
                told = source.read(area.offset, min(area.length, MIB))
                assert told == within.read(within.machines[machine.id].disks[0], area.offset, len(told))
    source.close()
    release(connector, machine)
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".vmdk"]


def test_several_disks_are_of_one_moment_and_each_is_itself(world: EsxiWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), machine_with(world, 8, 16, 24)
    theirs(world, machine)  # so that they are fetched whole, each by its own address
    before = [now(world, machine, number) for number in range(3)]
    point = take(connector, machine, disks=["scsi0:2", "scsi0:1"])
    assert [disk.name for disk in point.configuration.disks] == ["scsi0:1", "scsi0:2"]
    for number in (1, 2):
        assert saved(point.open(f"scsi0:{number}"), tmp_path / f"{number}.raw") == before[number]
    with pytest.raises(NotFound, match="holds no disk"):
        point.open("scsi0:0")


def test_a_point_says_what_the_machine_is(world: EsxiWorld) -> None:
    machine = machine_with(world, 8, 16)
    point = take(world.connector(), machine)
    found = point.configuration
    assert point.name == "work"
    assert (found.vcpus, found.memory_mib, found.firmware, found.secure_boot) == (3, 3072, "uefi", False)
    assert found.disks == (Drive("scsi0:0", "pvscsi", 8 * MIB), Drive("scsi0:1", "pvscsi", 16 * MIB))
    (nic,) = found.nics
    assert (nic.model, nic.network, nic.mac) == ("vmxnet3", "VM Network", there(world, machine).nics[0].mac)


# --- how still the guest held ----------------------------------------------------------------------------------------


def test_a_guest_with_tools_holds_still(vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    assert take(vcenter.connector(), machine).consistency is Consistency.GUEST


def test_a_guest_that_cannot_hold_still_is_as_after_a_power_cut(vcenter: EsxiWorld) -> None:
    vcenter.server.quiesces = False
    machine = machine_with(vcenter)
    assert take(vcenter.connector(), machine).consistency is Consistency.CRASH
    assert snapshots(vcenter, machine) == [names.POINT]


def test_a_guest_that_takes_for_ever_is_waited_for_only_so_long(
    vcenter: EsxiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "QUIESCE_S", 0.5)
    machine = machine_with(vcenter)
    take(vcenter.connector(), machine)
    vcenter.faults.add("task_hangs", "^VirtualMachine.createSnapshot$")
    assert take(vcenter.connector(), machine).consistency is Consistency.CRASH
    assert snapshots(vcenter, machine) == [names.POINT]


def test_a_machine_that_is_off_wrote_nothing(world: EsxiWorld, tmp_path: Path) -> None:
    machine = machine_with(world, is_on=False)
    point = take(world.connector(), machine)
    assert point.consistency is Consistency.OFF
    assert saved(point.open(DISK), tmp_path / "copy.raw") == now(world, machine)


# --- why everything is read ------------------------------------------------------------------------------------------


def test_the_first_point_says_that_change_tracking_was_switched_on(world: EsxiWorld) -> None:
    connector, machine = world.connector(), machine_with(world)
    first = take(connector, machine)
    assert first.whole.startswith("It is the first point. ")
    assert "held for a moment" in first.whole
    assert first.bookmark is not None
    second = take(connector, machine)
    assert second.whole == "It is the first point."


def test_a_history_that_broke_means_that_everything_is_read_and_it_says_so(vcenter: EsxiWorld, tmp_path: Path) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter)
    first = take(connector, machine)
    release(connector, machine, kept(first.bookmark))
    with vcenter.world as within:
        within.forget_changes(there(vcenter, machine).disks[0])  # the host crashed
    second = take(connector, machine, first.bookmark)
    assert "cannot tell any more" in second.whole
    assert saved(second.open(DISK), tmp_path / "copy.raw") == now(vcenter, machine)
    third = take(connector, machine, second.bookmark)
    assert third.whole == ""


def test_a_disk_that_the_last_point_did_not_hold_is_read_whole(vcenter: EsxiWorld) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter, 8, 8)
    first = take(connector, machine, disks=[DISK])
    assert take(connector, machine, first.bookmark).whole == "The last point did not hold disk scsi0:1."


@pytest.mark.parametrize("hindrance", ["no parts", "no areas", "no right", "no tracking", "other snapshots"])
def test_where_parts_cannot_be_read_all_of_it_is_fetched_and_the_reason_told(
    hindrance: str, vcenter: EsxiWorld, tmp_path: Path
) -> None:
    server, machine = vcenter.server, machine_with(vcenter)
    match hindrance:
        case "no parts":
            server.folder.gives_parts = False
            words = "gives no parts of"
        case "no areas":
            server.tracking.tells_allocated = False
            words = "It is the first point."
        case "no right":
            vcenter.world.forbidden.add("Datastore.Browse")
            words = "HTTP 403"
        case "no tracking":
            server.tracking.is_supported = False
            words = "too old for vSphere to note what changes"
        case _:
            theirs(vcenter, machine)
            words = "a machine that has snapshots"
    before = now(vcenter, machine)
    point = take(vcenter.connector(), machine)
    assert words in point.whole
    write(vcenter, machine, 0, noise(5000, 9))
    assert saved(point.open(DISK), tmp_path / "copy.raw") == before
    assert (point.bookmark is None) == (hindrance in ("no tracking", "other snapshots"))


# --- what stays behind -----------------------------------------------------------------------------------------------


def test_others_snapshots_are_neither_removed_nor_taken_for_ours(world: EsxiWorld) -> None:
    machine = machine_with(world)
    take(world.connector("another-installation"), machine)
    theirs(world, machine)
    connector = world.connector()
    take(connector, machine)
    for _ in range(2):
        release(connector, machine)
        assert snapshots(world, machine) == [names.POINT, "theirs"]


def test_whatever_becomes_of_the_mover_releasing_leaves_nothing(world: EsxiWorld) -> None:
    machine = machine_with(world)
    take(world.connector(), machine)  # and nobody ever hears of it again
    assert snapshots(world, machine) == [names.POINT]
    for _ in range(2):
        release(world.connector(), machine)
        assert snapshots(world, machine) == []


def test_a_point_taken_while_an_earlier_one_was_never_released_ends_that_one(vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    take(vcenter.connector(), machine)
    second = take(vcenter.connector(), machine)
    assert snapshots(vcenter, machine) == [names.POINT]
    source = second.open(DISK)
    assert len(source.read(0, 512)) == 512
    source.close()


def test_a_point_that_was_still_being_taken_when_its_mover_died_is_waited_for(vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    take(vcenter.connector(), machine)
    release(vcenter.connector(), machine)
    vcenter.world.task_s["VirtualMachine.createSnapshot"] = 120.0
    with pytest.raises(Busy):
        vcenter.connector().take_point(PointWish(machine=machine, key=new_key()), soon(1))
    assert snapshots(vcenter, machine) == []
    release(vcenter.connector(), machine)
    assert not vcenter.world.tasks[list(vcenter.world.tasks)[-1]].error
    assert snapshots(vcenter, machine) == []
    vcenter.clock.advance(500)
    assert snapshots(vcenter, machine) == [], "it does not come afterwards"


def test_a_removal_that_fails_is_made_up_for(vcenter: EsxiWorld) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter)
    take(connector, machine)
    vcenter.faults.add("task_fails", "^VirtualMachine.removeSnapshot$")
    with pytest.raises(PlatformFault, match="Releasing a point failed"):
        release(connector, machine)
    release(connector, machine)
    assert snapshots(vcenter, machine) == []


def test_disks_that_a_removal_left_are_merged(vcenter: EsxiWorld) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter)
    take(connector, machine)
    vcenter.server.leaves_deltas = True
    write(vcenter, machine, 0, b"written on")
    release(connector, machine)
    assert "ConsolidateVMDisks_Task" in vcenter.methods()
    assert snapshots(vcenter, machine) == []
    assert now(vcenter, machine).startswith(b"written on")


def test_a_session_that_ends_is_renewed_while_a_disk_is_read(world: EsxiWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), machine_with(world)
    point = take(connector, machine)
    source = point.open(DISK)
    assert source.read(0, 1000) == now(world, machine)[:1000]
    world.server.expire_sessions()
    assert source.read(MIB, 1000) == now(world, machine)[MIB : MIB + 1000]
    world.server.expire_sessions()
    assert saved(source, tmp_path / "copy.raw") == now(world, machine)
    world.server.expire_sessions()
    release(connector, machine)
    assert snapshots(world, machine) == []


# --- broken wires ----------------------------------------------------------------------------------------------------


def test_a_part_that_is_cut_short_is_asked_for_again_and_twice_ends_the_copy(world: EsxiWorld) -> None:
    machine = machine_with(world)
    source = take(world.connector(), machine).open(DISK)
    world.faults.add("truncate", "^GET /folder")
    assert source.read(MIB, MIB) == now(world, machine)[MIB : 2 * MIB]
    world.faults.add("truncate", "^GET /folder", count=2)
    with pytest.raises(SourceLost) as lost:
        source.read(MIB, MIB)
    assert lost.value.retry
    source.close()


def test_a_disk_whose_fetching_is_cut_leaves_nothing(world: EsxiWorld, tmp_path: Path) -> None:
    connector, machine = world.connector(), machine_with(world)
    theirs(world, machine)
    point = take(connector, machine)
    world.faults.add("truncate", "^GET /nfc")
    source = point.open(DISK)
    with pytest.raises(DiskError) as lost:
        source.read(0, 512)
    assert lost.value.retry
    source.close()
    assert not [file for file in tmp_path.iterdir() if file.suffix == ".vmdk"]
    assert saved(point.open(DISK), tmp_path / "copy.raw") == now(world, machine)
    release(connector, machine)
    assert snapshots(world, machine) == ["theirs"]


@pytest.mark.parametrize("tells", [True, False], ids=["vSphere tells how much it was", "it does not"])
def test_a_disk_that_ends_too_early_and_looks_whole_is_not_taken_for_one(tells: bool, vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    theirs(vcenter, machine)
    source = take(vcenter.connector(), machine).open(DISK)
    vcenter.server.leases.stops_early, vcenter.server.leases.tells_manifest = True, tells
    with pytest.raises(SourceLost, match="not all arrived" if tells else "did not arrive whole"):
        source.read(0, 512)
    source.close()


def test_a_lease_is_kept_alive_however_long_the_fetching_takes(vcenter: EsxiWorld, tmp_path: Path) -> None:
    machine = machine_with(vcenter)
    theirs(vcenter, machine)
    point = take(vcenter.connector(), machine)
    leases = vcenter.server.leases
    vcenter.clock.speed = 1.0
    leases.timeout_s = 1.0
    leases.flowing.clear()
    found: list[bytes] = []
    fetching = threading.Thread(target=lambda: found.append(saved(point.open(DISK), tmp_path / "copy.raw")))
    fetching.start()
    until(lambda: any(len(lease.told) > 8 for lease in leases.there.values()))  # longer than a lease lasts
    leases.flowing.set()
    fetching.join(20)
    assert found == [now(vcenter, machine)]


def test_a_host_that_shows_another_certificate_than_vcenter_tells_gets_nothing(vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    theirs(vcenter, machine)
    point = take(vcenter.connector(), machine)
    vcenter.server.leases.told_thumbprint = "AB:" * 19 + "AB"
    source = point.open(DISK)
    with pytest.raises(SourceRefused, match="another certificate"):
        source.read(0, 512)
    source.close()
    assert not vcenter.server.leases.host.requests


def test_a_point_that_somebody_removed_is_an_end_that_is_lost(vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    source = take(vcenter.connector(), machine).open(DISK)
    with vcenter.world as within:
        within.delete_snapshot(machine.id, next(iter(within.machines[machine.id].snapshots)))
    with pytest.raises(SourceLost):
        list(source.extents())
    source.close()


def test_a_call_keeps_its_deadline_though_vsphere_hangs(vcenter: EsxiWorld) -> None:
    machine = machine_with(vcenter)
    vcenter.faults.add("task_hangs", "^VirtualMachine.reconfigure$", count=-1)
    began = time.monotonic()
    with pytest.raises(Busy):
        vcenter.connector().take_point(PointWish(machine=machine, key=new_key()), began + 2)
    assert time.monotonic() - began < 3


# --- what cannot be replicated ---------------------------------------------------------------------------------------


def test_what_cannot_be_replicated_is_said_in_words(world: EsxiWorld) -> None:
    connector, machine = world.connector(), machine_with(world, 8, 8)
    with pytest.raises(NotFound, match="has no disk 'scsi7:7'"):
        take(connector, machine, disks=["scsi7:7"])
    with pytest.raises(Conflict, match="somebody else may own it"):
        take(connector, MachineRef(machine.id, Stamp(OURS, new_key())))
    with pytest.raises(NotFound, match="not on"):
        take(connector, MachineRef(new_key()))
    with world.world:
        there(world, machine).marks["modes"] = {"1": "independent_persistent"}
    with pytest.raises(Unsupported, match=r"Disk scsi0:1 of 'work' cannot be replicated: it is independent"):
        take(connector, machine)
    assert take(connector, machine, disks=[DISK]).configuration.disks == (Drive(DISK, "pvscsi", 8 * MIB),)
    release(connector, machine)
    assert snapshots(world, machine) == []


def test_a_machine_that_is_gone_has_nothing_to_release_and_its_namesake_is_left_alone(world: EsxiWorld) -> None:
    connector, machine = world.connector(), machine_with(world)
    point = take(connector, machine)
    power_off(world, machine)
    world.remove(machine.id)
    namesake = machine_with(world)
    theirs(world, namesake)
    release(connector, machine)
    with pytest.raises(NotFound):
        take(connector, machine, point.bookmark)
    assert snapshots(world, namesake) == ["theirs"]


def test_without_libnbd_the_connector_works_and_says_what_is_missing(
    vcenter: EsxiWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_with(vcenter)
    for module in ("images", "nbd"):
        monkeypatch.delitem(sys.modules, f"disks.{module}", raising=False)
        monkeypatch.delattr(f"disks.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(Unsupported, match="python3-libnbd"):
        take(vcenter.connector(), machine)
    assert snapshots(vcenter, machine) == []


def test_fetching_goes_on_in_slices_and_what_was_begun_is_given_up_when_nobody_wants_it(
    vcenter: EsxiWorld, tmp_path: Path
) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter)
    theirs(vcenter, machine)
    point = take(connector, machine)
    source = point.open(DISK)
    words = advance(source)
    assert words.startswith("Fetches disk scsi0:0")
    assert list(tmp_path.glob("*.vmdk"))
    source.close()
    assert not list(tmp_path.glob("*.vmdk"))
    release(connector, machine)  # no lease is in its way
    assert snapshots(vcenter, machine) == ["theirs"]
    point = take(connector, machine)
    source = point.open(DISK)
    while advance(source):
        pass
    assert saved(source, tmp_path / "copy.raw") == now(vcenter, machine)


# --- templates -------------------------------------------------------------------------------------------------------


def test_what_is_marked_as_a_template_is_read_without_a_snapshot(vcenter: EsxiWorld, tmp_path: Path) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter, 8, 16, is_on=False)
    with vcenter.world:
        there(vcenter, machine).is_template = True
    point = take(connector, machine)
    assert (point.consistency, point.bookmark) == (Consistency.OFF, None)
    assert "It is a template" in point.whole
    assert saved(point.open("scsi0:1"), tmp_path / "copy.raw") == now(vcenter, machine, 1)
    release(connector, machine)
    assert "CreateSnapshot_Task" not in vcenter.methods()


def test_a_machine_that_became_a_template_keeps_its_point_and_it_says_so(vcenter: EsxiWorld) -> None:
    connector, machine = vcenter.connector(), machine_with(vcenter, is_on=False)
    take(connector, machine)
    with vcenter.world:
        there(vcenter, machine).is_template = True
    with pytest.raises(Conflict, match="Convert it to a machine"):
        release(connector, machine)


def test_no_linked_clone_ever_hangs_from_a_point(world: EsxiWorld) -> None:
    """It goes when the point is released."""
    connector, machine = world.connector(), machine_with(world, is_on=False)
    order = dataclasses.replace(clone(world, linked=True), template=machine.id)
    take(connector, machine)
    waits = submit(connector, [order])[order.key]
    assert (waits.stage, waits.step) == (Stage.RUNNING, "Waiting until the template has been replicated")
    release(connector, machine)
    done = finish(world, connector, order, waits)
    assert done.stage is Stage.DONE, done.error
    take(connector, machine)
    second = made(world, connector, dataclasses.replace(clone(world, linked=True), template=machine.id))
    release(connector, machine)
    assert snapshots(world, machine) == [names.BASE_SNAPSHOT]
    with world.world as within:
        assert within.read(within.machines[second.machine_id].disks[0], 0, 1000) == now(world, machine)[:1000]
